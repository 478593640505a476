"""The border to the kernel, typed. `tests/test_stub.py` compares it with the built module.

Each class is one of the protocols of `strata.core.protocols`, whose docstrings say what the methods mean.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, final

from strata.core.protocols import (
    Appended,
    Bound,
    BranchInfo,
    Commit,
    DiffRow,
    Entry,
    ErasureRow,
    HistoryRow,
    How,
    IndexRow,
    Kept,
    Key,
    Layout,
    Passes,
    PatchOp,
    Path,
    PolicyRow,
    ReadRow,
    Tag,
    Written,
)

__version__: str

def after_fork_in_child() -> None:
    """Make every handle that this process inherited raise Closed."""

def sealed_with(path: str, disk: SimDisk | None = None, /) -> str | None:
    """The id of the key that the database needs: "" when it is not encrypted, None where there is none."""

def check_keys(path: str, keys: list[bytes] | None = None, /) -> None:
    """Raise unless the keys open the database in `path`, which may be open elsewhere; as opening it would."""

def crc32c(data: bytes, crc: int = 0, /) -> int:
    """The CRC32C of `data`, or of what `crc` is the sum of and `data` behind it."""

def inspect(
    directory: str,
    name: str,
    rows: int,
    take: Callable[[dict[str, Any]], object],
    keys: list[bytes] | None = None,
    /,
) -> None:
    """Call `take` with each line that says what stands in a file; see `strata.api.inspect`."""

def import_bundle(bundle: str, path: str, keys: list[bytes] | None = None, /) -> dict[str, Any]:
    """Make the database `path` of a bundle; returns what `verify_bundle` does."""

def restore(
    backup: str,
    path: str,
    version: int | None = None,
    time: int | None = None,
    keys: list[bytes] | None = None,
    /,
) -> dict[str, Any]:
    """Make the database `path` of the one in `backup`; returns `version`, `time`, `branches`, `rows`."""

def salvage(
    damaged: str,
    path: str,
    keys: list[bytes] | None = None,
    progress: Callable[[int, int], object] | None = None,
    /,
) -> dict[str, Any]:
    """Make the database `path` of what is whole of the one in `damaged`.

    Returns `version`, `time`, `branches`, `rows`, `records` and `lost`: a list of dicts with the fields of
    `strata.api.salvage.Loss`, where a place is a tuple.
    """

def sealed_with_any(directory: str, /) -> list[str]:
    """Return the ids of the keys that any file in `directory` names, the MANIFEST's first."""

def verify_bundle(bundle: str, keys: list[bytes] | None = None, /) -> dict[str, Any]:
    """Read a bundle to its end. Returns: see `Store.export`."""

