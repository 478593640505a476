"""What a state knows of all branches, and what two states have in common.

A state of a branch *knows* every branch up to some version: itself, what it was forked off, and what was
merged into any of these, and so on. That is its knowledge, a map from branch ids to versions. Each merge
keeps the knowledge of its source in a row beside what it writes, so a state need not be asked about others:

    space "_strata", kind "merges":  id of the source  ->  {"branch", "version", "knows": {id: version}}

A branch x at version min(known to one, known to the other) is an ancestor of both. The best of these is the
base of their merge: one that no other knows, the newest if there are several (after merges in both
directions at once).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from strata.core.errors import AlreadyExists, HistoryTrimmed, NotFound
from strata.core.protocols import Layout, Snapshot, Store, Transaction

SPACE: Final = "_strata"
MERGES: Final = Layout("merges")
Knowledge = dict[int, int]
_PINS: Final = "_merged/"  # and the ids of target and source


def knowledge(state: Snapshot) -> Knowledge:
    """Return what a state knows: the newest version of each branch."""
    known: Knowledge = {}
    for branch, version in state.lineage():
        _learn(known, branch, version)
    for _, merge in state.keyspace(SPACE, MERGES).scan(None, None, None, False, None):
        for branch, version in merge["knows"].items():
            _learn(known, int(branch), version)
    return known


def remember(transaction: Transaction, source: Snapshot) -> None:
    """Write down that the state of a branch was merged into that of the transaction."""
    known = {str(branch): version for branch, version in sorted(knowledge(source).items())}
    row = {"branch": source.name, "version": source.version, "knows": known}
    transaction.keyspace(SPACE, MERGES).put(str(source.lineage()[0][0]), row)


def knows(state: Snapshot, other: Snapshot) -> bool:
    """Return whether all that `other` comes from is in `state` already."""
    known = knowledge(state)
    return all(known.get(branch, -1) >= version for branch, version in knowledge(other).items())


def bases(store: Store, one: Snapshot, other: Snapshot) -> Iterator[Snapshot]:
    """Yield the common ancestors of two states that can still be read, the best one first."""
    ours, theirs = knowledge(one), knowledge(other)
    shared = {branch: min(version, theirs[branch]) for branch, version in ours.items() if branch in theirs}
    for branch, version in sorted(shared.items(), key=lambda found: (found[1], found[0]), reverse=True):
        with contextlib.suppress(NotFound, HistoryTrimmed):
            yield store.snapshot(branch, version)


def pin(store: Store, source: Snapshot, target: int) -> None:
    """Let retention keep a state that was merged into a branch, and no longer the one merged before it."""
    name = f"{_PINS}{target}/{source.lineage()[0][0]}"
    with contextlib.suppress(NotFound):
        store.untag(name)
    with contextlib.suppress(AlreadyExists, NotFound, HistoryTrimmed):
        store.tag(name, source.name, source.version)


def unpin(store: Store, target: int) -> None:
    """Let go of what was merged into a branch, which is deleted."""
    for tag in store.tags():
        if tag.name.startswith(f"{_PINS}{target}/"):
            with contextlib.suppress(NotFound):
                store.untag(tag.name)


def _learn(known: Knowledge, branch: int, version: int) -> None:
    known[branch] = max(version, known.get(branch, -1))
