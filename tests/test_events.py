"""Events, over the oracle and the kernel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import stores

from strata.core.clock import to_datetime
from strata.core.errors import InvalidInput, LimitExceeded, NotFound
from strata.core.values import canonical, decode, encode
from strata.primitives.events import GENESIS, Origin, chain_hash
from strata.testing import FakeClock

VECTORS = json.loads((Path(__file__).parent.parent / "conformance/events.json").read_text())


def seen(events):
    return [(event.sequence, event.type, event.payload) for event in events]


def test_append_and_get(db, clock):
    event = db.events.append("greeting", {"text": "hello"})
    assert (event.sequence, event.type, event.payload) == (0, "greeting", {"text": "hello"})
    assert event.stream == "main" and event.origin is None and not event.pending
    assert event.time == to_datetime(clock())
    assert event.version == db.branch.head
    assert event.hash == chain_hash(GENESIS, 0, "greeting", clock(), {"text": "hello"})
    assert db.events.get(0) == event
    assert db.events.get(1) is None
    assert db.events.head() == event


def test_each_event_is_chained_to_the_one_before(db, clock):
    previous = GENESIS
    for n in range(5):
        clock.advance(n)
        event = db.events.append("t", {"b": n, "a": [None]})
        chained = [previous, n, "t", clock(), {"a": [None], "b": n}]
        assert event.hash == hashlib.sha256(canonical(chained)).digest()
        previous = event.hash
    assert db.events.verify().ok
    assert db.events.verify().events == 5


def test_ranges(db):
    for n in range(5):
        db.events.append("odd" if n % 2 else "even", {"n": n})
    everything = [(n, "odd" if n % 2 else "even", {"n": n}) for n in range(5)]
    assert seen(db.events) == seen(db.events.range()) == everything
    assert seen(db.events.range(1, 3)) == everything[1:3]
    assert seen(db.events.range(3, 99)) == everything[3:]
    assert seen(db.events.range(3, 1)) == seen(db.events.range(9)) == []
    assert seen(db.events.range(reverse=True, limit=2)) == everything[:2:-1]
    assert seen(db.events.range(limit=0)) == []
    assert seen(db.events.by_type("odd")) == everything[1::2]
    assert seen(db.events.by_type("odd", reverse=True, limit=1)) == everything[3:4]
    assert seen(db.events.by_type("even", start=1, end=4)) == everything[2:3]
    assert seen(db.events.by_type("never")) == []
    assert len(db.events) == db.events.len() == 5
    assert db.events.types() == ["even", "odd"]


def test_large_ranges_page_at_one_version(db):
    db.events.append_many(("t", {}) for _ in range(2300))
    found = db.events.range()
    next(found)
    db.events.append("t", {})
    assert [event.sequence for event in found] == list(range(1, 2300))
    assert len(list(db.events.range(reverse=True, limit=1500))) == 1500
    assert len(list(db.events.by_type("t", limit=1200))) == 1200


def test_by_time(db, clock):
    start = clock()
    for n in (0, 0, 10, 10, 10, 30):
        clock.set(start + n)
        db.events.append("t", {"n": n})

    def between(low, high, **options):
        ends = [None if end is None else to_datetime(start + end) for end in (low, high)]
        return [event.payload["n"] for event in db.events.between(*ends, **options)]

    assert between(None, None) == [0, 0, 10, 10, 10, 30]
    assert between(0, 10) == [0, 0]
    assert between(10, 30) == [10, 10, 10]
    assert between(10, None) == [10, 10, 10, 30]
    assert between(11, 31) == [30]
    assert between(31, None) == between(None, 0) == between(20, 10) == []
    assert between(None, 30, reverse=True, limit=2) == [10, 10]
    assert list(db.events.between("2020-01-01T00:00Z", "2020-01-02T00:00+02:00")) == []
    with pytest.raises(InvalidInput):
        db.events.between("2020-01-01", None)


def test_times_of_a_stream_never_go_backwards(db, clock):
    db.events.append("t", {})
    before = clock()
    clock.set(before - 5_000_000)
    event = db.events.append("t", {})
    assert event.time == to_datetime(before)
    assert db.events.verify().ok


def test_streams_are_apart(db):
    for stream in ("b", "a", "ab", "main", "a/b", "ü"):
        assert db.events.append("t", {"in": stream}, stream=stream).sequence == 0
    db.events.append("u", {}, stream="a")
    assert db.events.streams() == sorted(["b", "a", "ab", "main", "a/b", "ü"], key=str.encode)
    assert db.events.len("a") == 2 and db.events.len("ab") == 1
    assert seen(db.events.range(stream="a")) == [(0, "t", {"in": "a"}), (1, "u", {})]
    assert db.events.types("a") == ["t", "u"]
    assert db.events.head("a").type == "u"
    assert db.events.verify().events == 7
    assert db.events.verify("a").events == 2


def test_a_stream_that_was_named_and_does_not_exist(db):
    db.events.append("t", {}, stream="there")
    for read in (
        lambda: db.events.get(0, stream="x"),
        lambda: db.events.head("x"),
        lambda: db.events.len("x"),
        lambda: db.events.range(stream="x"),
        lambda: db.events.by_type("t", stream="x"),
        lambda: db.events.between(None, None, stream="x"),
        lambda: db.events.types("x"),
        lambda: db.events.verify("x"),
    ):
        with pytest.raises(NotFound) as caught:
            read()
        assert "'x'" in str(caught.value)
    assert db.events.get(7, stream="there") is None
    assert db.events.len() == 0 and list(db.events) == [] and db.events.head() is None
    assert db.events.verify("main").ok


def test_append_many(db):
    db.events.append("t", {})
    events = db.events.append_many([("a", {"n": 1}), ("b", {"n": 2})])
    assert seen(events) == [(1, "a", {"n": 1}), (2, "b", {"n": 2})]
    assert events == [db.events.get(1), db.events.get(2)]
    assert {event.version for event in events} == {db.branch.head}
    before = db.everything
    assert db.events.append_many([]) == []
    for wrong in ([("a", {}), ("b", [])], [("a", {}), ("_b", {})], [("a", {}), "b"], [("a", {"x": {1}})]):
        with pytest.raises(InvalidInput):
            db.events.append_many(wrong)
    assert db.everything == before


def test_what_append_many_returns_when_others_came_in_between(db):
    """Inside a transaction the sequence is provisional; what it became must be found after the commit."""
    tx = db.begin()
    pending = [tx.events.append("mine", {"n": n}) for n in range(2)]
    assert [event.sequence for event in pending] == [0, 1]
    db.events.append("theirs", {})
    version = tx.commit()
    assert [event.type for event in db.events] == ["theirs", "mine", "mine"]
    from strata.primitives.events import _landed

    prefix = b"main\0"
    landed = _landed(db.branch.keyspace("default", db.events.LAYOUT), prefix, 0, 2, version)
    assert [row[0] for row in landed] == [1, 2]
    assert landed[0][2] == db.events.get(1).hash


def test_pending_events(db):
    db.events.append("t", {})
    tx = db.begin()
    event = tx.events.append("t", {"n": 1})
    assert event.pending and event.sequence == 1
    assert event.time is event.hash is event.version is None
    assert tx.events.append_many([("u", {})])[0].pending
    assert tx.events.get(1) == event
    assert [event.pending for event in tx.events] == [False, True, True]
    assert len(tx.events) == 3 and tx.events.head().type == "u"
    assert len(list(tx.events.between(None, None))) == 3
    assert len(list(tx.events.between("2020-01-01T00:00Z", "2100-01-01T00:00Z"))) == 1
    assert tx.events.verify().events == 1
    assert len(db.events) == 1
    version = tx.commit()
    assert db.events.get(1).version == version
    assert db.events.verify().events == 3


def test_transactions_that_append_queue(db):
    one, two = db.begin(), db.begin()
    one.events.append("one", {})
    two.events.append("two", {})
    two.commit()
    one.commit()
    assert [event.type for event in db.events] == ["two", "one"]
    assert db.events.verify().ok


def test_a_fork_continues_the_stream(store, db):
    first = db.events.append("t", {})
    store.fork("main", "f")
    fork = stores.Place(store, "f")
    assert fork.events.append("t", {"in": "fork"}).sequence == 1
    assert db.events.append("t", {"in": "main"}).sequence == 1
    assert fork.events.get(0).hash == first.hash
    assert fork.events.verify().ok and db.events.verify().ok
    assert fork.events.head().hash != db.events.head().hash


def test_adopted_events_keep_their_origin(store, db):
    store.fork("main", "f")
    fork = stores.Place(store, "f")
    event = fork.events.append("t", {"n": 1}, stream="log")
    db.events.append("other", {}, stream="log")
    copy = db.events.adopt(event, branch="f")
    assert copy.sequence == 1
    assert copy.origin == Origin("f", 0, event.hash, event.version)
    assert db.events.get(1, stream="log") == copy
    assert [event.origin is None for event in db.events.range(stream="log")] == [True, False]
    assert db.events.verify().ok
    assert copy.hash == chain_hash(
        db.events.get(0, stream="log").hash,
        1,
        "t",
        copy.time_us,
        {"n": 1},
        ["f", 0, event.hash, event.version],
    )
    assert fork.events.adopt(copy, branch="main").origin == copy.origin
    with pytest.raises(InvalidInput):
        db.events.adopt(fork.begin().events.append("t", {}), branch="f")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda row: [*row[:2], {"n": "forged"}, *row[3:]], "hash"),
        (lambda row: ["forged", *row[1:]], "hash"),
        (lambda row: [row[0], row[1] + 1, *row[2:]], "hash"),
        (lambda row: [row[0], row[1] - 10**9, *row[2:]], "time"),
        (lambda row: [*row[:3], bytes(32)], "hash"),
        (None, "missing"),
    ],
)
@pytest.mark.parametrize("sequence", [0, 2, 3])
def test_verify_names_the_first_bad_sequence(db, spoil, reason, sequence):
    if sequence == 0 and reason == "time":
        reason = "hash"  # nothing is before the first event
    db.events.append_many(("t", {"n": n}) for n in range(5))
    db.events.append("t", {}, stream="good")
    raw = db.branch.keyspace("default", db.events.LAYOUT)
    key = b"main\0" + sequence.to_bytes(8)
    raw.delete(key) if spoil is None else raw.put(key, spoil(raw.get(key)))
    report = db.events.verify()
    assert not report.ok
    assert (report.stream, report.sequence) == ("main", sequence)
    assert reason in report.reason
    assert db.events.verify("good").ok


@pytest.mark.parametrize("payload", [None, [], "text", 1, ((("a", 1),)), [("a", 1)]])
def test_a_payload_is_a_map(db, payload):
    before = db.everything
    with pytest.raises(InvalidInput):
        db.events.append("t", payload)
    assert db.everything == before


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {"a": [float("inf")]}, {1: 2}, {"a": {1}}])
def test_values_that_no_payload_has(db, payload):
    with pytest.raises(InvalidInput):
        db.events.append("t", payload)


@pytest.mark.parametrize("name", ["", "_x", "a\nb", 1, None, ["a"], b"a"])
def test_types_and_streams_are_names(db, name):
    db.events.append("t", {})
    before = db.everything
    for use in (
        lambda: db.events.append(name, {}),
        lambda: db.events.append("t", {}, stream=name),
        lambda: db.events.append_many([(name, {})]),
        lambda: db.events.range(stream=name),
        lambda: db.events.by_type(name),
        lambda: db.events.get(0, stream=name),
    ):
        with pytest.raises(InvalidInput):
            use()
    with pytest.raises(LimitExceeded):
        db.events.append("x" * 256, {})
    assert db.everything == before


@pytest.mark.parametrize("number", [-1, True, "1", 1.0, 2**64])
def test_sequences_and_limits_are_counts(db, number):
    for use in (
        lambda: db.events.get(number),
        lambda: db.events.range(number),
        lambda: db.events.range(0, number),
        lambda: db.events.range(limit=number),
        lambda: db.events.by_type("t", limit=number),
    ):
        with pytest.raises(InvalidInput):
            use()


@pytest.mark.parametrize("stream", VECTORS["streams"], ids=lambda stream: stream["name"])
def test_the_vectors_for_all_languages(stream):
    """Others read them; we must still make them."""
    clock = FakeClock(0)
    previous = GENESIS
    for sequence, event in enumerate(stream["events"]):
        payload = decode(bytes.fromhex(event["payload_msgpack"]))
        origin = event["origin"] and [
            event["origin"][0],
            event["origin"][1],
            bytes.fromhex(event["origin"][2]),
            event["origin"][3],
        ]
        assert encode(payload).hex() == event["payload_msgpack"]
        made = chain_hash(previous, sequence, event["type"], event["time"], payload, origin)
        chained = [previous, sequence, event["type"], event["time"], payload] + ([origin] if origin else [])
        assert canonical(chained).hex() == event["chained"]
        assert made.hex() == event["hash"]
        previous = made
    for kind in ("model", "kernel"):
        if stream["stores"]:
            store = stores.make(kind, clock)
            events = stores.Place(store).events
            for event in stream["events"]:
                clock.set(event["time"])
                payload = decode(bytes.fromhex(event["payload_msgpack"]))
                assert (
                    events.append(event["type"], payload, stream=stream["name"]).hash.hex() == event["hash"]
                )
