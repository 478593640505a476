"""Watch: the commits of a branch in their order, from any version that is kept, and then as they come.

A watch holds a position, and nothing in the database: each step reads the next page of the log behind it, and
where there is none it waits for the head to move. So there is no queue that could overflow, whoever is slow
holds nobody up and loses nothing, and whoever begins at the position of another goes on where that was.

Invariant: everything that the branch committed up to `version` was returned, or is none of what is watched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

import msgspec

from strata.core.errors import InvalidInput, NotFound, run_over_status
from strata.core.keys import check_int, check_name
from strata.core.protocols import Branch, Commit, Store, Written
from strata.history.diff import Limits
from strata.history.replay import Step, step_of, written
from strata.primitives import PRIMITIVES

# A run that is over never takes writes again. One that is paused may.
_ENDS: Final = frozenset({"completed", "failed", "cancelled", "archived"})


class Watch:
    """The commits of a branch as they come, each as a step with those of its changes that are watched.

    Iterate over it, or ask for the `next`. One thread at a time does so; any may `close` it.
    """

    def __init__(
        self,
        branch: Branch,
        version: int,
        limits: Limits,
        type: str | None = None,
        timeout_s: float | None = None,
        limit: int | None = None,
    ) -> None:
        self._branch = branch
        self._version = version
        self._limits = limits
        self._type = type
        self._timeout_s = timeout_s
        self._left = limit
        self._head = version  # what is known to be there
        self._commits: Iterator[tuple[Commit, list[Written]]] = iter(
            ()
        )  # of them, those that are not looked at
        self._closed = False
        self._used = threading.Lock()

    @property
    def branch(self) -> str:
        """The name of the branch."""
        return self._branch.name

    @property
    def version(self) -> int:
        """Where another watch would go on: all up to there was returned, or is none of what is watched."""
        return self._version

    @property
    def closed(self) -> bool:
        """Whether nothing more comes: it was closed, has reached its limit, or its run is over."""
        return self._closed

    def next(self, *, timeout_s: float | None = None) -> Step | None:
        """Return the next commit with changes that are watched, as a step; None when none came in time.

        Args:
            timeout_s: how long to wait for one that is still to come; 0 looks only at those that are there,
                None waits for ever. Ends at once with None when nothing more comes: see `closed`.
        Raises: HistoryTrimmed where retention has let go of what comes next; NotFound once the branch is
            deleted; Closed once the database is; InvalidInput while another thread is at it.
        """
        _check_timeout(timeout_s)
        if not self._used.acquire(blocking=False):
            raise InvalidInput("another thread waits on this watch", hint="each thread makes one of its own")
        try:
            return self._next(timeout_s)
        finally:
            self._used.release()

    def close(self) -> None:
        """Let whoever iterates over it end, within a tenth of a second. Idempotent."""
        self._closed = True

    def _next(self, timeout_s: float | None) -> Step | None:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        is_late = False
        while not self._closed:
            step = self._found()
            if step is not None:
                return self._counted(step)
            if is_late:
                return None
            left = None if end is None else max(0.0, end - time.monotonic())
            is_late = left == 0  # then one last look
            if not self._wait(left):
                return None
        return None

    def _counted(self, step: Step) -> Step:
        if self._left is not None:
            self._left -= 1
            self._closed |= self._left == 0
        return step

    def _found(self) -> Step | None:
        """Return the next step of those that are known to be there."""
        try:
            for commit, rows in self._commits:
                step = self._step(commit, rows)
                self._version = commit.version
                if step is not None:
                    return step
                if self._closed:
                    return None
        except BaseException:
            self._commits = self._read()  # what failed is what comes next
            raise
        self._version = max(self._version, self._head)
        return None

    def _wait(self, timeout_s: float | None) -> bool:
        """Wait for commits after what is known; return whether there are any."""
        sealed = self._branch.sealed
        is_over = sealed is not None and run_over_status(sealed) in _ENDS
        # What was sealed before the look at the head has no more commits than that.
        head = self._branch.wait(self._version, 0 if is_over else timeout_s, sealed, lambda: self._closed)
        if head <= self._version:
            self._closed |= is_over
            return self._branch.sealed != sealed
        self._head = head
        self._commits = self._read()
        return True

    def _read(self) -> Iterator[tuple[Commit, list[Written]]]:
        limits = self._limits
        return written(self._branch, self._version, self._head, limits.space, limits.primitive)

    def _step(self, commit: Commit, rows: list[Written]) -> Step | None:
        """Return a commit with what of it is watched; None when that is nothing."""
        if self._limits:
            rows = [row for row in rows if self._is_watched(row)]
        step = step_of(self._branch, commit, rows)
        if self._type is not None:
            wanted = tuple(change for change in step.changes if change.value.type == self._type)
            step = msgspec.structs.replace(step, changes=wanted)
        return step if step.changes else None

    def _is_watched(self, row: Written) -> bool:
        _, space, kind, key, *_ = row
        primitive = PRIMITIVES.get(kind)
        name = None if primitive is None else primitive._name(key)
        if primitive is None or name is None:
            return False
        return self._limits.hold(space, kind, primitive._thing(key, name))

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        step = self.next(timeout_s=self._timeout_s)
        if step is None:
            raise StopIteration
        return step

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Watch of {self.branch!r} at {self.version}{', closed' if self.closed else ''}>"


def watch(
    store: Store,
    branch: Branch,
    limits: Limits,
    type: str | None,
    from_version: int | None,
    timeout_s: float | None,
    limit: int | None,
) -> Watch:
    """Return a watch of a branch, once what was asked for makes sense."""
    if type is not None:
        check_name(type, "event type")
        if limits.primitive not in (None, "events"):
            raise InvalidInput(f"only events have a type, and {limits.primitive} has none")
        limits = replace(limits, primitive="events")
    if limit is not None:
        check_int(limit, "limit", 1)
    _check_timeout(timeout_s)
    return Watch(branch, _begin(store, branch, from_version), limits, type, timeout_s, limit)


def _begin(store: Store, branch: Branch, from_version: int | None) -> int:
    """Return the position to begin at."""
    head = branch.head
    if from_version is None:
        return head
    if check_int(from_version, "from_version") > head:
        # Versions are counted across branches: this one may not have got there. But if none has, then what
        # the position stood for was lost, and the next commits would be taken for those.
        newest = store.info()["version"]
        if from_version > newest:
            raise NotFound(what="version", name=str(from_version), hint=f"the newest is {newest}")
    return from_version


def _check_timeout(timeout_s: Any) -> None:
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if timeout_s is not None and not (is_number and timeout_s >= 0):
        raise InvalidInput(
            f"a timeout is a number of seconds, not {timeout_s!r}", hint="leave it out to wait for ever"
        )
