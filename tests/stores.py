"""Stores for the tests of the core and the primitives, which must not differ.

model, kernel    the oracle, and ours
served           the kernel, asked through a local connection
tls              the same over TCP with TLS and a token, as from another machine
aio, aio-served  both, asked through `strata.aio`; what is asked of a store itself is asked of it, and all
                 that is over it (databases, primitives, transactions) through a loop: see loops.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Any

import served

from strata.primitives import Events, Json, Kv, Machines, RunRecords, State, Traces, Vectors
from strata.testing import FakeClock, Model

KINDS = os.environ.get("STRATA_TEST_STORES", "model kernel").split()
ASYNC = ("aio", "aio-served")


def make(kind: str, clock: Callable[[], int] | None = None) -> Any:
    """Return an empty store in memory."""
    if kind == "model":
        return Model(clock)
    from strata.store import open_store

    store = open_store(None, clock=clock)
    if kind in ("kernel", "aio"):
        return store
    return served.over_tls(store) if kind == "tls" else served.over_socket(store)


class Face:
    """The primitives over a source of keyspaces: a branch, a snapshot, a transaction."""

    def __init__(self, source: Any, space: str = "default", lane: Any = None) -> None:
        self.source = source
        self.lane = lane  # of a transaction, for calls in a loop
        made = self._made
        self.kv = made(Kv, space)
        self.events = made(Events, space)
        self.state = made(State, space)
        self.json = made(Json, space)
        self.traces = made(Traces, space)
        self.runs = made(RunRecords, space)
        self.vectors = made(Vectors, space)
        self.machines = made(Machines, space, source)

    def _made(self, primitive: type[Any], space: str, *more: Any) -> Any:
        found = primitive(self.source.keyspace(space, primitive.LAYOUT), *more)
        if not set(KINDS) & set(ASYNC) or type(self.source).__module__ == "strata.testing.model":
            return found
        from loops import through_primitive

        return through_primitive(found, self.lane)


class Place(Face):
    """A branch of a store, with transactions."""

    def __init__(self, store: Any, branch: str = "main", space: str = "default") -> None:
        self.store, self.branch = store, store.branch(branch)
        self.clock: FakeClock | None = None
        super().__init__(self.branch, space)

    def begin(self, isolation: str = "serializable", key: str | None = None) -> Inside:
        return Inside(self.branch.begin(isolation, False, key))

    def at(self, version: int, space: str = "default") -> Face:
        return Face(self.branch.view(version), space)

    @property
    def everything(self) -> Any:
        """All that a reader can see, and the newest version."""
        return self.branch.head, dump(self)


class Inside(Face):
    """A transaction."""

    def __init__(self, transaction: Any) -> None:
        super().__init__(transaction, lane=Lock())
        self.commit, self.rollback = transaction.commit, transaction.rollback

    def space(self, name: str) -> Face:
        return Face(self.source, name, self.lane)


def dump(face: Face) -> dict[str, Any]:
    """All that a reader can see of one space."""
    return {
        "kv": list(face.kv.scan()),
        "state": [(name, face.state.get(name)) for name in face.state.list()],
        "json": [(name, face.json.get(name)) for name in face.json.list()],
        "traces": list(face.traces.list()),
        "machines": [list(face.machines), face.machines.definitions()],
        "events": {
            stream: [
                (event.sequence, event.type, event.payload) for event in face.events.range(stream=stream)
            ]
            for stream in face.events.streams()
        },
    }
