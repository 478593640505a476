"""Indexes: whatever happened, they say what an index made of the same rows would say."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import strata
from strata.errors import AlreadyExists, Conflict, HistoryTrimmed, InvalidInput, NotFound, NotIndexed
from strata.primitives import Json
from strata.testing import FakeClock, SimDisk, looking

WORDS = ["red", "reds", "green", "blue", "cafe", "café", "the", "running", "ran", "ran fast"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([0.0, -0.0, 1.5, 2.0, 2.0**62, 2**62 + 1, -(2**63)]),
    st.sampled_from(["", "a", "a\0", "ab", "b", "é"]),
    st.just([1]),
    st.just({"x": 1}),
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "n": VALUES,
        "m": st.integers(0, 2),
        "t": st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join),
        "u": st.lists(st.sampled_from(WORDS), max_size=2),
    },
)
KEYS = st.sampled_from(["a", "b", "c", "d", "p/1", "p/2"])
BOUNDS = st.one_of(
    st.none(), st.tuples(VALUES.filter(lambda value: not isinstance(value, (list, dict))), st.booleans())
)
BRANCHES = ["main", "b1", "b2", "b3"]


def rows_of(txn: Any) -> list[Any]:
    """What a place shows: keys, versions and values."""
    return [(key, txn.entry(key)[1], value) for key, value in txn.scan(None, None, None, False, None)]


def check(txn: Any, start: Any, end: Any, words: list[str], is_pending: bool = False) -> None:
    """All indexes say of a place what its rows say."""
    rows = rows_of(txn)
    own = {} if is_pending else {key: version for key, version, _ in rows}
    for index in txn.indexes():
        if index[4]["type"] == "ordered":
            low, high = (None if bound is None else ([bound[0]], bound[1]) for bound in (start, end))
            expected = [row[0] for _, row in looking.by_value(index, rows, low, high)]
            found = txn.by_value(index[0], low, high, False, None)
            assert [key for key, _ in found] == expected
            assert all(own.get(key, version) == version for key, version in found)
            assert txn.by_value(index[0], low, high, True, 2) == found[::-1][:2]
        else:
            check_text(txn, index, rows, " ".join(words), own)


def check_text(txn: Any, index: Any, rows: list[Any], query: str, own: dict[Any, int]) -> None:
    passes = {"keys": ["a", "b", "p/1"]}
    for filters in (None, passes):
        expected = looking.by_text(index, rows, query, looking.passes(filters, rows, lambda name: index))
        found = txn.by_text(index[0], query, 100, filters)
        assert [hit[0] for hit in found["hits"]] == [hit[0] for hit in expected]
        assert [hit[2] for hit in found["hits"]] == pytest.approx([hit[2] for hit in expected], rel=1e-12)
        assert all(own.get(key, version) == version for key, version, _ in found["hits"])
        assert found["matched"] == len(expected)


class Indexing(RuleBasedStateMachine):
    """One database and what happens to it; after each step some place is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.disk = FakeClock(), SimDisk(1)
        self.views: list[Any] = []
        self.open()

    def open(self) -> None:
        self.db = strata.open(disk=self.disk, clock=self.clock, memory_budget=1 << 20)

    def teardown(self) -> None:
        self.db.close()

    @initialize(first=st.booleans())
    def begin(self, first: bool) -> None:
        self.db.json.set("d", "$", {"n": 1, "t": "red green"})
        self.db.indexes.create("by_n", primitive="json", kind="ordered", paths="$.n")
        if first:
            self.declare()

    def declare(self) -> None:
        self.db.indexes.create("by_m_n", primitive="json", kind="ordered", paths=["$.m", "$.n"])
        self.db.indexes.create("words", primitive="json", paths={"$.t": 1.0, "$.u": 2.5})
        self.db.indexes.create("p", primitive="json", prefix="p/", language=None, stop_words=False)

    def names(self) -> list[str]:
        return list(self.db.branches)

    def place(self, which: int) -> Any:
        return self.db.branch(self.names()[which % len(self.names())])

    @rule(which=st.integers(0, 3), key=KEYS, document=DOCUMENTS, ttl=st.sampled_from([None, None, 5e-5]))
    def put(self, which: int, key: str, document: Any, ttl: float | None) -> None:
        self.clock.advance(10)
        self.place(which).json.set(key, "$", document, ttl=ttl)

    @rule(which=st.integers(0, 3), key=KEYS, value=VALUES)
    def change(self, which: int, key: str, value: Any) -> None:
        self.clock.advance(10)
        self.place(which).json.set(key, "$.n", value)

    @rule(which=st.integers(0, 3), key=KEYS)
    def delete(self, which: int, key: str) -> None:
        self.clock.advance(10)
        self.place(which).json.destroy(key)

    @rule(name=st.sampled_from(BRANCHES), which=st.integers(0, 3), back=st.integers(0, 5))
    def fork(self, name: str, which: int, back: int) -> None:
        source = self.place(which)
        if name not in self.db.branches:
            with contextlib.suppress(HistoryTrimmed):
                self.db.branches.fork(source.name, name, at=max(0, source.version - back))

    @precondition(lambda self: len(self.db.branches) > 1)
    @rule(which=st.integers(0, 3))
    def delete_branch(self, which: int) -> None:
        name = self.names()[which % len(self.names())]
        if name != "main":
            self.db.branches.delete(name)

    @rule(which=st.integers(0, 3), onto=st.integers(0, 3))
    def merge(self, which: int, onto: int) -> None:
        source, target = self.place(which), self.place(onto)
        if source.name != target.name:
            with contextlib.suppress(Conflict, InvalidInput, HistoryTrimmed):
                self.db.branches.merge(source.name, target.name, strategy="theirs")

    @rule()
    def checkpoint(self) -> None:
        self.db.checkpoint()

    @rule(last=st.sampled_from([None, 1]))
    def compact(self, last: int | None) -> None:
        self.db.retention.set(strata.KeepAll() if last is None else strata.KeepLast(last))
        self.db.compact()

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.db.forget("json", key)

    @rule(how=st.sampled_from(["close", "kill", "cut"]), seed=st.integers(0, 99))
    def reopen(self, how: str, seed: int) -> None:
        self.views.clear()
        self.db.flush()
        left = self.disk.killed() if how == "kill" else self.disk.crash(seed)
        self.db.close()
        self.disk = self.disk if how == "close" else left
        self.open()

    @rule()
    def redeclare(self) -> None:
        if not self.db.indexes.drop("words"):
            self.db.indexes.drop("by_m_n")
            self.db.indexes.drop("p")
            self.declare()

    @rule()
    def rebuild(self) -> None:
        self.db.indexes.rebuild("by_n")

    @rule(which=st.integers(0, 3), back=st.integers(0, 6))
    def view(self, which: int, back: int) -> None:
        place = self.place(which)
        with contextlib.suppress(HistoryTrimmed):
            self.views.append(place.at(max(0, place.version - back)))

    @rule(
        which=st.integers(0, 3), start=BOUNDS, end=BOUNDS, words=st.lists(st.sampled_from(WORDS), max_size=3)
    )
    def ask(self, which: int, start: Any, end: Any, words: list[str]) -> None:
        check(self.place(which)._source.keyspace("default", Json.LAYOUT), start, end, words)

    @precondition(lambda self: self.views)
    @rule(
        which=st.integers(0, 9), start=BOUNDS, end=BOUNDS, words=st.lists(st.sampled_from(WORDS), max_size=3)
    )
    def ask_view(self, which: int, start: Any, end: Any, words: list[str]) -> None:
        view = self.views[which % len(self.views)]
        with contextlib.suppress(HistoryTrimmed):
            check(view._source.keyspace("default", Json.LAYOUT), start, end, words)

    @rule(
        which=st.integers(0, 3),
        changes=st.lists(st.tuples(KEYS, st.one_of(st.none(), DOCUMENTS)), max_size=4),
        start=BOUNDS,
        words=st.lists(st.sampled_from(WORDS), max_size=3),
        commits=st.booleans(),
    )
    def transaction(self, which: int, changes: Any, start: Any, words: list[str], commits: bool) -> None:
        self.clock.advance(10)
        transaction = self.place(which)._source.begin()
        txn = transaction.keyspace("default", Json.LAYOUT)
        for key, document in changes:
            if document is None:
                txn.delete(key)
            else:
                txn.put(key, document)
        check(txn, start, None, words, is_pending=True)
        (transaction.commit if commits else transaction.rollback)()


