"""Digests: one hash of all that a state holds, equal where two states are.

SHA-256 over the canonical MessagePack of [space, kind, key, value, when it expires] of each row that had not
expired, rows in order of space, kind and key as bytes; what Strata keeps for itself (spaces that begin with
"_") is left out. Versions are no part of it, so two ways to the same state have the same digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from strata.core.protocols import DELETE, Snapshot, Txn, Written
from strata.core.values import canonical
from strata.primitives import PRIMITIVES
from strata.primitives.base import pages

Place = tuple[str, str, bytes]  # space, kind, key
Held = tuple[Any, int | None]  # value, when it expires


def is_ours(space: str) -> bool:
    """Whether what is in a space belongs to Strata itself."""
    return space.startswith("_")


def digest(snapshot: Snapshot) -> str:
    """Return the digest of a state, in hex. Cost: reads all that it holds."""
    return _hash(_rows(snapshot))


class Fold:
    """A state that grows write by write, from what `snapshot` holds or from nothing."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._held: dict[Place, Held] = {} if snapshot is None else dict(_rows(snapshot))

    def apply(self, writes: Iterable[Written]) -> None:
        """Take the writes of a commit, or of several in their order."""
        for _, space, kind, key, how, value, expires in writes:
            if how == DELETE:
                self._held.pop((space, kind, key), None)
            elif kind in PRIMITIVES and not is_ours(space):
                self._held[space, kind, key] = value, expires

    def digest(self, time: int) -> str:
        """Return the digest of the state at a time: without what had expired."""
        rows = sorted(self._held.items(), key=lambda row: row[0])
        return _hash((place, held) for place, held in rows if held[1] is None or time < held[1])


def _hash(rows: Iterable[tuple[Place, Held]]) -> str:
    found = hashlib.sha256()
    for place, held in rows:
        found.update(canonical((*place, *held)))
    return found.hexdigest()


def _rows(snapshot: Snapshot) -> Iterator[tuple[Place, Held]]:
    """Yield the rows of a state in their order."""
    for space in sorted(snapshot.spaces()):
        for kind in () if is_ours(space) else sorted(PRIMITIVES):
            txn = snapshot.keyspace(space, PRIMITIVES[kind].LAYOUT)
            yield from (((space, kind, key), held) for key, held in _keyspace(txn))


def _keyspace(txn: Txn) -> Iterator[tuple[bytes, Held]]:
    for key in pages(txn.scan_keys, None, None, None, False, None, lambda: None):
        found = txn.entry(key)
        assert found is not None, "a view does not change"
        yield key.encode() if isinstance(key, str) else key, (found[0], found[3])
