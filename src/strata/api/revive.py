"""Revive: plain data back as what the method would have returned, for clients that have the same handles.

The opposite of `plain`, by the types that methods say they return. What a record does not carry (the state
in which a hit was found, the clash behind a conflict) is not there; a hit has the value and snippet with it.
Handles come as what is known of them: a Branch as its BranchInfo, a Run as its RunInfo.
"""

from __future__ import annotations

import types
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from strata.api.place import Branch
from strata.api.requests import PolicyData, policy
from strata.api.runs import Run
from strata.api.schema import Floats, row_type, shown_fields
from strata.api.table import Table
from strata.core.patches import ABSENT
from strata.core.protocols import BranchInfo
from strata.core.refs import EntityRef
from strata.core.retention import Combined, KeepAll, KeepFor, KeepLast
from strata.history.plan import Contested
from strata.primitives.runs import RunInfo
from strata.search.results import Hit

if TYPE_CHECKING:
    from strata.api.operations import Operation

Revive = Callable[[Any], Any]
_PLAIN: Final = {Any, str, int, float, bool, bytes, type(None)}
_POLICIES: Final = {KeepAll, KeepLast, KeepFor, Combined}


def revive(operation: Operation, data: Any) -> Any:
    """Return the result that `data` is: of a page the list of its rows."""
    if operation.pages:
        return [revive_row(operation, row) for row in data["items"]]
    return data if operation.is_plain else _reviver(operation.result)(data)


def revive_row(operation: Operation, row: Any) -> Any:
    """Return the row of a page that `row` is."""
    return _reviver(row_type(operation))(row)


@cache
def _reviver(kind: Any) -> Revive:
    """Return what makes a value of a type of its plain data."""
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    origin, args = get_origin(kind), get_args(kind)
    if kind in _PLAIN or origin is Literal:
        return _same
    if origin in (Union, types.UnionType):
        return _optional(args)
    if origin in (dict, Mapping):
        return _of_map(args)
    if origin is tuple and args[-1] is not ...:
        parts = [_reviver(arg) for arg in args]
        return lambda data: tuple(part(item) for part, item in zip(parts, data, strict=True))
    if origin is Floats:
        return _vector
    if origin in (list, tuple, Table, Iterator, Iterable, Sequence):
        item, made = _reviver(args[0]), origin if origin in (tuple, Table) else list
        return lambda data: made(map(item, data))
    return tuple if kind is tuple else _record(kind)


def _same(data: Any) -> Any:
    return data


def _optional(args: Sequence[Any]) -> Revive:
    """Return what revives None as itself, and all else as the one alternative that is not plain."""
    if _POLICIES & set(args):
        return _SIMPLE[KeepAll]
    found = [reviver for reviver in map(_reviver, args) if reviver is not _same]
    assert len(found) <= 1, args  # nothing would tell two apart
    return (lambda data: None if data is None else found[0](data)) if found else _same


def _of_map(args: Sequence[Any]) -> Revive:
    key, value = args
    item = _reviver(value)
    if key is int:  # plain data has texts as keys
        return lambda data: {int(name): item(found) for name, found in data.items()}
    return _same if item is _same else lambda data: {name: item(found) for name, found in data.items()}


def _record(cls: Any) -> Revive:
    """Return what makes a record. Trees hold themselves, so its fields are looked at when one comes."""
    fields: dict[str, Revive] = {}

    def made(data: dict[str, Any]) -> Any:
        if not fields:
            fields.update({name: _reviver(kind) for name, kind in shown_fields(cls).items()})
        found = {name: reviver(data[name]) for name, reviver in fields.items() if name in data}
        if cls is Contested:
            absent = dict.fromkeys(("base", "source", "target"), ABSENT)
            found = {**absent, **found, "_clash": None}  # which is of the other process
        return cls(**found)

    return made


class _Carried(NamedTuple):
    """What a hit reads, which came with it."""

    fields: dict[str, Any]

    def ref(self, place: Any) -> Any:
        return self.fields["ref"]

    def name(self, place: Any) -> Any:
        return self.fields["key"]

    def signals(self, found: Any) -> Any:
        return self.fields["signals"]

    def value(self, found: Any) -> Any:
        return self.fields["value"]

    def snippet(self, found: Any) -> Any:
        return self.fields["snippet"]


class _Nowhere(NamedTuple):
    """Where a hit was found, in another process."""

    place: None = None


def _hit(data: dict[str, Any]) -> Hit:
    fields = {name: _reviver(kind)(data[name]) for name, kind in shown_fields(Hit).items()}
    reader: Any = _Carried(fields)
    found: Any = _Nowhere()
    return Hit(score=fields["score"], rank=fields["rank"], _reader=reader, _found=found)


def _policy(data: Any) -> Any:
    return policy(msgspec.convert(data, PolicyData))


def _vector(data: Any) -> memoryview:
    return memoryview(array("f", data)).toreadonly()


_SIMPLE: Final[dict[Any, Revive]] = {
    EntityRef: EntityRef.parse,
    datetime: datetime.fromisoformat,
    timedelta: lambda seconds: timedelta(seconds=seconds),
    Hit: _hit,
    Branch: lambda data: _reviver(BranchInfo)(data),
    Run: lambda data: _reviver(RunInfo)(data),
    **dict.fromkeys(_POLICIES, _policy),
}
