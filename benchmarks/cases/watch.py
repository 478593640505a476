"""Watching: how soon a commit reaches who waits for it, and what it costs those who commit.

Three databases take short turns at the same puts, so that a noisy machine hits all alike: nobody watches the
first; somebody waits on another branch of the second; and on that of the third for something else, so that
each commit wakes it for nothing. Then one commits and waits until it was delivered, again and again. The
threads share the interpreter's lock, and what that costs is part of it. No peer has it.
"""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures, quantiles
from benchmarks.processes import Bench, child, noting
from benchmarks.report import Line
from benchmarks.rows import Goal, key_text, value_bytes
from benchmarks.system import System, operation

ALONE, ELSEWHERE, HERE = "put, nobody watches", "put, one waits elsewhere", "put, one is woken for nothing"
MEDIAN, LATE = "commit until delivered, p50", "commit until delivered, p99"
NAMES = (ALONE, ELSEWHERE, HERE, MEDIAN, LATE)
MODES = ("memory", "buffered")
WITHIN = 1.05  # what a look at a number may cost
TURN = 500


def measure(bench: Bench) -> list[Line]:
    lines: list[Line] = []
    turns, deliveries = bench.size(200, 2), bench.size(2_000, 20)
    for mode in MODES:
        found = {name: Figures(name, mode, "us") for name in NAMES}
        for name in bench.keepers():
            bench.say(f"watching, {mode}: {name}")
            with noting(name, *found.values()):
                sizes = {"turns": turns, "deliveries": deliveries, "rounds": bench.rounds}
                took = child("watch", "watch", name, bench.place(f"{mode}-{name}"), mode=mode, **sizes)
                for row, figures in found.items():
                    figures.rounds[name] = took[row]
        goals = {ELSEWHERE: Goal(within=(found[ALONE], WITHIN))}
        lines += [(figures, goals.get(row)) for row, figures in found.items()]
    return lines


def watch(
    adapter: type[System], path: Path, mode: str, turns: int, deliveries: int, rounds: int
) -> dict[str, Any]:
    systems = {}
    for number, name in enumerate((ALONE, ELSEWHERE, HERE)):
        place = path / str(number)
        place.mkdir()
        systems[name] = adapter(mode, place)
    operation(systems[ELSEWHERE], "fork")(["other"])
    ends = [
        operation(systems[ELSEWHERE], "listen")("other", "kv", lambda: None),
        operation(systems[HERE], "listen")("main", "json", lambda: None),
    ]
    took: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        for name, figure in _puts(systems, turns).items():
            took[name].append(figure)
        for name, figure in zip(
            (MEDIAN, LATE), quantiles(_deliveries(systems[ALONE], deliveries)), strict=True
        ):
            took[name].append(figure)
    for end in ends:
        end()
    for system in systems.values():
        system.close()
    return took


def _puts(systems: dict[str, System], turns: int) -> dict[str, float]:
    """Microseconds of a put in each: in the middle one of its turns, whatever else the machine does."""
    rows = [(key_text(index), value_bytes(index)) for index in range(TURN)]
    spent, clock = {name: list[int]() for name in systems}, time.perf_counter_ns
    for _ in range(turns):
        for name, system in systems.items():
            put = operation(system, "put")
            given = [(system.key(key), system.value(value)) for key, value in rows]
            start = clock()
            put(given)
            spent[name].append(clock() - start)
    return {name: statistics.median(took) / 1000 / TURN for name, took in spent.items()}


def _deliveries(system: System, count: int) -> list[int]:
    """Nanoseconds from before each commit until whoever waits has it."""
    arrived, clock, at, took = threading.Event(), time.perf_counter_ns, [0], []

    def hear() -> None:
        at[0] = clock()
        arrived.set()

    put, row = operation(system, "put"), (system.key("k"), system.value(b"v"))
    end = operation(system, "listen")("main", "kv", hear)
    for _ in range(count):
        start = clock()
        put([row])
        arrived.wait()
        arrived.clear()
        took.append(at[0] - start)
    end()
    return took


ACTIONS = {"watch": watch}
