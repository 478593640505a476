"""Sending: addresses that may be asked, and servers that hang, redirect or answer nonsense."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import re
import socket
import ssl
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receivers import SECRET
from served import certificates

import strata
from strata.errors import InvalidInput
from strata.worker import Allowed, HttpTransport, Worker, network_of
from strata.worker.addresses import _target

PRIVATE = Allowed(private=True)


@contextlib.contextmanager
def answering(talk, context=None):
    """A server that says what `talk(connection)` does, each connection in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended, threads = threading.Event(), []

    def serve(connection):
        with contextlib.suppress(OSError):
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                talk(connection, ended)

    def accept():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
            threads[-1].start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for one in threads:
            one.join()


def request_of(connection):
    """All of a request, or of what came in its place."""
    found = b""
    while b"\r\n\r\n" not in found and (came := connection.recv(1 << 16)):
        found += came
    head, _, body = found.partition(b"\r\n\r\n")
    size = re.search(rb"Content-Length: (\d+)", head)
    while size and len(body) < int(size[1]) and (came := connection.recv(1 << 16)):
        body += came
    return head.decode(errors="replace"), body


def saying(answer):
    """Reads what comes, says `answer`, and closes."""

    def talk(connection, ended):
        request_of(connection)
        connection.sendall(answer)

    return talk


def sent(talk, *, context=None, allowed=PRIVATE, scheme="http", host="127.0.0.1", **options):
    with answering(talk, context) as port:
        options = {"connect_s": 0.3, "answer_s": 0.3} | options
        return HttpTransport(allowed, **options)(f"{scheme}://{host}:{port}/x?y=1", {}, b"{}")


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_what_is_sent():
    found = []

    def talk(connection, ended):
        found.append(request_of(connection))
        connection.sendall(b"HTTP/1.1 202 Accepted\r\n\r\n")

    with answering(talk) as port:
        answer = HttpTransport(PRIVATE)(
            f"http://127.0.0.1:{port}/a/b?c=d", {"webhook-id": "msg_1"}, b'{"a":1}'
        )
    assert answer.is_ok and answer.status == 202
    ((head, body),) = found
    lines = head.split("\r\n")
    assert lines[0] == "POST /a/b?c=d HTTP/1.1" and body == b'{"a":1}'
    assert {f"Host: 127.0.0.1:{port}", "webhook-id: msg_1", "Content-Length: 7"} <= set(lines)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_what_is_a_success(status):
    assert sent(saying(b"HTTP/1.1 %d X\r\n\r\n" % status)).is_ok


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 400, 404, 410, 429, 500, 503, 599])
def test_what_is_a_failure(status):
    answer = sent(saying(b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\nnope" % status))
    assert not answer.is_ok and answer.status == status and answer.error.startswith(f"it answered {status}")
    assert "nope" in answer.error or status == 304
    assert answer.is_gone is (status == 410)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\r\n",
        b"hello",
        b"HTTP/1.1",
        b"HTTP/1.1 \r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 99999 X\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x00\x00" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"X" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(1000)) + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        b"HTTP/1.1 " + b"2" * 70_000,
    ],
    ids=lambda nonsense: repr(nonsense[:20]),
)
def test_nonsense_is_a_failure(nonsense):
    answer = sent(saying(nonsense))
    assert not answer.is_ok and answer.error and len(answer.error) < 400


CANNED = HttpTransport(PRIVATE)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data):
    class Canned:
        """A socket that says `data`."""

        until = None

        def sendall(self, *_):
            pass

        def makefile(self, *_, **__):
            return io.BytesIO(data)

        def close(self):
            pass

    CANNED._connected = lambda *_: Canned()
    answer = CANNED("http://127.0.0.1/", {}, b"{}")
    assert answer.is_ok is (answer.error is None)
    assert not answer.is_ok or 200 <= answer.status < 300


def test_a_target_that_hangs_is_left_in_time():
    """At each point: no answer, half a line, byte after byte for ever, a body that never ends."""

    def silent(connection, ended):
        ended.wait(20)

    def half(connection, ended):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-")
        ended.wait(20)

    def dripping(connection, ended):
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            if ended.wait(0.02):
                return

    for talk in (silent, half, dripping):
        answer = sent(talk)
        assert (answer.status, answer.error) == (0, "no answer in time")


def test_a_body_that_never_ends_does_not_matter():
    def endless(connection, ended):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not ended.wait(0.01):
            connection.sendall(b"x")

    def flood(connection, ended):
        request_of(connection)
        connection.sendall(b"HTTP/1.1 500 X\r\n\r\n")
        while not ended.is_set():
            connection.sendall(b"x" * 65536)

    assert sent(endless).is_ok
    answer = sent(flood)
    assert answer.status == 500 and len(answer.error) < 300


