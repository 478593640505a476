"""The rows of machines: whatever is done, those that follow from instances are there, and no others."""

from __future__ import annotations

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core.clock import to_datetime
from strata.core.errors import Conflict, MergeConflict, StrataError
from strata.primitives.machines_rows import (
    DEFINITIONS,
    GONE,
    KEYS,
    LAYOUT,
    SPANS,
    THINGS,
    TIMERS,
    follows,
    span_of,
)
from strata.testing import FakeClock

MACHINE = {
    "states": ["a", "b", "c"],
    "initial": "a",
    "transitions": [
        {"from": "a", "event": "E", "to": "b"},
        {"from": ["a", "b"], "event": "F", "to": "c"},
        {"from": "c", "event": "E", "to": "a", "guard": "ctx.n"},
    ],
    "timers": [{"state": "b", "after": 5, "event": "F"}, {"state": "c", "after": 7, "event": "E"}],
}
NEXT = MACHINE | {"states": ["a", "b", "c", "d"], "timers": [{"state": "b", "after": 3, "event": "F"}]}

calls = st.tuples(
    st.sampled_from(["main", "draft"]),
    st.sampled_from(
        ["create", "create", "E", "E", "F", "delete", "fire", "migrate", "batch", "time", "merge", "revert"]
    ),
    st.sampled_from("ij"),
    st.none() | st.fixed_dictionaries({"n": st.integers(0, 1)}),
    st.booleans(),
)


def do(db, branch, what, id, payload, flag):
    place = db.branch(branch)
    machines = place.machines
    if what == "create":
        machines.create(
            "m",
            id,
            payload,
            version=1 + flag,
            ttl=20 if flag else None,
            idempotency_key="k" if flag else None,
        )
    elif what in "EF":
        machines.apply(id, what, payload)
    elif what == "delete":
        machines.delete(id)
    elif what == "fire":
        machines.fire_due()
    elif what == "migrate":
        machines.migrate("m", 2 if flag else 1)
    elif what == "batch":
        items = [{"op": "apply", "id": one, "event": "E", "payload": payload} for one in "ij"]
        machines.batch(items, atomic=flag)
    elif what == "merge":
        db.branches.merge(
            "draft" if branch == "main" else "main", branch, strategy="source" if flag else "strict"
        )
    elif what == "revert":
        db.branches.revert(place.version, branch=branch, strategy="target")


def rows(place):
    """The keys that follow from instances, as they are and as they should be."""
    txn = place._branch.keyspace("default", LAYOUT)
    found = dict(txn.scan(None, None, None, False, None))
    things = {key: row for key, row in found.items() if key >= THINGS}
    wanted = {follower for key, row in things.items() for follower in follows(key, row)}
    others = DEFINITIONS, SPANS, GONE, KEYS, b"\0K"
    derived = {key for key in found if key < THINGS and key[:2] not in others}
    spans = {key for key in found if key.startswith(SPANS)}
    assert {span_of(key) for key in derived if key.startswith(TIMERS)} <= spans
    expiries = {key: txn.kept(key)[2] for key in found}
    for key, row in things.items():
        assert {expiries[follower] for follower in follows(key, row)} == {expiries[key]}
    return derived, wanted


@settings(max_examples=80, deadline=None)
@given(st.lists(calls, max_size=20), st.sampled_from(databases.KINDS))
def test_rows_follow_from_instances_whatever_is_done(calls, kind):
    clock = FakeClock()
    db = databases.make(kind, clock)
    db.machines.define("m", 1, MACHINE)
    db.machines.define("m", 2, NEXT)
    db.branches.fork("main", "draft")
    for branch, what, id, payload, flag in calls:
        if what == "time":
            clock.advance(4_000_000 if flag else 2**32)
        try:
            do(db, branch, what, id, payload, flag)
        except StrataError:
            pass
        for name in ("main", "draft"):
            found, wanted = rows(db.branch(name))
            assert found == wanted
    db.close()


@pytest.mark.parametrize("kind", databases.KINDS)
def test_rows_that_stay_in_a_merge_take_the_expiry_of_their_instance(kind):
    """Both sides had made the instance, in one state, the source with a time to live. The rows by state were
    there already, so the merge left them as they were, and they would have outlived their instance."""
    clock = FakeClock()
    db = databases.make(kind, clock)
    db.machines.define("m", 1, MACHINE)
    db.branches.fork("main", "draft")
    db.machines.create("m", "i", {"n": 1})
    db.branch("draft").machines.create("m", "i", {"n": 2}, ttl=10)
    db.branches.merge("draft", "main", strategy="source")
    clock.advance(10_000_000)
    assert db.machines.count("m", "a") == db.machines.count("m") == 0
    db.close()


@pytest.mark.parametrize("kind", databases.KINDS)
@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
@pytest.mark.parametrize("is_set_first", [True, False])
def test_a_timer_that_is_set_in_a_span_that_goes_is_not_lost(kind, isolation, is_set_first):
    """A transaction sets a timer by its own time, long past, while the span of that is let go of."""
    clock = FakeClock()
    db = databases.make(kind, clock)
    db.machines.define("m", 1, MACHINE)
    db.machines.create("m", "other")
    db.machines.apply("other", "E")
    tx = db.transaction(isolation=isolation)
    tx.machines.create("m", "i")
    tx.machines.apply("i", "E")
    clock.advance(3 * 2**32)
    lost = False
    if is_set_first:
        tx.commit()
    assert next(fired.event for fired in db.machines.fire_due()) == "F"
    if not is_set_first:
        assert db.machines.next_due() > to_datetime(clock())
        try:
            tx.commit()
        except Conflict:
            lost = True
            assert isolation == "snapshot"
    db.machines.fire_due()
    assert lost or db.machines.get("i").state == "c"
    clock.advance(10_000_000)
    assert {fired.event for fired in db.machines.fire_due()} == {"E"}
    assert rows(db)[0] == rows(db)[1]
    db.close()


@pytest.mark.parametrize("kind", databases.KINDS)
def test_spans_go_once_they_are_past_and_empty(kind):
    clock = FakeClock()
    db = databases.make(kind, clock)
    db.machines.define("m", 1, MACHINE)
    txn = db._branch.keyspace("default", LAYOUT)
    for number in range(5):
        db.machines.create("m", f"{number}")
        db.machines.apply(f"{number}", "E")
        clock.advance(2**32)
        db.machines.fire_due()
        db.machines.delete(f"{number}")
    clock.advance(2**32)
    assert db.machines.fire_due() == []
    assert txn.scan_keys(SPANS, None, None, False, None) == []
    assert db.machines.next_due() is None
    db.close()


@pytest.mark.parametrize("kind", databases.KINDS)
def test_a_conflict_leaves_all_rows_as_they_were(kind):
    db = databases.make(kind, FakeClock())
    db.machines.define("m", 1, MACHINE)
    db.machines.create("m", "i")
    db.branches.fork("main", "draft")
    db.machines.apply("i", "E")
    db.branch("draft").machines.apply("i", "F")
    before = rows(db.branch("main"))
    with pytest.raises(MergeConflict):
        db.branches.merge("draft", "main")
    assert rows(db.branch("main")) == before
    db.close()
