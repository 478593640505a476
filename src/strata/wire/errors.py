"""Errors of Strata as plain data, in both directions.

    {"code": stable, "message": text, "hint": text, "fields": {name: plain}}

Where the fields of a Conflict name things, these are refs as text; a range is [branch, space, primitive,
start, end]. What both sides of a merge changed is a map of its fields, without the sides where there is
nothing. A code that this side does not know, since the other is newer, becomes a RemoteError that names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from strata.core.errors import (
    Conflict,
    ConflictKey,
    ConflictPath,
    ConflictRange,
    ConflictSides,
    InternalError,
    MergeConflict,
    RemoteError,
    StrataError,
    TransactionLost,
    all_errors,
)
from strata.core.patches import ABSENT
from strata.core.refs import EntityRef
from strata.core.values import encode

# What Python itself raises for a call that cannot be: it stays what it is.
_BUILTIN: Final = {"type_error": TypeError, "value_error": ValueError, "overflow_error": OverflowError}
# Of a merge with more conflicts than this the first ones go: an error must get through.
_CONFLICTS_BYTES: Final = 1 << 20
_FIELDS: Final[tuple[str, ...]] = ConflictSides.__match_args__
_BUILTIN_CODES: Final[dict[type[BaseException], str]] = {error: code for code, error in _BUILTIN.items()}


def to_wire(error: BaseException) -> dict[str, Any]:
    """Return an error as plain data. What is none of ours is an InternalError, without its text's details."""
    if isinstance(error, StrataError):
        fields = {name: _plain(value) for name, value in error.fields().items()}
        if isinstance(error, MergeConflict):
            fields["conflicts"] = list(_contested(error.conflicts))
        return {"code": error.code, "message": error.message, "hint": error.hint, "fields": fields}
    code = _BUILTIN_CODES.get(type(error))
    if code is not None:
        return {"code": code, "message": str(error), "hint": "", "fields": {}}
    message = f"{type(error).__name__}: {error}"
    return {"code": InternalError.code, "message": message, "hint": "please report this", "fields": {}}


def from_wire(data: Any) -> Exception:
    """Return the error that plain data stands for."""
    if not isinstance(data, dict):
        return RemoteError(f"an error that is none: {data!r}")
    code, message, hint = (str(data.get(name, "")) for name in ("code", "message", "hint"))
    if code in _BUILTIN:
        return _BUILTIN[code](message)
    cls = next((cls for cls in all_errors().values() if cls.code == code), None)
    if cls is None:
        return RemoteError(f"{code}: {message}", hint=hint)
    fields = data.get("fields")
    given = fields.items() if isinstance(fields, dict) else ()
    known: dict[str, Any] = {name: value for name, value in given if name in cls.names}
    try:
        if issubclass(cls, Conflict):
            known = _conflict(cls, known)
        return cls(message, hint=hint, **known)
    except (StrataError, TypeError, ValueError):
        return RemoteError(f"{code}: {message}", hint=hint)


def _plain(value: Any) -> Any:
    if isinstance(value, ConflictKey):
        return str(value.ref)
    if isinstance(value, ConflictPath):
        return [str(value.ref), value.ours, value.theirs]
    if isinstance(value, ConflictRange):
        return [value.branch, value.space, value.primitive, value.start, value.end]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _conflict(cls: type[Conflict], fields: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a conflict: of the general ones its places, of the others what is their own."""
    if cls in (Conflict, TransactionLost):
        return {"keys": _keys(fields), "paths": _paths(fields), "ranges": _ranges(fields)}
    own = {name: value for name, value in fields.items() if name not in Conflict.names}
    if cls is MergeConflict:
        own["conflicts"] = [_sides(found) for found in own.get("conflicts", ())]
    return own


def _contested(conflicts: Iterable[ConflictSides]) -> Iterator[dict[str, Any]]:
    """Yield what both sides of a merge changed as plain data, as far as there is room for it."""
    size = 0
    for found in conflicts:
        sides = ((name, getattr(found, name)) for name in _FIELDS)
        shown = {name: value for name, value in sides if value is not ABSENT}
        size += len(encode(shown))
        if size > _CONFLICTS_BYTES:
            return
        yield shown


def _sides(data: dict[str, Any]) -> ConflictSides:
    absent = dict.fromkeys(("base", "source", "target"), ABSENT)
    return ConflictSides(**{**absent, **{name: data[name] for name in _FIELDS if name in data}})


def _keys(fields: dict[str, Any]) -> list[ConflictKey]:
    return [ConflictKey(EntityRef.parse(ref)) for ref in fields.get("keys", ())]


def _paths(fields: dict[str, Any]) -> list[ConflictPath]:
    return [ConflictPath(EntityRef.parse(ref), ours, theirs) for ref, ours, theirs in fields.get("paths", ())]


def _ranges(fields: dict[str, Any]) -> list[ConflictRange]:
    return [ConflictRange(*found) for found in fields.get("ranges", ())]
