"""Blocking handles over the async ones, so that the tests of those drive `strata.aio`.

Each thread of a test has a task in a loop in the background, which makes its calls one after the other; what
is called back (the body of `transact`) runs in a thread that this task works for in the meantime. So blocks
of transactions belong to whom they should.

Python's own syntax that cannot wait (`len`, `in`, `kv[key] = value`, `str`) asks the blocking handle.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import os
import threading
import types
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import strata
import strata.aio
from strata.aio.adapter import ADAPTERS, Handle
from strata.aio.rows import Rows
from strata.aio.threads import Threads
from strata.remote.link import Thing

Call = Callable[[], Awaitable[Any]]
_here = threading.local()
_tasks: set[asyncio.Task[None]] = set()  # which the loop itself would not keep
_of_tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], Driver] = weakref.WeakKeyDictionary()


class Driver:
    """The task that works for one thread, and for those of functions that its calls call back."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: asyncio.Queue[tuple[Call, Future[Any]] | None] = asyncio.Queue()

    def call(self, call: Call) -> Any:
        """Return what a call gives, in the thread that this works for."""
        done: Future[Any] = Future()
        self._loop.call_soon_threadsafe(self._asked.put_nowait, (call, done))
        return done.result()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._asked.put_nowait, None)

    async def serve(self) -> None:
        await _serve(self)

    async def run(self, fn: Callable[[], Any]) -> Any:
        """Return what a function gives that is called in a thread this task works for meanwhile."""

        done: Future[Any] = Future()
        threading.Thread(target=_settle, args=(done, fn, self), daemon=True).start()
        await _serve_meanwhile(self)
        return done.result()


async def _called(call: Call) -> Any:
    return await call()


@types.coroutine
def _serve_meanwhile(driver: Driver) -> Iterator[Any]:
    """Let the task that is in `_serve` work for another driver, until that ends."""
    yield driver


@types.coroutine
def _serve(driver: Driver) -> Iterator[Any]:
    """Make what a driver is asked for, and what drivers are that these calls wait for meanwhile.

    The calls that wait are kept here side by side: called by each other, 300 of them would be deeper than
    Python goes.
    """
    waiting: list[tuple[Any, Future[Any], Driver]] = []
    while True:
        asked = yield from driver._asked.get().__await__()
        if asked is not None:
            call, done = asked
            steps = _called(call).__await__()
        elif waiting:
            steps, done, driver = waiting.pop()
        else:
            return
        meanwhile = yield from _go_on(steps, done)
        if meanwhile is not None:
            waiting.append((steps, done, driver))
            driver = meanwhile


def _go_on(steps: Any, done: Future[Any]) -> Iterator[Any]:
    """Go on with a call until it ends, or return the driver that it waits for."""
    step = functools.partial(steps.send, None)
    while True:
        try:
            found = step()
        except StopIteration as end:
            done.set_result(end.value)
            return None
        except BaseException as error:
            done.set_exception(_unwrapped(error))
            return None
        if isinstance(found, Driver):
            return found
        try:
            yield found
            step = functools.partial(steps.send, None)
        except BaseException as error:
            step = functools.partial(steps.throw, error)


def _unwrapped(error: BaseException) -> BaseException:
    """Return the StopIteration that Python lets no coroutine raise; see test_aio.py."""
    return error.__cause__ if isinstance(error.__cause__, StopIteration) else error


def _settle(done: Future[Any], call: Callable[[], Any], driver: Driver) -> None:
    _here.driver = driver
    try:
        done.set_result(call())
    except BaseException as error:
        done.set_exception(error)
    driver.end()


@functools.cache
def background() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="loop of the tests", daemon=True).start()
    atexit.register(lambda: asyncio.run_coroutine_threadsafe(_end_all(), loop).result())
    return loop


