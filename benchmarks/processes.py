"""What the cases share: processes of their own, sizes, and a note for each figure that cannot be had."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figures
from benchmarks.system import Absent, System

CHUNK_BYTES = 1 << 20
LIMIT_S = 300.0  # nobody waits longer for one step of one system


@dataclass(frozen=True)
class Bench:
    """One run of the comparison, as a case sees it."""

    systems: dict[str, type[System]]
    directory: Path
    quick: bool
    rounds: int
    say: Callable[[str], None]

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def keepers(self) -> list[str]:
        """The systems whose data outlives their process, and can be read again."""
        return [
            name
            for name, adapter in self.systems.items()
            if "buffered" in adapter.modes and hasattr(adapter, "get")
        ]

    def place(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(parents=True)
        return path


def rotated(names: list[str], number: int) -> list[str]:
    """Each round begins with another system."""
    shift = number % max(len(names), 1)
    return names[shift:] + names[:shift]


def child(
    case: str, action: str, system: str, path: Path, *, limit_s: float = LIMIT_S, **arguments: Any
) -> dict[str, Any]:
    """What `action` of `case` says about `system`, in a new process.

    Raises Absent when it says nothing, or not within `limit_s`.
    """
    command = [sys.executable, "-m", "benchmarks.child", case, action, system, str(path)]
    command.append(json.dumps(arguments))
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise Absent(f"took more than {limit_s:.0f} s") from None
    if not ended.stdout.strip():
        said = [line for line in ended.stderr.splitlines() if line.strip() and not line[0].isspace()]
        raise Absent((said or [f"status {ended.returncode}"])[-1])
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    if "absent" in found:
        raise Absent(found["absent"])
    return found


@contextmanager
def noting(name: str, *figures: Figures) -> Iterator[None]:
    """Whatever of `figures` cannot be had for `name` says why."""
    try:
        yield
    except Absent as why:
        for line in figures:
            line.absent[name] = str(why)


def disk_bytes(path: Path) -> int:
    """What the directory takes on disk; a hole does not count."""
    return sum(found.stat().st_blocks * 512 for found in path.rglob("*") if found.is_file())


def written_bytes(path: Path) -> int:
    """What is in the files of a directory, less the zeros that they were prepared with at their ends."""
    return sum(_until_zeros(found) for found in path.rglob("*") if found.is_file())


def _until_zeros(path: Path) -> int:
    end = path.stat().st_size
    with path.open("rb") as file:
        while end > 0:
            start = max(end - CHUNK_BYTES, 0)
            file.seek(start)
            kept = file.read(end - start).rstrip(b"\0")
            if kept:
                return start + len(kept)
            end = start
    return 0
