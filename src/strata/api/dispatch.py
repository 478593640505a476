"""Dispatch: run an operation by its name, with plain data in and plain data out.

    dispatch(db, "kv.get", {"branch": "draft", "at": 12}, {"key": "goal"})

What stands for what is in `requests` and `plain`. Where many rows may come back there is one page of them:
`{"items": [...], "next": {...}}`, where `next` has the arguments to add for the page after it, or is None.
Each page is as of its own moment; with `at` all are of one. Handles become what is known of them: a branch
its BranchInfo, a run its RunInfo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from msgspec import Struct, msgpack
from msgspec.structs import astuple

from strata.api.branches import Branches
from strata.api.database import Database
from strata.api.indexes import Indexes
from strata.api.operations import OPERATIONS, Operation
from strata.api.place import Branch, Place
from strata.api.plain import plain
from strata.api.requests import Point, arguments_of, converted, instant, read
from strata.api.runs import Run
from strata.api.transaction import Transaction, TransactionSpace
from strata.api.view import View
from strata.core.errors import HistoryTrimmed, InvalidInput, LimitExceeded
from strata.core.keys import check_int
from strata.primitives import PRIMITIVES, Event, Trace
from strata.primitives.base import PAGE_BYTES

PAGE: Final = 1_000  # rows, where no limit is given
PAGE_MAX: Final = 10_000

Inside = Transaction | TransactionSpace
_BOUNDED: Final = ("k", "offset", "candidates", "limit")  # how many of something, elsewhere than in pages


class Where(Struct, forbid_unknown_fields=True, frozen=True):
    """A place: a branch, a space, and where asked for a point in history. Left out: those of the database."""

    branch: str | None = None
    space: str | None = None
    at: int | str | Point | None = None


class Options(Struct, forbid_unknown_fields=True, frozen=True):
    """What the commit of a write says about itself, and the key that makes it happen once."""

    message: str | None = None
    actor: str | None = None
    cause: str | None = None
    idempotency_key: str | None = None


HERE: Final = Where()


def find(name: object) -> Operation:
    """Return an operation by its name.

    Raises: InvalidInput, with the name that was probably meant.
    """
    found = OPERATIONS.get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    from difflib import get_close_matches

    close = get_close_matches(str(name)[:100], OPERATIONS, 1)
    hint = f"did you mean {close[0]!r}?" if close else "see strata.api.operations"
    raise InvalidInput(f"there is no operation {str(name)[:100]!r}", hint=hint)


def dispatch(
    database: Database,
    name: str,
    place: Where | Mapping[str, Any] = HERE,
    arguments: Mapping[str, Any] | Struct = {},  # noqa: B006  # never changed
    *,
    commit: Options | Mapping[str, Any] | None = None,
) -> Any:
    """Run an operation at a place of a database, and return its result as plain data.

    Args:
        place: where; operations on the whole database take no notice of it.
        arguments: plain data, or values of Python, by name; or the request itself.
        commit: for writes of one primitive: what the commit says, and an idempotency key.
    Raises: InvalidInput for an unknown operation, and naming the field, for an unknown or wrong one; what the
        operation raises.
    """
    operation = find(name)
    where = place if isinstance(place, Where) else converted(dict(place), Where, "place")
    request = arguments if isinstance(arguments, Struct) else read(operation, arguments)
    if commit is not None:
        options = commit if isinstance(commit, Options) else converted(dict(commit), Options, "commit")
        return _commit(database, operation, where, request, options)
    return run(operation, request, database, resolve(database, operation, where))


def resolve(database: Database, operation: Operation, where: Where) -> Place | View:
    """Return the place or view that an operation runs at.

    Raises: NotFound for a branch or tag; InvalidInput for `at` where an operation works on what is now.
    """
    place: Place = database
    if where.branch is not None:
        place = database.branch(where.branch)
        place = place if where.space is not None else place.space(database._space)
    if where.space is not None:
        place = place.space(where.space)
    if where.at is None:
        return place
    if not operation.on_views:
        raise InvalidInput(f"{operation.name} works on what is now: leave out `at` of the place")
    return place.at(instant(where.at, database) if isinstance(where.at, Point) else where.at)


def run(operation: Operation, request: Struct, database: Database, at: Place | View | Inside) -> Any:
    """Run an operation at a place, a view or inside a transaction, and return plain data."""
    owner = _owner(operation, database, at)
    if operation.is_direct and not operation.pages:  # such as kv.put, of which a server runs many
        result = _call_directly(operation, getattr(owner, operation.method), request)
        return result if operation.is_plain else plain(_without_handles(result, database))
    arguments = arguments_of(operation, request, database)
    if operation.pages:
        return _page(operation, request, _call(operation, owner), arguments)
    if not operation.group or operation.name == "vectors.query":
        _check_bounds(operation, arguments, at)
    result = _call(operation, owner)(**arguments)
    return result if operation.is_plain else plain(_without_handles(result, database))


def _call_directly(operation: Operation, method: Callable[..., Any], request: Struct) -> Any:
    given, places = astuple(request), operation.by_place
    if len(given) == places:
        return method(*given)
    names = request.__struct_fields__[places:]
    return method(*given[:places], **dict(zip(names, given[places:], strict=True)))


def _check_bounds(operation: Operation, arguments: dict[str, Any], at: Any) -> None:
    """Refuse to look for more than a page holds; say which space is meant where that is left out."""
    for name in _BOUNDED:
        if (arguments.get(name) or 0) > PAGE_MAX:
            raise LimitExceeded(what=name, limit=PAGE_MAX, actual=arguments[name])
    if operation.name == "forget" and isinstance(arguments["primitive"], str):
        arguments.setdefault("space", at._space)


def _owner(operation: Operation, database: Database, at: Place | View | Inside) -> Any:
    """Return the object whose method an operation is."""
    group = operation.group
    if group in PRIMITIVES or group == "spaces":
        if isinstance(at, TransactionSpace) and group == "spaces":
            raise InvalidInput("a space inside a transaction has no list of spaces", hint="ask outside of it")
        owner = getattr(at, group)
        if not isinstance(owner, operation.owner):  # runs.begin on a view or in a transaction
            raise InvalidInput(f"{operation.name} works on what is now, outside of transactions")
        return owner
    if group == "branches":
        return Branches(database._store, at._space)
    if group == "indexes":
        return Indexes(database._store, at._space)
    if group == "retention":
        return database.retention
    if group == "webhooks":
        return database.webhooks
    if operation.owner is Database:
        return database
    if not isinstance(at, operation.owner) and not (isinstance(at, View) and operation.on_views):
        raise InvalidInput(f"{operation.name} works on what is now, outside of transactions")
    return at


def _call(operation: Operation, owner: Any) -> Callable[..., Any]:
    if operation.is_property:
        return lambda: getattr(owner, operation.method)
    found: Callable[..., Any] = getattr(owner, operation.method)
    return found


def _without_handles(result: Any, database: Database) -> Any:
    """Return what is known of a branch or a run in the place of its handle."""
    if isinstance(result, Run):
        return result.info
    return database.branches.get(result.name) if isinstance(result, Branch) else result


# -- pages -----------------------------------------------------------------------------------------


def _page(
    operation: Operation, request: Any, call: Callable[..., Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return one page of rows, and the arguments for the next one: up to so many, or so many bytes."""
    limit = request.limit
    limit = PAGE if limit is None else min(check_int(limit, "limit"), PAGE_MAX)
    skip = check_int(request.skip, "skip") if operation.pages == "skip" else 0
    if operation.takes_limit:
        arguments["limit"] = skip + limit + 1  # one more, to know whether there is a next page
    rows: list[Any] = []
    items: list[Any] = []
    size = 0
    for row in islice(iter(call(**arguments)), skip, skip + limit + 1):
        rows.append(row)
        if len(items) == limit or size >= PAGE_BYTES:
            break  # it is the first one of the next page
        items.append(plain(row))
        size += len(msgpack.encode(items[-1]))
    has_more = len(rows) > len(items) > 0
    following = _following(operation, request, rows, skip, len(items)) if has_more else None
    return {"items": items, "next": following}


