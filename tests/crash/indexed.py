"""F6 for indexes: kill -9 of a child that writes what is indexed, while indexes are written and built.

The child writes documents and vectors on two branches, and takes checkpoints, compacts, forks, and builds
indexes again, drops and declares them. It is killed in the middle of that. After reopening, every index says
on every branch what looking at every row says, and no acknowledged commit is gone.

    python -m crash.indexed --seed 17     a row; `--child`, PATH, SEED and LIFE make it the process that dies
"""

from __future__ import annotations

import argparse
import math
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import strata
from crash import rows
from crash.judge import Violation
from crash.life import LONGEST_S, with_paths
from strata.core.protocols import Bound
from strata.errors import Conflict
from strata.primitives import Json, Vectors
from strata.store import KernelStore
from strata.testing import looking

DIM = 8
KEYS = 200
LIFE_S = 1.5  # at most: a history that grows and grows only makes looking slow
WORDS = ("red", "reds", "green", "blue", "café", "the", "running", "ran", "rare")
WORKS = ("checkpoint", "compact", "rebuild", "redeclare", "fork")


def opened(path: Path, seed: int, *, create: bool = False) -> strata.Database:
    """With small sizes, so that there are many parts of indexes, and checkpoints of the kernel's own."""
    chance = random.Random(f"{seed} options")
    options = {
        "flush_interval_us": 20_000,
        "segment_bytes": chance.choice((32 << 10, 1 << 20)),
        "memory_budget": chance.choice((256 << 10, 1 << 20, 1 << 30)),
        "checkpoint_bytes": chance.choice((64 << 10, 64 << 20)),
    }
    return strata.Database(KernelStore.open(str(path), "buffered", create, False, options), path=path)


def create(path: Path, seed: int) -> None:
    with opened(path, seed, create=True) as db:
        db.indexes.create("by_n", primitive="json", kind="ordered", paths="$.n")
        db.indexes.create("by_m_n", primitive="json", kind="ordered", paths=["$.m", "$.n"])
        declare_words(db)
        db.vectors.create_collection("near", DIM)
        db.indexes.create("by_g", primitive="vectors", kind="ordered", paths="$.g")
        db.branches.fork("main", "what-if")
        if seed % 2:
            db.retention.set(strata.KeepLast(3))


def declare_words(db: strata.Database) -> None:
    db.indexes.create("words", primitive="json", paths={"$.t": 1.0, "$.u": 2.5})


# --- the process that dies -----------------------------------------------------------------------------


class Child:
    """It tells `ready`, `ack BRANCH VERSION`, `begin WORK` and `bug TEXT`, a line each."""

    def __init__(self, path: Path, seed: int, life: int) -> None:
        self.seed, self.life = seed, life
        self.db = opened(path, seed)
        tell("ready")

    def run(self) -> None:
        bodies = [partial(self.write, branch) for branch in ("main", "what-if")]
        bodies += [partial(self.work, name) for name in WORKS]
        for body in bodies:
            threading.Thread(target=guarded, args=(body,)).start()

    def write(self, branch: str) -> None:
        chance, place = random.Random(f"{self.seed} {self.life} {branch}"), self.db.branch(branch)
        while True:
            try:
                change(place, chance)
            except Conflict:
                continue
            tell("ack", branch, place.version)

    def work(self, name: str) -> None:
        chance = random.Random(f"{self.seed} {self.life} {name}")
        while True:
            time.sleep(chance.random() * 0.05)
            tell("begin", name)
            getattr(self, name)(chance)

    def checkpoint(self, chance: random.Random) -> None:
        self.db.checkpoint()

    def compact(self, chance: random.Random) -> None:
        self.db.compact()

    def rebuild(self, chance: random.Random) -> None:
        self.db.indexes.rebuild(chance.choice(("by_n", "by_m_n", "by_g")))

    def redeclare(self, chance: random.Random) -> None:
        self.db.indexes.drop("words")
        declare_words(self.db)

    def fork(self, chance: random.Random) -> None:
        if "later" in self.db.branches:
            self.db.branches.delete("later")
        self.db.branches.fork(chance.choice(("main", "what-if")), "later")


def change(place: Any, chance: random.Random) -> None:
    keys = [f"k{chance.randrange(KEYS)}" for _ in range(chance.choice((1, 1, 1, 20)))]
    match chance.randrange(6):
        case 0:
            place.json.destroy(keys[0])
        case 1:
            place.vectors.delete("near", keys[0])
        case 2 | 3:
            vectors = [[chance.uniform(-1, 1) for _ in range(DIM)] for _ in keys]
            place.vectors.upsert_many("near", keys, vectors, [{"g": chance.randrange(9)} for _ in keys])
        case _:
            with place.transaction() as txn:
                for key in keys:
                    txn.json.set(key, "$", document(chance))


def document(chance: random.Random) -> dict[str, Any]:
    words = " ".join(chance.choices(WORDS, k=chance.randrange(30)))
    return {"n": chance.choice((None, chance.randrange(50), "x")), "m": chance.randrange(3), "t": words}


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode()[:4000])


def guarded(body: Callable[[], None]) -> None:
    try:
        body()
    except BaseException:
        tell("bug", traceback.format_exc().replace("\n", " | ")[-3000:])


# --- seen from outside ---------------------------------------------------------------------------------


