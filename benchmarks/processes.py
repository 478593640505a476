"""The rows that need processes of their own: bytes a key, opening after a kill and after a clean close."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures
from benchmarks.rows import Goal

# A log is replayed at 200 MB/s or better, on top of what opening takes by itself.
REPLAY_BYTES_PER_MS = 200_000
OPEN_MS = 5.0


class Failed(Exception):
    """A child ended in another way than it should; the text is the end of what it said."""


def _child(name: str, action: str, path: Path, keys: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.child", name, action, str(path), str(keys)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if not ended.stdout.strip():
        raise Failed((ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1])
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found


def disk_bytes(path: Path) -> int:
    """What the directory takes on disk; a preallocated hole does not count."""
    return sum(found.stat().st_blocks * 512 for found in path.rglob("*") if found.is_file())


def measure_processes(
    names: list[str], directory: Path, keys: int, rounds: int
) -> list[tuple[Figures, Goal]]:
    """Measure all process rows over `names`. The goal of recovery follows from the size of our log."""
    size = f"{keys // 1_000_000}M" if keys >= 1_000_000 else f"{keys // 1000}k"
    memory = Figures(f"memory, {size} keys", "memory", "bytes a key")
    disk = Figures(f"disk, {size} keys", "buffered", "bytes a key")
    killed = Figures(f"open after kill, {size} records", "buffered", "ms")
    clean = Figures(f"open after close, {size} keys", "buffered", "ms")
    filled: list[str] = []
    for name in names:
        _guard(memory, name, partial(_memory, memory, name, directory, keys))
        if _guard(killed, name, partial(_fill, name, directory, keys)):
            filled.append(name)
    log_bytes = disk_bytes(directory / "strata") if "strata" in filled else 0
    for _ in range(rounds):
        for name in filled:
            _guard(killed, name, partial(_open, killed, clean, name, directory, keys))
    for name in filled:
        if name in clean.rounds:
            disk.rounds[name] = [disk_bytes(directory / f"{name}-copy") / keys]
    recovery = Goal(OPEN_MS + log_bytes / REPLAY_BYTES_PER_MS, words="200 MB/s of log")
    return [(killed, recovery), (clean, Goal(OPEN_MS)), (memory, Goal(250)), (disk, Goal(130))]


def _guard(figures: Figures, name: str, step: Any) -> bool:
    try:
        step()
    except Failed as error:
        figures.absent[name] = str(error)
        return False
    return True


def _memory(figures: Figures, name: str, directory: Path, keys: int) -> None:
    if name == "file":
        raise Failed("has no memory mode")
    path = directory / f"{name}-memory"
    path.mkdir()
    figures.rounds[name] = [_child(name, "memory", path, keys)["bytes_per_key"]]
    shutil.rmtree(path)


def _fill(name: str, directory: Path, keys: int) -> None:
    if name in ("dict", "file"):
        raise Failed("keeps no state to open again")
    path = directory / name
    path.mkdir()
    _child(name, "fill", path, keys)


def _open(killed: Figures, clean: Figures, name: str, directory: Path, keys: int) -> None:
    """Open a copy of what the killed process left; then open that once more, now that it was closed."""
    copy = directory / f"{name}-copy"
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-r", str(directory / name), str(copy)], check=True)
    os.sync()
    after_kill = _child(name, "open", copy, keys)
    if after_kill["lost"]:
        raise Failed("the last acknowledged put was lost")
    killed.rounds.setdefault(name, []).append(after_kill["ms"])
    clean.rounds.setdefault(name, []).append(_child(name, "open", copy, keys)["ms"])
