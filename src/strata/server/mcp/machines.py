"""Machines: instances and definitions, as the tools for single things read and write them.

An instance changes by events only, so `write` creates one, applies an event to it, or deletes it; what is set
is a definition, `_machine/name/version`, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from strata.api.place import Space
from strata.api.plain import from_json
from strata.api.transaction import Transaction
from strata.api.view import View
from strata.core.clock import to_datetime
from strata.core.errors import InvalidInput
from strata.primitives.machines_rows import Instance
from strata.server.mcp.requests import Write
from strata.server.mcp.shown import clean, shown_time

_DEFINITION: Final = "_machine/"


@dataclass(frozen=True, slots=True)
class Version:
    """What one commit did to an instance."""

    version: int
    timestamp: datetime
    deleted: bool
    value: dict[str, Any]


def found(state: Space | View, key: str) -> tuple[Any, dict[str, Any]] | None:
    """Return an instance or a definition, and what is known of it; None where there is none."""
    named = _definition_of(key)
    if named is not None:
        name, version = named
        return state.machines.machine(name, version), {}
    instance = state.machines.get(key)
    if instance is None:
        return None
    about: dict[str, Any] = {"version": instance.version, "time": shown_time(instance.updated)}
    if instance.expires is not None:
        about["expires"] = shown_time(instance.expires)
    return instance, about | {"takes": _takes(state, instance)}


def _takes(state: Space | View, instance: Instance) -> list[str]:
    """Return the events that the state of an instance knows."""
    ways = state.machines.machine(instance.machine, instance.machine_version).definition["transitions"]
    known = dict.fromkeys(way["event"] for way in ways if instance.state in way["from"])
    return [clean(event) for event in known]


def versions(place: Space, key: str, before: int | None, limit: int) -> list[Version]:
    """Return what happened to an instance, newest commit first."""
    if _definition_of(key) is not None:
        raise InvalidInput("a definition never changes, so it has no versions", hint="read it")
    happened = place.machines.history(key, before=before, limit=limit)
    return [_version(list(group)) for _, group in groupby(happened, attrgetter("version"))]


def _version(group: list[Any]) -> Version:
    newest, oldest_first = group[0], group[::-1]
    steps = [{"event": step.event, "from": step.from_state, "to": step.to_state} for step in oldest_first]
    value = {"state": newest.to_state, "context": newest.context, "transitions": steps}
    return Version(newest.version, to_datetime(newest.time_us), newest.to_state is None, value)


def check(request: Write) -> None:
    """Raise InvalidInput for what does not go together."""
    is_definition = _definition_of(request.key) is not None
    if (request.action == "set") is not is_definition:
        raise InvalidInput(
            "a definition is set, once, and never changes"
            if is_definition
            else "an instance is not set: events change it",
            hint="an instance is made by create, changed by apply and taken away by delete",
        )
    if (request.type is not None) is not (request.action in ("create", "apply")):
        raise InvalidInput("create needs the machine as type, and apply the event; nothing else has a type")
    if request.expected_version is not None and request.action != "apply":
        raise InvalidInput("only events are applied at an expected version")


def write(tx: Transaction, request: Write) -> None:
    """Do what a request says."""
    value = None if request.value is None else from_json(request.value)
    machines, key, type = tx.machines, request.key, request.type or ""
    if request.action == "create":
        machines.create(type, key, value)
    elif request.action == "apply":
        machines.apply(key, type, value, expected_version=request.expected_version)
    elif request.action == "delete":
        machines.delete(key)
    else:
        named = _definition_of(key)
        assert named is not None, "it was checked"
        machines.define(*named, {} if value is None else value)


def _definition_of(key: str) -> tuple[str, int] | None:
    """Return name and version of a definition; None where a key is that of an instance.

    Raises: InvalidInput for what only looks like one.
    """
    if not key.startswith(_DEFINITION):
        return None
    name, _, version = key.removeprefix(_DEFINITION).rpartition("/")
    if not name or not (version.isascii() and version.isdigit()):
        raise InvalidInput(f"{key!r} names no definition", hint=f"as in {_DEFINITION}order/1")
    return name, int(version)
