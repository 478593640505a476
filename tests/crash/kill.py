"""F6: kill -9 of a busy child, again and again on one database, and each time a look at what is left.

Nothing acknowledged is lost in either mode; the state is that of one version between acknowledged and
issued; the lock is free; opening takes no longer than the log is long.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from crash import rows
from crash.child import Spec
from crash.judge import Judge
from crash.life import Nursery, Until

THREADS = 4
LOG_BYTES_PER_S = (
    200e6  # at which a log is to be replayed; told and not demanded, since the machine may be busy
)


def moment(chance: random.Random, loads: Sequence[str]) -> Until:
    """When to kill: while it opens, in the middle of a disturbance, among the commits, later by the clock."""
    match chance.randrange(8):
        case 0:
            return Until(seconds=chance.random() * 0.005)
        case 1:
            return Until(seconds=chance.uniform(0.01, 0.12))
        case 2 | 3 | 4:
            changing = [name for name in loads if name not in ("durable", "verify")]
            if changing:
                name, times = chance.choice(changing), chance.randint(1, 3)
                return Until(load=name, times=times, seconds=chance.random() * 0.01)
    return Until(acks=int(2 ** chance.uniform(0, 8)))


def kill_again_and_again(row: rows.Row, path: Path, seed: int, *, rounds: int, durability: str) -> None:
    """Kill a child on one database `rounds` times. Raises: Violation."""
    chance = random.Random(seed)
    judge = Judge(path, seed)
    judge.create(Spec(str(path), durability, seed, 0, THREADS))
    with Nursery() as nursery:
        for life_number in range(rounds):
            spec = Spec(str(path), durability, seed, life_number, THREADS, judge.leftovers())
            life = nursery.live(spec, moment(chance, spec.loads))
            found = judge.examine(life)
            row.runs += 1
            row.count("commits", len(life.acks))
            row.count("unacknowledged", found.unacknowledged)
            row.count("never_opened", not life.ready)
            for name, times in life.loads.items():
                row.count(name, times)
            row.most("open_ms_max", round(found.open_s * 1000, 1))
            row.count("slow_opens", found.open_s > 1 + found.log_bytes / LOG_BYTES_PER_S)


def run(row: rows.Row, arguments: argparse.Namespace, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="strata-kill-") as directory:
        path = Path(directory) / "kill.strata"
        kill_again_and_again(row, path, seed, rounds=arguments.rounds, durability=arguments.durability)


if __name__ == "__main__":
    rows.main("F6", "kill", run)
