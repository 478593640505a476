"""Key-value: any value under any text key.

    key    the key, as UTF-8
    value  the value

Invariant: none beyond that of the keyspace. Numbers written by `incr` are plain ints and floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from strata.core.atomic import atomically
from strata.core.clock import Ttl, ttl_micros
from strata.core.errors import InvalidInput, conflict
from strata.core.keys import check_int
from strata.core.merging import Add, Merged, Three, alike, clash, merge_keys
from strata.core.protocols import ADD, Kept, Layout, Txn
from strata.core.values import INT_MAX, INT_MIN, Versioned, same
from strata.primitives.base import MISSING, PAGE_BYTES, PAGE_ROWS, Primitive, versioned, versions


class Kv(Primitive):
    """The key-value pairs of one branch and space, which also read and write like a dict."""

    LAYOUT: ClassVar[Layout] = Layout("kv")
    _VERBS: ClassVar[dict[int, str]] = {**Primitive._VERBS, ADD: "incr"}
    _PLAIN: ClassVar[bool] = True

    __slots__ = ()

    @classmethod
    def _bare(cls, key: bytes, kept: Kept) -> Any:
        return kept[0]

    @classmethod
    def _merge(cls, three: Three) -> Merged:
        """Numbers that both sides only added to add up, and go on to be such; else the key decides."""
        base, ours, theirs = three.base, three.ours, three.theirs
        if theirs is None or three.how_theirs[0] != ADD:
            return merge_keys(three)
        is_ours_changed = not alike(ours, base)
        if is_ours_changed and (ours is None or three.how_ours()[0] != ADD):
            return merge_keys(three)
        # What was added to goes on to expire when it did; else it had expired, and that began from nothing.
        is_anew = base is not None and theirs[2] != base[2]
        if is_ours_changed and base is not None and ours is not None and is_anew is not (ours[2] != base[2]):
            return merge_keys(three)
        delta = theirs[0] - (0 if base is None or is_anew else base[0])
        if is_ours_changed and ours is not None:
            if type(ours[0]) is not type(delta) or not _fits(delta) or not _fits(ours[0] + delta):
                return clash(three)  # an int and a float, or more than a number holds
        elif not _fits(delta):
            return merge_keys(three)
        return Merged([Add(delta)])

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`.

        Raises: InvalidInput when `key` cannot be a key; NotFound when the space was never written to.
        """
        value = self._txn.get(key, MISSING)
        if value is MISSING:
            self._check_space()
            return default
        return value

    def entry(self, key: str) -> Versioned | None:
        """Return the value of `key` with its version and time, and when it expires; or None.

        A key written in this very transaction has no commit yet: version and time are the snapshot's.
        """
        found = self._txn.entry(key)
        if found is None:
            self._check_space()
            return None
        return versioned(found)

    def put(self, key: str, value: Any, ttl: Ttl | None = None) -> int | None:
        """Store `value` under `key`; return the version of the commit.

        Args:
            ttl: how long after the commit the key expires and reads as absent, in seconds or as a timedelta;
                None is never.
        Raises: InvalidInput for what is no key or no value, naming the place inside it; LimitExceeded.
        """
        if ttl is None:
            return self._txn.put(key, value)
        return self._txn.put(key, value, ttl_micros(ttl))

    def delete(self, key: str) -> bool | None:
        """Remove `key`; return whether it existed (None inside a transaction: only the commit will know)."""
        return self._txn.delete(key)

    def exists(self, key: str) -> bool:
        """Return whether `key` has a value, which may be None."""
        if self._txn.contains(key):
            return True
        self._check_space()
        return False

    def incr(self, key: str, by: int | float = 1) -> int | None:
        """Add `by` to the number under `key`, 0 if none; return the version of the commit, not the sum.

        Increments from many writers add up and never conflict with each other, nor in a merge of branches.
        When the number expires stays as it is.

        Raises: InvalidInput when the value is no number, or one is an int and the other a float;
            LimitExceeded when the sum does not fit in 64 bits.
        """
        return self._txn.add(key, by)

    def cas(
        self,
        key: str,
        new: Any,
        *,
        expected_version: int = MISSING,
        expected: Any = MISSING,
        ttl: Ttl | None = None,
    ) -> int | None:
        """Store `new` under `key` if nobody has changed it; return the version of the commit.

        Args:
            expected_version: of the entry as it was read; 0 means that the key must be absent.
            expected: the value as it was read, 1 and 1.0 differing; None means a stored None.
            ttl: as in `put`.
        Raises: Conflict when version or value is another, or the key is gone.
        """
        if (expected_version is MISSING) is (expected is MISSING):
            raise InvalidInput(
                "cas takes either expected_version or expected", hint="expected_version=0 means absent"
            )
        if expected_version is not MISSING:
            check_int(expected_version, "expected_version")
        ttl_us = None if ttl is None else ttl_micros(ttl)

        def swap(txn: Txn) -> None:
            found = txn.entry(key)
            if expected is MISSING:
                as_expected = (found[1] if found else 0) == expected_version
            else:
                as_expected = found is not None and same(found[0], expected)
            if not as_expected:
                raise conflict(keys=[(*txn.names, key)])
            txn.put(key, new, ttl_us)

        return atomically(self._txn, swap)[1]

    def put_many(
        self, items: Mapping[str, Any] | Iterable[tuple[str, Any]], ttl: Ttl | None = None
    ) -> int | None:
        """Store all of `items` in one commit; return its version. Of a key given twice the last wins.

        Args:
            ttl: as in `put`, for all of them.
        """
        rows = items.items() if isinstance(items, Mapping) else items
        return self._txn.put_many(rows, None if ttl is None else ttl_micros(ttl))

    def get_many(self, keys: Iterable[str], default: Any = None) -> list[Any]:
        """Return the values of `keys` in their order, `default` where there is none."""
        values = self._txn.get_many(keys, MISSING)
        if MISSING in values:
            self._check_space()
            return [default if value is MISSING else value for value in values]
        return values

    def delete_many(self, keys: Iterable[str]) -> int | None:
        """Remove all of `keys` in one commit; return how many existed (None inside a transaction)."""
        return self._txn.delete_many(keys)

    def keys(
        self,
        prefix: str | None = None,
        *,
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[str]:
        """Return the keys in byte order. The arguments are those of `scan`."""
        return self._keys(prefix, start, end, reverse, limit)

    def scan(
        self,
        prefix: str | None = None,
        *,
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Return (key, value) pairs in byte order of the keys, all as of one version.

        Args:
            prefix: only keys that begin with it.
            start, end: only keys with start <= key < end.
            reverse: from the last to the first; `limit` counts from there.
        Cost: what is taken from the iterator, in pages of 1,000 rows or 4 MiB.
        """
        if limit is not None and limit.__class__ is int and 0 <= limit <= PAGE_ROWS:
            found, is_cut = self._txn.scan_page(prefix, start, end, reverse, limit, PAGE_BYTES)
            if not found:
                self._check_space()
            if not is_cut or len(found) >= limit:
                return iter(found)  # type: ignore[arg-type]  # text keys, says the layout
        return self._rows(prefix, start, end, reverse, limit)

    def count(self, prefix: str | None = None, *, start: str | None = None, end: str | None = None) -> int:
        """Return how many keys there are, limited as in `scan`. Cost: O(number counted)."""
        return self._count(prefix, start, end)

    def history(self, key: str, *, before: int | None = None, limit: int | None = None) -> list[Versioned]:
        """Return the versions of `key`, newest first, deletions and what has expired too.

        Args:
            before: only versions below it; give the last one of a page to get the next page.
        """
        return versions(self._history(key, before, limit))

    def __getitem__(self, key: str) -> Any:
        value = self._txn.get(key, MISSING)
        if value is MISSING:
            self._check_space()
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._txn.put(key, value)

    def __delitem__(self, key: str) -> None:
        if not self._txn.contains(key):
            raise KeyError(key)
        self._txn.delete(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.exists(key)

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[str]:
        return self.keys()


def _fits(number: int | float) -> bool:
    return isinstance(number, float) or INT_MIN <= number <= INT_MAX
