"""The process that dies: threads that write as planned, and threads that disturb them.

    python -m crash.child     reads one JSON object per line, and forks a child for each: Python starts once

What a child acknowledges goes into a pipe, one line for each call, written after the call returned:

    open                                      it is about to open the database
    ready
    ack THREAD STEP VERSION FORK BEGAN ENDED  VERSION 0: nothing was committed (Conflict); FORK: where a fork
                                              begins, else 0; times in microseconds
    durable VERSION AT                        what the handle had said is durable by then
    load NAME WHAT                            a disturbance that ended well
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
from strata.store import open_store


@dataclass(frozen=True, slots=True)
class Spec:
    """What a child is told."""

    path: str
    durability: str
    seed: int
    life: int
    threads: int
    leftovers: tuple[str, ...] = ()
    segment_bytes: int = 32 << 10  # so that the log begins a new segment every few dozen commits
    flush_interval_ms: float = 100

    def plan(self, thread: int) -> Plan:
        return Plan(self.seed, self.life, thread, tuple(self.leftovers[thread :: self.threads]))


def micros() -> int:
    return time.monotonic_ns() // 1000


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
        store = open_store(
            spec.path,
            durability=spec.durability,
            create=False,
            segment_bytes=spec.segment_bytes,
            flush_interval_ms=spec.flush_interval_ms,
        )
        self.db = strata.Database(store, path=Path(spec.path))
        self.tell("ready")

    def work(self) -> None:
        plans = map(self.spec.plan, range(self.spec.threads))
        bodies = [partial(self.write, plan) for plan in plans] + [self.disturb]
        threads = [threading.Thread(target=self.guarded, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
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

    def disturb(self) -> None:
        """Whatever else goes on in a database while it is written to, in an order that the seed decides."""
        chance = random.Random(f"{self.spec.seed} {self.spec.life}")
        loads = list(LOADS.items())
        while True:
            name, load = chance.choice(loads)
            try:
                for what in load(self, chance):
                    self.tell(*what)
            except (StorageError, OutcomeUnknown) as error:
                self.tell("stop", "load", name, repr(error))
                return
            time.sleep(chance.random() * 0.005)


# --- disturbances: each does its work and yields what is to be told of it ------------------------------

Told = Iterator[tuple[object, ...]]


def durable(writer: Writer, chance: random.Random) -> Told:
    yield "durable", writer.db.durable_version, micros()


def flush(writer: Writer, chance: random.Random) -> Told:
    yield "durable", writer.db.flush(), micros()


def verify(writer: Writer, chance: random.Random) -> Told:
    report = writer.db.verify()
    assert report.ok, report
    yield "load", "verify", report.version


LOADS: dict[str, Callable[[Writer, random.Random], Told]] = {
    "durable": durable,
    "flush": flush,
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
