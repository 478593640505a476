"""Query: places and arguments in a URL, for reading with nothing but an address.

    ?branch=draft&space=notes&at=12            where and when; at=2026-01-01T00:00Z, at=tag:v1
    &prefix=a&limit=10&reverse=true            arguments that are texts, numbers, true or false
    &keys=a&keys=b                             a list of texts is said item by item

An argument that has the name of a part of the place takes it: `retention.get?branch=` is its argument.
"""

from __future__ import annotations

import math
import types
from collections.abc import Container
from functools import cache
from types import SimpleNamespace
from typing import Any, Final, Literal, Union, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from strata.api.operations import Operation
from strata.api.requests import Field, fields_of
from strata.core.errors import InvalidInput
from strata.server.http.statuses import bad_request
from strata.server.http.web import Scope

PLACE: Final = ("branch", "space", "at")
_PARAMETERS_MAX: Final = 100
_DIGITS_MAX: Final = 20
_BOOLS: Final = {"true": True, "false": False}

Query = dict[str, list[str]]


def query_of(scope: Scope) -> Query:
    """Return the parameters of a request, each with all of its values.

    Raises: Refused for what is not UTF-8, or too many.
    """
    text = scope["query_string"]
    found: Query = {}
    if not text:
        return found
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS_MAX
        )
    except ValueError:
        raise bad_request("the query is no UTF-8, or has too many parameters") from None
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def place_of(query: Query, taken: Container[str] = ()) -> dict[str, Any]:
    """Take the place out of a query, and return it.

    Raises: InvalidInput for what is there twice.
    """
    found: dict[str, Any] = {name: one(query, name) for name in PLACE if name in query and name not in taken}
    if "at" in found:
        found["at"] = _instant(found["at"])
    return found


def one(query: Query, name: str) -> str:
    """Take a parameter out of a query, and return its value.

    Raises: InvalidInput when it is there twice.
    """
    values = query.pop(name)
    if len(values) > 1:
        raise InvalidInput(f"{name} is there {len(values)} times")
    return values[0]


def take(query: Query, *names: str) -> dict[str, str]:
    """Take those of some parameters out of a query that are there, and return them."""
    return {name: one(query, name) for name in names if name in query}


def check_empty(query: Query, what: str) -> None:
    """Raise InvalidInput for parameters that nothing took."""
    if query:
        raise InvalidInput(f"{what} takes no parameter {next(iter(query))[:100]!r}")


@cache
def simple_fields(operation: Operation) -> dict[str, Field]:
    """Return the arguments that a query can say; nothing where it cannot say all that must be.

    One that makes the operation write is none of them: GET never does.
    """
    found = {
        field.name: field
        for field in fields_of(operation)
        if _kinds(field.type) is not None and _leaves_access(operation, field.name)
    }
    needed = {field.name for field in fields_of(operation) if field.default is msgspec.NODEFAULT}
    return found if needed <= found.keys() else {}


def _leaves_access(operation: Operation, name: str) -> bool:
    return operation.access_for(SimpleNamespace(**{name: True})) == operation.access


@cache
def is_readable(operation: Operation) -> bool:
    """Whether GET runs it: it reads, and a query can say what it takes."""
    has_all = bool(simple_fields(operation)) or not fields_of(operation)
    return operation.access == "read" and has_all


def arguments_of(operation: Operation, query: Query) -> dict[str, Any]:
    """Return the arguments that a query says.

    Raises: InvalidInput, naming the parameter, for one that is unknown, there twice, or of another type.
    """
    fields = simple_fields(operation)
    found: dict[str, Any] = {}
    for name in list(query):
        if name not in fields:
            raise InvalidInput(
                f"{operation.name} takes no parameter {name[:100]!r}",
                hint=f"it takes {', '.join(fields) or 'none'}; POST takes all of its arguments",
            )
        kinds = _kinds(fields[name].type) or ()
        found[name] = query.pop(name) if list in kinds else _value(one(query, name), kinds, name)
    return found


@cache
def _kinds(annotation: Any) -> tuple[Any, ...] | None:
    """Return what a parameter may be, of str, int, float, bool and list; None for what no text can say."""
    if annotation in (str, int, float, bool):
        return (annotation,)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return (str,)
    if annotation == list[str]:
        return (list,)
    if origin in (Union, types.UnionType):
        kinds = [_kinds(arg) for arg in args if arg is not type(None)]
        return kinds[0] if len(kinds) == 1 else None
    return None


def _value(text: str, kinds: tuple[Any, ...], name: str) -> Any:
    (kind,) = kinds
    if kind is str:
        return text
    try:
        if kind is bool:
            return _BOOLS[text]
        if kind is int:
            return integer(text)
        number = float(text)
        if math.isfinite(number):
            return number
    except (KeyError, ValueError):
        pass
    raise InvalidInput(f"{name} is {text[:100]!r}, which is no {kind.__name__}")


def integer(text: str) -> int:
    """Return the int that a text is. Raises: ValueError."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX):
        raise ValueError(text)
    return int(text)


def _instant(text: str) -> Any:
    if text.startswith("tag:"):
        return {"tag": text.removeprefix("tag:")}
    return integer(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else text
