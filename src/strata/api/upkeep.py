"""Upkeep: what is done to the files of a database as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from strata.core.clock import to_datetime
from strata.core.protocols import Store


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


def checkpoint(store: Store) -> CheckpointInfo:
    """Make the runs hold everything that is committed now."""
    made = store.checkpoint()
    timestamp = to_datetime(made["time"]) if made["time"] else None
    return CheckpointInfo(made["version"], made["run"] or None, timestamp, made["rows"], made["bytes"])