def _after_fork_in_child() -> None:
    """Begin anew: the thread of the loop, and of all tasks, is the parent's."""
    background.cache_clear()
    _tasks.clear()
    _here.__dict__.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _task() -> asyncio.Task[Any] | None:
    """Return the task that asks, where a test has a loop of its own."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def wait(call: Call) -> Any:
    """Return what a call gives, made by the task of this thread."""
    task = _task()
    driver = getattr(_here, "driver", None) if task is None else _of_tasks.get(task)
    if driver is not None:
        return driver.call(call)
    driver = Driver(background())
    context = copy_context()
    background().call_soon_threadsafe(
        lambda: _tasks.add(background().create_task(driver.serve(), context=context))
    )
    if task is not None:
        _of_tasks[task] = driver
        return driver.call(call)
    if not threading.current_thread().name.startswith("strata-aio"):
        _here.driver = driver
        return driver.call(call)
    try:  # such a thread works for one task, and later for another
        return driver.call(call)
    finally:
        driver.end()


async def _got(found: Any) -> Any:
    return await found


class Through:
    """A blocking handle that asks an async one."""

    __slots__ = ("__weakref__", "_aio")

    def __init__(self, handle: Handle) -> None:
        object.__setattr__(self, "_aio", handle)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._aio._OF

    def __getattr__(self, name: str) -> Any:
        handle = self._aio
        if name.startswith("_") or not hasattr(type(handle), name):
            return getattr(handle._blocking(), name)
        found = getattr(handle, name)
        if not inspect.ismethod(found):
            return shown(found)
        if name == "lane":
            return found if _task() else lambda name: _lane(found(name))
        if name == "recorded":
            return functools.partial(_recorded, found)
        if name in ("transact", "transactional"):
            found = functools.partial(_with_body, found)

        @functools.wraps(found)
        def called(*args: Any, **kwargs: Any) -> Any:
            return shown(found(*map(bare, args), **{name: bare(arg) for name, arg in kwargs.items()}))

        return called

    def __setattr__(self, name: str, value: Any) -> None:
        handle = self._aio
        setattr(handle if hasattr(type(handle), name) else handle._blocking(), name, value)

    def __dir__(self) -> Any:
        return dir(self._aio._blocking())

    def __enter__(self) -> Through:
        wait(self._aio.__aenter__)
        return self

    def __exit__(self, *error: Any) -> None:
        wait(lambda: self._aio.__aexit__(*error))

    def __iter__(self) -> Iterator[Any]:
        return shown(self._aio.__aiter__())

    def __next__(self) -> Any:
        try:
            return wait(self._aio.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __getitem__(self, key: Any) -> Any:
        return wait(lambda: self._aio[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._aio._blocking()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._aio._blocking()[key]

    def __contains__(self, key: Any) -> bool:
        return key in self._aio._blocking()

    def __len__(self) -> int:
        return len(self._aio._blocking())

    def __bool__(self) -> bool:
        return bool(self._aio._blocking())

    def __repr__(self) -> str:
        return repr(self._aio._blocking())

    def __str__(self) -> str:
        return str(self._aio._blocking())


def _with_body(method: Any, body: Any = None, /, **options: Any) -> Any:
    if body is None:
        return functools.partial(_with_body, method, **options)

    @functools.wraps(body)
    async def called(tx: Any, *args: Any, **kwargs: Any) -> Any:
        return await Driver(asyncio.get_running_loop()).run(lambda: body(Through(tx), *args, **kwargs))

    made = method(called, **options)
    if not inspect.iscoroutinefunction(made):
        return made
    run = functools.wraps(made)(lambda *args, **kwargs: wait(lambda: made(*args, **kwargs)))
    return run


@contextmanager
def _lane(block: Any) -> Iterator[None]:
    async def enter() -> None:
        block.__enter__()

    async def leave() -> None:
        block.__exit__(None, None, None)

    wait(enter)
    try:
        yield
    finally:
        wait(leave)


def _recorded(method: Any, fn: Any = None, /, **options: Any) -> Any:
    if fn is None:
        return functools.partial(_recorded, method, **options)
    is_plain = inspect.isfunction(fn) and not inspect.iscoroutinefunction(fn)
    if is_plain and not inspect.isgeneratorfunction(fn) and not options.get("transaction"):
        made = method(_in_task(fn), **options)
    else:
        made = method(fn, **options)
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__):
        return made
    return functools.wraps(made)(lambda *args, **kwargs: wait(lambda: made(*args, **kwargs)))


def _in_task(fn: Any) -> Any:
    @functools.wraps(fn)
    async def called(*args: Any, **kwargs: Any) -> Any:
        return await Driver(asyncio.get_running_loop()).run(lambda: fn(*args, **kwargs))

    return called


def bare(arg: Any) -> Any:
    return arg._aio if type(arg) is Through else arg


def shown(found: Any) -> Any:
    """Return what an async handle gave as a blocking one gives it."""
    if isinstance(found, Handle):
        wait(lambda: _got(found))  # so that errors come from the call
        return Through(found)
    if isinstance(found, Rows):
        wait(lambda: _got(found))
        return _rows(found)
    if inspect.isawaitable(found):
        return shown(wait(lambda: _got(found)))
    return found


def _rows(rows: Rows) -> Iterator[Any]:
    while True:
        try:
            yield wait(rows.__anext__)
        except StopAsyncIteration:
            return


def through(database: strata.Database) -> Any:
    """Return a database that is asked through `strata.aio`."""
    return Through(strata.aio.over(database))


def open_through() -> None:
    """Put those of `strata.aio`, driven so, in the place of `strata.open` and `strata.connect`."""

    def driven(opening: Callable[..., strata.aio.Database]) -> Callable[..., Any]:
        return functools.wraps(opening)(lambda *args, **kwargs: shown(opening(*args, **kwargs)))

    strata.open, strata.connect = driven(strata.aio.open), driven(strata.aio.connect)


@functools.cache
def threads(*, is_near: bool) -> Threads:
    made = Threads()
    made.reads_at_once = made.writes_at_once = is_near
    return made


def through_primitive(primitive: Any, lane: threading.Lock | None) -> Any:
    """Return a primitive that is asked through `strata.aio`.

    Args:
        lane: of the transaction that it is in.
    """
    used = threads(is_near=not isinstance(primitive._txn, Thing))
    return Through(ADAPTERS[type(primitive)](used, lambda: primitive, lane, found=primitive))
