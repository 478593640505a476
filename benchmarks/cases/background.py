"""The foreground while another thread flushes and compacts everything, over and over.

Each process loads a database in several runs; then puts and gets in turn, each timed by itself, first with
nothing else going on and then beside that thread. The loop is Python's on both sides; with two processors
or more, what differs is what the engine makes the foreground wait for, and what the disk does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.measure import Figures, quantiles
from benchmarks.processes import Bench, child, noting, rotated
from benchmarks.report import Line
from benchmarks.rows import SEED, Goal, key_text, value_bytes
from benchmarks.system import System, operation

WITHIN = 3.0
PARTS = 5
STATES = ("quiet", "compacting")
KINDS = ("put p50", "put p99", "get p50", "get p99")
NAMES = tuple(f"{kind}, {state}" for kind in KINDS for state in STATES)


def measure(bench: Bench) -> list[Line]:
    found = {name: Figures(name, "buffered", "us") for name in NAMES}
    keys, seconds = bench.size(200_000, 2_000), 0.05 if bench.quick else 2.0
    for number in range(bench.size(3, 1)):
        for name in rotated(bench.keepers(), number):
            with noting(name, *found.values()):
                if all(name in figures.absent for figures in found.values()):
                    continue
                path = bench.place(f"{name}-{number}")
                took = child("background", "foreground", name, path, keys=keys, seconds=seconds)
                for row, figure in took.items():
                    found[row].rounds.setdefault(name, []).append(figure)
    lines: list[Line] = []
    for name, figures in found.items():
        quiet = found[name.replace("compacting", "quiet")]
        judged = "p99" in name and quiet is not figures
        lines.append((figures, Goal(within=(quiet, WITHIN)) if judged else None))
    return lines


def foreground(adapter: type[System], path: Path, keys: int, seconds: float) -> dict[str, Any]:
    system = adapter("buffered", path)
    checkpoint, compact = operation(system, "checkpoint"), operation(system, "compact")
    for part in range(PARTS):
        system.load((key_text(index), value_bytes(index)) for index in range(part, keys, PARTS))
        checkpoint()
    compact()
    found = _puts_and_gets(system, keys, seconds, "quiet")
    with _over_and_over(checkpoint, compact):
        found |= _puts_and_gets(system, keys, seconds, "compacting")
    return found


@contextmanager
def _over_and_over(*steps: Any) -> Iterator[None]:
    stop, errors = threading.Event(), []

    def work() -> None:
        try:
            while not stop.is_set():
                for step in steps:
                    step()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def _puts_and_gets(system: System, keys: int, seconds: float, state: str) -> dict[str, float]:
    random, clock = Random(SEED), time.perf_counter_ns
    put, get = operation(system, "put"), operation(system, "get")
    names = [system.key(key_text(index)) for index in range(keys)]
    value = system.value(value_bytes(keys))
    chosen = random.choices(names, k=100_000)
    puts, gets = [], []
    number, end = 0, clock() + int(seconds * 1e9)
    while (start := clock()) < end:
        put([(chosen[number], value)])
        between = clock()
        get([chosen[number - 7]])
        gets.append(clock() - between)
        puts.append(between - start)
        number = (number + 1) % len(chosen)
    kinds = dict(zip(KINDS, (*quantiles(puts), *quantiles(gets)), strict=True))
    return {f"{kind}, {state}": figure for kind, figure in kinds.items()}


ACTIONS = {"foreground": foreground}
