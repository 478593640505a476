"""Writes of a step that nobody else sees: they go with its commit, and are as if each had gone alone."""

from __future__ import annotations

from typing import Any

import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_clients import BEGIN, GREETING, SETUP, Client, call, serving

import strata
from strata.core.errors import AccessDenied, InvalidInput, NotFound, ReadOnly, StrataError
from strata.primitives import Events, Kv
from strata.remote import store as remote_store
from strata.remote.channel import LocalChannel, SocketChannel
from strata.remote.link import Link
from strata.remote.store import RemoteStore
from strata.wire.frames import Kind, decode_body, encode_body, frame
from strata.wire.session import Session

KEYS, VALUES = st.sampled_from(["a", "b", "ab"]), st.integers(0, 3) | st.just([1, {"x": b"y"}])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES, st.none() | st.just(10**9)),
        st.tuples(st.just("put_until"), KEYS, VALUES, st.just(1 << 60)),
        st.tuples(st.just("put_many"), st.lists(st.tuples(KEYS, VALUES), max_size=3)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("delete_many"), st.lists(KEYS, max_size=3)),
        st.tuples(st.just("add"), st.just("n"), st.integers(-2, 2)),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("contains"), KEYS),
        st.tuples(st.just("scan"), st.none(), st.none(), st.none(), st.booleans(), st.none()),
        st.tuples(st.just("patch"), KEYS, st.just([("set", ("x",), 1)])),
        st.tuples(st.just("spaces")),
    ),
    max_size=8,
)


def remote(store: Any) -> RemoteStore:
    """The store through a session, without a socket."""
    return RemoteStore(
        Link(lambda number: LocalChannel(Session(store), number), LocalChannel(Session(store), 1))
    )


def taken(transaction: Any, steps: list[Any]) -> list[Any]:
    """What the steps give, or how they fail, which a step of a program ends with."""
    inside, found = transaction.keyspace("default", Kv.LAYOUT), []
    for name, *arguments in steps:
        if name == "spaces":
            found.append(transaction.spaces())
            continue
        try:
            found.append(getattr(inside, name)(*arguments))
        except StrataError as error:
            found.append(type(error))
            return found
    found.append(transaction.commit())
    return found


@given(st.lists(STEPS, max_size=4), st.sampled_from([0, 1 << 20]))
@settings(deadline=None)
def test_a_step_does_the_same_whether_its_writes_are_gathered_or_not(programs, size):
    """`size`: after so many bytes what was gathered goes at once."""
    before, remote_store._GATHERED_BYTES = remote_store._GATHERED_BYTES, size
    clocks = stores.FakeClock(), stores.FakeClock()
    plain, gathering = (stores.make("model", clock) for clock in clocks)
    try:
        for steps in programs:
            found = []
            for store, gathers in ((plain, False), (gathering, True)):
                transaction = remote(store).branch("main").transaction("serializable", False, None)
                transaction.gathers = gathers
                found.append(taken(transaction, steps))
            assert found[0] == found[1]
        assert stores.Place(plain).everything == stores.Place(gathering).everything
    finally:
        remote_store._GATHERED_BYTES = before


@pytest.fixture
def asked(monkeypatch):
    """A database at the other end of a socket, and the methods that it is asked for."""
    methods: list[str] = []
    request = SocketChannel.request

    def noted(self, kind, body, progress=None):
        methods.append(decode_body(body)[1])
        return request(self, kind, body, progress)

    monkeypatch.setattr(SocketChannel, "request", noted)
    with strata.Database(stores.make("served")) as db:
        yield db, methods


def test_how_often_a_write_asks(asked):
    db, methods = asked
    db.state.set("s", 1)
    db.json.create("d", {})
    for write, wanted in (
        (lambda: db.kv.put("k", 1), ["put"]),
        (lambda: db.kv.cas("k", 2, expected=1), ["entry", "finish"]),
        (lambda: db.state.set("s", 2), ["get_path", "finish"]),
        (lambda: db.json.create("e", {}), ["contains", "finish"]),
        (lambda: db.traces.record("thought", "x"), ["now", "put_many"]),
    ):
        methods.clear()
        write()
        assert methods == wanted


