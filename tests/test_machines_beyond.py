"""Machines beyond rstmdb: timers, actions, migration, pictures."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import databases
import pytest
from machine_cases import states, with_order

import strata
from strata.core.errors import InvalidInput, LimitExceeded, NotFound, ReadOnly
from strata.testing import FakeClock


@pytest.fixture(params=databases.KINDS)
def db(request, clock):
    yield from with_order(request.param, clock)


# -- timers

TIMED = {
    "states": ["open", "late", "closed"],
    "initial": "open",
    "transitions": [
        {"from": "open", "event": "REMIND", "to": "open", "guard": "ctx.remind"},
        {"from": "open", "event": "EXPIRE", "to": "late"},
        {"from": "late", "event": "CLOSE", "to": "closed"},
        {"from": ["open", "late"], "event": "DONE", "to": "closed"},
        {"from": "open", "event": "TOUCH", "to": "open"},
    ],
    "timers": [
        {"state": "open", "after": 60, "event": "EXPIRE"},
        {"state": "open", "after": 10, "event": "REMIND"},
        {"state": ["late"], "after": 0.5, "event": "CLOSE"},
    ],
}
SECOND = 1_000_000


@pytest.fixture
def timed(db):
    db.machines.define("timed", 1, TIMED)
    return db


def test_a_timer_fires_once_it_is_due(timed, clock):
    machines, begun = timed.machines, clock()
    machines.create("timed", "a")
    assert machines.next_due() == datetime.fromtimestamp(begun / SECOND + 10, UTC)
    assert machines.fire_due() == []
    clock.advance(10 * SECOND)
    (fired,) = machines.fire_due()  # its guard says no, so it goes without effect
    assert (fired.instance, fired.event, fired.transition) == ("a", "REMIND", None)
    assert machines.get("a").steps == 0
    assert machines.fire_due() == []
    clock.advance(49 * SECOND)
    assert machines.fire_due() == []
    clock.advance(1 * SECOND)
    (fired,) = machines.fire_due()
    assert (fired.event, fired.due_us, fired.transition.to_state) == ("EXPIRE", begun + 60 * SECOND, "late")
    assert fired.transition.version == timed.version
    clock.advance(SECOND)
    assert [fired.event for fired in machines.fire_due()] == ["CLOSE"]
    assert machines.next_due() is None
    assert [step.event for step in machines.history("a")] == ["CLOSE", "EXPIRE", None]


def test_leaving_a_state_takes_its_timers_and_entering_sets_them(timed, clock):
    machines = timed.machines
    machines.create("timed", "a", {"remind": True})
    clock.advance(10 * SECOND)
    assert machines.fire_due()[0].transition.to_state == "open"  # back into it: all begins anew
    clock.advance(9 * SECOND)
    machines.apply("a", "TOUCH")
    clock.advance(9 * SECOND)
    assert machines.fire_due() == []
    machines.apply("a", "DONE")
    clock.advance(1000 * SECOND)
    assert machines.fire_due() == []
    machines.create("timed", "b")
    machines.delete("b")
    machines.create("timed", "c", ttl=5)
    clock.advance(1000 * SECOND)
    assert machines.fire_due() == []
    assert machines.next_due() is None


def test_timers_are_those_of_a_branch_and_follow_a_merge(timed, clock):
    timed.machines.create("timed", "a")
    timed.branches.fork("main", "draft")
    draft = timed.branch("draft")
    draft.machines.apply("a", "EXPIRE")
    draft.machines.create("timed", "b")
    timed.branches.merge("draft", "main")
    clock.advance(100 * SECOND)
    fired = [(fired.instance, fired.event) for fired in timed.machines.fire_due()]
    assert fired == [("a", "CLOSE"), ("b", "REMIND"), ("b", "EXPIRE")]
    assert states(draft.machines) == {"a": "late", "b": "open"}
    with timed.transaction() as tx:
        tx.machines.create("timed", "c")
        clock.advance(100 * SECOND)
        assert [fired.event for fired in tx.machines.fire_due(limit=1)] == ["CLOSE"]
    assert states(timed.machines) == {"a": "closed", "b": "closed", "c": "open"}
    with pytest.raises(ReadOnly):
        timed.at(timed.version).machines.fire_due()


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_due_timers_fire_once_each_in_order_after_a_reopening(tmp_path, count):
    clock, path = FakeClock(), tmp_path / "db"
    definition = TIMED | {"timers": [{"state": "open", "after": 5, "event": "EXPIRE"}]}
    with strata.open(path, clock=clock) as db:
        db.machines.define("timed", 1, definition)
        for start in range(0, count, 100):
            ids = [f"{number * 7919 % count:05}" for number in range(start, start + 100)]
            db.machines.batch([{"op": "create", "machine": "timed", "id": id} for id in ids])
            clock.advance(1000)
    clock.advance(10 * SECOND)
    with strata.open(path, clock=clock) as db:
        version = db.version
        fired = db.machines.fire_due()
        order = [(one.due_us, one.instance) for one in fired]
        assert order == sorted(order)
        assert len({one.instance for one in fired}) == len(fired) == count
        assert [one.transition.version for one in fired] == [*range(version + 1, version + count + 1)]
        assert db.machines.count("timed", "late") == count
        assert db.machines.fire_due() == []
    with strata.open(path, clock=clock) as db:
        assert db.machines.fire_due() == []
        assert db.machines.next_due() is None


def test_two_that_fire_side_by_side_fire_each_timer_once(clock):
    db = databases.make("kernel", clock)
    db.machines.define("timed", 1, TIMED)
    for number in range(200):
        db.machines.create("timed", f"{number:03}", {"remind": True})
    clock.advance(100 * SECOND)
    fired, before = [], db.version
    threads = [threading.Thread(target=lambda: fired.extend(db.machines.fire_due())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # To be reminded sets both timers anew, so the other one is no longer due.
    assert sorted(one.instance for one in fired) == [f"{number:03}" for number in range(200)]
    assert {one.event for one in fired} == {"REMIND"}
    assert db.version - before == 200
    db.close()


def test_one_that_fires_alone_keeps_the_order(timed, clock):
    for number in range(50):
        timed.machines.create("timed", f"{number * 31 % 50:02}")
        clock.advance(SECOND)
    clock.advance(100 * SECOND)
    fired = timed.machines.fire_due()
    order = [(one.due_us, one.instance) for one in fired]
    assert order == sorted(order)
    assert len(order) == 100


@pytest.mark.parametrize(
    "timer",
    [
        {"state": "open", "after": 0, "event": "EXPIRE"},
        {"state": "open", "after": -1, "event": "EXPIRE"},
        {"state": "open", "after": "60", "event": "EXPIRE"},
        {"state": "open", "after": True, "event": "EXPIRE"},
        {"state": "open", "after": 1e20, "event": "EXPIRE"},
        {"state": "open", "event": "EXPIRE"},
        {"state": "open", "after": 60},
        {"state": "closed", "after": 60, "event": "EXPIRE"},
        {"state": "nowhere", "after": 60, "event": "EXPIRE"},
        {"after": 60, "event": "EXPIRE"},
        "EXPIRE",
    ],
)
def test_what_is_no_timer(timed, timer):
    with pytest.raises(InvalidInput):
        timed.machines.define("timed", 2, TIMED | {"timers": [timer]})
    with pytest.raises(InvalidInput):
        timed.machines.define("timed", 2, TIMED | {"timers": timer})


def test_a_definition_that_differs_in_its_timers_is_another(timed):
    plain = {key: value for key, value in TIMED.items() if key != "timers"}
    empty = TIMED | {"timers": [], "actions": []}
    sums = [timed.machines.define("m", n, d).checksum for n, d in enumerate([TIMED, plain, empty], 1)]
    assert sums[0] != sums[1] == sums[2]
    assert timed.machines.machine("m", 1).definition["timers"][2] == TIMED["timers"][2]
    assert "timers" not in timed.machines.machine("m", 3).definition


# -- actions

ACTING = {
    "states": ["cart", "paid", "sent"],
    "initial": "cart",
    "transitions": [
        {"from": "cart", "event": "PAY", "to": "paid"},
        {"from": "paid", "event": "SEND", "to": "sent"},
        {"from": "cart", "event": "ADD", "to": "cart"},
    ],
    "actions": [
        {"on": "enter", "state": "cart", "do": "kv.incr", "key": "carts"},
        {"on": "enter", "state": "paid", "do": "kv.put", "key": "order/{id}/total", "value": "{ctx.total}"},
        {"on": "enter", "state": "paid", "do": "kv.incr", "key": "revenue/{ctx.region}", "by": "{ctx.total}"},
        {
            "on": "enter",
            "state": ["paid", "sent"],
            "do": "events.append",
            "type": "order-{event}",
            "payload": {
                "id": "{id}",
                "from": "{from}",
                "to": "{to}",
                "lines": "{ctx.lines}",
                "said": "{{{machine}}}",
            },
            "stream": "orders",
        },
        {"on": "exit", "state": "paid", "do": "state.set", "name": "last/{id}", "value": ["{ctx.total}", 1]},
        {
            "on": "exit",
            "state": "paid",
            "do": "json.set",
            "doc": "orders",
            "path": "$.{id}",
            "value": {"n": 1},
        },
        {"on": "exit", "state": "paid", "do": "json.merge", "doc": "orders", "patch": {"last": "{id}"}},
        {"on": "exit", "state": "paid", "do": "kv.delete", "key": "order/{id}/total"},
    ],
}


@pytest.fixture
def acting(db):
    db.machines.define("acting", 1, ACTING)
    return db


@pytest.mark.parametrize("is_inside", [False, True])
def test_actions_write_other_primitives_in_the_same_commit(acting, is_inside):
    def run(place):
        place.machines.create("acting", "o", {"total": 5, "region": "eu"})
        place.machines.apply("o", "ADD", {"lines": [{"sku": 1}]})
        place.machines.apply("o", "PAY")

    before = acting.version
    if is_inside:
        with acting.transaction() as tx:
            run(tx)
            assert tx.kv.get("order/o/total") == 5
    else:
        run(acting)
    assert acting.version - before == (1 if is_inside else 3)
    assert dict(acting.kv.scan()) == {"carts": 2, "order/o/total": 5, "revenue/eu": 5}
    event = acting.events.get(0, stream="orders")
    assert event.version == acting.machines.get("o").version
    assert event.type == "order-PAY"
    assert event.payload == {
        "id": "o",
        "from": "cart",
        "to": "paid",
        "lines": [{"sku": 1}],
        "said": "{acting}",
    }
    acting.machines.apply("o", "SEND")
    assert acting.state.get("last/o") == [5, 1]
    assert acting.json.get("orders") == {"o": {"n": 1}, "last": "o"}
    assert "order/o/total" not in acting.kv
    assert acting.events.verify().ok
    assert acting.events.len("orders") == 2


@pytest.mark.parametrize("how", ["automatic", "inside", "batch"])
@pytest.mark.parametrize(
    ("context", "key", "value"),
    [
        ({"total": 5}, "x", 1),
        ({"total": 5, "region": "eu"}, "revenue/eu", "text"),
        ({"region": "eu"}, "x", 1),
    ],
)
def test_an_action_that_cannot_be_refuses_the_event_and_leaves_nothing(acting, how, context, key, value):
    """A field is missing, the number is a text, or what is added is null: in the second of three actions."""
    acting.kv.put(key, value)
    acting.machines.create("acting", "o", context)
    before, kv = acting.version, dict(acting.kv.scan())
    if how == "automatic":
        with pytest.raises(InvalidInput) as caught:
            acting.machines.apply("o", "PAY")
        assert any("kv.incr" in note for note in caught.value.__notes__)
    elif how == "batch":
        (result,) = acting.machines.batch([{"op": "apply", "id": "o", "event": "PAY"}])
        assert result.error.code == "invalid_input"
    else:
        with acting.transaction() as tx:
            with pytest.raises(InvalidInput):
                tx.machines.apply("o", "PAY")
            assert dict(tx.kv.scan()) == kv
            assert tx.machines.get("o").state == "cart"
    assert acting.version == before
    assert dict(acting.kv.scan()) == kv
    assert acting.events.streams() == []


@pytest.mark.parametrize(
    "action",
    [
        {"do": "kv.steal", "key": "x"},
        {"do": "kv.put", "key": "x"},
        {"do": "kv.put", "key": "x", "value": 1, "more": 2},
        {"do": "kv.put", "key": "{nothing}", "value": 1},
        {"do": "kv.put", "key": "{ctx.}", "value": 1},
        {"do": "kv.put", "key": "{ctx}", "value": 1},
        {"do": "kv.put", "key": "a{", "value": 1},
        {"do": "kv.put", "key": "a}", "value": 1},
        {"do": "kv.put", "key": "a", "value": {"x": ["{__class__}"]}},
        {"do": "json.set", "doc": "d", "path": "$.[", "value": 1},
        {"do": "kv.put", "key": "x", "value": 1, "on": "create"},
        {"do": "kv.put", "key": "x", "value": 1, "state": "nowhere"},
        {"do": ["kv.put"], "key": "x", "value": 1},
        {"key": "x", "value": 1},
    ],
)
def test_what_is_no_action(acting, action):
    with pytest.raises(InvalidInput):
        acting.machines.define("acting", 2, ACTING | {"actions": [{"on": "enter", "state": "cart"} | action]})


FILLED = [
    {"do": "kv.put", "key": "{ctx.v}", "value": 1},
    {"do": "kv.put", "key": "x", "value": "{ctx.v}"},
    {"do": "kv.incr", "key": "{ctx.v}"},
    {"do": "kv.incr", "key": "k", "by": "{ctx.v}"},
    {"do": "kv.delete", "key": "{ctx.v}"},
    {"do": "state.set", "name": "{ctx.v}", "value": 1},
    {"do": "json.set", "doc": "{ctx.v}", "path": "$.a", "value": 1},
    {"do": "json.set", "doc": "d", "path": "{ctx.v}", "value": 1},
    {"do": "json.merge", "doc": "{ctx.v}", "patch": {}},
    {"do": "json.merge", "doc": "d", "patch": "{ctx.v}"},
    {"do": "events.append", "type": "{ctx.v}", "payload": {}},
    {"do": "events.append", "type": "t", "payload": "{ctx.v}"},
    {"do": "events.append", "type": "t", "payload": {}, "stream": "{ctx.v}"},
]


@pytest.mark.parametrize("action", FILLED)
def test_whatever_a_place_holds_is_written_or_refuses_the_event(db, action):
    definition = ACTING | {"actions": [{"on": "enter", "state": "paid"} | action]}
    db.machines.define("filled", 1, definition)
    taken = 0
    for value in [None, 5, 1.5, True, [], {}, ["x"], "", "x\0", "ok", b"by", "\n", "x" * 2000]:
        id = db.machines.create("filled").id
        before = db.version
        try:
            db.machines.apply(id, "PAY", {"v": value})
        except (InvalidInput, LimitExceeded):
            assert db.version == before
        else:
            taken += 1
        assert db.machines.get(id).state == ("cart" if db.version == before else "paid")
    assert taken


def test_a_key_makes_actions_happen_once(acting):
    for _ in range(2):
        acting.machines.create("acting", "o", {"total": 1, "region": "eu"}, idempotency_key="k")
        acting.machines.apply("o", "PAY", idempotency_key="k")
    assert dict(acting.kv.scan()) == {"carts": 1, "order/o/total": 1, "revenue/eu": 1}


# -- migration

NEXT = {
    "states": ["new", "paid", "shipped", "void"],
    "initial": "new",
    "transitions": [
        {"from": "new", "event": "PAY", "to": "paid"},
        {"from": "paid", "event": "POST", "to": "shipped"},
        {"from": "paid", "event": "EXPIRE", "to": "void"},
    ],
    "timers": [{"state": "paid", "after": 60, "event": "EXPIRE"}],
}
MAPPED = {"created": "new", "cancelled": "void"}
CHANGES = {"rename": {"sum": "total", "absent": "x"}, "remove": ["old"], "set": {"schema": 2}}


@pytest.fixture
def migrating(db):
    for number in range(9):
        db.machines.create("order", f"{number}", {"sum": number, "old": 1})
    for number in range(3, 6):
        db.machines.apply(f"{number}", "PAY")
    db.machines.apply("6", "CANCEL")
    db.machines.define("order", 2, NEXT)
    db.machines.create("order", "new", {"total": 1})
    return db


def test_instances_migrate_in_one_commit_and_back(migrating, clock):
    db = migrating
    before, kept = db.version, [*db.machines]
    done = db.machines.migrate("order", states=MAPPED, context=CHANGES, dry_run=True)
    assert (done.ok, done.instances, done.version) == (True, 9, None)
    assert done.states == {"created": {"new": 5}, "paid": {"paid": 3}, "cancelled": {"void": 1}}
    assert db.version == before
    done = db.machines.migrate("order", states=MAPPED, context=CHANGES)
    assert (done.version, done.to) == (before + 1, 2) == (db.version, 2)
    found = db.machines.get("4")
    assert (found.machine_version, found.state, found.context) == (2, "paid", {"total": 4, "schema": 2})
    assert db.machines.count("order", "new") == 6
    assert db.machines.count("order", "created") == 0
    step = db.machines.history("4", limit=1)[0]
    assert (step.event, step.from_state, step.to_state) == (None, "paid", "paid")
    assert db.machines.migrate("order", states=MAPPED).instances == 0
    assert db.version == before + 1
    db.branches.revert(before + 1)
    assert [(found.id, found.state, found.context, found.machine_version) for found in db.machines] == [
        (found.id, found.state, found.context, found.machine_version) for found in kept
    ]
    assert db.machines.count("order", "created") == 5
    clock.advance(60 * SECOND)
    assert db.machines.fire_due() == []
    db.machines.apply("4", "SHIP")


def test_migrated_instances_have_the_timers_of_their_version(migrating, clock):
    migrating.machines.migrate("order", 2, from_=1, states=MAPPED)
    clock.advance(60 * SECOND)
    assert [fired.instance for fired in migrating.machines.fire_due()] == ["3", "4", "5"]


def test_a_migration_that_cannot_be_does_nothing(migrating):
    machines, before = migrating.machines, migrating.version
    done = machines.migrate("order", states={"created": "new"}, dry_run=True)
    assert [id for id, _ in done.problems] == ["6"]
    assert not done.ok
    for wrong in (
        {"states": {"created": "new"}},
        {"states": {"created": "nowhere"}},
        {"states": {"created": 7}},
        {"states": ["created"]},
        {"states": MAPPED, "context": {"drop": ["x"]}},
        {"states": MAPPED, "context": {"remove": "x"}},
        {"states": MAPPED, "context": {"remove": [1]}},
        {"states": MAPPED, "context": {"rename": {"sum": 1}}},
        {"states": MAPPED, "context": {"set": [1]}},
        {"states": MAPPED, "context": {"set": {"x": object()}}},
        {"to": 0},
    ):
        with pytest.raises(InvalidInput):
            machines.migrate("order", **wrong)
    with pytest.raises(NotFound):
        machines.migrate("order", 3)
    with pytest.raises(NotFound):
        machines.migrate("nothing")
    assert migrating.version == before
    with migrating.transaction() as tx:
        tx.machines.apply("0", "PAY", {"x": 1})
        with pytest.raises(InvalidInput):
            tx.machines.migrate("order", states={"created": "new"})
        assert tx.machines.migrate("order", states=MAPPED).version is None
        assert tx.machines.get("0").machine_version == 2
    assert [step.event for step in machines.history("0")] == [None, "PAY", None]


# -- pictures


def test_a_machine_as_a_mermaid_diagram(db):
    definition = {
        "states": ["open", "in review", "closed"],
        "initial": "open",
        "transitions": [
            {
                "from": ["open", "in review"],
                "event": "CLOSE",
                "to": "closed",
                "guard": 'ctx.a < 1 && ctx.b == "x;#"',
            },
            {"from": "open", "event": "SEND", "to": "in review"},
        ],
        "timers": [{"state": "in review", "after": 60, "event": "CLOSE"}],
    }
    machine = db.machines.define("ticket", 1, definition)
    assert machine.to_mermaid("in review").splitlines() == [
        "stateDiagram-v2",
        '    state "open" as s0',
        '    state "in review" as s1',
        '    state "closed" as s2',
        "    [*] --> s0",
        "    s0 --> s2 : CLOSE [ctx.a #lt; 1 #amp;#amp; ctx.b == #quot;x#59;#35;#quot;]",
        "    s1 --> s2 : CLOSE [ctx.a #lt; 1 #amp;#amp; ctx.b == #quot;x#59;#35;#quot;]",
        "    s0 --> s1 : SEND",
        "    s2 --> [*]",
        "    note right of s1 : CLOSE after 60 s",
        "    classDef here fill:#ffd866,color:#222",
        "    class s1 here",
    ]
    assert "class " not in machine.to_mermaid()
    assert "ctx.a &lt; 1 &amp;&amp;" in machine._repr_html_()
    assert machine._repr_mimebundle_()["text/vnd.mermaid"] == machine.to_mermaid()
