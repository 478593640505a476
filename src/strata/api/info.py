"""Info: what a database is, and what it takes of disk and memory.

Plain numbers and texts only: `dataclasses.asdict(info)` is ready for JSON. `print(info)` and a notebook
show the same as a table of two columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strata.api.table import html_table, show_time, text_table
from strata.core.protocols import BranchInfo, Store

_BRANCHES_SHOWN = 10  # of the state hashes in the table; all are in `branches`


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run."""

    number: int
    bytes: int
    rows: int
    keys: int
    raw_bytes: int  # of keys and values, before packing
    branches: int  # that it has rows of


@dataclass(frozen=True, slots=True)
class RunsInfo:
    """The sorted files that hold everything up to the last checkpoint."""

    count: int
    bytes: int
    rows: int
    raw_bytes: int
    ratio: float | None  # raw bytes over bytes
    each: tuple[RunInfo, ...]  # oldest first


@dataclass(frozen=True, slots=True)
class LogInfo:
    """The log: what was committed since the last checkpoint, and perhaps more."""

    segments: int
    bytes: int
    since_checkpoint: int  # bytes that opening would have to read
    position: int  # bytes of log since the database was made
    durable_position: int


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """The version that the runs hold everything up to, and when it was committed (None before the first)."""

    version: int
    time: int | None


@dataclass(frozen=True, slots=True)
class FilesInfo:
    """The directory."""

    bytes: int  # of all files, with the space that the log has reserved
    log: LogInfo
    runs: RunsInfo
    checkpoint: CheckpointState


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """Parts of runs that are kept in memory."""

    bytes: int
    budget: int
    hits: int
    misses: int
    ratio: float | None  # of hits


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """Memory in bytes."""

    budget: int
    tables: int  # what was written and read last
    frozen_layers: int  # tables that take no more writes, and go when memory is short
    runs: int  # indexes of the open runs
    indexes: int  # what declared indexes hold of the branches where they were asked, beside the budget
    cache: CacheInfo


@dataclass(frozen=True, slots=True)
class WrittenInfo:
    """Bytes since the database was opened: what was committed, and what the files took for it."""

    payloads: int
    log: int
    runs: int
    amplification: float | None  # log and runs over payloads


@dataclass(frozen=True, slots=True)
class RecoveryInfo:
    """What opening had to do."""

    records: int  # of the log
    cut_bytes: int  # of a write that a crash cut short


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseInfo:
    """What a database is, holds and takes. Times are microseconds since 1970."""

    path: str | None
    id: str  # stays with the files, also when they are copied
    format: int  # of the files; 0 without
    created: int | None
    durability: str
    encrypted: bool
    key_id: str | None  # of the key that new files are encrypted with
    version: int
    durable_version: int
    oldest_version: int  # all history from this on is there; 0: everything
    branches: tuple[BranchInfo, ...]
    files: FilesInfo
    memory: MemoryInfo
    written: WrittenInfo
    recovery: RecoveryInfo

    def __repr__(self) -> str:
        return (
            f"<DatabaseInfo {self.path or 'memory'} version={self.version} branches={len(self.branches)}"
            f" bytes={self.files.bytes}>"
        )

    def __str__(self) -> str:
        return text_table(("what", "is"), self.rows())

    def _repr_html_(self) -> str:
        return html_table(("what", "is"), self.rows())

    def rows(self) -> list[tuple[str, str]]:
        """Return what `print` shows, as pairs of a name and a text."""
        return list(_rows(self))


def info(store: Store, path: str | None) -> DatabaseInfo:
    """Ask the store, and give names to what it says."""
    found = store.info()
    memory, written = found["memory"], found["written"]
    hits, misses = memory["hits"], memory["misses"]
    return DatabaseInfo(
        path=path,
        id=found["id"],
        format=found["format"],
        created=found["created"] or None,
        durability=found["durability"],
        encrypted=found["encrypted"],
        key_id=found["key_id"],
        version=found["version"],
        durable_version=found["durable_version"],
        oldest_version=found["oldest_version"],
        branches=tuple(info for info in store.branches() if not info.name.startswith("_")),
        files=_files(found),
        memory=MemoryInfo(
            memory["budget"],
            memory["tables"],
            memory["frozen_layers"],
            memory["runs"],
            memory["indexes"],
            CacheInfo(memory["cache"], memory["cache_budget"], hits, misses, _ratio(hits, hits + misses)),
        ),
        written=WrittenInfo(
            **written, amplification=_ratio(written["log"] + written["runs"], written["payloads"])
        ),
        recovery=RecoveryInfo(**found["recovery"]),
    )


def _files(found: dict[str, Any]) -> FilesInfo:
    each = tuple(RunInfo(**run) for run in found["runs"])
    size, raw = sum(run.bytes for run in each), sum(run.raw_bytes for run in each)
    runs = RunsInfo(len(each), size, sum(run.rows for run in each), raw, _ratio(raw, size), each)
    made = found["checkpoint"]
    checkpoint = CheckpointState(made["version"], made["time"] or None)
    return FilesInfo(found["bytes"], LogInfo(**found["log"]), runs, checkpoint)


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


def _rows(info: DatabaseInfo) -> Iterator[tuple[str, str]]:
    yield "path", info.path or "none: in memory"
    yield "id", info.id
    if info.created is not None:
        yield "created", show_time(info.created)
        yield "format", str(info.format)
    sealed = f"encrypted with key {info.key_id}" if info.encrypted else "not encrypted"
    yield "durability", f"{info.durability}, {sealed}"
    yield "branches", str(len(info.branches))
    for branch in info.branches[:_BRANCHES_SHOWN]:
        if branch.state_hash is not None:
            yield f"state of {branch.name}", f"{branch.state_hash} at version {branch.head}"
    yield "version", str(info.version)
    if info.path is not None:
        yield "durable version", str(info.durable_version)
        if info.oldest_version:
            yield "oldest version", str(info.oldest_version)
        yield from _file_rows(info.files)
    memory, cache = info.memory, info.memory.cache
    yield "memory", f"{memory.tables:,} bytes in tables, of a budget of {memory.budget:,}"
    if memory.indexes:
        yield "indexes", f"about {memory.indexes:,} bytes, beside the budget"
    yield "cache", f"{cache.bytes:,} of {cache.budget:,} bytes, {cache.hits:,} hits, {cache.misses:,} misses"
    if info.written.amplification is not None:
        written = info.written
        yield (
            "written",
            (
                f"{written.payloads:,} bytes committed, {written.log:,} to the log, {written.runs:,} to runs:"
                f" {written.amplification:.2f} for one"
            ),
        )
    if info.recovery.records or info.recovery.cut_bytes:
        cut = f", {info.recovery.cut_bytes:,} torn bytes cut" if info.recovery.cut_bytes else ""
        yield "recovery", f"{info.recovery.records:,} records{cut}"


def _file_rows(files: FilesInfo) -> Iterator[tuple[str, str]]:
    log, runs, checkpoint = files.log, files.runs, files.checkpoint
    yield "size on disk", f"{files.bytes:,} bytes"
    yield (
        "log",
        (f"{log.bytes:,} bytes in {log.segments:,} segments, {log.since_checkpoint:,} since the checkpoint"),
    )
    ratio = f", packed {runs.ratio:.2f} to 1" if runs.ratio else ""
    yield "runs", f"{runs.bytes:,} bytes in {runs.count:,} runs, {runs.rows:,} rows{ratio}"
    when = f" of {show_time(checkpoint.time)}" if checkpoint.time is not None else ""
    yield "checkpoint", f"version {checkpoint.version}{when}" if checkpoint.version else "none yet"
