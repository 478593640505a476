"""Diff: what differs between two states, thing by thing, as users know the things.

The kernel gives the rows that differ, at the cost of what changed since the two states parted. Here rows
become changes: a document is compared by path, the events of a stream come as ranges, and rows that only
follow from others are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from strata.core.errors import InvalidInput
from strata.core.keys import check_name
from strata.core.paths import parse
from strata.core.protocols import DiffRow, Snapshot
from strata.core.refs import EntityRef
from strata.primitives import PRIMITIVES
from strata.primitives.base import PAGE_ROWS, Primitive, What


@dataclass(frozen=True, slots=True)
class Change:
    """One thing, or one place inside a document, that differs.

    Of events, `key` is the stream, `start` the first sequence and `new` (or `old`) a list of events.
    """

    what: What
    space: str
    primitive: str
    key: str
    path: str | None = None  # inside a document
    old: Any = None
    new: Any = None
    start: int | None = None
    old_version: int | None = None  # of the commits that wrote them
    new_version: int | None = None

    def ref(self, branch: str) -> EntityRef:
        """Return the address of the thing on a branch: of events, that of the first."""
        key = self.key if self.start is None else f"{self.key}/{self.start}"
        path = None if self.path is None else parse(self.path)
        return EntityRef(branch, self.space, self.primitive, key, path)


@dataclass(frozen=True)
class Limits:
    """Which things are looked at: all, or those of one space, primitive, or whose names begin so."""

    space: str | None = None
    primitive: str | None = None
    prefix: str | None = None
    things: frozenset[tuple[str, str, str]] | None = None  # space, primitive, name

    def __post_init__(self) -> None:
        if self.space is not None:
            check_name(self.space, "space")
        if self.primitive is not None and self.primitive not in PRIMITIVES:
            raise InvalidInput(
                f"there is no primitive {self.primitive!r}", hint=f"one of {', '.join(PRIMITIVES)}"
            )
        if self.prefix is not None and type(self.prefix) is not str:
            raise InvalidInput(f"a prefix is a str, not {type(self.prefix).__name__}")

    def __bool__(self) -> bool:
        return (self.space, self.primitive, self.prefix, self.things) != (None, None, None, None)

    def hold(self, space: str, primitive: str, name: str) -> bool:
        """Return whether a thing is looked at."""
        return (
            self.space in (None, space)
            and self.primitive in (None, primitive)
            and (self.prefix is None or name.startswith(self.prefix))
            and (self.things is None or (space, primitive, name) in self.things)
        )


ALL: Final = Limits()


def rows(old: Snapshot, new: Snapshot, limits: Limits = ALL) -> Iterator[DiffRow]:
    """Yield the rows that differ, of things that users know, by space, primitive and key."""
    diff = old.diff(new)
    while page := diff.page(PAGE_ROWS):
        for row in page:
            space, kind, key = row[:3]
            primitive = PRIMITIVES.get(kind)
            if primitive is None or space.startswith("_"):
                continue
            name = primitive._name(key)
            if name is not None and limits.hold(space, kind, primitive._thing(key, name)):
                yield row


class Diff:
    """What differs between two states: iterate over it, as often as you like.

    Cost: what changed in both since they parted; it is read while you iterate.
    """

    def __init__(self, old: Snapshot, new: Snapshot, limits: Limits = ALL) -> None:
        self._old, self._new, self._limits = old, new, limits

    def __iter__(self) -> Iterator[Change]:
        found = rows(self._old, self._new, self._limits)
        for (space, kind), group in groupby(found, key=lambda row: row[:2]):
            yield from changes_of(space, kind, group)

    def __bool__(self) -> bool:
        return next(rows(self._old, self._new, self._limits), None) is not None

    def to_list(self) -> list[Change]:
        """Return all changes."""
        return list(self)

    def __repr__(self) -> str:
        sides = [f"{side.name!r} at {side.version}" for side in (self._old, self._new)]
        return f"<Diff from {sides[0]} to {sides[1]}>"


def changes_of(space: str, kind: str, rows: Iterable[DiffRow]) -> Iterator[Change]:
    """Yield the changes that the rows of one primitive and space are."""
    primitive: type[Primitive] = PRIMITIVES[kind]
    for piece in primitive._diff(rows):
        yield Change(piece[0], space, kind, *piece[1:])
