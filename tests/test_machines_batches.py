"""Batches of machines, and machines on branches: diff, merge, replay, explain, erasure, search."""

from __future__ import annotations

import databases
import pytest
from machine_cases import ORDER, states, with_order

import strata
from strata.core.errors import BatchFailed, InvalidInput, LimitExceeded, MergeConflict, ReadOnly


@pytest.fixture(params=databases.KINDS)
def db(request, clock):
    yield from with_order(request.param, clock)


# -- batches

ITEMS = [
    {"op": "create", "machine": "order", "id": "a", "context": {"n": 1}},
    {"op": "apply", "id": "a", "event": "PAY", "payload": {"n": 2}},
    {"op": "apply", "id": "a", "event": "SHIP", "expected_state": "paid"},
    {"op": "create", "machine": "order", "id": "b"},
    {"op": "delete", "id": "b"},
]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_is_one_commit_whose_items_see_each_other(db, atomic):
    at = db.version
    results = db.machines.batch(ITEMS, atomic=atomic)
    assert all(result.ok for result in results)
    assert db.version == at + 1
    assert results[0].result.version == results[2].result.version == results[4].result == at + 1
    assert (results[1].result.to_state, results[1].result.context) == ("paid", {"n": 2})
    assert states(db.machines) == {"a": "shipped"}
    assert db.machines.list("order", "created") == []
    assert [(step.event, step.context) for step in db.machines.history("a")] == [
        ("SHIP", {"n": 2}),
        ("PAY", {"n": 2}),
        (None, {"n": 1}),
    ]


def test_what_a_batch_does_is_in_order(db):
    """Each has its ordinal, wherever it is seen; what is refused or was done before has none of its own."""
    items = [
        {"op": "create", "machine": "order", "id": "a", "idempotency_key": "k"},
        {"op": "apply", "id": "nobody", "event": "PAY"},
        {"op": "create", "machine": "order", "id": "a", "idempotency_key": "k"},
        {"op": "apply", "id": "a", "event": "TOUCH", "idempotency_key": "k"},
        {"op": "apply", "id": "a", "event": "TOUCH", "idempotency_key": "k"},
        {"op": "create", "machine": "order", "id": "b"},
        {"op": "delete", "id": "b", "idempotency_key": "k"},
        {"op": "delete", "id": "b"},
        {"op": "delete", "id": "b", "idempotency_key": "k"},
        {"op": "apply", "id": "a", "event": "PAY"},
    ]
    results = db.machines.batch(items)
    at = db.version
    assert [result.ordinal for result in results if result.ok] == [0, 0, 1, 1, 2, 3, 3, 3, 4]
    assert {getattr(result.result, "version", result.result) for result in results if result.ok} == {at}
    assert (db.machines.get("a").ordinal, db.machines.get("a").version) == (4, at)
    assert [step.ordinal for step in db.machines.history("a")] == [4, 1, 0]
    for item, ordinal in ((items[3], 1), (items[6], 3)):
        again = db.machines.batch([item])[0]
        assert (again.ordinal, getattr(again.result, "version", again.result)) == (ordinal, at)
    assert db.machines.apply("a", "TOUCH", idempotency_key="k").ordinal == 1
    assert db.machines.apply("a", "SHIP").ordinal == db.machines.get("a").ordinal == 0
    db.machines.batch([{"op": "create", "machine": "order", "id": id} for id in "cd"])
    later = db.machines.batch([{"op": "delete", "id": "c"}, {"op": "delete", "id": "d"}])
    assert [result.ordinal for result in later] == [0, 1]
    assert db.machines.batch([{"op": "delete", "id": "d"}])[0].ordinal == 1
    db.machines.create("order", "d")
    db.machines.delete("d")
    assert db.machines.batch([{"op": "delete", "id": "d"}])[0].ordinal == 0


def test_an_expected_version_is_not_that_of_what_this_batch_did(db):
    """An own write has the version of the snapshot, which a later item may just expect."""
    at = db.machines.create("order", "a").version
    items = [{"op": "apply", "id": "a", "event": "TOUCH", "expected_version": at}] * 2
    assert [result.ok for result in db.machines.batch(items)] == [True, False]


