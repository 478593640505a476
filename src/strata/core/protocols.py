"""The seams: what a primitive may ask of a transaction, and what the product may ask of a store.

Two implementations stand behind each protocol, and every primitive test runs over both: the kernel
(`strata.store`) and the oracle (`strata.testing.Model`). Nothing here knows a primitive, and nothing
above knows which implementation it was given.

A *keyspace* is one ordered map of one branch, named by (space, primitive kind). A `Txn` is one
keyspace as one transaction sees it, in one of three modes:

    automatic   (from `Branch.keyspace`)      each read sees the newest state, each write is a commit
    inside      (from `Transaction.keyspace`) reads see the snapshot and own writes; writes wait for commit
    view        (from `Snapshot.keyspace`)    reads see one version; every write raises ReadOnly

What was put with a time to live expires so long after its commit. A read has a time: what had expired by
then is absent for it, in all but `history`. Where reads see the newest state it is the clock's, also when
that runs backwards; inside a transaction, when that began; in a view, the view's.

Keys are `str` where the layout says `text_keys`, else `bytes`; they sort as bytes (UTF-8) do.
Values are what `strata.core.values` allows. Paths are tuples of `str` (map key), `int` (list index, negative
from the end) and `END` (just after the last element). Times are int microseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypedDict

KEEP: Final = 0  # as `ttl_us`: expire when what is there now does; never, where nothing is
Key = str | bytes
Step = str | int | None  # None is END: the place after the last element of a list
Path = tuple[Step, ...]
END: None = None

# One change inside a value. Applied to the newest value at commit, in order:
#   ("set", path, value)     replace or add; creates the document (as a map) and missing maps on the way;
#                            path (..., END) appends to a list; path () replaces the whole value
#   ("delete", path)         remove a map key or list element; a missing one is no error
#   ("insert", path, value)  insert before list index path[-1] (END, or the length, appends)
#   ("merge", path, value)   RFC 7396 merge patch at path: maps merge, null removes, all else replaces
# Index beyond the end, or a step into something that is not a container: InvalidInput.
PatchOp = tuple[Literal["set", "insert", "merge"], Path, Any] | tuple[Literal["delete"], Path]

# The bits of `How`. UNKNOWN: some changes are no longer kept.
UNKNOWN, PUT, DELETE, PATCH, APPEND, ADD = 1, 2, 4, 8, 16, 32

Entry = tuple[Any, int, int, int | None]  # value, version, time, when it expires (None: never)
# value (None where deleted), version, time, deleted, when it expires
HistoryRow = tuple[Any, int, int, bool, int | None]
# One side of a difference, as it is kept: value, version, when it expires (None: never)
Kept = tuple[Any, int, int | None]
# How a key came to its value since a common state: which kinds of changes there were (see CHANGES), and the
# paths that patches touched
How = tuple[int, list[Path]]
# space, kind, key, the old and the new row (None: there is none), how the new state came to it
DiffRow = tuple[str, str, bytes, Kept | None, Kept | None, How]
# One write of one commit: version, space, kind, key, kind of change, value (None where deleted), expires
Written = tuple[int, str, str, bytes, int, Any, int | None]
# What a transaction had read: space, kind, then key | key and path | start and end of a range (None: open)
ReadRow = tuple[str, str, bytes | None, Path | None, bytes | None, bytes | None]
# A retention policy: branch, space and kind that it is for (None: all), how many versions it keeps and for
# how many microseconds (None: that bound keeps all), and whether both bounds must keep a version
PolicyRow = tuple[str | None, str | None, str | None, int | None, int | None, bool]
# What to forget: space (None: all), kind, key, and whether all keys that begin with it
ErasureRow = tuple[str | None, str, bytes, bool]
# An index: name, space, kind of the keyspace, prefix of its keys, and what it is (`primitives.indexes`)
IndexRow = tuple[str, str, str, bytes, dict[str, Any]]
# Of an ordered index: leading values, and whether they are inside; None is open
Bound = tuple[list[Any], bool] | None
# sequence, time, SHA-256 of the chain so far, version of the commit. Inside a transaction the
# sequence is provisional and the rest is None until the commit.
Appended = tuple[int, int | None, bytes | None, int | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a primitive uses its keyspace."""

    kind: str  # the primitive's name: "kv", "events", ...
    text_keys: bool = True  # keys are str (1..1024 bytes of UTF-8, no NUL) rather than bytes
    finite: bool = False  # NaN and infinities are refused, as JSON does


