"""Calls: an operation by its name, over POST with all of its arguments, or GET where it reads."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from strata.api.dispatch import HERE, Options, Where
from strata.api.operations import Operation
from strata.api.requests import converted, read
from strata.core.errors import InvalidInput
from strata.server.http.query import Query, arguments_of, place_of, simple_fields

KEY_HEADER: Final = "idempotency-key"


class Call(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a POST: arguments, where to run, and what the commit of a write says."""

    arguments: dict[str, Any] = {}
    place: Where = HERE
    commit: Options | None = None


class Asked(Struct, frozen=True):
    """An operation with all that it needs to be run."""

    operation: Operation
    request: Struct
    place: Where
    commit: Options | None


def asked_by_post(operation: Operation, data: Any, key: str | None) -> Asked:
    """Return what the body of a POST asks for.

    Args:
        key: of the Idempotency-Key header.
    Raises: InvalidInput, naming the field.
    """
    call: Call = converted(data, Call, "the body")
    return Asked(operation, read(operation, call.arguments), call.place, with_key(call.commit, key))


def asked_by_get(operation: Operation, query: Query) -> Asked:
    """Return what a query asks for.

    Raises: InvalidInput, naming the parameter.
    """
    place = converted(place_of(query, simple_fields(operation)), Where, "the query")
    return Asked(operation, read(operation, arguments_of(operation, query)), place, None)


def with_key(options: Options | None, key: str | None) -> Options | None:
    """Return options of a commit with the idempotency key of a header.

    Raises: InvalidInput when they have another.
    """
    if key is None:
        return options
    if options is None:
        return Options(idempotency_key=key)
    if options.idempotency_key not in (None, key):
        raise InvalidInput("the Idempotency-Key header and commit.idempotency_key differ")
    return Options(options.message, options.actor, options.cause, key)
