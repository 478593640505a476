"""State: named cells with a counter, for what changes step by step and must not be changed twice.

    key    name of the cell, as UTF-8
    value  [counter, value]

Invariant: the counter of a cell starts at 1 and rises by 1 with each write. It goes on after a deletion
(from the tombstone in the history, as far as that is kept), so a counter once read never comes back with
another value behind it. It goes on after a cell expired, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from strata.core.atomic import atomically
from strata.core.clock import Ttl, to_datetime, to_expiry, ttl_micros
from strata.core.errors import AlreadyExists, conflict
from strata.core.keys import check_int
from strata.core.merging import Clash, Delete, Merged, Put, Three, Write, settled
from strata.core.patches import ABSENT
from strata.core.protocols import KEEP, PUT, Kept, Layout, Path, Txn
from strata.core.values import same, text_of
from strata.primitives.base import MISSING, Primitive

_VALUE: Final = (1,)
_COUNTER: Final = (0,)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell as one commit left it. In a history `deleted` marks a deletion, without value and counter."""

    value: Any
    counter: int
    version: int
    timestamp: datetime  # aware, UTC
    deleted: bool = False
    expires: datetime | None = None  # from then on there is no cell; None is never


Cells = list[Cell]  # a name of its own, since `State.list` hides the builtin inside the class


