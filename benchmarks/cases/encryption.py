"""Encryption: the same puts and gets with and without a key, in the same rounds of one process.

A get of a hot key never sees a cipher. The rows of random gets open their data with an eighth of its size
as budget, so that most reads take a block from a file, and decrypt it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures, together
from benchmarks.processes import Bench, noting
from benchmarks.report import Line
from benchmarks.rows import ROWS, VALUE_BYTES, Goal, Workload
from benchmarks.system import LEAST_BUDGET, System

WITHIN = 1.5
KEYS = {"plain": None, "encrypted": bytes(range(32))}
BUDGET_SHARE = 8
PUT = next(row for row in ROWS if row.name == "put")
GET = next(row for row in ROWS if row.name == "get")
STEPS = {"put": PUT, "hot get": GET, "random get": GET}
NAMES = tuple(f"{step}, {how}" for step in STEPS for how in KEYS)


def measure(bench: Bench) -> list[Line]:
    work = Workload(bench.size(100_000, 500))
    found = {name: Figures(name, "buffered", "us") for name in NAMES}
    with ExitStack() as opened:
        cells: list[Any] = []
        for step, row in STEPS.items():
            for name in bench.keepers():
                bench.say(f"filling for {step}, plain and encrypted: {name}")
                pair = {how: found[f"{step}, {how}"] for how in KEYS}
                with noting(name, *pair.values()):
                    # Encrypted first: who cannot do that is not measured without it either.
                    for how in reversed(KEYS):
                        place = bench.directory / f"{step}-{how}-{name}"
                        system = opened.enter_context(_filled(bench.systems[name], place, step, how, work))
                        cells.append((pair[how], row, system, work))
        together(cells, bench.rounds, 0.002 if bench.quick else 0.1)
    goals = {f"{step}, encrypted": Goal(within=(found[f"{step}, plain"], WITHIN)) for step in STEPS}
    return [(figures, goals.get(name)) for name, figures in found.items()]


@contextmanager
def _filled(adapter: type[System], path: Path, step: str, how: str, work: Workload) -> Iterator[System]:
    """A database with the keys of `work`; for random gets closed, and opened with little memory."""
    path.mkdir()
    system = adapter("buffered", path, secret=KEYS[how])
    work.load(system)
    if step == "random get":
        system.close()
        budget = max(work.keys * VALUE_BYTES // BUDGET_SHARE, LEAST_BUDGET)
        system = adapter("buffered", path, secret=KEYS[how], budget=budget)
        work.know(system)
    try:
        yield system
    finally:
        system.close()
