"""RCP over a socket of our own: who may what, which messages are answered how, and each code of an error."""

from __future__ import annotations

import io
import itertools
import json
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_cases import ORDER
from rcp_client import ALL, TOKEN, serving
from served import certificates

import strata
from strata.core.crc32c import crc32c
from strata.core.errors import (
    Closed,
    Conflict,
    Corrupt,
    InternalError,
    OutcomeUnknown,
    StorageError,
    StrataError,
    all_errors,
)
from strata.server.access import hash_of, tokens_of
from strata.server.limits import Limits
from strata.server.logs import Log
from strata.server.rcp import Settings
from strata.server.rcp.errors import RETRYABLE, Refused, refused
from strata.server.rcp.frames import HAS_CRC, HEADER, MAGIC, frame
from strata.server.rcp.operations import OPERATIONS
from strata.server.tls import ServerTls

# What clients know. Some of them cannot read a response with another code.
CODES = {
    *("UNSUPPORTED_PROTOCOL", "BAD_REQUEST", "UNAUTHORIZED", "AUTH_FAILED", "NOT_FOUND", "MACHINE_NOT_FOUND"),
    *("INSTANCE_NOT_FOUND", "MACHINE_VERSION_EXISTS", "INSTANCE_EXISTS", "MACHINE_VERSION_LIMIT_EXCEEDED"),
    *("INVALID_TRANSITION", "GUARD_FAILED", "CONFLICT", "WAL_IO_ERROR", "INTERNAL_ERROR", "RATE_LIMITED"),
    *("READ_ONLY_MODE", "REPLICATION_TIMEOUT", "REPLICATION_ERROR"),
}
GUARDED = {
    "states": ["a", "b"],
    "initial": "a",
    "transitions": [{"from": "a", "event": "GO", "to": "b", "guard": "ctx.ok"}],
}


@pytest.fixture
def db():
    with strata.open() as db:
        db.machines.define("order", 1, ORDER)
        db.machines.define("guarded", 1, GUARDED)
        yield db


@pytest.fixture
def rcp(db):
    with serving(db) as rcp:
        yield rcp


@pytest.fixture(params=["frames", "lines"])
def client(rcp, request):
    with rcp.client(is_line=request.param == "lines") as client:
        yield client


# -- operations


def test_every_operation_of_the_reference_is_there():
    assert set(OPERATIONS) == {
        *("HELLO", "AUTH", "PING", "BYE", "INFO", "PUT_MACHINE", "GET_MACHINE", "LIST_MACHINES"),
        *("CREATE_INSTANCE", "GET_INSTANCE", "LIST_INSTANCES", "DELETE_INSTANCE", "APPLY_EVENT", "BATCH"),
        *("WATCH_INSTANCE", "WATCH_ALL", "UNWATCH", "SNAPSHOT_INSTANCE", "WAL_READ", "WAL_STATS", "COMPACT"),
        *("FLUSH_ALL", "REPLICATION_STATUS", "REPLICATE", "REPLICATE_ACK"),
        *("BACKUP_BEGIN", "BACKUP_CHUNK", "BACKUP_END"),
    }


def test_a_life(client):
    made = client.get("CREATE_INSTANCE", machine="order", version=1, instance_id="o", initial_ctx=None)
    assert made == {"instance_id": "o", "state": "created", "wal_offset": made["wal_offset"]}
    paid = client.get("APPLY_EVENT", instance_id="o", event="PAY", payload={"é": [1.5, None]}, event_id="e1")
    assert paid == {
        "from_state": "created", "to_state": "paid", "ctx": {"é": [1.5, None]}, "applied": True,
        "event_id": "e1", "wal_offset": paid["wal_offset"],
    }  # fmt: skip
    assert made["wal_offset"] < paid["wal_offset"] < 2**53
    assert client.get("GET_INSTANCE", instance_id="o") == {
        "machine": "order", "version": 1, "state": "paid", "ctx": {"é": [1.5, None]},
        "last_event_id": "e1", "last_wal_offset": paid["wal_offset"],
    }  # fmt: skip
    # An event without an id clears the last one.
    assert "event_id" not in client.get("APPLY_EVENT", instance_id="o", event="SHIP", payload=None)
    assert "last_event_id" not in client.get("GET_INSTANCE", instance_id="o")
    assert client.get("GET_MACHINE", machine="order")["version"] == 1
    assert client.get("REPLICATION_STATUS") == {"role": "standalone"}
    taken = client.get("SNAPSHOT_INSTANCE", instance_id="o")
    assert taken["size_bytes"] > 0 and len(taken["checksum"]) == 8
    assert set(client.forms) == {client.is_line}