@final
class Keyspace:
    @property
    def mode(self) -> Literal["automatic", "inside", "view"]: ...
    @property
    def version(self) -> int: ...
    @property
    def now(self) -> int: ...
    @property
    def exists(self) -> bool: ...
    @property
    def names(self) -> tuple[str, str, str]: ...
    def get(self, key: Key, default: Any = None, /) -> Any: ...
    def get_path(self, key: Key, path: Path, default: Any = None, /) -> Any: ...
    def get_many(self, keys: Iterable[Key], default: Any = None, /) -> list[Any]: ...
    def entry(self, key: Key, /) -> Entry | None: ...
    def kept(self, key: Key, /) -> Kept | None: ...
    def contains(self, key: Key, /) -> bool: ...
    def scan(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[tuple[Key, Any]]: ...
    def scan_page(
        self,
        prefix: Key | None,
        start: Key | None,
        end: Key | None,
        reverse: bool,
        limit: int,
        size_bytes: int,
        /,
    ) -> tuple[list[tuple[Key, Any]], bool]: ...
    def scan_keys(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[Key]: ...
    def count(self, prefix: Key | None, start: Key | None, end: Key | None, /) -> int: ...
    def indexes(self) -> list[IndexRow]: ...
    def by_value(
        self, index: str, start: Bound, end: Bound, reverse: bool, limit: int | None, skip: int = 0, /
    ) -> list[tuple[Key, int]]: ...
    def by_text(
        self, index: str, query: str, k: int, passes: Passes | None = None, explain: bool = False, /
    ) -> dict[str, Any]: ...
    def by_vector(
        self,
        index: str,
        query: bytes,
        k: int,
        passes: Passes | None = None,
        recall: float = 0.99,
        /,
    ) -> list[tuple[Key, int, float]]: ...
    def declare_index(self, name: str, prefix: bytes, spec: dict[str, Any], /) -> None: ...
    def history(self, key: Key, before: int | None, limit: int | None, /) -> list[HistoryRow]: ...
    def put(self, key: Key, value: Any, ttl_us: int | None = None, /) -> int | None: ...
    def put_until(self, key: Key, value: Any, expires: int | None, /) -> int | None: ...
    def put_many(self, rows: Iterable[tuple[Key, Any]], ttl_us: int | None = None, /) -> int | None: ...
    def delete(self, key: Key, /) -> bool | None: ...
    def delete_many(self, keys: Iterable[Key], /) -> int | None: ...
    def patch(self, key: Key, ops: Sequence[PatchOp], /) -> int | None: ...
    def append(self, stream: bytes, kind: str, value: Any, origin: Any = None, /) -> Appended: ...
    def add(self, key: Key, delta: int | float, /) -> int | None: ...
    def expect(
        self, key: Key, *, version: int | None = None, value: Any = ..., absent: bool = False
    ) -> None: ...
    def begin(self) -> tuple[Transaction, Keyspace]: ...
    def pinned(self) -> Keyspace: ...

@final
class Transaction:
    @property
    def snapshot(self) -> int: ...
    def keyspace(self, space: str, layout: Layout, /) -> Keyspace: ...
    def spaces(self) -> list[str]: ...
    def commit(
        self,
        message: str | None = None,
        actor: str | None = None,
        cause: str | None = None,
        once: str | None = None,
        /,
    ) -> int: ...
    def rollback(self) -> None: ...

@final
class Diff:
    def page(self, limit: int, /) -> list[DiffRow]: ...

@final
class Snapshot:
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    def lineage(self) -> list[tuple[int, int]]: ...
    def diff(self, new: Snapshot, /) -> Diff: ...
    def how(self, other: Snapshot, space: str, kind: str, key: bytes, /) -> How: ...
    def keyspace(self, space: str, layout: Layout, /) -> Keyspace: ...
    def spaces(self) -> list[str]: ...

@final
class Branch:
    @property
    def name(self) -> str: ...
    @property
    def head(self) -> int: ...
    @property
    def sealed(self) -> str | None: ...
    def oldest(self, space: str | None = None, kind: str | None = None, /) -> int: ...
    def wait(
        self,
        after: int,
        timeout_s: float | None = None,
        sealed: str | None = None,
        stop: Callable[[], bool] | None = None,
        /,
    ) -> int: ...
    def keyspace(self, space: str, layout: Layout, /) -> Keyspace: ...
    def spaces(self) -> list[str]: ...
    def view(self, version: int | None = None, time: int | None = None, /) -> Snapshot: ...
    def begin(
        self,
        isolation: Literal["serializable", "snapshot"] = "serializable",
        record_reads: bool = False,
        idempotency_key: str | None = None,
        /,
    ) -> Transaction: ...
    def version_at(self, time: int, /) -> int: ...
    def result_of(self, idempotency_key: str, /) -> int | None: ...
    def writes(self, after: int, upto: int, /) -> list[Written]: ...
    def reads(self, version: int, /) -> list[ReadRow]: ...
    def commits(
        self, after: int | None, before: int | None, reverse: bool, limit: int | None, /
    ) -> list[Commit]: ...

@final
class Store:
    @staticmethod
    def open(
        path: str | None,
        durability: str,
        create: bool,
        read_only: bool,
        options: Mapping[str, int | str | list[bytes]],
        disk: SimDisk | None = None,
        clock: Callable[[], int] | None = None,
    ) -> Store: ...
    def branch(self, name: str, /) -> Branch: ...
    def snapshot(self, branch: int, version: int, /) -> Snapshot: ...
    def branches(self) -> list[BranchInfo]: ...
    def create(self, name: str, /) -> int: ...
    def fork(self, source: str, name: str, at: int | None = None, /) -> int: ...
    def rename(self, old: str, new: str, /) -> int: ...
    def delete(self, name: str, /) -> int: ...
    def seal(self, name: str, reason: str | None, protected: bool = False, /) -> int: ...
    def tag(self, name: str, branch: str, version: int | None = None, note: str | None = None, /) -> int: ...
    def untag(self, name: str, /) -> int: ...
    def tags(self) -> list[Tag]: ...
    def flush(self) -> int: ...
    def outcome(self, transaction: str, /) -> Literal["committed", "lost"]: ...
    def checkpoint(self) -> dict[str, int]: ...
    def info(self) -> dict[str, Any]: ...
    def verify(self, progress: Callable[[int, int], object] | None = None, /) -> dict[str, Any]: ...
    def compact(self, progress: Callable[[int, int], object] | None = None, /) -> dict[str, int]: ...
    def rotate_key(
        self, key: bytes | None, progress: Callable[[int, int], object] | None = None, /
    ) -> dict[str, int]: ...
    def policies(self) -> list[PolicyRow]: ...
    def set_policy(
        self,
        branch: str | None,
        space: str | None,
        kind: str | None,
        last: int | None,
        for_us: int | None,
        needs_both: bool,
        /,
    ) -> None: ...
    def clear_policy(self, branch: str | None, space: str | None, kind: str | None, /) -> bool: ...
    def indexes(self) -> list[IndexRow]: ...
    def create_index(
        self, name: str, space: str, kind: str, prefix: bytes, spec: dict[str, Any], /
    ) -> None: ...
    def drop_index(self, name: str, /) -> bool: ...
    def rebuild_indexes(self, progress: Callable[[int, int], object] | None = None, /) -> None: ...
    def forget(self, rows: Sequence[ErasureRow], /) -> dict[str, int]: ...
    def backup(self, to: str, progress: Callable[[int, int], object] | None = None, /) -> dict[str, int]: ...
    def export(
        self,
        path: str,
        branch: str | None = None,
        history: bool = False,
        keys: list[bytes] | None = None,
        /,
    ) -> dict[str, Any]: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def durable_version(self) -> int: ...
    @property
    def path(self) -> str | None: ...
    @property
    def database_id(self) -> bytes: ...
    @property
    def durability(self) -> str: ...
    @property
    def poisoned(self) -> str | None:
        """Why writes are refused since a failed sync; None while all is well."""
    @property
    def recovery(self) -> dict[str, int]:
        """What opening found: `records` replayed, and `cut_bytes` of a torn tail."""

@final
class TextReader:
    """Reads texts as a text index does."""

    def __init__(self, spec: dict[str, Any], /) -> None:
        """Of the spec of an index; see `strata.primitives.indexes`."""

    def terms(self, text: str, /) -> list[tuple[str, int]]:
        """The terms of a text, and the position of each."""

    def spans(self, text: str, query: str, /) -> list[tuple[int, int]]:
        """Where the words of a query stand in a text: from which character to which."""

@final
class SimDisk:
    """A disk in memory that loses, tears and reorders what was not synced."""

    def __new__(cls, seed: int, /) -> SimDisk: ...
    def crash(self, seed: int, /) -> SimDisk:
        """The disk as a power cut now could leave it."""
    def killed(self) -> SimDisk:
        """The disk as a killed process leaves it: all that was written is there."""
    def advance(self, us: int, /) -> None:
        """Let simulated time pass."""
