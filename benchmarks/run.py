"""The comparison: `make bench`, or `python -m benchmarks.run`. README.md says how to read it."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import cases, registry, report
from benchmarks.measure import Figures, measure
from benchmarks.processes import Bench
from benchmarks.rows import DOCUMENTS, ROWS, Row, Workload
from benchmarks.system import Absent, System

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    say: Callable[[str], None] = (lambda text: None) if options.quiet else _progress
    found, absent = _systems(options.only)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="strata-bench-", dir=options.directory) as directory:
        lines = _timed_rows(options, found, Path(directory), say)
        for name, case in cases.load(options.cases).items():
            say(f"{name}: {', '.join(case.NAMES)}")
            place = Path(directory) / f"case-{name}"
            place.mkdir()
            lines += case.measure(Bench(found, place, options.quick, options.rounds, say))
            shutil.rmtree(place)
    modes = {name: adapter.modes for name, adapter in found.items()}
    print(report.tables(lines, list(found)))
    print()
    print(report.remarks(lines, absent, modes))
    target = report.save(Path(options.results), lines, vars(options), absent)
    verdicts = [report.judge(figures, goal, lines)[1] for figures, goal in lines]
    print(f"\n{verdicts.count('met')} goals met, {verdicts.count('missed')} missed", end="")
    print(f" in {time.monotonic() - started:.0f} s; all rounds in {target}")
    if options.quick:
        print("(--quick: sizes and times too small for the figures to mean anything)")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument(
        "--only", nargs="+", metavar="SYSTEM", choices=list(registry.SYSTEMS), help="only these"
    )
    parser.add_argument("--rows", nargs="+", metavar="TEXT", help="only rows whose name has one of these")
    parser.add_argument("--cases", nargs="+", choices=cases.CASES + cases.LONG, help="only these cases")
    parser.add_argument("--rounds", type=int, default=0, help="rounds that count (7)")
    parser.add_argument("--directory", help="where the databases are made: a disk, not a tmpfs")
    parser.add_argument("--results", default=str(RESULTS), help="where the JSON goes")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (2 if options.quick else 7)
    if options.rows is None and options.cases is None:
        options.rows, options.cases = [""], list(cases.CASES)
    options.rows, options.cases = options.rows or [], options.cases or []
    return options


def _progress(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def _systems(only: list[str] | None) -> tuple[dict[str, type[System]], dict[str, str]]:
    found, absent = {}, {}
    for name in only or registry.SYSTEMS:
        try:
            found[name] = registry.find(name)
        except Absent as error:
            absent[name] = str(error)
    return found, absent


def _timed_rows(
    options: argparse.Namespace, found: dict[str, type[System]], directory: Path, say: Callable[[str], None]
) -> list[report.Line]:
    """All rows of one size and mode share one set of open databases; small sizes first."""
    budget_s = 0.002 if options.quick else 0.1
    chosen = [row for row in ROWS if any(wanted in row.name for wanted in options.rows)]
    if options.quick:
        chosen = [dataclasses.replace(row, keys=max(row.keys // 100, 200)) for row in chosen]
    figures: dict[tuple[str, str], report.Line] = {}
    for keys, mode in sorted({(row.keys, mode) for row in chosen for mode in row.modes}):
        rows = [row for row in chosen if row.keys == keys and mode in row.modes]
        place = directory / f"{mode}-{keys}"
        with _opened(found, mode, place, rows, keys, say) as (systems, work):
            for row in rows:
                say(f"{row.name}, {mode}")
                slow = row.method == "fork" and keys > 1000
                rounds = min(options.rounds, 3) if slow else options.rounds
                line = measure(row, mode, systems, work, rounds, budget_s)
                _explain_absence(line, row, mode, found, systems)
                figures[row.name, mode] = (line, row.modes[mode])
    return [figures[row.name, mode] for row in chosen for mode in row.modes]


@contextmanager
def _opened(
    found: dict[str, type[System]],
    mode: str,
    place: Path,
    rows: list[Row],
    keys: int,
    say: Callable[[str], None],
) -> Iterator[tuple[list[System], Workload]]:
    work = Workload(keys)
    systems: list[System] = []
    only_forks = all(row.method == "fork" for row in rows)
    try:
        for name, adapter in found.items():
            if mode not in adapter.modes or (only_forks and keys > adapter.fork_limit):
                continue
            path = place / name
            path.mkdir(parents=True)
            say(f"loading {keys:,} keys and {DOCUMENTS:,} documents: {name}, {mode}")
            system = adapter(mode, path)
            systems.append(system)
            work.load(system)
        yield systems, work
    finally:
        for system in systems:
            system.close()


def _explain_absence(
    line: Figures, row: Row, mode: str, found: dict[str, type[System]], systems: list[System]
) -> None:
    open_names = {system.name for system in systems}
    for name, adapter in found.items():
        if name in line.rounds or name in ("dict", "file"):
            continue
        if mode not in adapter.modes:
            line.absent[name] = f"has no {mode} mode"
        elif name not in open_names:
            line.absent[name] = f"takes too long above {adapter.fork_limit:,} keys"
        else:
            line.absent[name] = "has nothing like it"


if __name__ == "__main__":
    sys.exit(main())
