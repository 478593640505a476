"""Operations over the wire, as a client in another language asks for them: frames alone, no code of ours."""

from __future__ import annotations

import socket

import pytest
import served
import stores
from test_catalogue import arguments, set_up, without_chance
from test_wire import VECTORS, unplain

from strata.api.dispatch import dispatch
from strata.api.operations import OPERATIONS
from strata.api.plain import plain
from strata.server.limits import Limits
from strata.server.server import Server
from strata.store import open_store
from strata.wire.frames import FRAME_BYTES_MAX, Kind, Reader, decode_body, encode_body, frame


class Client:
    """Sends frames and takes them; what it asks for gets the ids 1, 2, ..."""

    def __init__(self, server, **hello):
        self.socket, theirs = socket.socketpair()
        theirs.setblocking(False)
        server.adopt(theirs)
        self.socket.settimeout(20)
        self.reader, self.frames, self.id = Reader(FRAME_BYTES_MAX), [], 0
        self.send(Kind.HELLO, {**served.HELLO, **hello}, 0)
        assert self.take().kind == Kind.WELCOME

    def send(self, kind, body, id=None):
        if id is None:
            self.id += 1
            id = self.id
        self.socket.sendall(frame(kind, id, encode_body(body)))
        return id

    def take(self):
        while not self.frames:
            data = self.socket.recv(1 << 16)
            assert data, "the server closed the connection"
            self.frames += self.reader.feed(data)
        return self.frames.pop(0)

    def operate(self, *message):
        """The result of an operation, or the code of its error."""
        id = self.send(Kind.OPERATION, message)
        found = self.take()
        assert found.id == id
        data = decode_body(found.body)
        return data if found.kind == Kind.RESULT else data["code"]

    def close(self):
        self.socket.close()


@pytest.fixture
def server():
    store = open_store()
    server = Server(store)
    yield server
    server.close()
    store.close()


@pytest.fixture
def client(server):
    client = Client(server)
    yield client
    client.close()


def test_point_operations_and_places(client):
    version = client.operate("kv.put", {}, {"key": "a", "value": {"x": [1, b"b", None]}})
    assert client.operate("kv.get", {}, {"key": "a"}) == {"x": [1, b"b", None]}
    assert client.operate("kv.get", {"at": version - 1}, {"key": "a"}) is None
    assert client.operate("branches.fork", {}, {"source": "main", "name": "draft"})["name"] == "draft"
    client.operate("kv.put", {"branch": "draft", "space": "notes"}, {"key": "a", "value": 2})
    assert client.operate("kv.get", {"branch": "draft", "space": "notes"}, {"key": "a"}) == 2
    assert client.operate("events.append", {}, {"type": "e", "payload": {"n": 1}})["sequence"] == 0


@pytest.mark.parametrize("kind", ["model", "kernel"])
def test_the_golden_operations_are_what_a_server_says(kind):
    store = stores.make(kind, stores.FakeClock())
    server = Server(store)
    client = Client(server)
    for step in VECTORS["operations"]:
        if step["from"] == "client":
            client.socket.sendall(bytes.fromhex(step["hex"]))
            continue
        found, body = client.take(), unplain(step["body"])
        said = decode_body(found.body)
        if found.kind == Kind.ERROR:  # whose text may become better
            said = {**said, "message": body["message"], "hint": body["hint"]}
        assert (found.kind, found.id, said) == (Kind[step["kind"]], step["id"], body), step["what"]
    client.close()
    server.close()
    store.close()


def test_a_merge_that_conflicts_says_what_both_sides_changed(client):
    client.operate("json.set", {}, {"doc": "d", "path": "$", "value": {"n": 1}})
    client.operate("branches.fork", {}, {"source": "main", "name": "draft"})
    client.operate("json.set", {"branch": "draft"}, {"doc": "d", "path": "$.n", "value": 2})
    client.operate("json.set", {}, {"doc": "d", "path": "$.n", "value": b"3"})
    client.send(Kind.OPERATION, ("branches.merge", {}, {"source": "draft", "target": "main"}))
    error = decode_body(client.take().body)
    (found,) = error["fields"]["conflicts"]
    assert error["code"] == "merge_conflict"
    assert (found["primitive"], found["key"], found["path"]) == ("json", "d", "$.n")
    assert (found["base"], found["source"], found["target"]) == (1, 2, b"3")


