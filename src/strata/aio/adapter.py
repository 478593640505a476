"""The adapter: an async class for each class of handles, made from it.

    a method                          a coroutine
    a method that gives rows          rows, for `async for`
    a method that gives a handle      that handle at once; it is looked up when it is awaited or first used
    a property                        something to await, but for what is at hand (`AT_HAND`)
    `with`                            `async with`

So names, arguments, results, errors and docs are those of the blocking class, whatever that has.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import msgspec

from strata import api
from strata.aio.rows import Rows
from strata.aio.threads import Lane, Threads
from strata.api.indexes import Indexes
from strata.api.operations import HANDLES, OPERATIONS
from strata.api.place import Place
from strata.api.replay import Replay
from strata.api.transaction import TransactionSpace
from strata.api.webhooks import Webhooks
from strata.core.errors import InvalidInput
from strata.history.diff import Diff
from strata.history.watch import Watch
from strata.primitives import PRIMITIVES, Events, Kv, State
from strata.search import Hit, Results

BLOCKING: Final[tuple[type[Any], ...]] = (
    api.Database, api.Branch, api.Space, api.Run, api.View, api.Transaction, TransactionSpace,
    api.Branches, api.Spaces, api.Runs, api.Retention, Indexes, Webhooks, Diff, Replay, Watch,
    *PRIMITIVES.values(),
)  # fmt: skip

# Attributes that are no request to anybody. `Settable` ones may be given another value.
AT_HAND: Final[dict[type[Any], frozenset[str]]] = {
    api.Database: frozenset({"name", "path", "closed"}),
    api.Run: frozenset({"id"}),
    api.Transaction: frozenset({"snapshot", "version", "message", "actor", "cause"}),
    Watch: frozenset({"version", "closed"}),
    Replay: frozenset({"after", "upto"}),
}
_SETTABLE: Final = frozenset({"message", "actor", "cause"})
_PLAIN: Final = frozenset({"lane"})  # methods that touch nothing but this task

# One key, in about a microsecond. Of writes those that begin no transaction, which may pause and try again.
_POINTS: Final = frozenset({"get", "entry", "exists", "head", "len"})
_POINT_WRITES: Final[dict[type[Any], frozenset[str]]] = {
    Kv: frozenset({"put", "incr", "delete"}),
    Events: frozenset({"append"}),
    State: frozenset({"delete"}),
}
_QUICK: Final = frozenset({"branch", "space", "transaction", "watch"})  # handles that are found as fast
_NAMES: Final = {cls.__name__: cls for cls in BLOCKING}
_ACCESS: Final = {(operation.owner, operation.method): operation for operation in OPERATIONS.values()}

ADAPTERS: Final[dict[type[Any], type[Handle]]] = {}


class Handle:
    """A blocking handle, for tasks. Valid until the database closes; shared between tasks at will."""

    __slots__ = ("__weakref__", "_find", "_found", "_lane", "_parts", "_quick", "_threads")

    _OF: ClassVar[type[Any]]

    def __init__(
        self,
        threads: Threads,
        find: Callable[[], Any],
        lane: Lane | None = None,
        *,
        found: Any = None,
        quick: bool = False,
    ) -> None:
        self._threads = threads
        self._find = find
        self._found = found
        self._lane = lane
        self._quick = quick
        self._parts: dict[str, Handle] = {}  # handles that belong to this one

    def __init_subclass__(cls, of: type[Any] | None = None) -> None:
        if of is None:
            return
        cls._OF = of
        cls.__doc__ = cls.__doc__ or of.__doc__
        ADAPTERS[of] = cls
        for name in public_names(of):
            if not hasattr(cls, name):
                setattr(cls, name, _adapted(of, name))
        for name, made in _PROTOCOLS.items():
            if hasattr(of, name):
                made(cls, of)

    def _blocking(self) -> Any:
        """Return the blocking handle, in a place that may wait."""
        if self._found is None:
            self._found = self._find()
        return self._found

    def _at_once(self, writes: bool) -> Any:
        """Return the blocking handle if a call of a microsecond may be made here and now; else None."""
        threads = self._threads
        # Inside of a transaction nothing is committed yet.
        if not (threads.writes_at_once if writes and self._lane is None else threads.reads_at_once):
            return None
        return self._blocking() if self._quick else self._found

    def _known(self) -> Any:
        if self._found is None:
            raise InvalidInput("this is not known before the handle was looked up", hint="await it first")
        return self._found

    def __await__(self) -> Generator[Any, None, Self]:
        return self._ready().__await__()

    async def _ready(self) -> Self:
        if self._found is None and self._at_once(writes=False) is None:
            await self._threads.run(self._blocking, self._lane)
        return self

    def _handle(self, of: type[Any], find: Callable[[], Any], *, quick: bool) -> Handle:
        """Return the async handle of what `find` finds, later."""
        is_quick = quick and (self._found is not None or self._quick)
        return adapter(of)(self._threads, find, self._lane, quick=is_quick)

    def _given(self, result: Any) -> Any:
        """Return a result for tasks: a handle as an async one, and nothing that reads later in the loop."""
        made = ADAPTERS.get(type(result))
        if made is not None:
            return made(self._threads, lambda: result, self._lane, found=result)
        return result

    def __repr__(self) -> str:
        if self._found is None or not self._threads.reads_at_once:
            return f"<aio.{type(self).__name__}>"
        return f"<aio.{repr(self._found).removeprefix('<')}"


def adapter(of: type[Any]) -> type[Handle]:
    """Return the async class of a blocking one."""
    return ADAPTERS[of]


def public_names(of: type[Any]) -> list[str]:
    """Return the public names of a blocking class, with the attributes of its instances."""
    names = {name for name in dir(of) if not name.startswith("_") and name != "LAYOUT"}
    return sorted(names | AT_HAND.get(of, frozenset()))


def _adapted(of: type[Any], name: str) -> Any:
    """Return what stands for a public name of a blocking class."""
    found = inspect.getattr_static(of, name, None)
    if name in AT_HAND.get(of, ()):
        return _at_hand(name, inspect.getdoc(found) if isinstance(found, property) else None)
    if isinstance(found, property):
        assert found.fget is not None
        result = _NAMES.get(str(found.fget.__annotations__["return"]))
        made = _awaited(name) if result is None else _part(name, result, quick=name in ("spaces", "runs"))
        return property(made, doc=inspect.getdoc(found))
    if name in PRIMITIVES:
        is_place = name == "runs" and issubclass(of, Place)
        return property(_part(name, api.Runs if is_place else PRIMITIVES[name], quick=True))
    if callable(found):
        return _plain(name, found) if name in _PLAIN else _method(of, name, found)
    return property(_part(name, _SLOTS[name], quick=True))


_SLOTS: Final[dict[str, type[Any]]] = {
    "branches": api.Branches,
    "indexes": Indexes,
    "retention": api.Retention,
    "webhooks": Webhooks,
}


def _at_hand(name: str, doc: str | None) -> property:
    def get(self: Handle) -> Any:
        return getattr(self._known(), name)

    def put(self: Handle, value: Any) -> None:
        setattr(self._known(), name, value)

    return property(get, put if name in _SETTABLE else None, doc=doc)


def _part(name: str, of: type[Any], *, quick: bool) -> Callable[[Handle], Handle]:
    """Return how a handle gives one that belongs to it; `quick` when it has it."""

    def get(self: Handle) -> Handle:
        part = self._parts.get(name)
        if part is not None:
            return part
        if quick and self._found is not None:
            found = getattr(self._found, name)
            part = self._parts[name] = ADAPTERS[of](self._threads, lambda: found, self._lane, found=found)
            return part
        return self._handle(of, lambda: getattr(self._blocking(), name), quick=quick)

    return get


class _Read:
    """A property, to be awaited."""

    __slots__ = ("_handle", "_name")

    def __init__(self, handle: Handle, name: str) -> None:
        self._handle = handle
        self._name = name

    def __await__(self) -> Generator[Any, None, Any]:
        handle, name = self._handle, self._name
        call = handle._threads.run(lambda: getattr(handle._blocking(), name), handle._lane)
        return call.__await__()

    def __repr__(self) -> str:
        return f"<await {self._name}>"


def _awaited(name: str) -> Callable[[Handle], Awaitable[Any]]:
    return lambda self: _Read(self, name)


def _plain(name: str, blocking: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(blocking)
    def call(self: Handle, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._known(), name)(*args, **kwargs)

    return call


def _method(of: type[Any], name: str, blocking: Callable[..., Any]) -> Callable[..., Any]:
    owner = next(cls for cls in of.__mro__ if name in vars(cls))
    operation = _ACCESS.get((owner, name))
    reads = operation is not None and operation.access == "read"
    result = str(blocking.__annotations__.get("return", ""))
    if reads and result.startswith("Iterator["):
        return _rows(name, blocking)
    if result in _NAMES and (reads or name in HANDLES[Place]):
        return _finder(name, blocking, _NAMES[result])
    if name in _POINT_WRITES.get(of, ()):
        return _point(name, blocking, writes=True)
    if reads and of in PRIMITIVES.values() and name in _POINTS:
        return _point(name, blocking, writes=False)
    return _coroutine(name, blocking)


def _rows(name: str, blocking: Callable[..., Any]) -> Callable[..., Rows]:
    @functools.wraps(blocking)
    def call(self: Handle, *args: Any, **kwargs: Any) -> Rows:
        return Rows(self._threads, lambda: _call(self, name, args, kwargs), self._lane)

    return call


def _finder(name: str, blocking: Callable[..., Any], of: type[Any]) -> Callable[..., Handle]:
    @functools.wraps(blocking)
    def call(self: Handle, *args: Any, **kwargs: Any) -> Handle:
        return self._handle(of, lambda: _call(self, name, args, kwargs), quick=name in _QUICK)

    return call


def _point(name: str, blocking: Callable[..., Any], *, writes: bool) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(blocking)
    async def call(self: Handle, *args: Any, **kwargs: Any) -> Any:
        found, lane = self._at_once(writes), self._lane
        if found is None or (lane is not None and not lane.acquire(blocking=False)):
            return await self._threads.run(lambda: _call(self, name, args, kwargs), lane)
        try:
            result = blocking(found, *args, **kwargs)
        finally:
            if lane is not None:
                lane.release()
        if self._threads.is_turn_over():
            await asyncio.sleep(0)
        return result

    return call


def _coroutine(name: str, blocking: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(blocking)
    async def call(self: Handle, *args: Any, **kwargs: Any) -> Any:
        def called() -> Any:
            result = _call(self, name, args, kwargs)
            is_far = isinstance(result, Results) and not self._threads.reads_at_once
            return _read_ahead(result) if is_far else result

        return self._given(await self._threads.run(called, self._lane))

    return call


def _call(handle: Handle, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a blocking method, with blocking handles in the place of async ones, in a place that may wait."""
    method = getattr(handle._blocking(), name)
    return method(*map(_bare, args), **{name: _bare(arg) for name, arg in kwargs.items()})