def test_a_name_that_is_not_found_in_time():
    waiting = threading.Event()
    transport = HttpTransport(PRIVATE, connect_s=0.05, resolve=lambda *_: waiting.wait(20) or [])
    assert transport("http://slow.example/", {}, b"").error == "no answer in time"
    waiting.set()

    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    answer = HttpTransport(PRIVATE, resolve=unknown)("http://none.example/", {}, b"")
    assert answer.status == 0 and "not known" in answer.error
    assert not HttpTransport(PRIVATE)(f"http://{'x' * 64}.example/", {}, b"").is_ok  # a label that is none


def test_nobody_listens():
    with answering(saying(OK)) as port:
        pass
    answer = HttpTransport(PRIVATE)(f"http://127.0.0.1:{port}/", {}, b"")
    assert answer.status == 0 and "no answer" in answer.error


def test_retry_after_is_a_number_or_a_date():
    def asked(text):
        return sent(saying(b"HTTP/1.1 429 X\r\nRetry-After: %s\r\n\r\n" % text)).retry_after_s

    assert asked(b"120") == 120
    assert asked(b"Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert asked(b"Wed, 21 Oct 2099 07:28:00 GMT") > 1e9
    for nonsense in (b"soon", b"-1", b"", b"1e9", b"Wed, 99 Oct 2099 07:28:00 GMT"):
        assert asked(nonsense) is None


# -- addresses


PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:82a::200e", "::ffff:1.1.1.1"]
LOCAL = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1", "fd00::1",
    "fc00:1::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "169.254.169.254", "169.254.0.1", "fe80::1", "224.0.0.1", "239.255.255.255", "255.255.255.255",
    "ff02::1", "::", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "240.0.0.1",
    "168.63.129.16", "::169.254.169.254", "::ffff:0.0.0.0", "ff0e::1",
]  # fmt: skip


def is_open(address, allowed, scheme="https"):
    return allowed.is_open(ipaddress.ip_address(address), scheme)


def test_which_addresses_may_be_asked():
    for address in PUBLIC:
        assert is_open(address, Allowed()) and not is_open(address, Allowed(), "http")
        assert is_open(address, Allowed(http=True), "http") and not is_open(address, PRIVATE, "http")
    for address in LOCAL:
        assert not is_open(address, Allowed()) and not is_open(address, Allowed(http=True), "http")
        assert is_open(address, PRIVATE) and is_open(address, PRIVATE, "http"), address
    for address in NEVER:
        for allowed in (Allowed(), PRIVATE, Allowed(private=True, http=True)):
            assert not is_open(address, allowed), address
        own = Allowed(networks=(network_of(str(_target(ipaddress.ip_address(address)))),))
        assert is_open(address, own) and is_open(address, own, "http")
    assert not is_open("100.100.100.200", Allowed())
    assert not is_open("10.1.2.3", Allowed(networks=(network_of("10.2.0.0/16"), network_of("fd00::/8"))))
    assert is_open("10.2.2.3", Allowed(networks=(network_of("10.2.0.0/16"),)), "http")


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.1/8", "example.com", "x"])
def test_what_is_no_network(text):
    with pytest.raises(InvalidInput):
        network_of(text)


@given(st.ip_addresses(v=4))
def test_an_address_in_another_form_is_no_way_in(address):
    number = int(address)
    for form in (
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80))),
    ):
        if is_open(form, Allowed()):
            assert is_open(str(address), Allowed()), form


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "127.1", "0x7f000001", "2130706433", "017700000001", "0"]
)
def test_loopback_by_any_name_is_refused(host):
    answer = HttpTransport(Allowed(http=True), connect_s=0.3, answer_s=0.3)(f"http://{host}:9/", {}, b"")
    assert answer.status == 0 and ("refused" in answer.error or "no answer" in answer.error)
    assert "onnection refused" not in answer.error  # which would mean that it was connected to


def test_the_address_that_was_looked_at_is_the_one_connected_to():
    """A name that stands for a public address when it is asked first, and for ours a moment later."""
    answers = iter([["127.0.0.1"], ["93.184.216.34"]])
    asked = []

    def resolve(host, port):
        asked.append(host)
        return next(answers)

    with answering(saying(OK)) as port:
        transport = HttpTransport(PRIVATE, resolve=resolve)
        assert transport(f"http://rebinding.example:{port}/", {}, b"").is_ok
    assert asked == ["rebinding.example"]  # once for each request
    public_first = HttpTransport(Allowed(http=True), resolve=lambda *_: ["127.0.0.1", "10.0.0.1"])
    assert "refused" in public_first("http://rebinding.example/", {}, b"").error


def test_a_second_address_is_tried():
    with answering(saying(OK)) as port:
        transport = HttpTransport(PRIVATE, resolve=lambda *_: ["169.254.169.254", "127.0.0.2", "127.0.0.1"])
        assert transport(f"http://two.example:{port}/", {}, b"").is_ok


# -- redirects


