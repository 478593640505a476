"""What each operation costs at 10 thousand, 100 thousand and 1 million keys: no constant may grow.

python -m benchmarks.ours.growth [KEYS ...]
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import measure
from benchmarks.ours.adapter import Strata
from benchmarks.report import number
from benchmarks.rows import ROWS, Workload

SIZES = (10_000, 100_000, 1_000_000)


def main(sizes: tuple[int, ...]) -> None:
    found: dict[str, list[float | None]] = {}
    # The comparison has a row of fork for each size; here one is enough.
    rows = [row for row in ROWS if "memory" in row.modes and (row.method != "fork" or row.keys == 100_000)]
    for keys in sizes:
        with tempfile.TemporaryDirectory() as directory:
            system, work = Strata("memory", Path(directory)), Workload(keys)
            work.load(system)
            for row in rows:
                figures = measure(dataclasses.replace(row, keys=keys), "memory", [system], work, 5, 0.1)
                found.setdefault(row.method if row.method == "fork" else row.name, []).append(
                    figures.median(system.name)
                )
            system.close()
    print(f"{'us, memory mode':26}" + "".join(f"{size:>14,}" for size in sizes))
    for name, figures_at in found.items():
        print(f"{name:26}" + "".join(f"{number(figure):>14}" for figure in figures_at))


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SIZES)
