"""The model's keyspaces: `Txn` in its three modes.

Keyspace       the reads, over whatever rows a mode sees
  View         rows of one version; every write is refused
  Inside       rows of a transaction; every read leaves a footprint
  Automatic    rows of the newest version; every write is a transaction of its own
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from strata.core import patches
from strata.core.errors import InvalidInput, NotFound, ReadOnly
from strata.core.keys import check_int, check_key, check_name
from strata.core.patches import ABSENT
from strata.core.protocols import (
    Appended,
    Bound,
    Entry,
    HistoryRow,
    IndexRow,
    Kept,
    Key,
    Layout,
    Passes,
    PatchOp,
    Path,
)
from strata.core.values import check, decode, encode, same
from strata.testing import looking
from strata.testing.history import WHOLE, Line, Place, Range, Row, live
from strata.testing.writes import Add, Append, Delete, Patch, Put, Write

if TYPE_CHECKING:
    from strata.testing.model import ModelBranch, ModelSnapshot, ModelTransaction

T = TypeVar("T")


class Keyspace:
    """The reads."""

    mode: Literal["automatic", "inside", "view"]
    branch: ModelBranch

    def __init__(self, space: str, layout: Layout) -> None:
        self.space, self.layout = space, layout

    @property
    def version(self) -> int:
        raise NotImplementedError

    def _rows(self) -> Mapping[Place, Row]:
        raise NotImplementedError

    def _spaces(self) -> Iterable[str]:
        raise NotImplementedError

    def _line(self) -> Line:
        """The branch, which goes on to be seen from here when it is deleted."""
        return self.branch.kept

    def _note(self, place: Place, path: Path) -> None:
        """Take note that the value at `path` under a key was read."""

    def _note_range(self, seen: Range) -> None:
        """Take note that a range was read."""

    @property
    def now(self) -> int:
        return self.branch.store.clock()

    @property
    def exists(self) -> bool:
        return self.space in self._spaces()

    @property
    def names(self) -> tuple[str, str, str]:
        return self.branch.name, self.space, self.layout.kind

    def get(self, key: Key, default: Any = None, /) -> Any:
        return self.get_path(key, WHOLE, default)

    def get_path(self, key: Key, path: Path, default: Any = None, /) -> Any:
        place = self._place(key)
        row = self._rows().get(place)
        value = ABSENT if row is None else decode(row.value)
        self._note(place, patches.resolve(value, path))
        return default if value is ABSENT else patches.get_path(value, path, default)

    def get_many(self, keys: Iterable[Key], default: Any = None, /) -> list[Any]:
        return [self.get(key, default) for key in keys]

    def entry(self, key: Key, /) -> Entry | None:
        place = self._place(key)
        self._note(place, WHOLE)
        row = self._rows().get(place)
        return None if row is None else (decode(row.value), row.version, row.time, row.expires)

    def kept(self, key: Key, /) -> Kept | None:
        found = self.entry(key)
        return None if found is None else (found[0], found[1], found[3])

    def contains(self, key: Key, /) -> bool:
        return self.get(key, ABSENT) is not ABSENT

    def scan(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[tuple[Key, Any]]:
        found = self._range(prefix, start, end, reverse, limit)
        return [(place[2], decode(row.value)) for place, row in found]

    def scan_page(
        self,
        prefix: Key | None,
        start: Key | None,
        end: Key | None,
        reverse: bool,
        limit: int,
        size_bytes: int,
        /,
    ) -> tuple[list[tuple[Key, Any]], bool]:
        found, size = [], 0
        for place, row in self._range(prefix, start, end, reverse, limit):
            found.append((place[2], decode(row.value)))
            size += len(_bytes(place[2])) + len(row.value)
            if size >= size_bytes:
                return found, True
        return found, len(found) >= limit

    def scan_keys(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[Key]:
        return [place[2] for place, _ in self._range(prefix, start, end, reverse, limit)]

    def count(self, prefix: Key | None, start: Key | None, end: Key | None, /) -> int:
        return len(self._range(prefix, start, end, False, None))

    def indexes(self) -> list[IndexRow]:
        rows = self.branch.store.indexes()
        return [row for row in rows if row[1:3] == (self.space, self.layout.kind)]

    def by_value(
        self, index: str, start: Bound, end: Bound, reverse: bool, limit: int | None, skip: int = 0, /
    ) -> list[tuple[Key, int]]:
        found = looking.by_value(self._index(index), self._seen(), start, end)
        hits = [(row[0], row[1]) for _, row in (reversed(found) if reverse else found)]
        hits = hits[check_int(skip, "skip") :]
        return hits if limit is None else hits[: check_int(limit, "limit")]

    def by_text(
        self, index: str, query: str, k: int, passes: Passes | None = None, explain: bool = False, /
    ) -> dict[str, Any]:
        row, seen = self._index(index), self._seen()
        if row[4]["type"] != "text":
            raise InvalidInput(f"'{index}' is no index of text")
        hits = looking.by_text(row, seen, query, looking.passes(passes, seen, self._index))
        every = looking.by_text(row, seen, query, lambda row: True)
        cut = hits[k][2] if len(hits) > k else None
        return {"hits": hits[:k], "matched": len(hits), "cut": cut, "documents": len(every)}

    def by_vector(
        self,
        index: str,
        query: bytes,
        k: int,
        passes: Passes | None = None,
        recall: float = 0.99,
        /,
    ) -> list[tuple[Key, int, float]]:
        row, seen = self._index(index), self._seen()
        return looking.by_vector(row, seen, query, looking.passes(passes, seen, self._index))[:k]

    def declare_index(self, name: str, prefix: bytes, spec: dict[str, Any], /) -> None:
        if all(row[0] != name for row in self.branch.store.indexes()):
            self.branch.store.create_index(name, self.space, self.layout.kind, prefix, spec)

    def _index(self, name: str) -> IndexRow:
        for row in self.indexes():
            if row[0] == name:
                return row
        raise NotFound(what="index", name=name)

    def _seen(self) -> list[looking.Seen]:
        rows = self._range(None, None, None, False, None)
        return [(place[2], row.version, decode(row.value)) for place, row in rows]

    def history(self, key: Key, before: int | None, limit: int | None, /) -> list[HistoryRow]:
        upto = self.version if before is None else min(self.version, check_int(before, "before") - 1)
        found = self._line().history(self._place(key), upto)
        return found if limit is None else found[: check_int(limit, "limit")]

    def _range(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None
    ) -> list[tuple[Place, Row]]:
        wanted = self._bounds(prefix, start, end)
        inside = [(place, row) for place, row in self._rows().items() if wanted.holds(place)]
        inside.sort(key=lambda found: _bytes(found[0][2]), reverse=reverse)
        if limit is not None and check_int(limit, "limit") <= len(inside):
            if not limit:
                return []
            inside = inside[:limit]
            # What lies behind the last row was not looked at, so it may change.
            last = inside[-1][0][2]
            just_after = last + ("\0" if isinstance(last, str) else b"\0")  # type: ignore[operator]
            wanted = wanted._replace(start=last) if reverse else wanted._replace(end=just_after)
        self._note_range(wanted)
        return inside

    def _bounds(self, prefix: Key | None, start: Key | None, end: Key | None) -> Range:
        for bound in (prefix, start, end):
            if bound is not None:
                self._check_bound(bound)
        low: Any = max((bound for bound in (prefix, start) if bound is not None), key=_bytes, default=None)
        ends: list[Any] = [bound for bound in (_after(prefix), end) if bound is not None]
        return Range(self.space, self.layout.kind, low, min(ends, key=_bytes, default=None))

    def _check_bound(self, bound: Any) -> None:
        wanted = str if self.layout.text_keys else bytes
        if type(bound) is not wanted:
            raise InvalidInput(f"a bound of a scan is {wanted.__name__}, not {type(bound).__name__}")
        try:
            _bytes(bound)
        except UnicodeEncodeError:
            raise InvalidInput(f"{bound!r} has a lone surrogate and is no Unicode text") from None

    def _place(self, key: Any) -> Place:
        if self.layout.text_keys:
            check_key(key)
        elif type(key) is not bytes or not key:
            raise InvalidInput(f"a key is bytes, not {type(key).__name__}")
        return self.space, self.layout.kind, key


class View(Keyspace):
    """One version."""

    mode = "view"

    def __init__(self, space: str, layout: Layout, snapshot: ModelSnapshot) -> None:
        super().__init__(space, layout)
        self.branch, self.snapshot = snapshot.branch, snapshot

    @property
    def version(self) -> int:
        return self.snapshot.version

    def _rows(self) -> Mapping[Place, Row]:
        self.branch.store.check_open()
        return self.snapshot.rows

    def _spaces(self) -> Iterable[str]:
        return self.snapshot.point.spaces

    def pinned(self) -> View:
        return self

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise ReadOnly("a view of an earlier version cannot be written to", hint="write to the branch itself")

    put = put_until = put_many = delete = delete_many = patch = append = add = expect = begin = _refuse
    del _refuse


class Writing(Keyspace):
    """The writes, each checked and handed to `_write` or `_append`."""

    def _encoded(self, value: Any) -> bytes:
        check(value, finite=self.layout.finite)
        return encode(value)

    def _puts(
        self, rows: Iterable[tuple[Key, Any]], ttl_us: int | None
    ) -> Iterator[tuple[Place, Write, int]]:
        for key, value in _pairs(rows):
            encoded = self._encoded(value)
            yield self._place(key), Put(encoded, ttl_us), len(encoded) + len(key)

    def _patched(self, place: Place, rows: Mapping[Place, Row], ops: Sequence[PatchOp]) -> Patch:
        """Return the patch, tried on `rows`."""
        for op in ops:
            if len(op) == 3:
                check(op[2], finite=self.layout.finite)
        plain: tuple[PatchOp, ...] = tuple((op[0], tuple(op[1]), *map(_copy, op[2:])) for op in ops)
        row = rows.get(place)
        _, touched = patches.apply(ABSENT if row is None else decode(row.value), plain)
        return Patch(plain, tuple(touched), self.layout.finite)

    def _added(self, delta: Any) -> Add:
        if type(delta) not in (int, float):
            raise InvalidInput(f"only an int or a float can be added, not {type(delta).__name__}")
        check(delta, finite=self.layout.finite)
        return Add(delta)

    def _appended(self, stream: bytes, kind: str, value: Any, origin: Any) -> Append:
        if self.layout.text_keys:
            raise InvalidInput("streams need bytes keys")
        self._place(stream)
        encoded = self._encoded(value)
        extra = None if origin is None else self._encoded(origin)
        return Append(
            self.space, self.layout.kind, stream, check_name(kind, "kind", reserved=True), encoded, extra
        )


class Inside(Writing):
    """One transaction."""

    mode = "inside"

    def __init__(self, space: str, layout: Layout, transaction: ModelTransaction) -> None:
        super().__init__(space, layout)
        self.branch, self.transaction = transaction.branch, transaction

    @property
    def version(self) -> int:
        return self.transaction.snapshot

    def _rows(self) -> Mapping[Place, Row]:
        self.transaction.check_open()
        return self.transaction.rows

    def _spaces(self) -> Iterable[str]:
        return self.transaction.spaces()

    def _note(self, place: Place, path: Path) -> None:
        if self.transaction.decides(place):
            return
        if path:
            self.transaction.reads.paths.add((place, path))
        else:
            self.transaction.reads.keys.add(place)

    def _note_range(self, seen: Range) -> None:
        self.transaction.reads.ranges.add(seen)

    def pinned(self) -> Inside:
        return self

    def put(self, key: Key, value: Any, ttl_us: int | None = None, /) -> None:
        self.put_many([(key, value)], ttl_us)

    def put_many(self, rows: Iterable[tuple[Key, Any]], ttl_us: int | None = None, /) -> None:
        for place, write, size in list(self._puts(rows, ttl_us)):
            self.transaction.write(place, write, size)

    def put_until(self, key: Key, value: Any, expires: int | None, /) -> None:
        encoded = self._encoded(value)
        place = self._place(key)
        self.transaction.write(place, Put(encoded, None, expires), len(encoded) + len(key))

    def delete(self, key: Key, /) -> None:
        self.delete_many([key])

    def delete_many(self, keys: Iterable[Key], /) -> None:
        for place in [self._place(key) for key in keys]:
            self.transaction.write(place, Delete(), len(place[2]))

    def patch(self, key: Key, ops: Sequence[PatchOp], /) -> None:
        self.transaction.check_open()
        place = self._place(key)
        patch = self._patched(place, self.transaction.rows, ops)
        if ops:
            self.transaction.write(place, patch, sum(len(encode(op[2:])) for op in ops))

    def add(self, key: Key, delta: int | float, /) -> None:
        self.transaction.write(self._place(key), self._added(delta), 9)

    def append(self, stream: bytes, kind: str, value: Any, origin: Any = None, /) -> Appended:
        return self.transaction.append(self._appended(stream, kind, value, origin)), None, None, None

    def expect(self, key: Key, *, version: int | None = None, value: Any = ..., absent: bool = False) -> None:
        self.transaction.check_open()

        def holds(row: Row | None) -> bool:
            if row is None:
                return absent
            return (
                not absent
                and (version is None or row.version == version)
                and (value is ... or same(decode(row.value), value))
            )

        self.transaction.expects.append((self._place(key), holds))

    def begin(self) -> Any:
        raise InvalidInput("a transaction cannot begin inside another")


class Automatic(Writing):
    """The newest version, now."""

    mode = "automatic"

    def __init__(self, space: str, layout: Layout, branch: ModelBranch) -> None:
        super().__init__(space, layout)
        self.branch = branch

    @property
    def version(self) -> int:
        return self.branch.line.newest.version

    def _rows(self) -> Mapping[Place, Row]:
        return live(self.branch.line.newest.rows, self.now)

    def _line(self) -> Line:
        return self.branch.line

    def _spaces(self) -> Iterable[str]:
        return self.branch.line.newest.spaces

    def pinned(self) -> View:
        return self.branch.view().keyspace(self.space, self.layout)

    def begin(self) -> tuple[ModelTransaction, Inside]:
        transaction = self.branch.begin()
        return transaction, transaction.keyspace(self.space, self.layout)

    def _commit(self, step: Callable[[Inside], T]) -> tuple[T, int]:
        with self.branch.store.lock:  # so that nothing comes in between
            self.branch.line.check_writable()
            transaction, inside = self.begin()
            result = step(inside)
            return result, transaction.commit()

    def put(self, key: Key, value: Any, ttl_us: int | None = None, /) -> int:
        return self._commit(lambda inside: inside.put(key, value, ttl_us))[1]

    def put_until(self, key: Key, value: Any, expires: int | None, /) -> int:
        return self._commit(lambda inside: inside.put_until(key, value, expires))[1]

    def put_many(self, rows: Iterable[tuple[Key, Any]], ttl_us: int | None = None, /) -> int:
        return self._commit(lambda inside: inside.put_many(rows, ttl_us))[1]

    def delete(self, key: Key, /) -> bool:
        return bool(self.delete_many([key]))

    def delete_many(self, keys: Iterable[Key], /) -> int:
        def step(inside: Inside) -> int:
            present = {key for key in list(keys) if inside.contains(key)}
            inside.delete_many(present)
            return len(present)

        return self._commit(step)[0]

    def patch(self, key: Key, ops: Sequence[PatchOp], /) -> int:
        return self._commit(lambda inside: inside.patch(key, ops))[1]

    def add(self, key: Key, delta: int | float, /) -> int:
        return self._commit(lambda inside: inside.add(key, delta))[1]

    def append(self, stream: bytes, kind: str, value: Any, origin: Any = None, /) -> Appended:
        with self.branch.store.lock:
            (sequence, *_), version = self._commit(lambda inside: inside.append(stream, kind, value, origin))
            stored = self.get(stream + sequence.to_bytes(8))
            return sequence, stored[1], stored[3], version

    def expect(self, key: Key, *, version: int | None = None, value: Any = ..., absent: bool = False) -> None:
        raise InvalidInput("expect makes sense inside a transaction only")


def _pairs(rows: Any) -> list[tuple[Any, Any]]:
    try:
        return [(key, value) for key, value in rows]
    except (TypeError, ValueError):
        raise InvalidInput("rows are (key, value) pairs") from None


def _bytes(key: Any) -> bytes:
    return key.encode() if isinstance(key, str) else bytes(key)


def _after(prefix: Any) -> Any:
    """Return the first key after all that begin with `prefix`, or None when there is no end."""
    if not prefix:
        return None
    if isinstance(prefix, str):
        # The next code point sorts next in UTF-8 too; surrogates are no characters, so they are passed over.
        last = ord(prefix[-1])
        if last == 0x10FFFF:
            return _after(prefix[:-1])
        return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _copy(value: Any) -> Any:
    return decode(encode(value))
