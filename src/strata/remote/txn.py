"""Keyspaces of another process: `Txn`, each call one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from strata.core.atomic import atomically
from strata.core.errors import InvalidInput, ReadOnly
from strata.core.protocols import (
    Appended,
    Entry,
    HistoryRow,
    IndexRow,
    Kept,
    Key,
    Layout,
    Passes,
    PatchOp,
    Path,
    Transaction,
    Txn,
)
from strata.core.protocols import (
    Bound as ValueBound,
)
from strata.core.values import check, encode
from strata.remote.link import Bound, Thing, or_default
from strata.wire.frames import ABSENT
from strata.wire.paging import PAGE_ROWS

if TYPE_CHECKING:
    from strata.remote.store import RemoteBranch, RemoteTransaction

# Of one request, but for its last row: what is put at once may be 256 MiB, a frame is smaller, and a server
# does nothing else while it reads one.
_PART_BYTES = 512 << 10
# Writes that give nothing inside a transaction, and which the store refuses for little that is not seen here.
_GATHERED = frozenset({"put", "put_until", "put_many", "delete", "delete_many", "expect"})
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})


class RemoteTxn(Thing):
    """What all keyspaces have: the reads."""

    __slots__ = ("_layout", "_space")

    KIND = "txn"
    mode: Literal["automatic", "inside", "view"]

    def __init__(self, parent: Thing, space: str, layout: Layout) -> None:
        arguments = (space, layout.kind, layout.text_keys, layout.finite)
        super().__init__(parent._link, parent, "keyspace", arguments)
        self._space, self._layout = space, layout

    @property
    def version(self) -> int:
        return int(self._call("version"))

    @property
    def now(self) -> int:
        return int(self._call("now"))

    @property
    def exists(self) -> bool:
        return bool(self._call("exists"))

    @property
    def names(self) -> tuple[str, str, str]:
        branch, space, kind = self._call("names")
        return branch, space, kind

    def get(self, key: Key, default: Any = None, /) -> Any:
        return or_default(self._call("get", self._key(key)), default)

    def get_path(self, key: Key, path: Path, default: Any = None, /) -> Any:
        return or_default(self._call("get_path", self._key(key), path), default)

    def get_many(self, keys: Iterable[Key], default: Any = None, /) -> list[Any]:
        asked: list[Any] = self._keys(keys)
        found: list[Any] = []
        while True:
            found += self._call("get_many", asked[len(found) : len(found) + PAGE_ROWS])
            if len(found) >= len(asked):
                return [default if value is ABSENT else value for value in found]

    def entry(self, key: Key, /) -> Entry | None:
        return cast(Entry | None, _row(self._call("entry", self._key(key))))

    def kept(self, key: Key, /) -> Kept | None:
        return cast(Kept | None, _row(self._call("kept", self._key(key))))

    def contains(self, key: Key, /) -> bool:
        return bool(self._call("contains", self._key(key)))

    def scan(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[tuple[Key, Any]]:
        return self._scanned("scan", prefix, start, end, reverse, limit, lambda row: row[0])

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
        # How many bytes are in a page is for the other side to say.
        rows, has_more = self._call("scan", prefix, start, end, reverse, limit)
        return _rows(rows), has_more or len(rows) >= limit

    def scan_keys(
        self, prefix: Key | None, start: Key | None, end: Key | None, reverse: bool, limit: int | None, /
    ) -> list[Key]:
        return self._scanned("scan_keys", prefix, start, end, reverse, limit, lambda key: key)

    def _scanned(
        self, method: str, prefix: Any, start: Any, end: Any, reverse: bool, limit: Any, key_of: Any
    ) -> list[Any]:
        """Return what a scan finds, page by page, all as of one version."""
        found, has_more = self._call(method, prefix, start, end, reverse, limit)
        if has_more and self.mode == "automatic":
            whole: list[Any] = getattr(self.pinned(), method)(prefix, start, end, reverse, limit)
            return whole
        while has_more:
            last = key_of(found[-1])
            left = None if limit is None else limit - len(found)
            if reverse:
                end = last
            else:
                start = last + ("\0" if isinstance(last, str) else b"\0")  # just behind it
            page, has_more = self._call(method, prefix, start, end, reverse, left)
            found += page
        return found if method == "scan_keys" else _rows(found)

    def count(self, prefix: Key | None, start: Key | None, end: Key | None, /) -> int:
        return int(self._call("count", prefix, start, end))

    def history(self, key: Key, before: int | None, limit: int | None, /) -> list[HistoryRow]:
        key, has_more = self._key(key), True
        found: list[Any] = []
        while has_more:
            left = None if limit is None else limit - len(found)
            page, has_more = self._call("history", key, found[-1][1] if found else before, left)
            found += page
        return _rows(found)

    def indexes(self) -> list[IndexRow]:
        return _rows(self._call("indexes"))

    def by_value(
        self,
        index: str,
        start: ValueBound,
        end: ValueBound,
        reverse: bool,
        limit: int | None,
        skip: int = 0,
        /,
    ) -> list[tuple[Key, int]]:
        found, has_more = self._call("by_value", index, start, end, reverse, limit, skip)
        if has_more and self.mode == "automatic":
            return self.pinned().by_value(index, start, end, reverse, limit, skip)
        while has_more:
            left = None if limit is None else limit - len(found)
            page, has_more = self._call("by_value", index, start, end, reverse, left, skip + len(found))
            found += page
        return _rows(found)

    def by_text(
        self, index: str, query: str, k: int, passes: Passes | None = None, explain: bool = False, /
    ) -> dict[str, Any]:
        found: dict[str, Any] = self._call("by_text", index, query, k, _plain(passes), explain)
        found["hits"] = _rows(found["hits"])
        return found

    def by_vector(
        self,
        index: str,
        query: bytes,
        k: int,
        passes: Passes | None = None,
        recall: float = 0.99,
        /,
    ) -> list[tuple[Key, int, float]]:
        return _rows(self._call("by_vector", index, bytes(query), k, _plain(passes), recall))

    def declare_index(self, name: str, prefix: bytes, spec: dict[str, Any], /) -> None:
        self._call("declare_index", name, prefix, spec)

    # -- writes, refused where this is a view

    def _write(self, method: str, *arguments: Any) -> Any:
        return self._call(method, *arguments)

    def put(self, key: Key, value: Any, ttl_us: int | None = None, /) -> int | None:
        return cast(int | None, self._write("put", self._key(key), self._value(value), ttl_us))

    def put_until(self, key: Key, value: Any, expires: int | None, /) -> int | None:
        return cast(int | None, self._write("put_until", self._key(key), self._value(value), expires))

    def put_many(self, rows: Iterable[tuple[Key, Any]], ttl_us: int | None = None, /) -> int | None:
        parts = list(_parts(self._pairs(rows)))
        if len(parts) == 1:
            return cast(int | None, self._write("put_many", parts[0], ttl_us))

        def put_parts(txn: Any) -> None:
            for part in parts:
                txn._write("put_many", part, ttl_us)

        return atomically(self, put_parts)[1]

    def delete(self, key: Key, /) -> bool | None:
        return cast(bool | None, self._write("delete", self._key(key)))

    def delete_many(self, keys: Iterable[Key], /) -> int | None:
        return cast(int | None, self._write("delete_many", self._keys(keys)))

    def patch(self, key: Key, ops: Sequence[PatchOp], /) -> int | None:
        checked = [(*op[:2], *map(self._value, op[2:])) for op in ops]
        return cast(int | None, self._write("patch", self._key(key), checked))

    def append(self, stream: bytes, kind: str, value: Any, origin: Any = None, /) -> Appended:
        value, origin = self._value(value), self._value(origin)
        sequence, time, hash, version = self._write("append", stream, kind, value, origin)
        return sequence, time, hash, version

    def add(self, key: Key, delta: int | float, /) -> int | None:
        return cast(int | None, self._write("add", self._key(key), self._value(delta)))

    def expect(self, key: Key, *, version: int | None = None, value: Any = ..., absent: bool = False) -> None:
        asked = ABSENT if value is ... else self._value(value)
        self._write("expect", self._key(key), version, asked, absent)

    def begin(self) -> tuple[Transaction, Txn]:
        raise InvalidInput("a transaction cannot begin inside another")

    def pinned(self) -> Txn:
        return self

    # -- arguments: what cannot go over the wire is refused here, as the store would

    def _key(self, key: Any) -> Any:
        if key.__class__ in _SCALARS:
            return key
        raise InvalidInput(
            f"a key is {'str' if self._layout.text_keys else 'bytes'}, not {type(key).__name__}"
        )

    def _keys(self, keys: Iterable[Any]) -> list[Any]:
        return [self._key(key) for key in _each(keys, "keys")]

    def _value(self, value: Any) -> Any:
        # Also where it looks plain: an int of more than 64 bits is none.
        check(value, finite=self._layout.finite)
        return value

    def _pairs(self, rows: Any) -> list[tuple[Any, Any]]:
        found = []
        for row in _each(rows, "rows"):
            try:
                key, value = row
            except (TypeError, ValueError):
                raise InvalidInput(f"rows are (key, value) pairs, not {row!r:.60}") from None
            found.append((self._key(key), self._value(value)))
        return found


class AutomaticTxn(RemoteTxn):
    """The newest state of a branch; each write is a commit."""

    __slots__ = ("_branch",)

    mode: Literal["automatic", "inside", "view"] = "automatic"

    def __init__(self, branch: RemoteBranch, space: str, layout: Layout) -> None:
        super().__init__(branch, space, layout)
        self._branch = branch

    def begin(self) -> tuple[Transaction, Txn]:
        # Nobody can see when it begins but by what it reads, so it begins together with its first request.
        # Nor does anybody see when it writes, so that goes together with the commit.
        transaction = self._branch.transaction("serializable", False, None)
        transaction.gathers = True
        return transaction, transaction.keyspace(self._space, self._layout)

    def pinned(self) -> Txn:
        return self._branch.view().keyspace(self._space, self._layout)


class ViewTxn(RemoteTxn):
    """One version of a branch."""

    __slots__ = ()

    mode: Literal["automatic", "inside", "view"] = "view"

    def _write(self, method: str, *arguments: Any) -> Any:
        raise ReadOnly("a view shows the past, which cannot be written to")

    def begin(self) -> tuple[Transaction, Txn]:
        raise ReadOnly("a view shows the past, which cannot be written to")


class InsideTxn(Bound, RemoteTxn):
    """A keyspace inside a transaction."""

    __slots__ = ("_transaction",)

    mode: Literal["automatic", "inside", "view"] = "inside"

    def __init__(self, transaction: RemoteTransaction, space: str, layout: Layout) -> None:
        super().__init__(transaction, space, layout)
        self._transaction = transaction

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        if self._transaction.gathers:
            self._transaction.send()  # what it wrote before, which this may read
        return super()._call(method, *arguments, **options)

    def _write(self, method: str, *arguments: Any) -> Any:
        if method in _GATHERED and self._transaction.gathers:
            return self._transaction.gather(self, method, arguments)
        return self._call(method, *arguments)

    def send(self, method: str, arguments: Any) -> None:
        """Make a write that was gathered."""
        super()._call(method, *arguments)

    def _writes_itself(self) -> bool:
        return False


def _each(several: Any, what: str) -> Iterator[Any]:
    try:
        found: Iterator[Any] = iter(several)
        return found
    except TypeError:
        raise InvalidInput(f"{what} are several, not {type(several).__name__}") from None


def _parts(pairs: list[tuple[Any, Any]]) -> Iterator[list[tuple[Any, Any]]]:
    """Yield the rows in parts that a frame has room for; one part, if there are none."""
    part: list[tuple[Any, Any]] = []
    size = 0
    for pair in pairs:
        part.append(pair)
        try:
            size += len(encode(pair))
        except UnicodeEncodeError:
            raise InvalidInput(f"the key {pair[0]!r} has a lone surrogate and is no Unicode text") from None
        if size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part or not pairs:
        yield part


def _row(found: Any) -> Any:
    return None if found is None else tuple(found)


def _rows(found: Any) -> list[Any]:
    return [tuple(row) for row in found]


def _plain(passes: Passes | None) -> Any:
    if passes is None or "keys" not in passes:
        return passes
    return {**passes, "keys": list(passes["keys"])}
