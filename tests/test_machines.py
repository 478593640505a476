"""Machines: instances, events, optimistic checks, idempotency, deletion, lists and histories."""

from __future__ import annotations

import databases
import pytest

import strata
from strata.core.errors import (
    AlreadyExists,
    Conflict,
    GuardFailed,
    InvalidInput,
    InvalidTransition,
    LimitExceeded,
    NotFound,
    NotIndexed,
    ReadOnly,
    UnexpectedState,
)
from strata.primitives import Cleared
from strata.testing import FakeClock

ORDER = {
    "states": ["created", "paid", "shipped", "cancelled"],
    "initial": "created",
    "transitions": [
        {"from": "created", "event": "PAY", "to": "paid"},
        {"from": "paid", "event": "SHIP", "to": "shipped"},
        {"from": ["created", "paid"], "event": "CANCEL", "to": "cancelled"},
        {"from": ["created", "paid"], "event": "NOTE", "to": "paid", "guard": "ctx.never"},
        {"from": "created", "event": "TOUCH", "to": "created"},
    ],
}
APPROVAL = {
    "states": ["open", "approved", "escalated", "parked"],
    "initial": "open",
    "transitions": [
        {"from": "open", "event": "DECIDE", "to": "approved", "guard": "ctx.total <= 1000"},
        {"from": "open", "event": "DECIDE", "to": "escalated", "guard": "ctx.total > 1000"},
        {"from": "open", "event": "TRY", "to": "approved", "guard": "ctx.total <= 1000"},
        {"from": "open", "event": "TRY", "to": "parked"},
    ],
}


@pytest.fixture
def machines(db):
    db.machines.define("order", 1, ORDER)
    return db.machines


@pytest.fixture(params=databases.KINDS)
def whole(request):
    db = databases.make(request.param, FakeClock())
    db.machines.define("order", 1, ORDER)
    yield db
    db.close()


# -- creating


def test_an_instance_begins_in_the_initial_state(machines, clock):
    made = machines.create("order", "o-1", {"total": 5})
    assert (made.state, made.context, made.steps, made.machine_version) == ("created", {"total": 5}, 0, 1)
    assert made.created == made.updated
    assert machines.get("o-1") == made
    clock.advance(1_000_000)
    machines.apply("o-1", "PAY")
    after = machines.get("o-1")
    assert (after.updated_us - after.created_us, after.created) == (1_000_000, made.created)


def test_ids_are_given_where_none_is(machines):
    ids = [machines.create("order").id for _ in range(3)]
    assert ids == sorted(set(ids))


def test_create_refuses_what_is_taken_or_unknown(db, machines):
    machines.create("order", "o-1")
    before = db.everything
    with pytest.raises(AlreadyExists):
        machines.create("order", "o-1")
    for version in (0, -1, 2**32, 1.0, "1", True):
        with pytest.raises(InvalidInput):
            machines.create("order", "o-2", version=version)
    for name, version in (("nothing", None), ("order", 2)):
        with pytest.raises(NotFound) as caught:
            machines.create(name, "o-2", version=version)
        assert caught.value.what == "machine"
    assert db.everything == before


@pytest.mark.parametrize("context", [[], "x", 1, True, {1: 2}, {"x": object()}, {"x": float("nan")}])
def test_a_context_is_a_map_of_values(db, machines, context):
    machines.create("order", "o-1")
    before = db.everything
    with pytest.raises(InvalidInput):
        machines.create("order", "o-2", context)
    with pytest.raises(InvalidInput):
        machines.apply("o-1", "PAY", context)
    assert db.everything == before
    assert machines.get("o-1").state == "created"


@pytest.mark.parametrize("id", ["", "a\0b", "\0d", "x" * 256, 7, None, b"x", "\ud800", "_machine/order/1"])
def test_ids_that_cannot_be(machines, id):
    calls = [
        machines.get,
        machines.exists,
        machines.delete,
        machines.history,
        lambda id: machines.apply(id, "PAY"),
    ]
    if id is not None:
        calls.append(lambda id: machines.create("order", id))
    for call in calls:
        with pytest.raises((InvalidInput, LimitExceeded)):
            call(id)


