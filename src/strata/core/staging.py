"""Writes held back: a transaction over a transaction, which passes them on at once or drops them.

A step of several parts, of which the last may fail, runs on these, so that a failure leaves the transaction
around it as it was. Reads see what is held back.

Invariant: what is passed on has been checked as the store would check it, so passing on does not fail
halfway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from strata.core import patches
from strata.core.atomic import Source as AnySource
from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.keys import check_key
from strata.core.patches import ABSENT, get_path
from strata.core.protocols import KEEP, Appended, Entry, HistoryRow, Kept, Key, Layout, PatchOp, Path, Txn
from strata.core.values import INT_MAX, INT_MIN, check


class Source:
    """Gives keyspaces whose writes are held back together."""

    def __init__(self, below: AnySource) -> None:
        self._below = below  # what gives keyspaces: a transaction, or another of these
        self._made: dict[tuple[str, Layout], Staged] = {}
        self._journal: list[tuple[Txn, str, tuple[Any, ...]]] = []

    def keyspace(self, space: str, layout: Layout, /) -> Txn:
        """Return a keyspace as it would be after what is held back."""
        place = space, layout
        if place not in self._made:
            self._made[place] = Staged(self._below.keyspace(space, layout), layout, self._journal)
        return cast(Txn, self._made[place])

    def over(self, txn: Txn, space: str, layout: Layout) -> Txn:
        """Return what is held back over a keyspace that is at hand."""
        self._made[space, layout] = Staged(txn, layout, self._journal)
        return self.keyspace(space, layout)

    def pass_on(self) -> None:
        """Write what was held back, in the order in which it came."""
        for txn, method, arguments in self._journal:
            getattr(txn, method)(*arguments)
        self._journal.clear()


class Staged:
    """One keyspace with writes that are held back. It has what primitives use inside a transaction."""

    mode: Literal["inside"] = "inside"

    def __init__(self, below: Txn, layout: Layout, journal: list[Any]) -> None:
        self._below, self._layout, self._journal = below, layout, journal
        self._own: dict[Key, Kept | None] = {}

    @property
    def version(self) -> int:
        return self._below.version

    @property
    def now(self) -> int:
        return self._below.now

    @property
    def exists(self) -> bool:
        return bool(self._own) or self._below.exists

    @property
    def names(self) -> tuple[str, str, str]:
        return self._below.names

    # -- reads

    def kept(self, key: Key, /) -> Kept | None:
        return self._own[key] if self._holds(key) else self._below.kept(key)

    def get(self, key: Key, default: Any = None, /) -> Any:
        if not self._holds(key):
            return self._below.get(key, default)
        found = self._own[key]
        return default if found is None else found[0]

    def get_path(self, key: Key, path: Path, default: Any = None, /) -> Any:
        if not self._holds(key):
            return self._below.get_path(key, path, default)
        found = self._own[key]
        return default if found is None else get_path(found[0], path, default)

    def entry(self, key: Key, /) -> Entry | None:
        if not self._holds(key):
            return self._below.entry(key)
        found = self._own[key]
        return None if found is None else (found[0], found[1], self.now, found[2])

    def contains(self, key: Key, /) -> bool:
        return self._own[key] is not None if self._holds(key) else self._below.contains(key)

    def history(self, key: Key, before: int | None, limit: int | None, /) -> list[HistoryRow]:
        return self._below.history(key, before, limit)

    def scan_keys(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[Key]:
        own = [key for key in self._own if _is_in(key, prefix, start, end)]
        if not own:
            return self._below.scan_keys(prefix, start, end, reverse, limit)
        found = {*self._below.scan_keys(prefix, start, end, False, None), *own}
        keys = [key for key in found if self.contains(key)]
        return sorted(keys, key=_bytes, reverse=reverse)[:limit]

    def pinned(self) -> Txn:
        return cast(Txn, self)

    # -- writes

    def put(self, key: Key, value: Any, ttl_us: int | None = None, /) -> None:
        check(value, finite=self._layout.finite)
        self._set(key, value, self._expiry(key, ttl_us))
        self._journal.append((self._below, "put", (key, value, ttl_us)))

    def put_until(self, key: Key, value: Any, expires: int | None, /) -> None:
        check(value, finite=self._layout.finite)
        self._set(key, value, expires)
        self._journal.append((self._below, "put_until", (key, value, expires)))

    def put_many(self, rows: Iterable[tuple[Key, Any]], ttl_us: int | None = None, /) -> None:
        for key, value in rows:
            self.put(key, value, ttl_us)

    def delete(self, key: Key, /) -> None:
        self._holds(key)
        self._own[key] = None
        self._journal.append((self._below, "delete", (key,)))

    def delete_many(self, keys: Iterable[Key], /) -> None:
        for key in keys:
            self.delete(key)

    def patch(self, key: Key, ops: Sequence[PatchOp], /) -> None:
        before = self.kept(key)
        made, _ = patches.apply(ABSENT if before is None else before[0], ops)
        check(made, finite=self._layout.finite)
        self._set(key, made, None if before is None else before[2])
        self._journal.append((self._below, "patch", (key, ops)))

    def add(self, key: Key, delta: int | float, /) -> None:
        before = self.kept(key)
        total = _sum(0 if before is None else before[0], delta, is_new=before is None)
        self._set(key, total, None if before is None else before[2])
        self._journal.append((self._below, "add", (key, delta)))

    def append(self, stream: bytes, kind: str, value: Any, origin: Any = None, /) -> Appended:
        """Hold back an event. It is seen, and has its sequence, once it is passed on."""
        check(value, finite=self._layout.finite)
        self._journal.append((self._below, "append", (stream, kind, value, origin)))
        return 0, None, None, None

    def _holds(self, key: Key) -> bool:
        """Return whether a key was written here; it must be one."""
        if self._layout.text_keys:
            check_key(key)
        return key in self._own

    def _set(self, key: Key, value: Any, expires: int | None) -> None:
        self._holds(key)
        self._own[key] = value, self.version, expires

    def _expiry(self, key: Key, ttl_us: int | None) -> int | None:
        if ttl_us is None:
            return None
        if ttl_us != KEEP:
            return self.now + ttl_us
        before = self.kept(key)
        return None if before is None else before[2]


def _sum(number: Any, delta: int | float, *, is_new: bool) -> int | float:
    """Return a sum as the store makes it.

    Raises: InvalidInput for what are no numbers, or of different kinds; LimitExceeded.
    """
    if type(number) not in (int, float) or type(delta) not in (int, float):
        raise InvalidInput("the value is not a number, so nothing can be added to it")
    if type(number) is not type(delta) and not is_new:
        raise InvalidInput("an int is added to an int and a float to a float", hint="convert one of them")
    total: int | float = number + delta
    if type(total) is int and not INT_MIN <= total <= INT_MAX:
        raise LimitExceeded(what="sum", limit=INT_MAX if total > 0 else INT_MIN, actual=total)
    return total


def _is_in(key: Key, prefix: Key | None, start: Key | None, end: Key | None) -> bool:
    at = _bytes(key)
    return (
        (prefix is None or at.startswith(_bytes(prefix)))
        and (start is None or at >= _bytes(start))
        and (end is None or at < _bytes(end))
    )


def _bytes(key: Key) -> bytes:
    return key.encode() if isinstance(key, str) else key
