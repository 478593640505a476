"""A watch as an operation of the wire: frames alone, as a client in another language sends and takes them."""

from __future__ import annotations

import threading

import pytest
from test_wire_operations import Client
from wire_clients import until

from strata.errors import InvalidInput
from strata.server.limits import Limits
from strata.server.server import Server
from strata.server.watching import follow
from strata.server.work import Cancelled, Work
from strata.store import open_store
from strata.wire.frames import Kind, decode_body


@pytest.fixture
def server():
    store = open_store()
    server = Server(store, limits=Limits(in_flight=4, waiting=8))
    yield server
    server.close()
    store.close()


@pytest.fixture
def client(server):
    client = Client(server)
    yield client
    client.close()


def put(client, key, value=1, **place):
    return client.operate("kv.put", place, {"key": key, "value": value})


def begin(client, credit=100, place=None, **arguments):
    return client.send(Kind.OPERATION, ("watch", place or {}, arguments, {"credit": credit}))


def taken(client, id, kind=Kind.ITEMS):
    found = client.take()
    assert (Kind(found.kind), found.id) == (kind, id)
    return decode_body(found.body)


def keys(steps):
    return [change["key"] for step in steps for change in step["changes"]]


def test_what_is_there_comes_in_one_page_and_then_what_comes(client):
    versions = [put(client, key) for key in "abc"]
    id = begin(client, from_version=0)
    steps = taken(client, id)
    assert [step["version"] for step in steps] == versions and keys(steps) == ["a", "b", "c"]
    assert steps[0]["branch"] == "main" and steps[0]["changes"][0]["value"] == 1
    version = put(client, "d", b"bytes")
    (step,) = taken(client, id)
    assert (step["version"], step["changes"][0]["value"]) == (version, b"bytes")
    client.send(Kind.CANCEL, None, id)
    assert taken(client, id, Kind.ERROR)["code"] == "closed"
    assert client.operate("kv.get", {}, {"key": "a"}) == 1


def test_from_now_on_where_no_version_is_said(client):
    put(client, "before")
    id = begin(client, timeout_s=0)
    assert taken(client, id, Kind.RESULT) == {"version": 1}


def test_it_begins_where_it_was_asked_for_and_not_where_a_thread_gets_to_it(client, server, monkeypatch):
    free, wait = threading.Event(), server.wait

    def late(who, work, done):
        wait(who, lambda: free.wait(20) and work(), done)

    monkeypatch.setattr(server, "wait", late)
    id = begin(client, limit=1)
    assert put(client, "a") == 1
    free.set()
    assert keys(taken(client, id)) == ["a"]


def test_nothing_comes_without_credit_and_nothing_is_lost(client):
    put(client, "a")
    id = begin(client, credit=0, from_version=0)
    put(client, "b")
    client.send(Kind.CREDIT, 1, id)
    found = keys(taken(client, id))
    for number in range(20):
        put(client, f"c{number:02}")
    client.send(Kind.CREDIT, 5, id)
    while len(found) < 22:
        found += keys(taken(client, id))
    assert found == ["a", "b", *[f"c{number:02}" for number in range(20)]]


def test_another_connection_goes_on_where_one_ended(client, server):
    for key in "abcd":
        put(client, key)
    id = begin(client, from_version=0, limit=2)
    assert keys(taken(client, id)) == ["a", "b"]
    version = taken(client, id, Kind.RESULT)["version"]
    other = Client(server)
    assert keys(taken(other, begin(other, from_version=version, timeout_s=0))) == ["c", "d"]
    other.close()


def test_only_what_is_watched(client):
    client.operate("branches.fork", {}, {"source": "main", "name": "draft"})
    (
        put(client, "a/1"),
        put(client, "b"),
        put(client, "a/2", space="notes"),
        put(client, "a/3", branch="draft"),
    )
    client.operate("events.append", {}, {"type": "e", "payload": {}})
    client.operate("events.append", {}, {"type": "f", "payload": {}})
    for wanted, options in (
        (["a/1", "a/2"], {"prefix": "a/"}),
        (["a/2"], {"space": "notes"}),
        (["a/1", "b", "a/2"], {"primitive": "kv"}),
        (["main/1"], {"type": "f"}),
        (["a/3"], {"place": {"branch": "draft"}}),
    ):
        id = begin(client, from_version=0, timeout_s=0, **options)
        assert keys(taken(client, id)) == wanted
        assert taken(client, id, Kind.RESULT)["version"] == (5 if "place" in options else 7)


def test_a_page_holds_so_many_bytes(client):
    for number in range(5):
        put(client, "k", f"{number}" * 400_000)
    id = begin(client, from_version=0, timeout_s=0)
    assert [len(taken(client, id)) for _ in range(2)] == [3, 2]
    assert taken(client, id, Kind.RESULT) == {"version": 5}


def test_a_branch_that_ends(client):
    client.operate("branches.fork", {}, {"source": "main", "name": "draft"})
    put(client, "a", branch="draft")
    id = begin(client, place={"branch": "draft"}, from_version=0)
    assert keys(taken(client, id)) == ["a"]
    client.send(Kind.OPERATION, ("branches.delete", {}, {"name": "draft"}))
    found = {frame.id: frame for frame in (client.take(), client.take())}  # either may come first
    assert found[id].kind == Kind.ERROR and decode_body(found[id].body)["code"] == "not_found"
    run = client.operate("runs.begin", {}, {"name": "plan"})
    id = begin(client, place={"branch": run["branch"]})
    ends = client.send(Kind.OPERATION, ("runs.end", {}, {"id": run["id"]}))
    found = {frame.id: decode_body(frame.body) for frame in (client.take(), client.take())}
    assert found[ends]["status"] == "completed"
    assert found[id] == {"version": found[id]["version"]}  # a run that is over has no more commits