def test_names_may_be_as_long_as_limits_say(db):
    machine, state, other, event, id, key = ("é" * 127 + mark for mark in "msoeik")
    step = {"from": state, "event": event, "to": other}
    definition = {"states": [state, other], "initial": state, "transitions": [step]}
    timers = [{"state": state, "after": 1, "event": event}]
    db.machines.define(machine, 2**32 - 1, definition | {"timers": timers})
    made = db.machines.create(machine, id, idempotency_key="é" * 512)
    assert db.machines.create(machine, id, idempotency_key="é" * 512) == made
    assert db.machines.create(machine, idempotency_key="é" * 512).machine == machine
    assert db.machines.apply(id, event, idempotency_key="é" * 512, event_id=key).to_state == other
    assert [found.id for found in db.machines.list(machine, other)] == [id]
    for wrong in ("é" * 513, ""):
        with pytest.raises((LimitExceeded, InvalidInput)):
            db.machines.apply(id, event, idempotency_key=wrong)


def test_a_payload_beyond_the_limit_is_refused(machines):
    machines.create("order", "o-1")
    deep = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(LimitExceeded):
        machines.apply("o-1", "PAY", {"deep": deep})
    with pytest.raises(LimitExceeded):
        machines.create("order", "o-2", {"deep": deep})
    assert machines.get("o-1").state == "created"


# -- events


def test_payloads_are_merged_key_by_key(machines):
    machines.create("order", "o-1")
    assert machines.apply("o-1", "TOUCH", {"a": 1}).context == {"a": 1}
    done = machines.apply("o-1", "TOUCH", {"a": None, "b": {"x": 1}})
    assert done.context == {"a": None, "b": {"x": 1}}
    assert done.payload == {"a": None, "b": {"x": 1}}
    assert machines.apply("o-1", "TOUCH", {"b": {"y": 2}}).context == {"a": None, "b": {"y": 2}}
    assert machines.apply("o-1", "TOUCH").payload is None
    assert machines.apply("o-1", "TOUCH", {}).payload == {}
    assert machines.get("o-1").context == {"a": None, "b": {"y": 2}}


def test_an_event_goes_from_each_of_several_states(machines):
    for id, events in (("a", ["CANCEL"]), ("b", ["PAY", "CANCEL"])):
        machines.create("order", id)
        done = [machines.apply(id, event) for event in events]
        assert done[-1].to_state == "cancelled"
        assert done[-1].version == machines.get(id).version


def test_events_that_lead_nowhere_change_nothing(db, machines):
    machines.create("order", "o-1", {"never": 0})
    before = db.everything
    with pytest.raises(InvalidTransition) as caught:
        machines.apply("o-1", "SHIP")
    assert (caught.value.from_, caught.value.event) == ("created", "SHIP")
    assert not isinstance(caught.value, GuardFailed)
    with pytest.raises(GuardFailed) as caught:
        machines.apply("o-1", "NOTE", {"never": True})  # asked about the context before the payload
    assert caught.value.guards == ("ctx.never",)
    for event in ("", "nothing", "x" * 1000):
        with pytest.raises(InvalidTransition):
            machines.apply("o-1", event)
    for event in (None, 7, ["PAY"]):
        with pytest.raises(InvalidInput):
            machines.apply("o-1", event)
    with pytest.raises(NotFound) as caught:
        machines.apply("o-2", "PAY")
    assert caught.value.what == "instance"
    assert db.everything == before


@pytest.mark.parametrize(
    ("context", "event", "to"),
    [
        ({"total": 500}, "DECIDE", "approved"),
        ({"total": 5000}, "DECIDE", "escalated"),
        ({}, "DECIDE", None),
        ({"total": "500"}, "DECIDE", None),
        ({"total": 500}, "TRY", "approved"),
        ({"total": 5000}, "TRY", "parked"),
        ({}, "TRY", "parked"),
    ],
)
def test_alternatives_are_tried_in_their_order(db, context, event, to):
    db.machines.define("approval", 1, APPROVAL)
    db.machines.create("approval", "a", context)
    assert db.machines.possible("a") == (["DECIDE", "TRY"] if type(context.get("total")) is int else ["TRY"])
    if to is None:
        with pytest.raises(GuardFailed):
            db.machines.apply("a", event)
    else:
        assert db.machines.apply("a", event).to_state == to


