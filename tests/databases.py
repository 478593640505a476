"""Databases for the tests of the API: one over the oracle, one over the kernel, which must not differ."""

from __future__ import annotations

from pathlib import Path

import strata
from strata.testing import FakeClock, Model

KINDS = ["model", "kernel"]


def make(kind: str, clock: FakeClock | None = None) -> strata.Database:
    """Return an empty database in memory."""
    return strata.Database(Model(clock)) if kind == "model" else strata.open(clock=clock)


def tree(path: Path) -> dict[str, bytes]:
    """Return all files below `path`, to compare with later."""
    return {
        str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()
    }
