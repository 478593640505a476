"""F12: a process that may open 16 to 64 files, and has others that take nearly all of them.

What needs a file descriptor fails with a typed error (EMFILE) and loses nothing that was acknowledged: the
next segment, checkpoints, compaction, backups, other databases. What needs none goes on, and nothing spins.
When the others give theirs back, all is well in the same handle.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import strata
from crash import child, rows
from crash.child import Spec, opened
from crash.full import Writes
from crash.judge import Judge, Violation, alike
from strata.errors import StorageError

OPERATIONS = 120
FEWEST, MOST = 16, 64
LOOK_S = 0.05
LOOKS_MAX = 40
BUSY = 0.05  # of a processor


@contextmanager
def hardly_any(chance: random.Random) -> Iterator[None]:
    """Few descriptors: for the database alone, or mostly taken by others, who leave up to three."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(in_use, chance.randrange(FEWEST, MOST + 1)), hard))
    others: list[int] = []
    try:
        if chance.random() < 0.8:
            with suppress(OSError):
                while True:
                    others.append(os.open("/dev/null", os.O_RDONLY))
            for _ in range(min(chance.randrange(4), len(others))):
                os.close(others.pop())
        yield
    finally:
        for other in others:
            os.close(other)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def few_files(row: rows.Row, path: Path, seed: int, durability: str) -> None:
    """F12 on one database. Raises: Violation."""
    chance = random.Random(seed)
    judge = Judge(path, seed)
    spec = Spec(str(path), durability, seed, 0, 1)
    judge.create(spec)
    writes = Writes(spec, no_room=(errno.EMFILE,))
    db = opened(spec)
    try:
        with hardly_any(chance):
            use(row, db, writes, chance)
            look_idle(row)
        if db._store.poisoned is None:
            go_on(db, writes)
            row.count("healed")
    finally:
        db.close()
    judge.examine(writes.life)


def use(row: rows.Row, db: strata.Database, writes: Writes, chance: random.Random) -> None:
    """Write, and now and then do what needs descriptors. What was written can always be read."""
    works: dict[str, Callable[[], object]] = {
        "checkpoint": db.checkpoint,
        "compaction": db.compact,
        "backup": lambda: db.backup(child.backup_of(writes.life.spec)),
        "verification": db.verify,
        "opening": lambda: strata.open(Path(writes.life.spec.path).with_name("other.strata")).close(),
    }
    for number in range(OPERATIONS):
        row.count("refused", not writes.one(db))
        if number % 8 == 7:
            name = chance.choice(list(works))
            row.count(name)
            row.count(f"no_{name}", not done(works[name]))
    for name in db.branches:
        alike(db.branch(name), db.branch(name), name)


def done(work: Callable[[], object]) -> bool:
    """Try it. Raises: Violation for anything but too many open files."""
    try:
        work()
    except StorageError as error:
        if error.errno != errno.EMFILE:
            raise Violation(f"it gave {error!r} with errno {error.errno}") from error
        return False
    return True


def look_idle(row: rows.Row) -> None:
    """Soon nothing is done any more, although much could not be done. Raises: Violation."""
    for looks in range(LOOKS_MAX):
        used = time.process_time()
        time.sleep(LOOK_S)
        if time.process_time() - used < BUSY * LOOK_S:
            row.most("looks", looks + 1)
            return
    raise Violation("without descriptors it is busy all the time")


def go_on(db: strata.Database, writes: Writes) -> None:
    """All works again, in the same handle. Raises: Violation."""
    for _ in range(20):
        if not writes.one(db):
            raise Violation("there are descriptors again, and a write was refused")
    works = (
        db.checkpoint,
        db.compact,
        lambda: db.backup(child.backup_of(writes.life.spec)),
        lambda: strata.open(Path(writes.life.spec.path).with_name("other.strata")).close(),
    )
    for work in works:
        if not done(work):
            raise Violation("there are descriptors again, and something was refused")


def run(row: rows.Row, arguments: argparse.Namespace, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="strata-limits-") as directory:
        few_files(row, Path(directory) / "few.strata", seed, arguments.durability)
    row.runs += 1


if __name__ == "__main__":
    rows.main("F12", "limits", run)
