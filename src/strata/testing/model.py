"""Model: the oracle. All of `core.protocols` in plain Python, as small and as plainly right as can be.

It is the specification of what the kernel does: every test of a primitive runs over both, and random
histories compare them. Use it where a database of a few hundred entries and no files will do.

Read `history` (every commit is a whole dict) and `writes` first, then this file, then `keyspace`.
"""

from __future__ import annotations

import threading
import time as time_
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

from strata.core.errors import AlreadyExists, Closed, InvalidInput, LimitExceeded, NotFound, conflict
from strata.core.keys import check_int, check_name
from strata.core.protocols import (
    APPEND,
    DELETE,
    KEEP,
    BranchInfo,
    Commit,
    DiffRow,
    ErasureRow,
    How,
    IndexRow,
    Layout,
    PolicyRow,
    ReadRow,
    Tag,
    Written,
)
from strata.core.values import encode
from strata.testing.history import (
    EMPTY,
    WHOLE,
    Clashes,
    Footprint,
    Line,
    Note,
    Place,
    Point,
    Row,
    diff,
    how,
    key_bytes,
    live,
    since,
    without,
    writes,
)
from strata.testing.keyspace import Automatic, Inside, View
from strata.testing.writes import Append, Delete, Patch, Put, Write, change, kind_of

MAX_TRANSACTION_BYTES = 256 << 20
SLICE_S = 0.1  # how long a wait goes on before it asks whether to stop
IDEMPOTENCY_LIFETIME_US = 24 * 3600 * 1_000_000  # how long the first result of a key is given again


