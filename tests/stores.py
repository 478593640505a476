"""Stores for the tests of the core and the primitives: the oracle, the kernel, and the kernel served, which
must not differ."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import served

from strata.primitives import Events, Json, Kv, Machines, RunRecords, State, Traces, Vectors
from strata.testing import FakeClock, Model

KINDS = os.environ.get("STRATA_TEST_STORES", "model kernel").split()


def make(kind: str, clock: Callable[[], int] | None = None) -> Any:
    """Return an empty store in memory."""
    if kind == "model":
        return Model(clock)
    from strata.store import open_store

    store = open_store(None, clock=clock)
    return store if kind == "kernel" else served.over_socket(store)


class Face:
    """The primitives over a source of keyspaces: a branch, a snapshot, a transaction."""

    def __init__(self, source: Any, space: str = "default") -> None:
        self.source = source
        self.kv = Kv(source.keyspace(space, Kv.LAYOUT))
        self.events = Events(source.keyspace(space, Events.LAYOUT))
        self.state = State(source.keyspace(space, State.LAYOUT))
        self.json = Json(source.keyspace(space, Json.LAYOUT))
        self.traces = Traces(source.keyspace(space, Traces.LAYOUT))
        self.runs = RunRecords(source.keyspace(space, RunRecords.LAYOUT))
        self.vectors = Vectors(source.keyspace(space, Vectors.LAYOUT))
        self.machines = Machines(source.keyspace(space, Machines.LAYOUT), source)


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
        super().__init__(transaction)
        self.commit, self.rollback = transaction.commit, transaction.rollback

    def space(self, name: str) -> Face:
        return Face(self.source, name)


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
