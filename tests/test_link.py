"""Connections that are lost again and again: an error of the tree after some time, and nothing made twice."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

import strata
from strata.core.errors import OutcomeUnknown, RemoteError, TransactionLost
from strata.remote.link import Losses
from strata.server.server import Server
from strata.store import open_store
from strata.wire.frames import FRAME_BYTES_MAX, Kind, Reader

TIMEOUT_S = 0.03  # after which a client gives up
ENDS = ["before the call", "before the answer"]


class Proxy:
    """Stands between clients and a server, and ends each connection where it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"strata://127.0.0.1:{self._listening.getsockname()[1]}"
        self.ends: str | None = None  # "at once", "in the greeting", "before the call", "before the answer"
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                self.count += 1
                threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self.ends == "at once":
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
                self._asks(client, server)

    def _asks(self, client: socket.socket, server: socket.socket) -> None:
        reader = Reader(FRAME_BYTES_MAX)
        while data := client.recv(1 << 16):
            is_call = any(found.kind == Kind.CALL for found in reader.feed(data))
            if is_call and self.ends == "before the call":
                return
            server.sendall(data)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        reader = Reader(FRAME_BYTES_MAX)
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                is_answer = any(found.kind in (Kind.RESULT, Kind.ERROR) for found in reader.feed(data))
                if self.ends == "in the greeting" or (is_answer and self.ends == "before the answer"):
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
            server.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    store = open_store(None)
    server = Server(store)
    _, port = server.listen_tcp("127.0.0.1", 0)
    made = Proxy(port)
    yield made
    made.close()
    server.close()
    store.close()


@pytest.fixture
def db(proxy: Proxy) -> Iterator[strata.Database]:
    proxy.ends = None
    with strata.connect(proxy.url) as db:
        db.kv.put("k", 1)
        yield db


@contextlib.contextmanager
def losing(proxy: Proxy, db: strata.Database, ends: str) -> Iterator[None]:
    """Connections end, and the client has little patience; then all is well again."""
    link, dialer = db._store._link, db._store._link._connect
    patience_s, link.patience_s, proxy.ends = link.patience_s, TIMEOUT_S, ends
    if ends not in ENDS:
        dialer._timeout_s = TIMEOUT_S
    yield
    proxy.ends, link.patience_s, dialer._timeout_s = None, patience_s, patience_s


@pytest.mark.parametrize("ends", [*ENDS, "at once", "in the greeting"])
def test_a_read_ends_with_an_error_where_every_connection_is_lost(proxy, db, ends):
    """It was asked again and again without end, where a connection was greeted and then lost."""
    before = proxy.count
    with losing(proxy, db, ends):
        if ends not in ENDS:
            db._store._link._channel._socket.close()  # the one that is there
        with pytest.raises(RemoteError):
            db.kv.get("k")
    assert proxy.count > before + (ends in ENDS)  # it was tried again
    assert db.kv.get("k") == 1  # the same handle goes on


@pytest.mark.parametrize("ends", ENDS)
def test_a_write_that_may_have_been_made_says_so(proxy, db, ends):
    length = db.events.len()
    with losing(proxy, db, ends), pytest.raises(OutcomeUnknown) as caught:
        db.events.append("e", {})
    assert db.events.len() - length == (ends == "before the answer")  # not more often than once
    assert (db._store.branch("main").result_of(caught.value.transaction) is not None) == (
        ends == "before the answer"
    )


def test_a_write_that_may_have_been_made_says_so_where_no_connection_is_to_be_had(proxy, db, monkeypatch):
    def nobody(number):
        raise RemoteError("nobody is there")

    length = db.events.len()
    with losing(proxy, db, "before the answer"), monkeypatch.context() as patched:
        patched.setattr(db._store._link, "_connect", nobody)
        with pytest.raises(OutcomeUnknown):
            db.events.append("e", {})
        with pytest.raises(RemoteError):  # nothing of this one was sent
            db.events.append("e", {})
    assert db.events.len() == length + 1


@pytest.mark.parametrize("ends", ENDS)
def test_a_commit_is_made_or_lost_or_nobody_knows(proxy, db, ends):
    length = db.events.len()
    transaction = db.transaction()
    transaction.events.append("e", {})
    with losing(proxy, db, ends), pytest.raises((TransactionLost, OutcomeUnknown)):
        transaction.commit()
    assert db.events.len() - length in (0, 1)


def test_a_branch_that_may_have_been_made_says_so(proxy, db):
    with losing(proxy, db, "before the answer"), pytest.raises(OutcomeUnknown):
        db.branches.create("draft")


def test_the_first_loss_costs_no_pause_and_some_are_borne_whatever_time_they_take(monkeypatch):
    paused: list[float] = []
    monkeypatch.setattr("time.sleep", paused.append)
    losses = Losses(patience_s=0)
    assert losses.go_on() and not paused
    assert losses.go_on() and len(paused) == 1
    assert not losses.go_on() and losses.count == 3
    patient = Losses(patience_s=1e9)
    assert all(patient.go_on() for _ in range(100)) and max(paused) <= 0.5
