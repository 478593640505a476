"""JSON documents, read and changed by path.

    key    name of the document, as UTF-8
    value  the document: any value without NaN and infinities, usually a map

Invariant: what concurrent transactions may do is decided by the paths that they read and touch
(`core.patches`): siblings never conflict, a path conflicts with itself, its ancestors and descendants.
A document expires as a whole; a change inside leaves that as it is, and setting `$` begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, Final, cast

from strata.core.atomic import atomically
from strata.core.changes import Change, change
from strata.core.clock import Ttl, ttl_micros
from strata.core.errors import AlreadyExists, InvalidInput, NotIndexed
from strata.core.keys import check_int
from strata.core.merging import Merged, Three
from strata.core.patches import ABSENT, get_path
from strata.core.paths import parse, render
from strata.core.protocols import DELETE, END, PUT, DiffRow, Layout, PatchOp, Txn
from strata.core.values import Versioned
from strata.core.where import compile
from strata.primitives.base import MISSING, PAGE_ROWS, Primitive, versioned, versions
from strata.primitives.finding import FindPlan, plan
from strata.primitives.json_merge import differences, merge
from strata.primitives.json_patch import translate

ROOT: Final = "$"
Versions = list[Versioned]  # a name of its own, since `Json.list` hides the builtin inside the class


class Json(Primitive):
    """The JSON documents of one branch and space.

    A path is written `$.a.b[0]`, `$['odd key']`, `$[-1]`, or as a JSON Pointer `/a/b/0`. The path `$` is the
    whole document.
    """

    LAYOUT: ClassVar[Layout] = Layout("json", finite=True)
    _VERBS: ClassVar[dict[int, str]] = {**Primitive._VERBS, PUT: "set", DELETE: "destroy"}
    _PLAIN: ClassVar[bool] = True

    __slots__ = ()

    @classmethod
    def _diff(cls, rows: Iterable[DiffRow]) -> Iterator[Change]:
        """Yield the places inside each document that differ; the whole where it is new or gone."""
        for space, kind, key, old, new, _ in rows:
            name = key.decode()
            if old is None or new is None:
                yield change(space, kind, name, old and old[:2], new and new[:2])
                continue
            for path in differences(old[0], new[0]):
                before, after = (
                    None if (value := get_path(kept[0], path, ABSENT)) is ABSENT else (value, kept[1])
                    for kept in (old, new)
                )
                yield change(space, kind, name, before, after, render(path) if path else None)

    @classmethod
    def _merge(cls, three: Three) -> Merged:
        return merge(three)

    def create(self, doc: str, value: Any, ttl: Ttl | None = None) -> int | None:
        """Store a new document; return the version of the commit.

        Args:
            ttl: how long after the commit the document expires and is gone, in seconds or as a timedelta;
                None is never.
        Raises: AlreadyExists when there is one of that name.
        """
        ttl_us = None if ttl is None else ttl_micros(ttl)

        def make(txn: Txn) -> None:
            if txn.contains(doc):
                raise AlreadyExists(what="document", name=doc, hint="use set to replace it")
            txn.put(doc, value, ttl_us)

        return atomically(self._txn, make)[1]

    def get(self, doc: str, path: str = ROOT, default: Any = None) -> Any:
        """Return the value at `path` of the document, or `default` when there is none; a stored null is None.

        Cost: decodes what is returned, not the document.
        """
        value = self._txn.get_path(doc, parse(path), MISSING)
        if value is MISSING:
            self._check_space()
            return default
        return value

    def entry(self, doc: str) -> Versioned | None:
        """Return the whole document with its version and time, and when it expires; or None."""
        found = self._txn.entry(doc)
        if found is None:
            self._check_space()
            return None
        return versioned(found)

    def exists(self, doc: str, path: str = ROOT) -> bool:
        """Return whether the document has a value at `path`, which may be null."""
        steps = parse(path)
        if self._txn.get_path(doc, steps, MISSING) is not MISSING if steps else self._txn.contains(doc):
            return True
        self._check_space()
        return False

    def set(self, doc: str, path: str, value: Any, ttl: Ttl | None = None) -> int | None:
        """Store `value` at `path`, making document and missing maps if need be; return the commit's version.

        Args:
            ttl: as in `create`, for the path `$` only. Without it, what is set there never expires; deeper
                down, when the document expires stays as it is.
        Raises: InvalidInput, naming document and path, for an index beyond the end and a child of a scalar.
        """
        steps = parse(path)
        if ttl is None:
            return self._change(doc, [("set", steps, value)])
        if steps:
            raise InvalidInput(f"document {doc!r} expires as a whole", hint="give ttl with the path '$'")
        return self._txn.put(doc, value, ttl_micros(ttl))

    def delete(self, doc: str, path: str) -> int | None:
        """Remove the map key or list element at `path`, if it is there; return the commit's version."""
        steps = parse(path)
        if not steps:
            raise InvalidInput(f"the root of document {doc!r} cannot be deleted by path", hint="use destroy")
        return self._change(doc, [("delete", steps)])

    def destroy(self, doc: str) -> bool | None:
        """Remove the document; return whether it existed (None inside a transaction)."""
        return self._txn.delete(doc)

    def merge(self, doc: str, patch: Any, path: str = ROOT) -> int | None:
        """Merge `patch` into the value at `path` (RFC 7396); return the commit's version.

        Maps merge, null removes, all else replaces. Two merges conflict only where their leaves meet.
        """
        return self._change(doc, [("merge", parse(path), patch)])

    def patch(self, doc: str, operations: Iterable[Mapping[str, Any]]) -> int | None:
        """Apply a JSON Patch (RFC 6902), all of it or nothing; return the commit's version.

        Raises: InvalidInput when an operation is not one or its place does not exist; Conflict when a `test`
            fails, which compares numbers by value.
        """

        def change(txn: Txn) -> None:
            ops = translate(txn, doc, operations)
            if ops:
                txn.patch(doc, ops)

        if not isinstance(operations, (list, tuple)):
            operations = list(operations)  # it is read again when the commit has to be
        return atomically(self._txn, change)[1]

    def cas(self, doc: str, expected_version: int, path: str, value: Any) -> int | None:
        """Store `value` at `path` if the document is as one commit left it; return the new version.

        Args:
            expected_version: of the document as it was read; 0 means that there must be none. Inside a
                transaction: of the document as it is stored, whatever the transaction did to it before.
        Raises: Conflict when it is another; inside a transaction, from the commit.
        """
        check_int(expected_version, "expected_version")
        steps = parse(path)

        def swap(txn: Txn) -> None:
            if expected_version:
                txn.expect(doc, version=expected_version)
            else:
                txn.expect(doc, absent=True)
            self._try(txn, doc, [("set", steps, value)])

        return atomically(self._txn, swap, tries=1)[1]

    def append(self, doc: str, path: str, value: Any) -> int | None:
        """Put `value` at the end of the list at `path`; return the commit's version.

        Raises: InvalidInput when there is no list.
        """
        return self._change(doc, [("insert", (*parse(path), END), value)])

    def insert(self, doc: str, path: str, value: Any) -> int | None:
        """Put `value` before the list element at `path`, as `$.a[0]`; return the commit's version."""
        return self._change(doc, [("insert", parse(path), value)])

    def list(
        self,
        prefix: str | None = None,
        *,
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[str]:
        """Return the names of the documents in byte order: with `prefix`, and start <= name < end."""
        return self._keys(prefix, start, end, reverse, limit)

    def count(self, prefix: str | None = None, *, start: str | None = None, end: str | None = None) -> int:
        """Return how many documents there are, limited as in `list`."""
        return self._count(prefix, start, end)

    def history(self, doc: str, *, before: int | None = None, limit: int | None = None) -> Versions:
        """Return the versions of the document, newest first, deletions and what has expired too.

        Args:
            before: only versions below it.
        """
        return versions(self._history(doc, before, limit))

    def find(
        self,
        where: Mapping[str, Any],
        *,
        scan: bool = False,
        prefix: str | None = None,
        order_by: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Return (name, document) of the documents that pass `where`, in order of their names.

        Args:
            where: conditions by path, as `{"$.status": "open", "$.age": {"gte": 18}}`; see `core.where`.
            scan: read all documents, when no index is declared for these paths.
            order_by: a path with an ordered index: in order of the values there, without the documents that
                have none.
            reverse: in the opposite order.
        Raises: NotIndexed when there is no index and no `scan`, or none for `order_by`; InvalidInput for an
            unknown operator.
        Cost: with an index, reads what lies in its ranges (`explain_plan` says which), all at once unless the
            order is that of the index; with `scan`, every document up to the last one taken.
        """
        passes, how = compile(where), self.explain_plan(where, prefix=prefix, order_by=order_by)
        left = None if limit is None else check_int(limit, "limit")
        if how.index is None and (order_by is not None or not scan):
            names = ", ".join([*map(str, where), *filter(None, [order_by])])
            raise NotIndexed(
                f"no index answers {names}",
                what="index",
                name=names,
                hint="declare one with db.indexes.create"
                + ("" if order_by else ", or pass scan=True to read all documents"),
            )
        if how.index is None:
            rows: Iterable[tuple[str, Any]] = self._rows(prefix, None, None, reverse, None)
        else:
            rows = self._indexed(
                how, prefix, order_by is not None, reverse, left if how.exact and not prefix else None
            )
        return islice(rows if how.exact else (row for row in rows if passes(row[1])), left)

    def explain_plan(
        self, where: Mapping[str, Any], *, prefix: str | None = None, order_by: str | None = None
    ) -> FindPlan:
        """Return how `find` answers: by which index and ranges of it, and what is left to check."""
        compile(where)
        return plan(where, self._txn.indexes(), (), prefix, order_by)

    def _indexed(
        self, how: FindPlan, prefix: str | None, is_ordered: bool, reverse: bool, most: int | None
    ) -> Iterator[tuple[str, Any]]:
        """Yield the documents in the ranges of a plan, in the order of the index or of their names."""
        txn = self._txn.pinned()
        index, ranges = cast(str, how.index), reversed(how.ranges) if reverse else how.ranges
        limit = most if is_ordered and how.order else None
        found = [row for start, end in ranges for row in txn.by_value(index, start, end, reverse, limit)]
        keys = [cast(str, key) for key, _ in found if prefix is None or cast(str, key).startswith(prefix)]
        if not is_ordered:
            keys.sort(key=str.encode, reverse=reverse)
        for first in range(0, len(keys), PAGE_ROWS):
            page = keys[first : first + PAGE_ROWS]
            yield from zip(page, txn.get_many(page), strict=True)

    def _change(self, doc: str, ops: Ops) -> int | None:
        return self._try(self._txn, doc, ops)

    def _try(self, txn: Txn, doc: str, ops: Ops) -> int | None:
        """Patch, and name document and path when that cannot be."""
        try:
            return txn.patch(doc, ops)
        except InvalidInput as error:
            error.args = (f"document {doc!r} at {render(ops[0][1])}: {error.message}",)
            raise


Ops = list[PatchOp]
