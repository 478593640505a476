"""Entries of rstmdb as our own machines and instances can have them.

What rstmdb takes and we do not is read as it means it there, and said to be mended:

    null for a context              an empty one: it has no fields, and guards see none
    a context that is no map        a map with it as its only value, under "value"
    text behind a guard             is left out, as it is not looked at there
    an event id that can be none    is left out

Timers and actions count only in a definition whose hash is over them, which is one of ours that comes back.
rstmdb drops such keys, so there they are somebody's notes.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from strata.api.rstmdb.records import Entry
from strata.core.errors import InvalidInput, StrataError
from strata.core.keys import check_key
from strata.primitives.machines_definition import canonical, checked, checksum_of
from strata.primitives.machines_guards import leading_guard

Map = dict[str, Any]

_FIELDS: Final = ("states", "initial", "transitions", "meta")


class Definition(msgspec.Struct):
    """That a version of a machine was defined."""

    machine: str
    version: int
    definition: Any = None
    definition_hash: str | None = None


class Creation(msgspec.Struct):
    """That an instance was made."""

    instance_id: str
    machine: str
    version: int
    initial_state: str
    initial_ctx: Any = None


class Application(msgspec.Struct):
    """That an event took an instance from a state to a state."""

    instance_id: str
    event: str
    from_state: str
    to_state: str
    payload: Any = None
    ctx: Any = None
    event_id: str | None = None


class Deletion(msgspec.Struct):
    """That an instance was deleted."""

    instance_id: str


class Snapshot(msgspec.Struct):
    """How an instance is. rstmdb knows such entries and writes none; our listener does, of a migration."""

    instance_id: str
    state: str
    ctx: Any = None
    version: int | None = None  # of the machine; left out, as it was


What = Definition | Creation | Application | Deletion | Snapshot
_KINDS: Final[dict[str, type[What]]] = {
    "put_machine": Definition,
    "create_instance": Creation,
    "apply_event": Application,
    "delete_instance": Deletion,
    "snapshot": Snapshot,
}


def read_entry(entry: Entry) -> What | None:
    """Return what an entry says; None for one that says nothing of a machine or an instance.

    Raises: InvalidInput, naming the field, for one that is not as it should be.
    """
    kind = _KINDS.get(entry["type"])
    if kind is None:
        return None
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error)) from None


def context_of(value: Any) -> tuple[Map, bool]:
    """Return a context, and whether it is not as it was."""
    if type(value) is dict:
        return value, False
    return ({} if value is None else {"value": value}), True


def payload_of(value: Any) -> tuple[Map | None, bool]:
    """Return a payload, and whether it is not as it was."""
    if value is None or type(value) is dict:
        return value, False
    return {"value": value}, True


def event_id_of(value: str | None) -> tuple[str | None, bool]:
    """Return an event id, and whether it is not as it was."""
    if value is None:
        return None, False
    try:
        return check_key(value), False
    except StrataError:
        return None, True


def definition_of(entry: Definition) -> tuple[Map, bool]:
    """Return a definition, and whether it is not as it was.

    Raises: InvalidInput for what is none; LimitExceeded.
    """
    given = entry.definition
    if type(given) is not dict:
        raise InvalidInput("the log has no definition of it, as old versions wrote it")
    if not given.keys() <= set(_FIELDS) and _is_ours(given, entry.definition_hash):
        return given, False
    known = {name: given[name] for name in _FIELDS if name in given}
    try:
        return checked(known), False
    except StrataError:
        return checked(_mended(known)), True


def _is_ours(definition: Map, hash: str | None) -> bool:
    try:
        return checksum_of(canonical(checked(definition))) == hash
    except StrataError:
        return False


def _mended(definition: Map) -> Map:
    """Return a definition whose guards end where rstmdb stops reading them."""
    transitions = definition.get("transitions")
    if not isinstance(transitions, list):
        return definition
    return {**definition, "transitions": [_mended_transition(transition) for transition in transitions]}


def _mended_transition(transition: Any) -> Any:
    guard = transition.get("guard") if isinstance(transition, dict) else None
    return {**transition, "guard": leading_guard(guard)} if isinstance(guard, str) else transition
