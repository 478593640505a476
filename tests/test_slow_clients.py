"""Clients that are slow, or gone without a word, one kind after the other (reliability.md, row N3).

Slow senders and readers, idle ones, and those that stop in the middle of a frame are in `test_server.py`; of
HTTP in `test_http_serving.py`.
"""

from __future__ import annotations

import socket
import ssl
import threading
import tracemalloc

import pytest
from served import certificates
from wire_clients import GREETING, SETUP, Client, call, serving, until

import strata
from strata.server.tls import ServerTls
from strata.wire.frames import Kind


@pytest.fixture
def tls():
    files = certificates()
    return ServerTls(files / "server.pem", files / "server.key").context


CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(20)  # and the rest does not come


@pytest.mark.parametrize("said", [b"", CLIENT_HELLO, GREETING, b"GET / HTTP/1.1\r\n\r\n"])
def test_a_handshake_that_stalls_ends_and_counts_meanwhile(tls, said):
    """The story: a connection was counted once it spoke TLS, so that those that never did had no limit."""
    with serving(greeting_s=0.3, connections=5) as server:
        host, port = server.listen_tcp("127.0.0.1", 0, tls)
        with strata.connect(f"strata+tls://{host}:{port}", ca=certificates() / "ca.pem") as good:
            good.kv.put("k", 1)
            silent = [socket.create_connection((host, port), 20) for _ in range(20)]
            for one in silent:
                try:
                    one.sendall(said)
                except ConnectionError:
                    pass
            assert good.kv.get("k") == 1
            assert len(server.handshakes) + len(server.connections) <= 5
            for one in silent:
                assert at_the_end(one) is not None
                one.close()
            until(lambda: not server.handshakes)
            assert good.kv.get("k") == 1
            with strata.connect(f"strata+tls://{host}:{port}", ca=certificates() / "ca.pem") as other:
                assert other.kv.get("k") == 1


def at_the_end(one: socket.socket) -> bytes:
    """What the server said until it closed."""
    found = b""
    try:
        while piece := one.recv(4096):
            found += piece
    except ConnectionError:
        pass
    return found


def test_a_client_that_says_all_in_one_breath_over_tls(tls):
    """What comes together with the last bytes of the handshake is not lost."""
    with serving() as server:
        host, port = server.listen_tcp("127.0.0.1", 0, tls)
        context = ssl.create_default_context(cafile=str(certificates() / "ca.pem"))
        for _ in range(20):
            plain = socket.create_connection((host, port), 20)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            speaks = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            while True:
                try:
                    speaks.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(1 << 16))
            speaks.write(GREETING + SETUP + call(1, 1, "head"))
            plain.sendall(outgoing.read())  # the end of the handshake and all that
            said = b""
            while len(said) < 80:
                try:
                    said += speaks.read(1 << 16)
                except ssl.SSLWantReadError:
                    raw = plain.recv(1 << 16)
                    assert raw
                    incoming.write(raw)
            plain.close()


def test_a_server_that_ends_does_not_wait_for_handshakes(tls):
    with serving(greeting_s=20) as server:
        host, port = server.listen_tcp("127.0.0.1", 0, tls)
        with socket.create_connection((host, port), 20) as silent:
            until(lambda: server.handshakes)
            server.close()
            assert at_the_end(silent) == b""


def test_the_system_looks_after_connections_that_are_gone_without_a_word():
    """Half-open: the other side vanished, and no packet says so. The system asks now and then, and closes."""
    with serving() as server:
        _, port = server.listen_tcp("127.0.0.1", 0)
        client = Client(server, port=port)
        (one,) = server.connections
        connected = one._transport.get_extra_info("socket")
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            asked = [
                connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}"))
                for name in ("IDLE", "INTVL", "CNT")
            ]
            assert asked[0] + asked[1] * asked[2] <= 120
        client.close()


def test_an_endless_pipeline_is_answered_as_it_is_read_and_keeps_little():
    """It never stops to send, and reads all the while."""
    with serving() as server:
        client, other = Client(server), Client(server)
        client.ask(1, 2, "put", "a", "x" * 1000, None)
        count, sent = 6_000, threading.Event()

        def send() -> None:
            for start in range(0, count, 500):
                client.send(b"".join(call(id, 2, "get", "a") for id in range(start + 1, start + 501)))
            sent.set()

        tracemalloc.start()
        try:
            threading.Thread(target=send, daemon=True).start()
            for id in range(1, count + 1):
                assert client.next()[:2] == (Kind.RESULT, id)
                client.said.clear()
                if id % 2000 == 0:
                    assert other.ask(id, 1, "head") == 1
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert sent.wait(20) and most < 16 << 20
        client.close(), other.close()
