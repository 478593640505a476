"""Random histories: the kernel against the oracle.

Strategy: both get the same operations of all primitives, automatic ones mixed with those of several open
transactions, with forks, views, renames and deletions of branches, restarts and power cuts in between. Every
result must be alike, errors and places of conflicts included, and so must versions and times, since the
clock is the same. At the end every branch must read alike at every version that was ever made.

Few keys and small values: what we look for lies in how operations overlap, not in the bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import stores
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from strata.core.errors import Conflict, StrataError
from strata.testing import FakeClock, Model

TRACES = st.sampled_from(["t1", "t2", "t3"])
KEYS = st.sampled_from(["a", "a/b", "ab", "b"])
DOCS = st.sampled_from(["d", "e"])
STREAMS = st.sampled_from(["main", "log"])
NAMES = ["main", "b1", "b2"]
BRANCHES = st.sampled_from(["main", "main", "main", "b1", "b2"])
SPACES = st.sampled_from(["default", "default", "default", "s"])
ISOLATIONS = st.sampled_from(["serializable", "serializable", "snapshot"])
PATHS = st.sampled_from(
    ["$", "$.a", "$.a.b", "$.a.c", "$.l", "$.l[0]", "$.l[1].a", "$.l[-1]", "$.l[-]", "$[0]", "$.b.a.b"]
)
POINTERS = st.sampled_from(["", "/a", "/a/b", "/l", "/l/0", "/l/-", "/l/1/a", "/b", "/0"])
NUMBERS = st.sampled_from([0, 1, -1, 1.0, 2**62, -(2**62)])
VALUES = st.sampled_from(
    [0, 1, 1.0, True, None, "x", b"x", [], {}, [1], {"a": 1}, {"a": {"b": 1}, "l": [1, {"a": 1}]}]
)
JSON = st.sampled_from(
    [0, None, [], {}, {"a": None}, {"a": {"b": 1}}, {"a": {"c": None}, "l": [1, {"a": 1}]}]
)
BOUNDS = st.none() | KEYS
# Microseconds: the steps of the clock are about as long. Zero is refused.
TTLS = st.sampled_from([None, None, 0, 3e-6, 10e-6, 40e-6, 86_400])
VERSIONS = st.integers(0, 60)


def op(primitive: str, name: str, *args: Any, **options: Any) -> Any:
    """A strategy for one call: primitive, method, arguments, keyword arguments."""
    return st.tuples(st.just(primitive), st.just(name), st.tuples(*args), st.fixed_dictionaries(options))


SCAN = {"start": BOUNDS, "end": BOUNDS, "reverse": st.booleans(), "limit": st.none() | st.integers(1, 3)}
RFC6902 = st.one_of(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "replace", "test"]), "path": POINTERS, "value": JSON}
    ),
    st.fixed_dictionaries({"op": st.just("remove"), "path": POINTERS}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "from": POINTERS, "path": POINTERS}),
)
WRITES = st.one_of(
    op("kv", "put", KEYS, VALUES),
    op("kv", "put", KEYS, VALUES | NUMBERS, ttl=TTLS),
    op("kv", "delete", KEYS),
    op("kv", "incr", KEYS, NUMBERS),
    op("kv", "cas", KEYS, VALUES, expected=VALUES, ttl=TTLS),
    op("kv", "cas", KEYS, VALUES, expected_version=VERSIONS, ttl=TTLS),
    op("kv", "put_many", st.lists(st.tuples(KEYS, VALUES), max_size=3), ttl=TTLS),
    op("kv", "delete_many", st.lists(KEYS, max_size=3)),
    op("state", "init", KEYS, VALUES, ttl=TTLS),
    op("state", "set", KEYS, VALUES, ttl=TTLS),
    op("state", "cas", KEYS, st.integers(0, 4), VALUES, ttl=TTLS),
    op(
        "state",
        "transition",
        KEYS,
        st.just(lambda value: [value] if value is None else 1),
        default=VALUES,
        ttl=TTLS,
    ),
    op("state", "delete", KEYS),
    op("events", "append", st.sampled_from(["t", "u"]), st.just({"b": 1, "a": [2]}), stream=STREAMS),
    op("events", "append_many", st.lists(st.tuples(st.just("m"), st.just({})), max_size=3), stream=STREAMS),
    op(
        "traces",
        "record",
        st.sampled_from(["thought", "query"]),
        id=TRACES,
        parent=st.none() | TRACES,
        tags=st.lists(st.sampled_from(["x", "y"]), max_size=2),
        writes=st.sampled_from([[], ["strata://main/default/kv/a"]]),
    ),
)
JSON_WRITES = st.one_of(
    op("json", "create", DOCS, JSON, ttl=TTLS),
    op("json", "set", DOCS, PATHS, JSON),
    op("json", "set", DOCS, PATHS, JSON),
    op("json", "set", DOCS, st.just("$"), JSON, ttl=TTLS),
    op("json", "delete", DOCS, PATHS),
    op("json", "destroy", DOCS),
    op("json", "merge", DOCS, JSON, PATHS),
    op("json", "append", DOCS, PATHS, JSON),
    op("json", "insert", DOCS, PATHS, JSON),
    op("json", "cas", DOCS, VERSIONS, PATHS, JSON),
    op("json", "patch", DOCS, st.lists(RFC6902, max_size=4)),
)
MACHINE: Any = {
    "states": ["a", "b", "c"],
    "initial": "a",
    "transitions": [
        {"from": "a", "event": "E", "to": "b", "guard": "ctx.n >= 1"},
        {"from": ["a", "b"], "event": "E", "to": "c"},
        {"from": ["b", "c"], "event": "F", "to": "b"},
    ],
    "timers": [{"state": "b", "after": 10e-6, "event": "F"}],
    "actions": [{"on": "enter", "state": "c", "do": "kv.incr", "key": "a"}],
}
IDS = st.sampled_from(["i", "j"])
CONTEXTS = st.none() | st.dictionaries(st.sampled_from("nm"), st.integers(0, 2), max_size=2)
EVENTS = st.sampled_from(["E", "E", "F"])
ONCE = st.sampled_from([None, None, "k"])
ITEMS = st.one_of(
    st.fixed_dictionaries({"op": st.just("create"), "machine": st.just("m"), "id": IDS, "context": CONTEXTS}),
    st.fixed_dictionaries({"op": st.just("apply"), "id": IDS, "event": EVENTS, "payload": CONTEXTS}),
    st.fixed_dictionaries({"op": st.just("delete"), "id": IDS}),
)
MACHINES = st.one_of(
    op("machines", "define", st.just("m"), st.integers(1, 2), st.just(MACHINE)),
    op("machines", "define", st.just("m"), st.just(1), st.just(MACHINE | {"meta": 1})),
    op("machines", "create", st.just("m"), IDS, CONTEXTS, ttl=TTLS, idempotency_key=ONCE),
    op("machines", "create", st.just("m"), IDS, CONTEXTS, recreate=st.booleans()),
    op("machines", "apply", IDS, EVENTS, CONTEXTS, idempotency_key=ONCE),
    op("machines", "apply", IDS, EVENTS, CONTEXTS, expected_state=st.sampled_from([None, "a", "b"])),
    op("machines", "delete", IDS, idempotency_key=ONCE),
    op("machines", "batch", st.lists(ITEMS, max_size=4), atomic=st.booleans()),
    op("machines", "migrate", st.just("m"), dry_run=st.booleans()),
    op("machines", "fire_due"),
    op("machines", "get", IDS),
    op("machines", "list", st.just("m"), st.sampled_from([None, "a", "b", "c"])),
    op("machines", "count", st.just("m")),
    op("machines", "history", IDS),
)
READS = st.one_of(
    op("kv", "get", KEYS),
    op("kv", "entry", KEYS),
    op("kv", "get_many", st.lists(KEYS, max_size=3)),
    op("kv", "scan", BOUNDS, **SCAN),
    op("kv", "keys", BOUNDS, **SCAN),
    op("kv", "count", BOUNDS),
    op("kv", "history", KEYS, before=st.none() | VERSIONS, limit=st.none() | st.integers(1, 3)),
    op("state", "entry", KEYS),
    op("state", "history", KEYS),
    op("json", "get", DOCS, PATHS),
    op("json", "exists", DOCS, PATHS),
    op("json", "entry", DOCS),
    op("json", "list"),
    op("json", "history", DOCS),
    op("events", "get", st.integers(0, 5), stream=STREAMS),
    op(
        "events",
        "range",
        st.integers(0, 3),
        stream=STREAMS,
        reverse=st.booleans(),
        limit=st.none() | st.just(2),
    ),
    op("events", "len", STREAMS),
    op("events", "verify"),
    op("traces", "get", TRACES),
    op("traces", "children", TRACES),
    op("traces", "by_tag", st.just("x"), reverse=st.booleans(), limit=st.none() | st.just(1)),
    op("traces", "count", kind=st.sampled_from([None, "query"])),
)
OPERATIONS = WRITES | JSON_WRITES | READS | MACHINES


def call(face: stores.Face, operation: Any) -> Any:
    primitive, name, args, options = operation
    return getattr(getattr(face, primitive), name)(*args, **options)


def plain(value: Any) -> Any:
    """A form in which 1, 1.0 and True differ and the order of maps does not."""
    if isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.structs.asdict(value))
    if dataclasses.is_dataclass(value):
        compared = [field for field in dataclasses.fields(value) if field.compare]
        return plain([getattr(value, field.name) for field in compared])
    return type(value).__name__, value


def raw(bound: str | bytes | None) -> bytes | None:
    return bound.encode() if isinstance(bound, str) else bound


def outcome(act: Any) -> Any:
    """What a call returns or raises, to compare."""
    try:
        return plain(act())
    except Conflict as error:
        # Of several paths in one value the kernel names the first.
        return (
            "Conflict",
            {str(found.ref) for found in error.keys},
            {str(found.ref) for found in error.paths},
            {(found.space, found.primitive, raw(found.start), raw(found.end)) for found in error.ranges},
        )
    except StrataError as error:
        return type(error).__name__


class Histories(RuleBasedStateMachine):
    """One history, made twice."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.open: list[tuple[stores.Inside, stores.Inside]] = []

    @initialize(durability=st.sampled_from(["strict", "buffered"]), seed=st.integers(0, 99))
    def begin_both(self, durability: str, seed: int) -> None:
        from strata.store import SimDisk

        self.model, self.durability, self.disk = Model(self.clock), durability, SimDisk(seed)
        self.kernel = self.start()
        self.both(lambda store: stores.Place(store).kv.put_many({"a": 1, "b": 2.0}))
        self.both(lambda store: stores.Place(store).json.set("d", "$", {"a": {"b": 1}, "l": [1, {"a": 1}]}))
        self.both(lambda store: stores.Place(store).machines.define("m", 1, MACHINE))

    def start(self) -> Any:
        from strata.store import open_store

        return open_store(
            "db", durability=self.durability, disk=self.disk, clock=self.clock, segment_bytes=1 << 16
        )

    def both(self, act: Any) -> Any:
        """Do the same to both; return what came of it, which must be the same."""
        made, expected = outcome(lambda: act(self.kernel)), outcome(lambda: act(self.model))
        assert made == expected
        return made

    @rule(branch=BRANCHES, space=SPACES, operation=OPERATIONS)
    def automatic(self, branch: str, space: str, operation: Any) -> None:
        self.both(lambda store: call(stores.Place(store, branch, space), operation))

    @precondition(lambda self: len(self.open) < 3)
    @rule(branch=BRANCHES, isolation=ISOLATIONS,
          key=st.none() | st.sampled_from(["k1", "k2"]))  # fmt: skip
    def begin(self, branch: str, isolation: str, key: str | None) -> None:
        with contextlib.suppress(StrataError):
            pair = [stores.Place(store, branch).begin(isolation, key) for store in (self.kernel, self.model)]
            self.open.append((pair[0], pair[1]))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2), space=SPACES, operations=st.lists(OPERATIONS, min_size=1, max_size=4))
    def inside(self, which: int, space: str, operations: Any) -> None:
        pair = self.open[which % len(self.open)]
        for operation in operations:
            made, expected = (outcome(lambda tx=tx, op=operation: call(tx.space(space), op)) for tx in pair)
            assert made == expected, operation

    @rule(branch=BRANCHES, isolation=ISOLATIONS, ours=st.lists(OPERATIONS, min_size=1, max_size=3),
          theirs=st.lists(WRITES | JSON_WRITES, min_size=1, max_size=2))  # fmt: skip
    def race(self, branch: str, isolation: str, ours: Any, theirs: Any) -> None:
        """One transaction, and what comes first. The other rules reach this too, but seldom."""
        self.begin(branch, isolation, None)
        if self.open:
            self.inside(-1, "default", [*ours, ("state", "set", ("raced", 1), {})])
            for operation in theirs:
                self.automatic(branch, "default", operation)
            self.end(-1, True)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2), commit=st.sampled_from([True, True, True, False]))
    def end(self, which: int, commit: bool) -> None:
        pair = self.open.pop(which % len(self.open))
        made, expected = (outcome(lambda tx=tx: tx.commit() if commit else tx.rollback()) for tx in pair)
        assert made == expected

    @rule(source=st.sampled_from(NAMES), name=st.sampled_from(NAMES), at=st.none() | VERSIONS)
    def fork(self, source: str, name: str, at: int | None) -> None:
        self.both(lambda store: store.fork(source, name, at))

    @rule(name=st.sampled_from(NAMES))
    def create(self, name: str) -> None:
        self.both(lambda store: store.create(name))

    @rule(old=st.sampled_from(NAMES[1:]), new=st.sampled_from(NAMES))
    def rename(self, old: str, new: str) -> None:
        self.both(lambda store: store.rename(old, new))

    @rule(name=st.sampled_from(NAMES[1:]))
    def delete(self, name: str) -> None:
        self.both(lambda store: store.delete(name))

    @rule(branch=BRANCHES, version=VERSIONS, space=SPACES, operation=OPERATIONS)
    def view(self, branch: str, version: int, space: str, operation: Any) -> None:
        self.both(lambda store: call(stores.Face(store.branch(branch).view(version), space), operation))

    @rule(branch=BRANCHES, version=VERSIONS, micros=st.integers(-5, 100), space=SPACES, operation=OPERATIONS)
    def view_of_an_instant(self, branch: str, version: int, micros: int, space: str, operation: Any) -> None:
        """Of any version, as one of another line may be asked for."""
        time = FakeClock()() + micros
        self.both(lambda store: call(stores.Face(store.branch(branch).view(version, time), space), operation))

    @rule(old=BRANCHES, old_at=st.none() | VERSIONS, new=BRANCHES, new_at=st.none() | VERSIONS)
    def diff(self, old: str, old_at: int | None, new: str, new_at: int | None) -> None:
        def compare(store: Any) -> Any:
            snapshots = store.branch(old).view(old_at), store.branch(new).view(new_at)
            rows = snapshots[0].diff(snapshots[1])
            pages = [page for limit in (1, 1000, 1) for page in rows.page(limit)]
            return [
                [
                    *row[:5],
                    row[5][0],
                    sorted(row[5][1], key=repr),
                    snapshots[1].how(snapshots[0], *row[:3]) == row[5],
                ]
                for row in pages
            ], [view.lineage() for view in snapshots]

        self.both(compare)

    @rule(branch=BRANCHES, after=VERSIONS, upto=VERSIONS)
    def writes(self, branch: str, after: int, upto: int) -> None:
        self.both(lambda store: store.branch(branch).writes(after, upto))

    @rule(micros=st.integers(-5, 20) | st.just(86_400_000_000))
    def time_passes(self, micros: int) -> None:
        self.clock.advance(micros)

    @rule(branch=BRANCHES, micros=st.integers(-5, 100))
    def instant(self, branch: str, micros: int) -> None:
        self.both(lambda store: store.branch(branch).version_at(FakeClock()() + micros))

    @rule(how=st.sampled_from(["checkpoint", "compact"]))
    def settle(self, how: str) -> None:
        """Nobody sees it."""
        getattr(self.kernel, how)()

    @rule()
    def restart(self) -> None:
        self.open.clear()
        self.kernel.close()
        self.kernel = self.start()

    @rule(seed=st.integers(0, 99))
    def crash(self, seed: int) -> None:
        """Strict loses nothing to a power cut, buffered nothing to a killed process."""
        self.open.clear()
        self.disk = self.disk.crash(seed) if self.durability == "strict" else self.disk.killed()
        self.kernel = self.start()

    def teardown(self) -> None:
        if not hasattr(self, "kernel"):
            return
        self.both(lambda store: store.branches())
        for info in self.model.branches():
            self.both(lambda store, info=info: store.branch(info.name).commits(None, None, False, None))
            self.both(lambda store, info=info: everything(store.branch(info.name)))
            for version in range(self.model.version + 1):
                self.both(lambda store, info=info, at=version: everything(store.branch(info.name).view(at)))
        self.kernel.close()


def everything(view: Any) -> Any:
    return view.spaces(), {space: stores.dump(stores.Face(view, space)) for space in view.spaces()}


def test_histories() -> None:
    run_state_machine_as_test(Histories, settings=settings(
        max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    ))  # fmt: skip


@pytest.mark.slow
def test_many_long_histories() -> None:
    run_state_machine_as_test(Histories, settings=settings(
        max_examples=3000, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
    ))  # fmt: skip
