"""The clock: every row in rounds, every round through all systems, so that a noisy machine hits all alike."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.rows import Row, Workload
from benchmarks.system import System


@dataclass
class Figures:
    """What one row in one mode took, in the unit of the row: per system one figure a round."""

    row: str
    mode: str
    unit: str
    rounds: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # system: why it has no figure
    more: bool = False  # more is better, as with MB/s

    def median(self, system: str) -> float | None:
        rounds = self.rounds.get(system)
        return statistics.median(rounds) if rounds else None

    def ratio(self, ours: str, peer: str) -> float | None:
        """How many times as long the peer takes: the median over rounds, pair by pair."""
        mine, theirs = self.rounds.get(ours, []), self.rounds.get(peer, [])
        return median_ratio(mine, theirs) if self.more else median_ratio(theirs, mine)


def median_ratio(above: list[float], below: list[float]) -> float | None:
    """How many times `below` goes into `above`: the median over rounds, pair by pair."""
    ratios = [one / other for one, other in zip(above, below, strict=False) if other > 0]
    return statistics.median(ratios) if ratios else None


def quantiles(took_ns: list[int]) -> tuple[float, float]:
    """The microseconds that half, and 99 in 100, of the operations stay within."""
    ordered = sorted(took_ns)
    return ordered[len(ordered) // 2] / 1000, ordered[len(ordered) * 99 // 100] / 1000


def timed_singly(method: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> list[int]:
    """Nanoseconds of each call; the clock itself is about 0.1 us of it."""
    took, clock = [], time.perf_counter_ns
    gc.disable()
    try:
        for given in inputs:
            start = clock()
            method(*given)
            took.append(clock() - start)
    finally:
        gc.enable()
    return took


def measure(
    row: Row, mode: str, systems: list[System], work: Workload, rounds: int, budget_s: float
) -> Figures:
    """Measure `row` over `systems`, after one round that does not count."""
    figures = Figures(row.name, mode, row.unit)
    able = [system for system in systems if hasattr(system, row.method)]
    together([(figures, row, system, work) for system in able], rounds, budget_s)
    return figures


def together(cells: Sequence[tuple[Figures, Row, System, Workload]], rounds: int, budget_s: float) -> None:
    """Measure all `cells` in turn, round by round, each beginning with another; the first does not count."""
    for number in range(rounds + 1):
        shift = number % max(len(cells), 1)
        for figures, row, system, work in [*cells[shift:], *cells[:shift]]:
            measure_once = _threads if row.threads > 1 else _one
            took = measure_once(row, system, work, budget_s)
            if number:
                figures.rounds.setdefault(system.name, []).append(took)


def _one(row: Row, system: System, work: Workload, budget_s: float) -> float:
    """Microseconds an operation, over as many calls as fit into the budget."""
    method = getattr(system, row.method)
    spent = operations = 0
    gc.collect()
    gc.disable()
    try:
        while spent < budget_s * 1e9:
            inputs = row.inputs(work, system, row.chunk)
            start = time.perf_counter_ns()
            result = method(*inputs)
            spent += time.perf_counter_ns() - start
            operations += row.chunk
    finally:
        gc.enable()
    assert row.check(result), f"{system.name} gave a wrong result for {row.name!r}: {result!r}"
    return spent / 1000 / operations


def _threads(row: Row, system: System, work: Workload, budget_s: float) -> float:
    """Microseconds an operation of all threads together: each does calls until the budget is spent."""
    handles = [system.thread_handle() for _ in range(row.threads)]
    inputs = [[row.inputs(work, system, row.chunk) for _ in range(50)] for _ in handles]
    done = [0] * row.threads
    errors: list[BaseException] = []
    barrier = threading.Barrier(row.threads + 1)

    def run(number: int) -> None:
        method = getattr(handles[number], row.method)
        barrier.wait()
        deadline = time.perf_counter() + budget_s
        try:
            while time.perf_counter() < deadline:
                method(*inputs[number][done[number] % 50])
                done[number] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(row.threads)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    spent = time.perf_counter_ns() - start
    for handle in handles:
        if handle is not system:
            handle.close()
    if errors:
        raise errors[0]
    return spent / 1000 / max(sum(done) * row.chunk, 1)