def test_what_is_expected(client):
    made = client.get("CREATE_INSTANCE", machine="order", version=1, instance_id="o")["wal_offset"]
    asked = {"instance_id": "o", "event": "TOUCH"}
    assert client.error("APPLY_EVENT", **asked, expected_state="paid")["details"] == {
        "expected_state": "paid", "actual_state": "created"
    }  # fmt: skip
    error = client.error("APPLY_EVENT", **asked, expected_wal_offset=made + 1)
    assert (error["code"], error["retryable"]) == ("CONFLICT", False)
    assert error["details"] == {"expected_offset": made + 1, "actual_offset": made}
    done = client.get("APPLY_EVENT", **asked, expected_wal_offset=made, expected_state="created")
    assert client.code("APPLY_EVENT", **asked, expected_wal_offset=made) == "CONFLICT"
    assert client.code("APPLY_EVENT", instance_id="none", event="E", expected_wal_offset=1) == (
        "INSTANCE_NOT_FOUND"
    )
    assert client.get("WAL_READ", from_offset=made + 1)["next_offset"] == done["wal_offset"] + 1


def test_an_offset_inside_a_batch_is_that_of_its_last_change(client):
    items = [
        {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1, "instance_id": "o"}},
        {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1, "instance_id": "a"}},
        {"op": "APPLY_EVENT", "params": {"instance_id": "o", "event": "TOUCH", "payload": {"n": 1}}},
        {"op": "APPLY_EVENT", "params": {"instance_id": "o", "event": "PAY"}},
        {"op": "DELETE_INSTANCE", "params": {"instance_id": "a"}},
        {"op": "DELETE_INSTANCE", "params": {"instance_id": "a"}},
    ]
    done = client.get("BATCH", mode="atomic", operations=items)
    offsets = [one["result"]["wal_offset"] for one in done["results"]]
    first = offsets[0]
    assert offsets == [first, first + 1, first + 2, first + 3, first + 4, first + 4]
    assert done["wal_offset"] == first + 4
    assert client.get("GET_INSTANCE", instance_id="o")["last_wal_offset"] == first + 3
    records = client.get("WAL_READ", from_offset=first)["records"]
    # Of what was made and removed in one commit nothing is left to say.
    assert [(one["offset"] - first, one["entry"]["type"]) for one in records] == [
        (0, "create_instance"),
        (2, "apply_event"),
        (3, "apply_event"),
    ]
    assert [one["offset"] - first for one in client.get("WAL_READ", from_offset=first + 3)["records"]] == [3]
    assert client.get("DELETE_INSTANCE", instance_id="a")["wal_offset"] == first + 4
    for offset in offsets[:3]:
        assert client.code("APPLY_EVENT", instance_id="o", event="SHIP", expected_wal_offset=offset) == (
            "CONFLICT"
        )
    inside = [
        {"op": "APPLY_EVENT", "params": {"instance_id": "o", "event": "SHIP", "expected_wal_offset": at}}
        for at in (first + 2, first + 3, first + 3)
    ]
    results = client.get("BATCH", ops=inside)["results"]
    assert [one["error"] and one["error"]["code"] for one in results] == ["CONFLICT", None, "CONFLICT"]


def test_what_is_refused_takes_no_offset(client):
    bad = {"op": "APPLY_EVENT", "params": {"instance_id": "none", "event": "E"}}
    good = {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1, "idempotency_key": "k"}}
    results = client.get(
        "BATCH", ops=[bad, good, bad, good, good | {"params": good["params"] | {"x": 1}}, bad]
    )
    offsets = [one["result"] and one["result"]["wal_offset"] for one in results["results"]]
    assert offsets == [None, offsets[1], None, offsets[1], offsets[1], None]
    other = {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1}}
    results = client.get("BATCH", ops=[good, bad, other, bad, other])["results"]
    found = [one["result"]["wal_offset"] for one in results if one["result"]]
    assert found[0] == offsets[1] and found[2] == found[1] + 1 and found[1] % 1024 == 0