def test_the_same_step_is_the_same_wherever_it_stood_in_its_batch(db):
    db.machines.batch([{"op": "create", "machine": "order", "id": id} for id in "ab"])
    db.branches.fork("main", "draft")
    db.branch("draft").machines.batch([{"op": "apply", "id": id, "event": "PAY"} for id in "ba"])
    db.machines.batch([{"op": "apply", "id": id, "event": "PAY"} for id in "ab"])
    db.branches.merge("draft", "main")
    assert states(db.machines) == {"a": "paid", "b": "paid"}


BAD = [
    ({"op": "apply", "id": "a", "event": "PAY"}, "invalid_transition"),
    ({"op": "apply", "id": "nobody", "event": "PAY"}, "not_found"),
    ({"op": "apply", "id": "a", "event": "CANCEL", "expected_state": "created"}, "unexpected_state"),
    ({"op": "create", "machine": "order", "id": "a"}, "already_exists"),
    ({"op": "create", "machine": "nothing"}, "not_found"),
    ({"op": "create", "machine": "order", "context": {"x": object()}}, "invalid_input"),
    ({"op": "create", "machine": "order", "ttl": -1}, "invalid_input"),
    ({"op": "apply", "id": "a", "event": "CANCEL", "payload": [1]}, "invalid_input"),
    ({"op": "delete", "id": "nobody"}, "not_found"),
    ({"op": "delete"}, "invalid_input"),
    ({"op": "delete", "id": "a", "more": 1}, "invalid_input"),
    ({"op": "apply", "id": "a", "event": "CANCEL", "is_first": True}, "invalid_input"),
    ({"op": "define"}, "invalid_input"),
    ({"op": ["apply"]}, "invalid_input"),
    ({"id": "a"}, "invalid_input"),
    ("apply", "invalid_input"),
]


@pytest.mark.parametrize(("bad", "code"), BAD)
def test_a_bad_item_fails_alone_or_takes_all_with_it(db, bad, code):
    items = [*ITEMS[:2], bad, ITEMS[3]]
    before = db.version
    with pytest.raises(BatchFailed) as caught:
        db.machines.batch(items, atomic=True)
    assert (caught.value.index, caught.value.reason) == (2, code)
    assert "atomic batch failed" in str(caught.value)
    assert (db.version, len(db.machines)) == (before, 0)
    results = db.machines.batch(items)
    assert [result.ok for result in results] == [True, True, False, True]
    assert results[2].error.code == code
    assert states(db.machines) == {"a": "paid", "b": "created"}


@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_inside_a_transaction_leaves_it_as_it_was(db, atomic):
    db.machines.create("order", "c")
    with db.transaction() as tx:
        tx.machines.apply("c", "PAY", {"mine": 1})
        tx.kv.put("k", 1)
        bad = [{"op": "apply", "id": "c", "event": "SHIP"}, {"op": "delete", "id": "nobody"}]
        if atomic:
            with pytest.raises(BatchFailed):
                tx.machines.batch(bad, atomic=True)
            assert states(tx.machines) == {"c": "paid"}
        else:
            tx.machines.batch(bad)
            assert states(tx.machines) == {"c": "shipped"}
        assert tx.machines.get("c").context == {"mine": 1}
    assert db.kv.get("k") == 1
    assert (
        [step.event for step in db.machines.history("c")] == ["PAY", None]
        if atomic
        else ["SHIP", "PAY", None]
    )


def test_keys_in_a_batch(db):
    item = {"op": "apply", "id": "a", "event": "TOUCH", "payload": {"n": 1}, "idempotency_key": "k"}
    db.machines.create("order", "a")
    first, second = db.machines.batch([item, item])
    assert (first.result.applied, second.result.applied) == (True, False)
    again = db.machines.batch([item, {"op": "create", "machine": "order", "idempotency_key": "c"}])
    assert (again[0].result.applied, again[0].result.version) == (False, first.result.version)
    assert db.machines.get("a").steps == 1
    new = db.machines.batch([{"op": "create", "machine": "order", "idempotency_key": "c"}])
    assert new[0].result == again[1].result


def test_batches_have_a_limit(db):
    with pytest.raises(LimitExceeded):
        db.machines.batch([{"op": "create", "machine": "order"}] * 101)
    assert len(db.machines.batch([{"op": "create", "machine": "order"}] * 100)) == 100
    assert db.machines.batch([]) == []
    for items in ("apply", {"op": "create"}, None, 7):
        with pytest.raises(InvalidInput):
            db.machines.batch(items)
    with pytest.raises(ReadOnly):
        db.at(db.version).machines.batch([{"op": "create", "machine": "order"}])


