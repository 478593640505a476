"""Opening: after SIGKILL, after a clean close, what was lost, and what the files take.

A process puts the keys one by one and is killed in the middle of nothing. What it left is copied, and each
copy is opened by a new process: recovery. That process closes properly, and further ones open what it left.
At the end the copy is compacted. Opening is timed without importing, and without the first read.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures
from benchmarks.processes import Bench, child, disk_bytes, noting, rotated, written_bytes
from benchmarks.registry import OURS
from benchmarks.report import Line
from benchmarks.rows import Goal, key_text, value_bytes
from benchmarks.system import Absent, System, operation

OPEN_MS = 5.0
REPLAY_MB_S = 200.0  # on top of what opening takes by itself
TAIL = 10_000  # the puts before the kill that are looked for; nobody loses more than some hundred
NAMES = (
    "open after kill",
    "replay of the log",
    "puts lost by the kill",
    "open after close",
    "first read after open",
    "disk before compaction",
    "disk after compaction",
)


class _Found:
    """The lines of this case, while they are measured."""

    def __init__(self, keys: int) -> None:
        size = f"{keys // 1_000_000}M" if keys >= 1_000_000 else f"{keys // 1000}k"
        self.killed = Figures(f"open after kill, {size} puts", "buffered", "ms")
        self.replay = Figures("replay of the log", "buffered", "MB/s", more=True)
        self.lost = Figures("puts lost by the kill", "buffered", "puts")
        self.clean = Figures(f"open after close, {size} keys", "buffered", "ms")
        self.first = Figures("first read after open", "buffered", "ms")
        self.before = Figures("disk before compaction", "buffered", "bytes a key")
        self.after = Figures("disk after compaction", "buffered", "bytes a key")
        self.all = [self.killed, self.replay, self.lost, self.clean, self.first, self.before, self.after]


def measure(bench: Bench) -> list[Line]:
    keys, found = bench.size(1_000_000, 5_000), _Found(bench.size(1_000_000, 5_000))
    filled: list[str] = []
    for name in bench.keepers():
        bench.say(f"{keys:,} puts, then SIGKILL: {name}")
        with noting(name, *found.all):
            child("opening", "fill", name, bench.place(f"killed/{name}"), keys=keys)
            filled.append(name)
    for number in range(bench.size(3, 1)):
        for name in rotated(filled, number):
            if name in found.killed.absent:
                continue  # another copy of the same files would have lost the same
            with noting(name, found.killed):
                _after_kill(bench, found, name, keys)
    for number in range(bench.size(7, 2)):
        for name in rotated(filled, number):
            with noting(name, found.clean, found.first):
                opened = child("opening", "open", name, _copy(bench, name), keys=keys)
                found.clean.rounds.setdefault(name, []).append(opened["ms"])
                found.first.rounds.setdefault(name, []).append(opened["first_ms"])
    for name in filled:
        _disk(bench, found, name, keys)
    log_mb = _replay(bench, found) if OURS in filled else 0.0
    recovery = Goal(OPEN_MS + log_mb / REPLAY_MB_S * 1000, words=f"5 ms and {log_mb:.3g} MB at 200 MB/s")
    goals = [recovery, Goal(REPLAY_MB_S), Goal(0), Goal(OPEN_MS), None, None, Goal(130)]
    return list(zip(found.all, goals, strict=True))


def _copy(bench: Bench, name: str) -> Path:
    return bench.directory / "opened" / name


def _after_kill(bench: Bench, found: _Found, name: str, keys: int) -> None:
    """Open a new copy of what the killed process left; it is closed properly then."""
    copy = _copy(bench, name)
    copy.parent.mkdir(exist_ok=True)
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-r", str(bench.directory / "killed" / name), str(copy)], check=True)
    os.sync()
    opened = child("opening", "open", name, copy, keys=keys, tail=min(TAIL, keys))
    found.lost.rounds.setdefault(name, []).append(opened["lost"])
    if opened["lost"]:  # losing is quicker than recovering, and no time to compare with
        raise Absent(f"{opened['lost']} acknowledged puts were lost")
    found.killed.rounds.setdefault(name, []).append(opened["ms"])


def _disk(bench: Bench, found: _Found, name: str, keys: int) -> None:
    found.before.rounds[name] = [disk_bytes(_copy(bench, name)) / keys]
    with noting(name, found.after):
        child("opening", "compact", name, _copy(bench, name))
        found.after.rounds[name] = [disk_bytes(_copy(bench, name)) / keys]


def _replay(bench: Bench, found: _Found) -> float:
    """Note how fast our log was replayed, and return its size; how much of theirs is a log we cannot tell."""
    log = next(path for path in (bench.directory / "killed" / OURS).rglob("WAL"))
    log_mb = written_bytes(log) / 1e6
    # What opening takes by itself; but a clean opening that is slow for another reason is no excuse.
    clean = min(statistics.median(found.clean.rounds[OURS]), OPEN_MS)
    took = [ms - clean for ms in found.killed.rounds.get(OURS, ())]
    found.replay.rounds[OURS] = [log_mb / ms * 1000 for ms in took if ms > 0]
    return log_mb


def fill(adapter: type[System], path: Path, keys: int) -> dict[str, Any]:
    system = adapter("buffered", path)
    put = operation(system, "put")
    for first in range(0, keys, 10_000):
        last = min(first + 10_000, keys)
        put([(system.key(key_text(i)), system.value(value_bytes(i))) for i in range(first, last)])
    print(json.dumps({"filled": keys}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def reopen(adapter: type[System], path: Path, keys: int, tail: int = 0) -> dict[str, Any]:
    """Open and read one key, each timed; then count which of the last `tail` keys are missing or wrong."""
    start = time.perf_counter()
    system = adapter("buffered", path)
    opened = time.perf_counter()
    get = operation(system, "get")
    get([system.key(key_text(keys // 2))])
    read = time.perf_counter()
    lost = sum(_is_lost(get([system.key(key_text(i))]), i) for i in range(keys - tail, keys))
    system.close()
    return {"ms": (opened - start) * 1000, "first_ms": (read - opened) * 1000, "lost": lost}


def _is_lost(value: Any, index: int) -> bool:
    return value is None or bytes(value) != value_bytes(index)


def compact(adapter: type[System], path: Path) -> dict[str, Any]:
    system = adapter("buffered", path)
    operation(system, "compact")()
    system.close()
    return {}


ACTIONS = {"fill": fill, "open": reopen, "compact": compact}