def test_batches_that_are_none(client):
    assert client.code("BATCH", ops=[{"op": "PING"}] * 101) == "BAD_REQUEST"
    assert client.code("BATCH", ops=[], mode="both") == "BAD_REQUEST"
    assert client.code("BATCH") == "BAD_REQUEST"
    assert client.get("BATCH", ops=[]) == {"results": []}
    odd = [7, {"op": "BATCH", "params": {}}, {"op": "APPLY_EVENT"}, {"op": "APPLY_EVENT", "params": [1]}]
    odd += [{"op": "CREATE_INSTANCE", "params": {"machine": "none", "version": 1}}]
    results = client.get("BATCH", mode="best_effort", ops=odd)["results"]
    assert [one["error"]["code"] for one in results] == ["BAD_REQUEST"] * 4 + ["MACHINE_NOT_FOUND"]
    assert {(one["status"], one["result"]) for one in results} == {("error", None)}
    assert results[4]["error"]["details"] == {"machine": "none", "version": 1}
    good = {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1, "instance_id": "x"}}
    for index, one in enumerate(odd):
        error = client.error("BATCH", mode="atomic", ops=[good] * index + [one])
        assert "atomic batch failed" in error["message"]
        assert error["details"]["index"] in (index, 1)  # the second of two alike is refused before
    assert client.get("LIST_INSTANCES")["total"] == 0


def test_pages_neither_repeat_nor_skip_while_instances_come_and_go(client, db):
    for number in range(20):
        db.machines.create("order", f"o-{number:02}")
    seen, offset = [], 0
    while True:
        page = client.get("LIST_INSTANCES", machine="order", limit=6, offset=offset)
        seen += [one["id"] for one in page["instances"]]
        offset += len(page["instances"])
        if not page["has_more"]:
            break
        db.machines.create("order", f"a-{offset}")  # before all that were seen
        db.machines.delete(seen[0] if offset == 6 else seen[1])
    assert seen == [f"o-{number:02}" for number in range(20)]
    one = client.get("LIST_INSTANCES", limit=1)["instances"][0]
    assert set(one) == {"id", "machine", "version", "state", "created_at", "updated_at", "last_wal_offset"}
    assert client.get("LIST_INSTANCES", limit=0)["instances"] == []
    assert client.get("LIST_INSTANCES", offset=1000)["instances"] == []
    assert client.get("LIST_INSTANCES", state="created", limit=3, offset=2)["total"] > 10
    assert client.code("LIST_INSTANCES", limit=-1) == "BAD_REQUEST"


def test_definitions_that_are_none_and_versions(client):
    put = {"machine": "m", "version": 1, "definition": GUARDED}
    for wrong in (
        {"version": 0}, {"version": -1}, {"version": 1.5}, {"version": "1"}, {"version": 2**32},
        {"definition": 7}, {"definition": {}}, {"definition": GUARDED | {"initial": "x"}},
        {"definition": None}, {"checksum": "00000000"}, {"checksum": "x"}, {"machine": ""},
    ):  # fmt: skip
        assert client.code("PUT_MACHINE", **(put | wrong)) == "BAD_REQUEST"
    sum_ = client.get("PUT_MACHINE", **put)["stored_checksum"]
    assert not client.get("PUT_MACHINE", **put, checksum=sum_)["created"]


# -- codes


