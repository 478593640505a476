"""Small requests that ask for much memory: announced lengths, depth, doubled keys, packed nothings.

Of each kind of frame, before a client has said who it is and after (reliability.md, row N2). What a server
takes is looked at with tracemalloc, which sees what decoding makes.
"""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import pytest
from wire_clients import GREETING, SETUP, Client, call, hello, serving, still_serves, until

import strata
from strata.core.brief import brief
from strata.core.protocols import Layout
from strata.server.access import hash_of, tokens_of
from strata.wire.frames import AFTER_LENGTH, GREETING_BYTES_MAX, HEADER, PACKED, Kind, encode_body, frame

MUCH = 2**32 - 1
FRAME_BYTES = 1 << 20
TOKEN = "strata_reads"
KV = Layout("kv")

ANNOUNCED = {
    "array": b"\xdd" + struct.pack(">I", MUCH),
    "map": b"\xdf" + struct.pack(">I", MUCH),
    "text": b"\xdb" + struct.pack(">I", MUCH),
    "bytes": b"\xc6" + struct.pack(">I", MUCH),
    "extension": b"\xc9" + struct.pack(">I", MUCH) + b"\1",
    "array in an array": b"\x93\x01\xa3get\xdd" + struct.pack(">I", MUCH) + b"\x01" * 100,
    "map in a map": b"\x81\xa5magic\xdf" + struct.pack(">I", MUCH) + b"\xa1a\x01" * 100,
    "and all that follows": b"\xdd" + struct.pack(">I", MUCH) + b"\xc0" * 60_000,
}
DEEP = {
    "arrays": b"\x91" * 60_000 + b"\xc0",
    "maps": b"\x81\xa1k" * 20_000 + b"\xc0",
    "arrays with no end": b"\xdc\xff\xff" * 20_000,
}
DOUBLED = {
    "keys": b"\xde\x27\x10" + b"\xa5magic\xa6strata" * 0x2710,
    "none": b"\xde\x27\x10" + b"\xc0\xc0" * 0x2710,
}
BODIES = {
    **{f"announces: {name}": body for name, body in ANNOUNCED.items()},
    **{f"deep: {name}": body for name, body in DEEP.items()},
    **{f"doubled: {name}": body for name, body in DOUBLED.items()},
}
PACKED_BODIES = {
    "zeros": zlib.compress(bytes(200 << 20), 9),
    "zeros in the limit": zlib.compress(bytes(FRAME_BYTES - 99), 9),
    "empty arrays": zlib.compress(b"\xdd" + struct.pack(">I", 30_000) + b"\x90" * 30_000, 9),
    "depth": zlib.compress(b"\x91" * 10**6, 9),
    "packed again": zlib.compress(zlib.compress(bytes(200 << 20), 9), 9),
    "no end": zlib.compress(bytes(200 << 20), 9)[:-5],
    "and more behind it": zlib.compress(b"\xc0") + bytes(50_000),
}


@pytest.fixture(scope="module")
def server():
    with serving(frame_bytes=FRAME_BYTES) as one:
        one._store.free.set()
        yield one


def most_bytes(server, sends: bytes, *, is_greeted: bool) -> int:
    """How much memory there was at most while a server looked at what a client sends."""
    client = Client(server) if is_greeted else Client(server, hello=b"")
    tracemalloc.start()
    try:
        client.send(sends + (call(99, 1, "head") if is_greeted else b""))
        if is_greeted:
            try:
                while client.next()[1] != 99:
                    pass
            except EOFError:
                pass
        else:
            assert all(kind == Kind.ERROR for kind, _, _ in client.rest())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        client.close()
        assert not server.errors["internal_error"]


@pytest.mark.parametrize("what", BODIES)
def test_before_the_greeting_every_kind_of_frame_costs_little(server, what):
    for kind in Kind:
        body = BODIES[what][: GREETING_BYTES_MAX - AFTER_LENGTH]
        assert most_bytes(server, frame(kind, 0, body), is_greeted=False) < 32 * GREETING_BYTES_MAX, kind.name


