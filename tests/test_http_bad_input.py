"""What no honest client sends: each answer is below 500, says what is wrong, and nothing is written."""

from __future__ import annotations

import json

import msgspec
import pytest
from http_client import client, raw
from hypothesis import given, settings
from hypothesis import strategies as st

import strata
from strata.api.operations import OPERATIONS
from strata.core import errors
from strata.core.errors import StrataError
from strata.server.http import HttpLimits, app
from strata.server.http.statuses import STATUS, codes, refused, status_of

JSON_TYPE = (b"content-type", b"application/json")
PACK_TYPE = (b"content-type", b"application/msgpack")


@pytest.fixture
def db():
    with strata.open() as opened:
        yield opened


@pytest.fixture
def served(db):
    return app(db)


def is_error(answer, *statuses):
    """Return whether an answer is an error of ours, with one of these statuses."""
    data = answer.json()
    return (
        answer.status in statuses
        and data.keys() == {"code", "message", "hint", "fields"}
        and data["code"] in codes()
    )


# -- errors --------------------------------------------------------------------------------------------


def _classes(cls=StrataError):
    return [cls, *(found for sub in cls.__subclasses__() for found in _classes(sub))]


def test_every_error_has_a_status():
    for cls in _classes()[1:]:
        assert any(base in STATUS for base in cls.__mro__), f"give {cls.__name__} a status in statuses.py"
    assert len({cls.code for cls in _classes()}) == len(codes()) + 1


def test_what_a_client_did_is_below_500():
    ours = {
        errors.InternalError,
        errors.OutcomeUnknown,
        errors.Corrupt,
        errors.RemoteError,
        errors.StorageError,
    }
    ours |= {errors.Closed, errors.Locked, errors.NeedsKey}
    assert {cls for cls, status in STATUS.items() if status >= 500} == ours


def test_a_bug_is_no_secret_and_tells_none(db, served, monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("the secret of the house")

    monkeypatch.setattr("strata.server.http.service.dispatch", broken)
    answer = raw(served, "GET", b"/v1/version")
    assert (
        is_error(answer, 500) and answer.json()["code"] == "internal_error" and b"secret" not in answer.body
    )


def test_a_database_that_is_closed_is_unavailable(served, db):
    db.close()
    assert is_error(raw(served, "GET", b"/v1/version"), 503)
    assert is_error(raw(served, "GET", b"/v1/kv.get", query=b"key=k"), 503)


def test_errors_come_in_the_encoding_that_is_wanted(served):
    answer = raw(served, "GET", b"/v1/kv.get", headers=((b"accept", b"application/msgpack"),))
    assert answer.status == 400 and msgspec.msgpack.decode(answer.body)["code"] == "invalid_input"


def test_an_error_with_a_number_that_no_encoding_has(served):
    body = b'{"arguments": {"key": "k", "expected_version": 1%b, "new": 1}}' % (b"0" * 40)
    for accept in (b"application/json", b"application/msgpack"):
        answer = raw(served, "POST", b"/v1/kv.cas", headers=(JSON_TYPE, (b"accept", accept)), body=(body,))
        assert answer.status == 400


# -- paths ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/kv/..",
        b"/v1/kv/../../etc/passwd",
        b"/v1/kv/%2e%2e%2fetc",
        b"/v1/kv//",
        b"/v1/kv/a//b",
        b"/v1/kv/.",
        b"/v1/kv/%252e",
        b"/v1/kv/a;b=c",
        b"/v1/kv/a%3fb",
        b"/v1/kv/a%23",
        b"/v1/kv/a\\b",
        b"/v1/kv/C:%5cx",
        b"/v1/kv/%0d%0aSet-Cookie:%20a=b",
        b"/v1/kv/a%0a",
        b"/v1/kv/kv.get",
        b"/v1/kv/%",
        b"/v1/kv/%zz",
        b"/v1/kv/+",
    ],
)
def test_paths_that_trick_file_servers_are_keys_here(db, served, path):
    headers = (JSON_TYPE,)
    put = raw(served, "PUT", path, headers=headers, body=(b"1",))
    assert put.status == 200
    from urllib.parse import unquote

    assert list(db.kv.keys()) == [unquote(path.decode().removeprefix("/v1/kv/"))]
    assert all("\n" not in value and "\r" not in value for value in put.headers.values())
    assert raw(served, "GET", path).body == b"1"