class State(Primitive):
    """The state cells of one branch and space."""

    LAYOUT: ClassVar[Layout] = Layout("state")
    _VERBS: ClassVar[dict[int, str]] = {**Primitive._VERBS, PUT: "set"}

    _VALUE: ClassVar[Path] = _VALUE
    _TEXTS: ClassVar[dict[str, Path]] = {"text": _VALUE}

    __slots__ = ()

    @classmethod
    def _shown(cls, key: bytes, value: Any, version: int, time: int, expires: int | None) -> Cell:
        return _cell(value, version, time, False, expires)

    @classmethod
    def _line(cls, shown: Cell) -> str:
        return f"{text_of(shown.value)} (counter {shown.counter})"

    @classmethod
    def _bare(cls, key: bytes, kept: Kept) -> Any:
        return kept[0][1]

    @classmethod
    def _merge(cls, three: Three) -> Merged:
        """Where both sides set the cell to other values they clash. Whoever wins, the counter goes on."""
        found = settled(three)
        if found is not None:
            return found
        rows = (three.base, three.ours, three.theirs)
        base, ours, theirs = (ABSENT if row is None else row[0][1] for row in rows)
        if ours is not ABSENT and theirs is not ABSENT and same(ours, theirs):
            return Merged()
        counter = 1 + max(row[0][0] for row in rows if row is not None)

        def take(value: Any, expires: int | None = None) -> Write:
            return Delete() if value is ABSENT else Put([counter, value], expires)

        expires = None if three.theirs is None else three.theirs[2]
        return Merged(clashes=[Clash(None, base, ours, theirs, take(theirs, expires), take)])

    def init(self, name: str, value: Any, ttl: Ttl | None = None) -> int | None:
        """Make the cell `name`; return the version of the commit.

        Args:
            ttl: how long after the commit the cell expires and is gone, in seconds or as a timedelta; None is
                never.
        Raises: AlreadyExists when there is one.
        """
        ttl_us = None if ttl is None else ttl_micros(ttl)

        def make(txn: Txn) -> None:
            if txn.contains(name):
                raise AlreadyExists(what="state cell", name=name, hint="use set, or cas with its counter")
            txn.put(name, [_next(txn, name), value], ttl_us)

        return atomically(self._txn, make)[1]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of the cell `name`, or `default`."""
        value = self._txn.get_path(name, _VALUE, MISSING)
        if value is MISSING:
            self._check_space()
            return default
        return value

    def entry(self, name: str) -> Cell | None:
        """Return the cell `name` with its counter, version and time, and when it expires; or None.

        A cell written in this very transaction has no commit yet: version and time are the snapshot's.
        """
        found = self._txn.entry(name)
        if found is None:
            self._check_space()
            return None
        (counter, value), version, time, expires = found
        return Cell(value, counter, version, to_datetime(time), False, to_expiry(expires))

    def exists(self, name: str) -> bool:
        """Return whether there is a cell `name`."""
        if self._txn.contains(name):
            return True
        self._check_space()
        return False

    def set(self, name: str, value: Any, ttl: Ttl | None = None) -> int | None:
        """Give the cell `name` a value, making it if need be; return the version of the commit.

        Args:
            ttl: as in `init`.
        """
        ttl_us = None if ttl is None else ttl_micros(ttl)
        return atomically(self._txn, lambda txn: txn.put(name, [_next(txn, name), value], ttl_us))[1]

    def cas(self, name: str, expected: int, new: Any, ttl: Ttl | None = None) -> int | None:
        """Give the cell the value `new` if its counter is `expected`; return the version of the commit.

        Args:
            expected: the counter as it was read; 0 means that there must be no cell.
            ttl: as in `init`.
        Raises: Conflict when the counter is another, or the cell is gone.
        """
        check_int(expected, "expected")
        ttl_us = None if ttl is None else ttl_micros(ttl)

        def swap(txn: Txn) -> None:
            if txn.get_path(name, _COUNTER, 0) != expected:
                raise conflict(keys=[(*txn.names, name)])
            txn.put(name, [_next(txn, name), new], ttl_us)

        return atomically(self._txn, swap)[1]

    def transition(
        self, name: str, fn: Callable[[Any], Any], *, default: Any = None, ttl: Ttl | None = None
    ) -> int | None:
        """Give the cell the value `fn(old value)`; return the version of the commit.

        When another writer comes first, `fn` is called again with what that one wrote, so it should only
        compute.

        Args:
            default: what `fn` gets when there is no cell, which is then made.
            ttl: as in `init`; None leaves as it is when the cell expires.
        Raises: Conflict after 1,000 attempts in a row; what `fn` raises, with nothing written.
        """

        ttl_us = KEEP if ttl is None else ttl_micros(ttl)

        def step(txn: Txn) -> None:
            value = fn(txn.get_path(name, _VALUE, default))
            txn.put(name, [_next(txn, name), value], ttl_us)

        return atomically(self._txn, step)[1]

    def delete(self, name: str) -> bool | None:
        """Remove the cell; return whether it existed (None inside a transaction: the commit will know)."""
        return self._txn.delete(name)

    def list(
        self,
        prefix: str | None = None,
        *,
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[str]:
        """Return the names of the cells in byte order: with `prefix`, and start <= name < end."""
        return self._keys(prefix, start, end, reverse, limit)

    def count(self, prefix: str | None = None, *, start: str | None = None, end: str | None = None) -> int:
        """Return how many cells there are, limited as in `list`."""
        return self._count(prefix, start, end)

    def history(self, name: str, *, before: int | None = None, limit: int | None = None) -> Cells:
        """Return what the cell was, newest first, deletions and what has expired too.

        Args:
            before: only versions below it.
        """
        return [_cell(*row) for row in self._history(name, before, limit)]


def _cell(stored: Any, version: int, time: int, deleted: bool, expires: int | None) -> Cell:
    counter, value = (0, None) if deleted else stored
    return Cell(value, counter, version, to_datetime(time), deleted, to_expiry(expires))


def _next(txn: Txn, name: str) -> int:
    """Return the counter of the next write."""
    counter = txn.get_path(name, _COUNTER)
    if counter is None:
        # Absent: go on behind the value that expired, or that the newest tombstone covers. The footprint of
        # the read above is enough, since nobody can change the history without making the cell.
        kept = (stored for stored, _, _, deleted, _ in txn.history(name, None, 2) if not deleted)
        counter = next(kept, (0,))[0]
    return int(counter) + 1
