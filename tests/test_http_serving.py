"""HTTP on real sockets: requests as they come on the line, slow clients, lost ones, TLS, and the end."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
import time

import httpx2
import pytest
from served import certificates as made_certificates

import strata
from strata.errors import InvalidInput
from strata.server.http import HttpLimits, app, serve_http
from strata.server.tls import ServerTls


@pytest.fixture
def db():
    with strata.open() as opened:
        yield opened


@pytest.fixture
def serve(db):
    """Serve the database; what is served ends with the test."""
    begun = []

    def begin(tls=None, **limits):
        served = app(db, limits=HttpLimits(**limits))
        server = serve_http(served, tls=tls)
        begun.append((server, served))
        return server

    yield begin
    for server, served in begun:
        server.close()
        served.close()


@pytest.fixture(scope="module")
def refusing():
    """A database and a server for many tests, all of whose requests are refused."""
    with strata.open() as opened:
        served = app(opened, limits=HttpLimits(head_s=0.2))
        server = serve_http(served)
        yield opened, server
        server.close()
        served.close()


def talk(server, *pieces):
    """Send bytes, and return all that comes back until the server closes."""
    with socket.create_connection(server.address, 20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass  # it did not want to read on
        return everything(connection)


def everything(connection):
    found = []
    try:
        while piece := connection.recv(65_536):
            found.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(found)


PUT = b"PUT /v1/kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LAST = b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_requests_one_after_the_other_on_a_connection(db, serve):
    answer = talk(serve(), PUT + b"Content-Length: 1\r\n\r\n1", PUT + b"Content-Length: 1\r\n\r\n2", LAST)
    assert answer.count(b"HTTP/1.1 200") == 3 and answer.endswith(b"2") and db.kv.get("k") == 2


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1x\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Host: other\r\nContent-Length: 1\r\n",
        b"No colon\r\nContent-Length: 1\r\n",
        b"X: a\x00b\r\nContent-Length: 1\r\n",
        b"Content-Length : 1\r\n",
    ],
)
def test_one_request_is_never_two(refusing, headers):
    """Two headers that disagree on the length are how a second request is smuggled past a proxy."""
    db, server = refusing
    answer = talk(server, PUT + headers + b"\r\n" + b"1\r\n1\r\n0\r\n\r\n" + LAST)
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501")) and answer.count(b"HTTP/1.1") == 1
    assert db.version == 0


@pytest.mark.parametrize(
    "line",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"*1\r\n$4\r\nPING\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1.1\r\n\r\n",
        b"\0" * 100,
    ],
)
def test_what_is_no_http_is_refused(refusing, line):
    _, server = refusing
    answer = talk(server, line)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert talk(server, LAST).startswith(b"HTTP/1.1 200")


def test_a_head_that_is_too_long_is_refused(refusing):
    db, server = refusing
    answer = talk(server, PUT + b"X: " + b"y" * 1_000_000 + b"\r\nContent-Length: 1\r\n\r\n1")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")  # it may close while we still send
    assert db.version == 0


def test_a_body_that_is_cut_short_writes_nothing(refusing):
    db, server = refusing
    with socket.create_connection(server.address, 20) as connection:
        connection.sendall(PUT + b"Content-Length: 10\r\n\r\n1")
        connection.shutdown(socket.SHUT_WR)
        everything(connection)
    assert talk(server, LAST).startswith(b"HTTP/1.1 200") and db.version == 0


@pytest.mark.parametrize("begun", [b"", b"GET /v1/ver", PUT])
def test_a_head_that_does_not_come_ends_the_connection(serve, begun):
    assert talk(serve(head_s=0.05), begun) == b""


def test_a_second_head_that_does_not_come_ends_the_connection(serve):
    first = LAST.replace(b"Connection: close\r\n", b"")
    assert talk(serve(head_s=0.2), first, b"GET /v1/ver").count(b"HTTP/1.1 200") == 1


def test_a_body_that_does_not_come_is_told_so(db, serve):
    answer = talk(serve(body_s=0.05), PUT + b"Content-Length: 10\r\n\r\n1")
    assert answer.startswith(b"HTTP/1.1 408") and db.version == 0


def test_who_does_not_read_is_let_go(db, serve):
    """An answer that nobody takes must not stay in memory for ever."""
    db.kv.put("k", "x" * 1_000_000)
    server = serve(stall_s=0.05)
    ask = b"GET /v1/kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(20)
        connection.connect(server.address)
        with contextlib.suppress(ConnectionError):
            for _ in range(1_000):
                connection.sendall(ask)  # until the server lets go, which ends it
        until = time.monotonic() + 20
        while server.connections and time.monotonic() < until:  # to read would be to keep it
            time.sleep(0.002)
        assert not server.connections
    assert talk(server, LAST).startswith(b"HTTP/1.1 200")


def test_there_are_not_more_connections_than_allowed(serve):
    server = serve(connections=2)
    held = [socket.create_connection(server.address, 20) for _ in range(2)]
    try:
        assert talk(server, LAST) == b""
    finally:
        for connection in held:
            connection.close()


def test_large_values_and_many_clients(db, serve):
    server = serve()
    url = "http://{}:{}".format(*server.address)

    def work(number):
        with httpx2.Client(base_url=url) as web:
            for _ in range(20):
                web.post("/v1/kv.incr", json={"arguments": {"key": "n"}}).raise_for_status()
            web.put(f"/v1/kv/large/{number}", json="x" * 200_000).raise_for_status()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.kv.get("n") == 80 and len(db.kv.get("large/3")) == 200_000
    assert server.stats().operations["kv.incr"] == 80


def test_the_end_lets_what_is_under_way_end(db, serve, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        begun.set()
        go_on.wait(20)
        return 7

    monkeypatch.setattr("strata.server.http.service.dispatch", slow)
    server = serve()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(talk(server, LAST.replace(b"version", b"info"))))
    asking.start()
    assert begun.wait(20)
    closing = threading.Thread(target=server.close)
    closing.start()
    go_on.set()
    asking.join()
    closing.join()
    assert answers[0].startswith(b"HTTP/1.1 200") and answers[0].endswith(b"7")
    with pytest.raises(OSError):
        talk(server, LAST)
    server.close()


def test_addresses_that_cannot_be_had(db, serve):
    server = serve()
    served = app(db)
    for host, port in (
        (*server.address,),
        ("203.0.113.1", 0),
        ("no.such.host.invalid", 0),
        ("a" * 100 + ".invalid", 0),
        ("a\0b", 0),
        ("127.0.0.1", 70_000),
    ):
        with pytest.raises(InvalidInput):
            serve_http(served, host, port)
    served.close()


def test_without_tokens_only_this_machine_is_served(db):
    served, guarded = app(db), app(db, authorize=lambda token: "read")
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InvalidInput):
            serve_http(served, host)
    serve_http(guarded, "0.0.0.0").close()
    served.close()
    guarded.close()


def test_a_database_with_files_serves_strict_writes(tmp_path):
    with strata.open(tmp_path / "a.strata", durability="strict") as db:
        served = app(db)
        server = serve_http(served)
        assert talk(server, PUT + b"Connection: close\r\nContent-Length: 1\r\n\r\n1").startswith(
            b"HTTP/1.1 200"
        )
        assert db.durable_version == db.version == 1
        server.close()
        served.close()


# -- TLS -----------------------------------------------------------------------------------------------


@pytest.fixture
def certificates():
    return made_certificates()


def test_tls(db, serve, certificates):
    server = serve(ServerTls(certificates / "server.pem", certificates / "server.key"))
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with httpx2.Client(base_url="https://{}:{}".format(*server.address), verify=context) as web:
        assert web.put("/v1/kv/k", json=1, headers={"Host": "localhost"}).status_code == 200
    assert not talk(server, LAST).startswith(b"HTTP/1.1 200")  # in the clear
    assert db.kv.get("k") == 1


def test_certificates_are_renewed_while_it_runs(serve, certificates, tmp_path):
    for name in ("pem", "key"):
        shutil.copy(certificates / f"server.{name}", tmp_path / f"a.{name}")
    tls = ServerTls(tmp_path / "a.pem", tmp_path / "a.key")
    server = serve(tls)
    assert ssl.get_server_certificate(server.address) == (certificates / "server.pem").read_text()
    for name in ("pem", "key"):
        shutil.copy(certificates / f"client.{name}", tmp_path / f"a.{name}")
    tls.renew()
    assert ssl.get_server_certificate(server.address) == (certificates / "client.pem").read_text()


def test_clients_with_certificates_may_come_from_anywhere(db, certificates):
    authority = certificates / "ca.pem"
    tls = ServerTls(certificates / "server.pem", certificates / "server.key", authority)
    web = app(db)
    server = serve_http(web, "0.0.0.0", tls=tls)
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    url = f"https://127.0.0.1:{server.address[1]}/v1/version"
    with pytest.raises(httpx2.TransportError):
        httpx2.get(url, verify=context)
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    assert httpx2.get(url, verify=context).json() == 0
    server.close()
    web.close()
