"""What a server says of its clients: lines that belong together, not too many, and without secrets."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request

import pytest
from wire_clients import GREETING, SETUP, Client, call, hello, serving, until

import strata
from strata.core.errors import InternalError
from strata.server.access import hash_of, tokens_of
from strata.server.logs import LINES_MAX, Log
from strata.wire.frames import Kind, encode_body, frame

TOKEN, KEY, VALUE = "strata_a-token-of-mine", "key-canary", "value-canary"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Logged:
    """A log, and what it said."""

    def __init__(self, **options):
        self.to = io.StringIO()
        self.log = Log(to=self.to, **options)

    def lines(self):
        self.log.close()
        return [json.loads(line) for line in self.to.getvalue().splitlines()]

    def told(self, *names):
        """Of each line its event and these fields, where it has them."""
        return [(line["event"], *[line[name] for name in names if name in line]) for line in self.lines()]


# -- the log


def test_a_line_says_who_asked_what_and_what_came_of_it():
    logged = Logged(requests=True, slow_s=0.5)
    logged.log.opened("w1", over="tcp")
    logged.log.request("w1", 7, "get", 0.0012345)
    logged.log.request("w1", 8, "put", 0.001, "conflict")
    logged.log.request("w1", 9, "flush", 0.75)
    logged.log.request("w1", 10, "wait", 20, waits=True)
    logged.log.closed("w1", "it ended")
    lines = logged.lines()
    assert all({"time", "level", "event", "connection"} <= line.keys() for line in lines)
    assert [(line["event"], line["level"], line.get("request"), line.get("code")) for line in lines] == [
        ("opened", "info", None, None), ("request", "info", 7, "ok"), ("request", "info", 8, "conflict"),
        ("slow request", "warning", 9, "ok"), ("request", "info", 10, "ok"), ("closed", "info", None, None),
    ]  # fmt: skip
    assert lines[1]["ms"] == 1.234 or lines[1]["ms"] == 1.235


def test_what_is_said_in_any_case():
    logged = Logged(slow_s=0.5)
    logged.log.opened("w1")
    logged.log.request("w1", 1, "get", 0.1)
    logged.log.request("w1", 2, "get", 0.1, "conflict")
    logged.log.request("w1", 3, "get", 0.6)
    logged.log.request("w1", 4, "get", 0.1, InternalError.code)
    logged.log.refused("w2", "access_denied")
    logged.log.closed("w1", "it ended")
    assert logged.told("request") == [("slow request", 3), ("request", 4), ("refused",)]


def test_a_flood_is_counted():
    clock = Clock()
    logged = Logged(requests=True, clock=clock)
    for number in range(LINES_MAX + 50):
        logged.log.refused(f"w{number}", "access_denied")
        logged.log.request("w1", number, "get", 0)
    logged.log.tick()  # it goes on
    logged.log.opened("w2")
    clock.now = 1.5
    logged.log.tick()
    logged.log.refused("w3", "access_denied")
    for number in range(LINES_MAX):
        logged.log.refused(f"w{number}", "access_denied")
    lines = logged.lines()
    assert [line["event"] for line in lines].count("refused") == 2 * LINES_MAX
    told = [line["lines"] for line in lines if line["event"] == "suppressed"]
    assert told == [{"refused": 50, "request": 50}, {"refused": 1}]


class Stuck(io.StringIO):
    """What nobody reads."""

    def write(self, text):
        raise BrokenPipeError


def test_where_nobody_reads_the_log_the_server_goes_on():
    log = Log(to=Stuck(), requests=True)
    for number in range(10_000):
        log.request("w1", number, "get", 0)
    assert len(log._lines) <= 5_001
    log.close()
    log.request("w1", 1, "get", 0)
    log.close()


def test_what_a_line_holds_ends_no_line():
    logged = Logged(requests=True)
    logged.log.request("w1", 1, 'get"}\n{"event": "forged', 0)
    assert len(logged.lines()) == 1


# -- clients of the protocol


def test_a_talk():
    logged = Logged(requests=True)
    with serving(log=logged.log) as server:
        server._store.free.set()
        client = Client(server)
        client.ask(1, 2, "put", KEY, VALUE, None)
        client.ask(2, 2, "get", KEY)
        client.ask(3, 99, "get", KEY)
        client.ask(4, 0, "flush")
        client.ask(5, 2, "count", None, None, None)
        client.ask(6, 2, KEY, VALUE)
        client.send(frame(Kind.OPERATION, 7, encode_body(["kv.get", {}, {"key": KEY}])))
        client.next()
        client.send(frame(Kind.OPERATION, 8, encode_body(["kv.list", {"branch": KEY}, {}])))
        client.next()
        client.close()
        until(lambda: not server.connections)
    lines = [line for line in logged.lines() if line["connection"] == "w1"]
    found = [(line["event"], *(line.get(name) for name in ("request", "name", "code"))) for line in lines]
    assert found[1:-1] == [
        ("request", 1, "put", "ok"), ("request", 2, "get", "ok"), ("request", 3, "frame of kind 2", "closed"),
        ("request", 4, "flush", "ok"), ("request", 5, "count", "ok"),
        ("request", 6, "frame of kind 2", "invalid_input"), ("request", 7, "kv.get", "ok"),
        ("request", 8, "frame of kind 9", "invalid_input"),
    ]  # fmt: skip
    first, last = lines[0], lines[-1]
    assert (first["event"], first["over"], first["access"]) == ("opened", "socket", "admin")
    assert (last["event"], last["reason"]) == ("closed", "the client closed it")
    assert "canary" not in logged.to.getvalue()


def test_tokens_that_are_refused_and_never_said():
    logged = Logged()
    with serving(log=logged.log, tokens=tokens_of([f"{hash_of(TOKEN)} write"])) as server:
        _, port = server.listen_tcp("127.0.0.1", 0)
        for token in (None, "strata_canary", TOKEN):
            client = Client(server, hello=b"", port=port)
            client.send(hello(**({} if token is None else {"token": token})) + SETUP)
            client.next()
            client.send(call(1, 2, "put", KEY, VALUE, None) + call(2, 0, "create", KEY))
            client.close()
        until(lambda: not server.connections)
    lines = logged.lines()
    assert [(line["event"], line["code"], line["over"]) for line in lines] == [
        ("refused", "access_denied", "tcp")
    ] * 2
    assert all(line["peer"].startswith("127.0.0.1 ") for line in lines)
    assert "strata_" not in logged.to.getvalue() and "canary" not in logged.to.getvalue()


@pytest.mark.parametrize(
    ("limits", "talk", "reason"),
    [
        ({}, b"", "the client closed it"),
        ({"greeting_s": 0.02}, None, "it did not say who it is in time"),
        ({}, b"what is no frame", "refused: limit_exceeded"),
        ({"idle_s": 0.02}, GREETING, "it was idle for too long"),
        (
            {"stalled_s": 0.02},
            GREETING + call(1, 1, "head")[:-1],
            "it neither read nor sent the rest of a frame",
        ),
        ({}, GREETING + call(0, 1, "head"), "refused: invalid_input"),
    ],
)
def test_why_a_connection_was_closed(limits, talk, reason):
    logged = Logged(requests=True)
    with serving(log=logged.log, **limits) as server:
        client = Client(server, hello=b"")
        client.send(talk or b"")
        if talk != b"":
            client.rest()
        client.close()
        until(lambda: not server.connections)
    assert ("closed", "w1", reason) in logged.told("connection", "reason")


def test_who_comes_again_and_the_end_of_a_server():
    logged = Logged(requests=True)
    with serving(log=logged.log) as server:
        clients = [Client(server, hello=b"") for _ in range(2)]
        for client in clients:
            client.send(hello(link="me"))
            client.next()
        server.close()
    told = logged.told("connection", "reason")
    assert ("closed", "w1", "its client has another one") in told
    assert ("closed", "w2", "the server ends") in told


@pytest.mark.parametrize("method", ["outcome", "flush"])
def test_a_bug_of_ours_is_said_with_its_place_and_without_its_words(method):
    def fails(*_):
        raise RuntimeError(VALUE)

    logged = Logged()
    with serving(log=logged.log) as server:
        setattr(server._store, method, fails)
        client = Client(server)
        assert client.ask(1, 0, method, *(["x"] if method == "outcome" else [])) == "internal_error"
        client.close()
        until(lambda: not server.connections)
    (line,) = logged.lines()
    assert (line["level"], line["name"], line["code"]) == ("error", method, "internal_error")
    assert line["error"].startswith("RuntimeError at ") and "canary" not in logged.to.getvalue()


def test_slow_requests_are_said_by_the_clock_of_the_server():
    logged = Logged(slow_s=1)
    with serving(log=logged.log) as server:
        clock = Clock()
        server.clock = clock
        client = Client(server)
        client.ask(1, 2, "put", "a", 1, None)
        client.send(call(2, 0, "flush"))
        until(lambda: server._store.begun == 1)
        clock.now = 2.5
        server._store.free.set()
        assert client.next()[1] == 2
        client.close()
        until(lambda: not server.connections)
    assert [(line["event"], line["name"], line["ms"]) for line in logged.lines()] == [
        ("slow request", "flush", 2500)
    ]


# -- over HTTP


def test_requests_over_http():
    pytest.importorskip("uvicorn")
    from strata.server.http import app, serve_http

    logged = Logged(requests=True)
    tokens = tokens_of([f"{hash_of(TOKEN)} write"])
    with strata.open() as db:
        web = app(db, authorize=tokens.access_of, log=logged.log)
        serving = serve_http(web)
        url = f"http://127.0.0.1:{serving.address[1]}"
        asked = [
            ("PUT", f"/v1/kv/{KEY}", TOKEN, f'"{VALUE}"'.encode()),
            ("GET", f"/v1/kv/{KEY}", TOKEN, None),
            ("GET", f"/v1/kv/{KEY}", "strata_canary", None),
            ("GET", f"/v1/{KEY}", TOKEN, None),
            ("POST", "/v1/kv.get", TOKEN, b"{"),
        ]
        ids = [ask(method, url + path, token, body) for method, path, token, body in asked]
        serving.close()
        web.close()
    lines = logged.lines()
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["request"] for line in requests] == ids == ["r1", "r2", "r3", "r4", "r5"]
    assert [(line["name"], line["code"], line["status"]) for line in requests] == [
        ("kv.put", "ok", 200), ("kv.entry", "ok", 200), ("", "access_denied", 401), ("", "not_found", 404),
        ("kv.get", "invalid_input", 400),
    ]  # fmt: skip
    opened = {line["connection"] for line in lines if line["event"] == "opened"}
    closed = {line["connection"] for line in lines if line["event"] == "closed"}
    assert opened == closed == {line["connection"] for line in requests}
    (refused,) = (line for line in lines if line["event"] == "refused")
    assert (refused["request"], refused["code"]) == ("r3", "access_denied")
    assert "canary" not in logged.to.getvalue() and TOKEN not in logged.to.getvalue()


def ask(method, url, token, body):
    """The id of a request."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.headers["X-Request-Id"]
    except urllib.error.HTTPError as error:
        return error.headers["X-Request-Id"]
