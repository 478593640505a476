"""Messages: what a hook is told of a commit, how it is signed, and by which ids."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

import databases
import pytest
from receivers import SECRET, URL, Remembers, failing

from strata.errors import InvalidInput
from strata.worker import Worker, verify
from strata.worker.messages import BODY_BYTES_MAX
from strata.worker.signing import signed

SECOND = 1_000_000
TICKET = {
    "states": ["open", "held", "closed"],
    "initial": "open",
    "transitions": [
        {"from": "open", "event": "HOLD", "to": "held"},
        {"from": "held", "event": "RESUME", "to": "open"},
        {"from": ["open", "held"], "event": "CLOSE", "to": "closed"},
    ],
}


@pytest.fixture(params=databases.KINDS)
def db(request, clock):
    with databases.make(request.param, clock) as database:
        yield database


@pytest.fixture
def transport():
    return Remembers()


@pytest.fixture
def worker(db, transport):
    return Worker(db, transport=transport, senders=1, log=lambda *_, **__: None)


def test_what_a_hook_is_told_is_what_a_watch_gives(db, worker, transport):
    filters = [
        {},
        {"primitive": "kv"},
        {"space": "notes"},
        {"prefix": "a"},
        {"primitive": "events", "prefix": "chat"},
        {"type": "said"},
    ]
    watches = [db.watch(**chosen, timeout_s=0) for chosen in filters]
    for number, chosen in enumerate(filters):
        db.webhooks.add(f"h{number}", f"{URL}/{number}", **chosen)
    for place in (db, db.space("notes")):
        place.kv.put("a", 1)
        place.kv.put("b", b"\x00\xff")
        place.json.set("doc", "$.a", {"b": [1, 2]})
        place.json.set("doc", "$.a.b[0]", 7)
        place.events.append_many([("said", {"n": 1}), ("heard", {"n": 2})], stream="chat")
        place.events.append("said", {"n": 3})
        place.state.set("cell", "x")
        place.kv.delete("a")
    worker.step()
    for number, watch in enumerate(watches):
        expected = [
            (step.version, change.space, change.primitive, str(change.ref), change.action, change.removed)
            for step in watch
            for change in step.changes
        ]
        told = [
            (
                message["data"]["version"],
                message["data"]["space"],
                message["data"]["primitive"],
                change["ref"],
                change["action"],
                change.get("removed", False),
            )
            for message in transport.tried
            if message["url"].endswith(f"/{number}")
            for change in message["data"]["changes"]
        ]
        assert sorted(told) == sorted(expected) and expected  # in order for each thing only
    value = next(
        change["value"]
        for message in transport.tried
        for change in message["data"]["changes"]
        if change["ref"].split("@")[0].endswith("kv/b")
    )
    assert base64.b64decode(value["$bytes"]) == b"\x00\xff"


def test_events_of_a_stream_in_one_commit_are_one_message(db, worker, transport):
    db.webhooks.add("a", URL)
    with db.transaction(message="why", actor="me", cause="strata://main/default/kv/k") as tx:
        tx.events.append_many([("said", {"n": 1}), ("heard", {"n": 2})], stream="chat")
        tx.events.append("said", {"n": 3})
        tx.kv.put("k", 1)
    worker.step()
    assert [(one["type"], one["data"]["key"]) for one in transport.tried] == [
        ("events.append", "chat"), ("events.append", "main"), ("kv.put", "k"),
    ]  # fmt: skip
    data = transport.tried[0]["data"]
    assert [change["value"]["payload"] for change in data["changes"]] == [{"n": 1}, {"n": 2}]
    assert (data["message"], data["actor"], data["cause"]) == ("why", "me", "strata://main/default/kv/k")
    assert {one["data"]["version"] for one in transport.tried} == {tx.version}


def test_transitions_are_told_and_chosen(db, worker, transport):
    chosen = {
        "all": {"machine": "ticket"},
        "events": {"events": ["HOLD", "CLOSE"]},
        "states": {"machine": "ticket", "to_states": ["open"]},
        "both": {"events": ["RESUME"], "to_states": ["open", "held"]},
        "other": {"machine": "other"},
    }
    for name, filters in chosen.items():
        db.webhooks.add(name, f"{URL}/{name}", **filters)
    for machine in ("ticket", "other"):
        db.machines.define(machine, 1, TICKET)
    db.machines.create("other", "o")
    db.machines.create("ticket", "t", {"team": "north"})
    db.machines.apply("t", "HOLD", {"why": "lunch"}, event_id="e1")
    with db.transaction() as tx:  # two in one commit
        tx.machines.apply("t", "RESUME")
        tx.machines.apply("t", "CLOSE")
    db.machines.delete("t")
    db.machines.delete("o")
    db.kv.put("t", 1)
    worker.step()
    told = {name: [] for name in chosen}
    for message in transport.tried:
        events = [step["event"] for step in message["data"].get("transitions", [])]
        told[message["url"].rpartition("/")[2]].append((message["type"].split(".")[1], events))
    create, held, closed, deleted = (
        ("create", [None]), ("apply", ["HOLD"]), ("apply", ["RESUME", "CLOSE"]), ("delete", []),
    )  # fmt: skip
    assert told == {
        "all": [create, held, closed, deleted],
        "events": [held, closed],
        "states": [create, closed],
        "both": [closed],
        "other": [create, deleted],
    }
    hold = next(
        one for one in transport.tried if one["data"].get("transitions", [{}])[0].get("event") == "HOLD"
    )
    assert hold["data"]["transitions"] == [
        {
            "event": "HOLD", "from_state": "open", "to_state": "held", "event_id": "e1",
            "context": {"team": "north", "why": "lunch"}, "payload": {"why": "lunch"},
        }
    ]  # fmt: skip


def test_ids_are_stable_and_differ_for_hook_commit_and_thing(db, worker, transport):
    db.webhooks.add("a", f"{URL}/a")
    db.webhooks.add("b", f"{URL}/b")
    transport.answers["k"] = failing()
    db.kv.put_many({"k": 1, "l": 1})
    db.kv.put("l", 2)
    worker.step()
    ids = {(one["url"], one["data"]["key"], one["data"]["version"]): one["id"] for one in transport.tried}
    assert len(set(ids.values())) == len(ids) == 6
    db.webhooks.resume("a")
    worker.step()
    again = transport.tried[-1]
    assert again["id"] == ids[again["url"], again["data"]["key"], again["data"]["version"]]


def test_a_large_commit_is_sent_in_rounds(db, worker, transport):
    db.webhooks.add("a", URL)
    names = [f"{number:04}" for number in range(1000)]
    db.kv.put_many(dict.fromkeys(names, 1))
    worker.step()
    assert [key for key, _ in transport.got] == names
    assert db.webhooks.status("a").position == db.version


def test_a_value_that_is_too_large_is_left_out(db, worker, transport):
    db.webhooks.add("a", URL)
    db.kv.put("small", "x" * 1000)
    version = db.kv.put("large", "x" * BODY_BYTES_MAX)
    worker.step()
    small, large = (one["data"] for one in transport.tried)
    assert small["changes"][0]["value"] == "x" * 1000
    assert large["left_out"] and large["changes"] == [
        {"ref": f"strata://main/default/kv/large@{version}", "action": "put"}
    ]


def test_signatures_are_those_of_the_specification():
    """The example of Standard Webhooks, and what must not verify."""
    id, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'
    headers = signed(id, 1614265330, body, [SECRET])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert verify(SECRET, headers, body, now_s=1614265330 + 299) == id
    shouted = {name.title(): value for name, value in headers.items()}
    assert verify(SECRET, shouted, body, now_s=1614265330 - 299) == id
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    for wrong in (
        lambda: verify(SECRET, headers, body, now_s=1614265330 + 301),
        lambda: verify(SECRET, headers, body, now_s=1614265330 - 301),
        lambda: verify(SECRET, headers, body),
        lambda: verify(SECRET, headers, body + b" ", now_s=1614265330),
        lambda: verify(other, headers, body, now_s=1614265330),
        lambda: verify(SECRET, headers | {"webhook-id": "msg_x"}, body, now_s=1614265330),
        lambda: verify(SECRET, headers | {"webhook-timestamp": "1614265331"}, body, now_s=1614265330),
        lambda: verify(SECRET, headers | {"webhook-signature": "v1,é"}, body, now_s=1614265330),
        lambda: verify(SECRET, {}, body),
    ):
        with pytest.raises(InvalidInput):
            wrong()


def test_secrets_are_exchanged_without_a_gap(db, worker, transport, clock):
    db.webhooks.add("a", URL, secret=SECRET)
    made = db.webhooks.rotate("a", keep_old=timedelta(hours=1))
    assert made.secret != SECRET and db.webhooks.get("a").secret is None

    def verifies(secret):
        db.kv.put("k", 1)
        worker.step()
        last = transport.tried[-1]
        body = json.dumps({name: last[name] for name in ("type", "timestamp", "data")}, separators=(",", ":"))
        try:
            return verify(secret, last["headers"], body.encode(), now_s=clock() / SECOND) == last["id"]
        except InvalidInput:
            return False

    assert verifies(SECRET) and verifies(made.secret)
    third = db.webhooks.rotate("a", keep_old=60)
    clock.advance(30 * SECOND)
    assert verifies(SECRET) and verifies(made.secret) and verifies(third.secret)
    clock.advance(40 * SECOND)
    assert verifies(SECRET) and not verifies(made.secret) and verifies(third.secret)
    clock.advance(3600 * SECOND)
    assert not verifies(SECRET) and verifies(third.secret)


def test_each_primitive_is_told(db, worker, transport):
    """Of each kind of thing, under names that look like others."""
    db.webhooks.add("a", URL)
    db.traces.record("thought", "plan", id="t/1", tags=["x"])
    db.vectors.create_collection("facts", 2)
    db.vectors.upsert("facts", "sky/3", [1.0, 0.5], {"colour": "blue"})
    db.machines.define("lamp/1", 1, TICKET)
    db.machines.create("lamp/1", "i/1")
    db.events.append("said", {"n": 1}, stream="chat/7")
    db.kv.put("ä/\u2028", float("nan"))
    db.state.set("s", 1)
    run = db.runs.begin("plan", id="r1")
    run.end({"ok": True})
    worker.step()
    told = {(one["data"]["primitive"], one["data"]["key"]) for one in transport.tried}
    assert {
        ("traces", "t/1"), ("machines", "_machine/lamp/1/1"), ("machines", "i/1"),
        ("events", "chat/7"), ("kv", "ä/\u2028"), ("state", "s"), ("runs", "r1"),
    } <= told  # fmt: skip
    assert any(primitive == "vectors" and "sky/3" in key for primitive, key in told)
