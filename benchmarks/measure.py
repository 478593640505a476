"""The clock: every row in rounds, every round through all systems, so that a noisy machine hits all alike."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from dataclasses import dataclass, field

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

    def median(self, system: str) -> float | None:
        rounds = self.rounds.get(system)
        return statistics.median(rounds) if rounds else None

    def ratio(self, ours: str, peer: str) -> float | None:
        """How many times as long the peer takes: the median over rounds, pair by pair."""
        pairs = zip(self.rounds.get(ours, ()), self.rounds.get(peer, ()), strict=False)
        ratios = [theirs / mine for mine, theirs in pairs if mine > 0]
        return statistics.median(ratios) if ratios else None


def measure(
    row: Row, mode: str, systems: list[System], work: Workload, rounds: int, budget_s: float
) -> Figures:
    """Measure `row` over `systems`, after one round that does not count."""
    figures = Figures(row.name, mode, row.unit)
    able = [system for system in systems if hasattr(system, row.method)]
    for number in range(rounds + 1):
        shift = number % max(len(able), 1)
        for system in able[shift:] + able[:shift]:
            took = (
                _threads(row, system, work, budget_s)
                if row.threads > 1
                else _one(row, system, work, budget_s)
            )
            if number:
                figures.rounds.setdefault(system.name, []).append(took)
    return figures


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
