"""Actions: what is written to other primitives when an instance enters or leaves a state, in its commit.

    {"on": "enter" or "exit", "state": name or [name, ...], "do": "kv.put", "key": ..., "value": ...}

In the arguments `{ctx.total}`, `{id}`, `{machine}`, `{event}`, `{from}` and `{to}` stand for what there is,
`{{` and `}}` for the marks themselves. A text that is nothing but such a place is the value as it is, a list
or a number too, and null where there is none. Inside a longer text what is null cannot be written, and
refuses the event. The context is that after the payload was merged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from strata.core.atomic import Source
from strata.core.errors import InvalidInput
from strata.core.paths import parse
from strata.primitives.events import Events
from strata.primitives.json import Json
from strata.primitives.kv import Kv
from strata.primitives.state import State

Scope = dict[str, Any]
Template = Callable[[Scope], Any]

_PLACE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAMES: Final = ("id", "machine", "event", "from", "to")
# By name: the primitive, and its arguments; those behind a "?" may be left out.
ACTIONS: Final[dict[str, tuple[type[Any], str]]] = {
    "kv.put": (Kv, "key value"),
    "kv.incr": (Kv, "key ?by"),
    "kv.delete": (Kv, "key"),
    "state.set": (State, "name value"),
    "json.set": (Json, "doc path value"),
    "json.merge": (Json, "doc patch"),
    "events.append": (Events, "type payload ?stream"),
}
_FIXED: Final = ("on", "state", "do")


class Action(NamedTuple):
    """An action that can be run."""

    name: str
    primitive: type[Any]
    arguments: dict[str, Template]

    def run(self, source: Source, space: str, scope: Scope) -> None:
        """Write what it says into a keyspace of `source`."""
        try:
            given = {name: template(scope) for name, template in self.arguments.items()}
            primitive = self.primitive(source.keyspace(space, self.primitive.LAYOUT))
            getattr(primitive, self.name.partition(".")[2])(**given)
        except Exception as error:
            error.add_note(f"in {self.name}, an action of machine {scope['machine']!r}")
            raise


def action_of(definition: dict[str, Any]) -> Action:
    """Return the action that a definition says.

    Raises: InvalidInput, saying why, when it says none.
    """
    name = definition.get("do")
    if not isinstance(name, str) or name not in ACTIONS:
        raise InvalidInput(f"{name!r} is no action; there are {', '.join(ACTIONS)}")
    primitive, arguments = ACTIONS[name]
    known = {argument.strip("?"): argument for argument in arguments.split()}
    for argument in definition:
        if argument not in known and argument not in _FIXED:
            raise InvalidInput(f"{name} has no {argument!r}, only {', '.join(known)}")
    for argument, mark in known.items():
        if argument not in definition and mark[0] != "?":
            raise InvalidInput(f"{name} needs {argument!r}")
    if name == "json.set" and isinstance(definition["path"], str) and "{" not in definition["path"]:
        parse(definition["path"])
    given = {argument: template_of(definition[argument]) for argument in known if argument in definition}
    return Action(name, primitive, given)


def template_of(value: Any) -> Template:
    """Return the function that fills in the places of a value.

    Raises: InvalidInput for a place that is none.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (list, tuple)):
        items = [template_of(item) for item in value]
        return lambda scope: [item(scope) for item in items]
    if isinstance(value, dict):
        parts = {key: template_of(item) for key, item in value.items()}
        return lambda scope: {key: part(scope) for key, part in parts.items()}
    return lambda scope: value


def _text(text: str) -> Template:
    parts = [*_parts(text)]
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0][1]

    def fill(scope: Scope) -> str:
        return "".join(part if isinstance(part, str) else _written(part[0], part[1](scope)) for part in parts)

    return fill


def _parts(text: str) -> Iterator[str | tuple[str, Template]]:
    """Yield the texts between the places, and the places."""
    at = 0
    for found in _PLACE.finditer(text):
        if at < found.start():
            yield text[at : found.start()]
        at = found.end()
        if found[0] in ("{{", "}}"):
            yield found[0][0]
        elif found[1] is None:
            raise InvalidInput(f"{text!r} has a {found[0]!r} too many", hint="write {{ and }} for the marks")
        else:
            yield found[1], _reader(found[1])
    if at < len(text):
        yield text[at:]


def _reader(name: str) -> Template:
    if name in _NAMES:
        return lambda scope: scope[name]
    first, *steps = name.split(".")
    if first != "ctx" or not steps or not all(steps):
        raise InvalidInput(
            f"{{{name}}} stands for nothing", hint=f"one of {', '.join(_NAMES)}, or ctx. and a field"
        )

    def read(scope: Scope) -> Any:
        value = scope["ctx"]
        for step in steps:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    return read


def _written(name: str, value: Any) -> str:
    if value is None:
        raise InvalidInput(f"there is no {name} to write into a text", hint="put it into the context first")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
