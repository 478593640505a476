"""The rows of machines: whatever is done, those that follow from instances are there, and no others."""

from __future__ import annotations

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core.errors import MergeConflict, StrataError
from strata.primitives.machines_rows import DEFINITIONS, LAYOUT, THINGS, follows
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
    derived = {key for key in found if key < THINGS and key[:2] not in (DEFINITIONS, b"\0k", b"\0K")}
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
            clock.advance(4_000_000)
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