def _following(operation: Operation, request: Any, rows: list[Any], skip: int, limit: int) -> dict[str, Any]:
    """Return the arguments that begin at the row after `limit`."""
    last, following = rows[limit - 1], rows[limit]
    is_reverse = getattr(request, "reverse", False)
    match operation.pages:
        case "key":
            key = last if is_reverse else following
            return {"end" if is_reverse else "start": key if isinstance(key, str) else key[0]}
        case "sequence":
            return {"end": last.sequence} if is_reverse else {"start": following.sequence}
        case "version":
            return {"after" if is_reverse else "before": last.version}
    return {"skip": skip + limit}


# -- writes with more to say -----------------------------------------------------------------------


def _commit(database: Database, operation: Operation, where: Where, request: Struct, options: Options) -> Any:
    """Run a write in a transaction of its own; return its result as if there had been none."""
    if not operation.in_transactions or operation.access == "read":
        raise InvalidInput(
            f"{operation.name} takes no options of a commit",
            hint="writes of one primitive do; merges and their like have message and actor themselves",
        )
    place = resolve(database, operation, where)
    assert isinstance(place, Place)  # writes refuse `at`
    tx = place.transaction(
        message=options.message, actor=options.actor, cause=options.cause,
        idempotency_key=options.idempotency_key,
    )  # fmt: skip
    try:
        owner = _owner(operation, database, tx)
        result = _call(operation, owner)(**arguments_of(operation, request, database))
        version = tx.commit()
    except BaseException:
        tx.rollback()
        raise
    if operation.gives_version:
        return version
    try:
        return plain(_landed(place.at(version), result))
    except HistoryTrimmed:
        return plain(result)


def _landed(view: View, result: Any) -> Any:
    """Return what a transaction said it would write as its commit wrote it."""
    events = result if isinstance(result, list) else [result]
    if events and isinstance(events[0], Event):
        stream = events[0].stream
        end = view.events.len(stream)
        found = [view.events.get(at, stream=stream) for at in range(end - len(events), end)]
        return found if isinstance(result, list) else found[0]
    if isinstance(result, Trace):
        return view.traces.get(result.id) or result
    return result
