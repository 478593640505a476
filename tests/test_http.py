"""Operations over HTTP: what they answer is what dispatch returns, in either encoding, by either method."""

from __future__ import annotations

import msgspec
import pytest
from http_client import client
from hypothesis import given, settings
from hypothesis import strategies as st

import strata
from strata.api.dispatch import dispatch
from strata.api.operations import OPERATIONS
from strata.api.plain import decode_json, encode_json
from strata.server.http.body import MSGPACK
from strata.server.http.query import is_readable, simple_fields

JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture
def db():
    with strata.open() as opened:
        yield opened


@pytest.fixture
def web(db):
    return client(db)


def ask(web, name, arguments=None, **more):
    body = encode_json({"arguments": arguments or {}, **more})
    return web.post(f"/v1/{name}", content=body, headers=JSON_TYPE)


# -- every operation -----------------------------------------------------------------------------------


def _database(operation, path):
    scope = {
        "strata": strata,
        "db": strata.open(path / "example.strata" if operation.example.on_disk else None),
    }
    for line in operation.example.setting:
        exec(line.replace('"example.strata"', repr(str(path / "example.strata"))), scope)
    return scope["db"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_runs_its_example(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where files that it names are
    operation = OPERATIONS[name]
    arguments = dict(operation.example.arguments)
    if name == "events.adopt":
        pytest.skip("takes an event, which dispatch tests")
    db = _database(operation, tmp_path)
    try:
        answer = ask(client(db, files=True), name, arguments)
        assert answer.status_code == 200, answer.text
        if operation.access == "read" and name != "info":
            expected = to_json_and_back(dispatch(db, name, {}, arguments))
            assert untimed(decode_json(answer.content)) == untimed(expected)
    finally:
        db.close()


def to_json_and_back(data):
    return decode_json(encode_json(data))


def untimed(data):
    """Return a result without how long it took."""
    return {**data, "statistics": None} if isinstance(data, dict) and "statistics" in data else data


def _is_sayable(operation):
    said = simple_fields(operation).keys() | {"default"}
    return is_readable(operation) and operation.example.arguments.keys() <= said


@pytest.mark.parametrize("name", [name for name, found in OPERATIONS.items() if _is_sayable(found)])
def test_what_reads_answers_get_as_it_does_post(name, tmp_path):
    operation = OPERATIONS[name]
    db = _database(operation, tmp_path)
    try:
        web = client(db)
        arguments = {
            field: ("true" if value else "false") if isinstance(value, bool) else value
            for field, value in operation.example.arguments.items()
            if field != "default"
        }
        got, posted = web.get(f"/v1/{name}", params=arguments), ask(web, name, operation.example.arguments)
        assert got.status_code == 200, got.text
        assert untimed(got.json()) == untimed(posted.json()) or name in ("info", "kv.get_many")
        head = web.head(f"/v1/{name}", params=arguments)
        assert head.status_code == 200
    finally:
        db.close()


# -- data ----------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.just("$bytes"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(key=keys, value=values, packed=st.booleans())
def test_values_come_back_as_they_went(key, value, packed):
    with strata.open() as db:
        web = client(db)
        body = {"arguments": {"key": key, "value": value}}
        if packed:
            put = web.post(
                "/v1/kv.put", content=msgspec.msgpack.encode(body), headers={"Content-Type": MSGPACK}
            )
            got = web.get("/v1/kv.get", params={"key": key}, headers={"Accept": MSGPACK})
            found = msgspec.msgpack.decode(got.content)
        else:
            put = web.post("/v1/kv.put", content=encode_json(body), headers=JSON_TYPE)
            got = web.get("/v1/kv.get", params={"key": key})
            found = decode_json(got.content)
        assert put.status_code == got.status_code == 200, (put.text, got.text)
        assert strata.core.values.same(found, value) and strata.core.values.same(db.kv.get(key), value)