def test_every_code_is_reached(db):
    settings = Settings(max_machine_versions=1, recreate=False)
    seen = {}

    def note(client, op, **params):
        error = client.error(op, **params)
        seen[error["code"]] = error
        assert set(error) <= {"code", "message", "retryable", "details"} and error.get("details") != {}
        return error

    with serving(db, settings=settings) as rcp, rcp.client() as client:
        note(client, "HELLO", protocol_version=2)
        note(client, "NONSENSE")
        note(client, "AUTH", token="")
        note(client, "BACKUP_END", backup_id="none")
        assert note(client, "GET_MACHINE", machine="none", version=3)["details"] == {
            "machine": "none", "version": 3
        }  # fmt: skip
        assert note(client, "GET_INSTANCE", instance_id="none")["details"] == {"instance_id": "none"}
        note(client, "PUT_MACHINE", machine="order", version=1, definition=GUARDED)
        note(client, "PUT_MACHINE", machine="order", version=2, definition=GUARDED)
        client.get("CREATE_INSTANCE", machine="guarded", version=1, instance_id="g")
        note(client, "CREATE_INSTANCE", machine="guarded", version=1, instance_id="g")
        assert note(client, "APPLY_EVENT", instance_id="g", event="NO")["details"] == {
            "current_state": "a", "event": "NO"
        }  # fmt: skip
        assert note(client, "APPLY_EVENT", instance_id="g", event="GO")["details"] == {
            "current_state": "a", "event": "GO", "guards": ["ctx.ok"]
        }  # fmt: skip
        note(client, "APPLY_EVENT", instance_id="g", event="GO", expected_state="b")
        client.get("DELETE_INSTANCE", instance_id="g")
        assert note(client, "CREATE_INSTANCE", machine="guarded", version=1, instance_id="g")["code"] == (
            "INSTANCE_EXISTS"
        )
        assert note(client, "FLUSH_ALL")["code"] == "BAD_REQUEST"
        for error in (StorageError("no room"), Corrupt("bad"), OutcomeUnknown("?", transaction="t")):
            assert _failing(rcp, client, error)["code"] == "WAL_IO_ERROR"
        seen["WAL_IO_ERROR"] = _failing(rcp, client, StorageError("no room"))
        for error in (InternalError("oh"), Closed("shut"), ZeroDivisionError("we")):
            seen["INTERNAL_ERROR"] = _failing(rcp, client, error)
            assert seen["INTERNAL_ERROR"]["code"] == "INTERNAL_ERROR"
        assert "we" not in seen["INTERNAL_ERROR"]["message"]
        seen["RATE_LIMITED"] = _failing(rcp, client, Conflict())
    with serving(db, read_only=True) as rcp, rcp.client() as client:
        note(client, "COMPACT")
    with serving(db, tokens=tokens_of([hash_of(TOKEN)])) as rcp, rcp.client() as client:
        note(client, "INFO")
    assert set(seen) == CODES - {"REPLICATION_TIMEOUT", "REPLICATION_ERROR"}  # there is no replication here
    assert all(error["retryable"] is (code in RETRYABLE) for code, error in seen.items())


def _failing(rcp, client, error):
    """Return what is said of an error that an operation raises."""

    class Failing:
        def get(self, id):
            raise error

    real, session = rcp.listener.database.machines, next(iter(rcp.server.connections))._session
    session.machines = Failing()
    try:
        return client.error("GET_INSTANCE", instance_id="x")
    finally:
        session.machines = real


def test_every_error_of_ours_has_a_code_that_clients_know():
    for cls in all_errors().values():
        if cls is not StrataError:
            made = refused(cls("why"))
            assert made.code in CODES
            json.dumps(made.data())
    assert refused(Refused("NOT_FOUND", "x")).code == "NOT_FOUND"


# -- messages


def test_the_form_of_an_answer_is_that_of_the_question(rcp):
    with rcp.client() as client:
        for is_line in (False, True, True, False):
            client.is_line = is_line
            assert client.get("PING") == {"pong": True}
        assert client.forms == [False, True, True, False]


