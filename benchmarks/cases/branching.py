"""Branches: what they cost to make, to keep, to read, to compare and to merge.

fork        of 1k, 100k and 10M keys, in turns, each database compacted and opened again
live        1,000 branches with a key of their own and a handle each: what the process grows by
deep        reads of one database, on main and 20 forks down, in turns
diff        1,000 changes on a fork of a million keys, of which none was read before; again; then the merge

A peer whose fork is a copy is asked up to its `fork_limit`, and only for as long as anybody waits.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.cases.memory import resident_bytes
from benchmarks.measure import Figures
from benchmarks.processes import Bench, child, noting
from benchmarks.report import Line
from benchmarks.rows import SEED, Goal, key_text, value_bytes
from benchmarks.system import Absent, System, operation

FORKS = 50  # a round, unless they take longer than FORKS_S
FORKS_S = 0.5
LIVE = 1_000
DEEP = 20
CHANGES = 1_000
NAMES = ("fork of", "a live branch", "get on main", "forks deep", "diff of", "merge of")


def measure(bench: Bench) -> list[Line]:
    return [*_forks(bench), *_live(bench), *_deep(bench), *_changes(bench)]


def _forks(bench: Bench) -> list[Line]:
    sizes = [bench.size(1_000, 100), bench.size(100_000, 500), bench.size(10_000_000, 2_000)]
    found = {size: Figures(f"fork of {size:,} keys, opened again", "buffered", "us") for size in sizes}
    for name in bench.keepers():
        able = [size for size in sizes if size <= bench.systems[name].fork_limit]
        bench.say(f"forks of {', '.join(f'{size:,}' for size in able)} keys: {name}")
        for size in set(sizes) - set(able):
            found[size].absent[name] = f"takes too long above {bench.systems[name].fork_limit:,} keys"
        with noting(name, *(found[size] for size in able)):
            took = child(
                "branching", "fork", name, bench.place(f"fork-{name}"), sizes=able, rounds=bench.rounds
            )
            for size in able:
                found[size].rounds[name] = took[str(size)]
    goals = [Goal(30), *(Goal(30, within=(found[sizes[0]], 2.0)) for _ in sizes[1:])]
    return list(zip(found.values(), goals, strict=True))


def _live(bench: Bench) -> list[Line]:
    keys, count = bench.size(100_000, 500), bench.size(LIVE, 50)
    figures = Figures(f"a live branch, of {count:,}", "buffered", "bytes")
    for name in bench.keepers():
        with noting(name, figures):
            place = bench.place(f"live-{name}")
            child("branching", "load", name, place, keys=keys, needs="live_branch")
            # A process of its own, since what loading has given back would be grown into unseen.
            figures.rounds[name] = [child("branching", "live", name, place, count=count)["bytes"]]
    return [(figures, Goal(4096))]


def _deep(bench: Bench) -> list[Line]:
    main = Figures(f"get on main, below {DEEP} forks", "buffered", "us")
    deep = Figures(f"get {DEEP} forks deep", "buffered", "us")
    for name in bench.keepers():
        with noting(name, main, deep):
            sizes = {"keys": bench.size(100_000, 500), "reads": bench.size(50_000, 100)}
            took = child("branching", "deep", name, bench.place(f"deep-{name}"), rounds=bench.rounds, **sizes)
            main.rounds[name], deep.rounds[name] = took["main"], took["deep"]
    return [(main, None), (deep, Goal(within=(main, 3.0)))]


def _changes(bench: Bench) -> list[Line]:
    keys, changes = bench.size(1_000_000, 5_000), bench.size(CHANGES, 50)
    diff = Figures(f"diff of {changes:,} changes in {keys:,} keys", "buffered", "ms")
    again = Figures(f"{diff.row}, again", "buffered", "ms")
    merge = Figures(f"merge of {changes:,} changes in {keys:,} keys", "buffered", "ms")
    for name in bench.keepers():
        bench.say(f"diff and merge of {changes:,} changes in {keys:,} keys: {name}")
        with noting(name, diff, again, merge):
            sizes = {"keys": keys, "changes": changes, "rounds": bench.rounds}
            took = child("branching", "compare", name, bench.place(f"compare-{name}"), **sizes)
            diff.rounds[name], again.rounds[name] = took["diff"], took["again"]
            merge.rounds[name] = took["merge"]
    return [(diff, None), (again, Goal(5)), (merge, Goal(10))]


def fork(adapter: type[System], path: Path, sizes: list[int], rounds: int) -> dict[str, Any]:
    systems = {size: _loaded(adapter, path / str(size), size, "fork") for size in sizes}
    took: dict[str, list[float]] = {str(size): [] for size in sizes}
    serial = 0
    for number in range(rounds + 1):  # the first does not count
        for size, system in systems.items():
            made, start = 0, time.perf_counter()
            method = operation(system, "fork")
            while made < FORKS and time.perf_counter() - start < FORKS_S:
                method([f"fork-{serial}"])
                made, serial = made + 1, serial + 1
            if number:
                took[str(size)].append((time.perf_counter() - start) * 1e6 / made)
    for system in systems.values():
        system.close()
    return took


def load(adapter: type[System], path: Path, keys: int, needs: str) -> dict[str, Any]:
    _loaded(adapter, path, keys, needs).close()
    return {}


def live(adapter: type[System], path: Path, count: int) -> dict[str, Any]:
    system = adapter("buffered", path)
    make = operation(system, "live_branch")
    kept = [make("warm", system.key(key_text(0)), value_bytes(1))]
    gc.collect()
    before = resident_bytes()
    for number in range(count):
        kept.append(make(f"live-{number}", system.key(key_text(number)), value_bytes(number)))
    gc.collect()
    grown = resident_bytes() - before
    assert len(kept) == count + 1
    system.close()
    return {"bytes": grown / count}


def deep(adapter: type[System], path: Path, keys: int, reads: int, rounds: int) -> dict[str, Any]:
    """Each of the forks writes a key of its own, so that each is a place to look into."""
    system = _loaded(adapter, path, keys, "fork_from")
    fork_from, get_on, source = operation(system, "fork_from"), operation(system, "get_on"), "main"
    for level in range(DEEP):
        fork_from(
            source, f"deep-{level}", [(system.key(key_text(level)), system.value(value_bytes(level + keys)))]
        )
        source = f"deep-{level}"
    random = Random(SEED)
    took: dict[str, list[float]] = {"main": [], "deep": []}
    for number in range(rounds + 1):
        wanted = [system.key(key_text(random.randrange(keys))) for _ in range(reads)]
        for where, branch in (("main", "main"), ("deep", source)):
            start = time.perf_counter()
            get_on(branch, wanted)
            if number:
                took[where].append((time.perf_counter() - start) * 1e6 / reads)
    system.close()
    return took


def compare(adapter: type[System], path: Path, keys: int, changes: int, rounds: int) -> dict[str, Any]:
    system = _loaded(adapter, path, keys, "diff")
    fork_from, diff, merge = (operation(system, name) for name in ("fork_from", "diff", "merge"))
    random = Random(SEED)
    took: dict[str, list[float]] = {"diff": [], "again": [], "merge": []}
    for number in range(rounds + 1):
        chosen = random.sample(range(keys), changes)
        rows = [
            (system.key(key_text(index)), system.value(value_bytes(index + keys + number)))
            for index in chosen
        ]
        fork_from("main", f"changed-{number}", rows)
        for what, act in (("diff", diff), ("again", diff), ("merge", merge)):
            spent = _timed(lambda act=act, number=number: act("main", f"changed-{number}"), changes)
            if number:
                took[what].append(spent)
    system.close()
    return took


def _loaded(adapter: type[System], path: Path, keys: int, needs: str) -> System:
    """A database with so many keys, compacted and opened again."""
    path.mkdir(parents=True, exist_ok=True)
    system = adapter("buffered", path)
    operation(system, needs)
    system.load((key_text(index), value_bytes(index)) for index in range(keys))
    if hasattr(system, "compact"):
        system.compact()
    system.close()
    return adapter("buffered", path)


def _timed(act: Callable[[], int], expected: int) -> float:
    gc.collect()
    start = time.perf_counter()
    if act() != expected:
        raise Absent("does not find what was changed")
    return (time.perf_counter() - start) * 1000


ACTIONS = {"load": load, "fork": fork, "live": live, "deep": deep, "compare": compare}