def test_indexes_equal_fresh_ones():
    # Many short histories find more than a few long ones.
    config = settings(max_examples=60, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(Indexing, settings=settings(config, suppress_health_check=list(HealthCheck)))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(60))
def test_indexes_equal_fresh_ones_for_long(part: int):
    # 1,500 histories, each part others, in tests of some seconds: one alone ran into pytest's time limit.
    config = settings(max_examples=25, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(Indexing, settings=settings(config, suppress_health_check=list(HealthCheck)))


CONDITIONS = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), VALUES, min_size=1, max_size=2),
    st.fixed_dictionaries({"in": st.lists(VALUES, max_size=3)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
).filter(lambda condition: condition != {"x": 1})


@settings(max_examples=150, deadline=None)
@given(
    documents=st.dictionaries(KEYS, DOCUMENTS, max_size=6),
    where=st.one_of(
        st.dictionaries(st.sampled_from(["$.n", "n", "m", "/t"]), CONDITIONS, max_size=3),
        st.fixed_dictionaries({"m": st.integers(0, 2), "$.n": CONDITIONS}),
    ),
    prefix=st.sampled_from([None, "p/"]),
    reverse=st.booleans(),
    limit=st.sampled_from([None, 0, 1, 3]),
)
def test_find_by_index_finds_what_a_scan_finds(documents, where, prefix, reverse, limit):
    with strata.open() as db:
        for key, document in documents.items():
            db.json.create(key, document)
        scanned = list(db.json.find(where, scan=True, prefix=prefix, reverse=reverse, limit=limit))
        db.indexes.create("by_n", primitive="json", kind="ordered", paths="$.n")
        db.indexes.create("by_m_n", primitive="json", kind="ordered", paths=["$.m", "$.n"])
        assert list(db.json.find(where, scan=True, prefix=prefix, reverse=reverse, limit=limit)) == scanned
        by_n = list(db.json.find(where, order_by="$.n", prefix=prefix))
        every = dict(db.json.find(where, scan=True, prefix=prefix))
        assert sorted(name for name, _ in by_n) == sorted(name for name in every if "n" in every[name])
        backwards = list(db.json.find(where, order_by="$.n", prefix=prefix, reverse=True, limit=2))
        assert backwards == by_n[::-1][:2]


@pytest.fixture
def people():
    with strata.open() as db:
        db.indexes.create("by_age", primitive="json", kind="ordered", paths="$.age")
        db.indexes.create("by_city", primitive="json", kind="ordered", paths=["$.city", "$.age"])
        for name, city, age in [("ada", "london", 36), ("alan", "london", 41), ("grace", "new york", 85)]:
            db.json.set(name, "$", {"city": city, "age": age})
        yield db


def test_what_a_plan_says(people):
    plan = people.json.explain_plan({"$.city": "london", "$.age": {"gte": 40}})
    assert (plan.index, plan.answered, plan.checked) == ("by_city", ("$.city", "$.age"), ())
    assert str(plan) == "1 range of by_city for $.city, $.age"
    plan = people.json.explain_plan({"$.age": {"lt": 50}, "$.name": {"exists": False}})
    assert (plan.index, plan.answered, plan.checked) == ("by_age", ("$.age",), ("$.name",))
    assert people.json.explain_plan({"$.name": "ada"}).index is None
    assert str(people.json.explain_plan({"$.name": "ada"})) == "read every document, check $.name"
    assert people.json.explain_plan({"or": [{"$.age": 1}, {"$.age": 2}]}).index is None


def test_find_in_order(people):
    find = people.json.find
    assert [name for name, _ in find({"$.age": {"gte": 40}})] == ["alan", "grace"]
    assert [name for name, _ in find({}, order_by="$.age", reverse=True)] == ["grace", "alan", "ada"]
    assert [name for name, _ in find({"$.city": "london"}, order_by="$.age", reverse=True)] == ["alan", "ada"]
    with pytest.raises(NotIndexed, match=r"\$\.name"):
        find({"$.name": "ada"})
    with pytest.raises(NotIndexed, match=r"no index answers \$\.name"):
        find({}, order_by="$.name", scan=True)


def test_an_index_sees_the_past_and_forks(people):
    before = people.version
    people.json.destroy("alan")
    people.branches.fork("main", "what-if")
    people.branch("what-if").json.set("ada", "$.age", 90)
    where = {"$.age": {"gt": 40}}
    assert [name for name, _ in people.json.find(where)] == ["grace"]
    assert [name for name, _ in people.branch("what-if").json.find(where)] == ["ada", "grace"]
    assert [name for name, _ in people.at(before).json.find(where)] == ["alan", "grace"]


def test_definitions(people, tmp_path):
    made = people.indexes.create(
        "notes", primitive="events", paths={"$.title": 2, "$.body": 1.0}, k1=0.9, language="german"
    )
    assert made.paths == ("$.title", "$.body")
    assert made.options["weights"] == {"title": 2.0, "body": 1.0}
    assert people.indexes.get("notes") == made
    assert [index.name for index in people.indexes.list()] == ["by_age", "by_city", "notes"]
    with pytest.raises(AlreadyExists, match="notes"):
        people.indexes.create("notes", primitive="kv")
    assert people.indexes.drop("notes")
    assert not people.indexes.drop("notes")
    with pytest.raises(NotFound, match="notes"):
        people.indexes.get("notes")
    path = tmp_path / "kept.strata"
    with strata.open(path) as db:
        kept = db.indexes.create("kept", primitive="state", space="s", prefix="x")
    with strata.open(path) as db:
        assert list(db.indexes.list()) == [kept]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"primitive": "kvs"}, "no primitive"),
        ({"primitive": "kv", "kind": "magic"}, "no kind of index"),
        ({"primitive": "kv", "k2": 1}, "no option of text"),
        ({"primitive": "kv", "kind": "ordered"}, "needs paths"),
        ({"primitive": "kv", "kind": "ordered", "paths": []}, "needs paths"),
        ({"primitive": "kv", "kind": "ordered", "paths": "$.a[-]"}, "behind a list"),
        ({"primitive": "kv", "kind": "ordered", "paths": "$.a", "unique": 1}, "unique is True or False"),
        ({"primitive": "kv", "paths": {"$.a": 0}}, "weight"),
        ({"primitive": "kv", "paths": {"$.a": True}}, "weight"),
        ({"primitive": "kv", "paths": []}, "needs a path"),
        ({"primitive": "kv", "paths": [1]}, "a path is text"),
        ({"primitive": "kv", "paths": "$..a"}, "path"),
        ({"primitive": "kv", "k1": -1}, "k1"),
        ({"primitive": "kv", "b": 2}, "b is a number"),
        ({"primitive": "kv", "b": float("nan")}, "b is a number"),
        ({"primitive": "kv", "language": "klingon"}, "klingon"),
        ({"primitive": "kv", "language": 7}, "language"),
        ({"primitive": "kv", "stop_words": "no"}, "stop_words"),
        ({"primitive": "kv", "prefix": b"x"}, "prefix"),
        ({"primitive": "kv", "space": ""}, "space"),
    ],
)
def test_definitions_that_are_refused(given, says):
    with strata.open() as db:
        with pytest.raises(InvalidInput, match=says):
            db.indexes.create("x", **given)
        with pytest.raises(InvalidInput):
            db.indexes.create("", primitive="kv")
        assert not db.indexes.list()