# -- branches


def test_diff_shows_instances_and_definitions(db):
    db.machines.create("order", "a", {"n": 1})
    db.machines.create("order", "gone")
    db.branches.fork("main", "draft")
    draft = db.branch("draft")
    draft.machines.apply("a", "PAY", {"n": 2})
    draft.machines.delete("gone")
    draft.machines.define("other", 1, ORDER)
    found = {change.key: change for change in db.diff("main", "draft")}
    assert {key: change.what for key, change in found.items()} == {
        "a": "changed",
        "gone": "removed",
        "_machine/other/1": "added",
    }
    assert (found["a"].old.state, found["a"].new.state, found["a"].new.context) == (
        "created",
        "paid",
        {"n": 2},
    )
    assert found["a"].new.updated is None


def test_merging_joins_what_only_one_side_did(db):
    for id in "abc":
        db.machines.create("order", id)
    db.branches.fork("main", "draft")
    draft = db.branch("draft")
    draft.machines.apply("a", "PAY", {"by": "draft"})
    draft.machines.delete("b")
    draft.machines.create("order", "d")
    draft.machines.define("order", 2, ORDER)
    db.machines.apply("c", "CANCEL")
    db.branches.merge("draft", "main")
    assert states(db.machines) == {"a": "paid", "c": "cancelled", "d": "created"}
    for state, ids in (("paid", ["a"]), ("created", ["d"]), ("cancelled", ["c"]), ("shipped", [])):
        assert [found.id for found in db.machines.list("order", state)] == ids
    assert [found.id for found in db.machines.list("order")] == ["a", "c", "d"]
    assert db.machines.apply("a", "SHIP").context == {"by": "draft"}
    assert db.machines.create("order", "e").machine_version == 2
    assert [step.event for step in db.machines.history("a")] == ["SHIP", "PAY", None]


@pytest.mark.parametrize(
    ("ours", "theirs", "is_conflict"),
    [
        (("PAY", None), ("PAY", None), False),
        (("PAY", {"n": 1}), ("PAY", {"n": 1}), False),
        (("PAY", {"n": 1}), ("PAY", {"n": 2}), True),
        (("PAY", None), ("CANCEL", None), True),
        (("TOUCH", None), ("PAY", None), True),
        (("delete", None), ("PAY", None), True),
        (("delete", None), ("delete", None), False),
    ],
)
def test_only_different_transitions_on_both_sides_are_a_conflict(db, clock, ours, theirs, is_conflict):
    db.machines.create("order", "a")
    db.branches.fork("main", "draft")
    for place, (event, payload) in ((db.branch("draft"), theirs), (db, ours)):
        clock.advance(1000)
        place.machines.delete("a") if event == "delete" else place.machines.apply("a", event, payload)
    if not is_conflict:
        assert db.branches.merge("draft", "main").ok
        return
    with pytest.raises(MergeConflict) as caught:
        db.branches.merge("draft", "main")
    (conflict,) = caught.value.conflicts
    assert (conflict.primitive, conflict.key) == ("machines", "a")
    with pytest.raises(InvalidInput):
        db.branches.merge("draft", "main", strategy=lambda found: found.use({"state": "paid"}))
    wanted = db.branch("draft").machines.get("a")
    db.branches.merge("draft", "main", strategy="source")
    assert db.machines.get("a").state == wanted.state
    for state in ORDER["states"]:
        assert [found.id for found in db.machines.list("order", state)] == ["a"] * (state == wanted.state)
    db.branches.merge("draft", "main", strategy=lambda found: found.delete())


def test_a_merge_carries_the_expiry(db, clock):
    db.branches.fork("main", "draft")
    db.branch("draft").machines.create("order", "a", ttl=10)
    db.branches.merge("draft", "main")
    assert db.machines.count("order", "created") == 1
    clock.advance(10_000_000)
    assert db.machines.count("order", "created") == db.machines.count("order") == 0
    assert db.machines.get("a") is None


def test_revert_and_reset_take_an_event_back(db):
    db.machines.create("order", "a", {"n": 1})
    before = db.version
    db.machines.apply("a", "PAY", {"n": 2})
    db.branches.revert(before + 1)
    found = db.machines.get("a")
    assert (found.state, found.context) == ("created", {"n": 1})
    assert [found.id for found in db.machines.list("order", "created")] == ["a"]
    assert db.machines.list("order", "paid") == []