@pytest.mark.parametrize(
    "path", [b"/v1/kv/%00", b"/v1/kv/a%00b", b"/v1/kv/", b"/v1/kv/%ff", b"/v1/kv/%c0%af", b"/%ff"]
)
def test_paths_that_are_no_keys(db, served, path):
    for method in ("GET", "PUT", "DELETE"):
        assert is_error(raw(served, method, path, headers=(JSON_TYPE,), body=(b"1",)), 400)
    assert db.version == 0


def test_keys_that_are_too_long(served):
    assert is_error(raw(served, "GET", b"/v1/kv/" + b"k" * 2_000), 413)


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/v1",
        b"/v1/",
        b"/v2/kv.get",
        b"/v1/kv",
        b"/v1/kv.get/",
        b"//v1/kv.get",
        b"/v1//kv.get",
        b"/v1/../v1/kv.get",
        b"/v1/kv.__class__",
        b"/v1/close",
        b"/v1/transact",
        b"/v1/kv.GET",
        b"/v1/events/k",
        b"/static/x",
        b"/v1/" + b"x" * 9_000,
    ],
)
def test_paths_that_are_none(served, path):
    assert is_error(raw(served, "GET", path), 404)
    assert is_error(raw(served, "POST", path, headers=(JSON_TYPE,), body=(b"{}",)), 404)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "OPTIONS", "FOO", "get"])
def test_methods_that_are_not_for_this(db, served, method):
    answer = raw(served, method, b"/v1/kv.get", query=b"key=k")
    assert is_error(answer, 405) and answer.headers["allow"] == "GET, POST, HEAD"
    answer = raw(served, method, b"/")
    assert is_error(answer, 405) and answer.headers["allow"] == "GET, HEAD"


def test_no_header_overrides_the_method(db, served):
    db.kv.put("k", 1)
    for name in (b"x-http-method-override", b"x-http-method", b"x-method-override"):
        answer = raw(served, "GET", b"/v1/kv/k", headers=((name, b"DELETE"),), query=b"")
        assert answer.status == 200 and db.kv.get("k") == 1
    assert is_error(raw(served, "POST", b"/v1/kv/k", query=b"_method=DELETE"), 405)


# -- queries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (b"/v1/kv.get", b""),
        (b"/v1/kv.get", b"key=a&key=b"),
        (b"/v1/kv.get", b"key=k&kye=1"),
        (b"/v1/kv.get", b"key=%ff"),
        (b"/v1/kv.get", b"key=k&branch=a&branch=b"),
        (b"/v1/kv.get", b"key=k&at="),
        (b"/v1/kv.get", b"key=k&at=99999999999999999999999"),
        (b"/v1/kv.get", b"key=k&at=-1"),
        (b"/v1/kv.get", b"key=k&branch="),
        (b"/v1/kv.get", b"key=k&space=%00"),
        (b"/v1/kv.get", b"key=k&space=_x"),
        (b"/v1/kv.scan", b"limit=1.0"),
        (b"/v1/kv.scan", b"limit=%D9%A3"),
        (b"/v1/kv.scan", b"limit=1_000"),
        (b"/v1/kv.scan", b"limit=-1"),
        (b"/v1/kv.scan", b"limit=99999999999999999999"),
        (b"/v1/kv.scan", b"reverse=1"),
        (b"/v1/kv.scan", b"reverse="),
        (b"/v1/search", b"text=a&budget_ms=nan"),
        (b"/v1/search", b"k=many"),
        (b"/v1/kv.get", b"&".join(b"a%d=1" % n for n in range(200))),
        (b"/v1/kv/k", b"limit=1"),
        (b"/v1/kv/k", b"at=1&at=1"),
        (b"/v1/info", b"x=1"),
        (b"/v1/traces.by_kind", b"kind=none"),
    ],
)
def test_queries_that_are_none(db, served, path, query):
    assert is_error(raw(served, "GET", path, query=query), 400)


