"""Writes that happen at most once: what a client repeats when it does not know what became of a call.

The idempotency key goes into the commit. When one with the key is there already nothing is written, and what
that one did is the answer: it is read from what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from strata.core.atomic import back_off
from strata.core.errors import Conflict, InvalidInput
from strata.core.protocols import DELETE, Branch, Layout, Written

Place = tuple[Branch, str, Layout]


def write_once(place: Place, method: str, run: Callable[..., Any], arguments: Sequence[Any], key: str) -> Any:
    """Return what a write of `Txn` returns outside of a transaction, made in a commit with the key `key`.

    Args:
        method, run: its name, and what calls it with a keyspace and `arguments`.
    """
    branch, space, layout = place
    attempt = 0
    while True:
        first = branch.result_of(key)
        if first is not None:
            return _answer(place, method, arguments, first)
        transaction = branch.begin()
        try:
            inside = transaction.keyspace(space, layout)
            if method in ("delete", "delete_many"):
                # Inside a transaction nobody says what existed, so it is looked up: a footprint, as it must
                # be.
                there = [name for name in _named(method, arguments) if inside.contains(name)]
                if not there:  # no commit, and no need of a key; but a branch that takes no writes says so
                    transaction.rollback()
                    return run(branch.keyspace(space, layout), *arguments)
                inside.delete_many(there)
            else:
                run(inside, *arguments)
        except BaseException:
            transaction.rollback()
            raise
        try:
            version = transaction.commit(None, None, None, key)
        except Conflict:
            attempt += 1
            back_off(attempt)
            continue
        if method in ("delete", "delete_many"):
            return len(set(there)) if method == "delete_many" else bool(there)
        return _answer(place, method, arguments, version)


def _named(method: str, arguments: Sequence[Any]) -> Sequence[Any]:
    (named,) = arguments
    return named if method == "delete_many" else [named]


def _answer(place: Place, method: str, arguments: Sequence[Any], version: int) -> Any:
    """Return what the write that made `version` returns."""
    if method == "append":
        return _appended(_written(place, version), arguments[0] if arguments else None, version)
    if method == "delete":
        return True  # or there would have been no commit
    if method == "delete_many":
        # Of those that retention has let go of nothing is known but that there was one.
        return max(1, sum(1 for row in _written(place, version) if row[4] & DELETE))
    return version


def _written(place: Place, version: int) -> list[Written]:
    branch, space, layout = place
    return [row for row in branch.writes(version - 1, version) if row[1:3] == (space, layout.kind)]


def _appended(rows: list[Written], stream: Any, version: int) -> tuple[int, int, bytes, int]:
    for row in rows:
        if row[3][:-8] == stream:
            _, time, _, hash, *_ = row[5]
            return int.from_bytes(row[3][-8:]), time, hash, version
    raise InvalidInput(
        f"the key was used for another write, version {version}, or its event was forgotten",
        hint="a key belongs to one write for good",
    )
