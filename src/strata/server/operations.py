"""Operations of the catalogue over the wire: what clients in other languages speak.

    [name, place, arguments]   or   [name, place, arguments, options]

place      {"branch", "space", "at"}, or {"transaction": handle, "space"} inside a transaction that was begun
arguments  by name, plain data
options    {"commit": {...}}: what the commit says; {"credit": n}: send page after page, n now and more as
asked

`watch` is one more operation, which sends pages until it is cancelled: see `watching`.

Where the store's methods say what is in rows, an operation says what it means, and that is what a token
allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from strata.api.database import Database
from strata.api.dispatch import HERE, Inside, Options, Where, find, resolve, run
from strata.api.dispatch import dispatch as dispatched
from strata.api.operations import WATCH, Operation
from strata.api.place import Place
from strata.api.requests import arguments_of, converted, read
from strata.api.transaction import Transaction
from strata.api.view import View
from strata.core.errors import AccessDenied, InvalidInput, NotFound
from strata.server.work import CREDIT_MAX, Send, Work
from strata.wire.asks import ACCESSES
from strata.wire.session import Session

Stream = Callable[[Work, Send], Any]  # returns what ends it
_NONE: Final[dict[str, Any]] = {}
_PLACES: Final = 256  # that a connection's operations were at, and which are kept ready


class Asked(NamedTuple):
    """An operation that was asked for, checked."""

    operation: Operation
    request: Any
    place: Where | None  # None: inside a transaction
    at: Place | View | Inside
    commit: Options | None
    credit: int | None

    @property
    def is_slow(self) -> bool:
        """Whether it may take more than microseconds."""
        return self.commit is not None or not self.operation.is_point


@dataclass(slots=True)
class Operations:
    """The operations of one connection."""

    database: Database
    session: Session
    _places: dict[tuple[Any, ...], Place | View] = field(default_factory=dict)

    def asked(self, message: Any) -> Asked:
        """Return what a message asks for.

        Raises: InvalidInput for what is no message; NotFound for a place; AccessDenied.
        """
        try:
            name, place, arguments, *rest = message
        except (TypeError, ValueError):
            raise InvalidInput("an operation is a name, a place and arguments") from None
        options = rest[0] if rest else _NONE
        for what, data in (("a place", place), ("arguments", arguments), ("options", options)):
            if type(data) is not dict:
                raise InvalidInput(f"{what} is a map by name")
        operation = WATCH if name == "watch" else find(name)
        request = read(operation, arguments)
        self._check(operation, request)
        if not place and not options and operation is not WATCH:  # as most are
            return Asked(operation, request, HERE, self._at(operation, HERE), None, None)
        if unknown := options.keys() - {"commit", "credit"}:
            raise InvalidInput(f"options have no field {min(map(str, unknown))!r}")
        commit = None if "commit" not in options else converted(options["commit"], Options, "commit")
        credit = options.get("credit")
        _check_credit(operation, credit, commit)
        if operation is WATCH and place.keys() - {"branch"}:
            raise InvalidInput("a watch is of a branch: its space is an argument")
        if "transaction" in place:
            return Asked(operation, request, None, self._inside(place), commit, credit)
        where = converted(place, Where, "place")
        return Asked(operation, request, where, self._at(operation, where), commit, credit)

    def _check(self, operation: Operation, request: Any) -> None:
        needed, given = operation.access_for(request), self.session.access
        if needed != given and ACCESSES.index(needed) > ACCESSES.index(given):
            raise AccessDenied(needed=needed, given=given)
        if operation.names_files and not self.session.files:
            raise AccessDenied(
                f"{operation.name} names a file where the database is, which is not allowed from afar",
                needed="files",
                given=given,
                hint="run it on that machine",
            )

    def _at(self, operation: Operation, where: Where) -> Place | View:
        """Return a place, which is kept ready: to find a branch costs more than to see that it is there."""
        if where.at is not None:
            return resolve(self.database, operation, where)
        if where is HERE:
            return self.database
        key = where.branch, where.space
        found = self._places.get(key)
        if found is None or not _is_there(found, where.branch):
            if len(self._places) >= _PLACES:
                self._places.clear()
            found = self._places[key] = resolve(self.database, operation, where)
        return found

    def _inside(self, place: dict[str, Any]) -> Inside:
        if unknown := place.keys() - {"transaction", "space"}:
            raise InvalidInput(f"a place inside a transaction has no field {min(map(str, unknown))!r}")
        native = self.session.transaction(place["transaction"])
        tx = Transaction(self.database._store, native, self.database._space)
        return tx if place.get("space") is None else tx.space(place["space"])

    def run(self, asked: Asked) -> Any:
        """Return the result of an operation as plain data."""
        if asked.commit is not None and asked.place is not None:
            result = dispatched(
                self.database, asked.operation.name, asked.place, asked.request, commit=asked.commit
            )
        elif asked.commit is not None:
            raise InvalidInput("inside a transaction it is the transaction that commits")
        else:
            result = run(asked.operation, asked.request, self.database, asked.at)
        if self.session.strict and asked.operation.access != "read":
            self.database.flush()
        return result

    def streaming(self, asked: Asked) -> Stream:
        """Return what sends page after page from a thread; what it sends begins with what there is now."""
        if asked.operation is not WATCH:
            return partial(self._pages, asked)
        from strata.server.watching import follow

        arguments = arguments_of(asked.operation, asked.request, self.database)
        assert isinstance(asked.at, Place)  # as places of watches are
        return partial(follow, asked.at.watch(**arguments), arguments["timeout_s"])

    def _pages(self, asked: Asked, _: Work, send: Send) -> None:
        request = asked.request
        while True:
            page = run(asked.operation, request, self.database, asked.at)
            send(page["items"])
            if page["next"] is None:
                return
            fields = {name: getattr(request, name) for name in request.__struct_fields__}
            request = type(request)(**(fields | page["next"]))


def _check_credit(operation: Operation, credit: Any, commit: Options | None) -> None:
    if operation is WATCH and credit is None:
        raise InvalidInput("a watch sends pages as there is credit", hint='{"credit": 10} among the options')
    if credit is None:
        return
    if (
        type(credit) is not int
        or not 0 <= credit <= CREDIT_MAX
        or not (operation.pages or operation is WATCH)
    ):
        raise InvalidInput(f"credit is a number up to {CREDIT_MAX}, for operations that have pages")
    if commit is not None:
        raise InvalidInput("what sends pages commits nothing")


def _is_there(place: Place | View, branch: str | None) -> bool:
    """Whether a place is of the branch that has this name now: that may have been renamed or deleted."""
    native = place._branch
    try:
        return branch is None or (native.name == branch and native.head >= 0)
    except NotFound:
        return False
