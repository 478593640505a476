"""Hot keys: what is read often must not become slower by versions, by runs or by having been opened again.

All variants are open at once in one process and measured in the same rounds, next to databases in memory
with the same history: what durability costs a read, and nothing else, is the ratio of the two.

    plain      each key put once
    versions   each key put a hundred times
    runs       each key put once, with a checkpoint after each twentieth of them

Each is read in the process that wrote it, and (other copies) after closing and opening again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures, together
from benchmarks.processes import Bench, noting
from benchmarks.registry import OURS
from benchmarks.report import Line
from benchmarks.rows import ROWS, Goal, Workload, key_text, value_bytes
from benchmarks.system import Absent, System, operation

VERSIONS = 100
RUNS = 20
WITHIN = 1.1  # of the same in memory
GET = next(row for row in ROWS if row.name == "get")
NAMES = ("hot get", "hot get, 100 versions", "hot get, 20 runs", "hot get, reopened")

Fill = Callable[[System, int], None]


def plain(system: System, keys: int) -> None:
    _put(system, range(keys), 0)


def versions(system: System, keys: int) -> None:
    for number in range(VERSIONS):
        _put(system, range(keys), number * keys)


def runs(system: System, keys: int) -> None:
    step = -(-keys // RUNS)
    for first in range(0, keys, step):
        _put(system, range(first, min(first + step, keys)), 0)
        operation(system, "checkpoint")()


def _put(system: System, keys: range, shift: int) -> None:
    system.load((key_text(index), value_bytes(index + shift)) for index in keys)


FILLS: dict[str, Fill] = {"": plain, f", {VERSIONS} versions": versions, f", {RUNS} runs": runs}


def measure(bench: Bench) -> list[Line]:
    stage = _Stage(bench)
    try:
        for how, fill in FILLS.items():
            for name in bench.keepers():
                stage.open(name, "buffered", how, fill)
        if OURS in bench.systems:
            stage.beside_memory()
        # A tenth is little on a busy machine: three times the rounds, each a third as long.
        together(stage.cells, 3 * bench.rounds, 0.001 if bench.quick else 0.03)
    finally:
        for system in stage.systems:
            system.close()
    return stage.lines


class _Stage:
    """All that is open, and the line that each is measured for."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.work = Workload(bench.size(10_000, 200))
        self.systems: list[System] = []
        self.cells: list[Any] = []
        self.figures: dict[tuple[str, str], Figures] = {}
        self.goals: dict[tuple[str, str], Goal] = {}

    @property
    def lines(self) -> list[Line]:
        return [(figures, self.goals.get(place)) for place, figures in self.figures.items()]

    def beside_memory(self) -> None:
        """Ours once more: in memory, and opened again; with the goals that need both."""
        for how, fill in FILLS.items():
            # Memory mode has no runs; the same history there is the plain one.
            base = "" if fill is runs else how
            if fill is not runs:
                self.open(OURS, "memory", how, fill)
            self.open(OURS, "buffered", f"{how}, reopened", fill, again=True)
            for name in (how, f"{how}, reopened"):
                memory = self.figures[f"hot get{base}", "memory"]
                self.goals[f"hot get{name}", "buffered"] = Goal(within=(memory, WITHIN))
        several = (f"hot get, {VERSIONS} versions", "memory")
        self.goals[several] = Goal(within=(self.figures["hot get", "memory"], WITHIN))

    def open(self, name: str, mode: str, how: str, fill: Fill, again: bool = False) -> None:
        row = f"hot get{how}"
        self.bench.say(f"filling for {row}: {name}, {mode}")
        figures = self.figures.setdefault((row, mode), Figures(row, mode, "us"))
        with noting(name, figures):
            path = self.bench.place(f"{row}-{mode}-{name}")
            system = self._filled(self.bench.systems[name], mode, path, fill, again)
            self.systems.append(system)
            self.work.know(system)
            self.cells.append((figures, GET, system, self.work))

    def _filled(self, adapter: type[System], mode: str, path: Path, fill: Fill, again: bool) -> System:
        system = adapter(mode, path)
        try:
            fill(system, self.work.keys)
        except Absent:
            system.close()
            raise
        if again:
            system.close()
            system = adapter(mode, path)
        return system