class Passes(TypedDict, total=False):
    """What rows must be to be hits: all of what is given."""

    values: list[tuple[str, list[tuple[Bound, Bound]]]]  # of each ordered index, in one of the ranges
    keys: Iterable[Key]
    prefix: Key
    written: tuple[int, int]  # the version that wrote the row: from the first to the last


class Txn(Protocol):
    """One keyspace as one transaction sees it."""

    @property
    def mode(self) -> Literal["automatic", "inside", "view"]: ...
    @property
    def version(self) -> int:
        """The version that reads see: the branch's newest, the snapshot's, or the view's."""

    @property
    def now(self) -> int:
        """The store's clock: microseconds since 1970."""

    @property
    def exists(self) -> bool:
        """Whether the space has ever been written to, as seen from here ("default" always exists)."""

    @property
    def names(self) -> tuple[str, str, str]:
        """(branch, space, kind), for messages and references."""

    # -- reads: each leaves a footprint when inside a serializable transaction
    def get(self, key: Key, default: Any = None, /) -> Any: ...
    def get_path(self, key: Key, path: Path, default: Any = None, /) -> Any:
        """The value at `path` inside the value of `key`; `default` when any step is missing."""

    def get_many(self, keys: Iterable[Key], default: Any = None, /) -> list[Any]:
        """Values in the order of `keys`, `default` in the holes."""

    def entry(self, key: Key, /) -> Entry | None:
        """Of an own write, which has no commit yet, version and time are the snapshot's; its time to live
        is counted from there."""

    def kept(self, key: Key, /) -> Kept | None:
        """`entry` without its time, which costs a search among the commits where they are in files."""

    def contains(self, key: Key, /) -> bool: ...
    def scan(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[tuple[Key, Any]]:
        """Rows with start <= key < end that begin with `prefix`, in byte order (backwards if `reverse`)."""

    def scan_page(
        self,
        prefix: Key | None,
        start: Key | None,
        end: Key | None,
        reverse: bool,
        limit: int,
        size_bytes: int,
        /,
    ) -> tuple[list[tuple[Key, Any]], bool]:
        """`scan` up to `limit` rows, and up to the row with which keys and values come to `size_bytes`; and
        whether it stopped there, where more may follow. It may stop sooner, but for the first row."""

    def scan_keys(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[Key]: ...
    def count(self, prefix: Key | None, start: Key | None, end: Key | None, /) -> int: ...
    def history(self, key: Key, before: int | None, limit: int | None, /) -> list[HistoryRow]:
        """Versions of `key`, newest first, deletions and what has expired included, only those below version
        `before` if given.

        Inside a transaction: as at its snapshot, without its own writes. Leaves no footprint."""

    # -- indexes: what they say is as if they had been made of what is seen from here
    def indexes(self) -> list[IndexRow]:
        """Those of this keyspace."""

    def by_value(
        self, index: str, start: Bound, end: Bound, reverse: bool, limit: int | None, skip: int = 0, /
    ) -> list[tuple[Key, int]]:
        """Keys and versions of the rows between two bounds of an ordered index, by value and then by key; not
        the first `skip`.

        Where one bound is open and the other ends in a number or a text, so do all values."""

    def by_text(
        self, index: str, query: str, k: int, passes: Passes | None = None, explain: bool = False, /
    ) -> dict[str, Any]:
        """The best of a text index for a query: `hits` (key, version and score, best first and then by key),
        how many rows `matched`, the best score that was `cut` (None: none was), and all `documents`.

        With `explain` also `terms`: for each hit what each part of the query that it has gave: its text, how
        many documents have it, idf, tf and contribution."""

    def by_vector(
        self,
        index: str,
        query: bytes,
        k: int,
        passes: Passes | None = None,
        recall: float = 0.99,
        /,
    ) -> list[tuple[Key, int, float]]:
        """The rows nearest to a vector of little-endian floats of 4 bytes: key, version and score, best first
        and then by key. `recall` is which part of them is likely to be found in a large index; 1 is all."""

    def declare_index(self, name: str, prefix: bytes, spec: dict[str, Any], /) -> None:
        """Declare an index of this keyspace, unless there is one of that name. On all branches, and in no
        transaction; where the store may not be written to, for as long as it is open."""

    # -- writes: automatic mode returns the commit's version; inside a transaction None
    def put(self, key: Key, value: Any, ttl_us: int | None = None, /) -> int | None:
        """Store. It expires `ttl_us` after its commit; `None`: never; `KEEP`: when what is there now does."""

    def put_until(self, key: Key, value: Any, expires: int | None, /) -> int | None:
        """Store what expires at an instant, which may be past; None: never. For what was stored before."""

    def put_many(self, rows: Iterable[tuple[Key, Any]], ttl_us: int | None = None, /) -> int | None:
        """All rows in one commit; of a key given twice the last wins. No rows: the current version."""

    def delete(self, key: Key, /) -> bool | None:
        """Automatic: whether the key existed (no commit when it did not). Inside: None, and no footprint."""

    def delete_many(self, keys: Iterable[Key], /) -> int | None:
        """Automatic: how many existed. Inside: None."""

    def patch(self, key: Key, ops: Sequence[PatchOp], /) -> int | None:
        """Change inside the value of `key`. All or nothing.

        Conflicts with a concurrent commit that touched an overlapping path (ancestor, same, below) of the
        key, or put or deleted it. Structural changes of a list (insert, append, delete) touch the whole list.
        Inside a transaction the ops are tried at once on what it sees, so errors come from the call.
        The value goes on to expire when it did, unless an op sets its root."""

    def append(self, stream: bytes, kind: str, value: Any, origin: Any = None, /) -> Appended:
        """Append to the stream whose keys are `stream` + 8-byte big-endian sequence (bytes keys only).

        Stored value: [kind, time, value, hash] or, with origin, [kind, time, value, hash, origin], where hash
        is SHA-256 of the canonical MessagePack of [previous hash, sequence, kind, time, value] (+ [origin]);
        the first previous hash is 32 zero bytes. Times in a stream never go backwards. Never conflicts."""

    def add(self, key: Key, delta: int | float, /) -> int | None:
        """Add to a number; a missing key counts as 0. Adds commute: they conflict with nothing but put or
        delete of a key this transaction has read. Overflow: LimitExceeded; not a number, or int with float:
        InvalidInput (a float may be added to a float or missing, an int to an int or missing). The number
        goes on to expire when it did."""

    def expect(self, key: Key, *, version: int | None = None, value: Any = ..., absent: bool = False) -> None:
        """Inside only. At commit, `key` is at `version` / equals `value` / is absent, or Conflict."""

    # -- atomic steps of several operations
    def begin(self) -> tuple[Transaction, Txn]:
        """Automatic only: a transaction on this branch and this keyspace inside it."""

    def pinned(self) -> Txn:
        """Itself when inside or view; automatic: the same keyspace as a view of the newest version."""


class Transaction(Protocol):
    """Reads at one snapshot plus writes that become one commit or nothing. One thread at a time."""

    @property
    def snapshot(self) -> int: ...
    def keyspace(self, space: str, layout: Layout, /) -> Txn: ...
    def spaces(self) -> list[str]: ...
    def commit(
        self,
        message: str | None = None,
        actor: str | None = None,
        cause: str | None = None,
        once: str | None = None,
        /,
    ) -> int:
        """Commit and return the version (the snapshot's when nothing was written).

        Raises Conflict; the transaction is over either way. A transaction opened with an idempotency key
        that was used before writes nothing and returns the first commit's version. `once` is such a key for
        one that was opened without; it counts only where something was written."""

    def rollback(self) -> None:
        """Drop it. Idempotent."""


class Diff(Protocol):
    """The keys that differ between two states, by space, kind and key."""

    def page(self, limit: int, /) -> list[DiffRow]:
        """The next ones, at most `limit`; none at the end."""


class Snapshot(Protocol):
    """Everything of one branch as it was at one version and time."""

    @property
    def name(self) -> str:
        """The branch's."""

    @property
    def version(self) -> int: ...
    def lineage(self) -> list[tuple[int, int]]:
        """The branch and those it was forked off, deleted ones too: id, and up to which version it shows."""

    def diff(self, new: Any, /) -> Diff:
        """What differs in the snapshot `new`, of any branch. Rows are compared as they are kept: expiry is no
        change. Costs what changed in both since the newest state they have in common by forks."""

    def how(self, other: Any, space: str, kind: str, key: bytes, /) -> How:
        """How a key came to be what it is here, since the state that this has in common with `other`."""

    def keyspace(self, space: str, layout: Layout, /) -> Txn: ...
    def spaces(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class BranchInfo:
    """What is known of a branch."""

    id: int
    name: str
    parent: str | None  # name of the branch it was forked from, None for a root (or when that was deleted)
    fork_version: int | None
    head: int  # version of its newest commit
    created: int  # time
    sealed: str | None = None  # why it takes no writes
    protected: bool = False  # nor may be deleted or renamed
    # Of its own commits: equal in two copies when their histories are. None before the first, and in memory.
    state_hash: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for one version of a branch, which retention keeps as long as the name is there."""

    name: str
    branch: str
    version: int
    created: int  # time
    note: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic change of one branch."""

    version: int
    branch: str
    time: int
    message: str | None
    actor: str | None
    cause: str | None


class Branch(Protocol):
    """A named line of history."""

    @property
    def name(self) -> str: ...
    @property
    def head(self) -> int: ...
    @property
    def sealed(self) -> str | None:
        """Why it takes no writes; None where it does."""

    def oldest(self, space: str | None = None, kind: str | None = None, /) -> int:
        """The version from which on all commits, those of its ancestors too, are kept with all that they
        wrote (to one space, of one kind; to spaces that begin with "_" only where one is named); 0 where
        retention has let go of nothing. What is pinned below it can be read, but not what led there."""

    def wait(
        self,
        after: int,
        timeout_s: float | None = None,
        sealed: str | None = None,
        stop: Callable[[], bool] | None = None,
        /,
    ) -> int:
        """The head, as soon as it is above `after`. Sooner when the time is over (None: it never is), when it
        is sealed for another reason than `sealed`, and when `stop` says so, which is asked now and then.

        Whoever sees the new seal sees the last commit before it. Closed once the store is, NotFound once the
        branch is deleted."""

    def keyspace(self, space: str, layout: Layout, /) -> Txn: ...
    def spaces(self) -> list[str]:
        """Names of the spaces written to so far, sorted."""

    def view(self, version: int | None = None, time: int | None = None, /) -> Snapshot:
        """A version (past the newest: the newest) with what of it had not expired at a time.

        The time is that of the version's commit; without a version, now. One that is given counts up to
        now, and from the version's commit on. Below version 0: InvalidInput."""

    def begin(
        self,
        isolation: Literal["serializable", "snapshot"] = "serializable",
        record_reads: bool = False,
        idempotency_key: str | None = None,
        /,
    ) -> Transaction: ...
    def version_at(self, time: int, /) -> int:
        """The newest version whose commit time is at or before `time` (0 before the first commit)."""

    def result_of(self, idempotency_key: str, /) -> int | None:
        """The version that a commit with this key gave, for as long as keys are remembered."""

    def writes(self, after: int, upto: int, /) -> list[Written]:
        """The writes of the commits with after < version <= upto that are still kept, by version, space, kind
        and key. Costs what they wrote."""

    def reads(self, version: int, /) -> list[ReadRow]:
        """What the transaction of a commit had read; nothing where that was not recorded."""

    def commits(
        self, after: int | None, before: int | None, reverse: bool, limit: int | None, /
    ) -> list[Commit]:
        """Commits of this branch and, below the fork, its ancestors; after < version < before."""


class Store(Protocol):
    """One database."""

    def branch(self, name: str, /) -> Branch:
        """NotFound when there is none."""

    def branches(self) -> list[BranchInfo]:
        """Sorted by name."""

    def snapshot(self, branch: int, version: int, /) -> Snapshot:
        """A branch by its id, as it was at a version. NotFound where it was deleted and nobody sees that."""

    def create(self, name: str, /) -> int:
        """An empty branch. Returns the version of the commit that made it."""

    def fork(self, source: str, name: str, at: int | None = None, /) -> int: ...
    def rename(self, old: str, new: str, /) -> int: ...
    def delete(self, name: str, /) -> int:
        """Also takes its tags away."""

    def seal(self, name: str, reason: str | None, protected: bool = False, /) -> int:
        """Refuse all writes to a branch from now on, with `reason`; None lets them in again.

        A `protected` one cannot be deleted or renamed either. Returns the version of that."""

    def tag(self, name: str, branch: str, version: int | None = None, note: str | None = None, /) -> int:
        """Name a version of a branch (past the newest: the newest), and return it."""

    def untag(self, name: str, /) -> int: ...
    def tags(self) -> list[Tag]:
        """Sorted by name."""

    @property
    def durable_version(self) -> int:
        """Everything up to this version survives a power cut."""

    def flush(self) -> int:
        """Wait until all that was committed is durable; return the version."""

    def outcome(self, transaction: str, /) -> Literal["committed", "lost"]:
        """What became of a commit that raised OutcomeUnknown."""

    def checkpoint(self) -> dict[str, int]:
        """Make the runs hold everything that is committed, and let go of the log before it.

        Returns: the `version` and its `time`; the `run` that was written (0: none), its `rows` and `bytes`.
        """

    def compact(self, progress: Callable[[int, int], object] | None = None, /) -> dict[str, int]:
        """Make one run of all, without what retention lets go of.

        `progress` is told of rows done and in all.

        Returns: `reclaimed_bytes`, `log_segments_removed`, `versions_removed`, `runs_merged`.
        """

    def rotate_key(
        self, key: bytes | None, progress: Callable[[int, int], object] | None = None, /
    ) -> dict[str, int]:
        """Write all files again, encrypted with `key` or not. Takes and returns what `compact` does."""

    def policies(self) -> list[PolicyRow]:
        """The retention policies that were set."""

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
        """Set the policy for what is named, in the place of one for the same. No bound keeps all."""

    def clear_policy(self, branch: str | None, space: str | None, kind: str | None, /) -> bool:
        """Take it back; whether there was one."""

    def indexes(self) -> list[IndexRow]:
        """The indexes that were declared."""

    def create_index(self, name: str, space: str, kind: str, prefix: bytes, spec: dict[str, Any], /) -> None:
        """Declare an index. AlreadyExists for the name."""

    def drop_index(self, name: str, /) -> bool:
        """Whether there was one."""

    def rebuild_indexes(self, progress: Callable[[int, int], object] | None = None, /) -> None:
        """Make what indexes hold of the files anew."""

    def forget(self, rows: Sequence[ErasureRow], /) -> dict[str, int]:
        """Take keys out of all versions of all branches, memory and files. Returns what `compact` does."""

    def info(self) -> dict[str, Any]:
        """What `strata.api.info` makes a `DatabaseInfo` of. Without files most of it is 0.

        `id`, `durability`, `encrypted`, `key_id`; `format`, `created`, `version`, `durable_version`,
        `oldest_version`, `bytes`; dicts `log`, `checkpoint`, `memory`, `written`, `recovery`; and `runs`, a
        list of dicts.
        """

    def verify(self, progress: Callable[[int, int], object] | None = None, /) -> dict[str, Any]:
        """Read all files again, and hold them against what is in memory.

        Calls `progress` now and then with the bytes that were read and those there are; what it raises ends
        it. Returns: `records` and `segments` of the log, `runs` and their `rows`, the newest `version` on
        disk, all 0 without files; and `problems`, a list of file, offset and reason, at most one of a file.
        """

    def backup(self, to: str, progress: Callable[[int, int], object] | None = None, /) -> dict[str, int]:
        """Make the directory `to` a backup of what is committed.

        Returns: `version`, its `time`, `runs` and their `bytes`; of them `new_runs`, of those `linked_runs`;
            `copied_bytes`, `removed_runs`.
        """

    def export(
        self,
        path: str,
        branch: str | None = None,
        history: bool = False,
        keys: list[bytes] | None = None,
        /,
    ) -> dict[str, Any]:
        """Write what is committed to the new file `path`, encrypted with the first of `keys`.

        Returns: `history`, `branches` (sorted), `rows`, `bytes` of the file, `sha256`, `key_id`.
        """

    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
