"""F5: real power cuts. ext4 in a file, shut down among the commits of eight threads, and mounted again.

The shutdown ends all traffic to the disk and flushes neither data nor journal: what was not synced is gone,
as it is when the power goes. Only what was acknowledged before it began counts: a sync that is under way
then may return as if all were well, which nobody would see in a real power cut. `strict` loses nothing
acknowledged; `buffered` only what was acknowledged within one flush interval of each other, and nothing that
the handle had called durable.

What this cannot show: a name that was not synced (`sync_dir`). ext4 makes it durable with the file.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from crash import kill, private, rows
from crash.child import Spec
from crash.judge import Judge
from crash.life import Nursery, Until

THREADS = 8
IMAGE_BYTES = 24 << 20


def moment(chance: random.Random, loads: Sequence[str]) -> Until:
    """When to cut: as one kills, and late enough for flush intervals to pass."""
    return Until(seconds=chance.uniform(0.01, 0.3)) if chance.random() < 0.3 else kill.moment(chance, loads)


def cut_again_and_again(
    row: rows.Row, image: private.Image, seed: int, *, rounds: int, durability: str
) -> None:
    """Cut the power under one database `rounds` times. Raises: Violation."""
    chance = random.Random(seed)
    path = image.at / "power.strata"
    judge = Judge(path, seed)
    judge.create(Spec(str(path), durability, seed, 0, THREADS))
    with Nursery() as nursery:
        for life_number in range(rounds):
            spec = Spec(str(path), durability, seed, life_number, THREADS, judge.leftovers())
            life = nursery.live(spec, moment(chance, spec.loads), lambda _: image.cut_power())
            image.unmount()
            image.mount()
            found = judge.examine(life, power_cut=True)
            row.runs += 1
            row.count("commits", len(life.acks))
            row.count("unacknowledged", found.unacknowledged)
            row.count("lost", found.lost)
            for name, times in life.loads.items():
                row.count(name, times)
            row.ambiguous += found.ambiguous
            row.most("span_ms_max", found.span_us / 1000)


def run(row: rows.Row, arguments: argparse.Namespace, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="strata-power-") as directory:
        image = private.Image(Path(directory), IMAGE_BYTES)
        try:
            cut_again_and_again(row, image, seed, rounds=arguments.rounds, durability=arguments.durability)
        finally:
            image.close()


if __name__ == "__main__":
    rows.main("F5", "power", run, is_private=True)
