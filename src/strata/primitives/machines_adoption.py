"""Adoption: what the log of another database says happened to instances, taken as it is.

The log is the truth: states and contexts are those that it names, no guard is asked and no action is run.
What the definition would not have led to is taken all the same, and said to be irregular. All of it is
written together at the end, each instance once, with every transition in its row, so that its history is that
of the log; and each with its ordinal, so that the order across instances is that of the log, too.

Invariant: the state of an adopted instance is a state of its machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from strata.core.errors import AlreadyExists, InvalidInput, UnexpectedState
from strata.core.patches import ABSENT
from strata.core.protocols import PatchOp, Txn
from strata.core.values import check, same
from strata.primitives.machines_definition import Compiled, check_version
from strata.primitives.machines_reads import no_instance, tables
from strata.primitives.machines_rows import (
    KEY_TTL_US,
    Row,
    definition_key,
    follows,
    gone_key,
    instance_key,
    known_key,
    machine_name,
    timer_key,
)
from strata.primitives.machines_steps import DUE, EVENT_ID, MADE, due_in, move, open_spans, set_timers

Map = dict[str, Any]
Item = list[Any]  # event, from, payload, event id, to, context, and the ordinal unless it is the first

_STATE: Final = ("state",)
_STATES: Final = ("definition", "states")


class _Known(msgspec.Struct):
    """A version of a machine."""

    ready: Compiled
    states: frozenset[str]


class _Held(msgspec.Struct):
    """An instance as it is by now."""

    machine: str
    machine_version: int
    state: str
    context: Map
    before: Row | None = None  # as it is in the database; None where it was not
    expires: int | None = None
    items: list[Item] = []
    is_deleted: bool = False
    ordinal: int = 0  # of the deletion


class Adoption:
    """What is taken into one keyspace, in one transaction."""

    def __init__(self, txn: Txn, *, force: bool = False, careful: bool = False) -> None:
        """Begin.

        Args:
            force: an instance need not be in the state that a transition begins in.
            careful: check each context when it comes; else what is wrong is found when all is written.
        """
        self._txn, self._force, self._careful = txn, force, careful
        self._held: dict[bytes, _Held] = {}
        self._known: dict[tuple[str, int], _Known] = {}
        self._count = 0  # of what was taken in

    def create(self, id: str, machine: str, version: int, state: str, context: Map) -> bool:
        """Take in a creation; return whether it is as the machine would have made it.

        Raises: AlreadyExists for an instance that is there, and for what was deleted in this very commit;
            NotFound for the machine; InvalidInput; LimitExceeded.
        """
        key, known = instance_key(id), self._machine(machine, version)
        self._check(known, state, context)
        if key in self._held or self._txn.contains(key):
            raise AlreadyExists(what="instance", name=id, hint="the log has it made, and it is there already")
        held = _Held(machine, version, state, context)
        held.items = [[None, None, None, None, state, context, *self._ordinal()]]
        self._held[key] = held
        return state == known.ready.initial

    def apply(
        self,
        id: str,
        event: str,
        source: str,
        to: str,
        payload: Map | None,
        context: Map,
        event_id: str | None = None,
    ) -> bool:
        """Take in a transition; return whether the machine leads there, and to that context.

        Raises: NotFound for an unknown instance; UnexpectedState where it is in another state than `source`;
            InvalidInput; LimitExceeded.
        """
        key = known_key(id)
        held = self._instance(key)
        known = self._machine(held.machine, held.machine_version)
        if source != held.state and not self._force:
            raise UnexpectedState(what="state", expected=source, actual=held.state)
        self._check(known, to, context, payload)
        is_regular = source == held.state and _leads(known.ready, held, event, to)
        is_regular = is_regular and context == {**held.context, **(payload or {})}
        held.items.append([event, source, payload, event_id, to, context, *self._ordinal()])
        held.state, held.context = to, context
        return is_regular

    def become(self, id: str, state: str, context: Map, version: int | None = None) -> bool:
        """Take in how an instance is, and perhaps of which version of its machine; return whether it was not.

        Raises: NotFound for an unknown instance or version; InvalidInput; LimitExceeded.
        """
        held = self._instance(known_key(id))
        number = held.machine_version if version is None else version
        self._check(self._machine(held.machine, number), state, context)
        if (held.state, held.context, held.machine_version) == (state, context, number):
            return False
        held.items.append([None, held.state, None, None, state, context, *self._ordinal()])
        held.state, held.context, held.machine_version = state, context, number
        return True

    def delete(self, id: str) -> None:
        """Take in a deletion. Raises: NotFound for an unknown instance; InvalidInput."""
        key = known_key(id)
        held = self._instance(key)
        assert not held.items, "what a deletion takes away would leave no trace: it needs a commit of its own"
        held.is_deleted = True
        held.ordinal = self._count
        self._count += 1

    def write(self) -> None:
        """Write what all of it comes to."""
        for key, held in self._held.items():
            if held.is_deleted:
                assert held.before is not None
                self._txn.delete_many([key, *follows(key, held.before)])
                self._txn.put(gone_key(key), [held.ordinal, True], KEY_TTL_US)
            elif held.before is None:
                self._put(key, held)
            elif held.items:
                self._patch(key, held, held.before)

    def _put(self, key: bytes, held: _Held) -> None:
        ready, now = self._machine(held.machine, held.machine_version).ready, self._txn.now
        row: Row = {
            "machine": held.machine,
            "machine_version": held.machine_version,
            "state": held.state,
            "context": held.context,
            "created": now,
            "made": _made(-1, held),
        }
        if held.state in ready.timers:
            row["due"] = due_in(ready, held.state, now)
        self._txn.put_many([(key, row), *((follower, None) for follower in follows(key, row))])
        open_spans(self._txn, [timer_key(due, key, event) for due, event in row.get("due", ())])

    def _patch(self, key: bytes, held: _Held, before: Row) -> None:
        ops: list[PatchOp] = [("set", MADE, _made(before["made"][0], held))]
        ops += _changes(before["context"], held.context)
        if held.state != before["state"]:
            ops.append(("set", _STATE, held.state))
        if held.machine_version != before["machine_version"]:
            ops.append(("set", ("machine_version",), held.machine_version))
        if "event_id" in before:
            ops.append(("delete", EVENT_ID))
        ready = self._machine(held.machine, held.machine_version).ready
        due = due_in(ready, held.state, self._txn.now)
        if due or "due" in before:
            ops.append(("set", DUE, due) if due else ("delete", DUE))
        self._txn.patch(key, ops)
        if held.state != before["state"]:
            move(self._txn, key, held.machine, before["state"], held.state, held.expires)
        set_timers(self._txn, key, before.get("due", ()), due, held.expires)

    def _ordinal(self) -> list[int]:
        """Return what the next item ends in; see `machines_rows`."""
        self._count += 1
        return [self._count - 1] if self._count > 1 else []

    def _instance(self, key: bytes) -> _Held:
        held = self._held.get(key)
        if held is None:
            kept = self._txn.kept(key)
            if kept is None:
                raise no_instance(key)
            row, _, expires = kept
            held = _Held(row["machine"], row["machine_version"], row["state"], row["context"], row, expires)
            self._held[key] = held
        if held.is_deleted:
            raise no_instance(key)
        return held

    def _machine(self, name: str, version: int) -> _Known:
        found = self._known.get((name, version))
        if found is None:
            ready = tables(self._txn, machine_name(name), check_version(version))
            states = self._txn.get_path(definition_key(name, version), _STATES)
            found = self._known[name, version] = _Known(ready, frozenset(states))
        return found

    def _check(self, known: _Known, state: str, *values: Any) -> None:
        if state not in known.states:
            raise InvalidInput(f"the machine has no state {state!r}")
        if self._careful:
            for value in values:
                check(value, finite=True)


def _leads(ready: Compiled, held: _Held, event: str, to: str) -> bool:
    """Return whether an event takes an instance to a state."""
    for way in ready.ways.get((held.state, event), ()):
        if way.guard is None or way.guard(held.context):
            return way.to == to
    return False


def _made(steps: int, held: _Held) -> list[Any]:
    """Return what a row says that its commit did; see `machines_rows`.

    Of the newest payload only what has come into the context can be told.
    """
    *items, (event, source, payload, event_id, _, context, *ordinal) = held.items
    keys = None
    if payload is not None:
        keys = [name for name, value in payload.items() if same(context.get(name, ABSENT), value)]
    return [steps + len(held.items), *items, [event, source, keys, event_id, *ordinal]]


def _changes(old: Map, new: Map) -> Iterator[PatchOp]:
    """Yield what makes one context the other."""
    for name in old:
        if name not in new:
            yield "delete", ("context", name)
    for name, value in new.items():
        if name not in old or not same(old[name], value):
            yield "set", ("context", name), value
