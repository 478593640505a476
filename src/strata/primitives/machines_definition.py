"""Machine definitions: what is one, what is strange about it, and its checksum.

    {"states": [name, ...], "initial": name, "meta": any,
     "transitions": [{"from": name or [name, ...], "event": name, "to": name, "guard": text}, ...]}

Several transitions may have one state and event. They are tried in their order, and the first whose guard
holds, or that has none, is taken. Keys that are not known are dropped.

A definition is kept in its normal form: `from` is a list, and what is null or absent is left out. Its
checksum is the CRC32C of that as compact JSON: keys as they stand in `normal`, those in `meta` sorted. Timers
and actions (see `machines_timers`, `machines_actions`) come last: a definition without has rstmdb's checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn

from strata.core.crc32c import crc32c
from strata.core.errors import InvalidInput, LimitExceeded, StrataError
from strata.core.values import check
from strata.primitives import machines_extras as extras
from strata.primitives.machines_actions import Action
from strata.primitives.machines_findings import (
    Finding,
    Validation,
    listed,
    no_state,
    shape_of_name,
    shape_of_names,
)
from strata.primitives.machines_guards import Guard, compile_guard

MAX_VERSION: Final = 2**32 - 1
_FIELDS: Final = (("states", list), ("initial", str), ("transitions", list))
_HINT: Final = "as in {'states': ['open', 'done'], 'initial': 'open', 'transitions': [...]}"


class Alternative(NamedTuple):
    """One way out of a state by an event."""

    guard: Guard | None
    text: str | None  # of the guard
    to: str


class Compiled(NamedTuple):
    """A definition, ready to be run."""

    initial: str
    ways: dict[tuple[str, str], tuple[Alternative, ...]]  # by state and event
    timers: dict[str, tuple[tuple[int, str], ...]]  # by state: after how many microseconds which event
    enter: dict[str, tuple[Action, ...]]
    exit: dict[str, tuple[Action, ...]]
    is_plain: bool  # whether there are no timers and no actions


def validate(definition: Any) -> Validation:
    """Return all that is wrong with or strange about a definition."""
    try:
        parsed = _parsed(definition)
        check(parsed, finite=True)
    except StrataError as error:
        return Validation((Finding("INVALID_TYPE", str(error), "$"),), ())
    errors = _wrong(parsed)
    return Validation(tuple(errors), () if errors else tuple(_strange(normal(parsed))))


def checked(definition: Any) -> dict[str, Any]:
    """Return a definition in its normal form.

    Raises: InvalidInput, naming the first place where it is wrong; LimitExceeded.
    """
    parsed = _parsed(definition)
    check(parsed, finite=True)
    for finding in _wrong(parsed):
        raise InvalidInput(f"a machine's definition at {finding.path}: {finding.message}", hint=_HINT)
    return normal(parsed)


def normal(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the normal form of a valid definition."""
    found = {
        "states": list(definition["states"]),
        "initial": definition["initial"],
        "transitions": [_normal_transition(transition) for transition in definition["transitions"]],
    }
    if definition.get("meta") is not None:
        found["meta"] = _sorted(definition["meta"])
    return found | extras.normal(definition)


def canonical(definition: dict[str, Any]) -> bytes:
    """Return the text of a normal form that is summed."""
    return json.dumps(definition, separators=(",", ":"), ensure_ascii=False).encode()


def checksum_of(text: bytes) -> str:
    """Return the checksum of a canonical text: 8 hex digits."""
    return f"{crc32c(text):08x}"


def check_checksum(given: Any, text: bytes) -> None:
    """Do nothing if `given` is the checksum of a canonical text: CRC32C or SHA-256, in hex."""
    sums = {8: checksum_of(text), 64: hashlib.sha256(text).hexdigest()}
    if type(given) is not str or len(given) not in sums:
        raise InvalidInput(f"a checksum has 8 hex digits (CRC32C) or 64 (SHA-256), not {given!r}")
    if given.lower() != sums[len(given)]:
        raise InvalidInput(f"the definition's checksum is {sums[len(given)]}, not {given}")


def check_version(version: Any) -> int:
    """Return `version` if it can be that of a machine."""
    if type(version) is not int or not 1 <= version <= MAX_VERSION:
        raise InvalidInput(f"a machine's version is an int from 1 to {MAX_VERSION}, not {version!r}")
    return version


def compiled(definition: dict[str, Any]) -> Compiled:
    """Return the tables of a normal form, in which an event is one look-up."""
    ways: dict[tuple[str, str], tuple[Alternative, ...]] = {}
    for transition in definition["transitions"]:
        text = transition.get("guard")
        way = Alternative(None if text is None else compile_guard(text), text, transition["to"])
        for state in dict.fromkeys(transition["from"]):
            place = state, transition["event"]
            ways[place] = (*ways.get(place, ()), way)
    return Compiled(
        definition["initial"],
        ways,
        extras.timers_by_state(definition),
        extras.actions_by_state(definition, "enter"),
        extras.actions_by_state(definition, "exit"),
        not any(definition.get(field) for field in extras.EXTRAS),
    )


