"""What the primitives share: the check for spaces that do not exist, and reading in pages.

A primitive is written once over a `Txn` and serves outside of transactions, inside, and in views. Hot
calls are one Python frame over the kernel: no check is made here that the kernel makes anyway, and the
question whether a space exists is asked only when a read found nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar, Final, Protocol

from strata.core.changes import Change, change
from strata.core.clock import to_datetime, to_expiry
from strata.core.errors import NotFound
from strata.core.keys import check_int, check_key
from strata.core.merging import Merged, Three, merge_keys
from strata.core.protocols import (
    ADD,
    APPEND,
    DELETE,
    PATCH,
    PUT,
    DiffRow,
    Entry,
    HistoryRow,
    Kept,
    Key,
    Layout,
    Path,
    Txn,
)
from strata.core.refs import readable
from strata.core.values import Versioned, text_of

MISSING: Final[Any] = object()  # the default that no value can be
PAGE_ROWS: Final = 1000  # rows of one kernel call: some 100 us of work, so a break-off wastes little
PAGE_BYTES: Final = 4 << 20  # and of their keys and values, but for the last: a value may have 32 MiB


class Primitive:
    """One keyspace of one branch and space, as one transaction sees it."""

    LAYOUT: ClassVar[Layout]
    # By the kind of change; see `core.protocols`.
    _VERBS: ClassVar[dict[int, str]] = {
        PUT: "put",
        DELETE: "delete",
        PATCH: "patch",
        APPEND: "append",
        ADD: "add",
    }
    # Whether some rows only follow from others, and users do not know them.
    _DERIVES: ClassVar[bool] = False
    # Whether what is written stays: to go back in history leaves it.
    _FORWARD: ClassVar[bool] = False
    # Whether values are stored as users give them, so that paths mean the same to both.
    _PLAIN: ClassVar[bool] = False
    # Where in a stored row the value is that users gave, and by name what of the row is text to be found.
    _VALUE: ClassVar[Path] = ()
    _TEXTS: ClassVar[dict[str, Path]] = {"text": ()}

    __slots__ = ("_known", "_txn")

    def __init__(self, txn: Txn) -> None:
        self._txn = txn
        self._known = False  # that the space exists; never unlearned, since "ever written to" stays true

    @classmethod
    def _erasure(cls, name: str, is_prefix: bool) -> tuple[bytes, bool]:
        """Return the keys of the thing `name`, or of all whose names begin so; whether it is a prefix."""
        return check_key(name).encode(), is_prefix

    # -- how history speaks of its rows

    @classmethod
    def _name(cls, key: bytes) -> str | None:
        """Return what refs call the thing under a key; None for a row that only follows from others."""
        return readable(key)

    @classmethod
    def _place(cls, name: str) -> bytes:
        """Return the key of what refs call `name`.

        Raises: InvalidInput, and LimitExceeded, when that cannot be one.
        """
        return check_key(name).encode()

    @classmethod
    def _verb(cls, key: bytes, how: int) -> str:
        """Return what a write did, by the name of the method that does it."""
        return cls._VERBS[how]

    @classmethod
    def _shown(cls, key: bytes, value: Any, version: int, time: int, expires: int | None) -> Any:
        """Return a stored value as a read of it gives it."""
        return value

    @classmethod
    def _line(cls, shown: Any) -> str:
        """Return what `_shown` gave, on a line."""
        return text_of(shown)

    @classmethod
    def _thing(cls, key: bytes, name: str) -> str:
        """Return the name of what a row is a part of: of the stream, for an event."""
        return name

    @classmethod
    def _bare(cls, key: bytes, kept: Kept) -> Any:
        """Return what a row says without when."""
        return cls._shown(key, kept[0], kept[1], 0, kept[2])

    @classmethod
    def _diff(cls, rows: Iterable[DiffRow]) -> Iterator[Change]:
        """Yield what the rows that differ in one keyspace say. They are of things that users know."""
        kind, name_of, bare = cls.LAYOUT.kind, cls._name, cls._bare
        for space, _, key, old, new, _ in rows:
            name = name_of(key)
            if name is not None:
                before = None if old is None else (bare(key, old), old[1])
                after = None if new is None else (bare(key, new), new[1])
                yield change(space, kind, name, before, after)

    # -- how branches merge

    @classmethod
    def _merge(cls, three: Three) -> Merged:
        """Return what becomes of a key that theirs changed since the base, and ours perhaps too."""
        return merge_keys(three)

    @classmethod
    def _follows(cls, key: bytes, value: Any) -> list[bytes]:
        """Return the keys of the rows that follow from one, whose values are null."""
        return []

    @classmethod
    def _follow(cls, txn: Txn, key: bytes, before: Kept | None, after: Kept | None) -> None:
        """Let the rows that follow from one go and come with it, and expire when it does."""
        old = [] if before is None else cls._follows(key, before[0])
        new = [] if after is None else cls._follows(key, after[0])
        txn.delete_many([row for row in old if row not in new])
        expires = None if after is None else after[2]
        is_as_before = before is not None and before[2] == expires
        for row in new:
            if not is_as_before or row not in old:
                txn.put_until(row, None, expires)

    @classmethod
    def _derived(cls, key: bytes, value: Any) -> list[tuple[bytes, bool]]:
        """Return the keys of what follows from a row and goes with it, and whether these are prefixes."""
        return [(row, False) for row in cls._follows(key, value)]

    def __repr__(self) -> str:
        branch, space, kind = self._txn.names
        return f"<{kind} of space {space!r} on branch {branch!r}, {self._txn.mode}>"

    def _check_space(self) -> None:
        """Raise NotFound unless the space was ever written to. Called when a read found nothing."""
        if not self._known:
            if not self._txn.exists:
                branch, space, _ = self._txn.names
                raise NotFound(
                    f"space {space!r} of branch {branch!r} was never written to",
                    what="space",
                    name=space,
                    hint="the first write makes it",
                )
            self._known = True

    def _rows(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None
    ) -> Iterator[tuple[Any, Any]]:
        """Return the rows of a scan, all as of one version, in pages of 1,000 or 4 MiB."""
        if limit is not None and limit.__class__ is int and 0 <= limit <= PAGE_ROWS:
            found, is_cut = self._txn.scan_page(prefix, start, end, reverse, limit, PAGE_BYTES)
            if not found:
                self._check_space()
            if not is_cut or len(found) >= limit:
                return iter(found)
        return row_pages(self._txn.pinned(), prefix, start, end, reverse, limit, self._check_space)

    def _keys(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None
    ) -> Iterator[Any]:
        """Return the keys of a scan, as `_rows` does."""
        return pages(self._txn.pinned().scan_keys, prefix, start, end, reverse, limit, self._check_space)

    def _count(self, prefix: Key | None, start: Key | None, end: Key | None) -> int:
        found = self._txn.count(prefix, start, end)
        if not found:
            self._check_space()
        return found

    def _history(self, key: Key, before: int | None, limit: int | None) -> list[HistoryRow]:
        for bound, what in ((before, "before"), (limit, "limit")):
            if bound is not None:
                check_int(bound, what)
        found = self._txn.history(key, before, limit)
        if not found:
            self._check_space()
        return found


def versioned(entry: Entry) -> Versioned:
    """Return an entry as the user gets it."""
    value, version, time, expires = entry
    return Versioned(value, version, to_datetime(time), False, to_expiry(expires))


def versions(rows: list[HistoryRow]) -> list[Versioned]:
    """Return the rows of a history as the user gets them."""
    return [
        Versioned(value, version, to_datetime(time), deleted, to_expiry(expires))
        for value, version, time, deleted, expires in rows
    ]


def row_pages(
    txn: Txn,
    prefix: Key | None,
    start: Key | None,
    end: Key | None,
    reverse: bool,
    limit: int | None,
    nothing: Callable[[], None],
) -> Iterator[tuple[Any, Any]]:
    """Return what `scan` of a pinned Txn finds: one page now, more as they are asked for."""
    size = PAGE_ROWS if limit is None else min(PAGE_ROWS, check_int(limit, "limit"))
    first, is_cut = txn.scan_page(prefix, start, end, reverse, size, PAGE_BYTES)
    if not first:
        nothing()
    left = None if limit is None else limit - len(first)
    if not is_cut or left == 0:
        return iter(first)
    return chain(first, _further_rows(txn, prefix, start, end, reverse, left, first[-1][0]))


def _further_rows(
    txn: Txn,
    prefix: Key | None,
    start: Key | None,
    end: Key | None,
    reverse: bool,
    left: int | None,
    last: Key,
) -> Iterator[tuple[Any, Any]]:
    is_cut = True
    while is_cut and left != 0:
        size = PAGE_ROWS if left is None else min(PAGE_ROWS, left)
        if reverse:
            end = last
        else:
            start = last + "\0" if isinstance(last, str) else last + b"\0"  # just behind it
        page, is_cut = txn.scan_page(prefix, start, end, reverse, size, PAGE_BYTES)
        yield from page
        if page:
            last = page[-1][0]
        left = None if left is None else left - len(page)


class _Fetch(Protocol):
    def __call__(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[Any]: ...


def pages(
    fetch: _Fetch,
    prefix: Key | None,
    start: Key | None,
    end: Key | None,
    reverse: bool,
    limit: int | None,
    nothing: Callable[[], None],
) -> Iterator[Any]:
    """Return what `scan` or `scan_keys` of a pinned Txn finds: one page now, more as they are asked for.

    The first page is read here and not in the generator, so that errors come from the call.
    """
    size = PAGE_ROWS if limit is None else min(PAGE_ROWS, check_int(limit, "limit"))
    first = fetch(prefix, start, end, reverse, size)
    if not first:
        nothing()
    if len(first) < PAGE_ROWS or limit == PAGE_ROWS:
        return iter(first)
    left = None if limit is None else limit - PAGE_ROWS
    return chain(first, _further(fetch, prefix, start, end, reverse, left, _key(first[-1])))


def _further(
    fetch: _Fetch,
    prefix: Key | None,
    start: Key | None,
    end: Key | None,
    reverse: bool,
    left: int | None,
    last: Key,
) -> Iterator[Any]:
    while left is None or left > 0:
        size = PAGE_ROWS if left is None else min(PAGE_ROWS, left)
        if reverse:
            page = fetch(prefix, start, last, True, size)
        else:
            # There is no text key just after `last` (NUL is not allowed), so begin with it and drop it.
            page = fetch(prefix, last, end, False, size + 1)
            if page and _key(page[0]) == last:
                del page[0]
        yield from page
        if len(page) < size:
            return
        last = _key(page[-1])
        left = None if left is None else left - size


def _key(row: Any) -> Any:
    return row[0] if row.__class__ is tuple else row
