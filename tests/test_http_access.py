"""Who may do what over HTTP: every operation, with every token, on servers of every kind."""

from __future__ import annotations

import pytest
from http_client import client, raw

import strata
from strata.api.operations import OPERATIONS
from strata.api.plain import encode_json
from strata.errors import AccessDenied
from strata.server.http import app
from strata.server.http.query import is_readable, simple_fields

RANKS = {"read": 0, "write": 1, "admin": 2}
ROLES = {"r": "read", "w": "write", "a": "admin"}
TOKENS = [None, "unknown", "expired", "r", "w", "a"]


def authorize(token):
    if token is None:
        raise AccessDenied("a token is required here", needed="read", given="nothing")
    if token not in ROLES:
        raise AccessDenied("this token is not known, or has expired", needed="read", given="nothing")
    return ROLES[token]


def expected(operation, token, read_only):
    """Return the status that a request must not get past, or None where it may run."""
    if token not in ROLES:
        return 401
    if RANKS[ROLES[token]] < RANKS[operation.access] or operation.names_files:
        return 403
    return 403 if read_only and operation.access != "read" else None


@pytest.fixture(scope="module")
def servers():
    with strata.open() as db:
        yield {
            (token, read_only): client(db, token, authorize=authorize, read_only=read_only)
            for token in TOKENS
            for read_only in (False, True)
        }


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_matrix(servers, name):
    operation = OPERATIONS[name]
    body = encode_json({"arguments": operation.example.arguments})
    get = {
        key: value for key, value in operation.example.arguments.items() if key in simple_fields(operation)
    }
    for (token, read_only), web in servers.items():
        wanted = expected(operation, token, read_only)
        answers = [web.post(f"/v1/{name}", content=body, headers={"Content-Type": "application/json"})]
        if is_readable(operation):
            answers.append(web.get(f"/v1/{name}", params=get))
        for answer in answers:
            if wanted is None:
                assert answer.status_code not in (401, 403) or answer.json()["code"] == "protected", (
                    answer.text
                )
            else:
                assert answer.status_code == wanted, (token, read_only, answer.text)
                assert answer.json()["code"] in ("access_denied", "read_only")
            assert ("www-authenticate" in answer.headers) == (wanted == 401)


@pytest.mark.parametrize(
    ("method", "path", "access"),
    [
        ("GET", "/v1/kv/k", "read"),
        ("HEAD", "/v1/kv/k", "read"),
        ("PUT", "/v1/kv/k", "write"),
        ("DELETE", "/v1/kv/k", "write"),
        ("PUT", "/v1/state/k", "write"),
        ("PUT", "/v1/json/k", "write"),
        ("PATCH", "/v1/json/k", "write"),
        ("DELETE", "/v1/json/k", "write"),
        ("GET", "/v1/no.such", "read"),
    ],
)
def test_the_matrix_of_resources(servers, method, path, access):
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    for (token, read_only), web in servers.items():
        answer = web.request(method, path, content=b"{}", headers={"Content-Type": kind})
        if token not in ROLES:
            assert answer.status_code == 401
        elif RANKS[ROLES[token]] < RANKS[access] or (read_only and access != "read"):
            assert answer.status_code == 403
        else:
            assert answer.status_code in (200, 204, 404)


def test_a_search_that_writes_needs_more_than_one_that_reads():
    with strata.open() as db:
        db.kv.put("k", "words")
        web = client(db, "r", authorize=authorize)
        ask = {"text": "words", "scan": True}
        kind = {"Content-Type": "application/json"}

        def search(arguments):
            return web.post(
                "/v1/search", content=encode_json({"arguments": arguments}), headers=kind
            ).status_code

        assert search(ask) == 200
        assert search({**ask, "log_recall": True}) == 403
        assert (
            web.get("/v1/search", params={"text": "words", "scan": "true", "log_recall": "true"}).status_code
            == 400
        )