class Model:
    """A database in memory: `Store`."""

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        self.clock = clock or (lambda: time_.time_ns() // 1000)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # for those who wait for what becomes of a branch
        self.lines: dict[str, Line] = {"main": Line(0, "main", None, None, self.clock(), [EMPTY])}
        self.version = 0
        self.time = 0
        self._ids = 0
        self._closed = False
        # By line (None: all), space and kind: versions, microseconds, whether both must keep one.
        self._policies: dict[
            tuple[int | None, str | None, str | None], tuple[int | None, int | None, bool]
        ] = {}
        self._indexes: dict[str, IndexRow] = {}
        self._tags: dict[str, tuple[Line, int, int, str | None]] = {}
        self._deleted: list[Line] = []  # which views may still show
        self._readers: weakref.WeakSet[ModelSnapshot | ModelTransaction] = weakref.WeakSet()

    def tick(self) -> tuple[int, int]:
        """Return version and time of the next commit. Time never goes backwards."""
        self.version += 1
        self.time = max(self.time, self.clock())
        return self.version, self.time

    def check_open(self) -> None:
        if self._closed:
            raise Closed("the database is closed")

    def line(self, name: str) -> Line:
        self.check_open()
        if name not in self.lines:
            raise NotFound(what="branch", name=name)
        return self.lines[name]

    def branch(self, name: str, /) -> ModelBranch:
        return ModelBranch(self, self.line(name))

    def branches(self) -> list[BranchInfo]:
        self.check_open()
        return [
            BranchInfo(
                line.id,
                line.name,
                line.parent.name if line.parent and not line.parent.deleted else None,
                line.fork_version,
                line.newest.version,
                line.created,
                line.sealed,
                line.protected,
            )
            for _, line in sorted(self.lines.items())
        ]

    def snapshot(self, branch: int, version: int, /) -> ModelSnapshot:
        self.check_open()
        for line in (*self.lines.values(), *self._deleted):
            if line.id == branch:
                return ModelSnapshot(ModelBranch(self, line), version, line.at(version).time)
        raise NotFound(what="branch", name=f"with the id {branch}")

    def create(self, name: str, /) -> int:
        return self._add(name, None, None, [EMPTY])

    def fork(self, source: str, name: str, at: int | None = None, /) -> int:
        self._check_free(name)
        line = self.line(source)
        head = line.newest.version
        version = head if at is None else min(head, check_int(at, "version"))
        return self._add(name, line, version, [point for point in line.points if point.version <= version])

    def _add(self, name: str, parent: Line | None, fork_version: int | None, points: list[Point]) -> int:
        with self.lock:
            self._check_free(name)
            version, time = self.tick()
            self._ids += 1
            start = Point(version, points[-1].time, points[-1].rows, points[-1].spaces, {})
            line = Line(self._ids, name, parent, fork_version, time, [*points, start])
            if parent is not None:
                line.results = {
                    key: point for key, point in parent.results.items() if point.version <= points[-1].version
                }
            self.lines[name] = line
            return version

    def rename(self, old: str, new: str, /) -> int:
        with self.lock:
            line = self.line(old)
            self._check_free(new)
            line.check_unprotected()
            self.lines[new] = self.lines.pop(old)
            line.name = new
            return self.tick()[0]

    def delete(self, name: str, /) -> int:
        with self.lock:
            line = self.line(name)
            line.check_unprotected()
            line.deleted = True
            self._tags = {tag: found for tag, found in self._tags.items() if found[0] is not line}
            self._deleted.append(self.lines.pop(name))
            self.changed.notify_all()
            return self.tick()[0]

    def seal(self, name: str, reason: str | None, protected: bool = False, /) -> int:
        with self.lock:
            line = self.line(name)
            line.sealed, line.protected = reason, reason is not None and protected
            self.changed.notify_all()
            return self.tick()[0]

    def tag(self, name: str, branch: str, version: int | None = None, note: str | None = None, /) -> int:
        with self.lock:
            self.check_open()
            if name in self._tags:
                raise AlreadyExists(what="tag", name=name)
            line = self.line(branch)
            head = line.newest.version
            tagged = head if version is None else min(head, check_int(version, "version"))
            self._tags[name] = line, tagged, self.tick()[1], note
            return tagged

    def untag(self, name: str, /) -> int:
        with self.lock:
            self.check_open()
            if self._tags.pop(name, None) is None:
                raise NotFound(what="tag", name=name)
            return self.tick()[0]

    def tags(self) -> list[Tag]:
        self.check_open()
        return [
            Tag(name, line.name, version, time, note)
            for name, (line, version, time, note) in sorted(self._tags.items())
        ]

    def _check_free(self, name: str) -> None:
        self.check_open()
        if check_name(name, "branch", reserved=True) in self.lines:
            raise AlreadyExists(what="branch", name=name)

    @property
    def durable_version(self) -> int:
        self.check_open()
        return self.version

    def flush(self) -> int:
        self.check_open()
        return self.version

    def outcome(self, transaction: str, /) -> Literal["committed", "lost"]:
        raise NotFound(what="transaction", name=transaction)  # no commit of ours has an unknown outcome

    def checkpoint(self) -> dict[str, int]:
        self.check_open()
        return {"version": self.version, "time": self.time, "run": 0, "rows": 0, "bytes": 0}

    def compact(self, progress: Callable[[int, int], object] | None = None, /) -> dict[str, int]:
        self.check_open()
        return dict.fromkeys(
            ("reclaimed_bytes", "log_segments_removed", "versions_removed", "runs_merged"), 0
        )

    def rotate_key(
        self, key: bytes | None, progress: Callable[[int, int], object] | None = None, /
    ) -> dict[str, int]:
        self.check_open()
        raise InvalidInput("a database in memory has no files to encrypt")

    def policies(self) -> list[PolicyRow]:
        self.check_open()
        names: dict[int | None, str | None] = {line.id: name for name, line in self.lines.items()}
        names[None] = None
        return [
            (names[line], space, kind, *bounds)
            for (line, space, kind), bounds in self._policies.items()
            if line in names
        ]

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
        self._policies[self._line_id(branch), space, kind] = last, for_us, needs_both

    def clear_policy(self, branch: str | None, space: str | None, kind: str | None, /) -> bool:
        return self._policies.pop((self._line_id(branch), space, kind), None) is not None

    def _line_id(self, branch: str | None) -> int | None:
        self.check_open()
        return None if branch is None else self.line(branch).id

    def indexes(self) -> list[IndexRow]:
        self.check_open()
        return list(self._indexes.values())

    def create_index(self, name: str, space: str, kind: str, prefix: bytes, spec: dict[str, Any], /) -> None:
        self.check_open()
        if name in self._indexes:
            raise AlreadyExists(what="index", name=name)
        self._indexes[name] = name, space, kind, prefix, spec

    def drop_index(self, name: str, /) -> bool:
        self.check_open()
        return self._indexes.pop(name, None) is not None

    def rebuild_indexes(self, progress: Callable[[int, int], object] | None = None, /) -> None:
        self.check_open()

    def forget(self, rows: Sequence[ErasureRow], /) -> dict[str, int]:
        with self.lock:
            self.check_open()
            for line in (*self.lines.values(), *self._deleted):
                line.forget(rows)
            for reader in list(self._readers):
                reader.forget(rows)
            return self.compact()

    def note_reader(self, reader: ModelSnapshot | ModelTransaction) -> None:
        """Take note of who holds copies of rows, so that they can be forgotten there."""
        self._readers.add(reader)

    def info(self) -> dict[str, Any]:
        self.check_open()
        return {
            "id": bytes(16).hex(),
            "durability": "memory",
            "encrypted": False,
            "key_id": None,
            **dict.fromkeys(("format", "created", "oldest_version", "bytes"), 0),
            "version": self.version,
            "durable_version": self.version,
            "log": dict.fromkeys(
                ("segments", "bytes", "since_checkpoint", "position", "durable_position"), 0
            ),
            "checkpoint": {"version": 0, "time": 0},
            "runs": [],
            "memory": dict.fromkeys(
                (
                    *("budget", "tables", "frozen_layers", "runs", "indexes"),
                    *("cache", "cache_budget", "hits", "misses"),
                ),
                0,
            ),
            "written": {"payloads": 0, "log": 0, "runs": 0},
            "recovery": {"records": 0, "cut_bytes": 0},
        }

    def verify(self, progress: Callable[[int, int], object] | None = None, /) -> dict[str, Any]:
        self.check_open()
        return {"records": 0, "segments": 0, "runs": 0, "rows": 0, "version": 0, "problems": []}

    def backup(self, to: str, progress: Callable[[int, int], object] | None = None, /) -> dict[str, int]:
        raise InvalidInput("the oracle has no files and makes none")

    def export(
        self,
        path: str,
        branch: str | None = None,
        history: bool = False,
        keys: list[bytes] | None = None,
        /,
    ) -> dict[str, Any]:
        raise InvalidInput("the oracle has no files and makes none")

    def close(self) -> None:
        with self.lock:
            self._closed = True
            self.changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed


class ModelBranch:
    """One branch: `Branch`. It follows a rename, and is of no use once the branch was deleted."""

    def __init__(self, store: Model, line: Line) -> None:
        self.store, self.kept = store, line

    @property
    def line(self) -> Line:
        self.store.check_open()
        if self.kept.deleted:
            raise NotFound(what="branch", name=self.kept.name)
        return self.kept

    @property
    def name(self) -> str:
        return self.kept.name

    @property
    def head(self) -> int:
        return self.line.newest.version

    @property
    def sealed(self) -> str | None:
        return self.line.sealed

    def oldest(self, space: str | None = None, kind: str | None = None, /) -> int:
        assert self.line is not None, "it is there"
        return 0  # the oracle keeps everything

    def wait(
        self,
        after: int,
        timeout_s: float | None = None,
        sealed: str | None = None,
        stop: Callable[[], bool] | None = None,
        /,
    ) -> int:
        end = None if timeout_s is None else time_.monotonic() + timeout_s
        with self.store.changed:
            while self.head <= after and self.sealed == sealed and not (stop and stop()):
                left = SLICE_S if end is None else min(SLICE_S, end - time_.monotonic())
                if left <= 0:
                    break
                self.store.changed.wait(left)
            return self.head

    def keyspace(self, space: str, layout: Layout, /) -> Automatic:
        return Automatic(check_name(space, "space", reserved=True), layout, self)

    def spaces(self) -> list[str]:
        return sorted(self.line.newest.spaces)

    def view(self, version: int | None = None, time: int | None = None, /) -> ModelSnapshot:
        head, now = self.head, self.store.clock()
        if version is None and time is None:
            return ModelSnapshot(self, head, now)
        version = head if version is None else min(head, check_int(version, "version"))
        committed = self.line.at(version).time
        return ModelSnapshot(self, version, committed if time is None else max(min(time, now), committed))

    def begin(
        self,
        isolation: Literal["serializable", "snapshot"] = "serializable",
        record_reads: bool = False,
        idempotency_key: str | None = None,
        /,
    ) -> ModelTransaction:
        if isolation not in ("serializable", "snapshot"):
            raise InvalidInput(f"isolation is 'serializable' or 'snapshot', not {isolation!r}")
        return ModelTransaction(self, isolation, idempotency_key, record_reads)

    def version_at(self, time: int, /) -> int:
        commits = [point.commit for point in self.line.points if point.commit]
        return max((commit.version for commit in commits if commit.time <= time), default=0)

    def result_of(self, idempotency_key: str, /) -> int | None:
        first = self.line.results.get(idempotency_key)
        if first is None or first.time + IDEMPOTENCY_LIFETIME_US <= self.store.time:
            return None
        return first.version

    def writes(self, after: int, upto: int, /) -> list[Written]:
        return writes([point for point in self.line.points if after < point.version <= upto])

    def reads(self, version: int, /) -> list[ReadRow]:
        return [row for point in self.line.points if point.version == version for row in point.reads]

    def commits(
        self, after: int | None, before: int | None, reverse: bool, limit: int | None, /
    ) -> list[Commit]:
        commits = [point.commit for point in self.line.points if point.commit]
        found = [
            commit
            for commit in commits
            if (after is None or commit.version > after) and (before is None or commit.version < before)
        ]
        return found[::-1][:limit] if reverse else found[:limit]


class ModelSnapshot:
    """A branch at one version and time: `Snapshot`."""

    def __init__(self, branch: ModelBranch, version: int, time: int) -> None:
        self.store, self.branch, self.version = branch.store, branch, version
        self.points = [point for point in branch.kept.points if point.version <= version]
        self.point = self.points[-1]
        self.rows = live(self.point.rows, time)
        self.store.note_reader(self)

    @property
    def name(self) -> str:
        return self.branch.name

    def lineage(self) -> list[tuple[int, int]]:
        line: Line | None = self.branch.kept
        version, found = self.version, list[tuple[int, int]]()
        while line is not None:
            found.append((line.id, version))
            version = version if line.fork_version is None else min(version, line.fork_version)
            line = line.parent
        return found

    def diff(self, new: ModelSnapshot, /) -> ModelDiff:
        if new.store is not self.store:
            raise InvalidInput("the two are of different databases")
        return ModelDiff(diff(self.points, new.points))

    def how(self, other: ModelSnapshot, space: str, kind: str, key: bytes, /) -> How:
        added = since(self.points, other.points)
        return next((how(added, place) for place in _places(added) if _is(place, space, kind, key)), (0, []))

    def forget(self, erasures: Sequence[ErasureRow]) -> None:
        self.rows = without(self.rows, erasures)

    def keyspace(self, space: str, layout: Layout, /) -> View:
        return View(check_name(space, "space", reserved=True), layout, self)

    def spaces(self) -> list[str]:
        return sorted(self.point.spaces)


class ModelDiff:
    """What differs: `Diff`."""

    def __init__(self, rows: list[DiffRow]) -> None:
        self._rows = rows

    def page(self, limit: int, /) -> list[DiffRow]:
        page, self._rows = self._rows[:limit], self._rows[limit:]
        return page


def _places(points: Sequence[Point]) -> set[Place]:
    return {place for point in points for place in point.kinds}


def _is(place: Place, space: str, kind: str, key: bytes) -> bool:
    return place[:2] == (space, kind) and key_bytes(place[2]) == key


class ModelTransaction:
    """Reads at one snapshot, own writes on top, one commit: `Transaction`."""

    def __init__(
        self, branch: ModelBranch, isolation: str, idempotency_key: str | None, record_reads: bool
    ) -> None:
        self.branch, self.isolation, self.idempotency_key = branch, isolation, idempotency_key
        self.record_reads = record_reads
        self.base = branch.line.newest
        self.rows = live(self.base.rows, branch.store.clock())  # as the transaction sees them
        self.reads = Footprint()
        self.writes: dict[Place, list[Write]] = {}
        self.appends: list[Append] = []
        self.expects: list[tuple[Place, Callable[[Row | None], bool]]] = []
        self.over = False
        self._bytes = 0
        branch.store.note_reader(self)

    def forget(self, erasures: Sequence[ErasureRow]) -> None:
        kept = without(self.rows, erasures)
        self.rows = {place: row for place, row in self.rows.items() if place in kept or place in self.writes}

    @property
    def snapshot(self) -> int:
        return self.base.version

    def check_open(self) -> None:
        self.branch.store.check_open()
        if self.over:
            raise Closed("the transaction is over")

    def keyspace(self, space: str, layout: Layout, /) -> Inside:
        return Inside(check_name(space, "space", reserved=True), layout, self)

    def spaces(self) -> list[str]:
        return sorted(
            self.base.spaces | {place[0] for place in self.writes} | {row.space for row in self.appends}
        )

    def decides(self, place: Place) -> bool:
        """Whether it replaced the value of a key itself, so that it does not matter what was there."""
        return isinstance(self.writes.get(place, [None])[0], (Put, Delete)) or any(
            place == (row.space, row.kind, place[2]) and place not in self.base.rows for row in self.appends
        )

    def write(self, place: Place, write: Write, size: int) -> None:
        """Note a write and apply it to what the transaction sees. What raises leaves all as it was."""
        self.check_open()
        if self._bytes + size > MAX_TRANSACTION_BYTES:
            raise LimitExceeded(
                what="transaction in bytes", limit=MAX_TRANSACTION_BYTES, actual=self._bytes + size
            )
        # Version and time of its commit are to come; until then nothing that it sees expires.
        change(self.rows, place, write, self.base.version, self.base.time, now=0)
        self._bytes += size
        keeps = isinstance(write, Put) and write.ttl == KEEP and self.decides(place)
        if isinstance(write, (Put, Delete)) and not keeps:
            self.writes[place] = [write]
        else:
            self.writes.setdefault(place, []).append(write)

    def append(self, append: Append) -> int:
        self.check_open()
        sequence, _, _ = append.last(self.rows)
        self.rows[append.place(sequence)] = Row(encode(append.pending()), self.base.version, self.base.time)
        self.appends.append(append)
        return sequence

    def rollback(self) -> None:
        self.over = True

    def commit(
        self,
        message: str | None = None,
        actor: str | None = None,
        cause: str | None = None,
        once: str | None = None,
        /,
    ) -> int:
        self.check_open()
        self.over = True
        if self.idempotency_key is None and (self.writes or self.appends or self.expects):
            self.idempotency_key = once
        if not (self.writes or self.appends or self.expects or self.idempotency_key is not None):
            return self.snapshot  # whoever only reads saw one version, and that is enough
        with self.branch.store.lock:
            line = self.branch.line
            line.check_writable()
            first = None if self.idempotency_key is None else self.branch.result_of(self.idempotency_key)
            if first is not None:
                return first
            self._validate(line)
            return self._apply(line, (message, actor, cause))

    def _validate(self, line: Line) -> None:
        """Raise Conflict if commits since the snapshot touched what this one relies on."""
        clashes = Clashes()
        for point in line.points:
            if point.version > self.snapshot:
                self._meet(clashes, point)
        rows = live(line.newest.rows, self.branch.store.clock())
        clashes.keys |= {place for place, holds in self.expects if not holds(rows.get(place))}
        if clashes:
            name = line.name
            raise conflict(
                [(name, *place) for place in sorted(clashes.keys, key=repr)],
                [(name, *place, ours, theirs) for place, ours, theirs in sorted(clashes.paths, key=repr)],
                [(name, *found) for found in sorted(clashes.ranges, key=repr)],
            )

    def _meet(self, clashes: Clashes, point: Point) -> None:
        """Add where one commit meets this transaction.

        Serializable: in what was read. Always: in paths that were patched, which is what patching is for.
        Snapshot isolation: in keys that were put or deleted, where the first committer wins.
        """
        if self.isolation == "serializable":
            clashes.add_reads(self.reads, point.touched)
        for place, (first, *more) in self.writes.items():
            if isinstance(first, (Put, Delete)):
                if self.isolation == "snapshot" and place in point.touched:
                    clashes.keys.add(place)
                continue
            for write in (first, *more):
                if isinstance(write, Patch):
                    clashes.add_paths(place, write.touched, point.touched)

    def _apply(self, line: Line, note: Note) -> int:
        """Apply the writes to the newest rows and make that the next point. What raises changes nothing."""
        store, before = self.branch.store, line.newest
        now = store.clock()
        version, time = store.version + 1, max(store.time, now)
        rows, touched = dict(before.rows), dict[Place, list[Any]]()
        kinds = dict[Place, int]()
        for place, made in self.writes.items():
            regions = [path for write in made for path in change(rows, place, write, version, time, now)]
            if regions:
                touched[place] = regions
                kinds[place] = kind_of(made) if place in rows else DELETE
        for append in self.appends:
            sequence, last, hash = append.last(rows)
            stored = append.stored(sequence, max(time, last), hash)
            rows[append.place(sequence)] = Row(encode(stored), version, time)
            touched[append.place(sequence)] = [WHOLE]
            kinds[append.place(sequence)] = APPEND
        store.tick()
        spaces = before.spaces | {place[0] for place in touched}
        reads = self.reads.rows() if self.record_reads else ()
        line.points.append(Point(version, time, rows, spaces, touched, line, note, kinds, reads))
        if self.idempotency_key is not None:
            line.results[self.idempotency_key] = line.newest
        store.changed.notify_all()
        return version