# -- what is wrong


def _parsed(definition: Any) -> dict[str, Any]:
    if isinstance(definition, str):
        try:
            definition = json.loads(definition, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"a machine's definition is no JSON: {error}", hint=_HINT) from None
    if type(definition) is not dict:
        raise InvalidInput(f"a machine's definition is a map, not {type(definition).__name__}", hint=_HINT)
    return definition


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _wrong(definition: dict[str, Any]) -> list[Finding]:
    """Return what is wrong; what is in the fields only once these are what they should be."""
    shape = [*_shape(definition), *_json(definition), *extras.shape(definition)]
    return shape or [*_initial(definition), *_transitions(definition), *extras.references(definition)]


def _json(definition: dict[str, Any]) -> Iterator[Finding]:
    for field in ("meta", *extras.EXTRAS):
        try:
            json.dumps(definition.get(field))
        except TypeError:
            yield Finding("INVALID_TYPE", f"{field!r} is JSON, which has no bytes", f"$.{field}")


def _shape(definition: dict[str, Any]) -> Iterator[Finding]:
    for field, kind in _FIELDS:
        if field not in definition:
            yield Finding("MISSING_FIELD", f"{field!r} is missing", "$")
        elif not isinstance(definition[field], (list, tuple) if kind is list else kind):
            what = "a list" if kind is list else "a text"
            yield Finding("INVALID_TYPE", f"{field!r} is {what}", f"$.{field}")
        elif field == "states":
            yield from shape_of_names(definition["states"], "state", "$.states")
        elif field == "transitions":
            for index, transition in enumerate(definition["transitions"]):
                yield from _shape_of_transition(transition, f"$.transitions[{index}]")


def _shape_of_transition(transition: Any, at: str) -> Iterator[Finding]:
    if not isinstance(transition, dict):
        yield Finding("INVALID_TYPE", "a transition is a map", at)
        return
    for field in ("from", "event", "to"):
        if field not in transition:
            yield Finding("MISSING_FIELD", f"{field!r} is missing", at)
    yield from shape_of_names(transition.get("from", []), "state", f"{at}.from")
    for field, what in (("event", "event"), ("to", "state")):
        if field in transition:
            yield from shape_of_name(transition[field], what, f"{at}.{field}")
    if not isinstance(transition.get("guard"), (str, type(None))):
        yield Finding("INVALID_TYPE", "a guard is a text", f"{at}.guard")


def _initial(definition: dict[str, Any]) -> Iterator[Finding]:
    if definition["initial"] not in definition["states"]:
        message = f"the initial state {definition['initial']!r} is none of the states"
        yield Finding("INVALID_INITIAL_STATE", message, "$.initial")


def _transitions(definition: dict[str, Any]) -> Iterator[Finding]:
    states = set(definition["states"])
    ends: set[tuple[str, str]] = set()  # that have a way without a guard
    for index, transition in enumerate(definition["transitions"]):
        at, guard = f"$.transitions[{index}]", transition.get("guard")
        if transition["to"] not in states:
            yield no_state(transition["to"], f"{at}.to")
        if guard is not None:
            yield from _guard(guard, f"{at}.guard")
        for source in dict.fromkeys(listed(transition["from"])):
            if source not in states:
                yield no_state(source, f"{at}.from")
            place = source, transition["event"]
            if place in ends:
                message = f"event {place[1]!r} in state {source!r} takes an earlier way, which has no guard"
                yield Finding("DUPLICATE_TRANSITION", message, at)
            elif guard is None:
                ends.add(place)


def _guard(text: str, at: str) -> Iterator[Finding]:
    try:
        compile_guard(text)
    except (InvalidInput, LimitExceeded) as error:
        yield Finding("INVALID_GUARD", str(error), at)


# -- what is strange


def _strange(definition: dict[str, Any]) -> Iterator[Finding]:
    states = definition["states"]
    ways: dict[str, set[str]] = {state: set() for state in states}
    for transition in definition["transitions"]:
        for source in transition["from"]:
            ways[source].add(transition["to"])
    reached, open_ = {definition["initial"]}, [definition["initial"]]
    while open_:
        new = ways[open_.pop()] - reached
        reached |= new
        open_ += new
    seen: set[str] = set()
    for index, state in enumerate(states):
        at = f"$.states[{index}]"
        if state in seen:
            yield Finding("DUPLICATE_STATE", f"state {state!r} is there twice", at)
            continue
        seen.add(state)
        if state not in reached:
            yield Finding("UNREACHABLE_STATE", f"no way leads to state {state!r}", at)
        if not ways[state]:
            yield Finding("DEAD_END_STATE", f"no way leads out of state {state!r}", at)


def _normal_transition(transition: dict[str, Any]) -> dict[str, Any]:
    found = {"from": listed(transition["from"]), "event": transition["event"], "to": transition["to"]}
    if transition.get("guard") is not None:
        found["guard"] = transition["guard"]
    return found


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value
