"""Retention: the history that may go must give its space back.

One process writes a hundred versions of each key, keeps the last three and compacts; another writes only
those three. Peers without versions have nothing to trim.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.measure import Figures
from benchmarks.processes import Bench, child, disk_bytes, noting
from benchmarks.report import Line
from benchmarks.rows import Goal, key_text, value_bytes
from benchmarks.system import System, operation

VERSIONS = 100
KEPT = 3
WITHIN = 1.3
NAMES = ("KeepLast(3)", "those versions alone")


def measure(bench: Bench) -> list[Line]:
    keys = bench.size(10_000, 200)
    trimmed = Figures(f"KeepLast({KEPT}) of {keys * VERSIONS:,} versions", "buffered", "MB")
    alone = Figures("those versions alone", "buffered", "MB")
    for name in bench.keepers():
        bench.say(f"{VERSIONS} versions of {keys:,} keys: {name}")
        with noting(name, trimmed, alone):
            for figures, action in ((trimmed, "trim"), (alone, "write")):
                path = bench.place(f"{action}-{name}")
                child("retention", action, name, path, keys=keys)
                figures.rounds[name] = [disk_bytes(path) / 1e6]
    return [(trimmed, Goal(within=(alone, WITHIN))), (alone, None)]


def trim(adapter: type[System], path: Path, keys: int) -> dict[str, Any]:
    system = adapter("buffered", path)
    keep_last = operation(system, "keep_last")
    _write(system, keys, 0)
    keep_last(KEPT)
    operation(system, "compact")()
    system.close()
    return {}


def write(adapter: type[System], path: Path, keys: int) -> dict[str, Any]:
    """Only what `trim` keeps."""
    system = adapter("buffered", path)
    _write(system, keys, VERSIONS - KEPT)
    operation(system, "compact")()
    system.close()
    return {}


def _write(system: System, keys: int, first: int) -> None:
    for version in range(first, VERSIONS):
        system.load((key_text(index), value_bytes(version * keys + index)) for index in range(keys))


ACTIONS = {"trim": trim, "write": write}
