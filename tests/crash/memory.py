"""F11: a process that gets no more memory, from some moment on.

The system gives a busy child no further pages, and its allocations fail: Python's with MemoryError, those of
the kernel that are as large as something in a file with a typed error, and its small ones end the process, as
a kill does. However it ends, nothing acknowledged is lost, in either mode; the state is that of one version,
and nothing that is whole is called damaged.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import tempfile
import time
from pathlib import Path

from crash import rows
from crash.child import Spec
from crash.judge import Judge
from crash.kill import THREADS, moment
from crash.life import Nursery

# By which a child that cannot go on has ended itself; the others are killed then.
PATIENCE_S = 0.3
# What Python says when it cannot go on.
OF_MEMORY = ("MemoryError", "can't start new thread", "can\\'t start new thread")


def no_more(process: int) -> None:
    """Let the process have the memory that it has, and wait for what comes of it."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[0])
    size = pages * resource.getpagesize()
    resource.prlimit(process, resource.RLIMIT_AS, (size, size))
    # Without it, threads would live on what they set aside before and did not touch yet.
    resource.prlimit(process, resource.RLIMIT_DATA, (1, 1))
    time.sleep(PATIENCE_S)


def starve_again_and_again(row: rows.Row, path: Path, seed: int, *, rounds: int, durability: str) -> None:
    """Take memory from children on one database, `rounds` times. Raises: Violation."""
    chance = random.Random(seed)
    judge = Judge(path, seed)
    judge.create(Spec(str(path), durability, seed, 0, THREADS))
    with Nursery() as nursery:
        for life_number in range(rounds):
            spec = Spec(str(path), durability, seed, life_number, THREADS, judge.leftovers())
            life = nursery.live(spec, moment(chance, spec.loads), no_more, ends_itself=True)
            life.bugs = [bug for bug in life.bugs if not any(word in bug for word in OF_MEMORY)]
            found = judge.examine(life)
            row.runs += 1
            row.count("commits", len(life.acks))
            row.count("unacknowledged", found.unacknowledged)
            row.count("ended_itself", life.status != -signal.SIGKILL)
            row.count("told", len(life.stops))


def run(row: rows.Row, arguments: argparse.Namespace, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="strata-memory-") as directory:
        path = Path(directory) / "memory.strata"
        starve_again_and_again(row, path, seed, rounds=arguments.rounds, durability=arguments.durability)


if __name__ == "__main__":
    rows.main("F11", "memory", run)
