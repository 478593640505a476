"""Run an operation for a command line: the one place that calls it, at a place or inside a transaction.

Rows come page by page, so that a long list takes no memory, and all pages of the data of one place are read
in one transaction, so that they are of one version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from strata.api.dispatch import HERE, Inside, Options, Where, dispatch, resolve, run
from strata.api.view import View

if TYPE_CHECKING:
    from msgspec import Struct

    from strata.api.database import Database
    from strata.api.operations import Operation
    from strata.api.place import Place


def call(
    database: Database, operation: Operation, request: Struct, where: Where = HERE,
    commit: Options | None = None, inside: Inside | None = None,
) -> Any:  # fmt: skip
    """Return the result of an operation as plain data: of those with pages an iterator over all rows."""
    if operation.pages:
        return _rows(database, operation, request, where, inside)
    if inside is not None:
        return run(operation, request, database, inside)
    return dispatch(database, operation.name, where, request, commit=commit)


def _rows(
    database: Database, operation: Operation, request: Any, where: Where, inside: Inside | None
) -> Iterator[Any]:
    """Yield the rows of one page after the other, up to the limit of the request if it has one."""
    if inside is not None:
        yield from _pages(database, operation, request, inside)
    elif operation.in_transactions and where.at is None:
        with snapshot(resolve(database, operation, where)) as tx:
            yield from _pages(database, operation, request, tx)
    else:
        yield from _pages(database, operation, request, resolve(database, operation, where))


@contextmanager
def snapshot(place: Place | View) -> Iterator[Any]:
    """Yield the face of a place at one version: of a place the newest, and of a view its own."""
    if isinstance(place, View):
        yield place
        return
    tx = place.transaction(isolation="snapshot")  # a view would show what has expired since the last commit
    try:
        yield tx
    finally:
        tx.rollback()


def _pages(database: Database, operation: Operation, request: Any, at: Place | Any) -> Iterator[Any]:
    left: int | None = request.limit
    while True:
        page = run(operation, request, database, at)
        yield from page["items"]
        if left is not None:
            left -= len(page["items"])
        if page["next"] is None or left == 0:
            return
        request = msgspec.structs.replace(request, **page["next"], limit=left)
