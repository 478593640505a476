"""The model's writes: what was asked for, and what it makes of a row.

A write is kept as it was asked for and applied twice: at once to what its transaction sees, so that mistakes
are told there, and at the commit to what is newest then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strata.core import patches
from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.patches import ABSENT
from strata.core.protocols import ADD, KEEP, PATCH, PUT, PatchOp, Path
from strata.core.values import INT_MAX, INT_MIN, canonical, check, decode, encode
from strata.testing.history import WHOLE, Place, Row

GENESIS = bytes(32)


@dataclass(frozen=True, slots=True)
class Put:
    value: bytes
    ttl: int | None = None
    until: int | None = None  # or the instant that it expires at

    def apply(self, old: Any) -> tuple[Any, list[Path]]:
        return decode(self.value), [WHOLE]


@dataclass(frozen=True, slots=True)
class Delete:
    def apply(self, old: Any) -> tuple[Any, list[Path]]:
        return ABSENT, [WHOLE]


@dataclass(frozen=True, slots=True)
class Patch:
    ops: tuple[PatchOp, ...]
    touched: tuple[Path, ...]  # as its transaction saw it
    finite: bool

    def apply(self, old: Any) -> tuple[Any, list[Path]]:
        value, touched = patches.apply(old, self.ops)
        if value is not ABSENT:
            check(value, finite=self.finite)  # depth and size of the whole
        return value, touched


@dataclass(frozen=True, slots=True)
class Add:
    delta: int | float

    def apply(self, old: Any) -> tuple[Any, list[Path]]:
        if old is ABSENT:
            return self.delta, [WHOLE]
        if type(old) not in (int, float):
            raise InvalidInput("the value is not a number, so nothing can be added to it")
        if type(old) is not type(self.delta):
            raise InvalidInput("an int is added to an int and a float to a float", hint="convert one of them")
        total = old + self.delta
        if type(total) is int and not INT_MIN <= total <= INT_MAX:
            raise LimitExceeded(what="sum", limit=INT_MAX if total > 0 else INT_MIN, actual=total)
        return total, [WHOLE]


Write = Put | Delete | Patch | Add


def kind_of(writes: Sequence[Write]) -> int:
    """Return which kind of change the writes of one transaction to one key are together."""
    kinds = {type(write) for write in writes}
    return PATCH if kinds == {Patch} else ADD if kinds == {Add} else PUT


@dataclass(frozen=True, slots=True)
class Append:
    """An event at the end of a stream. The keys of a stream are `stream` and a sequence of 8 bytes."""

    space: str
    kind: str
    stream: bytes
    type: str
    value: bytes
    origin: bytes | None

    def place(self, sequence: int) -> Place:
        return self.space, self.kind, self.stream + sequence.to_bytes(8)

    def last(self, rows: Mapping[Place, Row]) -> tuple[int, int, bytes]:
        """Return the next sequence, and time and hash of the event before it."""
        mine = [
            place[2]
            for place in rows
            if place[:2] == (self.space, self.kind)
            and isinstance(place[2], bytes)
            and place[2].startswith(self.stream)
            and len(place[2]) == len(self.stream) + 8
        ]
        if not mine:
            return 0, 0, GENESIS
        stored = decode(rows[self.space, self.kind, max(mine)].value)
        return int.from_bytes(max(mine)[-8:]) + 1, stored[1] or 0, stored[3] or GENESIS

    def stored(self, sequence: int, time: int, previous: bytes) -> list[Any]:
        """Return the value of the event, chained to the one before."""
        origin = [] if self.origin is None else [decode(self.origin)]
        payload = decode(self.value)
        chained = canonical([previous, sequence, self.type, time, payload, *origin])
        return [self.type, time, payload, hashlib.sha256(chained).digest(), *origin]

    def pending(self) -> list[Any]:
        """Return how its own transaction sees it before the commit."""
        origin = [] if self.origin is None else [decode(self.origin)]
        return [self.type, None, decode(self.value), None, *origin]


def change(
    rows: dict[Place, Row], place: Place, write: Write, version: int, time: int, now: int
) -> list[Path]:
    """Make one write on `rows`; return the regions that it touched, none when nothing changed."""
    row = rows.get(place)
    if row is not None and not row.is_live(now):
        row = None
    value, touched = write.apply(ABSENT if row is None else decode(row.value))
    if value is ABSENT:
        if row is None:
            return []
        del rows[place]
        return touched
    rows[place] = Row(encode(value), version, time, _expiry(row, write, time))
    return touched


def _expiry(row: Row | None, write: Write, time: int) -> int | None:
    """Return when what a write makes of a row expires: a change inside goes on as it was, a put does not."""
    match write:
        case Put(_, _, until) if until is not None:
            return until
        case Put(_, ttl) if ttl is None or ttl != KEEP:
            return None if ttl is None else time + ttl
        case Patch(ops) if any(op[0] == "set" and op[1] == WHOLE for op in ops):
            return None
        case _:
            return None if row is None else row.expires