@pytest.mark.parametrize("what", BODIES)
def test_after_the_greeting_every_kind_of_frame_costs_what_it_is_long(server, what):
    for kind in Kind:
        assert most_bytes(server, frame(kind, 7, BODIES[what]), is_greeted=True) < 4 * FRAME_BYTES, kind.name


@pytest.mark.parametrize("what", PACKED_BODIES)
def test_packed_frames_unpack_to_the_limit_and_no_further(server, what):
    packed = PACKED_BODIES[what]
    for kind in Kind:
        head = HEADER.pack(len(packed) + AFTER_LENGTH, kind | PACKED, 7)
        if len(packed) + AFTER_LENGTH <= GREETING_BYTES_MAX:
            assert most_bytes(server, head + packed, is_greeted=False) < 32 * GREETING_BYTES_MAX, kind.name
        assert most_bytes(server, head + packed, is_greeted=True) < 80 * FRAME_BYTES, kind.name
    until(lambda: not server.connections)
    still_serves(server)


@pytest.mark.parametrize("length", [MUCH, 2**31, FRAME_BYTES + 1])
@pytest.mark.parametrize("kind", Kind)
def test_no_memory_is_taken_for_a_length_that_is_announced(server, kind, length):
    for is_greeted in (False, True):
        sends = HEADER.pack(length, kind, 7) + b"x" * 1000
        assert most_bytes(server, sends, is_greeted=is_greeted) < 1 << 20


def test_a_frame_that_is_announced_and_does_not_come_keeps_what_came(server):
    client = Client(server)
    tracemalloc.start()
    try:
        client.send(HEADER.pack(FRAME_BYTES, Kind.CALL, 7) + b"x" * 1000)
        still_serves(server)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
        client.close()


def test_who_may_only_read_sends_less():
    with serving(tokens=tokens_of([f"{hash_of(TOKEN)} read"])) as one:
        _, port = one.listen_tcp("127.0.0.1", 0)
        client = Client(one, hello=b"", port=port)
        client.send(hello(token=TOKEN, packs=True) + SETUP)
        assert client.next()[2]["frame_bytes_max"] == 1 << 20
        packed = zlib.compress(b"\xdd" + struct.pack(">I", 2 << 20) + b"\x90" * (2 << 20))
        client.send(HEADER.pack(len(packed) + AFTER_LENGTH, Kind.CALL | PACKED, 7) + packed)
        assert [body["code"] for _, _, body in client.rest()] == ["limit_exceeded"]


def test_a_reader_gets_answers_that_are_longer_than_what_it_may_send():
    with serving(tokens=tokens_of([f"{hash_of(TOKEN)} read"])) as one:
        value = "x" * (3 << 20)
        one._store.branch("main").keyspace("default", KV).put("k", value)
        host, port = one.listen_tcp("127.0.0.1", 0)
        with strata.connect(f"strata://{host}:{port}", token=TOKEN) as db:
            assert db.kv.get("k") == value
            assert len(db.kv.get_many([f"{'k' * 500}{number}" for number in range(5000)])) == 5000


def test_greetings_with_a_million_fields_or_none(server):
    many = {f"f{number}": number for number in range(3000)}
    client = Client(server, hello=b"")
    client.send(hello(**many))
    assert client.next()[0] == Kind.WELCOME
    client.close()
    assert most_bytes(server, GREETING * 2, is_greeted=True) < 1 << 20
    assert most_bytes(server, frame(Kind.HELLO, 0, encode_body({})), is_greeted=False) < 1 << 20


@pytest.mark.parametrize(
    "value", [b"x" * 10**6, "x" * 10**6, [[]] * 10**5, {n: [n] * 99 for n in range(999)}]
)
def test_an_error_quotes_little_of_what_it_refuses_and_makes_no_more(value):
    tracemalloc.start()
    try:
        shown = [brief(value), brief([value, value]), brief({"a": {"b": value}})]
        assert all(len(found) <= 100 for found in shown)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


def test_what_is_short_is_quoted_whole():
    for value in (5, None, "text", b"bytes", [1, 2], {"a": 1}, [[1], {"b": b"c"}]):
        assert brief(value) == repr(value)