def test_operations_that_name_files_run_where_that_is_allowed(tmp_path):
    with strata.open() as db:
        body = encode_json({"arguments": {"path": str(tmp_path / "all.bundle")}})
        for files, status in ((False, 403), (True, 200)):
            web = client(db, "a", authorize=authorize, files=files)
            assert (
                web.post("/v1/export", content=body, headers={"Content-Type": "application/json"}).status_code
                == status
            )
            assert (tmp_path / "all.bundle").exists() == files


@pytest.mark.parametrize(
    "headers",
    [
        ((b"authorization", b"Basic YTpi"),),
        ((b"authorization", b"Bearer"),),
        ((b"authorization", b"Bearer "),),
        ((b"authorization", b"a"),),
        ((b"authorization", b"\xff\xfe"),),
        ((b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")),
        ((b"authorization", b"Bearer a, Bearer a"),),
        ((b"cookie", b"token=a"),),
    ],
)
def test_what_is_no_token_is_none(headers):
    with strata.open() as db:
        served = app(db, authorize=authorize)
        answer = raw(served, "GET", b"/v1/version", headers=headers, query=b"token=a")
        assert answer.status == 401 and b"Bearer a" not in answer.body


def test_a_body_without_a_token_is_not_read():
    """Who has no right to write must not be able to make the server take in what is to be written."""
    with strata.open() as db:
        served = app(db, authorize=authorize)
        for token in (b"", b"Bearer unknown", b"Bearer r"):
            headers = ((b"authorization", token), (b"transfer-encoding", b"chunked"))
            answer = raw(served, "POST", b"/v1/kv.put", headers=headers, body=(b"x", b"y"), most=0)
            assert answer.status in (401, 403)
            assert answer.headers["connection"] == "close"


def test_what_authorize_gets_wrong_is_a_failure_and_no_right():
    with strata.open() as db:
        for wrong in ("owner", None, 2):
            served = app(db, authorize=lambda token, wrong=wrong: wrong)
            assert raw(served, "GET", b"/v1/version").status == 500


def test_the_page_and_the_description_need_no_token():
    with strata.open() as db:
        web = client(db, authorize=authorize)
        assert web.get("/").status_code == web.get("/openapi.json").status_code == 200


# -- browsers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:6381", None, 200),
        ("127.0.0.1:6381", "http://127.0.0.1:6381", 200),
        ("localhost:6381", "http://localhost:6381", 200),
        ("[::1]:6381", None, 200),
        ("10.1.2.3", None, 200),
        ("127.0.0.1:6381", "https://evil.example", 403),
        ("127.0.0.1:6381", "http://127.0.0.1:8000", 403),
        ("127.0.0.1:6381", "null", 403),
        ("127.0.0.1:6381", "http://[", 403),
        ("evil.example", None, 403),
        ("evil.example", "http://evil.example", 403),
        ("localhost.evil.example", None, 403),
        ("[", None, 403),
        ("127.0.0.1:6381", "https://friend.example", 200),
    ],
)
def test_pages_of_others_may_not_write(host, origin, status):
    """A page in a browser on this machine reaches 127.0.0.1, and there is no token that would stop it."""
    with strata.open() as db:
        web = client(db, origins=["https://friend.example"])
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        answer = web.put("/v1/kv/k", json=1, headers=headers)
        assert answer.status_code == status
        assert db.kv.exists("k") == (status == 200) if status == 200 else db.version == 0


def test_with_tokens_any_host_is_answered():
    with strata.open() as db:
        web = client(db, "w", authorize=authorize)
        assert web.put("/v1/kv/k", json=1, headers={"Host": "memory.example"}).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_form_can_send_is_no_request(kind):
    with strata.open() as db:
        web = client(db)
        body = encode_json({"arguments": {"key": "k", "value": 1}})
        answer = web.post("/v1/kv.put", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415 and db.version == 0
