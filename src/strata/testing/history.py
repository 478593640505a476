"""The model's history: every commit is a whole copy of what its branch holds.

    Line        one branch: the list of its points, beginning with those of the branch it was forked from
    Point       a branch as one commit left it, and what that commit touched
    rows        {(space, kind, key): Row}, the whole content
    touched     {(space, kind, key): paths}, the root alone where the whole value was written

Invariant: a point never changes once it is in a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from strata.core.errors import from_kernel
from strata.core.paths import overlap, render
from strata.core.protocols import (
    APPEND,
    PATCH,
    Commit,
    DiffRow,
    ErasureRow,
    HistoryRow,
    How,
    Kept,
    Key,
    Path,
    ReadRow,
    Written,
)
from strata.core.values import decode

Place = tuple[str, str, Key]  # space, kind, key
Note = tuple[str | None, str | None, str | None]
Touched = Mapping[Place, list[Path]]
WHOLE: Path = ()


class Row(NamedTuple):
    """What is under one key."""

    value: bytes  # MessagePack, so that nobody can change it from outside
    version: int
    time: int
    expires: int | None = None  # from then on it is not there, though it stays in `rows`

    def is_live(self, time: int) -> bool:
        return self.expires is None or time < self.expires


@dataclass(frozen=True, slots=True)
class Point:
    """A branch just after one commit. `line` and `note` are None where a branch was made."""

    version: int
    time: int
    rows: Mapping[Place, Row]
    spaces: frozenset[str]
    touched: Touched
    line: Line | None = None
    note: Note | None = None  # message, actor, cause
    kinds: Mapping[Place, int] = field(default_factory=dict)  # how each was changed
    reads: tuple[ReadRow, ...] = ()

    @property
    def commit(self) -> Commit | None:
        """The commit, under the name that its branch has now."""
        if self.line is None or self.note is None:
            return None
        return Commit(self.version, self.line.name, self.time, *self.note)


@dataclass(slots=True)
class Line:
    """A branch."""

    id: int
    name: str
    parent: Line | None
    fork_version: int | None
    created: int
    points: list[Point]
    deleted: bool = False
    sealed: str | None = None  # why it takes no writes
    protected: bool = False  # nor may be deleted or renamed
    results: dict[str, Point] = field(default_factory=dict)  # by idempotency key

    def check_writable(self) -> None:
        """Refuse to write to a branch that is sealed."""
        if self.sealed is not None:
            raise from_kernel("Protected", "", {"branch": self.name, "reason": self.sealed})

    def check_unprotected(self) -> None:
        if self.protected:
            self.check_writable()

    @property
    def newest(self) -> Point:
        return self.points[-1]

    def at(self, version: int) -> Point:
        """Return the newest point at or below `version`."""
        return [point for point in self.points if point.version <= version][-1]

    def forget(self, erasures: Sequence[ErasureRow]) -> None:
        """Take what `erasures` name out of all versions."""
        for index, point in enumerate(self.points):
            self.points[index] = replace(point, rows=without(point.rows, erasures))

    def history(self, place: Place, upto: int) -> list[HistoryRow]:
        """Return what became of one key, newest first."""
        found: list[HistoryRow] = []
        before: Row | None = None
        for point in self.points:
            row = point.rows.get(place)
            if point.version <= upto and row != before:
                found.append(
                    (None, point.version, point.time, True, None)
                    if row is None
                    else (decode(row.value), row.version, row.time, False, row.expires)
                )
            before = row
        return found[::-1]


def _is_erased(place: Place, erasures: Sequence[ErasureRow]) -> bool:
    space, kind, key = place
    encoded = key.encode() if isinstance(key, str) else key
    return any(
        wanted in (None, space)
        and of == kind
        and (encoded.startswith(start) if is_prefix else encoded == start)
        for wanted, of, start, is_prefix in erasures
    )


def without(rows: Mapping[Place, Row], erasures: Sequence[ErasureRow]) -> dict[Place, Row]:
    """Return what of `rows` is not erased."""
    return {place: row for place, row in rows.items() if not _is_erased(place, erasures)}


def live(rows: Mapping[Place, Row], time: int) -> dict[Place, Row]:
    """Return what of `rows` has not expired."""
    return {place: row for place, row in rows.items() if row.is_live(time)}


def key_bytes(key: Any) -> bytes:
    """Return a key as the kernel keeps it."""
    return key.encode() if isinstance(key, str) else bytes(key)


def since(points: Sequence[Point], others: Sequence[Point]) -> list[Point]:
    """Return those of `points` that are none of `others`: versions are given once."""
    known = {point.version for point in others}
    return [point for point in points if point.version not in known]


def how(points: Sequence[Point], place: Place) -> How:
    """Return how some points changed a key."""
    kinds, touched = 0, list[Path]()
    for point in points:
        kind = point.kinds.get(place, 0)
        kinds |= kind
        if kind == PATCH:
            touched += [path for path in point.touched[place] if path not in touched]
    return kinds, touched


def diff(old: Sequence[Point], new: Sequence[Point]) -> list[DiffRow]:
    """Return what differs in the newest of `new`."""
    before, after, added = old[-1].rows, new[-1].rows, since(new, old)
    appended = {place for point in (*old, *new) for place, kind in point.kinds.items() if kind == APPEND}
    rows = [
        (*place[:2], key_bytes(place[2]), kept(before, place), kept(after, place), how(added, place))
        for place in before.keys() | after.keys()
        if _differ(before.get(place), after.get(place), place in appended)
    ]
    return sorted(rows, key=lambda row: row[:3])


def _differ(one: Row | None, other: Row | None, is_appended: bool) -> bool:
    """Return whether two rows differ: in bytes, so that 1 is not 1.0. Two appends always do."""
    if one is None or other is None:
        return one is not other
    is_other = is_appended and one.version != other.version
    return is_other or (one.value, one.expires) != (other.value, other.expires)


def kept(rows: Mapping[Place, Row], place: Place) -> Kept | None:
    row = rows.get(place)
    return None if row is None else (decode(row.value), row.version, row.expires)


def writes(points: Sequence[Point]) -> list[Written]:
    """Return what the commits of `points` wrote."""
    found = [
        (
            point.version,
            *place[:2],
            key_bytes(place[2]),
            kind,
            *(kept(point.rows, place) or (None, 0, None))[::2],
        )
        for point in points
        for place, kind in point.kinds.items()
    ]
    return sorted(found, key=lambda row: row[:4])


EMPTY = Point(0, 0, {}, frozenset({"default"}), {})


class Range(NamedTuple):
    """A range of keys of one keyspace. None is unbounded."""

    space: str
    kind: str
    start: Any
    end: Any

    def holds(self, place: Place) -> bool:
        space, kind, key = place
        return (
            (space, kind) == (self.space, self.kind)
            and (self.start is None or key >= self.start)
            and (self.end is None or key < self.end)
        )


@dataclass(slots=True)
class Footprint:
    """What a transaction has read."""

    keys: set[Place] = field(default_factory=set)
    paths: set[tuple[Place, Path]] = field(default_factory=set)
    ranges: set[Range] = field(default_factory=set)

    def rows(self) -> tuple[ReadRow, ...]:
        """Return it as it is kept with a commit."""
        keys = [(*place[:2], key_bytes(place[2]), None, None, None) for place in self.keys]
        paths = [(*place[:2], key_bytes(place[2]), path, None, None) for place, path in self.paths]
        ranges = [
            (found.space, found.kind, None, None, key_bytes(found.start or b""), _bound(found.end))
            for found in self.ranges
        ]
        return (*keys, *paths, *ranges)


def _bound(key: Any) -> bytes | None:
    return None if key is None else key_bytes(key)


@dataclass(slots=True)
class Clashes:
    """Where commits that came first touched what a transaction relies on."""

    keys: set[Place] = field(default_factory=set)
    paths: set[tuple[Place, str, str]] = field(default_factory=set)
    ranges: set[Range] = field(default_factory=set)

    def add_reads(self, reads: Footprint, touched: Touched) -> None:
        """Whoever read what was touched read what is no longer so."""
        self.keys |= reads.keys & touched.keys()
        for place, path in reads.paths:
            if place not in reads.keys:
                self.add_paths(place, [path], touched)
        self.ranges |= {found for found in reads.ranges if any(map(found.holds, touched))}

    def add_paths(self, place: Place, ours: Iterable[Path], touched: Touched) -> None:
        theirs = touched.get(place, [])
        meet = {
            (place, render(one), render(other)) for one in ours for other in theirs if overlap(one, other)
        }
        self.paths |= meet

    def __bool__(self) -> bool:
        return bool(self.keys or self.paths or self.ranges)