@pytest.mark.parametrize(
    "message",
    [
        ("watch", {}, {}),
        ("watch", {}, {}, {}),
        ("watch", {}, {}, {"credit": -1}),
        ("watch", {}, {}, {"credit": 1 << 40}),
        ("watch", {}, {}, {"credit": 1, "commit": {}}),
        ("watch", {"space": "notes"}, {}, {"credit": 1}),
        ("watch", {"at": 0}, {}, {"credit": 1}),
        ("watch", {"transaction": 1}, {}, {"credit": 1}),
        ("watch", {}, {"from": 0}, {"credit": 1}),
        ("watch", {}, {"from_version": "0"}, {"credit": 1}),
        ("watch", {}, {"type": "e", "primitive": "kv"}, {"credit": 1}),
        ("watch", {}, {"limit": 0}, {"credit": 1}),
        ("watch", {}, {"timeout_s": -1}, {"credit": 1}),
        ("kv.keys", {}, {}, {"credit": 1, "commit": {}}),
    ],
    ids=repr,
)
def test_what_is_no_watch_is_refused_and_leaves_nothing_under_way(client, server, message):
    id = client.send(Kind.OPERATION, message)
    assert taken(client, id, Kind.ERROR)["code"] == "invalid_input"
    assert client.operate("kv.get", {}, {"key": "a"}) is None
    (connection,) = server.connections
    until(lambda: not connection._working and not connection._streams and not server._waits)


def test_a_version_that_is_yet_to_come_and_a_branch_that_is_not_there(client):
    assert taken(client, begin(client, from_version=9), Kind.ERROR)["code"] == "not_found"
    assert taken(client, begin(client, place={"branch": "none"}), Kind.ERROR)["code"] == "not_found"


def test_what_is_no_credit_ends_the_watch_with_one_error(client, server):
    for wrong in (-1, "x", None, 1 << 40):
        id = begin(client, credit=0)
        client.send(Kind.CREDIT, wrong, id)
        assert taken(client, id, Kind.ERROR)["code"] == "invalid_input"
        assert client.operate("kv.get", {}, {"key": "a"}) is None
    (connection,) = server.connections
    assert not connection._working


def test_watches_that_wait_leave_room_for_what_ends_them(client, server):
    """They count on their own: else the frames that give credit and cancel would not be read any more."""
    ids = [begin(client, credit=0) for _ in range(4)]
    assert taken(client, begin(client), Kind.ERROR)["code"] == "limit_exceeded"
    put(client, "a")
    for id in ids:
        client.send(Kind.CREDIT, 1, id)
    assert {client.take().id for _ in ids} == set(ids)
    client.send(Kind.CANCEL, None, ids[0])
    assert taken(client, ids[0], Kind.ERROR)["code"] == "closed"
    begin(client)
    other = Client(server)  # it may have as many of the threads for that as it leaves to others
    begin(other), begin(other)
    assert taken(other, begin(other), Kind.ERROR)["code"] == "limit_exceeded"
    assert put(other, "b") == 2
    client.close()
    until(lambda: server._waits.total() == 2)
    begin(other)
    other.close()
    until(lambda: not server._waits)


def test_who_gives_much_credit_and_does_not_read_makes_the_server_keep_little(client, server):
    for number in range(40):
        put(client, f"k{number:02}", "x" * 200_000)
    id = begin(client, credit=60_000, from_version=0)
    for number in range(40):
        put_at = server._face.kv.put
        put_at("more", "y" * 200_000 + str(number))
    (connection,) = server.connections
    until(lambda: connection.is_choked)
    size = connection._transport.get_write_buffer_size()
    found = []
    while len(found) < 80:
        found += taken(client, id)
    assert [step["version"] for step in found] == list(range(1, 81))
    assert size < 6 << 20


def test_an_end_of_the_server_ends_a_watch(client, server):
    id = begin(client)
    client.operate("kv.get", {}, {"key": "a"})
    server.close()
    found = {client.take().kind for _ in range(2)}
    assert found == {Kind.BYE, Kind.ERROR} and id


def test_who_only_reads_may_watch(server):
    client = Client(server, read_only=True)
    assert taken(client, begin(client, timeout_s=0), Kind.RESULT) == {"version": 0}
    client.close()


class Slow:
    """A watch whose steps come when they are asked for the second time."""

    def __init__(self, versions):
        self.version, self.closed, self._versions = 0, False, versions

    def next(self, *, timeout_s):
        self.version = self._versions.pop(0) if self._versions else self.version
        self.closed = not self._versions
        return None

    def close(self):
        self.closed = True


def test_how_far_a_watch_has_come_is_told_where_it_moves():
    sent = []
    assert follow(Slow([5, 5, 9, 9]), None, Work(1, sent.append), sent.append) == {"version": 9}
    assert sent == [[{"version": 5}], [{"version": 9}]]


def test_a_watch_that_is_cancelled_before_it_begins_ends():
    work, watch = Work(1, lambda data: None), Slow([1, 2])
    work.cancel()
    with pytest.raises(Cancelled):
        follow(watch, None, work, lambda page: None)
    work = Work(1, lambda data: None)
    work.give_credit("x")
    with pytest.raises(InvalidInput):
        follow(Slow([1, 2]), None, work, lambda page: None)
