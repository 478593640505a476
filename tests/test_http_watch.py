"""Watches over HTTP: events as a browser reads them, from any version, without gap and without repetition."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx2
import pytest
from http_client import client

import strata
from strata.server.http import HttpLimits, app, serve_http


@pytest.fixture
def db():
    with strata.open() as opened:
        yield opened


@pytest.fixture
def served(db):
    made = app(db, limits=HttpLimits(heartbeat_s=0.02, watches=2))
    server = serve_http(made)
    yield "http://{}:{}".format(*server.address)
    server.close()
    made.close()


def events(lines):
    """Read events as EventSource does; yield id, type and data of each, and of those that are an id alone."""
    last, kind, data = None, "message", []
    for line in lines:
        if not line:
            yield last, kind, json.loads("\n".join(data)) if data else None
            kind, data = "message", []
            continue
        field, _, value = line.partition(": ")
        if field == "id":
            last = int(value)
        elif field == "event":
            kind = value
        elif field == "data":
            data.append(value)


def commits(url, count, query="", headers=None):
    """Return the first commits of a watch, as versions and keys, and the last id."""
    found = []
    with httpx2.stream("GET", f"{url}/v1/watch?{query}", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for last, kind, data in events(answer.iter_lines()):
            if kind == "commit":
                assert last == data["version"]
                found.append((data["version"], [change["key"] for change in data["changes"]]))
            if len(found) == count:
                return found, last
    raise AssertionError(f"it ended after {found}")


def test_what_was_committed_comes_in_order(db, served):
    for number in range(5):
        db.kv.put(f"k{number}", number)
    assert commits(served, 5, "from_version=0")[0] == [(number + 1, [f"k{number}"]) for number in range(5)]


def test_what_is_committed_comes_live(db, served):
    db.kv.put("before", 0)
    waiting = threading.Event()
    found = []

    def listen():
        with httpx2.stream("GET", f"{served}/v1/watch", timeout=20) as answer:
            for last, kind, data in events(answer.iter_lines()):
                waiting.set()
                if kind == "commit":
                    found.append((last, data["changes"][0]["key"]))
                    return

    listener = threading.Thread(target=listen)
    listener.start()
    assert waiting.wait(20)
    db.kv.put("live", 1)
    listener.join()
    assert found == [(2, "live")]


def test_a_client_that_comes_back_goes_on_after_its_last_event(db, served):
    for number in range(6):
        db.kv.put(f"k{number}", number)
    first, last = commits(served, 2, "from_version=0")
    rest, _ = commits(served, 4, "from_version=0", {"Last-Event-ID": str(last)})
    assert [version for version, _ in first + rest] == [1, 2, 3, 4, 5, 6]


def test_what_is_not_watched_is_left_out_and_moves_the_position_on(db, served):
    db.kv.put("a/1", 1)
    db.events.append("ask", {"text": "why?"})
    db.space("s").kv.put("a/1", 1)
    db.branches.fork("main", "b")
    db.branch("b").kv.put("b/1", 1)
    assert commits(served, 1, "from_version=0&primitive=events")[0][0][0] == 2
    assert commits(served, 1, "from_version=0&type=ask")[0][0][0] == 2
    assert commits(served, 1, "from_version=0&space=s")[0] == [(3, ["a/1"])]
    assert commits(served, 1, "from_version=0&branch=b&prefix=b/")[0][0][1] == ["b/1"]
    with httpx2.stream("GET", f"{served}/v1/watch?from_version=0&prefix=none", timeout=20) as answer:
        last, kind, data = next(events(answer.iter_lines()))
        assert (last, kind, data) == (3, "message", None)


def test_it_ends_when_its_branch_is_deleted(db, served):
    db.branches.create("b")
    waiting, said = threading.Event(), []

    def listen():
        with httpx2.stream("GET", f"{served}/v1/watch?branch=b", timeout=20) as answer:
            for _, kind, data in events(answer.iter_lines()):
                waiting.set()
                if kind != "message":
                    said.append((kind, data["code"]))

    listener = threading.Thread(target=listen)
    listener.start()
    assert waiting.wait(20)
    db.branches.delete("b")
    listener.join()
    assert said == [("error", "not_found")]


def test_it_ends_with_the_run_that_it_watches(db, served):
    run = db.runs.begin("plan")
    run.kv.put("k", 1)
    run.end()
    with httpx2.stream(
        "GET", f"{served}/v1/watch", params={"branch": run.name, "from_version": 0}, timeout=20
    ) as answer:
        kinds = [kind for _, kind, _ in events(answer.iter_lines())]
    assert kinds[-1] == "end" and "commit" in kinds


def test_what_is_wrong_is_said_before_it_begins(db, served):
    for query, status in [
        ("branch=none", 404), ("from_version=99", 404), ("from_version=x", 400), ("from_version=-1", 400),
        ("primitive=none", 400), ("type=a&primitive=kv", 400), ("at=1", 400), ("limit=1", 400),
        ("space=_x", 400),
    ]:  # fmt: skip
        answer = httpx2.get(f"{served}/v1/watch?{query}")
        assert answer.status_code == status, (query, answer.text)
    assert httpx2.get(f"{served}/v1/watch", headers={"Last-Event-ID": "x"}).status_code == 400
    assert (
        httpx2.head(f"{served}/v1/watch").status_code == httpx2.post(f"{served}/v1/watch").status_code == 405
    )


def test_history_that_is_gone_is_said(db, served):
    db.retention.set(strata.KeepLast(1))
    for number in range(5):
        db.kv.put("k", number)
    db.compact()
    answer = httpx2.get(f"{served}/v1/watch?from_version=0")
    assert answer.status_code == 410 and answer.json()["fields"]["oldest"] > 0


def test_there_are_not_more_watches_than_allowed(db, served):
    with httpx2.stream("GET", f"{served}/v1/watch") as one, httpx2.stream("GET", f"{served}/v1/watch") as two:
        assert one.status_code == two.status_code == 200
        answer = httpx2.get(f"{served}/v1/watch")
        assert answer.status_code == 503 and answer.json()["code"] == "limit_exceeded"


def test_the_end_of_the_server_ends_watches(db):
    made = app(db)
    server = serve_http(made)
    url = "http://{}:{}/v1/watch".format(*server.address)
    waiting, kinds = threading.Event(), []

    def listen():
        with httpx2.stream("GET", url, timeout=20) as answer:
            for _, kind, _ in events(answer.iter_lines()):
                kinds.append(kind)
                waiting.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert waiting.wait(20)
    server.close()
    made.close()
    listener.join()
    assert kinds[-1] == "end"


def test_a_watch_needs_a_token_where_others_do(db):
    def authorize(token):
        raise strata.errors.AccessDenied("no", needed="read", given="nothing")

    assert client(db, authorize=authorize).get("/v1/watch").status_code == 401


def test_a_token_that_is_taken_back_ends_the_watch(db):
    tokens = {"t"}

    def authorize(token):
        if token not in tokens:
            raise strata.errors.AccessDenied("no", needed="read", given="nothing")
        return "read"

    made = app(db, authorize=authorize, limits=HttpLimits(heartbeat_s=0.02))
    server = serve_http(made)
    url = "http://{}:{}/v1/watch".format(*server.address)
    kinds = []
    with httpx2.stream("GET", url, headers={"Authorization": "Bearer t"}, timeout=20) as answer:
        for _, kind, _ in events(answer.iter_lines()):
            tokens.clear()
            kinds.append(kind)
    server.close()
    made.close()
    assert kinds[0] == "message" and kinds[-1] == "error"


def test_who_is_gone_before_the_first_event_holds_no_watch(db):
    made = app(db, limits=HttpLimits(watches=1))

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise OSError("gone")

    scope = {
        "type": "http", "method": "GET", "path": "/v1/watch", "raw_path": b"/v1/watch", "query_string": b"",
        "headers": [], "asgi": {"spec_version": "2.4"},
    }  # fmt: skip
    for _ in range(3):
        asyncio.run(made(scope, receive, send))
    assert not made._watching._open
    made.close()
