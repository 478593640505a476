"""Memory: what a key takes, how far loading goes beyond the budget, and reads from more than fits into it.

A process loads ten times `memory_budget` in random order; its peak is that of the kernel (VmHWM) less what
it was after importing. Another opens the result with a quarter of its size as budget, and reads at random.
LMDB has no cache of its own, so the budget means nothing to it: its peak counts the file that it maps.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.measure import Figures, quantiles, timed_singly
from benchmarks.processes import Bench, child, noting, rotated
from benchmarks.report import Line
from benchmarks.rows import SEED, VALUE_BYTES, Goal, key_text, value_bytes
from benchmarks.system import LEAST_BUDGET, Absent, System, operation

MIB = 1 << 20
TIMES_BUDGET = 10
READ_TIMES_BUDGET = 4
LOAD_LIMIT_S = 60.0  # ours takes nine seconds, most peers less than twenty
ROW_BYTES = len(key_text(0)) + VALUE_BYTES
STRIDE = 7_368_787  # a prime above all sizes: steps of it visit each key once, in an order like chance
NAMES = ("memory", "peak loading", "random get p50", "random get p99")


def measure(bench: Bench) -> list[Line]:
    return [*_bytes_a_key(bench), *_beyond_budget(bench)]


def _bytes_a_key(bench: Bench) -> list[Line]:
    keys = bench.size(1_000_000, 5_000)
    size = f"{keys // 1_000_000}M" if keys >= 1_000_000 else f"{keys // 1000}k"
    figures = Figures(f"memory, {size} keys", "memory", "bytes a key")
    for name, adapter in bench.systems.items():
        if "memory" not in adapter.modes:
            figures.absent[name] = "has no memory mode"
            continue
        path = bench.place(f"memory/{name}")
        with noting(name, figures):
            figures.rounds[name] = [child("memory", "keep", name, path, keys=keys)["bytes_per_key"]]
        shutil.rmtree(path)
    return [(figures, Goal(250))]


def _beyond_budget(bench: Bench) -> list[Line]:
    budget = bench.size(32 * MIB, LEAST_BUDGET)
    keys = budget * TIMES_BUDGET // ROW_BYTES
    peak = Figures(f"peak loading {TIMES_BUDGET}x the budget", "buffered", "MiB")
    median = Figures(f"random get p50, {READ_TIMES_BUDGET}x the budget", "buffered", "us")
    slowest = Figures(f"random get p99, {READ_TIMES_BUDGET}x the budget", "buffered", "us")
    loaded: list[str] = []
    for name in bench.keepers():
        bench.say(f"loading {TIMES_BUDGET} times the memory budget: {name}")
        with noting(name, peak, median, slowest):
            path = bench.place(f"budget/{name}")
            peak.rounds[name] = [_loaded(name, path, keys, budget)]
            loaded.append(name)
    smaller = keys * ROW_BYTES // READ_TIMES_BUDGET
    for number in range(bench.size(3, 1)):
        for name in rotated(loaded, number):
            with noting(name, median, slowest):
                path, reads = bench.directory / "budget" / name, bench.size(50_000, 500)
                read = child("memory", "read", name, path, keys=keys, budget=smaller, reads=reads)
                median.rounds.setdefault(name, []).append(read["p50"])
                slowest.rounds.setdefault(name, []).append(read["p99"])
    allowed = budget * 1.25 / MIB + 64
    return [(peak, Goal(allowed)), (median, Goal(15)), (slowest, None)]


def _loaded(name: str, path: Path, keys: int, budget: int) -> float:
    found = child("memory", "load", name, path, limit_s=LOAD_LIMIT_S, keys=keys, budget=budget)
    return float(found["peak_mib"])


def keep(adapter: type[System], path: Path, keys: int) -> dict[str, Any]:
    system = adapter("memory", path)
    before = resident_bytes()
    system.load((key_text(index), value_bytes(index)) for index in range(keys))
    return {"bytes_per_key": (resident_bytes() - before) / keys}


def load(adapter: type[System], path: Path, keys: int, budget: int) -> dict[str, Any]:
    before = _peak_bytes()
    system = adapter("buffered", path, budget=budget)
    order = (number * STRIDE % keys for number in range(keys))
    system.load((key_text(index), value_bytes(index)) for index in order)
    peak = _peak_bytes() - before
    system.close()
    return {"peak_mib": peak / MIB}


def read(adapter: type[System], path: Path, keys: int, budget: int, reads: int) -> dict[str, Any]:
    """As many reads to warm up as are timed."""
    system = adapter("buffered", path, budget=budget)
    random, get = Random(SEED), operation(system, "get")
    for _ in range(2):
        wanted = random.choices(range(keys), k=reads)
        took = timed_singly(get, [([system.key(key_text(index))],) for index in wanted])
    if bytes(get([system.key(key_text(wanted[0]))]) or b"") != value_bytes(wanted[0]):
        raise Absent("gave a wrong value")
    p50, p99 = quantiles(took)
    return {"p50": p50, "p99": p99}


def resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak, which is close after a fill
        return _peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    """VmHWM; `ru_maxrss` would begin at what the parent had when it started this process."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


ACTIONS = {"keep": keep, "load": load, "read": read}
