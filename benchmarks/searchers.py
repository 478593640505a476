"""What the cases on search share: rounds in which systems take turns, and peers that only search.

A peer of these cases is no database that the other rows could ask: it is a class with a `name`, made of the
corpus and what it needs, which imports its library when it is made. Who is not installed is absent.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.measure import Figures, timed_singly
from benchmarks.processes import rotated
from benchmarks.registry import missing

Ask = Callable[[Any], Any]


def made(makers: dict[str, Callable[[], Any]], figures: Iterable[Figures]) -> dict[str, Any]:
    """What each maker makes; of those that are not installed, all `figures` say so."""
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            why = missing(error)
            for line in figures:
                line.absent[name] = why
    return found


def seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(
    askers: dict[str, Ask], inputs: Sequence[Any], rounds: int, half: Figures, most: Figures | None = None
) -> None:
    """Ask each everything, round by round, after one that does not count; note p50, and p95, in us."""
    calls = [(given,) for given in inputs]
    for number in range(rounds + 1):
        for name in rotated(list(askers), number):
            gc.collect()
            took = sorted(timed_singly(askers[name], calls))
            if number:
                half.rounds.setdefault(name, []).append(took[len(took) // 2] / 1000)
                if most is not None:
                    most.rounds.setdefault(name, []).append(took[len(took) * 95 // 100] / 1000)