def test_what_is_forgotten_is_in_no_file_of_an_index(tmp_path):
    path, canary = tmp_path / "f.strata", "xylophonecanary"
    with strata.open(path) as db:
        db.indexes.create("words", primitive="json")
        db.indexes.create("values", primitive="json", kind="ordered", paths="$.t")
        db.json.set("a", "$", {"t": canary})
        db.json.set("b", "$", {"t": "another"})
        db.checkpoint()
        assert any(canary[:12].encode() in file.read_bytes() for file in path.rglob("*.idx"))
        db.forget("json", "a")
        files = [file for file in path.rglob("*") if file.is_file()]
        assert not any(canary[:12].encode() in file.read_bytes() for file in files)
        assert [name for name, _ in db.json.find({"$.t": "another"})] == ["b"]


def test_files_of_an_index_are_encrypted_verified_and_dispensable(tmp_path):
    path, key = tmp_path / "e.strata", bytes(range(32))
    with strata.open(path, key=key) as db:
        db.indexes.create("values", primitive="json", kind="ordered", paths="$.t")
        db.json.set("b", "$", {"t": "xylophonecanary"})
        db.checkpoint()
    (file,) = path.rglob("*.idx")
    whole = file.read_bytes()
    assert b"xylophone" not in whole
    for damaged in (whole[:100], whole[:-30] + b"x" + whole[-29:], b""):
        file.write_bytes(damaged)
        with strata.open(path, key=key, read_only=True) as db:
            (problem,) = db.verify().problems
            assert file.name in str(problem)
            assert [name for name, _ in db.json.find({"$.t": "xylophonecanary"})] == ["b"]
    with strata.open(path, key=key) as db:
        assert [name for name, _ in db.json.find({"$.t": "xylophonecanary"})] == ["b"]
        assert db.verify().ok
    assert file.read_bytes() == whole