def test_replay_and_explain_say_what_happened(db):
    db.branches.fork("main", "draft")
    draft = db.branch("draft")
    draft.machines.create("order", "a", {"n": 1})
    draft.machines.apply("a", "PAY", {"n": 2})
    draft.machines.delete("a")
    draft.machines.define("other", 1, ORDER)
    verbs = [(change.action, change.key) for step in db.replay("draft") for change in step.changes]
    assert verbs == [("create", "a"), ("apply", "a"), ("delete", "a"), ("define", "_machine/other/1")]
    seen = [change.value.transitions for step in [*db.replay("draft")][:2] for change in step.changes]
    assert [(one.event, one.from_state, one.to_state, one.payload) for (one,) in seen] == [
        (None, None, "created", None),
        ("PAY", "created", "paid", {"n": 2}),
    ]
    with draft.transaction(record_reads=True, message="pay") as tx:
        tx.kv.get("rate")
        tx.machines.create("order", "b")
        tx.machines.apply("b", "PAY", {"n": 3})
    text = str(db.explain("strata://draft/default/machines/b"))
    assert 'paid {"n": 3}' in text
    assert "pay" in text
    assert "rate" in text
    assert "2 transitions" not in str(db.explain("strata://draft/default/machines/_machine/other/1"))
    for ref in ("strata://main/default/machines/_machine/order", "strata://main/default/machines/a#$.x"):
        with pytest.raises(InvalidInput):
            db.explain(ref)


def test_forget_takes_all_of_an_instance(tmp_path):
    path = tmp_path / "db"
    with strata.open(path) as db:
        db.machines.define("order", 1, ORDER)
        for id in ("secret-1", "open-1"):
            db.machines.create("order", id, {"name": f"{id} name"}, idempotency_key="k")
            db.machines.apply(id, "PAY", {"card": f"{id} card"}, idempotency_key="k")
        db.branches.fork("main", "draft")
        db.branch("draft").machines.apply("secret-1", "SHIP")
        given = db.machines.create("order", idempotency_key="given-key").id
        db.forget("machines", given)
        assert db.machines.create("order", idempotency_key="other-key").id != given
        db.machines.delete(db.machines.create("order", idempotency_key="other-key").id)
        db.forget("machines", "secret-1")
        for place in (db, db.branch("draft")):
            assert [found.id for found in place.machines] == ["open-1"]
            assert place.machines.count("order") == place.machines.count("order", "paid") == 1
            assert place.machines.history("secret-1") == []
        made = db.machines.create("order", "secret-1", idempotency_key="k")
        assert made.context == {}
        db.machines.delete("secret-1")
        db.forget("machines", prefix="secret")
        db.forget("machines", "_machine/order/1")
        assert db.machines.definitions() == []
        db.checkpoint()
    content = b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
    assert b"secret-1" not in content
    assert b"given-key" not in content
    assert b"other-key" in content
    assert b"open-1" in content


def test_a_bundle_takes_machines_along(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.machines.define("order", 1, ORDER)
        db.machines.create("order", "a", {"n": 1}, idempotency_key="k")
        db.machines.apply("a", "PAY", idempotency_key="k")
        db.machines.create("order", "b")
        db.machines.delete("b")
        before = [*db.machines]
        db.export(tmp_path / "bundle")
    strata.import_(tmp_path / "bundle", tmp_path / "other")
    with strata.open(tmp_path / "other") as db:
        assert [(found.id, found.state, found.context) for found in db.machines] == [
            (found.id, found.state, found.context) for found in before
        ]
        assert [found.id for found in db.machines.list("order", "paid")] == ["a"]
        assert not db.machines.apply("a", "PAY", idempotency_key="k").applied
        assert db.machines.apply("a", "SHIP").to_state == "shipped"


def test_search_finds_contexts():
    whole = strata.open()
    whole.machines.define("order", 1, ORDER)
    whole.machines.create("order", "a", {"note": "the customer asked for a blue ribbon"})
    whole.machines.create("order", "b", {"note": "nothing special"})
    whole.machines.apply("b", "PAY", {"note": "wrap it in ribbon, please"})
    whole.indexes.create("notes", primitive="machines")
    assert {hit.ref.key for hit in whole.search("ribbon").hits} == {"a", "b"}
    whole.close()
