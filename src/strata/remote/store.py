"""A store in another process: `Store` and what it gives, each call one request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, cast

import msgspec

from strata.core.errors import OutcomeUnknown, TransactionLost
from strata.core.protocols import (
    Branch,
    BranchInfo,
    Commit,
    Diff,
    DiffRow,
    ErasureRow,
    How,
    IndexRow,
    Layout,
    PolicyRow,
    ReadRow,
    Snapshot,
    Tag,
    Transaction,
    Txn,
    Written,
)
from strata.remote.channel import Channel, Lost, encoded
from strata.remote.link import Bound, Link, Thing
from strata.remote.txn import AutomaticTxn, InsideTxn, ViewTxn
from strata.wire.asks import WAIT_S_MAX
from strata.wire.frames import decode_body

Progress = Callable[[int, int], object]
_GATHERED_BYTES: Final = 4 << 20  # of what goes with a commit; more goes in front of it
_STOP_S: Final = 0.1  # how long a wait does not ask whether to go on


class RemoteStore(Thing):
    """One database, through a link."""

    __slots__ = ()

    KIND = "store"

    def __init__(self, link: Link) -> None:
        super().__init__(link, None, "", ())

    def _find(self, channel: Channel) -> int:
        return 0

    def branch(self, name: str, /) -> Branch:
        return RemoteBranch(self, name)

    def branches(self) -> list[BranchInfo]:
        return [BranchInfo(**found) for found in self._call("branches")]

    def snapshot(self, branch: int, version: int, /) -> Snapshot:
        return RemoteSnapshot(self, "snapshot", (branch, version))

    def create(self, name: str, /) -> int:
        return int(self._call("create", name))

    def fork(self, source: str, name: str, at: int | None = None, /) -> int:
        return int(self._call("fork", source, name, at))

    def rename(self, old: str, new: str, /) -> int:
        return int(self._call("rename", old, new))

    def delete(self, name: str, /) -> int:
        return int(self._call("delete", name))

    def seal(self, name: str, reason: str | None, protected: bool = False, /) -> int:
        return int(self._call("seal", name, reason, protected))

    def tag(self, name: str, branch: str, version: int | None = None, note: str | None = None, /) -> int:
        return int(self._call("tag", name, branch, version, note))

    def untag(self, name: str, /) -> int:
        return int(self._call("untag", name))

    def tags(self) -> list[Tag]:
        return [Tag(**found) for found in self._call("tags")]

    @property
    def durable_version(self) -> int:
        return int(self._call("durable_version"))

    def flush(self) -> int:
        return int(self._call("flush"))

    def outcome(self, transaction: str, /) -> Literal["committed", "lost"]:
        return cast(Literal["committed", "lost"], self._call("outcome", transaction))

    def checkpoint(self) -> dict[str, int]:
        return cast(dict[str, int], self._call("checkpoint"))

    def compact(self, progress: Progress | None = None, /) -> dict[str, int]:
        return cast(dict[str, int], self._call("compact", progress=progress))

    def rotate_key(self, key: bytes | None, progress: Progress | None = None, /) -> dict[str, int]:
        return cast(dict[str, int], self._call("rotate_key", key, progress=progress))

    def policies(self) -> list[PolicyRow]:
        return _tuples(self._call("policies"))

    def set_policy(
        self,
        branch: str | None,
        space: str | None,
        kind: str | None,
        last: int | None,
        for_us: int | None,
        needs_both: bool,
        /,
    ) -> None:
        self._call("set_policy", branch, space, kind, last, for_us, needs_both)

    def clear_policy(self, branch: str | None, space: str | None, kind: str | None, /) -> bool:
        return bool(self._call("clear_policy", branch, space, kind))

    def indexes(self) -> list[IndexRow]:
        return _tuples(self._call("indexes"))

    def create_index(self, name: str, space: str, kind: str, prefix: bytes, spec: dict[str, Any], /) -> None:
        self._call("create_index", name, space, kind, prefix, spec)

    def drop_index(self, name: str, /) -> bool:
        return bool(self._call("drop_index", name))

    def rebuild_indexes(self, progress: Progress | None = None, /) -> None:
        self._call("rebuild_indexes", progress=progress)

    def forget(self, rows: Sequence[ErasureRow], /) -> dict[str, int]:
        return cast(dict[str, int], self._call("forget", list(rows)))

    def info(self) -> dict[str, Any]:
        return cast(dict[str, Any], self._call("info"))

    def verify(self, progress: Progress | None = None, /) -> dict[str, Any]:
        found = cast(dict[str, Any], self._call("verify", progress=progress))
        return {**found, "problems": _tuples(found["problems"])}

    def backup(self, to: str, progress: Progress | None = None, /) -> dict[str, int]:
        return cast(dict[str, int], self._call("backup", to, progress=progress))

    def export(
        self,
        path: str,
        branch: str | None = None,
        history: bool = False,
        keys: list[bytes] | None = None,
        /,
    ) -> dict[str, Any]:
        return cast(dict[str, Any], self._call("export", path, branch, history, keys))

    def close(self) -> None:
        """Close the link. The database stays open for others."""
        self._link.close()

    @property
    def closed(self) -> bool:
        return self._link.is_closed


class RemoteBranch(Thing):
    """A branch. It is found by its id, on every channel once: meanwhile others may have renamed it."""

    __slots__ = ()

    KIND = "branch"

    def __init__(self, store: RemoteStore, name: str) -> None:
        super().__init__(store._link, store, "branch", (name,))
        id, name = self._call("identity")  # NotFound comes from here
        self._arguments = (name, id)

    @property
    def name(self) -> str:
        return str(self._call("name"))

    @property
    def head(self) -> int:
        return int(self._call("head"))

    @property
    def sealed(self) -> str | None:
        return cast(str | None, self._call("sealed"))

    def oldest(self, space: str | None = None, kind: str | None = None, /) -> int:
        return int(self._call("oldest", space, kind))

    def wait(
        self,
        after: int,
        timeout_s: float | None = None,
        sealed: str | None = None,
        stop: Callable[[], bool] | None = None,
        /,
    ) -> int:
        # Piece by piece: whether to go on is asked here.
        piece_s = WAIT_S_MAX if stop is None else _STOP_S
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = piece_s if until is None else min(piece_s, max(0.0, until - time.monotonic()))
            head = int(self._call("wait", after, left_s, sealed))
            is_over = until is not None and time.monotonic() >= until
            if head > after or is_over or (stop is not None and stop()) or self.sealed != sealed:
                return head

    def keyspace(self, space: str, layout: Layout, /) -> Txn:
        return AutomaticTxn(self, space, layout)

    def spaces(self) -> list[str]:
        return cast(list[str], self._call("spaces"))

    def view(self, version: int | None = None, time: int | None = None, /) -> Snapshot:
        return RemoteSnapshot(self, "view", (version, time))

    def begin(
        self,
        isolation: Literal["serializable", "snapshot"] = "serializable",
        record_reads: bool = False,
        idempotency_key: str | None = None,
        /,
    ) -> Transaction:
        transaction = self.transaction(isolation, record_reads, idempotency_key)
        _ = transaction.snapshot  # it has begun when this returns, and sees nothing of what comes after
        return transaction

    def transaction(self, *options: Any) -> RemoteTransaction:
        """Return a transaction that begins with its first request."""
        return RemoteTransaction(self, *options)

    def version_at(self, time: int, /) -> int:
        return int(self._call("version_at", time))

    def result_of(self, idempotency_key: str, /) -> int | None:
        return cast(int | None, self._call("result_of", idempotency_key))

    def writes(self, after: int, upto: int, /) -> list[Written]:
        found: list[Written] = []
        while True:
            rows, after = self._call("writes", after, upto)
            found += _tuples(rows)
            if after >= upto:
                return found

    def reads(self, version: int, /) -> list[ReadRow]:
        return [_read(row) for row in self._call("reads", version)]

    def commits(
        self, after: int | None, before: int | None, reverse: bool, limit: int | None, /
    ) -> list[Commit]:
        found: list[Commit] = []
        has_more = True
        while has_more:
            left = None if limit is None else limit - len(found)
            rows, has_more = self._call("commits", after, before, reverse, left)
            found += [Commit(**row) for row in rows]
            if has_more and reverse:
                before = found[-1].version
            elif has_more:
                after = found[-1].version
        return found


class RemoteSnapshot(Thing):
    """A view of one version at one time, and still so where it is opened again."""

    __slots__ = ("name", "version")

    KIND = "snapshot"

    def __init__(self, parent: Thing, method: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(parent._link, parent, method, arguments)
        self.name: str
        self.version: int
        self.name, self.version, now = self._call("moment")
        if method == "view" and arguments == (None, None):
            self._arguments = self.version, now

    def lineage(self) -> list[tuple[int, int]]:
        return _tuples(self._call("lineage"))

    def diff(self, new: Any, /) -> Diff:
        return RemoteDiff(self, new)

    def how(self, other: Any, space: str, kind: str, key: bytes, /) -> How:
        bits, paths = self._call("how", space, kind, key, other=other)
        return bits, [tuple(path) for path in paths]

    def keyspace(self, space: str, layout: Layout, /) -> Txn:
        return ViewTxn(self, space, layout)

    def spaces(self) -> list[str]:
        return cast(list[str], self._call("spaces"))


class RemoteDiff(Thing):
    """What differs, page by page. Opened again, it goes on behind what was taken."""

    __slots__ = ("_new", "_taken")

    KIND = "diff"

    def __init__(self, old: RemoteSnapshot, new: RemoteSnapshot) -> None:
        super().__init__(old._link, old, "diff", ())
        self._new = new
        self._taken = 0
        self.page(0)  # what is wrong with the two is said now

    def _find(self, channel: Channel) -> int:
        if self._channel is not channel:
            self._arguments = (self._new._find(channel),)
            handle = super()._find(channel)
            if self._taken:
                channel.call(handle, "page", (self._taken,), None, None)
        return self._handle

    def page(self, limit: int, /) -> list[DiffRow]:
        found = [_diff_row(row) for row in self._call("page", limit)]
        self._taken += len(found)
        return found


class RemoteTransaction(Bound):
    """A transaction, on the channel it was begun on."""

    __slots__ = ("_branch", "_key", "_size", "_snapshot", "_writes", "gathers")

    KIND = "transaction"

    def __init__(self, branch: RemoteBranch, *options: Any) -> None:
        super().__init__(branch._link, branch, "begin", options)
        self._branch = branch
        self._key: str | None = options[2]
        self._snapshot: int | None = None
        self.gathers = False  # writes, which then go with the commit: of a step that nobody else sees
        self._writes: list[tuple[InsideTxn, str, msgspec.Raw]] = []
        self._size = 0  # of these, in bytes

    def gather(self, txn: InsideTxn, method: str, arguments: Any) -> None:
        """Keep a write, as it is now, until the next request."""
        written = encoded(arguments)
        self._writes.append((txn, method, msgspec.Raw(written)))
        self._size += len(written)
        if self._size > _GATHERED_BYTES:
            self.send()

    def send(self) -> None:
        """Make the writes that were gathered, in their order."""
        writes, self._writes, self._size = self._writes, [], 0
        for txn, method, arguments in writes:
            txn.send(method, decode_body(arguments))

    @property
    def snapshot(self) -> int:
        if self._snapshot is None:
            self._snapshot = int(self._call("snapshot"))
        return self._snapshot

    def keyspace(self, space: str, layout: Layout, /) -> Txn:
        return InsideTxn(self, space, layout)

    def spaces(self) -> list[str]:
        self.send()
        return cast(list[str], self._call("spaces"))

    def commit(
        self,
        message: str | None = None,
        actor: str | None = None,
        cause: str | None = None,
        once: str | None = None,
        /,
    ) -> int:
        channel = self._link.channel
        key = once or (self._link.once() if channel.can_be_lost else None)
        said = message, actor, cause
        try:
            handle = self._find(channel)
            if not self._writes:
                return int(channel.call(handle, "commit", said, key, None))
            writes = [(txn._find(channel), method, given) for txn, method, given in self._writes]
            return int(channel.call(handle, "finish", (writes, *said), key, None))
        except Lost as lost:
            self._link.renew(channel)
            return self._outcome(self._key or str(key), sent=lost.sent)

    def _outcome(self, key: str, *, sent: bool) -> int:
        """Return the version that the commit gave, if it came through before the channel was lost."""
        try:
            version = self._branch.result_of(key) if sent else None
        except Exception as error:
            raise OutcomeUnknown(transaction=key) from error
        if version is None:
            raise TransactionLost()
        return version

    def rollback(self) -> None:
        self._writes = []
        channel = self._channel
        if channel is not None and channel is self._link._channel and not self._link.is_closed:
            try:
                channel.call(self._handle, "rollback", (), None, None)
            except Lost:
                pass  # and what it wrote with it


def _tuples(rows: Any) -> list[Any]:
    return [tuple(row) for row in rows]


def _read(row: Any) -> ReadRow:
    space, kind, key, path, start, end = row
    return space, kind, key, None if path is None else tuple(path), start, end


def _diff_row(row: Any) -> DiffRow:
    space, kind, key, old, new, (bits, paths) = row
    sides = (None if side is None else tuple(side) for side in (old, new))
    return space, kind, key, *sides, (bits, [tuple(path) for path in paths])
