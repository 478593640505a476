"""The life of a child, seen from outside: what it acknowledged until it was ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import strata
from crash import child
from crash.child import Spec
from crash.operations import Op

LONGEST_S = 60  # a child that says nothing for so long hangs


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledged commit. It was given at some moment between the two times, in microseconds."""

    op: Op
    version: int
    fork_version: int  # where a fork begins; 0 for all else
    began: int
    ended: int


@dataclass(slots=True)
class Life:
    """What one child said."""

    spec: Spec
    acks: list[Ack] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)  # per thread, the first that no word came of
    durable: list[tuple[int, int]] = field(default_factory=list)  # version, when
    backups: list[tuple[int, int]] = field(default_factory=list)
    begun: dict[str, tuple[int, float]] = field(default_factory=dict)  # how often, and when the last time
    loads: dict[str, int] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    opened: float | None = None  # when it said that it opens
    ready: bool = False
    unknown: list[Op] | None = None  # known here if it did not die
    ends: int = 1 << 62  # when its end began, in microseconds
    status: int = 0  # how it ended

    def hear(self, line: str) -> None:
        word, *rest = line.split(" ")
        match word:
            case "open":
                self.opened = time.monotonic()
            case "ready":
                self.ready = True
            case "ack":
                thread, step, version, fork_version, began, ended = map(int, rest)
                self.steps[thread] = step + 1
                if version:
                    op = self.spec.plan(thread).op(step)
                    self.acks.append(Ack(op, version, fork_version, began, ended))
            case "durable":
                self.durable.append((int(rest[0]), int(rest[1])))
            case "backup":
                self.backups.append((int(rest[0]), int(rest[1])))
            case "begin":
                self.begun[rest[0]] = (self.begun.get(rest[0], (0, 0.0))[0] + 1, time.monotonic())
            case "load":
                self.loads[rest[0]] = self.loads.get(rest[0], 0) + 1
            case "stop":
                self.stops.append(" ".join(rest))
            case _:
                self.bugs.append(line)

    def under_way(self) -> list[Op]:
        """What may have been going on when it died: of each thread, the operation no word came of."""
        if self.unknown is not None:
            return self.unknown
        threads = range(self.spec.threads)
        return [self.spec.plan(thread).op(self.steps.get(thread, 0)) for thread in threads]

    def newest(self, op: Op) -> int:
        """The newest version that the thread of `op` was told of."""
        own = op.name.rpartition(".")[0] + "."
        return max((ack.version for ack in self.acks if ack.op.name.startswith(own)), default=0)


@dataclass(frozen=True, slots=True)
class Until:
    """When to end a life: after so many acknowledgements, or by the clock.

    The clock starts when it begins to open, or when a disturbance begins for the n-th time.
    """

    acks: int | None = None
    seconds: float = 0
    load: str | None = None
    times: int = 1

    def patience_s(self, life: Life) -> float | None:
        """How long to wait yet; None until more is heard."""
        if self.acks is not None:
            return 0.0 if len(life.acks) >= self.acks else None
        if self.load is None:
            begun = life.opened
        else:
            times, begun = life.begun.get(self.load, (0, None))
            begun = begun if times >= self.times else None
        return None if begun is None else max(0.0, begun + self.seconds - time.monotonic())


def with_paths() -> dict[str, str]:
    """The environment of this process, in which other processes find what it found."""
    paths = [str(Path(__file__).parent.parent), str(Path(strata.__file__).parent.parent)]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Nursery:
    """Where children come from: one process that has Python and the library loaded, and forks them."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        self._writer = writer
        os.set_blocking(self._reader, False)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "crash.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[writer],
            env=with_paths(),
        )
        os.close(writer)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._reader)

    def live(
        self,
        spec: Spec,
        until: Until,
        end: Callable[[int], None] | None = None,
        *,
        ends_itself: bool = False,
    ) -> Life:
        """Let a child live as long as `until` says, then call `end`, kill it, and return what it said.

        `ends_itself`: it may have done so by then, in any way.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(child.as_line(spec, self._writer))
        self._process.stdin.flush()
        process = int(self._process.stdout.readline())
        life = Life(spec)
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        rest = ""
        try:
            while (wait_s := until.patience_s(life)) != 0 and not life.bugs and not life.stops:
                if poll.poll((wait_s or LONGEST_S) * 1000):
                    rest = self._listen(life, rest)
                elif wait_s is None:
                    life.bugs.append(f"bug it said nothing for {LONGEST_S} s")
            life.ends = child.micros()
            if end is not None:
                end(process)
        finally:
            # One that has ended itself is no more.
            with suppress(*[ProcessLookupError] * ends_itself):
                os.kill(process, signal.SIGKILL)
        status = life.status = int(self._process.stdout.readline())
        rest = self._listen(life, rest)
        if not ends_itself and (rest or status != -signal.SIGKILL):
            life.bugs.append(f"bug it ended with {status} before it was killed, and said last '{rest}'")
        return life

    def _listen(self, life: Life, rest: str) -> str:
        """Hear all whole lines that are there; return the beginning of one that is not."""
        while True:
            try:
                rest += os.read(self._reader, 1 << 16).decode()
            except BlockingIOError:
                return rest
            *lines, rest = rest.split("\n")
            for line in lines:
                life.hear(line)
