"""JSON Schema (draft 2020-12, as OpenAPI 3.1 has it) of what operations take and return, made from types.

A record is a definition by its name, so that trees (explanations, traces) may hold themselves. It describes
the JSON form: bytes are the tagged map of `plain`, and what is stored may be anything.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from strata.api import info
from strata.api.place import Branch
from strata.api.replay import Replay
from strata.api.requests import fields_of
from strata.api.runs import Run
from strata.api.table import Table
from strata.core.changes import Change
from strata.core.protocols import BranchInfo
from strata.core.refs import EntityRef
from strata.core.retention import Combined, KeepAll, KeepFor, KeepLast
from strata.history import replay
from strata.history.diff import Diff
from strata.history.plan import Contested
from strata.primitives.runs import RunInfo
from strata.search.results import Hit

if TYPE_CHECKING:
    from strata.api.operations import Operation

Schema = dict[str, Any]
T = TypeVar("T")


class Floats(list[T]):
    """Stands for `memoryview[float]` in annotations, which can be evaluated from Python 3.14 on."""


_SIMPLE: Final[dict[Any, Schema]] = {
    Any: {},
    type(None): {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    str: {"type": "string"},
    EntityRef: {"type": "string", "format": "strata-ref"},
    datetime: {"type": "string", "format": "date-time"},
    timedelta: {"type": "number"},
}
_BYTES: Final[Schema] = {
    "type": "object",
    "properties": {"$bytes": {"type": "string", "contentEncoding": "base64"}},
    "required": ["$bytes"],
    "additionalProperties": False,
}
_FLOAT: Final[Schema] = {
    "anyOf": [
        {"type": "number"},
        {
            "type": "object",
            "properties": {"$float": {"enum": ["nan", "inf", "-inf"]}},
            "required": ["$float"],
            "additionalProperties": False,
        },
    ]
}
_POLICY: Final[Schema] = {
    "type": "object",
    "description": "The last versions, those within some seconds, either or both; all where neither is said.",
    "properties": {
        "last": {"type": ["integer", "null"]},
        "for_s": {"type": ["number", "null"]},
        "both": {"type": "boolean"},
    },
    "additionalProperties": False,
}
# Two things may have one name in Python, where they live in two modules.
_NAMES: Final[dict[Any, str]] = {
    info.RunInfo: "RunFileInfo", replay.Change: "StepChange", replay.Step: "ReplayStep",
}  # fmt: skip
_HANDLES: Final[dict[Any, Any]] = {Branch: BranchInfo, Run: RunInfo}


class Schemas:
    """The definitions that were needed so far."""

    def __init__(self, prefix: str = "#/$defs/") -> None:
        self.definitions: dict[str, Schema] = {}
        self._prefix = prefix

    def request(self, operation: Operation) -> Schema:
        """Return the schema of the arguments of an operation."""
        fields = {field.name: self._field(field) for field in fields_of(operation)}
        needed = [field.name for field in fields_of(operation) if field.default is msgspec.NODEFAULT]
        return _record(fields, needed)

    def result(self, operation: Operation) -> Schema:
        """Return the schema of what an operation returns: of a page of it, where there may be many."""
        if not operation.pages:
            return self.of(operation.result)
        items = {"type": "array", "items": self.of(row_type(operation))}
        following = {
            "description": "The arguments to add for the next page; null on the last.",
            "type": ["object", "null"],
        }
        return _record({"items": items, "next": following}, ["items", "next"])

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type."""
        kind = _HANDLES.get(kind, kind)
        if kind in _SIMPLE:
            return dict(_SIMPLE[kind])
        if kind is float or kind is bytes:
            return self._defined("Float" if kind is float else "Bytes", _FLOAT if kind is float else _BYTES)
        if kind in (KeepAll, KeepLast, KeepFor, Combined):
            return self._defined("Policy", _POLICY)
        origin, args = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            return self._union(args)
        if origin is Literal:
            return {"enum": list(args)}
        if origin is not None:
            return self._container(origin, args)
        if kind is tuple:
            return {"type": "array"}
        return self._named(kind)

    def _union(self, args: Sequence[Any]) -> Schema:
        found: list[Schema] = []
        for schema in map(self.of, args):
            if schema not in found and schema != {}:
                found.append(schema)
        if any(self.of(arg) == {} for arg in args):
            return {}
        simple = [schema["type"] for schema in found if schema.keys() == {"type"}]
        if len(simple) == len(found) > 1:
            return {"type": simple}
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _container(self, origin: Any, args: Sequence[Any]) -> Schema:
        if origin in (dict, Mapping):
            values = self.of(args[1])
            return {"type": "object"} | ({"additionalProperties": values} if values else {})
        if origin is tuple and args[-1] is not ...:
            parts = [self.of(arg) for arg in args]
            return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
        if origin in (list, tuple, Floats, Table, Iterator, Iterable, Sequence):
            return {"type": "array", "items": self.of(args[0])}
        raise TypeError(f"{origin} has no schema")

    def _defined(self, name: str, schema: Schema) -> Schema:
        self.definitions[name] = schema
        return {"$ref": self._prefix + name}

    def _named(self, cls: Any) -> Schema:
        """Return a reference to the definition of a record."""
        name = _NAMES.get(cls, cls.__name__)
        if name not in self.definitions:
            self.definitions[name] = {}  # for what holds itself
            fields = {field: self.of(kind) for field, kind in shown_fields(cls).items()}
            is_input = issubclass(cls, Struct) and cls.__struct_config__.forbid_unknown_fields
            there = [field for field in fields if cls is not Contested or fields[field] != {}]
            schema = _record(fields, _needed(cls) if is_input else there)
            lines = (cls.__doc__ or "").strip().split("\n\n")[0]
            self.definitions[name] = {"description": " ".join(lines.split()), **schema}
        return {"$ref": self._prefix + name}

    def _field(self, field: Any) -> Schema:
        schema = self.of(field.type)
        simple = isinstance(field.default, str | int | float)
        return {**schema, "default": field.default} if simple and "$ref" not in schema else schema


def _needed(cls: Any) -> list[str]:
    return [field.name for field in msgspec.structs.fields(cls) if field.required]


def _record(fields: dict[str, Schema], needed: list[str]) -> Schema:
    found: Schema = {"type": "object", "properties": fields, "additionalProperties": False}
    return {**found, "required": needed} if needed else found


# Of a hit, in their order.
HIT_FIELDS: Final = ("ref", "key", "score", "rank", "signals", "value", "snippet")


@cache
def shown_fields(cls: Any) -> dict[str, Any]:
    """Return the fields of a record that plain data has, with their types."""
    if cls is Hit:
        return {name: _hit_type(name) for name in HIT_FIELDS}
    hints = get_type_hints(cls, localns=later())
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    elif issubclass(cls, Struct):
        names = list(cls.__struct_fields__)
    else:
        raise TypeError(f"{cls.__name__} has no schema")
    return {name: hints[name] for name in names if name[0] != "_"}


def _hit_type(name: str) -> Any:
    """Return the type of a field of a hit, of which most are read when they are asked for."""
    found = vars(Hit).get(name)
    return get_type_hints(found.fget)["return"] if isinstance(found, property) else get_type_hints(Hit)[name]


def later() -> dict[str, Any]:
    """Return the names that annotations have and modules import for type checkers alone."""
    from strata.search.over import Over

    return {"Over": Over, "memoryview": Floats}


def row_type(operation: Operation) -> Any:
    """Return the type of one row of a page."""
    if operation.result is Diff:
        return Change
    return replay.Step if operation.result is Replay else get_args(operation.result)[0]