def test_a_post_has_nothing_in_its_query(served):
    assert is_error(raw(served, "POST", b"/v1/version", query=b"branch=main"), 400)


# -- bodies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff",
        b'{"arguments": null}',
        b'{"arguments": []}',
        b'{"argument": {}}',
        b'{"arguments": {}, "place": {"where": 1}}',
        b'{"arguments": {}, "commit": {"who": 1}}',
        b'{"place": 1}',
        b'{"arguments": {"key": "k"}} {}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"arguments": {"key": "\\ud800"}}',
        b'{"arguments": {"key": "k", "default": {"$bytes": "!"}}}',
        b'{"arguments": {"key": {"$bytes": "aGk="}}}',
        b'{"arguments": {"key": "k", "default": {"$float": 7}}}',
        b'{"arguments": {"key": NaN}}',
        b"\xef\xbb\xbf{}",
        b'{"arguments": {"key": "k"}, "place": {"at": 1e400}}',
        b'{"arguments": {"key": "k"}, "place": {"at": true}}',
    ],
)
def test_bodies_that_are_no_call(db, served, body):
    assert is_error(raw(served, "POST", b"/v1/kv.get", headers=(JSON_TYPE,), body=(body,)), 400)


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\x01\x02",
        b"\xd4\x01\x02",
        b"\xd6\xff\0\0\0\1",
        b"\xc7\xff\5x",
        b"\xa1\xff",
        b"\x01\x02",
        b"\x81\xa9arguments\x81\xa3key\xc4\x01k",
        b"\x81\xa9arguments\x81\xc4\x03key\xa1k",
    ],
)
def test_packed_bodies_that_are_no_call(db, served, body):
    answer = raw(
        served, "POST", b"/v1/kv.get", headers=(PACK_TYPE, (b"accept", b"application/json")), body=(body,)
    )
    assert is_error(answer, 400)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(OPERATIONS)),
    body=st.binary(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ).map(lambda data: json.dumps(data).encode())
    | st.fixed_dictionaries(
        {
            "arguments": st.dictionaries(
                st.sampled_from(
                    ["key", "value", "name", "limit", "doc", "id", "path", "at", "source", "text", "skip"]
                ),
                st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
                max_size=4,
            )
        }
    ).map(lambda data: json.dumps(data).encode()),
    kind=st.sampled_from([JSON_TYPE, PACK_TYPE]),
)
def test_no_body_makes_the_server_fail(name, body, kind):
    with strata.open() as db:
        answer = raw(app(db), "POST", b"/v1/" + name.encode(), headers=(kind,), body=(body,))
        assert answer.status < 500, answer.body


@settings(max_examples=150, deadline=None)
@given(
    path=st.binary(max_size=12).map(lambda tail: b"/v1/" + tail)
    | st.sampled_from([b"/v1/kv/", b"/v1/state/", b"/v1/json/"]).flatmap(
        lambda head: st.binary(max_size=12).map(head.__add__)
    ),
    query=st.binary(max_size=20) | st.sampled_from([b"at=1", b"branch=none", b"path=$.a", b"ttl=1"]),
    method=st.sampled_from(["GET", "PUT", "DELETE", "POST", "PATCH", "HEAD"]),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"if-match",
                    b"if-none-match",
                    b"accept",
                    b"content-type",
                    b"idempotency-key",
                    b"content-length",
                    b"transfer-encoding",
                    b"authorization",
                    b"origin",
                    b"last-event-id",
                    b"host",
                ]
            ),
            st.binary(max_size=12) | st.sampled_from([b"application/json", b'"1"', b"*", b"1", b"chunked"]),
        ),
        max_size=3,
    ),
)
def test_no_request_makes_the_server_fail(path, query, method, headers):
    with strata.open() as db:
        db.kv.put("k", 1)
        answer = raw(app(db), method, path, headers=tuple(headers), query=query, body=(b'{"a": 1}',))
        assert answer.status < 500, answer.body