def test_messages_in_all_shapes(rcp):
    ping = b'{"type":"request","id":"%d","op":"PING"}'

    def shaped(number, flags, extension=b"", checksum=None):
        payload = ping % number
        made = crc32c(payload) if checksum is None else checksum
        return HEADER.pack(MAGIC, 1, flags, len(extension), len(payload), made) + extension + payload

    with rcp.client() as client:
        client.raw(shaped(1, HAS_CRC, b"more to come"))
        client.raw(shaped(2, 0, checksum=0) + shaped(3, HAS_CRC) + b"\n\n" + ping % 4 + b"\r\n")
        for byte in shaped(5, HAS_CRC) + ping % 6 + b"\n":
            client.raw(bytes([byte]))
        found = [client.message() for _ in range(6)]
        assert [(one["id"], one["result"]) for one in found] == [
            (str(number), {"pong": True}) for number in range(1, 7)
        ]
        client.raw(shaped(7, HAS_CRC) + shaped(8, HAS_CRC, checksum=1) + shaped(9, HAS_CRC))
        assert client.message()["id"] == "7"
        assert client.message() is None


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"{}",
        b'{"type":"request","op":"PING"}',
        b'{"type":"request","id":7,"op":"PING"}',
        b'{"type":"request","id":null,"op":"PING"}',
        b'{"type":"replicate_auth","last_sequence":0}',
        b'{"type":"response","id":"1","op":"PING"}',
        json.dumps({"type": "request", "id": "x" * 257, "op": "PING"}).encode(),
        b'{"a":' + b"[" * 100_000,
        b"{\xff}",
    ],
)
def test_what_has_no_id_to_answer_by_is_answered_once_and_over(client, payload):
    client.raw(payload + b"\n" if client.is_line else frame(payload))
    found = client.message()
    assert (found["id"], found["error"]["code"]) == ("", "BAD_REQUEST")
    assert client.message() is None


def test_what_has_an_id_is_answered_and_it_goes_on(client):
    for said in (
        {"op": "NO_SUCH"},
        {"op": 7},
        {},
        {"op": "PING", "params": 7},
        {"op": "GET_INSTANCE", "params": {}},
        {"op": "GET_INSTANCE", "params": {"instance_id": 7}},
        {"op": "APPLY_EVENT", "params": {"instance_id": "a", "event": "E", "payload": [1]}},
        {"op": "WATCH_ALL", "params": {"machines": "order"}},
        {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1, "initial_ctx": 7}},
        {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1, "initial_ctx": {"a": 2**80}}},
        {"op": "WAL_READ"},
        {"op": "WAL_READ", "params": {"from_offset": -1}},
        {"op": "BACKUP_BEGIN", "params": {"compression": "zip"}},
        {"op": "REPLICATE"},
    ):
        client.raw(client.packed({"type": "request", "id": "q", **said}))
        found = client.message()
        assert (found["id"], found["error"]["code"]) == ("q", "BAD_REQUEST" if said != {"op": "PING"} else "")
    # Null and missing params are none, and what is not known is ignored.
    for said in ({}, {"params": None}, {"params": {"more": 1}}, {"meta": {"trace_id": "x"}}):
        client.raw(client.packed({"type": "request", "id": "q", "op": "LIST_INSTANCES", **said}))
        assert client.message()["status"] == "ok"


def test_bytes_that_are_no_message_close_the_connection_and_hold_no_place(rcp):
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"RCPX" + b"\xff" * 20, HEADER.pack(MAGIC, 1, 1, 0, 2**31, 0)):
        with rcp.client() as client:
            client.raw(data)
            assert client.message() is None
    with rcp.client() as client:
        client.get("PING")
        assert rcp.listener.active == 1


@settings(max_examples=25, deadline=None)
@given(data=st.lists(st.binary(max_size=200), max_size=5))
def test_nothing_that_comes_harms_the_server(data):
    with strata.open() as db, serving(db) as rcp:
        for one in data:
            with rcp.client() as client:
                client.raw(frame(one) + one)
                client.socket.shutdown(1)
                while client.message() is not None:
                    pass
        with rcp.client() as client:
            assert client.get("PING")


def test_what_is_larger_than_a_frame_is_refused_and_not_the_end(rcp, db):
    db.machines.create("order", "big", {f"k{n}": "\x01" * 900_000 for n in range(4)})
    with rcp.client() as client:
        error = client.error("GET_INSTANCE", instance_id="big")
        assert error["code"] == "BAD_REQUEST" and error["details"]["actual"] > error["details"]["limit"]
        watch = client.get("WATCH_ALL")["subscription_id"]
        error = client.error("APPLY_EVENT", instance_id="big", event="TOUCH")
        assert error["code"] == "BAD_REQUEST" and "done" in error["message"]
        assert db.machines.get("big").steps == 1
        ended = client.event()
        assert (ended["type"], ended["subscription_id"]) == ("end", watch)
        assert client.get("PING")
        client.raw(HEADER.pack(MAGIC, 1, 1, 0, (16 << 20) + 1, 0))
        assert client.message() is None