def test_optimistic_checks(db, machines):
    at = machines.create("order", "o-1").version
    machines.apply("o-1", "TOUCH", expected_state="created", expected_version=at)
    before = db.everything
    with pytest.raises(UnexpectedState) as caught:
        machines.apply("o-1", "PAY", expected_state="paid")
    assert (caught.value.what, caught.value.expected, caught.value.actual) == ("state", "paid", "created")
    with pytest.raises(Conflict) as caught:
        machines.apply("o-1", "PAY", expected_version=at)
    assert (caught.value.what, caught.value.expected) == ("version", at)
    assert caught.value.actual == machines.get("o-1").version
    for wrong in (
        {"expected_state": 7},
        {"expected_version": "x"},
        {"expected_version": -1},
        {"event_id": 3},
    ):
        with pytest.raises(InvalidInput):
            machines.apply("o-1", "PAY", **wrong)
    assert db.everything == before


def test_the_id_of_an_event_is_that_of_the_newest(machines):
    machines.create("order", "o-1")
    assert machines.apply("o-1", "TOUCH", event_id="e-1").event_id == "e-1"
    assert machines.get("o-1").event_id == "e-1"
    machines.apply("o-1", "TOUCH")
    assert machines.get("o-1").event_id is None
    assert [found.event_id for found in machines.history("o-1")] == [None, "e-1", None]


# -- deleting


def test_deletion_is_soft(db, machines):
    machines.create("order", "o-1", {"a": 1})
    at = machines.delete("o-1")
    assert at == db.branch.head
    assert machines.get("o-1") is None
    assert not machines.exists("o-1")
    assert machines.list() == machines.list("order") == machines.list("order", "created") == []
    with pytest.raises(NotFound):
        machines.apply("o-1", "PAY")
    before = db.everything
    assert machines.delete("o-1") == at
    with pytest.raises(NotFound):
        machines.delete("o-2")
    assert db.everything == before
    with pytest.raises(AlreadyExists):
        machines.create("order", "o-1", recreate=False)
    again = machines.create("order", "o-1")
    assert (again.state, again.context) == ("created", {})
    assert [(found.from_state, found.to_state) for found in machines.history("o-1")] == [
        (None, "created"),
        ("created", None),
        (None, "created"),
    ]


def test_an_expired_instance_is_gone(db, machines, clock):
    made = machines.create("order", "o-1", ttl=10)
    assert made.expires_us == machines.get("o-1").expires_us == clock() + 10_000_000
    clock.advance(9_000_000)
    machines.apply("o-1", "PAY", {"a": 1})
    at = db.branch.head
    clock.advance(1_000_000)
    assert machines.get("o-1") is None
    assert machines.list() == machines.list("order") == machines.list("order", "paid") == []
    assert machines.count() == machines.count("order") == machines.count("order", "paid") == 0
    with pytest.raises(NotFound):
        machines.apply("o-1", "SHIP")
    with pytest.raises(NotFound):
        machines.delete("o-1")
    assert db.at(at).machines.get("o-1").state == "paid"
    assert machines.create("order", "o-1").expires is None