# -- lengths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        ((b"content-length", b"2"), (b"content-length", b"2")),
        ((b"content-length", b"2"), (b"content-length", b"20")),
        ((b"content-length", b"2, 2"),),
        ((b"content-length", b"+2"),),
        ((b"content-length", b"-2"),),
        ((b"content-length", "²".encode()),),
        ((b"content-length", b""),),
        ((b"content-length", b"2"), (b"transfer-encoding", b"chunked")),
        ((b"transfer-encoding", b"identity"), (b"content-length", b"2")),
        ((b"host", b"127.0.0.1"),),
    ],
)
def test_a_request_has_one_length_and_one_host(db, served, headers):
    answer = raw(served, "POST", b"/v1/flush", headers=(JSON_TYPE, *headers), body=(b"{}",), most=0)
    assert is_error(answer, 400) and answer.headers["connection"] == "close"


def test_a_body_that_says_it_is_too_long_is_not_read(db):
    served = app(db, limits=HttpLimits(body_bytes=10))
    for length in (b"11", b"9" * 30):
        headers = (JSON_TYPE, (b"content-length", length))
        answer = raw(served, "PUT", b"/v1/kv/k", headers=headers, body=(b"x",), most=0)
        assert is_error(answer, 413) and answer.headers["connection"] == "close"
    assert (
        raw(
            served, "PUT", b"/v1/kv/k", headers=(JSON_TYPE, (b"content-length", b"10")), body=(b'"12345678"',)
        ).status
        == 200
    )


def test_a_body_that_goes_on_is_read_up_to_the_limit(db):
    served = app(db, limits=HttpLimits(body_bytes=10))
    headers = (JSON_TYPE, (b"transfer-encoding", b"chunked"))
    answer = raw(served, "PUT", b"/v1/kv/k", headers=headers, body=(b"1234",) * 100, most=3)
    assert is_error(answer, 413) and db.version == 0


def test_limits_are_numbers_above_nothing():
    for wrong in (
        {"body_bytes": 0},
        {"threads": 1.5},
        {"head_s": -1},
        {"body_s": True},
        {"watches": "2"},
        {"stall_s": float("nan")},
    ):
        with pytest.raises(errors.InvalidInput):
            HttpLimits(**wrong)


def test_who_is_gone_is_not_answered(db, served):
    """A client that vanishes within its body: nothing is written, and nothing fails."""
    import asyncio

    said = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    scope = {
        "type": "http",
        "method": "PUT",
        "path": "/v1/kv/k",
        "raw_path": b"/v1/kv/k",
        "query_string": b"",
        "headers": [],
    }
    asyncio.run(served(scope, receive, send))
    assert said == [] and db.version == 0


def test_refusals_keep_what_they_say():
    refusal = refused(errors.AccessDenied(needed="read", given="nothing"))
    assert refusal.status == 401 and refusal.headers == {"WWW-Authenticate": "Bearer"}
    assert refused(refusal) is refusal
    assert status_of(errors.AccessDenied(needed="write", given="read")) == 403


def test_a_missing_package_names_the_extra(db, monkeypatch):
    import sys

    for name in [
        name
        for name in sys.modules
        if name.startswith(("starlette", "strata.server.http.service", "strata.server.http.web"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.datastructures", None)
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(errors.InvalidInput) as error:
        app(db)
    assert "[server]" in error.value.hint


def test_one_client_can_ask_on(db):
    web = client(db)
    assert web.get("/v1/none").status_code == 404
    assert web.put("/v1/kv/k", json=1).status_code == 200