def test_who_sends_no_more_is_answered_all_the_same(rcp):
    """As by `echo ... | nc`, also where a thread answers."""
    with rcp.client() as client:
        client.is_line = True
        ids = [client.send(op) for op in ("PING", "LIST_MACHINES", "LIST_INSTANCES", "PING")]
        client.socket.shutdown(1)
        assert [client.message()["id"] for _ in ids] == ids
        assert client.message() is None


# -- sessions


def test_hello(rcp):
    with rcp.client() as client:
        found = client.get("HELLO", protocol_version=1, client_name="x", wire_modes=["jsonl", "binary_json"])
        assert (found["protocol_version"], found["wire_mode"]) == (1, "jsonl")
        assert found["features"] == ["idempotency", "batch", "wal_read"]
        for given_, mode, features in (
            ({}, "binary_json", 3),
            ({"wire_modes": ["cbor"], "features": []}, "binary_json", 0),
            ({"wire_mode": "jsonl", "features": ["batch", "magic"]}, "jsonl", 1),
        ):
            found = client.get("HELLO", protocol_version=1, **given_)
            assert (found["wire_mode"], len(found["features"])) == (mode, features)
        error = client.error("HELLO", protocol_version=2)
        assert error["code"] == "UNSUPPORTED_PROTOCOL"
        assert client.get("PING") and client.get("BYE") == {"goodbye": True}
        assert client.message() is None


def test_who_says_one_mode_gets_no_null(rcp):
    with rcp.client() as client:
        assert client.get("WAL_READ", from_offset=2**50)["next_offset"] is None
        client.get("HELLO", protocol_version=1, wire_mode="binary_json")
        assert "next_offset" not in client.get("WAL_READ", from_offset=2**50)
        client.get("CREATE_INSTANCE", machine="order", version=1, instance_id="n", initial_ctx={"x": None})
        assert client.get("GET_INSTANCE", instance_id="n")["ctx"] == {"x": None}
        made = client.get("BATCH", ops=[{"op": "DELETE_INSTANCE", "params": {"instance_id": "n"}}])
        assert set(made["results"][0]) == {"status", "result"}


def test_every_operation_needs_a_token_but_four(db):
    with serving(db, tokens=tokens_of([hash_of(TOKEN)])) as rcp, rcp.client() as client:
        free = {"HELLO", "AUTH", "PING", "BYE"}
        for op in [*OPERATIONS, "NO_SUCH"]:
            if op not in free:
                assert client.code(op) == "UNAUTHORIZED"
        assert client.get("PING") and client.get("HELLO", protocol_version=1)
        for wrong in ({"token": "no"}, {"token": ""}, {"token": TOKEN, "method": "basic"}):
            assert client.code("AUTH", **wrong) == "AUTH_FAILED"
        assert client.code("AUTH", token=7) == "BAD_REQUEST"
        assert client.code("INFO") == "UNAUTHORIZED"
        assert client.get("AUTH", token=TOKEN) == {"authenticated": True}  # as Java says it, with no method
        assert client.get("INFO")["auth_required"]
        assert client.code("AUTH", token="no") == "AUTH_FAILED"
        assert client.get("INFO")


def test_where_no_token_is_asked_for_any_is_taken(rcp):
    with rcp.client() as client:
        assert not client.get("INFO")["auth_required"]
        assert client.get("AUTH", method="bearer", token="any") == {"authenticated": True}
        assert client.code("AUTH", method="bearer", token="") == "AUTH_FAILED"


def test_a_token_allows_what_its_line_says(db):
    lines = [f"{hash_of(access)} {access}" for access in ("read", "write", "admin")]
    with serving(db, tokens=tokens_of(lines)) as rcp:
        put = {"machine": "m", "version": 1, "definition": GUARDED}
        for access, allowed in (
            ("read", set()),
            ("write", {"PUT_MACHINE"}),
            ("admin", {"PUT_MACHINE", "COMPACT"}),
        ):
            with rcp.client() as client:
                client.get("AUTH", token=access)
                assert client.get("LIST_MACHINES")["items"]
                for op, params in (("PUT_MACHINE", put), ("COMPACT", {})):
                    found = client.ask(op, **params)
                    assert (found["status"] == "ok") is (op in allowed), found
                    if found["status"] == "error":
                        assert found["error"]["code"] == "UNAUTHORIZED"


