"""Diff: what differs between two states, thing by thing, as users know the things.

The kernel gives the rows that differ, at the cost of what changed since the two states parted. Here rows
become changes: a document is compared by path, the events of a stream come as ranges, and rows that only
follow from others are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Final

from strata.core.changes import Change
from strata.core.errors import InvalidInput
from strata.core.keys import check_name
from strata.core.protocols import DiffRow, Snapshot
from strata.primitives import PRIMITIVES
from strata.primitives.base import PAGE_ROWS, Primitive


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


def rows(
    old: Snapshot, new: Snapshot, limits: Limits = ALL
) -> Iterator[tuple[type[Primitive], list[DiffRow]]]:
    """Yield the rows that differ, of things that users know, by space, primitive and key.

    In pages, each of one primitive and space.
    """
    diff = old.diff(new)
    while page := diff.page(PAGE_ROWS):
        for (space, kind), group in groupby(page, key=itemgetter(0, 1)):
            primitive = PRIMITIVES.get(kind)
            if primitive is None or space.startswith("_"):
                continue
            if limits or primitive._DERIVES:
                found = [row for row in group if _is_wanted(primitive, row, limits)]
            else:
                found = list(group)
            if found:
                yield primitive, found


def _is_wanted(primitive: type[Primitive], row: DiffRow, limits: Limits) -> bool:
    name = primitive._name(row[2])
    return name is not None and limits.hold(row[0], row[1], primitive._thing(row[2], name))


def joined(
    pages: Iterable[tuple[type[Primitive], list[DiffRow]]],
) -> Iterator[tuple[type[Primitive], Iterator[DiffRow]]]:
    """Yield the rows of one primitive and space together, however many pages they are on."""
    for (primitive, _), group in groupby(pages, key=lambda page: (page[0], page[1][0][0])):
        yield primitive, chain.from_iterable(page[1] for page in group)


class Diff:
    """What differs between two states: iterate over it, as often as you like.

    Cost: what changed in both since they parted; it is read while you iterate.
    """

    def __init__(self, old: Snapshot, new: Snapshot, limits: Limits = ALL) -> None:
        self._old, self._new, self._limits = old, new, limits

    def __iter__(self) -> Iterator[Change]:
        for primitive, found in joined(rows(self._old, self._new, self._limits)):
            yield from primitive._diff(found)

    def __bool__(self) -> bool:
        return next(rows(self._old, self._new, self._limits), None) is not None

    def to_list(self) -> list[Change]:
        """Return all changes."""
        return list(self)

    def __repr__(self) -> str:
        sides = [f"{side.name!r} at {side.version}" for side in (self._old, self._new)]
        return f"<Diff from {sides[0]} to {sides[1]}>"
