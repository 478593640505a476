"""Timers: events that come by themselves after a time in a state.

    {"state": name or [name, ...], "after": seconds, "event": name}

A timer is set when an instance enters the state (by any transition, also one that leads back into it), and
goes when it leaves. Timers fire when somebody asks (`fire_due`), in order of the instants at which they were
due, each in a commit of its own that also takes the timer away: so each fires once, whoever asks, and a crash
leaves it either fired or still to come. One whose event finds no way, or is refused since an action cannot be
done, is taken away without effect: else it would be in the way of all that come after it, for ever.

Rows of timers that went stay in the history, before all that are to come. So that nobody steps over them
again and again, spans of 72 minutes are kept: one that is past and has no timers goes, in a commit that has
looked at the whole span, and one in which a timer is set comes, in the commit that sets it. Invariant: a
timer is in a span that is there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, cast

import msgspec

from strata.core.atomic import Source, atomically
from strata.core.clock import to_datetime
from strata.core.errors import AlreadyExists, InvalidInput, InvalidTransition, LimitExceeded
from strata.core.protocols import PatchOp, Txn
from strata.primitives.machines_rows import (
    SPANS,
    TIMERS,
    Row,
    Transition,
    span_of,
    timer_key,
    timer_of,
    timers_until,
)
from strata.primitives.machines_steps import DUE, EVENT_ID, MADE, Application, Made, is_own, transition_of

_PAGE: Final = 1000
# What an event may meet that would meet it again. All else (a disk that is full) is no fault of the timer.
_REFUSALS: Final = (InvalidTransition, InvalidInput, LimitExceeded, AlreadyExists)


class Fired(msgspec.Struct, frozen=True):
    """A timer that was due. `transition` is None where its event found no way, or was refused."""

    instance: str
    event: str
    due_us: int
    transition: Transition | None
    refused: str | None = (
        None  # why, by the code of the error: no way, a guard, an action that cannot be done
    )

    @property
    def due(self) -> datetime:
        """When it was due, in UTC."""
        return to_datetime(self.due_us)


def fire_due(txn: Txn, beside: Source, limit: int | None) -> list[Fired]:
    """Fire the timers that are due now, at most `limit`; return what they did."""
    now, found = txn.now, list[Fired]()
    behind = span_of(timers_until(now))
    for span in cast("list[bytes]", txn.scan_keys(SPANS, None, behind + b"\0", False, None)):
        _fire_in(span, txn, beside, timers_until(now), limit, found)
        if limit is not None and len(found) >= limit:
            break
        if span < behind and txn.mode != "view":
            atomically(txn, lambda txn, span=span: _close(txn, span))
    return found


def next_due(txn: Txn) -> datetime | None:
    """Return when the next timer is due."""
    for span in cast("list[bytes]", txn.scan_keys(SPANS, None, None, False, None)):
        keys = cast("list[bytes]", txn.scan_keys(_timers_in(span), None, None, False, 1))
        if keys:
            return to_datetime(timer_of(keys[0])[0])
    return None


def _timers_in(span: bytes) -> bytes:
    """Return what the keys of the timers of a span begin with."""
    return TIMERS + span[len(SPANS) :]


def _fire_in(
    span: bytes, txn: Txn, beside: Source, end: bytes, limit: int | None, found: list[Fired]
) -> None:
    """Fire the timers of a span that are due before `end`, until `found` has `limit`."""
    while limit is None or len(found) < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - len(found))
        keys = cast("list[bytes]", txn.scan_keys(_timers_in(span), None, end, False, size))
        found += filter(None, (_fire(txn, beside, key) for key in keys))
        if len(keys) < size:
            break


def _close(txn: Txn, span: bytes) -> None:
    """Let go of a span that is past and has no timers. A new one in it, also at once, opens it again."""
    if not txn.scan_keys(_timers_in(span), None, None, False, 1):
        txn.delete(span)


def _fire(txn: Txn, beside: Source, key: bytes) -> Fired | None:
    """Fire one timer; None when somebody else has."""
    due, id, event = timer_of(key)
    is_first = txn.mode == "automatic"

    def apply(txn: Txn, beside: Source) -> Made | None:
        if not txn.contains(key):
            return None
        return Application(id, event, None, is_first=is_first).run(txn, beside)

    def drop(txn: Txn) -> bool:
        is_there = txn.contains(key)
        if is_there:
            _drop(txn, id, due, event)
        return is_there

    try:
        made, at = atomically(txn, apply, beside=beside)
    except _REFUSALS as error:
        is_ours, _ = atomically(txn, drop)
        return Fired(id.decode(), event, due, None, error.code) if is_ours else None
    return None if made is None else Fired(id.decode(), event, due, transition_of(id.decode(), made, at))


def _drop(txn: Txn, id: bytes, due: int, event: str) -> None:
    """Take away a timer that has no effect. What the row said of another commit, it says no more."""
    kept = txn.kept(id)
    assert kept is not None, "timers go with their instance"
    row: Row = kept[0]
    left = [timer for timer in row["due"] if timer != [due, event]]
    ops: list[PatchOp] = [("set", DUE, left) if left else ("delete", DUE)]
    steps, *items = row["made"]
    if items and not (kept[1] == txn.version and is_own(txn, id, row)):
        ops.append(("set", MADE, [steps]))
        if items[-1][3] is not None:
            ops.append(("set", EVENT_ID, items[-1][3]))
    txn.patch(id, ops)
    txn.delete(timer_key(due, id, event))