def test_a_token_that_is_taken_back_ends_what_it_began(db):
    with (
        serving(db, tokens=tokens_of([hash_of(TOKEN), hash_of("other")])) as rcp,
        rcp.client() as client,
        rcp.client() as other,
        rcp.client() as nobody,
    ):
        client.get("AUTH", token=TOKEN)
        other.get("AUTH", token="other")
        nobody.get("PING")
        id = client.get("WATCH_ALL")["subscription_id"]
        rcp.server.renew_tokens(tokens_of([hash_of("other")]))
        ended = client.message()
        assert (ended["type"], ended["subscription_id"]) == ("end", id)
        assert client.message() is None
        assert other.get("INFO") and nobody.get("PING")


def test_connections_over_the_limit_are_told_so(db):
    with serving(db, limits=Limits(connections=2)) as rcp, rcp.client() as client:
        client.get("PING")
        with rcp.client() as second:
            second.get("PING")
            with rcp.client() as third:
                found = third.message()
                assert (found["id"], found["error"]["code"]) == ("", "RATE_LIMITED")
                assert found["error"]["retryable"] and third.message() is None
        assert "rstmdb_connections_rejected 1\n" in rcp.listener.metrics()
        assert client.get("PING")


def test_who_is_silent_is_sent_away_unless_it_watches(db):
    with serving(db, limits=Limits(idle_s=0.2)) as rcp, rcp.client() as client, rcp.client() as watching:
        watching.get("WATCH_ALL")
        assert client.message() is None
        assert watching.get("PING")


def test_a_client_that_stops_in_the_middle_of_a_message_is_sent_away(db):
    with serving(db, limits=Limits(stalled_s=0.05)) as rcp, rcp.client() as client:
        client.raw(frame(b'{"type":"request","id":"1","op":"PING"}')[:-1])
        assert client.message() is None


def test_the_end_of_a_server_answers_what_was_asked_and_tells_who_watches(db):
    with serving(db) as rcp, rcp.client() as client, rcp.client() as watching:
        id = watching.get("WATCH_ALL")["subscription_id"]
        begun, may_end, real = threading.Event(), threading.Event(), db.machines.definitions

        class Slow:
            def definitions(self):
                begun.set()
                assert may_end.wait(20)
                return real()

        next(one for one in rcp.server.connections if not one._subscriptions)._session.machines = Slow()
        client.send("LIST_MACHINES")
        assert begun.wait(20)
        ending = threading.Thread(target=rcp.server.close)
        ending.start()
        found = watching.message()
        assert (found["type"], found["subscription_id"]) == ("end", id)
        may_end.set()
        assert client.message()["result"]["items"]
        assert watching.message() is None and client.message() is None
        ending.join()


def test_handshakes_that_fail_hold_no_place(db):
    files = certificates()
    tls = ServerTls(files / "server.pem", files / "server.key")
    with serving(db, tls=tls) as rcp:
        for _ in range(3):
            with rcp.client() as client:  # without TLS
                client.raw(frame(b"{}"))
                assert client.message() is None
        assert rcp.listener.active == 0