def _bare(arg: Any) -> Any:
    return arg._blocking() if isinstance(arg, Handle) else arg


class _Known:
    """What a hit reads when it is asked, read."""

    __slots__ = ("_hit",)

    def __init__(self, hit: Hit) -> None:
        self._hit = hit.ref, hit.key, hit.signals, hit.value, hit.snippet

    def ref(self, place: Any) -> Any:
        return self._hit[0]

    def name(self, place: Any) -> str:
        return self._hit[1]

    def signals(self, found: Any) -> Any:
        return self._hit[2]

    def value(self, found: Any) -> Any:
        return self._hit[3]

    def snippet(self, found: Any) -> Any:
        return self._hit[4]


def _read_ahead(results: Results) -> Results:
    """Return results whose hits ask nobody any more, as the loop could not wait for it."""
    hits = tuple(msgspec.structs.replace(hit, _reader=_Known(hit)) for hit in results.hits)
    return replace(results, hits=hits)


# -- what Python asks of a class ---------------------------------------------------------------------


def _iterates(cls: Any, of: type[Any]) -> None:
    def rows(self: Handle) -> Rows:
        return Rows(self._threads, lambda: iter(self._blocking()), self._lane)

    if "__aiter__" not in vars(cls):
        cls.__aiter__ = rows


def _by_key(cls: Any, of: type[Any]) -> None:
    def get(self: Handle, key: Any) -> Awaitable[Any]:
        """Return what is under a key, to be awaited."""
        return self._threads.run(lambda: self._blocking()[key], self._lane)

    cls.__getitem__ = get


def _refuses_truth(cls: Any, of: type[Any]) -> None:
    def truth(self: Handle) -> bool:
        raise TypeError(f"whether {cls.__name__} has any can only be awaited: count them, or iterate")

    cls.__bool__ = truth


def _is_block(cls: Any, of: type[Any]) -> None:
    async def enter(self: Handle) -> Handle:
        return await self._ready()

    async def leave(
        self: Handle, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._threads.finish(lambda: self._known().__exit__(kind, error, at), self._lane)

    if "__aexit__" not in vars(cls):
        cls.__aenter__, cls.__aexit__ = enter, leave


_PROTOCOLS: Final[dict[str, Callable[[Any, type[Any]], None]]] = {
    "__iter__": _iterates,
    "__getitem__": _by_key,
    "__len__": _refuses_truth,
    "__bool__": _refuses_truth,
    "__exit__": _is_block,
}