def test_what_is_written_is_what_there_was_then(store):
    txn = remote(store).branch("main").keyspace("default", Kv.LAYOUT)
    transaction, inside = txn.begin()
    value = [1]
    inside.put("a", value)
    value.append(2)
    inside.put("b", value)
    transaction.commit()
    assert (txn.get("a"), txn.get("b")) == ([1], [1, 2])


def test_what_can_never_be_written_is_refused_at_once(store):
    txn = remote(store).branch("main").keyspace("default", Kv.LAYOUT)
    for wrong in (
        lambda inside: inside.put("a", object()),
        lambda inside: inside.put(object(), 1),
        lambda inside: inside.put("a", 2**64),
        lambda inside: inside.put_many([1]),
    ):
        transaction, inside = txn.begin()
        with pytest.raises(InvalidInput):
            wrong(inside)
        transaction.rollback()
    assert store.branch("main").head == 0


def test_a_write_that_the_store_refuses_ends_all_of_it(store):
    events = remote(store).branch("main").keyspace("default", Events.LAYOUT)
    transaction, inside = events.begin()
    other = transaction.keyspace("default", Kv.LAYOUT)
    other.put("a", 1)
    inside.put(b"", 1)
    with pytest.raises(InvalidInput):
        transaction.commit()
    assert store.branch("main").head == 0


def test_who_only_reads_gathers_nothing(store):
    for options, error in (({"read_only": True}, ReadOnly), ({"access": "read"}, AccessDenied)):
        channel = LocalChannel(Session(store, **options), 1)
        place = stores.Place(RemoteStore(Link(lambda number, channel=channel: channel, channel)))
        with pytest.raises(error):
            place.state.set("s", 1)
    assert store.branch("main").head == 0


def test_a_step_that_fails_writes_nothing(store):
    place = stores.Place(remote(store))
    with pytest.raises(NotFound):
        place.traces.record("thought", "x", parent="none")
    assert store.branch("main").head == 0


# -- what clients of no good will send


def finish(id: int, handle: Any, *arguments: Any, **options: Any) -> bytes:
    return call(id, handle, "finish", *arguments, **options)


WRITE = [4, "put", ["b", 2, None]]


def test_writes_and_a_commit_in_one_frame():
    with serving() as server:
        client = Client(server)
        client.send(BEGIN + finish(1, 3, [[4, "put", ["a", 1, None]], WRITE], "why", "ada", None, once="k"))
        assert client.next() == (Kind.RESULT, 1, 1)
        assert client.ask(2, 2, "get", "a") == 1
        client.send(frame(Kind.RELEASE, 0, encode_body([3, 4])) + BEGIN)
        assert client.ask(3, 3, "finish", [[4, "put", ["a", 9, None]]], None, None, None, once="k") == 1
        assert client.ask(4, 2, "get", "a") == 1  # the key was used
        client.close()


@pytest.mark.parametrize(
    "writes",
    [
        None, 5, {}, [5], [[]], [WRITE, [4, "put"]], [WRITE, [4, "put", {}]], [WRITE, [4, "get", ["a"]]],
        [WRITE, [2, "put", ["a", 1, None]]], [WRITE, [99, "put", ["a", 1, None]]], [WRITE, [3, "commit", []]],
        [WRITE, [0, "flush", []]], [WRITE, [4, "put", ["a"] * 9]], [WRITE, [4, "put", [5, 1, None]]],
        [WRITE, [4, "put", ["a", 1, -1]]], [WRITE, ["4", "put", ["a", 1, None]]],
    ],
    ids=repr,
)  # fmt: skip
def test_writes_that_are_none_are_refused_and_nothing_is_written(writes):
    with serving() as server:
        client = Client(server, hello=GREETING + SETUP + BEGIN)
        answer = client.ask(1, 3, "finish", writes)
        assert answer in ("invalid_input", "closed", "type_error", "overflow_error")
        assert client.ask(2, 1, "head") == 0
        client.close()
