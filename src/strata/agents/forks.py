"""Forks: many runs off one version, and a plan on each of them, side by side.

The caller's thread is the foreman: it alone begins plans, takes what they return, looks at the clock and
closes runs. A plan ends in one of these ways, and each is recorded in its run alone:

    returns a value                     completed, with the value as the result
    raises                              failed, with the error
    returns what is no value            failed
    is not back in time                 cancelled
    writes more than it may             cancelled
    its process ends (processes only)   failed

A run that is over is sealed in the kernel. So a thread that is not back in time, and which nothing can kill,
goes on without harm: its next write, and the commit of a transaction that it is in, raise RunClosed.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, Protocol

from strata.agents.outcomes import Measure, Outcomes, check_measures, check_runs, outcomes_of
from strata.api import Run
from strata.api.instants import Instant
from strata.api.place import Place
from strata.core.clock import Duration, duration_micros
from strata.core.errors import HistoryTrimmed, InvalidInput, StrataError
from strata.core.keys import check_int

Plan = Callable[[Run], Any]
Workers = Literal["threads", "processes"]

_WORKERS: Final = ("threads", "processes")
_THREADS: Final = 32  # at the same time: most plans wait for something
_LOOK_S: Final = 0.02  # between two looks at how much was written
ACTIVE: Final = "active"


def fork_many(
    place: Place,
    n: int,
    *,
    source: str | Place | None = None,
    at: Instant | None = None,
    prefix: str = "plan",
    tags: Iterable[str] = (),
) -> list[Run]:
    """Begin `n` runs on branches forked off the same version, and return them.

    Args:
        place: where they are recorded: the database, a branch, or a run, which is then their parent.
        source: what they are forked off; left out, `place` itself.
        at: fork it as it was at a version or an instant; left out, now.
        prefix: the runs are named "plan-00", "plan-01" and so on. Their metadata has the number as "plan".
    Raises: as `runs.begin`. Those that were begun by then are cancelled.
    Cost: a fork and a commit of a few rows, `n` times.
    """
    check_int(n, "n", 1)
    if at is None:
        # All at one version, also while others write to the source.
        at = place.version if source is None else _head(place, source)
    width, begun = len(str(n - 1)), []
    labels = list(tags)
    try:
        for number in range(n):
            name, metadata = f"{prefix}-{number:0{width}}", {"plan": number}
            begun.append(place.runs.begin(name, from_=source, at=at, tags=labels, metadata=metadata))
    except BaseException:
        for run in begun:
            _settle(run, "cancel", "not all could be forked")
        raise
    return begun


def run_plans(
    runs: Sequence[Run],
    plans: Plan | Sequence[Plan],
    *,
    timeout: Duration | None = None,
    max_writes: int | None = None,
    workers: Workers = "threads",
    parallel: int | None = None,
    measures: Mapping[str, Measure] | None = None,
) -> Outcomes:
    """Run a plan on each of the runs, side by side, close the runs, and return what became of them.

    A plan is called with its run, which is a branch, and what it returns is the result of the run. One that
    raises is failed, and one that takes or writes too much is cancelled; the others go on.

    Args:
        plans: one for all runs, or as many as there are runs.
        timeout: how long each may take, in seconds or as a timedelta, from its own beginning.
        max_writes: how many keys each may write. It is looked at every 20 ms: what was written by then stays
            on its branch.
        workers: "threads"; or "processes", which can be killed, and whose plans are functions of a module.
            They reach their run through this process, at about 0.04 ms a call.
        parallel: how many plans at the same time; left out, 32 threads or a process for each core.
        measures: as for `evaluate`, which makes the outcomes.
    Raises: InvalidInput. KeyboardInterrupt cancels what is not over yet.
    """
    runs = list(runs)
    check_runs(runs)
    check_measures(measures or {})
    each = [plans] * len(runs) if callable(plans) else list(plans)
    if len(each) != len(runs):
        raise InvalidInput(f"{len(each)} plans do not go with {len(runs)} runs", hint="give as many")
    if workers not in _WORKERS:
        raise InvalidInput(f"workers {workers!r} are unknown", hint=f"one of {', '.join(_WORKERS)}")
    if parallel is None:
        parallel = _THREADS if workers == "threads" else os.cpu_count() or 1
    foreman = Foreman(
        runs,
        each,
        _start_process if workers == "processes" else Thread,
        check_int(parallel, "parallel", 1),
        None if timeout is None else _seconds(timeout),
        None if max_writes is None else check_int(max_writes, "max_writes", 1),
    )
    foreman.work()
    return outcomes_of(runs, dict(measures or {}), foreman.took_ms)


class Worker(Protocol):
    """Who carries out a plan."""

    def kill(self) -> None:
        """Stop it, if that can be done."""


Report = Callable[["BaseException | None", Any], None]  # what it raised, what it returned


class Thread:
    """Carries out a plan on a thread, which nothing can stop: `kill` only stops waiting for it."""

    def __init__(self, run: Run, plan: Plan, report: Report) -> None:
        # A daemon, so that a plan that hangs does not keep the program from ending.
        threading.Thread(target=self._work, args=(run, plan, report), name=run.name, daemon=True).start()

    @staticmethod
    def _work(run: Run, plan: Plan, report: Report) -> None:
        try:
            result = plan(run)
        except BaseException as error:  # also SystemExit: it is about this plan alone
            report(error, None)
        else:
            report(None, result)

    def kill(self) -> None:
        """Do nothing: the run is sealed."""


def _start_process(run: Run, plan: Plan, report: Report) -> Worker:
    from strata.agents.child import Process  # which few need

    return Process(run, plan, report)


@dataclass(slots=True)
class _Task:
    """A plan that was begun."""

    run: Run
    worker: Worker
    began: float
    seen: int  # up to which version what it wrote was counted
    writes: int = 0


@dataclass(slots=True)
class Foreman:
    """Carries out plans, at most `parallel` at the same time, and closes their runs."""

    runs: list[Run]
    plans: list[Plan]
    start: Callable[[Run, Plan, Report], Worker]
    parallel: int
    timeout_s: float | None
    max_writes: int | None
    took_ms: dict[str, float] = field(default_factory=dict)
    _going: dict[int, _Task] = field(default_factory=dict)
    _done: queue.SimpleQueue[tuple[int, BaseException | None, Any]] = field(default_factory=queue.SimpleQueue)
    _look_at: float = 0.0

    def work(self) -> None:
        """Return when all runs are over."""
        waiting = list(range(len(self.runs)))[::-1]
        try:
            while waiting or self._going:
                while waiting and len(self._going) < self.parallel:
                    self._begin(waiting.pop())
                self._take()
                self._stop_the_late()
                self._stop_the_flood()
        except BaseException:
            for number in list(self._going):
                self._end(number, "cancel", "the others were given up")
            for number in waiting:
                _settle(self.runs[number], "cancel", "it was not begun")
            raise

    def _begin(self, number: int) -> None:
        run = self.runs[number]
        if run.status != ACTIVE:
            raise InvalidInput(f"run {run.id!r} is {run.status}, not active", hint="fork_many makes new ones")

        def report(error: BaseException | None, result: Any) -> None:
            self._done.put((number, error, result))

        # Counted from the fork on, or rather from here: what there is by now was not written by the plan.
        seen = run.version
        self._going[number] = _Task(run, _Nobody(), time.monotonic(), seen)
        try:
            self._going[number].worker = self.start(run, self.plans[number], report)
        except Exception as error:  # it cannot be sent to a process, or there is no room for one
            report(error, None)

    def _take(self) -> None:
        """Take what came back, or wait until there is something else to do."""
        pauses = [_LOOK_S] if self.max_writes is not None else []
        if self.timeout_s is not None and self._going:
            first = min(task.began for task in self._going.values())
            pauses.append(max(0.0, first + self.timeout_s - time.monotonic()))
        try:
            number, error, result = self._done.get(timeout=min(pauses, default=None))
        except queue.Empty:
            return
        if number not in self._going:
            return  # too late
        if error is None:
            self._end(number, "end", result)
        else:
            self._end(number, "fail", error)

    def _stop_the_late(self) -> None:
        if self.timeout_s is None:
            return
        now = time.monotonic()
        for number, task in list(self._going.items()):
            if now - task.began >= self.timeout_s:
                self._end(number, "cancel", f"it took more than {self.timeout_s:g} s")

    def _stop_the_flood(self) -> None:
        if self.max_writes is None or time.monotonic() < self._look_at:
            return
        for number, task in list(self._going.items()):
            if _wrote_more(task, self.max_writes):
                self._end(number, "cancel", f"it wrote more than {self.max_writes} keys")
        self._look_at = time.monotonic() + _LOOK_S

    def _end(self, number: int, how: str, what: Any) -> None:
        task = self._going.pop(number)
        self.took_ms[task.run.id] = (time.monotonic() - task.began) * 1000
        _settle(task.run, how, what)
        task.worker.kill()


class _Nobody:
    """Who carries out a plan that could not be begun."""

    def kill(self) -> None:
        """Do nothing."""


def _wrote_more(task: _Task, limit: int) -> bool:
    """Return whether a plan wrote more keys. Cost: grows with what it wrote since it was last asked."""
    upto = task.run.version
    try:
        for step in task.run.replay_range(task.seen, upto):
            task.writes += len(step.changes)
            if task.writes > limit:
                return True
    except HistoryTrimmed:
        pass  # retention keeps less than was written; what comes next is counted
    task.seen = upto
    return False


def _settle(run: Run, how: str, what: Any) -> None:
    """Close a run, unless the plan did so itself."""
    if run.status != ACTIVE:
        return
    try:
        getattr(run, how)(what)
    except StrataError as error:
        if run.status == ACTIVE:  # else somebody else was first
            run.fail(f"{type(error).__name__}: {error}")


def _head(place: Place, source: str | Place) -> int:
    return source.version if isinstance(source, Place) else place.branch(source).version


def _seconds(timeout: Duration) -> float:
    micros = duration_micros(timeout, "a timeout", "as in timeout=5 or timeout=timedelta(minutes=1)")
    return timedelta(microseconds=micros).total_seconds()
