"""Forget: take something out of everything that a database has of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Final, cast

from strata.api.retention import check_primitive
from strata.api.webhooks_rows import LAYOUT, SPACE, home_of, rows_of, waiting
from strata.core.errors import InvalidInput
from strata.core.keys import check_name
from strata.core.protocols import Branch, ErasureRow, Store, Txn
from strata.core.refs import EntityRef
from strata.primitives import PRIMITIVES
from strata.primitives.base import Primitive

_COMMITS: Final = 4096  # whose writes are looked at together

Where = str | EllipsisType | None  # a space, the handle's, or all


@dataclass(frozen=True, slots=True)
class ForgetInfo:
    """What `forget` removed, with what retention let go of in the same pass."""

    versions_removed: int
    reclaimed_bytes: int  # of the sorted files
    log_segments_removed: int


def forget(store: Store, row: ErasureRow) -> ForgetInfo:
    """Let the store forget what `row` says, and what follows from it."""
    done = store.forget([row, *_derived(store, *row), *_told(store, *row)])
    return ForgetInfo(done["versions_removed"], done["reclaimed_bytes"], done["log_segments_removed"])


def _derived(
    store: Store, space: str | None, kind: str, start: bytes, is_prefix: bool
) -> Iterator[ErasureRow]:
    """Yield the rows that follow from those to be forgotten, on any branch, such as those of an index."""
    primitive: type[Primitive] = PRIMITIVES[kind]
    if not primitive._DERIVES:
        return
    for info in store.branches():
        branch = store.branch(info.name)
        for name in branch.spaces() if space is None else [space]:
            rows = branch.keyspace(name, primitive.LAYOUT)
            for key in _things(branch, rows, start) if is_prefix else [start]:
                for value, _, _, is_deleted, _ in rows.history(key, None, None):
                    if not is_deleted:
                        yield from (
                            (space, kind, *row) for row in primitive._derived(cast(bytes, key), value)
                        )


def _told(store: Store, space: str | None, kind: str, start: bytes, is_prefix: bool) -> Iterator[ErasureRow]:
    """Yield the rows of what webhooks were to be told of it, and could not be told yet or at all."""
    home = home_of(store)
    for key, message in [] if home is None else waiting(rows_of(home)):
        if message.primitive == kind and space in (None, message.space):
            place, _ = PRIMITIVES[kind]._erasure(message.key, False)
            if place == start or (is_prefix and place.startswith(start)):
                yield SPACE, LAYOUT.kind, key.encode(), False


def _things(branch: Branch, rows: Txn, start: bytes) -> set[Any]:
    """Return the keys that begin so, also those of what was deleted and is only in the history."""
    _, space, kind = rows.names
    found: set[Any] = {*rows.scan_keys(start, None, None, False, None)}
    for after in range(0, branch.head, _COMMITS):
        for written in branch.writes(after, min(after + _COMMITS, branch.head)):
            if written[1:3] == (space, kind) and written[3].startswith(start):
                found.add(written[3])
    return found


def erasure_of(
    what: str | EntityRef, key: str | None, prefix: str | None, space: Where, home: str
) -> ErasureRow:
    """Return what is to be forgotten as the store takes it.

    Args:
        home: the space that is meant by `...`.
    Raises: InvalidInput, and LimitExceeded, for what says nothing that could be forgotten.
    """
    if isinstance(what, EntityRef):
        if not (key is None and prefix is None and space is ...):
            raise InvalidInput("a ref says all there is to say: give it alone")
        what, key, space = _named_by(what)
    primitive = check_primitive(what)
    where = home if space is ... else space
    if where is not None:
        check_name(where, "space")
    if (key is None) is (prefix is None):
        raise InvalidInput(
            "forget takes a key or a prefix",
            hint="db.forget('kv', 'key') or db.forget('kv', prefix='user/7/')",
        )
    start, is_prefix = PRIMITIVES[primitive]._erasure(prefix if key is None else key, key is None)
    return where, primitive, start, is_prefix


def _named_by(ref: EntityRef) -> tuple[str, str, str]:
    if ref.path is not None or ref.version is not None:
        raise InvalidInput(
            f"forget takes the whole of it, not {ref}",
            hint="leave out path and version, or set the path anew",
        )
    # A ref to one event would be taken for a stream of that name, and nothing would be forgotten.
    if ref.primitive == "events" and re.search(r"/\d+$", ref.key):
        raise InvalidInput(
            f"{ref} is one event, and forget takes whole streams",
            hint="db.forget('events', stream) also takes a stream whose name ends so",
        )
    return ref.primitive, ref.key, ref.space
