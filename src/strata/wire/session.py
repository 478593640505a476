"""The store's side of one connection: what its handles stand for, and calls of it. Knows no socket.

A client numbers its handles itself, so that it can open one and use it in the same write; 0 is the store.
What went wrong at opening is said when the handle is used. When a session ends, its transactions are rolled
back and what its views pinned is let go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from strata.core.errors import (
    AccessDenied,
    Closed,
    InvalidInput,
    LimitExceeded,
    StrataError,
    TransactionLost,
)
from strata.core.protocols import Branch, Layout, Store
from strata.wire.asks import ACCESSES, ASKS, Access, Ask
from strata.wire.once import write_once

HANDLES_MAX: Final = 65_536  # a client that never lets go of one is told so, instead of filling memory
Progress = Callable[[int, int], object]


@dataclass(slots=True)
class Thing:
    """What a handle stands for."""

    kind: str
    it: Any
    # Of a keyspace that writes by itself: what a write that happens at most once is made of.
    place: tuple[Branch, str, Layout] | None = None


class Bound(NamedTuple):
    """A method of a thing, ready to be called."""

    name: str
    run: Callable[..., Any]
    ask: Ask
    thing: Thing
    is_plain: bool  # nothing but `run` has to be done, and that takes microseconds


class Session:
    """Handles of one client on one store."""

    def __init__(
        self, store: Store, *, access: Access = "admin", files: bool = True, strict: bool = False
    ) -> None:
        """Begin a session that may do what `access` says.

        Args:
            files: whether it may name places in the file system of this side.
            strict: every write waits until it survives a power cut.
        """
        self._store = store
        self._level = ACCESSES.index(access)
        self.access = access
        self.files = files
        self.strict = strict
        self._things: dict[int, Thing | StrataError] = {0: Thing("store", store)}
        self._bound: dict[tuple[int, str], Bound] = {}

    def bound(self, handle: Any, method: Any) -> Bound:
        """Return the method of what a handle stands for.

        Raises: what went wrong at opening it; Closed for a handle that is not there; AccessDenied.
        """
        found = self._bound.get((handle, method))
        if found is None:
            found = self._bound[handle, method] = self._bind(handle, method)
        return found

    def _bind(self, handle: Any, method: Any) -> Bound:
        thing = self._thing(handle)
        ask = ASKS[thing.kind].get(method) if isinstance(method, str) else None
        if ask is None:
            raise InvalidInput(f"a {thing.kind} has no method {method!r}")
        if ACCESSES.index(ask.access) > self._level:
            raise AccessDenied(needed=ask.access, given=self.access)
        if ask.files and not self.files:
            raise AccessDenied(
                f"{method} writes files where the database is, which a connection over the network may not",
                needed="files",
                given=self.access,
                hint="run it on that machine",
            )
        run = partial(ask.run, thing.it)
        is_plain = not ask.slow and ask.makes is None and (ask.access == "read" or not self.strict)
        return Bound(method, run, ask, thing, is_plain and method != "how")

    def _thing(self, handle: Any) -> Thing:
        found = self._things.get(handle) if isinstance(handle, int) else None
        if found is None:
            raise Closed(f"handle {handle!r} was not opened, or was released")
        if isinstance(found, StrataError):
            raise found
        return found

    def open(self, new: Any, handle: Any, method: Any, arguments: Any) -> None:
        """Let the handle `new` stand for what a method returns. What goes wrong is said when it is used."""
        if not isinstance(new, int) or new <= 0 or new in self._things:
            raise InvalidInput(f"{new!r} is no number for a new handle")
        if len(self._things) > HANDLES_MAX:
            raise LimitExceeded(what="handles", limit=HANDLES_MAX, actual=len(self._things))
        try:
            self._things[new] = self._made(handle, method, arguments)
        except StrataError as error:
            self._things[new] = error
        except TypeError as error:
            self._things[new] = InvalidInput(str(error))

    def _made(self, handle: Any, method: Any, arguments: Any) -> Thing:
        bound = self.bound(handle, method)
        if bound.ask.makes is None:
            raise InvalidInput(f"{method} gives a value, not a handle")
        if method == "diff":
            arguments = [self._thing(arguments[0]).it]
        made = bound.run(*arguments)
        place = None
        if bound.thing.kind == "branch" and method == "keyspace":
            space, kind, text_keys, finite = arguments
            place = bound.thing.it, space, Layout(kind, text_keys, finite)
        return Thing(bound.ask.makes, made, place)

    def call(
        self,
        bound: Bound,
        arguments: Any,
        once: str | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Any:
        """Return what a method returns for `arguments`.

        Args:
            once: an idempotency key; a write that was made with it before is not made again.
            progress: told of the progress of a method that tells.
            stop: asked by a method that waits whether it need wait no longer.
        """
        ask, thing = bound.ask, bound.thing
        if ask.makes is not None:
            raise InvalidInput("what gives a handle is opened")
        if once is not None and thing.place is not None and ask.once:
            result = write_once(thing.place, bound.name, ask.run, arguments, once)
        elif once is not None and bound.name == "commit":
            result = bound.run(*arguments, once)
        elif progress is not None and ask.progress:
            result = bound.run(*arguments, progress)
        elif ask.waits and stop is not None:
            result = bound.run(*arguments, stop)
        elif bound.name == "how":
            result = bound.run(self._thing(arguments[0]).it, *arguments[1:])
        else:
            result = bound.run(*arguments)
        if self.strict and ask.access != "read":
            self._store.flush()
        return result

    def end_transactions(self) -> None:
        """Roll back what is open; who goes on with it gets TransactionLost."""
        for handle, thing in list(self._things.items()):
            if isinstance(thing, Thing) and thing.kind == "transaction":
                self.release([handle])
                self._things[handle] = TransactionLost("the transaction was left alone for too long")

    @property
    def has_transactions(self) -> bool:
        """Whether a transaction was begun and not let go of."""
        return any(
            isinstance(thing, Thing) and thing.kind == "transaction" for thing in self._things.values()
        )

    def transaction(self, handle: Any) -> Any:
        """Return the transaction that a handle stands for.

        Raises: what went wrong at beginning it; InvalidInput for a handle of something else.
        """
        thing = self._thing(handle)
        if thing.kind != "transaction":
            raise InvalidInput(f"handle {handle!r} is a {thing.kind}, not a transaction")
        return thing.it

    def release(self, handles: Any) -> None:
        """Let go of handles. One that is not there is no error."""
        for handle in handles:
            thing = self._things.pop(handle, None) if handle != 0 else None
            if isinstance(thing, Thing):
                _end(thing)
                for method in ASKS[thing.kind]:
                    self._bound.pop((handle, method), None)

    def close(self) -> None:
        """Let go of all handles; what transactions wrote is rolled back. Idempotent."""
        things, self._things = self._things, {}
        self._bound.clear()
        for thing in things.values():
            if isinstance(thing, Thing):
                _end(thing)


def _end(thing: Thing) -> None:
    if thing.kind == "transaction":
        thing.it.rollback()
