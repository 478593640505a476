"""Merging JSON documents by path: the rules of concurrent transactions, between branches.

A side *touches* regions, as patches do (`core.patches`): siblings do not meet; a path meets itself, its
ancestors and its descendants; the root meets all; a structural change of a list meets every path through
that list. Where no region of theirs meets one of ours, theirs goes in. Where they meet, what came out
decides: what one side left as it was is taken from the other, and what both made alike is no clash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from strata.core.merging import (
    Clash,
    Merged,
    Patch,
    Three,
    Write,
    alike,
    merge_keys,
    settled,
    taken,
    value_of,
)
from strata.core.patches import ABSENT, get_path, outermost
from strata.core.paths import overlap
from strata.core.protocols import PATCH, How, PatchOp, Path
from strata.core.values import same

ROOT: Path = ()


def merge(three: Three) -> Merged:
    """Return what becomes of a document that theirs changed."""
    is_patched = three.theirs is not None and (three.how_theirs[0] == PATCH or not three.is_line_theirs)
    found = None if is_patched and not alike(three.theirs, three.base) else settled(three)
    if found is not None:
        return found
    base, ours, theirs = value_of(three.base), value_of(three.ours), value_of(three.theirs)
    expires = [None if row is None else row[2] for row in (three.base, three.ours, three.theirs)]
    if expires[2] not in (expires[0], expires[1]):
        return merge_keys(three)  # when it expires is said of the whole
    yours = [] if alike(three.ours, three.base) else regions(base, ours, three.how_ours(), three.is_line_ours)
    merged, ops, met = Merged(), list[PatchOp](), set[Path]()
    for region in regions(base, theirs, three.how_theirs, three.is_line_theirs):
        meeting = [other for other in yours if overlap(region, other)]
        place = min([region, *meeting], key=len)
        values = [get_path(value, place, ABSENT) for value in (base, ours, theirs)]
        if not meeting or _is_same(values[0], values[1]):
            ops += _op(region if not meeting else place, theirs)
        elif place not in met and not _is_same(values[0], values[2]) and not _is_same(values[1], values[2]):
            met.add(place)
            if place == ROOT:
                return merge_keys(three)
            was, mine, other = values
            merged.clashes.append(Clash(place, was, mine, other, Patch(_op(place, theirs)), _taker(place)))
    whole = [op for op in ops if op[1] == ROOT]
    if whole:
        return Merged([taken(three.theirs)])
    if ops:
        merged.writes.append(Patch(ops))
    return merged


def regions(before: Any, after: Any, how: How, is_line: bool) -> list[Path]:
    """Return the outermost places that a side touched; where merges came in between, those that differ."""
    kinds, touched = how
    if before is ABSENT or after is ABSENT:
        return outermost(touched) if kinds == PATCH and is_line and after is not ABSENT else [ROOT]
    if not is_line:
        return outermost(differences(before, after))
    if kinds == PATCH:
        return outermost(touched)
    return [ROOT]


def differences(before: Any, after: Any, at: Path = ROOT) -> Iterable[Path]:
    """Yield the places where two values differ: inside maps and lists of one length, else the whole."""
    if type(before) is dict and type(after) is dict:
        for key in dict.fromkeys((*before, *after)):
            yield from differences(before.get(key, ABSENT), after.get(key, ABSENT), (*at, key))
    elif type(before) is list and type(after) is list and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, (*at, index))
    elif not _is_same(before, after):
        yield at


def _is_same(one: Any, other: Any) -> bool:
    return one is other if one is ABSENT or other is ABSENT else same(one, other)


def _op(place: Path, document: Any) -> list[PatchOp]:
    """Return the operation that makes a place what it is in a document."""
    value = get_path(document, place, ABSENT)
    return [("delete", place)] if value is ABSENT else [("set", place, value)]


def _taker(place: Path) -> Callable[[Any], Write]:
    return lambda value: Patch([("delete", place) if value is ABSENT else ("set", place, value)])
