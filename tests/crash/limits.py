"""F12: a process that may not open more files.

With hardly any file descriptors left, what needs one fails with a typed error (EMFILE) and loses nothing that
was acknowledged; and when there are some again, all is well in the same handle.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import resource
import tempfile
from pathlib import Path

from crash import rows
from crash.child import Spec, opened
from crash.full import Writes
from crash.judge import Judge, Violation
from strata.errors import StorageError

OPERATIONS = 120


def few_files(row: rows.Row, path: Path, seed: int, durability: str) -> None:
    """F12 on one database. Raises: Violation."""
    chance = random.Random(seed)
    judge = Judge(path, seed)
    spec = Spec(str(path), durability, seed, 0, 1)
    judge.create(spec)
    writes = Writes(spec, no_room=(errno.EMFILE,))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    db = opened(spec)
    try:
        # The next free number: descriptors are given lowest first, and those that are open count.
        lowest = os.open("/", os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + chance.randrange(4), hard))
        for number in range(OPERATIONS):
            row.count("refused", not writes.one(db))
            if number % 20 == 19:
                row.count("unwritten_runs", not checkpointed(db))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if db._store.poisoned is None:
            for _ in range(20):
                if not writes.one(db):
                    raise Violation("there are descriptors again, and a write was refused")
            if not checkpointed(db):
                raise Violation("there are descriptors again, and a checkpoint was refused")
            row.count("healed")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        db.close()
    judge.examine(writes.life)


def checkpointed(db: object) -> bool:
    """Try it. Raises: StorageError for anything but too many open files."""
    try:
        db.checkpoint()  # type: ignore[attr-defined]
    except StorageError as error:
        if error.errno != errno.EMFILE:
            raise
        return False
    return True


def run(row: rows.Row, arguments: argparse.Namespace, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="strata-limits-") as directory:
        few_files(row, Path(directory) / "few.strata", seed, arguments.durability)
    row.runs += 1


if __name__ == "__main__":
    rows.main("F12", "limits", run)
