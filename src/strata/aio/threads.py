"""Where the calls of a database run: at once, or in a few threads, so that the loop waits for nothing.

at once     what takes a microsecond: one key of a database that is in this process
in threads  what may wait: for the disk, for another process, or for much to be read
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, Final, Generic, TypeVar

from strata.api.transaction import working_for
from strata.core.protocols import Store
from strata.remote.store import RemoteStore

R = TypeVar("R")
Lane = threading.Lock  # of what one thread at a time may use: a transaction

THREADS: Final = 64  # made as they are needed; so many requests of one connection are under way at once
_TURN: Final = 256  # calls at once, one after another, after which other tasks have their turn


class Threads:
    """The threads of one database."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="strata-aio")
        self._is_over = False
        self._process = os.getpid()
        self._at_once = 0
        self.reads_at_once = False
        self.writes_at_once = False

    def know(self, store: Store) -> None:
        """Take note of what calls to a store wait for."""
        self.reads_at_once = not isinstance(store, RemoteStore)
        self.writes_at_once = self.reads_at_once and store.info()["durability"] != "strict"

    @property
    def is_over(self) -> bool:
        """Whether every call raises: the database is closed, or this is a forked child, without threads."""
        return self._is_over or self._process != os.getpid()

    def start(self, call: Callable[[], R], lane: Lane | None = None) -> asyncio.Future[R]:
        """Return a call that is under way in one of the threads, in the context of this task.

        Args:
            lane: calls with the same one come one after the other.
        """
        if self.is_over:
            return _made_now(call)  # it raises Closed, and waits for nothing
        work = _Work(call, lane)
        shown, begun = work.shown, self._pool.submit(work)
        shown.add_done_callback(lambda shown: shown.cancelled() and begun.cancel())
        return shown

    def start_apart(self, call: Callable[[], R]) -> asyncio.Future[R]:
        """Return a call that is under way in a thread of its own, as it may wait for ever."""
        if self.is_over:
            return _made_now(call)
        work = _Work(call, None)
        shown = work.shown
        # A daemon, so that nobody has to wait for it at the end of the program.
        threading.Thread(target=work, name="strata-aio-watch", daemon=True).start()
        return shown

    async def run(self, call: Callable[[], R], lane: Lane | None = None) -> R:
        """Return what a call returns, made in a thread. Cancelled, it is not made, or goes on without us."""
        return await self.start(call, lane)

    async def finish(self, call: Callable[[], R], lane: Lane | None = None) -> R:
        """Return what a call returns, which is made also when we are cancelled meanwhile."""
        under_way = self.start(call, lane)
        try:
            return await asyncio.shield(under_way)
        except asyncio.CancelledError:
            under_way.add_done_callback(ignore)
            raise

    def is_turn_over(self) -> bool:
        """Whether other tasks have their turn after a call at once, which never waits: now and then."""
        self._at_once += 1
        return self._at_once % _TURN == 0

    def end(self) -> None:
        """Make all further calls at once, and let the threads end. Idempotent."""
        self._is_over = True
        self._pool.shutdown(wait=False)


class _Work(Generic[R]):
    """A call that a thread makes for a task.

    Once the task can have what the call gave, the thread holds nothing of either, nor of the call: what a
    program drops is gone then, as it would be without threads. (A pool keeps what it was given, and its
    future with the result, for a moment longer. And asyncio's own way from one future to the other puts an
    equal TimeoutError in the place of the one that was raised.)
    """

    def __init__(self, call: Callable[[], R], lane: Lane | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._parts: tuple[Any, ...] = _context(), call, lane, self._loop.create_future()

    @property
    def shown(self) -> asyncio.Future[R]:
        """The future of the task, until a thread begins."""
        future: asyncio.Future[R] = self._parts[-1]
        return future

    def __call__(self) -> None:
        told = self._made()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(_tell, told)

    def _made(self) -> list[Any]:
        (context, call, lane, shown), self._parts = self._parts, ()
        try:
            return [shown, context.run(_call, call, lane), None]
        except BaseException as error:
            return [shown, None, error]


def _tell(told: list[Any]) -> None:
    """Let a future have what a call gave, in its loop."""
    shown, result, error = told
    told.clear()  # which the thread still has
    if shown.done():  # it was cancelled when the call had begun
        return
    if error is None:
        shown.set_result(result)
    else:
        shown.set_exception(error)


def _context() -> Context:
    """Return a copy of our context, for a thread that works for this task."""
    context = copy_context()
    context.run(working_for.set, asyncio.current_task())
    return context


def _call(call: Callable[[], R], lane: Lane | None) -> R:
    try:
        if lane is None:
            return call()
        with lane:
            return call()
    except StopIteration as error:  # as Python has it for coroutines; a future cannot hold it
        raise RuntimeError("what was called raised StopIteration") from error


def _made_now(call: Callable[[], R]) -> asyncio.Future[R]:
    made = asyncio.get_running_loop().create_future()
    try:
        made.set_result(call())
    except Exception as error:
        made.set_exception(error)
    return made


def ignore(done: asyncio.Future[Any]) -> None:
    """Take note of what a call gave, for a task that is gone."""
    if not done.cancelled():
        done.exception()  # asyncio complains of errors that nobody asks for
