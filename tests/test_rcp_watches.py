"""Watches of RCP: every transition once and in order, from now or from an offset, whoever reads how fast."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_cases import ORDER
from rcp_client import serving

import strata
from strata.server.limits import Limits
from strata.server.rcp import watches
from strata.server.rcp.log import Log
from strata.server.rcp.offsets import offset_of

STATES = ["a", "b", "c"]
RING = {
    "states": STATES,
    "initial": "a",
    "transitions": [
        {"from": state, "event": event, "to": to}
        for state, to in zip(STATES, STATES[1:] + STATES[:1], strict=True)
        for event in ("NEXT", "ON")
    ],
}


@pytest.fixture
def db():
    with strata.open() as db:
        db.machines.define("order", 1, ORDER)
        db.machines.define("ring", 1, RING)
        db.machines.define("ring", 2, RING | {"meta": 2})
        yield db


@pytest.fixture
def rcp(db):
    with serving(db) as rcp:
        yield rcp


def said(event):
    return event["instance_id"], event["event"], event["wal_offset"]


def events(client, count):
    return [client.event() for _ in range(count)]


def nothing_more(client):
    """Whether nothing comes before what is asked from here on is answered, nor soon after."""
    client.get("PING")
    client.socket.settimeout(3 * watches.HELD_S)
    try:
        return client.event() is None
    except TimeoutError:
        return True


@pytest.mark.parametrize("is_line", [False, True])
def test_an_event_says_what_was_done(rcp, is_line):
    with rcp.client() as client:
        client.is_line = is_line
        client.get("CREATE_INSTANCE", machine="order", version=1, instance_id="o", initial_ctx={"x": 1})
        watch = client.get("WATCH_INSTANCE", instance_id="o")
        bare = client.get("WATCH_ALL", include_ctx=False)
        client.is_line = False  # events come as their request did
        done = client.get("APPLY_EVENT", instance_id="o", event="PAY", payload={"y": 2})
        first, second = events(client, 2)
        assert first == {
            "type": "event", "subscription_id": watch["subscription_id"], "instance_id": "o",
            "machine": "order", "version": 1, "wal_offset": done["wal_offset"], "from_state": "created",
            "to_state": "paid", "event": "PAY", "payload": {"y": 2}, "ctx": {"x": 1, "y": 2},
        }  # fmt: skip
        assert second == {
            **{name: value for name, value in first.items() if name != "ctx"},
            "subscription_id": bare["subscription_id"],
        }
        assert client.forms[-2:] == [is_line, is_line]
        client.get("APPLY_EVENT", instance_id="o", event="SHIP")
        assert events(client, 1)[0]["payload"] is None


def test_the_answer_comes_first_and_the_first_event_some_time_after(rcp, db):
    """Some clients know a subscription only once its answer is with their user, and drop what came before."""
    db.machines.create("ring", "r")
    with rcp.client() as client:
        client.raw(b"")
        watching, begun = client.send("WATCH_ALL"), time.monotonic()
        applying = client.send("APPLY_EVENT", instance_id="r", event="NEXT")
        assert [client.message()["id"], client.message()["id"]] == [watching, applying]
        assert client.event()["event"] == "NEXT"
        assert time.monotonic() - begun >= watches.HELD_S * 0.9
        for _ in range(20):
            asked = client.send("APPLY_EVENT", instance_id="r", event="NEXT")
            assert client.message()["id"] == asked
            assert client.event()["type"] == "event"


def test_what_an_instance_is_and_what_comes_after_fit_together(rcp, db, monkeypatch):
    """A commit between the look at the head and that at the instance was said twice: in both."""
    db.machines.create("ring", "r")
    real, made = Log.head.fget, []

    def head(log):
        found = real(log)
        if not made:
            made.append(db.machines.apply("r", "NEXT"))
        return found

    monkeypatch.setattr(Log, "head", property(head))
    with rcp.client() as client:
        watch = client.get("WATCH_INSTANCE", instance_id="r")
        assert watch["current_state"] == "a"
        assert client.event()["wal_offset"] == offset_of(made[0].version) > watch["current_wal_offset"]


def test_events_follow_their_answer_also_where_commits_wait_for_the_disk(tmp_path):
    with strata.open(tmp_path / "db", durability="strict") as db:
        db.machines.define("ring", 1, RING)
        db.machines.create("ring", "r")
        with serving(db) as rcp, rcp.client() as client, rcp.client() as other:
            client.get("WATCH_ALL")
            other.get("APPLY_EVENT", instance_id="r", event="ON")
            assert client.event()["event"] == "ON"  # from here on events are not held back
            for turn in range(10):
                ids = [client.send("APPLY_EVENT", instance_id="r", event="NEXT") for _ in range(2)]
                other.get("APPLY_EVENT", instance_id="r", event="ON")
                found = [client.message() for _ in range(5)]
                answers = [one for one in found if one["type"] == "response"]
                assert [one["id"] for one in answers] == ids
                seen = set()
                for one in found:
                    if one["type"] == "response":
                        seen.add(one["result"]["wal_offset"])
                    elif one["event"] == "NEXT":
                        assert one["wal_offset"] in seen, turn


def test_what_is_no_event_is_not_said(rcp, db):
    with rcp.client() as client:
        client.get("WATCH_ALL")
        client.get("CREATE_INSTANCE", machine="ring", version=1, instance_id="r", idempotency_key="c")
        client.get("APPLY_EVENT", instance_id="r", event="NEXT", idempotency_key="k")
        assert not client.get("APPLY_EVENT", instance_id="r", event="NEXT", idempotency_key="k")["applied"]
        client.code("APPLY_EVENT", instance_id="r", event="NO")
        db.kv.put("k", 1)
        db.machines.migrate("ring", 2)
        client.get("DELETE_INSTANCE", instance_id="r")
        assert said(client.event())[:2] == ("r", "NEXT")
        assert nothing_more(client)


WANTED = st.none() | st.lists(st.sampled_from([*STATES, "created", "paid", "order", "ring", "NEXT", "PAY"]))


@settings(max_examples=15, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(("machines", "from_states", "to_states", "events"), WANTED)))
def test_filters_are_and_across_lists_and_or_inside(filters):
    with strata.open() as db, serving(db) as rcp:
        db.machines.define("order", 1, ORDER)
        db.machines.define("ring", 1, RING)
        for machine in ("order", "ring"):
            db.machines.create(machine, machine)
        made = [db.machines.apply(*one) for one in (("ring", "NEXT"), ("order", "PAY"), ("ring", "ON"))]
        fields = {"machines": "instance", "from_states": "from_state", "to_states": "to_state"}
        wanted = [
            (one.instance, one.event)
            for one in made
            if all(
                not allowed or getattr(one, fields.get(name, "event")) in allowed
                for name, allowed in filters.items()
            )
        ]
        with rcp.client() as client:
            client.get("WATCH_ALL", from_offset=0, **filters)
            last = client.get("WATCH_INSTANCE", instance_id="ring", from_offset=0)["subscription_id"]
            found = itertools.takewhile(
                lambda event: (event["subscription_id"], event["event"]) != (last, "ON"),
                iter(client.event, None),
            )
            assert [said(one)[:2] for one in found if one["subscription_id"] != last] == wanted


def test_unwatch_and_watches_of_what_is_not_there(rcp, db):
    db.machines.create("ring", "r")
    with rcp.client() as client:
        assert client.code("WATCH_INSTANCE", instance_id="none") == "INSTANCE_NOT_FOUND"
        one, two = (client.get("WATCH_ALL")["subscription_id"] for _ in range(2))
        assert client.get("UNWATCH", subscription_id=one)["removed"]
        assert not client.get("UNWATCH", subscription_id=one)["removed"]
        assert not client.get("UNWATCH", subscription_id="sub-none")["removed"]
        db.machines.apply("r", "NEXT")
        assert client.event()["subscription_id"] == two
        assert nothing_more(client)
        assert len(rcp.listener.watches) == 1
    with rcp.client() as client:
        db.machines.apply("r", "NEXT")
        client.get("PING")
        assert len(rcp.listener.watches) == 0  # went with its connection


def test_commits_that_others_make_are_seen(rcp, db):
    """As by another thread, process, or protocol; also several in one transaction, and by merges."""
    db.machines.create("ring", "r")
    with rcp.client() as client:
        client.get("WATCH_ALL")
        with db.transaction() as tx:
            tx.machines.apply("r", "NEXT")
            tx.machines.apply("r", "ON", {"n": 1})
        at = offset_of(db.version)
        assert [said(one) for one in events(client, 2)] == [("r", "NEXT", at), ("r", "ON", at)]
        db.branches.fork("main", "draft")
        db.branch("draft").machines.apply("r", "NEXT")
        db.branches.merge("draft", "main")
        assert said(client.event()) == ("r", "NEXT", offset_of(db.version))


def test_from_an_offset_first_what_was_and_then_what_comes(rcp, db):
    db.machines.create("ring", "r")
    offsets = [offset_of(db.machines.apply("r", "NEXT").version) for _ in range(5)]
    with rcp.client() as client:
        for begin, wanted in ((0, offsets), (offsets[2], offsets[2:]), (offsets[2] + 1, offsets[3:])):
            with rcp.client() as client:
                client.get("WATCH_INSTANCE", instance_id="r", from_offset=begin)
                assert [event["wal_offset"] for event in events(client, len(wanted))] == wanted
        with rcp.client() as client:
            head = client.get("WATCH_ALL")["wal_offset"]
            client.get("WATCH_ALL", from_offset=head)
            offset = offset_of(db.machines.apply("r", "NEXT").version)
            assert offset >= head
            assert [event["wal_offset"] for event in events(client, 2)] == [offset, offset]


def test_what_is_no_longer_kept_is_refused_with_where_it_begins(rcp, db):
    db.machines.create("ring", "r")
    for _ in range(5):
        db.machines.apply("r", "NEXT")
    db.retention.set(strata.KeepLast(1))
    db.compact()
    db.machines.apply("r", "NEXT")
    with rcp.client() as client:
        error = client.error("WATCH_ALL", from_offset=0)
        assert error["code"] == "BAD_REQUEST"
        earliest = error["details"]["earliest_offset"]
        client.get("WATCH_ALL", from_offset=earliest)
        assert client.event()["event"] == "NEXT"
        assert client.error("WAL_READ", from_offset=5)["details"] == {"earliest_offset": earliest}
        assert client.get("WAL_READ", from_offset=0)["records"][-1]["entry"]["type"] == "apply_event"


def test_a_subscription_ends_where_what_comes_next_was_let_go_of(rcp, db):
    """As where a client reads slowly while retention goes on: it is told, and asks for other things."""
    db.machines.create("ring", "r")
    real = rcp.listener.log.page

    def page(after):
        raise strata.errors.HistoryTrimmed(requested=after, oldest=after + 5)

    with rcp.client() as client:
        id = client.get("WATCH_ALL")["subscription_id"]
        rcp.listener.log.page = page
        db.machines.apply("r", "NEXT")
        ended = client.event()
        assert (ended["type"], ended["subscription_id"]) == ("end", id) and ended["reason"]
        rcp.listener.log.page = real
        assert not client.get("UNWATCH", subscription_id=id)["removed"]
        assert len(rcp.listener.watches) == 0


def test_from_offset_under_load_nothing_is_missed_or_twice(rcp, db):
    count, ids = 3000, [f"r{number}" for number in range(4)]
    for id in ids:
        db.machines.create("ring", id)
    for number in range(1000):
        db.machines.apply(ids[number % 4], "NEXT", {"n": number})

    def write(number):
        with rcp.client() as client:
            for _ in range(count // 4):
                client.send("APPLY_EVENT", instance_id=ids[number], event="ON")
            for _ in range(count // 4):
                assert client.message()["status"] == "ok"

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    with rcp.client() as client, rcp.client() as later:
        client.get("WATCH_ALL", from_offset=0, include_ctx=False)
        found = events(client, 2000)
        later.get("WATCH_ALL", from_offset=0, include_ctx=False)
        found += events(client, 1000 + count - 2000)
        for thread in threads:
            thread.join()
        history = [
            (step.instance, step.event, offset_of(step.version))
            for id in ids
            for step in db.machines.history(id)
            if step.event
        ]
        assert [said(event) for event in found] == sorted(history, key=lambda step: step[2])
        again = events(later, len(found))
        assert [said(event) for event in again] == [said(event) for event in found]
        assert nothing_more(client)


def test_a_client_that_does_not_read_gets_all_of_it_later_and_holds_up_nobody(db):
    for id in ("r", "s"):
        db.machines.create("ring", id)
    payload = {"text": "x" * 20_000}
    with serving(db, limits=Limits(stalled_s=100)) as rcp, rcp.client() as slow, rcp.client() as quick:
        slow.get("WATCH_ALL")
        quick.get("WATCH_ALL", include_ctx=False)
        for _ in range(1500):  # 60 MB, of which the server keeps one or two
            db.machines.apply("r", "NEXT", payload)
        assert len(events(quick, 1500)) == 1500
        stuck = next(one for one in rcp.server.connections if one._transport.get_write_buffer_size())
        assert stuck._transport.get_write_buffer_size() < 4 << 20
        found = events(slow, 1500)
        assert [event["wal_offset"] for event in found] == sorted({event["wal_offset"] for event in found})
        assert slow.get("PING")


def test_a_database_that_closes_ends_subscriptions():
    db = strata.open()
    with serving(db) as rcp, rcp.client() as client:
        id = client.get("WATCH_ALL")["subscription_id"]
        db.close()
        ended = client.event()
        assert (ended["type"], ended["subscription_id"]) == ("end", id)