def test_clear_removes_everything_for_good(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.machines.define("order", 1, ORDER)
        db.machines.define("order", 2, ORDER)
        for id in "abc":
            db.machines.create("order", id, idempotency_key="k")
        db.kv.put("kept", 1)
        at = db.version
        assert db.machines.clear() == Cleared(3, 2)
        assert db.version == at + 1
        assert db.machines.clear() == Cleared(0, 0)
        assert len(db.at(at).machines) == 3
    with strata.open(tmp_path / "db") as db:
        assert (len(db.machines), db.machines.definitions(), db.kv.get("kept")) == (0, [], 1)
        assert db.version == at + 1
        with pytest.raises(NotFound):
            db.machines.create("order", "a", idempotency_key="k")


# -- idempotency


def test_a_key_makes_a_call_happen_once(db, machines, clock):
    made = machines.create("order", "o-1", {"a": 1}, idempotency_key="k")
    done = machines.apply("o-1", "PAY", {"b": 2}, event_id="e", idempotency_key="k")
    machines.apply("o-1", "SHIP", {"b": 3})
    gone = machines.delete("o-1", idempotency_key="k")
    before = db.everything
    assert machines.create("order", "o-1", idempotency_key="k") == made
    again = machines.apply("o-1", "other", {"c": 1}, expected_state="x", idempotency_key="k")
    assert not again.applied
    assert (again.from_state, again.to_state, again.context) == ("created", "paid", {"a": 1, "b": 2})
    assert (again.version, again.event, again.event_id) == (done.version, "PAY", "e")
    assert again.payload == {"b": 2}
    assert machines.delete("o-1", idempotency_key="k") == gone
    assert db.everything == before
    clock.advance(24 * 3600 * 1_000_000)
    with pytest.raises(NotFound):
        machines.apply("o-1", "PAY", idempotency_key="k")


def test_keys_count_for_one_operation_and_instance(machines):
    for id in ("o-1", "o-2"):
        machines.create("order", id, idempotency_key="k")
        assert machines.apply(id, "PAY", idempotency_key="k").applied
    made = machines.create("order", idempotency_key="k")
    assert machines.create("order", idempotency_key="k") == made
    assert machines.count() == 3
    with pytest.raises(InvalidInput):
        machines.create("order", idempotency_key="")


def test_only_what_succeeds_is_kept_under_a_key(machines):
    machines.create("order", "o-1")
    for _ in range(2):
        with pytest.raises(InvalidTransition):
            machines.apply("o-1", "SHIP", idempotency_key="k")
    machines.apply("o-1", "PAY")
    assert machines.apply("o-1", "SHIP", idempotency_key="k").applied


def test_a_key_inside_of_a_transaction(db, machines):
    tx = db.begin()
    made = tx.machines.create("order", "o-1", idempotency_key="k")
    assert tx.machines.create("order", "o-1", idempotency_key="k").version is None is made.version
    assert tx.machines.apply("o-1", "PAY", idempotency_key="k").applied
    again = tx.machines.apply("o-1", "PAY", idempotency_key="k")
    assert (again.applied, again.version) == (False, None)
    version = tx.commit()
    assert machines.apply("o-1", "PAY", idempotency_key="k").version == version


@pytest.mark.parametrize("durability", ["buffered", "strict"])
def test_keys_hold_after_a_reopening(tmp_path, durability):
    path = tmp_path / "db"
    with strata.open(path, durability=durability) as db:
        db.machines.define("order", 1, ORDER)
        made = db.machines.create("order", idempotency_key="k")
        done = db.machines.apply(made.id, "PAY", {"a": 1}, idempotency_key="k")
        version = db.version
    with strata.open(path, durability=durability) as db:
        assert db.machines.create("order", idempotency_key="k") == made
        again = db.machines.apply(made.id, "PAY", {"a": 1}, idempotency_key="k")
        assert not again.applied
        assert (again.version, again.context, again.to_state) == (done.version, done.context, "paid")
        assert db.version == version
        assert [found.event for found in db.machines.history(made.id)] == ["PAY", None]


# -- lists


def test_lists_go_by_id_machine_and_state(machines):
    machines.define("other", 1, ORDER)
    for number in range(30):
        machines.create("order" if number % 3 else "other", f"i-{number:02}")
        if number % 2:
            machines.apply(f"i-{number:02}", "PAY")
    everything = [f"i-{number:02}" for number in range(30)]
    orders = [id for number, id in enumerate(everything) if number % 3]
    paid = [id for number, id in enumerate(everything) if number % 3 and number % 2]
    assert [found.id for found in machines] == everything
    for arguments, ids in (((), everything), (("order",), orders), (("order", "paid"), paid)):
        assert [found.id for found in machines.list(*arguments)] == ids
        assert [found.id for found in machines.list(*arguments, reverse=True)] == ids[::-1]
        assert machines.count(*arguments) == len(ids)
        for reverse, order in ((False, ids), (True, ids[::-1])):
            seen, after = [], None
            while page := machines.list(*arguments, after=after, reverse=reverse, limit=4):
                seen += [found.id for found in page]
                after = seen[-1]
            assert seen == order
    assert machines.list("nothing") == machines.list("order", "nothing") == []
    for arguments in ((None, "paid"), ("order", ["paid"]), ("order", 7), (7,), (["order"],), ("order", "")):
        with pytest.raises(InvalidInput):
            machines.list(*arguments)
    for limit in (-1, "x", 1.0):
        with pytest.raises(InvalidInput):
            machines.list(limit=limit)
    assert len(machines.list(limit=0)) == 0


def test_a_list_has_a_hundred_unless_told_otherwise(machines):
    for number in range(103):
        machines.create("order", f"{number:03}")
    assert len(machines.list()) == len(machines.list("order")) == 100
    assert len(machines.list(limit=None)) == len(machines) == 103


def test_pages_are_stable_while_instances_come_and_go(machines):
    for number in range(0, 40, 2):
        machines.create("order", f"{number:02}")
    seen, after = [], None
    while page := machines.list("order", "created", after=after, limit=3):
        seen += [found.id for found in page]
        after = seen[-1]
        machines.delete(after)  # the last one of the page goes, and others come around it
        machines.create("order", f"{int(after) - 1:02}")
        machines.apply(f"{(int(after) + 6) % 40:02}", "PAY") if int(after) < 30 else None
    assert seen == sorted(set(seen))
    assert len(seen) >= 15


def test_find_by_state_and_context_through_an_index(whole):
    for number in range(50):
        whole.machines.create("order", f"{number:02}", {"total": number % 10, "customer": {"tier": "a"}})
        if number % 2:
            whole.machines.apply(f"{number:02}", "PAY")
    where = {"machine": "order", "state": "paid", "$.context.total": {"gte": 7}}
    wanted = [f"{n:02}" for n in range(50) if n % 2 and n % 10 >= 7]
    with pytest.raises(NotIndexed):
        whole.machines.find(where)
    assert [found.id for found in whole.machines.find(where, scan=True)] == wanted
    paths = ["$.machine", "$.state", "$.context.total"]
    whole.indexes.create("totals", primitive="machines", kind="ordered", paths=paths)
    assert whole.machines.explain_plan(where).index == "totals"
    assert [found.id for found in whole.machines.find(where)] == wanted
    assert [found.id for found in whole.machines.find(where, reverse=True)] == wanted[::-1]
    assert [found.id for found in whole.machines.find(where, limit=2)] == wanted[:2]
    assert [found.id for found in whole.machines.find(where, after=wanted[1], limit=3)] == wanted[2:5]
    assert [found.id for found in whole.machines.find(where, after=wanted[3], reverse=True)] == wanted[2::-1]
    at = whole.version
    whole.machines.apply(wanted[0], "SHIP")
    assert [found.id for found in whole.machines.find(where)] == wanted[1:]
    assert [found.id for found in whole.at(at).machines.find(where)] == wanted


# -- histories, and where else they are seen


def test_a_history_says_what_each_commit_did(db, machines):
    machines.create("order", "o-1", {"a": 1})
    tx = db.begin()
    tx.machines.apply("o-1", "TOUCH", {"b": 1})
    tx.machines.apply("o-1", "TOUCH", {"b": 2})
    done = tx.machines.apply("o-1", "PAY")
    assert (done.version, done.context) == (None, {"a": 1, "b": 2})
    version = tx.commit()
    machines.apply("o-1", "SHIP", {"a": 9})
    found = machines.history("o-1")
    assert [(step.event, step.from_state, step.to_state, step.payload, step.context) for step in found] == [
        ("SHIP", "paid", "shipped", {"a": 9}, {"a": 9, "b": 2}),
        ("PAY", "created", "paid", None, {"a": 1, "b": 2}),
        ("TOUCH", "created", "created", {"b": 2}, {"a": 1, "b": 2}),
        ("TOUCH", "created", "created", {"b": 1}, {"a": 1, "b": 1}),
        (None, None, "created", None, {"a": 1}),
    ]
    assert [step.version for step in found[1:4]] == [version] * 3
    assert machines.history("o-1", before=version) == found[4:]
    assert machines.history("o-1", limit=2) == found[:4]
    assert machines.history("o-2") == []
    assert machines.get("o-1").steps == 4


def test_what_one_transaction_makes_of_an_instance(db, machines):
    tx = db.begin()
    tx.machines.create("order", "o-1", {"a": 1})
    tx.machines.apply("o-1", "TOUCH", {"a": 2})
    tx.machines.apply("o-1", "PAY", {"a": 3})
    assert tx.machines.list("order", "paid")[0].context == {"a": 3}
    assert tx.machines.list("order", "created") == []
    tx.commit()
    assert [(step.event, step.context) for step in machines.history("o-1")] == [
        ("PAY", {"a": 3}),
        ("TOUCH", {"a": 2}),
        (None, {"a": 1}),
    ]
    tx = db.begin()
    tx.machines.delete("o-1")
    tx.machines.delete("o-1")
    tx.machines.create("order", "o-1")
    tx.machines.apply("o-1", "PAY")
    tx.commit()
    assert [(step.event, step.context) for step in machines.history("o-1", limit=1)] == [
        ("PAY", {}),
        (None, {}),
    ]


def test_a_view_shows_what_was_and_takes_nothing(db, machines):
    machines.create("order", "o-1")
    at = db.branch.head
    machines.apply("o-1", "PAY")
    machines.create("order", "o-2")
    view = db.at(at).machines
    assert [found.state for found in view.list("order")] == ["created"]
    assert len(view.list("order", "paid")) == 0
    for write in (
        lambda: view.create("order", "o-3"),
        lambda: view.apply("o-1", "PAY"),
        lambda: view.delete("o-1"),
        lambda: view.define("order", 2, ORDER),
    ):
        with pytest.raises(ReadOnly):
            write()


def test_a_space_that_was_never_written_to(whole):
    for call in (
        lambda m: m.get("x"),
        lambda m: m.list(),
        lambda m: m.definitions(),
        lambda m: m.machine("x"),
    ):
        with pytest.raises(NotFound) as caught:
            call(whole.space("nothing").machines)
        assert caught.value.what == "space"
    whole.space("mine").machines.define("order", 1, ORDER)
    whole.space("mine").machines.create("order", "o-1")
    assert whole.machines.get("o-1") is None


@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
@pytest.mark.parametrize("first", ["apply", "delete"])
def test_two_transactions_on_one_instance_conflict(db, machines, isolation, first):
    machines.create("order", "o-1")
    one, two = db.begin(isolation), db.begin(isolation)
    one.machines.apply("o-1", "TOUCH", {"a": 1}) if first == "apply" else one.machines.delete("o-1")
    two.machines.apply("o-1", "TOUCH", {"b": 1})
    one.commit()
    with pytest.raises(Conflict):
        two.commit()


@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
@pytest.mark.parametrize("before", ["nothing", "a deletion"])
@pytest.mark.parametrize(
    "make",
    [
        lambda place: place.machines.create("order", "o-1"),
        lambda place: place.machines.define("new", 1, ORDER),
    ],
)
def test_two_transactions_that_make_the_same_conflict(db, machines, isolation, before, make):
    if before == "a deletion":
        machines.create("order", "o-1")
        machines.delete("o-1")
    one, two = db.begin(isolation), db.begin(isolation)
    make(one)
    make(two)
    one.commit()
    with pytest.raises(Conflict):
        two.commit()
