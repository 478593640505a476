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

from strata.core.brief import brief
from strata.core.errors import (
    AccessDenied,
    Closed,
    InvalidInput,
    LimitExceeded,
    ReadOnly,
    StrataError,
    TransactionLost,
)
from strata.core.protocols import Branch, Layout, Store
from strata.wire.asks import ACCESSES, ASKS, Access, Ask
from strata.wire.once import write_once

HANDLES_MAX: Final = 65_536  # a client that never lets go of one is told so, instead of filling memory
_COMMIT_SAYS: Final = 3  # message, actor and cause, in front of the key of a commit
_WRITE_PARTS: Final = 3  # handle, method and arguments, of a write that goes with a commit
_WITH_HANDLES: Final = ("how", "finish")  # methods that take handles among their arguments
Progress = Callable[[int, int], object]


@dataclass(slots=True)
class Thing:
    """What a handle stands for."""

    kind: str
    it: Any
    # Of a keyspace that writes by itself: what a write that happens at most once is made of.
    place: tuple[Branch, str, Layout] | None = None
    inside: Any = None  # of a keyspace of a transaction: that transaction


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
        self,
        store: Store,
        *,
        access: Access = "admin",
        files: bool = True,
        strict: bool = False,
        read_only: bool = False,
        declares: Callable[[Any, str], bool] | None = None,
    ) -> None:
        """Begin a session that may do what `access` says.

        Args:
            files: whether it may name places in the file system of this side.
            strict: every write waits until it survives a power cut.
            read_only: refuse every write as a database does that was opened so, whatever `access` says.
            declares: declares an index that what is stored calls for, and says whether this is one: such
                indexes are there for those who read, too.
        """
        self._store = store
        self._read_only = read_only
        self.access: Access = "read" if read_only else access
        self._level = ACCESSES.index(self.access)
        self.files = files
        self.strict = strict
        self._declares = declares
        self._things: dict[int, Thing | StrataError] = {0: Thing("store", store)}
        self._bound: dict[tuple[int, str], Bound] = {}

    def bound(self, handle: Any, method: Any) -> Bound:
        """Return the method of what a handle stands for.

        Raises: what went wrong at opening it; Closed for a handle that is not there; AccessDenied.
        """
        if type(handle) is not int or type(method) is not str:
            raise InvalidInput("a handle is a number, and a method a text")
        found = self._bound.get((handle, method))
        if found is None:
            found = self._bound[handle, method] = self._bind(handle, method)
        return found

    def _bind(self, handle: int, method: str) -> Bound:
        thing = self._thing(handle)
        ask = ASKS[thing.kind].get(method)
        if ask is None:
            raise InvalidInput(f"a {thing.kind} has no method {brief(method)}")
        refusal = self._refusal(ask)
        if refusal is not None and method == "declare_index" and self._declares is not None:
            return Bound(method, partial(self._declare, thing.it, refusal), ask, thing, False)
        if refusal is not None:
            raise refusal
        if ask.files and not self.files:
            raise AccessDenied(
                f"{method} writes files where the database is, which a connection over the network may not",
                needed="files",
                given=self.access,
                hint="run it on that machine",
            )
        run = partial(ask.run, thing.it)
        is_plain = not (ask.slow or ask.heavy) and ask.makes is None and not (ask.writes and self.strict)
        return Bound(method, run, ask, thing, is_plain and method not in _WITH_HANDLES)

    def _refusal(self, ask: Ask) -> StrataError | None:
        if self._read_only and ask.access != "read":
            return ReadOnly("the connection is read-only")
        if ACCESSES.index(ask.access) > self._level:
            return AccessDenied(needed=ask.access, given=self.access)
        return None

    def _declare(self, txn: Any, refusal: StrataError, name: Any, *_: Any) -> None:
        """Declare the index `name` if what is stored says what it is; what the client says does not count."""
        assert self._declares is not None
        if not isinstance(name, str) or not self._declares(txn, name):
            raise refusal

    def _thing(self, handle: Any) -> Thing:
        found = self._things.get(handle) if type(handle) is int else None
        if found is None and len(self._things) > HANDLES_MAX:  # it may be one that there was no room for
            raise LimitExceeded(what="handles", limit=HANDLES_MAX, actual=len(self._things))
        if found is None:
            raise Closed(f"handle {handle!r} was not opened, or was released")
        if isinstance(found, StrataError):
            raise found
        return found

    def open(self, new: Any, handle: Any, method: Any, arguments: Any) -> None:
        """Let the handle `new` stand for what a method returns. What goes wrong is said when it is used."""
        if type(new) is not int or new <= 0 or new in self._things:
            raise InvalidInput(f"{brief(new)} is no number for a new handle")
        if len(self._things) > HANDLES_MAX:
            raise LimitExceeded(what="handles", limit=HANDLES_MAX, actual=len(self._things))
        try:
            self._things[new] = self._made(handle, method, arguments)
        except StrataError as error:
            self._things[new] = error
        except (TypeError, ValueError, OverflowError) as error:
            self._things[new] = InvalidInput(f"{brief(method)} does not take these arguments: {error}")

    def _made(self, handle: Any, method: Any, arguments: Any) -> Thing:
        bound = self.bound(handle, method)
        if bound.ask.makes is None:
            raise InvalidInput(f"{method} gives a value, not a handle")
        if method == "diff":
            (other,) = arguments
            arguments = [self._snapshot(other)]
        of, made = bound.thing, Thing(bound.ask.makes, bound.run(*arguments))
        # What Strata keeps on branches of its own is not for everybody: secrets of webhooks, for one.
        if of.kind == "store" and self.access != "admin" and str(made.it.name).startswith("_"):
            raise AccessDenied(needed="admin", given=self.access)
        if of.kind == "branch" and method == "keyspace":
            space, *layout = arguments
            made.place = of.it, space, Layout(*layout)
        elif of.kind == "transaction":
            made.inside = of.it
        return made

    def _snapshot(self, handle: Any) -> Any:
        thing = self._thing(handle)
        if thing.kind != "snapshot":
            raise InvalidInput(f"a snapshot is asked for, and handle {brief(handle)} is a {thing.kind}")
        return thing.it

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
        if bound.name == "finish":
            writes, *said = arguments or [None]
            arguments = [self._writes(thing.it, writes), *said]
        if once is not None:
            result = self._once(bound, arguments, once)
        elif progress is not None and ask.progress:
            result = bound.run(*arguments, progress)
        elif ask.waits and stop is not None:
            result = bound.run(*arguments, stop)
        elif bound.name == "how":
            other, *more = arguments
            result = bound.run(self._snapshot(other), *more)
        else:
            result = bound.run(*arguments)
        # What is written inside a transaction is committed, and made durable, with that.
        if self.strict and ask.writes and thing.inside is None:
            self._store.flush()
        return result

    def _writes(self, transaction: Any, writes: Any) -> list[Callable[[], Any]]:
        """Return what makes the writes of a message inside a transaction, each when it is called."""
        if not isinstance(writes, list):
            raise InvalidInput("writes are an array")
        return [partial(self._write, transaction, write) for write in writes]

    def _write(self, transaction: Any, write: Any) -> None:
        if not isinstance(write, list) or len(write) != _WRITE_PARTS or not isinstance(write[2], list):
            raise InvalidInput("a write is a handle, a method and an array of arguments")
        bound = self.bound(write[0], write[1])
        if bound.thing.inside is not transaction or not bound.ask.writes:
            raise InvalidInput(f"{bound.name} of handle {write[0]} is no write inside this transaction")
        bound.run(*write[2])

    def _once(self, bound: Bound, arguments: Any, key: str) -> Any:
        if bound.thing.kind == "transaction" and bound.ask.once:
            most = _COMMIT_SAYS + (bound.name == "finish")
            if len(arguments) > most:
                raise InvalidInput("a key is given once: as the option")
            return bound.run(*arguments, *[None] * (most - len(arguments)), key)
        if bound.thing.place is None or not bound.ask.once:
            # A key that counts for nothing would let a client repeat what must not be.
            raise InvalidInput(f"{bound.name} of this handle takes no idempotency key")
        return write_once(bound.thing.place, bound.name, bound.ask.run, arguments, key)

    def end_transactions(self) -> None:
        """Roll back what is open; who goes on with it gets TransactionLost."""
        for handle, thing in list(self._things.items()):
            if isinstance(thing, Thing) and (thing.kind == "transaction" or thing.inside is not None):
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
        if not isinstance(handles, list):
            raise InvalidInput("handles to let go of are an array")
        for handle in handles:
            thing = self._things.pop(handle, None) if type(handle) is int and handle != 0 else None
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
