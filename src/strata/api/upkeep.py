"""Upkeep: what is done to the files of a database as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from strata.core.clock import to_datetime
from strata.core.errors import InvalidInput
from strata.core.protocols import Store

Mode = Literal["full", "log"]
MODES: Final = ("full", "log")
RowProgress = Callable[[int, int], object]  # rows done, of how many


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint made durable without the log."""

    version: int
    """Everything up to this version is in runs."""
    snapshot_id: int | None
    """The number of the run it wrote; None when there was nothing to write."""
    timestamp: datetime | None
    """When `version` was committed; None before the first commit."""
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CompactInfo:
    """What a compaction gave back."""

    reclaimed_bytes: int
    """By how much all files are smaller; below 0 when they grew, as by what others wrote meanwhile."""
    log_segments_removed: int
    versions_removed: int


def checkpoint(store: Store) -> CheckpointInfo:
    """Make the runs hold everything that is committed now."""
    made = store.checkpoint()
    timestamp = to_datetime(made["time"]) if made["time"] else None
    return CheckpointInfo(made["version"], made["run"] or None, timestamp, made["rows"], made["bytes"])


def compact(store: Store, mode: Mode, progress: RowProgress | None) -> CompactInfo:
    """Give back what nobody can read any more, or only the log."""
    if mode not in MODES:
        raise InvalidInput(f"mode {mode!r} is unknown", hint=f"one of {', '.join(MODES)}")
    before = store.info()
    if mode == "log":
        made = store.checkpoint()
        after = store.info()
        # The checkpoint began a segment, unless the last one had left nothing to write.
        begun = made["version"] > before["checkpoint"]["version"]
        gone = max(0, before["log"]["segments"] + begun - after["log"]["segments"])
        return CompactInfo(before["bytes"] - after["bytes"], gone if before["bytes"] else 0, 0)
    done = store.compact(progress)
    smaller = before["bytes"] - store.info()["bytes"] if before["bytes"] else done["reclaimed_bytes"]
    return CompactInfo(smaller, done["log_segments_removed"], done["versions_removed"])
