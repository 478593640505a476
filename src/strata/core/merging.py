"""Merging one key: what a primitive is asked, and what it answers.

Three states meet: `base`, which both sides come from, `ours` (of the branch that takes the merge) and
`theirs`. A primitive answers with writes that bring theirs into ours, and with clashes: places that both
sides changed, each in its own way. Its rule stands beside its layout (`Primitive._merge`), so a new one
brings its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from strata.core.patches import ABSENT
from strata.core.protocols import How, Kept, PatchOp, Path
from strata.core.values import same

NO_CHANGE: Final[How] = (0, [])


class Put(msgspec.Struct, frozen=True):
    """Store a value that expires at an instant (None: never)."""

    value: Any
    expires: int | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove the key."""


class Patch(msgspec.Struct, frozen=True):
    """Change inside the value."""

    ops: list[PatchOp]


class Add(msgspec.Struct, frozen=True):
    """Add to the number."""

    delta: int | float


Write = Put | Delete | Patch | Add


@dataclass(frozen=True, slots=True)
class Clash:
    """A place that both sides changed, each in its own way. ABSENT stands where there is nothing."""

    path: Path | None  # None: the whole value
    base: Any
    ours: Any
    theirs: Any
    take_theirs: Write
    take: Callable[[Any], Write]  # which makes it this value, ABSENT being nothing


class Merged(msgspec.Struct):
    """What becomes of one key."""

    writes: list[Write] = []
    clashes: list[Clash] = []


class Three(msgspec.Struct, frozen=True):
    """One key in three states, and how each side came to its own since the base."""

    base: Kept | None
    ours: Kept | None
    theirs: Kept | None
    how_theirs: How
    how_ours: Callable[[], How]  # asked only where both sides differ from the base
    # Whether each side comes from the base by commits alone, so that `how` says what it did since, no more.
    is_line_theirs: bool = True
    is_line_ours: bool = True


def alike(one: Kept | None, other: Kept | None) -> bool:
    """Return whether two rows are the same: value, and when it expires."""
    if one is None or other is None or one is other:
        return one is other
    return one[2] == other[2] and same(one[0], other[0])


def value_of(kept: Kept | None) -> Any:
    """Return the value of a row, ABSENT where there is none."""
    return ABSENT if kept is None else kept[0]


def taken(kept: Kept | None) -> Write:
    """Return the write that makes a key what it is on the other side."""
    return Delete() if kept is None else Put(kept[0], kept[2])


def settled(three: Three) -> Merged | None:
    """Return what becomes of a key that one side changed, or both alike; None where that is not so."""
    if alike(three.theirs, three.ours) or alike(three.theirs, three.base):
        return Merged()
    return Merged([taken(three.theirs)]) if alike(three.ours, three.base) else None


def merge_keys(three: Three) -> Merged:
    """Return what becomes of a key whose value is a whole: where both sides changed it, they clash."""
    found = settled(three)
    return clash(three) if found is None else found


def clash(three: Three) -> Merged:
    """Return that both sides changed the whole of a value."""
    values = value_of(three.base), value_of(three.ours), value_of(three.theirs)
    return Merged(clashes=[Clash(None, *values, taken(three.theirs), _made)])


def _made(value: Any) -> Write:
    return Delete() if value is ABSENT else Put(value)
