"""The lines that the rows of the fault matrix end with, and what is done where one cannot run.

A row is many databases, each decided by one seed. A seed that fails says how to run it again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crash import private
from crash.life import with_paths


@dataclass(slots=True)
class Row:
    """What was done under one name, such as F6."""

    name: str
    runs: int = 0
    violations: int = 0
    skipped: int = 0
    ambiguous: int = 0
    first: int | None = None
    last: int | None = None
    notes: dict[str, float] = field(default_factory=dict)

    def seed(self, seed: int) -> None:
        self.first = seed if self.first is None else min(self.first, seed)
        self.last = seed if self.last is None else max(self.last, seed)

    def count(self, what: str, number: float = 1) -> None:
        self.notes[what] = self.notes.get(what, 0) + number

    def most(self, what: str, number: float) -> None:
        self.notes[what] = max(self.notes.get(what, 0), number)

    def __str__(self) -> str:
        notes = "".join(f" {name}={number:g}" for name, number in self.notes.items())
        return (
            f"{self.name} runs={self.runs} violations={self.violations} skipped={self.skipped} "
            f"ambiguous={self.ambiguous} seeds={self.first}..{self.last}{notes}"
        )


def free_bytes(path: Path) -> int:
    """Return how much room there is at a place."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def skip(name: str, needs: str) -> int:
    """Tell that a row cannot run here; return the exit status, which is a failure's where it must run."""
    print(f"SKIPPED {name} needs={needs}", flush=True)
    return 1 if name in os.environ.get("STRATA_TEST_REQUIRE", "").split(",") else private.CANNOT


def program(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end; if this process dies first, so does that one."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"crash.{module}", "--leashed", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=with_paths(),
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        output = process.stdout.read()
        return subprocess.CompletedProcess(process.args, process.wait(), output)
    finally:
        process.stdin.close()
        process.wait()


def main(
    name: str,
    module: str,
    run: Callable[[Row, argparse.Namespace, int], None],
    *,
    is_private: bool = False,
) -> None:
    """The command line of a row: `run` is called for one seed after the other."""
    parser = argparse.ArgumentParser(prog=f"python -m crash.{module}")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--databases", type=int, default=1, help="how many seeds")
    parser.add_argument("--rounds", type=int, default=10, help="crashes of each database")
    parser.add_argument("--durability", choices=["buffered", "strict"], default="buffered")
    parser.add_argument("--leashed", action="store_true", help="end when standard input does")
    arguments = parser.parse_args()
    try:
        if is_private:
            private.enter()
        if arguments.leashed:
            private.leash()
        sys.exit(seeds(Row(name), module, run, arguments))
    except private.Missing as error:
        sys.exit(skip(name, str(error)))


def seeds(
    row: Row, module: str, run: Callable[[Row, argparse.Namespace, int], None], arguments: argparse.Namespace
) -> int:
    """Run one seed after the other until one fails; return the exit status."""
    began = time.monotonic()
    try:
        for seed in range(arguments.seed, arguments.seed + arguments.databases):
            row.seed(seed)
            try:
                run(row, arguments, seed)
            except AssertionError as error:
                row.violations += 1
                print(f"{error}\nagain: {again(module, arguments, seed)}", flush=True)
                break
    finally:
        print(f"{row} seconds={time.monotonic() - began:.1f}", flush=True)
    return 1 if row.violations else 0


def again(module: str, arguments: argparse.Namespace, seed: int) -> str:
    """The line that runs one seed again."""
    return (
        f"cd tests && python -m crash.{module} --seed {seed} --rounds {arguments.rounds} "
        f"--durability {arguments.durability}"
    )