@pytest.mark.parametrize("happens", ["renamed", "deleted"])
def test_a_place_is_of_the_branch_that_has_the_name_now(client, happens):
    """A connection kept the branch that it had found, whatever became of that."""
    draft = {"branch": "draft"}
    client.operate("branches.fork", {}, {"source": "main", "name": "draft"})
    client.operate("kv.put", draft, {"key": "a", "value": 1})
    if happens == "renamed":
        client.operate("branches.rename", {}, {"old": "draft", "new": "final"})
    else:
        client.operate("branches.delete", {}, {"name": "draft"})
    assert client.operate("kv.get", draft, {"key": "a"}) == "not_found"
    client.operate("branches.fork", {}, {"source": "main", "name": "draft"})
    assert client.operate("kv.get", draft, {"key": "a"}) is None
    client.operate("kv.put", draft, {"key": "a", "value": 2})
    assert client.operate("kv.get", draft, {"key": "a"}) == 2
    if happens == "renamed":
        assert client.operate("kv.get", {"branch": "final"}, {"key": "a"}) == 1


def test_an_error_that_is_longer_than_a_frame_goes_without_its_fields():
    store = open_store()
    server = Server(store, limits=Limits(frame_bytes=2000))
    client = Client(server)
    client.operate("branches.fork", {}, {"source": "main", "name": "draft"})
    for place in ({"branch": "draft"}, {}):
        for number in range(3):
            row = {"key": f"k{number}", "value": repr(place) + "x" * 900}
            client.operate("kv.put", place, row)
    client.send(Kind.OPERATION, ("branches.merge", {}, {"source": "draft", "target": "main"}))
    error = decode_body(client.take().body)
    assert (error["code"], error["fields"]) == ("merge_conflict", {}) and "3" in error["message"]
    client.close()
    server.close()
    store.close()


def test_a_transaction_over_several_operations(client):
    client.send(Kind.OPEN, (1, 0, "branch", ("main",)), 0)
    client.send(Kind.OPEN, (2, 1, "begin", ()), 0)
    place = {"transaction": 2}
    client.operate("kv.put", place, {"key": "a", "value": 1})
    client.operate("state.set", {"transaction": 2, "space": "notes"}, {"name": "s", "value": 2})
    assert client.operate("kv.get", place, {"key": "a"}) == 1
    assert client.operate("kv.get", {}, {"key": "a"}) is None
    assert client.operate("kv.put", place, {"key": "b", "value": 1}, {"commit": {}}) == "invalid_input"
    client.send(Kind.CALL, (2, "commit", ("both", None, None)))
    assert client.take().kind == Kind.RESULT
    assert client.operate("kv.get", {}, {"key": "a"}) == 1
    assert client.operate("log", {}, {})["items"][0]["message"] == "both"
    assert client.operate("kv.get", place, {"key": "a"}) == "closed"
    assert client.operate("kv.get", {"transaction": 1}, {"key": "a"}) == "invalid_input"
    assert client.operate("kv.get", {"transaction": 99}, {"key": "a"}) == "closed"


def test_pages_come_as_there_is_credit(client):
    client.operate("kv.put_many", {}, {"items": {f"k{number:04}": number for number in range(2500)}})
    id = client.send(Kind.OPERATION, ("kv.keys", {}, {"limit": 1000}, {"credit": 1}))
    first = client.take()
    assert (first.kind, first.id, len(decode_body(first.body))) == (Kind.ITEMS, id, 1000)
    assert client.operate("kv.get", {}, {"key": "k0001"}) == 1  # others are answered meanwhile
    client.send(Kind.CREDIT, 5, id)
    rest = [client.take() for _ in range(3)]
    assert [found.kind for found in rest] == [Kind.ITEMS, Kind.ITEMS, Kind.RESULT]
    keys = [key for found in [first, *rest[:2]] for key in decode_body(found.body)]
    assert keys == [f"k{number:04}" for number in range(2500)]


