"""What creations, events and deletions do, each inside of one transaction.

All checks come before the first write, so a step that raises has written nothing. What was written by this
very transaction is told from what was there before by the history, which does not have it yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from strata.core.atomic import Source
from strata.core.errors import AlreadyExists, GuardFailed, InvalidTransition, UnexpectedState
from strata.core.ids import new_id
from strata.core.keys import check_int, check_key, check_name
from strata.core.protocols import Entry, PatchOp, Txn
from strata.core.staging import Source as Held
from strata.primitives.machines_definition import Compiled, check_version
from strata.primitives.machines_reads import newest, no_instance, tables
from strata.primitives.machines_rows import (
    KEY_TTL_US,
    Instance,
    Row,
    Transition,
    check_map,
    follows,
    given_key,
    gone_key,
    instance_key,
    instance_of,
    known_key,
    machine_name,
    once_key,
    ordinal_of,
    settled,
    span_of,
    state_prefix,
    timer_key,
    whole,
)

_STATE: Final = ("state",)
MADE: Final = ("made",)
EVENT_ID: Final = ("event_id",)
DUE: Final = ("due",)
Map = dict[str, Any]
# event, from, to, context, payload, event id, version, applied, ordinal: what a Transition has behind its
# instance
Made = tuple[str, str, str, Map, Map | None, str | None, int | None, bool, int]
_CREATE, _APPLY, _DELETE = "create", "apply", "delete"


class Creation(msgspec.Struct):
    """That an instance is to be made."""

    machine: str
    key: bytes | None
    context: dict[str, Any]
    version: int | None  # of the machine
    ttl_us: int | None
    recreate: bool
    once: str | None  # the idempotency key
    ordinal: int = 0  # in a batch, which of what that does

    def run(self, txn: Txn, beside: Source) -> tuple[Instance, bool]:
        """Return the instance, and whether it was made now."""
        found = self._earlier(txn)
        if found is not None:
            return found, False
        key = self.key or new_id(txn.now).encode()
        self._check_free(txn, key)
        version = newest(txn, self.machine) if self.version is None else self.version
        ready = tables(txn, self.machine, version)
        initial, now = ready.initial, txn.now
        row: Row = {
            "machine": self.machine,
            "machine_version": version,
            "state": initial,
            "context": self.context,
            "created": now,
            "made": [0, [None, None, None, None, *([self.ordinal] if self.ordinal else [])]],
        }
        if self.once is not None and self.key is None:
            row["given_by"] = self.once
        if initial in ready.timers:
            row["due"] = due_in(ready, initial, now)
        held = _acted(ready, beside, txn, key, self.machine, self.context, (None, None, initial))
        txn.put_many([(key, row), *((follower, None) for follower in follows(key, row))], self.ttl_us)
        open_spans(txn, [timer_key(due, key, event) for due, event in row.get("due", ())])
        if self.once is not None:
            txn.put(once_key(key, _CREATE, self.once), row, KEY_TTL_US)
            if self.key is None:
                txn.put(given_key(self.machine, self.once), key, KEY_TTL_US)
        if held is not None:
            held.pass_on()
        expires = None if self.ttl_us is None else now + self.ttl_us
        return instance_of(key, row, None, now, expires), True

    def _earlier(self, txn: Txn) -> Instance | None:
        """Return what an earlier call with the same idempotency key has made."""
        if self.once is None:
            return None
        key = self.key or txn.get(given_key(self.machine, self.once))
        found = None if key is None else _result(txn, key, _CREATE, self.once)
        return None if found is None else instance_of(key, found[0], found[1], found[2], None)

    def _check_free(self, txn: Txn, key: bytes) -> None:
        """Raise AlreadyExists where the id that was given is taken."""
        if self.key is None:
            return
        if txn.contains(key):
            raise AlreadyExists(
                what="instance", name=key.decode(), hint="delete it first, or take another id"
            )
        if not self.recreate and txn.history(key, None, 1):
            hint = "recreate=True lets it be made again"
            raise AlreadyExists("the instance was deleted", what="instance", name=key.decode(), hint=hint)


class Application(msgspec.Struct):
    """That an event is to be applied to an instance."""

    key: bytes
    event: str
    payload: dict[str, Any] | None
    expected_state: str | None = None
    expected_version: int | None = None
    event_id: str | None = None
    once: str | None = None
    is_first: bool = False  # whether the transaction is of this alone
    ordinal: int = 0  # in a batch, which of what that does

    def run(self, txn: Txn, beside: Source) -> Made:
        """Return the fields of the transition, of which `applied` says whether it was made now."""
        key, payload = self.key, self.payload
        if self.once is not None:
            found = _result(txn, key, _APPLY, self.once)
            if found is not None:
                return _replayed(*found[:2])
        kept = txn.kept(key)
        if kept is None:
            raise no_instance(key)
        row, version, expires = kept
        event, state, context, machine = self.event, row["state"], row["context"], row["machine"]
        was_own = not self.is_first and version == txn.version and is_own(txn, key, row)
        if self.expected_state is not None or self.expected_version is not None:
            self._check_expected(state, None if was_own else version)
        ready = tables(txn, machine, row["machine_version"])
        for way in ready.ways.get((state, event), ()):
            if way.guard is None or way.guard(context):
                to = way.to
                break
        else:
            raise _refused(ready, state, event)
        item = [event, state, None if payload is None else list(payload), self.event_id]
        if self.ordinal:
            item.append(self.ordinal)
        made = [row["made"][0] + 1, *settled(row), item] if was_own else [row["made"][0] + 1, item]
        ops: list[PatchOp] = [("set", MADE, made)]
        if payload:
            ops += [("set", ("context", name), value) for name, value in payload.items()]
            context = context | payload
        if to != state:
            ops.append(("set", _STATE, to))
        if "event_id" in row:
            ops.append(("delete", EVENT_ID))
        if ready.is_plain and "due" not in row:
            txn.patch(key, ops)
        else:
            self._patch_more(txn, beside, ready, row, context, to, expires, ops)
        if to != state:
            move(txn, key, machine, state, to, expires)
        if self.once is not None:
            txn.put(once_key(key, _APPLY, self.once), whole(item, to, context), KEY_TTL_US)
        return event, state, to, context, payload, self.event_id, None, True, self.ordinal

    def _patch_more(
        self,
        txn: Txn,
        beside: Source,
        ready: Compiled,
        row: Row,
        context: Map,
        to: str,
        expires: int | None,
        ops: list[PatchOp],
    ) -> None:
        """Patch an instance of a machine that has timers or actions, and carry these out."""
        due = due_in(ready, to, txn.now)
        if due or "due" in row:
            ops.append(("set", DUE, due) if due else ("delete", DUE))
        held = _acted(ready, beside, txn, self.key, row["machine"], context, (self.event, row["state"], to))
        txn.patch(self.key, ops)
        set_timers(txn, self.key, row.get("due", ()), due, expires)
        if held is not None:
            held.pass_on()

    def _check_expected(self, state: str, version: int | None) -> None:
        for what, expected, actual in (
            ("state", self.expected_state, state),
            ("version", self.expected_version, version),
        ):
            if expected is not None and expected != actual:
                raise UnexpectedState(
                    f"instance {self.key.decode()!r}: its {what} is {actual!r}, not {expected!r}",
                    what=what,
                    expected=expected,
                    actual=actual,
                )


class Deletion(msgspec.Struct):
    """That an instance is to be deleted."""

    key: bytes
    once: str | None = None
    ordinal: int | None = None  # in a batch, which of what that does

    def run(self, txn: Txn, beside: Source) -> tuple[int | None, bool, int]:
        """Return which commit deleted it before (None: this one), whether it is deleted now, its ordinal."""
        key = self.key
        if self.once is not None:
            found = _result(txn, key, _DELETE, self.once)
            if found is not None:
                return found[1], False, found[0] or 0
        row = txn.get(key)
        if row is None:
            return self._gone(txn)
        txn.delete_many([key, *follows(key, row)])
        if self.ordinal is not None:
            txn.put(gone_key(key), [self.ordinal, _was_there(txn, key)], KEY_TTL_US)
        if self.once is not None:
            txn.put(once_key(key, _DELETE, self.once), self.ordinal, KEY_TTL_US)
        return None, True, self.ordinal or 0

    def _gone(self, txn: Txn) -> tuple[int | None, bool, int]:
        """Return what `run` does of what is not there. A second deletion is no error."""
        key, place = self.key, gone_key(self.key)
        for _, version, _, is_deleted, expires in txn.history(key, None, 1):
            if is_deleted:
                last = txn.history(place, version + 1, 1)
                return version, False, last[0][0][0] if last and last[0][1] == version else 0
            if expires is None or expires > txn.now:
                break  # this very transaction
        else:
            if not txn.contains(place):  # nor made and deleted by one batch
                raise no_instance(key)
        return None, False, txn.get_path(place, (0,), 0)


def creation(
    machine: str,
    id: str | None = None,
    context: dict[str, Any] | None = None,
    version: int | None = None,
    ttl_us: int | None = None,
    recreate: bool = True,
    idempotency_key: str | None = None,
) -> Creation:
    """Return the creation with these arguments.

    Raises: InvalidInput; LimitExceeded.
    """
    machine_name(machine)
    if version is not None:
        check_version(version)
    key = None if id is None else instance_key(id)
    given = check_map(context, "context")
    return Creation(
        machine, key, {} if given is None else {**given}, version, ttl_us, recreate, _once(idempotency_key)
    )


def application(
    id: str,
    event: str,
    payload: dict[str, Any] | None = None,
    expected_state: str | None = None,
    expected_version: int | None = None,
    event_id: str | None = None,
    idempotency_key: str | None = None,
) -> Application:
    """Return the application with these arguments.

    Raises: InvalidInput; LimitExceeded.
    """
    key = known_key(id)
    if type(event) is not str:
        check_name(event, "event")
    if payload is not None:
        check_map(payload, "payload")
    if expected_state is not None:
        check_name(expected_state, "state", reserved=True)
    if expected_version is not None:
        check_int(expected_version, "expected_version")
    if event_id is not None:
        check_key(event_id)
    return Application(
        key,
        event,
        payload,
        expected_state,
        expected_version,
        event_id,
        None if idempotency_key is None else _once(idempotency_key),
    )


def deletion(id: str, idempotency_key: str | None = None) -> Deletion:
    """Return the deletion with these arguments.

    Raises: InvalidInput; LimitExceeded.
    """
    return Deletion(instance_key(id), _once(idempotency_key))


def transition_of(id: str, made: Made, at: int | None) -> Transition:
    """Return what an application did, with the version of its commit."""
    event, source, to, context, payload, event_id, version, applied, ordinal = made
    found = at if applied else version
    return Transition(id, event, source, to, context, payload, event_id, found, applied, None, ordinal)


def _was_there(txn: Txn, key: bytes) -> bool:
    """Return whether a row was there before this very transaction."""
    before = txn.history(key, None, 1)
    return bool(before) and not before[0][3]


def _once(key: str | None) -> str | None:
    return None if key is None else check_key(key)


def _refused(ready: Compiled, state: str, event: str) -> InvalidTransition:
    """Return why an event leads nowhere: there is no way, or no guard lets it pass."""
    ways = ready.ways.get((state, event), ())
    if ways:
        return GuardFailed(from_=state, event=event, guards=[way.text or "" for way in ways])
    known = sorted(event for source, event in ready.ways if source == state)
    hint = f"from {state!r}: {', '.join(known) or 'no event, it is final'}"
    message = f"state {state!r} takes no event {event!r}"
    return InvalidTransition(message, from_=state, event=event, hint=hint)


def move(txn: Txn, key: bytes, machine: str, state: str, to: str, expires: int | None) -> None:
    """Move the row by which an instance is found by state."""
    if expires is None:
        txn.put(state_prefix(machine, to) + key, None)
    else:
        txn.put_until(state_prefix(machine, to) + key, None, expires)
    txn.delete(state_prefix(machine, state) + key)


def due_in(ready: Compiled, state: str, now: int) -> list[list[Any]]:
    """Return the timers that are set when a state is entered."""
    return [[now + after_us, event] for after_us, event in ready.timers.get(state, ())]


def set_timers(txn: Txn, key: bytes, old: Sequence[Any], new: Sequence[Any], expires: int | None) -> None:
    """Exchange the rows of the timers of an instance."""
    rows = [timer_key(due, key, event) for due, event in new]
    gone = [timer_key(due, key, event) for due, event in old]
    txn.delete_many([row for row in gone if row not in rows])
    for row in rows:
        txn.put_until(row, None, expires)
    open_spans(txn, rows)


def open_spans(txn: Txn, timers: Sequence[bytes]) -> None:
    """Say that there may be timers where these are due. It is said blindly, so that nobody waits for it."""
    for span in {span_of(timer): None for timer in timers}:
        txn.put(span, None)


def _acted(
    ready: Compiled,
    beside: Source,
    txn: Txn,
    key: bytes,
    machine: str,
    context: Map,
    step: tuple[str | None, str | None, str],
) -> Held | None:
    """Return what the actions of a step write, held back until nothing can fail any more."""
    event, source, to = step
    actions = (*(ready.exit.get(source, ()) if source else ()), *ready.enter.get(to, ()))
    if not actions:
        return None
    held, space = Held(beside), txn.names[1]
    named = {"id": key.decode(), "machine": machine, "event": event, "from": source, "to": to}
    for action in actions:
        action.run(held, space, {"ctx": context, **named})
    return held


def is_own(txn: Txn, key: bytes, row: Row) -> bool:
    """Return whether a row was written by this very transaction."""
    before = txn.history(key, None, 1)
    if not before or before[0][3]:
        return True
    old = before[0][0]
    return bool(old["made"][0] != row["made"][0] or old["created"] != row["created"])


def _result(txn: Txn, key: bytes, op: str, once: str) -> tuple[Any, int | None, int] | None:
    """Return what was kept of a call with an idempotency key, and the version and time of its commit."""
    place = once_key(key, op, once)
    found: Entry | None = txn.entry(place)
    if found is None:
        return None
    value, version, time, _ = found
    is_pending = version == txn.version and not txn.history(place, None, 1)
    return value, None if is_pending else version, time


def _replayed(value: Sequence[Any], version: int | None) -> Made:
    """Return the fields of the transition that an earlier call has made."""
    event, source, payload, event_id, to, context, *_ = value
    return event, source, to, context, payload, event_id, version, False, ordinal_of(value)
