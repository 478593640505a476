"""What definitions have beyond rstmdb's: timers and actions. See `machines_timers` and `machines_actions`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from strata.core.clock import duration_micros
from strata.core.errors import InvalidInput
from strata.primitives.machines_actions import Action, action_of
from strata.primitives.machines_findings import Finding, listed, no_state, shape_of_name, shape_of_names

_ENTER, _EXIT = "enter", "exit"
EXTRAS: Final = ("timers", "actions")


def shape(definition: dict[str, Any]) -> Iterator[Finding]:
    """Yield what is no timer and no action."""
    for field in EXTRAS:
        items = definition.get(field)
        if not isinstance(items, (list, tuple, type(None))):
            yield Finding("INVALID_TYPE", f"{field!r} is a list", f"$.{field}")
            continue
        for index, item in enumerate(items or ()):
            at = f"$.{field}[{index}]"
            if not isinstance(item, dict):
                yield Finding("INVALID_TYPE", "it is a map", at)
            elif "state" not in item:
                yield Finding("MISSING_FIELD", "'state' is missing", at)
            else:
                yield from shape_of_names(item["state"], "state", f"{at}.state")
                yield from _timer(item, at) if field == "timers" else _action(item, at)


def _timer(timer: dict[str, Any], at: str) -> Iterator[Finding]:
    yield from shape_of_name(timer.get("event"), "event", f"{at}.event")
    try:
        duration_micros(timer.get("after"), "a timer", "as in 'after': 3600")
    except InvalidInput as error:
        yield Finding("INVALID_TIMER", str(error), f"{at}.after")


def _action(action: dict[str, Any], at: str) -> Iterator[Finding]:
    if action.get("on") not in (_ENTER, _EXIT):
        yield Finding("INVALID_ACTION", "'on' is 'enter' or 'exit'", f"{at}.on")
    try:
        action_of(action)
    except InvalidInput as error:
        yield Finding("INVALID_ACTION", str(error), at)


def references(definition: dict[str, Any]) -> Iterator[Finding]:
    """Yield what speaks of states and events that there are not."""
    ways = {
        (source, transition["event"])
        for transition in definition["transitions"]
        for source in listed(transition["from"])
    }
    for field in EXTRAS:
        for index, item in enumerate(definition.get(field) or ()):
            for state in listed(item["state"]):
                at = f"$.{field}[{index}]"
                if state not in definition["states"]:
                    yield no_state(state, f"{at}.state")
                elif field == "timers" and (state, item["event"]) not in ways:
                    message = f"state {state!r} takes no event {item['event']!r}"
                    yield Finding("INVALID_TIMER", message, f"{at}.event")


def normal(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the normal form of timers and actions, of which there may be none."""
    found: dict[str, Any] = {}
    if definition.get("timers"):
        found["timers"] = [
            {"state": listed(timer["state"]), "after": timer["after"], "event": timer["event"]}
            for timer in definition["timers"]
        ]
    if definition.get("actions"):
        found["actions"] = [
            {"on": action["on"], "state": listed(action["state"]), "do": action["do"]}
            | {name: action[name] for name in sorted(action) if name not in ("on", "state", "do")}
            for action in definition["actions"]
        ]
    return found


def timers_by_state(definition: dict[str, Any]) -> dict[str, tuple[tuple[int, str], ...]]:
    """Return (microseconds, event) of the timers of each state, each event once."""
    found: dict[str, dict[str, int]] = {}
    for timer in definition.get("timers", ()):
        after_us = duration_micros(timer["after"], "a timer", "")
        for state in timer["state"]:
            mine = found.setdefault(state, {})
            mine[timer["event"]] = min(after_us, mine.get(timer["event"], after_us))
    return {
        state: tuple((after_us, event) for event, after_us in mine.items()) for state, mine in found.items()
    }


def actions_by_state(definition: dict[str, Any], on: str) -> dict[str, tuple[Action, ...]]:
    """Return the actions of each state, in their order."""
    found: dict[str, tuple[Action, ...]] = {}
    for action in definition.get("actions", ()):
        if action["on"] == on:
            made = action_of(action)
            for state in dict.fromkeys(action["state"]):
                found[state] = (*found.get(state, ()), made)
    return found
