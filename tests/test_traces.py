"""Traces, over the oracle and the kernel."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core.errors import AlreadyExists, Conflict, InvalidInput, LimitExceeded, NotFound, ReadOnly
from strata.core.refs import EntityRef
from strata.primitives.traces import KINDS
from strata.testing import FakeClock


def ids(traces):
    return [trace.id for trace in traces]


def test_record_and_get(db, clock):
    assert db.traces.get("x") is None
    made = db.traces.record(
        "tool_call", "search", input={"q": "tides"}, output=["a", 1.5, b"\0"], tags=["web", "slow", "web"],
        metadata={"tokens": 7}, ended=clock() + 2_000,
    )  # fmt: skip
    found = db.traces.get(made.id)
    assert found == made
    assert (found.kind, found.name, found.input, found.output) == (
        "tool_call", "search", {"q": "tides"}, ["a", 1.5, b"\0"],
    )  # fmt: skip
    assert (found.tags, found.metadata, found.parent, found.error) == (
        ("web", "slow"), {"tokens": 7}, None, None,
    )  # fmt: skip
    assert found.started.timestamp() == clock() / 1e6 and found.duration_us == 2_000
    assert found.version == db.branch.head and not found.pending
    assert db.traces.exists(made.id) and not db.traces.exists("x") and made.id in db.traces
    assert len(db.traces) == 1 and ids(db.traces) == [made.id]


def test_a_trace_without_anything(db):
    made = db.traces.record("thought")
    assert db.traces.get(made.id) == made
    assert (made.name, made.tags, made.metadata, made.ended, made.duration_us) == (None, (), {}, None, None)


def test_a_failed_one(db):
    made = db.traces.record("tool_call", "fetch", error=TimeoutError("after 3 s"))
    assert made.error == "TimeoutError: after 3 s" == db.traces.get(made.id).error
    assert db.traces.record("error", error="lost").error == "lost"


def test_ids_sort_by_time(db, clock):
    made = []
    for step in range(50):
        made.append(db.traces.record("thought").id)
        if step % 3 == 0:
            clock.advance(1)
    assert made == sorted(made) and len(set(made)) == 50
    assert ids(db.traces.list()) == made


def test_a_given_id_is_taken_once(db):
    db.traces.record("query", id="q1", input=1)
    before = db.everything
    with pytest.raises(AlreadyExists) as caught:
        db.traces.record("query", id="q1", input=2)
    assert (caught.value.what, caught.value.name) == ("trace", "q1")
    tx = db.begin()
    tx.traces.record("query", id="q2")
    for taken in ("q1", "q2"):
        with pytest.raises(AlreadyExists):
            tx.traces.record("query", id=taken)
    tx.rollback()
    assert db.everything == before


def test_a_parent_must_be_there(db):
    before = db.everything
    for id in (None, "self"):
        with pytest.raises(NotFound) as caught:
            db.traces.record("thought", parent="self", id=id)
        assert (caught.value.what, caught.value.name) == ("trace", "self")
    assert db.everything == before
    root = db.traces.record("thought")
    assert db.traces.record("thought", parent=root).parent == root.id
    assert db.traces.record("thought", parent=root.id).parent == root.id


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "dream"},
        {"kind": None},
        {"kind": ["thought"]},
        {"kind": "custom"},
        {"name": ""},
        {"name": 7},
        {"name": "a\nb"},
        {"id": ""},
        {"id": "_x"},
        {"id": "a\0b"},
        {"id": 7},
        {"parent": 7},
        {"tags": "web"},
        {"tags": 7},
        {"tags": [""]},
        {"tags": [7]},
        {"tags": ["a\0b"]},
        {"metadata": [1]},
        {"metadata": {1: 2}},
        {"metadata": {"a": {1}}},
        {"input": {1, 2}},
        {"output": 2**63},
        {"error": 7},
        {"started": datetime(2026, 1, 1)},
        {"started": "now"},
        {"started": 1.5},
        {"started": 2**62},
        {"started": True},
        {"started": 10, "ended": 9},
        {"ended": 0},
        {"reads": "strata://main/default/kv/a"},
        {"reads": ["a"]},
        {"reads": [7]},
        {"writes": EntityRef("main", "default", "kv", "a")},
        {"writes": [None]},
    ],
    ids=repr,
)
def test_bad_input_writes_nothing(db, wrong):
    db.traces.record("thought", id="there")
    before = db.everything
    arguments = {"kind": "thought"} | wrong
    with pytest.raises(InvalidInput):
        db.traces.record(**arguments)
    assert db.everything == before
    tx = db.begin()
    with pytest.raises(InvalidInput):
        tx.traces.record(**arguments)
    assert tx.commit() == before[0]


def test_names_that_are_too_long(db):
    for wrong in ({"name": "n" * 256}, {"id": "i" * 256}, {"tags": ["t" * 256]}):
        with pytest.raises(LimitExceeded):
            db.traces.record("thought", **wrong)
    longest = db.traces.record("thought", "n" * 255, id="i" * 255, tags=["t" * 255])
    child = db.traces.record("thought", parent=longest, id="j" * 255)
    assert db.traces.children(longest.id) == [child] and ids(db.traces.by_tag("t" * 255)) == [longest.id]


def test_instants_in_all_forms(db):
    instant = datetime(2026, 1, 31, 12, tzinfo=UTC)
    forms = (instant, "2026-01-31T13:00+01:00", int(instant.timestamp() * 1e6))
    assert {db.traces.record("thought", started=form).started for form in forms} == {instant}
    ancient = db.traces.record("thought", started=datetime(1, 1, 1, tzinfo=UTC))
    assert ids(db.traces.list(limit=1)) == [ancient.id]


def test_by_kind_tag_and_time(db, clock):
    made = {}
    for number, kind in enumerate(KINDS):
        made[kind] = db.traces.record(kind, kind, tags=["odd" if number % 2 else "even", "all"])
        clock.advance(1)
    for number, kind in enumerate(KINDS):
        assert list(db.traces.by_kind(kind)) == [made[kind]] and db.traces.count(kind=kind) == 1
        assert made[kind] in list(db.traces.by_tag("odd" if number % 2 else "even"))
    every = list(made.values())
    assert list(db.traces.by_tag("all")) == every == list(db.traces.list()) == list(db.traces.roots())
    assert list(db.traces.by_tag("al")) == [] == list(db.traces.by_tag("all "))
    assert list(db.traces.list(reverse=True, limit=2)) == every[:-3:-1]
    assert list(db.traces.between(every[1].started, every[3].started)) == every[1:3]
    assert list(db.traces.between(None, every[2].started, reverse=True)) == every[1::-1]
    assert list(db.traces.by_tag("all", start=every[4].started, limit=1)) == [every[4]]
    assert db.traces.count() == 6 and db.traces.count(tag="odd") == 3
    assert db.traces.count(tag="all", start=every[1].started, end=every[5].started) == 4
    assert db.traces.count(start=every[5].started) == 1
    for use in (
        lambda: db.traces.count(kind="thought", tag="all"), lambda: db.traces.count(kind="dream"),
        lambda: db.traces.by_kind("dream"), lambda: db.traces.by_tag(""),
        lambda: db.traces.between(datetime(2026, 1, 1), None), lambda: db.traces.list(limit=-1),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            use()


def test_pages(db):
    tx = db.begin()
    made = [tx.traces.record("thought", tags=["t"], started=number).id for number in range(2_345)]
    tx.commit()
    assert ids(db.traces.list()) == made
    assert ids(db.traces.by_tag("t", reverse=True)) == made[::-1]
    assert ids(db.traces.list(limit=1_500)) == made[:1_500]


def test_children_and_trees(db, clock):
    root = db.traces.record("decision", "plan", id="root")
    late = db.traces.record("tool_call", "b", parent=root, id="a", started=clock() + 5)
    soon = db.traces.record("tool_call", "a", parent=root, id="b", started=clock() + 1)
    leaf = db.traces.record("thought", parent=soon, id="leaf", error="no\nuse", ended=clock() + 1500)
    assert db.traces.children("root") == [soon, late] and db.traces.children("leaf") == []
    tree = db.traces.tree("root")
    assert list(tree.walk()) == [(0, root), (1, soon), (2, leaf), (1, late)] and len(tree) == 4
    assert str(tree) == "decision plan\n  tool_call a\n    thought 1.5 ms failed: no\n  tool_call b"
    assert list(db.traces.tree("leaf").walk()) == [(0, leaf)]
    assert list(db.traces.roots()) == [root]
    for use in (db.traces.children, db.traces.tree):
        with pytest.raises(NotFound):
            use("nobody")


def test_a_tree_as_deep_as_it_likes(db):
    tx, parent = db.begin(), None
    for _ in range(3_000):
        parent = tx.traces.record("thought", parent=parent, id=None if parent else "root")
    tx.commit()
    assert [depth for depth, _ in db.traces.tree("root").walk()] == list(range(3_000))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.sampled_from(KINDS), st.sets(st.sampled_from("abc")), st.integers(-9, 9)
        ),
        max_size=25,
    ),
    st.sampled_from(stores.KINDS),
    st.booleans(),
)
def test_random_trees_against_a_list(steps, kind, inside):
    """Whatever is asked, the answer is what a walk over a plain list gives."""
    db = stores.Place(stores.make(kind, FakeClock()))
    target = db.begin() if inside else db
    made = []
    for number, (parent, of, tags, started) in enumerate(steps):
        above = made[parent % len(made)].id if made and parent < 25 else None
        made.append(
            target.traces.record(
                of, "n", id=f"id{number % 7}-{number}", parent=above, tags=sorted(tags), started=started
            )
        )
    plain = [(trace.started_us, trace.id, trace) for trace in made]
    in_order = [trace for _, _, trace in sorted(plain, key=lambda row: (row[0], row[1].encode()))]
    assert list(target.traces.list()) == in_order
    if inside:
        target.commit()
        in_order = [db.traces.get(trace.id) for trace in in_order]
        assert all(trace.version == db.branch.head for trace in in_order)
    assert list(db.traces.list(reverse=True)) == in_order[::-1]
    for of in KINDS:
        assert list(db.traces.by_kind(of)) == [trace for trace in in_order if trace.kind == of]
    for tag in "abc":
        assert list(db.traces.by_tag(tag)) == [trace for trace in in_order if tag in trace.tags]
        assert db.traces.count(tag=tag) == sum(tag in trace.tags for trace in in_order)
    assert list(db.traces.roots()) == [trace for trace in in_order if trace.parent is None]

    def walk(trace, depth=0):
        yield depth, trace
        for child in in_order:
            if child.parent == trace.id:
                yield from walk(child, depth + 1)

    for trace in in_order:
        assert list(db.traces.tree(trace.id).walk()) == list(walk(trace))
        assert db.traces.children(trace.id) == [row for row in in_order if row.parent == trace.id]


# -- what it read and wrote ------------------------------------------------------------------------


def test_links_to_versions(db):
    db.kv.put("a", 1)
    version = db.branch.head
    a, b = EntityRef("main", "default", "kv", "a"), EntityRef("main", "default", "kv", "b")
    made = db.traces.record("decision", reads=[a, "strata://main/default/json/d#$.x@1"], writes=[b])
    assert [str(ref) for ref in made.reads] == [
        f"strata://main/default/kv/a@{version}", "strata://main/default/json/d#$.x@1",
    ]  # fmt: skip
    assert [ref.version for ref in made.writes] == [made.version]
    assert db.traces.get(made.id) == made


def test_a_trace_is_of_the_commit_that_it_explains(db):
    db.kv.put("a", 1)
    tx = db.begin()
    tx.kv.put("b", tx.kv.get("a") + 1)
    pending = tx.traces.record(
        "decision", reads=["strata://main/default/kv/a"], writes=["strata://main/default/kv/b"]
    )
    assert pending.pending and pending.writes[0].version is None and tx.traces.get(pending.id) == pending
    db.kv.put("c", 3)  # so that the commit is not the one after the snapshot
    snapshot, version = tx.source.snapshot, tx.commit()
    found = db.traces.get(pending.id)
    assert found.version == version == db.kv.entry("b").version == found.writes[0].version
    assert found.reads[0].version == snapshot


def test_inside_a_transaction(db):
    root = db.traces.record("decision", id="root")
    tx = db.begin()
    child = tx.traces.record("thought", parent="root")
    grandchild = tx.traces.record("thought", parent=child)
    assert tx.traces.get("root") == root and not tx.traces.get("root").pending
    assert [depth for depth, _ in tx.traces.tree("root").walk()] == [0, 1, 2]
    assert db.traces.children("root") == []
    tx.rollback()
    assert not db.traces.exists(grandchild.id) and db.traces.count() == 1


def test_views_and_forks(store, db):
    first = db.traces.record("thought", id="one")
    version = db.branch.head
    store.fork("main", "f")
    fork = stores.Place(store, "f")
    below = fork.traces.record("thought", parent="one", id="two")
    db.traces.record("query", parent="one", id="two")  # another branch, another trace
    assert fork.traces.children("one") == [below] and below.kind == "thought"
    assert list(db.at(version).traces.list()) == [first]
    with pytest.raises(ReadOnly):
        db.at(version).traces.record("thought")
    with pytest.raises(NotFound):
        db.at(version, "nowhere").traces.get("one")
    with pytest.raises(NotFound):
        list(db.at(version, "nowhere").traces.list())


# -- at the same time ------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
def test_of_two_transactions_with_one_id_one_commits(db, isolation):
    one, two = db.begin(isolation), db.begin(isolation)
    one.traces.record("thought", id="same", input=1)
    two.traces.record("thought", id="same", input=2)
    two.commit()
    with pytest.raises(Conflict):
        one.commit()
    assert db.traces.get("same").input == 2 and db.traces.count() == 1


@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
def test_others_do_not_disturb_who_records(db, isolation):
    root = db.traces.record("decision")
    transactions = [db.begin(isolation) for _ in range(5)]
    for tx in transactions:
        tx.traces.record("thought", parent=root, tags=["t"])
    for tx in transactions:
        tx.commit()
    assert len(db.traces.children(root.id)) == 5


def test_threads(db):
    """Many record under common parents; of one id each, exactly one gets it."""
    root, taken = db.traces.record("decision"), []

    def work(number):
        for step in range(20):
            mine = db.traces.record("tool_call", parent=root, input=number)
            db.traces.record("thought", parent=mine)
            try:
                db.traces.record("query", id=f"shared-{step}", parent=root, input=number)
                taken.append(step)
            except AlreadyExists:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(20))
    assert db.traces.count() == 1 + 4 * 20 * 2 + 20
    assert len(db.traces.tree(root.id)) == db.traces.count()