def test_a_unique_index_takes_each_value_once(tmp_path):
    path = tmp_path / "u.strata"
    with strata.open(path) as db:
        db.json.set("a", "$", {"mail": "x", "n": 1})
        db.json.set("b", "$", {"mail": "x"})
        with pytest.raises(AlreadyExists, match="by_mail of 'b'"):
            db.indexes.create("by_mail", primitive="json", kind="ordered", paths="$.mail", unique=True)
        assert not db.indexes.list()
        db.json.destroy("b")
        db.indexes.create("by_mail", primitive="json", kind="ordered", paths="$.mail", unique=True)
        before = db.version
        with pytest.raises(AlreadyExists, match="by_mail of 'a'"):
            db.json.set("b", "$", {"mail": "x"})
        with pytest.raises(AlreadyExists), db.transaction() as txn:
            txn.json.set("c", "$", {"mail": "y"})
            txn.json.set("d", "$", {"mail": "y"})
        assert db.version == before
        db.json.set("a", "$", {"mail": "x", "n": 2})
        with db.transaction() as txn:
            txn.json.set("b", "$", {"mail": "x"})
            txn.json.set("a", "$", {"mail": "z"})
        db.json.set("e", "$", {"other": 1})
        db.json.set("f", "$", {"other": 1})
        db.branches.fork("main", "b1")
        db.branch("b1").json.set("g", "$", {"mail": "new"})
        db.json.set("h", "$", {"mail": "new"})
        with pytest.raises(AlreadyExists):
            db.branches.merge("b1")
        assert "g" not in list(db.json.list())
    with strata.open(path) as db, pytest.raises(AlreadyExists):
        db.json.set("i", "$", {"mail": "z"})
