"""Replay: a run of 1,000 commits costs what the run costs, in an empty database and beside many keys.

Both databases are compacted and opened again, so that nothing is in memory by chance, and take turns. The
digest of what the steps of a long run add up to must be that of the state it left: else there is no figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures
from benchmarks.processes import Bench, child, noting
from benchmarks.report import Line
from benchmarks.rows import Goal, key_text, value_bytes
from benchmarks.system import Absent, System, operation

COMMITS = 1_000
WITHIN = 1.5
ALONE, BESIDE, LONG, CHECKED = "replay of a run, alone", "replay of a run, beside", "replay of", "reproducing"
NAMES = (ALONE, BESIDE, LONG, CHECKED)


def measure(bench: Bench) -> list[Line]:
    keys, long = bench.size(1_000_000, 2_000), bench.size(100_000, 500)
    found = {
        ALONE: Figures(f"{ALONE} in its database", "buffered", "ms"),
        BESIDE: Figures(f"{BESIDE} {keys:,} keys", "buffered", "ms"),
        LONG: Figures(f"{LONG} {long:,} commits", "buffered", "ms"),
        CHECKED: Figures(f"{CHECKED} the digest from {long:,} commits", "buffered", "ms"),
    }
    for name in bench.keepers():
        bench.say(f"replay of a run beside {keys:,} keys: {name}")
        with noting(name, *found.values()):
            sizes = {"keys": keys, "long": long, "rounds": bench.rounds}
            took = child("replay", "replay", name, bench.place(f"replay-{name}"), **sizes)
            for row, figures in found.items():
                figures.rounds[name] = took[row]
    goals = {BESIDE: Goal(within=(found[ALONE], WITHIN))}
    return [(figures, goals.get(row)) for row, figures in found.items()]


def replay(adapter: type[System], path: Path, keys: int, long: int, rounds: int) -> dict[str, Any]:
    operation_of = {name: _made(adapter, path / name, *sizes) for name, sizes in {
        ALONE: (0, COMMITS), BESIDE: (keys, COMMITS), LONG: (0, long),
    }.items()}  # fmt: skip
    took: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        for name, system in operation_of.items():
            walk, expected = operation(system, "replay_run"), long if name is LONG else COMMITS
            took[name].append(_timed(lambda walk=walk, expected=expected: walk() == expected))
        took[CHECKED].append(_timed(operation(operation_of[LONG], "reproduces_run")))
    for system in operation_of.values():
        system.close()
    return took


def _made(adapter: type[System], path: Path, keys: int, commits: int) -> System:
    """A database with a run of so many commits, each of one of the keys, compacted and opened again."""
    path.mkdir(parents=True)
    system = adapter("buffered", path)
    record = operation(system, "record_run")
    system.load((key_text(index), value_bytes(index)) for index in range(keys))
    record([(system.key(key_text(index * 997)), value_bytes(index)) for index in range(commits)])
    operation(system, "compact")()
    system.close()
    return adapter("buffered", path)


def _timed(act: Callable[[], bool]) -> float:
    start = time.perf_counter()
    if not act():
        raise Absent("does not reproduce what there was")
    return (time.perf_counter() - start) * 1000


ACTIONS = {"replay": replay}
