"""The process that dies: threads that write as planned, and threads that disturb them.

    python -m crash.child     reads one JSON object per line, and forks a child for each: Python starts once

What a child acknowledges goes into a pipe, one line for each call, written after the call returned:

    open                                      it is about to open the database
    ready
    ack THREAD STEP VERSION FORK BEGAN ENDED  VERSION 0: nothing was committed (Conflict); FORK: where a fork
                                              begins, else 0; times in microseconds
    durable VERSION AT                        what the handle had said is durable by then
    begin NAME                                a disturbance begins
    load NAME                                 it ended well
    backup VERSION AT                         the backup had come so far by then
    stop THREAD STEP TEXT                     the disk said no, as it may when the power goes
    bug TEXT                                  anything else
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import strata
from crash import operations
from crash.operations import Plan
from strata.errors import Conflict, OutcomeUnknown, StorageError
from strata.store import KernelStore


@dataclass(frozen=True, slots=True)
class Spec:
    """What a child is told."""

    path: str
    durability: str
    seed: int
    life: int
    threads: int
    leftovers: tuple[str, ...] = ()

    @property
    def loads(self) -> tuple[str, ...]:
        """The disturbances of this life. Not all: flushed every few milliseconds nothing could be lost."""
        chance = random.Random(f"{self.seed} {self.life} loads")
        return tuple(name for name in LOADS if chance.random() < 0.5)

    @property
    def options(self) -> dict[str, int]:
        """What the kernel is opened with: small sizes, so that segments change and checkpoints come often."""
        chance = random.Random(f"{self.seed} options")
        return {
            "flush_interval_us": chance.choice((5_000, 20_000, 100_000)),
            "segment_bytes": chance.choice((8 << 10, 32 << 10, 128 << 10)),
            "memory_budget": chance.choice((64 << 10, 1 << 20, 1 << 30)),
            "checkpoint_bytes": chance.choice((16 << 10, 64 << 10, 64 << 20)),
        }

    def plan(self, thread: int) -> Plan:
        return Plan(self.seed, self.life, thread, tuple(self.leftovers[thread :: self.threads]))


def micros() -> int:
    return time.monotonic_ns() // 1000


def opened(spec: Spec, *, create: bool = False) -> strata.Database:
    store = KernelStore.open(spec.path, spec.durability, create, False, spec.options)
    return strata.Database(store, path=Path(spec.path))


class Writer:
    """One child at work."""

    def __init__(self, spec: Spec, pipe: int) -> None:
        self.spec, self.pipe = spec, pipe

    def tell(self, *words: object) -> None:
        # One write of less than PIPE_BUF bytes: lines of many threads do not mix.
        os.write(self.pipe, (" ".join(map(str, words)) + "\n").encode()[:4000])

    def run(self) -> None:
        parent = os.getppid()
        try:
            self.open()
        except StorageError as error:
            self.tell("stop", "open", repr(error))
        else:
            self.work()
        # The disk is gone. Stay to be killed all the same, unless nobody is there any more who would.
        while os.getppid() == parent:
            time.sleep(0.001)

    def open(self) -> None:
        spec = self.spec
        self.tell("open")
        self.db = opened(spec)
        self.tell("ready")

    def work(self) -> None:
        plans = map(self.spec.plan, range(self.spec.threads))
        bodies = [partial(self.write, plan) for plan in plans]
        bodies += [
            partial(self.disturb, name, load) for name, load in LOADS.items() if name in self.spec.loads
        ]
        threads = [threading.Thread(target=self.guarded, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except MemoryError:
            self.tell("stop", "memory")
        except BaseException:
            self.tell("bug", traceback.format_exc().replace("\n", " | ")[-3000:])

    def write(self, plan: Plan) -> None:
        for step in range(10**9):
            op = plan.op(step)
            began = micros()
            try:
                version = operations.do(self.db, op)
            except Conflict:
                version = 0
            except (StorageError, OutcomeUnknown) as error:
                self.tell("stop", plan.thread, step, repr(error))
                return
            ended = micros()
            fork_version = self.db.branches.get(op.target).fork_version if op.kind == "fork" else 0
            self.tell("ack", plan.thread, step, version, fork_version, began, ended)

    def disturb(self, name: str, load: Load) -> None:
        """Whatever else goes on in a database while it is written to, again and again."""
        chance = random.Random(f"{self.spec.seed} {self.spec.life} {name}")
        while True:
            time.sleep(chance.random() * 0.01)
            self.tell("begin", name)
            try:
                for what in load(self, chance):
                    self.tell(*what)
            except (StorageError, OutcomeUnknown) as error:
                self.tell("stop", "load", name, repr(error))
                return


# --- disturbances: each does its work and yields what is to be told of it ------------------------------

Told = Iterator[tuple[object, ...]]
Load = Callable[[Writer, random.Random], Told]


def durable(writer: Writer, chance: random.Random) -> Told:
    yield "durable", writer.db.durable_version, micros()


def flush(writer: Writer, chance: random.Random) -> Told:
    yield "durable", writer.db.flush(), micros()


def verify(writer: Writer, chance: random.Random) -> Told:
    report = writer.db.verify()
    assert report.ok, report
    yield "load", "verify"


def checkpoint(writer: Writer, chance: random.Random) -> Told:
    made = writer.db.checkpoint()
    yield "load", "checkpoint"
    # What is in runs needs no log, and what is in the log was synced before it went.
    yield "durable", made.version, micros()


def compact(writer: Writer, chance: random.Random) -> Told:
    writer.db.compact()
    yield "load", "compact"


def backup(writer: Writer, chance: random.Random) -> Told:
    made = writer.db.backup(backup_of(writer.spec))
    yield "backup", made.version, micros()
    yield "load", "backup"


def backup_of(spec: Spec) -> Path:
    """Where the backup lies: beside the database, on the same disk, so that runs are linked."""
    return Path(spec.path).with_name("backup")


LOADS: dict[str, Load] = {
    "durable": durable,
    "flush": flush,
    "checkpoint": checkpoint,
    "compact": compact,
    "backup": backup,
    "verify": verify,
}


def main() -> None:
    """Fork a child for each line, say its process id, wait for its end, say its status."""
    for line in sys.stdin:
        pipe, given = json.loads(line)
        process = os.fork()
        if process == 0:
            try:
                Writer(Spec(**given), pipe).run()
            except BaseException:
                os.write(pipe, f"bug {traceback.format_exc()!r}\n".encode()[:4000])
            os._exit(0)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def as_line(spec: Spec, pipe: int) -> str:
    return json.dumps([pipe, dataclasses.asdict(spec)]) + "\n"


if __name__ == "__main__":
    main()
