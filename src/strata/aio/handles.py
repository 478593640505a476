"""The async classes. What they say themselves is what differs: transactions, watches, recorded calls."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from strata import api
from strata.aio.adapter import ADAPTERS, BLOCKING, Handle
from strata.aio.threads import Lane, Threads, ignore
from strata.api.recorded import Options, Recorder, options_of, outcome_of
from strata.api.retry import RETRIES
from strata.core.atomic import pause_after
from strata.core.errors import Conflict, InvalidInput
from strata.core.keys import check_int
from strata.history import watch as blocking
from strata.history.replay import Step

R = TypeVar("R")
_GRACE_S: Final = 0.1


class Async(Handle):
    """What type checkers know of an async handle: that it has the names of the blocking one."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Transaction(Async, of=api.Transaction):
    """A transaction of one task, in an `async with` block. It begins with that, or when it is awaited.

    Its calls come one after the other. A task that is cancelled in the block rolls it back.
    """

    def __init__(
        self, threads: Threads, find: Callable[[], Any], lane: Lane | None = None, **options: Any
    ) -> None:
        super().__init__(threads, find, threading.Lock(), **options)

    async def commit(self) -> int:
        """Commit, and return the version. Once it has begun it goes on, also when the task is cancelled."""
        return int(await self._end(lambda: self._blocking().commit()))

    async def rollback(self) -> None:
        """Drop all that was written. Idempotent."""
        await self._end(lambda: self._blocking().rollback())

    async def _end(self, call: Callable[[], Any]) -> Any:
        lane = self._lane
        assert lane is not None
        if self._found is not None and self._threads.writes_at_once and lane.acquire(blocking=False):
            try:
                return call()
            finally:
                lane.release()
        return await self._threads.finish(call, lane)

    async def __aenter__(self) -> Transaction:
        await self._ready()
        is_first = self._found._holder is None
        try:
            self._found._enter(asyncio.current_task())
        except InvalidInput:
            if is_first:
                await self.rollback()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._found._leave()
        if kind is not None:
            await self.rollback()
        elif not self._found._over:
            await self.commit()


class _Place(Async):
    """What places have besides."""

    async def transact(
        self, body: Callable[[Transaction], Awaitable[R]], *, retries: int = RETRIES, **options: Any
    ) -> R:
        """Return what `await body(tx)` returns, committed. On Conflict it runs again, after a short pause.

        Raises: Conflict when `retries` more attempts conflict as well; what `body` raises, rolled back.
        """
        check_int(retries, "retries")
        attempt = 0
        while True:
            try:
                transaction: Transaction = self.transaction(**options)
                async with transaction as tx:
                    return await body(tx)
            except Conflict:
                attempt += 1
                if attempt > retries:
                    raise
            await asyncio.sleep(pause_after(attempt))

    def transactional(self, body: Any = None, /, *, retries: int = RETRIES, **options: Any) -> Any:
        """Make an async function of a transaction into one that runs in a transaction, with retries."""
        if body is None:
            return functools.partial(self.transactional, retries=retries, **options)

        @functools.wraps(body)
        async def run(*args: Any, **kwargs: Any) -> Any:
            return await self.transact(lambda tx: body(tx, *args, **kwargs), retries=retries, **options)

        del run.__wrapped__  # help() would show the transaction as an argument
        return run


class Database(_Place, of=api.Database):
    """One database, for the tasks of an event loop. Use it in an `async with` block, or await `close`."""

    async def close(self) -> None:
        """Write out what is pending and release the files. Idempotent. Watches and other calls end."""
        if not self._threads.is_over:
            if self._found is not None:
                await self._threads.finish(lambda: self._found.close())
            self._threads.end()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aenter__(self) -> Database:
        return await self._ready()


class Branch(_Place, of=api.Branch):
    pass


class Space(_Place, of=api.Space):
    pass


class View(Async, of=api.View):
    pass


class Run(_Place, of=api.Run):
    """A run: a branch with a lifecycle. The end of an `async with` block completes it, an error fails it."""

    def recorded(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        key: Callable[..., Any] | None = None,
        encode: Callable[..., Any] | None = None,
        decode: Callable[..., Any] | None = None,
        transaction: bool = False,
    ) -> Any:
        """Return `fn`, an async function or another, as an async function whose calls are kept with the run.

        As the blocking one. A function that is not async runs in a thread.
        """
        if fn is None:
            return functools.partial(
                self.recorded, name=name, key=key, encode=encode, decode=decode, transaction=transaction
            )
        recorder: Recorder = self._known()._recorder
        options = options_of(fn, name, key, encode, decode, transaction)
        made = recorder.wrap(fn, options)
        if inspect.iscoroutinefunction(made):
            return _recorded(self._threads, recorder, fn, options)

        @functools.wraps(fn)
        async def in_thread(*args: Any, **kwargs: Any) -> Any:
            return await self._threads.run(lambda: made(*args, **kwargs))

        return in_thread


def _recorded(threads: Threads, recorder: Recorder, fn: Any, options: Options) -> Any:
    """Return an async function that is recorded, and reads and writes its record in threads."""

    @functools.wraps(fn)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        with recorder._step(options, args, kwargs) as step:
            stored = await threads.run(lambda: recorder._begin(step))
            if stored is None:
                with recorder._enter(step):
                    try:
                        result = await fn(*args, **kwargs)
                    except Exception as error:
                        failure = error
                        await threads.finish(lambda: recorder._failed(step, failure))
                        raise
                row = recorder._result(options, result)
                stored = await threads.finish(lambda: recorder._keep(recorder._txn, step, row))
            return outcome_of(stored, options)

    return awaited


class Watch(Async, AsyncIterator[Step], of=blocking.Watch):
    """The commits of a branch as they come: iterate with `async for`, or await the `next`.

    It begins when it is awaited, entered or first asked. One task at a time asks; any may `close` it.
    """

    _coming: asyncio.Future[Step | None] | None = None  # which a task that was cancelled waited for

    async def next(self, *, timeout_s: float | None = None) -> Step | None:
        """Return the next commit with changes that are watched; None when none came in time.

        As the blocking one. Where a task is cancelled meanwhile, its step comes with the next call.
        """
        watch: blocking.Watch = (await self._ready())._found
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self._coming is not None:
            left = None if end is None else max(_GRACE_S, end - time.monotonic())
            coming = self._coming
            await asyncio.wait({coming}, timeout=left)
            if not coming.done():
                return None
            self._coming = None
            step = coming.result()
            if step is not None or watch.closed:
                return step
        step = await self._wait(self._threads.start(lambda: watch.next(timeout_s=0)))
        if step is not None or timeout_s == 0 or watch.closed:
            return step
        left = None if end is None else max(0.0, end - time.monotonic())
        return await self._wait(self._threads.start_apart(lambda: watch.next(timeout_s=left)))

    async def _wait(self, coming: asyncio.Future[Step | None]) -> Step | None:
        self._coming = coming
        try:
            step = await asyncio.shield(coming)
        except asyncio.CancelledError:
            coming.add_done_callback(ignore)
            raise  # and it is still coming
        except BaseException:
            self._coming = None
            raise
        self._coming = None
        return step

    async def close(self) -> None:
        """Let whoever iterates over it end, within a tenth of a second. Idempotent."""
        (await self._ready())._found.close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Step:
        step = await self.next(timeout_s=(await self._ready())._found._timeout_s)
        if step is None:
            raise StopAsyncIteration
        return step


for _of in BLOCKING:
    if _of not in ADAPTERS:
        type(_of.__name__, (Async,), {"__doc__": _of.__doc__, "__module__": __name__}, of=_of)