class Life:
    """What a child said until it was killed."""

    def __init__(self) -> None:
        self.acks = 0
        self.newest: dict[str, int] = {}
        self.begun: dict[str, int] = {}

    def hear(self, line: str) -> None:
        match line.split():
            case ["ack", branch, version]:
                self.acks += 1
                self.newest[branch] = int(version)
            case ["begin", work]:
                self.begun[work] = self.begun.get(work, 0) + 1
            case ["ready"]:
                pass
            case _:
                raise Violation(line)


@contextmanager
def process(path: Path, seed: int, life: int) -> Iterator[subprocess.Popen[bytes]]:
    """A child, which is dead afterwards."""
    command = [sys.executable, "-P", "-m", "crash.indexed", "--child", str(path), str(seed), str(life)]
    started = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0, env=with_paths()
    )
    assert started.stdout is not None
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def live(path: Path, seed: int, number: int, chance: random.Random) -> Life:
    """Let a child live until some work of it has begun, and kill it in the middle of that."""
    life, rest = Life(), b""
    work, times, acks = chance.choice(WORKS), chance.randint(1, 4), int(2 ** chance.uniform(0, 8))
    by_acks, latest = chance.random() < 0.25, None
    with process(path, seed, number) as child:
        assert child.stdout is not None
        while (life.acks < acks) if by_acks else (life.begun.get(work, 0) < times):
            if not select.select([child.stdout], [], [], LONGEST_S)[0]:
                raise Violation(f"it said nothing for {LONGEST_S} s")
            latest = latest or time.monotonic() + LIFE_S
            if time.monotonic() > latest:
                break
            rest = listen(life, rest, os.read(child.stdout.fileno(), 1 << 16))
        time.sleep(chance.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        while more := os.read(child.stdout.fileno(), 1 << 16):
            rest = listen(life, rest, more)
    return life


def listen(life: Life, rest: bytes, more: bytes) -> bytes:
    if not more:
        raise Violation("it ended before it was killed")
    *lines, rest = (rest + more).split(b"\n")
    for line in lines:
        life.hear(line.decode())
    return rest


def examine(path: Path, seed: int, life: Life, chance: random.Random) -> int:
    """Open what is left, and return how many rows the indexes were asked of. Raises: Violation."""
    seen = 0
    with opened(path, seed) as db:
        for branch, version in life.newest.items():
            if db.branch(branch).version < version:
                raise Violation(f"{branch} had version {version}, and is at {db.branch(branch).version}")
        for branch in list(db.branches):
            for layout in (Json.LAYOUT, Vectors.LAYOUT):
                seen += ask(db.branch(branch)._source.keyspace("default", layout), branch, chance)
        report = db.verify()
        if not report.ok:
            raise Violation(f"{report}")
    return seen


def ask(txn: Any, where: str, chance: random.Random) -> int:
    """Ask every index of a place, and look at its rows. Raises: Violation."""
    seen = [(key, txn.entry(key)[1], value) for key, value in txn.scan(None, None, None, False, None)]
    for index in txn.indexes():
        kind = index[4]["type"]
        expected, found = ASKING[kind](txn, index, seen, chance)
        if not same(expected, found):
            raise Violation(f"{index[0]} on {where} says\n{found}\nand not\n{expected}")
    return len(seen)


Answers = tuple[list[Any], list[Any]]


def ask_value(txn: Any, index: Any, seen: list[Any], chance: random.Random) -> Answers:
    low: Bound = chance.choice((None, ([chance.randrange(50)], True)))
    expected = [(row[0], row[1], 0.0) for _, row in looking.by_value(index, seen, low, None)]
    return expected, [(*row, 0.0) for row in txn.by_value(index[0], low, None, False, None)]


def ask_text(txn: Any, index: Any, seen: list[Any], chance: random.Random) -> Answers:
    query = " ".join(chance.sample(WORDS, 3))
    expected = looking.by_text(index, seen, query, lambda row: True)
    return ranked(expected), ranked(txn.by_text(index[0], query, 10 * KEYS)["hits"])


def ask_vector(txn: Any, index: Any, seen: list[Any], chance: random.Random) -> Answers:
    query = array("f", [chance.uniform(-1, 1) for _ in range(DIM)]).tobytes()
    expected = looking.by_vector(index, seen, query, lambda row: True)
    return ranked(expected), ranked(txn.by_vector(index[0], query, 10 * KEYS, None, 1.0))


ASKING = {"ordered": ask_value, "text": ask_text, "vector": ask_vector}


def ranked(hits: list[Any]) -> list[Any]:
    """By key: sums of other order differ in their last bits, and what is as near may change places."""
    return sorted(tuple(hit[:3]) for hit in hits)


def same(expected: list[Any], found: list[Any]) -> bool:
    return len(expected) == len(found) and all(
        one[:2] == other[:2] and math.isclose(one[2], other[2], rel_tol=1e-5, abs_tol=1e-6)
        for one, other in zip(expected, found, strict=True)
    )


def run(row: rows.Row, arguments: argparse.Namespace, seed: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="strata-indexed-") as directory:
        path = Path(directory) / "indexed.strata"
        create(path, seed)
        for number in range(arguments.rounds):
            life = live(path, seed, number, chance)
            row.count("rows", examine(path, seed, life, chance))
            row.runs += 1
            row.count("commits", life.acks)
            for name, times in life.begun.items():
                row.count(name, times)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        Child(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])).run()
    else:
        rows.main("F6", "indexed", run)