def test_the_log_says_who_came_and_what_was_asked_and_nothing_of_what_was_in_it(db):
    to = io.StringIO()
    log = Log(requests=True, to=to)
    secret = "s3cret"
    tokens = tokens_of([hash_of(secret)])
    with (
        serving(db, log=log, limits=Limits(connections=1), tokens=tokens) as rcp,
        rcp.client() as client,
        rcp.client() as other,
    ):
        client.code("AUTH", token=secret + "x")
        client.get("AUTH", token=secret)
        assert other.message()["error"]["code"] == "RATE_LIMITED" and other.message() is None
        client.get("CREATE_INSTANCE", machine="order", version=1, initial_ctx={"a": secret})
        client.get("LIST_MACHINES")
        client.code("NO_SUCH")
        _failing(rcp, client, ZeroDivisionError(secret))
        client.get("BYE")
        assert client.message() is None
    log.close()
    lines = [json.loads(line) for line in to.getvalue().splitlines()]
    assert secret not in to.getvalue()
    mine = [line for line in lines if line["connection"] == lines[0]["connection"]]
    asked = [(line["name"], line["code"]) for line in mine if line["event"] == "request"]
    assert asked == [
        ("AUTH", "auth_failed"), ("AUTH", "ok"), ("CREATE_INSTANCE", "ok"), ("LIST_MACHINES", "ok"),
        ("unknown", "bad_request"), ("GET_INSTANCE", "internal_error"), ("BYE", "ok"),
    ]  # fmt: skip
    assert (mine[0]["event"], mine[0]["over"]) == ("opened", "rcp")
    assert (mine[-1]["event"], mine[-1]["reason"]) == ("closed", "it said BYE")
    assert "ZeroDivisionError at" in next(line["error"] for line in mine if "error" in line)
    (refused,) = (line for line in lines if line["event"] == "refused")
    assert refused["code"] == "limit_exceeded"


def test_who_asks_for_much_leaves_others_their_turns(db):
    """A thousand requests in one write were all done before anybody else was heard."""
    now, done, may_go_on = itertools.count(), [], threading.Event()
    with serving(db) as rcp, rcp.client() as client, rcp.client() as other:
        client.get("PING")
        other.get("PING")
        rcp.server.clock = lambda: next(now) / 1000  # each look at the clock takes a millisecond
        rcp.listener.stats.note = lambda name, took_s: done.append(name)
        rcp.server.soon(may_go_on.wait, 20)
        ping = [{"type": "request", "id": str(n), "op": "PING"} for n in range(1000)]
        client.raw(b"".join(client.packed(one) for one in ping))
        other.send("INFO")
        may_go_on.set()
        assert [client.message()["id"] for _ in ping] == [one["id"] for one in ping]
        assert other.message()["status"] == "ok"
        assert done.index("INFO") < 10


# -- metrics


def test_metrics_are_under_the_names_of_rstmdb(rcp, client):
    client.get("CREATE_INSTANCE", machine="order", version=1, instance_id="o")
    client.code("APPLY_EVENT", instance_id="o", event="NO")
    client.get("WATCH_ALL")
    found = {}
    for line in rcp.listener.metrics().splitlines():
        if not line.startswith("#"):
            name, _, number = line.rpartition(" ")
            assert name not in found
            found[name] = float(number)
    assert found["rstmdb_connections_total"] == found["rstmdb_connections_active"] == 1
    assert found['rstmdb_requests_total{operation="CREATE_INSTANCE"}'] == 1
    assert found['rstmdb_errors_total{code="INVALID_TRANSITION"}'] == 1
    assert found['rstmdb_request_duration_seconds_count{operation="APPLY_EVENT"}'] == 1
    assert found['rstmdb_request_duration_seconds_bucket{operation="APPLY_EVENT",le="+Inf"}'] == 1
    assert found['rstmdb_subscriptions_active{type="all"}'] == 1
    assert (found["rstmdb_instances_total"], found["rstmdb_machines_total"]) == (1, 2)
    names = {name.partition("{")[0] for name in found}
    assert names >= {
        *(
            "rstmdb_wal_entries",
            "rstmdb_wal_segments",
            "rstmdb_wal_size_bytes",
            "rstmdb_events_forwarded_total",
        ),
        *(
            f"rstmdb_wal_{what}_total"
            for what in ("bytes_written", "bytes_read", "writes", "reads", "fsyncs")
        ),
        *("process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes"),
        *("process_open_fds", "process_max_fds", "rstmdb_connections_limit"),
        *(f"rstmdb_replication_{what}" for what in ("connected_replicas", "lag_entries", "lag_seconds")),
    }


def test_settings_that_are_none():
    for count in (-1, 1.5, True, "1"):
        with pytest.raises(StrataError):
            Settings(max_machine_versions=count)
    assert ALL.recreate and struct.calcsize(">4sHHHII") == HEADER.size
