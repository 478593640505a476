"""Thirty variants of one store: by forks, and by copies of its directory.

The store is loaded once. Of each variant the first query is timed, one key in a hundred is changed, and the
same keys are read again to judge it. Then the best is merged; of the copies it would simply be kept. CPU is
that of the process with all its threads; written is what it handed to the operating system, which copying a
file within it counts as well.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.measure import Figures
from benchmarks.processes import Bench, child, noting
from benchmarks.report import Line
from benchmarks.rows import SEED, Goal, key_text, value_bytes
from benchmarks.system import System, operation

VARIANTS = 30
ONE_IN = 100
ROUNDS = 3
WAYS = ("copies", "forks")
UNITS = {"CPU": "s", "written": "MiB", "to the first query": "ms"}
NAMES = tuple(f"{VARIANTS} variants by {way}, {what}" for way in WAYS for what in UNITS)


def measure(bench: Bench) -> list[Line]:
    keys = bench.size(1_000_000, 2_000)
    found = {
        (way, what): Figures(f"{VARIANTS} variants by {way}, {what}", "buffered", unit)
        for way in WAYS
        for what, unit in UNITS.items()
    }
    for name in bench.keepers():
        with noting(name, *found.values()):
            place = bench.place(f"variants-{name}")
            child("branching", "load", name, place / "store", keys=keys, needs="fork_from")
            for number in range(min(bench.rounds, ROUNDS)):
                for way in WAYS if number % 2 else WAYS[::-1]:
                    bench.say(f"{VARIANTS} variants of {keys:,} keys by {way}: {name}")
                    work = place / f"{way}-{number}"
                    shutil.copytree(place / "store", work / "store")
                    took = child("variants", way, name, work, keys=keys)
                    for what in UNITS:
                        found[way, what].rounds.setdefault(name, []).append(took[what])
                    shutil.rmtree(work)
    return [
        (figures, Goal(within=(found["copies", what], 1.0)) if way == "forks" else None)
        for (way, what), figures in found.items()
    ]


def forks(adapter: type[System], path: Path, keys: int) -> dict[str, Any]:
    changes = _changes(adapter, path, keys)
    started = _spent()
    system = adapter("buffered", path / "store")
    fork_from, change, get_on = (operation(system, name) for name in ("fork_from", "put_many_on", "get_on"))
    first, scores = [], []
    for number, rows in enumerate(changes):
        name = f"variant-{number}"
        start = time.perf_counter()
        fork_from("main", name, [])
        get_on(name, [rows[0][0]])
        first.append(time.perf_counter() - start)
        change(name, rows)
        scores.append((get_on(name, [key for key, _ in rows]), name))
    operation(system, "merge")("main", max(scores)[1])
    system.close()
    return _report(started, first)


def copies(adapter: type[System], path: Path, keys: int) -> dict[str, Any]:
    changes = _changes(adapter, path, keys)
    started = _spent()
    first, scores = [], []
    for number, rows in enumerate(changes):
        copy = path / f"variant-{number}"
        start = time.perf_counter()
        shutil.copytree(path / "store", copy)
        system = adapter("buffered", copy)
        get = operation(system, "get")
        get([rows[0][0]])
        first.append(time.perf_counter() - start)
        system.put_many(rows)
        scores.append((get([key for key, _ in rows]), copy))
        system.close()
    assert max(scores)[1].is_dir()
    return _report(started, first)


def _changes(adapter: type[System], path: Path, keys: int) -> list[list[tuple[Any, Any]]]:
    """What each variant changes, made before any clock starts."""
    system = adapter("buffered", path / "inputs")
    chosen = [Random(SEED + number).sample(range(keys), keys // ONE_IN) for number in range(VARIANTS)]
    made = [
        [(system.key(key_text(index)), system.value(value_bytes(index + number + keys))) for index in indices]
        for number, indices in enumerate(chosen)
    ]
    system.close()
    return made


def _spent() -> tuple[float, int]:
    """CPU seconds and bytes written by this process so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return time.process_time(), int(lines["wchar"])


def _report(started: tuple[float, int], first: list[float]) -> dict[str, Any]:
    cpu, written = _spent()
    took = sorted(first)[len(first) // 2] * 1000
    return {
        "CPU": cpu - started[0],
        "written": (written - started[1]) / (1 << 20),
        "to the first query": took,
    }


ACTIONS = {"forks": forks, "copies": copies}
