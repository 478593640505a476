"""Databases for the tests of the API, over each of the stores, which must not differ."""

from __future__ import annotations

from pathlib import Path

import stores

import strata
from strata.testing import FakeClock

KINDS = stores.KINDS


def make(kind: str, clock: FakeClock | None = None) -> strata.Database:
    """Return an empty database in memory."""
    database = strata.Database(stores.make(kind, clock))
    if kind not in stores.ASYNC:
        return database
    from loops import through  # which loads asyncio

    return through(database)


def tree(path: Path) -> dict[str, bytes]:
    """Return all files below `path`, to compare with later."""
    return {
        str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()
    }
