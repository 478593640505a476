"""Messages: what a commit has for a hook, each about one thing.

    {"type": "machines.apply", "timestamp": "2026-01-31T12:00:00.000000Z", "data": {
        "branch", "version", "message"?, "actor"?, "cause"?,            the commit
        "space", "primitive", "key",                                    the thing: of events the stream
        "changes": [{"ref", "action", "value", "expires"?, "parts"?, "removed"?}, ...],
        "transitions"?: [{"event", "from_state", "to_state", "context", "payload"?, "event_id"?}, ...]}}

The same commit gives the same messages with the same ids, in the same order, whoever asks and when; so what
is sent twice can be told by its id. Values are JSON as everywhere over HTTP: see `api/plain`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, Final

from strata.api.plain import encode_json, plain
from strata.api.webhooks_rows import Hook, Message, lane_of
from strata.core.clock import to_datetime
from strata.core.errors import HistoryTrimmed
from strata.core.protocols import Branch
from strata.history.diff import Limits
from strata.history.replay import Change, Step
from strata.primitives import PRIMITIVES, Machines
from strata.primitives.machines_rows import Instance, Transition

BODY_BYTES_MAX: Final = 256 * 1024  # beyond it values are left out: a receiver reads them by their refs
_ID_BYTES: Final = 20
_MACHINES: Final = "machines"
Thing = tuple[str, str, str]  # space, primitive, name


def limits_of(hook: Hook) -> Limits:
    """Return what of a branch a hook watches."""
    return Limits(hook.space, hook.primitive, hook.prefix)


def messages_of(hook: Hook, branch: Branch, step: Step) -> Iterator[Message | None]:
    """Yield what a commit has for a hook, thing by thing in their order; None for one it is not told of."""
    things: dict[Thing, list[Change]] = {}
    for change in step.changes:
        things.setdefault(_thing_of(change), []).append(change)
    for thing in sorted(things):
        yield _message(hook, branch, step, thing, things[thing])


def _thing_of(change: Change) -> Thing:
    primitive = PRIMITIVES[change.primitive]
    return change.space, change.primitive, primitive._thing(primitive._place(change.key), change.key)


def _message(hook: Hook, branch: Branch, step: Step, thing: Thing, changes: list[Change]) -> Message | None:
    transitions: list[Transition] = []
    if thing[1] == _MACHINES:
        transitions = _transitions(step, changes[-1])
        if not _is_wanted(hook, branch, step, changes[-1], transitions):
            return None
    space, primitive, name = thing
    kind = f"{primitive}.{changes[-1].action}"
    said = _said(step, thing, changes, transitions)
    body = _encoded(kind, step, said)
    return Message(_id(hook, step, thing), lane_of(*thing), step.version, space, primitive, name, kind, body)


def _transitions(step: Step, change: Change) -> list[Transition]:
    """Return what a commit did to an instance, oldest first."""
    if isinstance(change.value, Instance):
        return list(change.value.transitions)
    return []


def _is_wanted(hook: Hook, branch: Branch, step: Step, change: Change, transitions: list[Transition]) -> bool:
    """Return whether a hook is told of what a commit did to an instance or a definition."""
    if hook.events is None and hook.to_states is None:
        return hook.machine is None or _machine_of(branch, step, change) == hook.machine
    matching = [
        transition
        for transition in transitions
        if (hook.events is None or transition.event in hook.events)
        and (hook.to_states is None or transition.to_state in hook.to_states)
    ]
    return bool(matching) and (hook.machine is None or change.value.machine == hook.machine)


def _machine_of(branch: Branch, step: Step, change: Change) -> str | None:
    """Return of which machine an instance is, or was before it was deleted."""
    if isinstance(change.value, Instance):
        return change.value.machine
    if not change.removed or change.key.startswith("_machine/"):
        return None
    key = Machines._place(change.key)
    try:
        rows = branch.keyspace(change.space, Machines.LAYOUT).history(key, step.version, 1)
    except HistoryTrimmed:
        return None
    return None if not rows or rows[0][3] else str(rows[0][0]["machine"])


def _said(step: Step, thing: Thing, changes: list[Change], transitions: list[Transition]) -> dict[str, Any]:
    commit = {"message": step.message, "actor": step.actor, "cause": step.cause}
    found: dict[str, Any] = {"branch": step.branch, "version": step.version}
    found |= {name: value for name, value in commit.items() if value is not None}
    found |= dict(zip(("space", "primitive", "key"), thing, strict=True))
    found["changes"] = list(map(_change, changes))
    if transitions:
        found["transitions"] = list(map(_transition, transitions))
    return found


def _change(change: Change) -> dict[str, Any]:
    found: dict[str, Any] = {"ref": str(change.ref), "action": change.action}
    if change.removed:
        return found | {"removed": True}
    found["value"] = plain(change.value)
    if change.expires is not None:
        found["expires"] = plain(change.expires)
    if change.parts:
        found["parts"] = plain(change.parts)
    return found


def _transition(transition: Transition) -> dict[str, Any]:
    found: dict[str, Any] = {"event": transition.event, "from_state": transition.from_state}
    found |= {"to_state": transition.to_state, "context": transition.context}
    if transition.payload is not None:
        found["payload"] = transition.payload
    return found if transition.event_id is None else found | {"event_id": transition.event_id}


def _encoded(kind: str, step: Step, said: dict[str, Any]) -> bytes:
    head = {"type": kind, "timestamp": plain(to_datetime(step.time_us))}
    body = encode_json(head | {"data": said})
    if len(body) <= BODY_BYTES_MAX:
        return body
    changes = [{"ref": change["ref"], "action": change["action"]} for change in said["changes"]]
    short = said | {"changes": changes[:1000], "left_out": True}
    short.pop("transitions", None)
    return encode_json(head | {"data": short})


def _id(hook: Hook, step: Step, thing: Thing) -> str:
    said = "\0".join((hook.id, str(hook.branch), str(step.version), *thing)).encode()
    digest = hashlib.sha256(said).digest()[:_ID_BYTES]
    return f"msg_{base64.b32encode(digest).decode().lower()}"