def test_a_stream_that_is_cancelled_ends(client, server):
    client.operate("kv.put_many", {}, {"items": {f"k{number:04}": number for number in range(2500)}})
    id = client.send(Kind.OPERATION, ("kv.keys", {}, {"limit": 1000}, {"credit": 0}))
    client.send(Kind.CANCEL, None, id)
    ended = client.take()
    assert (ended.kind, ended.id) == (Kind.ERROR, id)


def test_a_client_that_comes_again_does_not_wait_for_a_stream_of_its_own(server):
    """What waits for credit ends with its connection, since nobody can give any more."""
    before = Client(server, link="one")
    before.operate("kv.put", {}, {"key": "k", "value": 1})
    before.send(Kind.OPERATION, ("kv.keys", {}, {}, {"credit": 0}))
    again = Client(server, link="one")  # is welcomed
    assert again.operate("kv.get", {}, {"key": "k"}) == 1
    before.close()
    again.close()


def test_an_idempotency_key_makes_it_once(client):
    message = (
        "events.append",
        {},
        {"type": "e", "payload": {}},
        {"commit": {"idempotency_key": "k", "actor": "me"}},
    )
    assert client.operate(*message)["sequence"] == client.operate(*message)["sequence"] == 0
    assert client.operate("events.len", {}, {}) == 1


@pytest.mark.parametrize(
    "message",
    [
        ("kv.nothing", {}, {}),
        ("kv.get", {}, {}),
        ("kv.get", {}, {"key": 1}),
        ("kv.get", {}, {"key": "a", "more": 1}),
        ("kv.get", {"where": 1}, {"key": "a"}),
        ("kv.get", {"transaction": 1, "branch": "b"}, {"key": "a"}),
        ("kv.get", [], {"key": "a"}),
        ("kv.get", {}, []),
        ("kv.get", {}, {"key": "a"}, {"credit": 1}),
        ("kv.keys", {}, {}, {"credit": -1}),
        ("kv.keys", {}, {}, {"credit": "x"}),
        ("kv.get", {}, {"key": "a"}, {"more": 1}),
        ("kv.get", {}),
        7,
        None,
        (["kv.get"], {}, {}),
    ],
)
def test_what_is_no_operation_is_refused_and_the_connection_goes_on(client, message):
    id = client.send(Kind.OPERATION, message)
    found = client.take()
    assert (found.kind, found.id) == (Kind.ERROR, id)
    assert decode_body(found.body)["code"] == "invalid_input"
    assert client.operate("kv.get", {}, {"key": "a"}) is None


def test_who_only_reads_may_not_write(server):
    client = Client(server, read_only=True)
    assert client.operate("kv.get", {}, {"key": "a"}) is None
    assert client.operate("kv.put", {}, {"key": "a", "value": 1}) in ("access_denied", "read_only")
    assert client.operate("search", {}, {"text": "x", "log_recall": True}) in ("access_denied", "read_only")
    client.close()


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=str)
def test_every_operation_of_the_catalogue_runs_over_the_wire(operation, tmp_path, monkeypatch):
    """Its example gives what dispatch gives in this process."""
    results = []
    for way in ("here", "there"):
        (tmp_path / way).mkdir()
        monkeypatch.chdir(tmp_path / way)
        names = set_up(operation)
        given = arguments(operation, names)
        if way == "here":
            results.append(dispatch(names["db"], operation.name, {}, given))
        else:
            server = Server(names["db"]._store)
            client = Client(server)
            results.append(client.operate(operation.name, {}, plain(given)))
            client.close()
            server.close()
        names["db"].close()
    assert without_chance(plain(results[0])) == without_chance(results[1])
