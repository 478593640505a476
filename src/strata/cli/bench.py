"""`strata bench`: how fast a few operations are on this machine, each timed by itself.

The figures have the cost of looking at the clock in them, and what else the machine does: the load is printed
beside. Commits that wait for the disk stand next to what the disk itself takes to sync as much.
"""

from __future__ import annotations

import os
import platform
import random
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import strata
from strata.api.table import text_table
from strata.cli.output import json_text
from strata.core.errors import InvalidInput

_KEYS: Final = 10_000
_VALUE: Final = "x" * 100
_ROUNDS: Final = {
    "get": 20_000, "put": 10_000, "append": 10_000, "scan 100": 2_000, "transaction": 3_000, "sync": 200,
}  # fmt: skip
_QUICK: Final = 50  # times fewer


class Row(NamedTuple):
    """What one operation takes, in microseconds."""

    what: str
    rounds: int
    a_second: float
    p50_us: float
    p95_us: float
    p99_us: float
    max_us: float


def run(given: Namespace) -> int:
    """Print a table, or with --json one object."""
    share = _QUICK if given.quick else 1
    with _directory(given.path) as directory:
        rows = [*_measured(directory, share)]
        machine = _machine(directory)
    if given.json:
        print(json_text({**machine, "rows": [row._asdict() for row in rows]}))
        return 0
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    head = ("", "rounds", "a second", "p50 us", "p95 us", "p99 us", "max us")
    cells = ((row.what, f"{row.rounds:,}", *(f"{value:,.1f}" for value in row[2:])) for row in rows)
    print(text_table(head, cells))
    return 0


@contextmanager
def _directory(path: str | None) -> Iterator[Path]:
    """Yield a directory to make databases in, which goes afterwards."""
    if path is not None and not Path(path).is_dir():
        raise InvalidInput(f"{path} is no directory", hint="bench makes a database in it, and removes it")
    if path is not None and (Path(path) / "MANIFEST").exists():
        path = str(Path(path).absolute().parent)  # nothing is made inside of a database
    with tempfile.TemporaryDirectory(prefix="strata-bench-", dir=path) as made:
        yield Path(made)


def _machine(directory: Path) -> dict[str, Any]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "strata": strata.__version__, "python": platform.python_version(), "machine": platform.machine(),
        "cpus": os.cpu_count(), "load": round(load, 1), "directory": str(directory.parent),
    }  # fmt: skip


def _measured(directory: Path, share: int) -> Iterator[Row]:
    for durability in ("memory", "buffered"):
        with strata.open(None if durability == "memory" else directory / "buffered") as db:
            for what, call in _calls(db, max(_KEYS // share, 200)).items():
                yield _timed(f"{what}, {durability}", call, _ROUNDS[what] // share)
    rounds = max(_ROUNDS["sync"] // share, 5)
    with strata.open(directory / "strict", durability="strict") as db:
        numbers = count()
        yield _timed("put, synced to disk", lambda: db.kv.put(f"{next(numbers)}", _VALUE), rounds)
    yield _timed_disk(directory / "file", rounds)


def _calls(db: strata.Database, size: int) -> dict[str, Callable[[], object]]:
    """Fill a database with so many keys, and return what is measured on it."""
    keys = [f"key/{number:06}" for number in range(size)]
    db.kv.put_many(dict.fromkeys(keys, _VALUE))
    key = partial(random.Random(1).choice, keys)
    return {
        "get": lambda: db.kv.get(key()),
        "put": lambda: db.kv.put(key(), _VALUE),
        "append": lambda: db.events.append("measured", {"text": _VALUE}),
        "scan 100": lambda: list(db.kv.scan(start=key(), limit=100)),
        "transaction": lambda: _transaction(db, key(), key()),
    }


def _transaction(db: strata.Database, one: str, other: str) -> None:
    with db.transaction() as tx:
        tx.kv.put(one, tx.kv.get(other))
        tx.kv.put(other, tx.kv.get(one))


def _timed_disk(file: Path, rounds: int) -> Row:
    """Measure the disk alone: as many bytes appended to a plain file, and synced."""
    sync = getattr(os, "fdatasync", os.fsync)
    handle = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        return _timed("(a file, synced)", lambda: (os.write(handle, _VALUE.encode()), sync(handle)), rounds)
    finally:
        os.close(handle)


def _timed(what: str, call: Callable[[], object], rounds: int) -> Row:
    """Call it some times that do not count, and then `rounds` times."""
    for _ in range(max(rounds // 10, 1)):
        call()
    times = []
    begun = perf_counter_ns()
    for _ in range(rounds):
        before = perf_counter_ns()
        call()
        times.append(perf_counter_ns() - before)
    took = perf_counter_ns() - begun
    times.sort()

    def at(share: float) -> float:
        return times[min(int(len(times) * share), len(times) - 1)] / 1000

    return Row(what, rounds, rounds / took * 1e9, at(0.5), at(0.95), at(0.99), times[-1] / 1000)