def redirecting(*targets, status=307):
    """Answers with one redirect after the other, then well; `paths` are those that were asked."""
    left, paths = list(targets), []

    def talk(connection, ended):
        paths.append(request_of(connection)[0].split(" ")[1])
        if left:
            to = left.pop(0)
            connection.sendall(f"HTTP/1.1 {status} X\r\nLocation: {to}\r\n\r\n".encode())
        else:
            connection.sendall(OK)

    talk.paths = paths
    return talk


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_to_an_allowed_address_is_followed(status):
    talk = redirecting("/b", "c?d=1", status=status)
    assert sent(talk).is_ok and talk.paths == ["/x?y=1", "/b", "/c?d=1"]


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "https://0.0.0.0/",
        "http://user:pass@127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "//169.254.169.254/",
        "http://127.0.0.1:99999/",
        "x" * 5000,
    ],
)
def test_a_redirect_elsewhere_is_not_followed(to):
    answer = sent(redirecting(to))
    assert not answer.is_ok and len(answer.error) < 400


def test_redirects_to_private_addresses_are_refused_where_these_are():
    """The target is public, as far as the worker knows, and sends us to where only we may go."""
    with answering(redirecting("http://127.0.0.1:9/")) as port:
        allowed = Allowed(networks=(network_of("127.0.0.2/32"),))
        transport = HttpTransport(
            allowed, resolve=lambda host, _: ["127.0.0.2"] if "public" in host else [host]
        )
        transport._connect = _to_loopback(transport._connect)
        answer = transport(f"http://public.example:{port}/", {}, b"")
    assert "refused" in answer.error and "127.0.0.1" in answer.error


def _to_loopback(connect):
    return lambda scheme, host, address, port, until: connect(scheme, host, "127.0.0.1", port, until)


def test_redirects_end():
    talk = redirecting(*["/again"] * 10)
    assert "too often" in sent(talk).error and len(talk.paths) == 4
    for status in (301, 302, 303):
        talk = redirecting("/b", status=status)
        assert not sent(talk).is_ok and len(talk.paths) == 1


# -- TLS


@pytest.fixture
def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = certificates()
    context.load_cert_chain(files / "server.pem", files / "server.key")
    return context


def trusting():
    return ssl.create_default_context(cafile=str(certificates() / "ca.pem"))


def test_tls_asks_for_the_name(tls):
    options = {"context": tls, "scheme": "https", "answer_s": 5, "connect_s": 5}
    assert sent(saying(OK), host="localhost", tls=trusting(), **options).is_ok
    to_us = {"resolve": lambda *_: ["127.0.0.1"]}
    answer = sent(saying(OK), host="other.example", tls=trusting(), **options, **to_us)
    assert answer.status == 0 and "certificate" in answer.error.lower()
    answer = sent(saying(OK), host="localhost", **options)  # signed by nobody that we trust
    assert answer.status == 0 and "certificate" in answer.error.lower()


def test_a_target_that_hangs_over_tls(tls):
    def dripping(connection, ended):
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            if ended.wait(0.02):
                return

    options = {"scheme": "https", "host": "localhost", "tls": trusting()}
    assert sent(dripping, context=tls, **options).error == "no answer in time"
    assert sent(lambda _, ended: ended.wait(20), **options).error == "no answer in time"  # no handshake
    assert "no answer" in sent(saying(b"no TLS here"), **options).error


def test_no_redirect_from_tls_to_plain(tls):
    options = {"context": tls, "scheme": "https", "host": "localhost", "tls": trusting(), "answer_s": 5}
    assert "from https to http" in sent(redirecting("http://127.0.0.1/"), **options).error


# -- all of it


def test_a_bad_target_ends_as_a_dead_letter_that_says_why(tmp_path):
    from strata.worker import Retries

    with strata.open(tmp_path / "a.strata") as db, answering(saying(OK)) as port:
        db.webhooks.add("private", f"http://127.0.0.1:{port}/", secret=SECRET)
        db.webhooks.add("plain", "http://93.184.216.34/")
        db.kv.put("k", 1)
        worker = Worker(db, retries=Retries(attempts=1), log=lambda *_, **__: None)
        worker.step()
        for name in ("private", "plain"):
            (letter,) = db.webhooks.dead(name)
            assert letter.error.startswith("refused:"), letter
        worker.stop()


def test_secrets_and_urls_are_in_no_log(tmp_path, caplog):
    said = []
    with strata.open(tmp_path / "a.strata") as db:
        made = db.webhooks.add("a", "http://127.0.0.1:9/hooks/t0ken")
        db.kv.put("k", 1)
        for log in (None, lambda event, **fields: said.append((event, fields))):
            worker = Worker(db, **({} if log is None else {"log": log}))
            worker.step()
            worker.stop()
            db.webhooks.resume("a")
    assert said and caplog.records
    text = str(said) + caplog.text
    assert made.secret not in text and "t0ken" not in text


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert sent(saying(OK)).is_ok
