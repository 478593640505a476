"""A server, and clients of no good will: each gets a typed error or a closed connection, and nobody else
feels it. `serving` looks after each whether a good client is still served and no connection is left."""

from __future__ import annotations

import os
import random
import socket
import time
import tracemalloc
import zlib
from typing import Any

import fuzz_wire
import pytest
from wire_clients import (
    BEGIN,
    GREETING,
    HELLO,
    SETUP,
    Client,
    call,
    hello,
    opens,
    serving,
    still_serves,
    until,
)

import strata
from strata.core.errors import InvalidInput, LimitExceeded, StorageError
from strata.server.access import hash_of, tokens_of
from strata.server.limits import Limits
from strata.server.server import Server
from strata.wire.frames import GREETING_BYTES_MAX, HEADER, PACKED, Kind, encode_body, frame

TOKEN = "strata_a-good-token"
TALK = GREETING + SETUP + call(1, 2, "put", "a", 1, None) + call(2, 2, "get", "a")


def codes(found: list[tuple[int, int, Any]]) -> list[str]:
    return [body["code"] for kind, _, body in found if kind == Kind.ERROR]


# -- frames that are none


def test_a_good_talk():
    with serving() as server:
        client = Client(server)
        assert client.welcome["protocol"] == 1 and client.welcome["access"] == "admin"
        assert client.ask(1, 2, "put", "a", {"n": 1}, None) == 1
        assert client.ask(2, 2, "get", "a") == {"n": 1}
        client.send(frame(Kind.RELEASE, 0, encode_body([2])))
        assert client.ask(3, 2, "get", "a") == "closed"
        client.close()


def test_a_talk_that_is_cut_at_every_byte():
    with serving() as server:
        for size in range(len(TALK)):
            client = Client(server, hello=b"")
            client.send(TALK[:size])
            client.close()
        until(lambda: not server.connections)
        assert server.counts["connections"] == len(TALK)


def test_a_byte_at_a_time():
    with serving() as server:
        client = Client(server, hello=b"")
        for at in range(len(TALK)):
            client.send(TALK[at : at + 1])
        assert [client.next()[0] for _ in range(3)] == [Kind.WELCOME, Kind.RESULT, Kind.RESULT]
        client.close()


def test_all_at_once_also_when_a_call_is_longer_than_a_greeting_may_be():
    with serving() as server:
        client = Client(server, hello=b"")
        large = "x" * (2 * GREETING_BYTES_MAX)
        client.send(GREETING + SETUP + call(1, 2, "put", "a", large, None) + call(2, 2, "get", "a"))
        assert [client.next()[1:] for _ in range(3)][1:] == [(1, 1), (2, large)]
        client.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "limit_exceeded"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "limit_exceeded"),
        (bytes(64), "invalid_input"),
        (b"\xff" * 64, "limit_exceeded"),
        (HEADER.pack(GREETING_BYTES_MAX + 1, Kind.HELLO, 0), "limit_exceeded"),
        (frame(Kind.HELLO | PACKED, 0, b"no zlib"), "invalid_input"),
        (frame(Kind.HELLO | PACKED, 0, zlib.compress(bytes(50 << 20))), "limit_exceeded"),
        (frame(Kind.HELLO, 0, b"\xc1"), "invalid_input"),
        (frame(Kind.HELLO, 0, b"\x91" * 9999), "invalid_input"),
        (frame(Kind.HELLO, 0, b"\xdd\xff\xff\xff\xff"), "invalid_input"),
        (call(1, 0, "info"), "invalid_input"),
        (opens(1, 0, "branch", "main"), "invalid_input"),
        (frame(Kind.WELCOME, 0, encode_body(HELLO)), "invalid_input"),
        (frame(Kind.BYE, 0, encode_body(HELLO)), "invalid_input"),
        (frame(99, 0, encode_body(HELLO)), "invalid_input"),
        (frame(Kind.HELLO, 0, encode_body([HELLO])), "invalid_input"),
        (frame(Kind.HELLO, 0, encode_body({})), "invalid_input"),
        (hello(magic="redis"), "invalid_input"),
        (hello(protocols=[2, 3]), "invalid_input"),
        (hello(protocols=1), "invalid_input"),
        (hello(protocols="1"), "invalid_input"),
        (hello(protocols=None), "invalid_input"),
    ],
)
def test_who_does_not_say_who_speaks_is_told_so_and_sent_away(data, code):
    with serving() as server:
        client = Client(server, hello=b"")
        client.send(data + TALK)
        found = client.rest()
        assert codes(found) == [code]
        assert [(kind, id) for kind, id, _ in found] == [(Kind.ERROR, 0)]


def test_fields_of_a_newer_client_are_no_error():
    with serving() as server:
        client = Client(server, hello=b"")
        client.send(hello(protocols=[1, 2], features=["x"], packs=True))
        assert client.next()[2]["packs"] is True
        client.close()


@pytest.mark.parametrize(
    "data",
    [
        HEADER.pack(2**32 - 1, Kind.CALL, 1),
        HEADER.pack(3, Kind.CALL, 1),
        frame(Kind.CALL | PACKED, 1, b"no zlib"),
        frame(Kind.CALL | PACKED, 1, zlib.compress(bytes(2 << 20))),
    ],
)
def test_a_stream_that_is_none_ends_after_the_answers_to_what_came_before(data):
    with serving(frame_bytes=1 << 20) as server:
        client = Client(server)
        client.send(call(7, 1, "head") + data + call(8, 1, "head"))
        found = client.rest()
        assert found[0] == (Kind.RESULT, 7, 0)
        assert codes(found) in (["limit_exceeded"], ["invalid_input"])
        assert len(found) == 2 and found[1][1] == 0


@pytest.mark.parametrize(
    "data",
    [
        GREETING,
        frame(99, 7, encode_body(None)),
        frame(Kind.RESULT, 7, encode_body(1)),
        frame(Kind.WELCOME, 7, encode_body({})),
        frame(Kind.CALL, 7, b"\xc1"),
        frame(Kind.CALL, 7, b""),
        frame(Kind.CALL, 7, b"\xa1\xff"),
        frame(Kind.CALL, 7, b"\xdf\xff\xff\xff\xff"),
        frame(Kind.CALL, 7, encode_body(5)),
        frame(Kind.CALL, 7, encode_body("abc")),
        frame(Kind.CALL, 7, encode_body({"a": 1, "b": 2, "c": 3})),
        frame(Kind.CALL, 7, encode_body([1, "head"])),
        frame(Kind.CALL, 7, encode_body([1, "head", [], {}, 5])),
        frame(Kind.CALL, 7, encode_body([1, "head", {}])),
        frame(Kind.CALL, 7, encode_body([1, "head", [], []])),
        frame(Kind.CALL, 7, encode_body([1, "head", [], {"twice": 1}])),
        frame(Kind.CALL, 7, encode_body([2, "put", ["a", 1, None], {"once": 5}])),
        frame(Kind.CALL, 7, encode_body([2, "put", ["a", 1, None], {"once": ""}])),
        frame(Kind.CALL, 7, encode_body([2, "put", ["a", 1, None], {"once": "k" * 1025}])),
        frame(Kind.CALL, 7, encode_body([1, "head", [], {"once": "k"}])),
        frame(Kind.CALL, 7, encode_body([[1], "head", []])),
        frame(Kind.CALL, 7, encode_body([1, ["head"], []])),
        frame(Kind.CALL, 7, encode_body([{}, {}, []])),
        call(7, 99, "head"),
        call(7, 1, "burn"),
        call(7, 1, "__class__"),
        call(7, 1, "head", 5),
        call(7, 0, "branch", "main"),
        frame(Kind.OPEN, 7, encode_body(5)),
        frame(Kind.OPEN, 7, encode_body([0, 0, "branch", ["main"]])),
        frame(Kind.OPEN, 7, encode_body([1, 0, "branch", ["main"]])),
        frame(Kind.RELEASE, 7, encode_body(5)),
    ],
)
def test_what_cannot_be_asked_is_a_typed_error_and_the_talk_goes_on(data):
    with serving() as server:
        client = Client(server)
        client.send(data + call(8, 1, "head"))
        found = [client.next(), client.next()]
        assert found[1] == (Kind.RESULT, 8, 0)
        kind, id, body = found[0]
        assert (kind, id) == (Kind.ERROR, HEADER.unpack_from(data)[2])
        assert body["code"] in ("invalid_input", "closed", "type_error", "limit_exceeded")
        client.close()


def test_handles_that_went_wrong_say_so_when_they_are_used():
    with serving() as server:
        client = Client(server)
        client.send(opens(5, 0, "branch", "mian") + opens(6, 5, "keyspace", "default", "kv", True, False))
        assert client.ask(1, 6, "get", "a") == "not_found"
        assert client.ask(2, 5, "head") == "not_found"
        client.send(frame(Kind.RELEASE, 0, encode_body([5, 6, 99])) + opens(5, 0, "branch", "main"))
        assert client.ask(3, 5, "head") == 0
        client.close()


@pytest.mark.parametrize("id", [0, 7])
def test_an_id_that_is_taken_or_none_ends_the_talk(id):
    with serving() as server:
        client = Client(server)
        client.send(call(7, 0, "flush") + call(id, 1, "head"))
        found = client.rest()
        assert codes(found) == ["invalid_input"]
        assert found[0][1] == 0
        server._store.free.set()


def test_an_id_may_be_used_again_once_it_is_answered():
    with serving() as server:
        server._store.free.set()
        client = Client(server)
        assert [client.ask(7, 0, "flush") for _ in range(3)] == [0, 0, 0]
        client.close()


def bytes_of_no_good_will(server: Server, seconds: float, seed: int) -> int:
    """How many clients came, each with a talk that has a few things wrong, of which some read and some do
    not."""
    chance, count, until_s = random.Random(seed), 0, time.monotonic() + seconds
    pool = [found[1:] for found in fuzz_wire.seeds() if found[0] == 0]
    server._store.free.set()
    while count < 20 or time.monotonic() < until_s:
        talk = b"".join(chance.choice(pool)[1:] for _ in range(chance.randint(1, 5)))
        start = chance.choice((GREETING + SETUP + BEGIN, GREETING + SETUP + BEGIN, GREETING, b""))
        client = Client(server, hello=b"")
        client.send(
            start + fuzz_wire.mutate(talk, chance, pool) if start else fuzz_wire.mutate(TALK, chance, pool)
        )
        if chance.random() < 0.3:
            client.socket.shutdown(socket.SHUT_WR)
            client.rest()
        client.close()
        count += 1
        assert not server.errors["internal_error"], f"seed {seed}, client {count}"
    return count


def test_a_moment_of_bytes_of_no_good_will():
    with serving() as server:
        bytes_of_no_good_will(server, 0.05, seed=1)


@pytest.mark.slow
def test_bytes_of_no_good_will(capsys):
    """STRATA_FUZZ_S: for how many seconds."""
    with serving() as server:
        count = bytes_of_no_good_will(server, float(os.environ.get("STRATA_FUZZ_S", "20")), seed=os.getpid())
        assert sum(server.errors.values()) > count / 10
    with capsys.disabled():
        print(f"{count} clients")


# -- what a client may make us keep


def test_packed_frames_cost_one_of_them_at_a_time():
    zeros = frame(
        Kind.CALL | PACKED, 7, zlib.compress(encode_body([1, "head", [bytes(GREETING_BYTES_MAX - 99)]]))
    )
    with serving() as server:
        client = Client(server)
        tracemalloc.start()
        try:
            client.send(zeros * 500)  # 60 KB, which make 32 MB
            assert {client.next()[2]["code"] for _ in range(500)} == {"type_error"}
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < 4 << 20
        client.close()


def test_who_never_reads_makes_us_keep_little_and_nobody_else_wait():
    with serving() as server:
        client = Client(server)
        size, count = 200_000, 200
        assert client.ask(1, 2, "put", "a", "x" * size, None) == 1
        (connection,) = server.connections
        client.send(b"".join(call(id, 2, "get", "a") for id in range(2, 2 + count)))
        until(lambda: connection.is_choked)
        still_serves(server)
        assert connection._transport.get_write_buffer_size() < (2 << 20) + 2 * size
        # It changes its mind.
        assert [client.next()[1] for _ in range(count)] == list(range(2, 2 + count))
        client.close()


def test_who_never_reads_is_cut_off_and_its_transaction_with_it():
    with serving(stalled_s=0.03) as server:
        client = Client(server, hello=GREETING + SETUP + BEGIN)
        assert client.ask(1, 2, "put", "a", "x" * 200_000, None) == 1
        assert client.ask(2, 4, "put", "b", 1, None) is None
        client.send(b"".join(call(id, 2, "get", "a") for id in range(3, 103)))
        until(lambda: not server.connections)
        assert server._store.branch("main").head == 1


@pytest.mark.parametrize(
    "half", [call(1, 1, "head")[:-1], b"\0", HEADER.pack(1 << 20, Kind.CALL, 1) + b"x" * 999]
)
def test_who_does_not_send_the_rest_of_a_frame_is_cut_off(half):
    with serving(stalled_s=0.03) as server:
        client = Client(server)
        client.send(half)
        assert client.rest() == []


def test_who_is_slow_but_gets_on_is_not_cut_off():
    with serving(stalled_s=0.05) as server:
        client = Client(server)
        until(lambda: server.connections)
        for _ in range(8):
            assert client.ask(1, 1, "head") == 0
            time.sleep(0.01)
        client.close()


def test_so_many_connections_and_no_more():
    with serving(connections=2) as server:
        first, second = Client(server), Client(server)
        third = Client(server, hello=b"")
        assert codes(third.rest()) == ["limit_exceeded"]
        assert first.ask(1, 1, "head") == second.ask(1, 1, "head") == 0
        first.close()
        until(lambda: len(server.connections) == 1)
        fourth = Client(server)
        assert fourth.ask(1, 1, "head") == 0
        second.close(), fourth.close()


def test_so_many_calls_in_flight_and_no_more():
    with serving(in_flight=2) as server:
        gate = server._store
        client = Client(server)
        client.send(b"".join(call(id, 0, "flush") for id in range(1, 6)) + call(6, 1, "head"))
        until(lambda: gate.begun == 2)
        still_serves(server)
        assert gate.begun == 2
        gate.free.set()
        assert sorted(client.next()[1] for _ in range(6)) == [1, 2, 3, 4, 5, 6]
        client.close()


# -- time


def test_who_does_not_say_who_it_is_in_time_is_sent_away():
    with serving(greeting_s=0.02) as server:
        silent, slow = Client(server, hello=b""), Client(server, hello=b"")
        slow.send(GREETING[:-1])
        assert silent.rest() == slow.rest() == []


def test_who_is_idle_for_too_long_is_sent_away():
    with serving(idle_s=0.02) as server:
        client = Client(server)
        assert [kind for kind, _, _ in client.rest()] == [Kind.BYE]


def test_a_transaction_that_is_left_alone_is_rolled_back_and_the_talk_goes_on():
    with serving(transaction_idle_s=0.02) as server:
        client, other = Client(server, hello=GREETING + SETUP + BEGIN), Client(server)
        assert client.ask(1, 4, "get", "a") is not None  # absent
        assert client.ask(2, 4, "put", "a", 1, None) is None
        (one,) = [found for found in server.connections if found._session.has_transactions]
        until(lambda: not one._session.has_transactions)
        assert other.ask(3, 2, "put", "a", 2, None) == 1
        assert client.ask(4, 4, "put", "b", 1, None) == "transaction_lost"
        assert client.ask(5, 3, "commit", None, None, None) == "transaction_lost"
        assert client.ask(6, 2, "get", "a") == 2
        client.close(), other.close()


def test_bytes_of_a_frame_that_never_ends_keep_no_transaction_alive():
    with serving(transaction_idle_s=0.02) as server:
        client = Client(server, hello=GREETING + SETUP + BEGIN)
        client.ask(1, 4, "put", "a", 1, None)
        (one,) = server.connections
        piece = iter(call(2, 1, "head", "x" * 10_000))

        def drips() -> bool:
            client.send(bytes([next(piece)]))
            return not one._session.has_transactions

        until(drips)
        client.close()


# -- clients that vanish


@pytest.mark.parametrize("how", ["closes", "breaks off", "is refused"])
def test_what_a_client_leaves_open_is_rolled_back_and_others_go_on(how):
    with serving() as server:
        client, other = (
            Client(server, hello=GREETING + SETUP + BEGIN),
            Client(server, hello=GREETING + SETUP + BEGIN),
        )
        client.ask(1, 4, "get", "a")
        assert client.ask(2, 4, "put", "a", 1, None) is None
        other.ask(1, 4, "get", "a")
        assert other.ask(2, 4, "put", "a", 2, None) is None
        client.send(
            {"closes": b"", "breaks off": call(3, 3, "commit", None)[:-2], "is refused": bytes(9)}[how]
        )
        client.close()
        until(lambda: len(server.connections) == 1)
        assert other.ask(3, 3, "commit", None, None, None) == 1
        assert other.ask(4, 2, "get", "a") == 2
        other.close()


def test_who_vanishes_while_a_thread_works_is_let_go_when_that_ends():
    with serving() as server:
        client = Client(server, hello=GREETING + SETUP + BEGIN)
        client.ask(1, 4, "put", "a", 1, None)
        client.send(call(2, 0, "flush") + call(3, 0, "verify", progress=True))
        until(lambda: server._store.begun == 2)
        (one,) = server.connections
        client.close()
        until(lambda: not server.connections)
        server._store.free.set()
        until(lambda: not one._session.has_transactions)


def test_a_call_that_is_cancelled_ends():
    with serving(threads=1) as server:
        client = Client(server)
        client.send(call(1, 0, "verify", progress=True) + call(2, 0, "flush"))
        assert client.next() == (Kind.PROGRESS, 1, [0, 10**9])
        client.send(frame(Kind.CANCEL, 2, encode_body(None)) + frame(Kind.CANCEL, 99, encode_body(None)))
        client.send(frame(Kind.CANCEL, 1, encode_body(None)))
        found = []
        while len(found) < 2:
            said = client.next()
            found += [said] if said[0] != Kind.PROGRESS else []
        assert codes(found) == ["closed", "closed"]
        assert sorted(id for _, id, _ in found) == [1, 2]
        assert server._store.begun == 1  # the second one was not begun
        assert not server.errors["internal_error"]
        client.close()


def test_where_commits_wait_for_the_disk_what_is_inside_a_transaction_does_not():
    with serving() as server:
        client = Client(server, hello=b"")
        client.send(hello(strict=True) + SETUP + BEGIN)
        client.next()
        # All at once: the writes must be there before the commit, which a thread makes.
        count = 50
        client.send(b"".join(call(id, 4, "put", f"{id}", id, None) for id in range(1, count)))
        client.send(call(count, 3, "commit", None, None, None) + call(count + 1, 2, "get", "zz"))
        assert [client.next()[1] for _ in range(count)] == [*range(1, count), count + 1]
        until(lambda: server._store.begun == 1)
        server._store.free.set()
        assert client.next() == (Kind.RESULT, count, 1)
        assert client.ask(99, 2, "count", None, None, None) == count - 1
        client.close()


def test_a_commit_and_what_comes_with_it_in_another_thread():
    """Sent together, a commit that waits for the disk is overtaken by the rest: each is answered, and the
    commit is whole or nothing."""
    with serving() as server:
        server._store.free.set()
        client = Client(server, hello=b"")
        client.send(hello(strict=True) + SETUP)
        client.next()
        commit = call(3, 3, "commit", None, None, None)
        for number in range(60):
            rest = [
                call(4, 4, "put", "late", number, None),
                call(5, 3, "rollback"),
                frame(Kind.RELEASE, 0, encode_body([3])),
                call(6, 4, "get", "a"),
            ][number % 4 :]
            asked = 4 + sum(frame[4] == Kind.CALL for frame in rest)
            client.send(BEGIN + call(1, 4, "put", "a", number, None) + call(2, 4, "put", "b", number, None))
            client.send(commit + b"".join(rest))
            client.send(call(7, 2, "get_many", ["a", "b"]))
            answers = [client.next() for _ in range(asked)]
            assert len({id for _, id, _ in answers}) == asked
            a, b = client.ask(8, 2, "get_many", ["a", "b"])
            assert a == b
            client.send(frame(Kind.RELEASE, 0, encode_body([3, 4])))
        assert not server.errors["internal_error"]
        client.close()


@pytest.mark.parametrize("is_closed", [False, True])
def test_who_connects_again_sees_all_that_will_ever_come_of_what_it_asked(is_closed):
    """A commit waited for the disk when its connection broke. If `result_of` could still say that there is
    none, the client would make it again, and then it would be there twice."""
    with serving() as server:
        first = Client(server, hello=b"")
        first.send(hello(link="me", strict=True) + SETUP + BEGIN)
        first.next()
        first.ask(1, 4, "put", "a", 1, None)
        first.send(call(2, 3, "commit", None, None, None, once="k"))
        until(lambda: server._store.begun == 1)
        (old,) = server.connections
        if is_closed:
            first.close()
            until(lambda: not server.connections)
        again, last = Client(server, hello=b""), Client(server, hello=b"")
        again.send(hello(link="me") + SETUP + call(1, 1, "result_of", "k"))
        until(lambda: old not in server.connections)
        last.send(hello(link="me") + SETUP + call(1, 1, "result_of", "k"))
        assert last.next()[0] == again.next()[0] == Kind.WELCOME
        assert again.rest() == []
        still_serves(server)
        assert old._working  # nobody has been answered yet
        server._store.free.set()
        assert last.next() == (Kind.RESULT, 1, 1)
        if not is_closed:
            assert first.rest() == []
        last.close()
        until(lambda: not server._links)


def test_what_a_client_had_asked_on_the_connection_before_is_not_done_any_more():
    with serving(in_flight=1) as server:
        first = Client(server, hello=b"")
        first.send(hello(link="me") + SETUP + call(1, 0, "flush") + call(2, 2, "put", "a", 1, None))
        until(lambda: server._store.begun == 1)
        second = Client(server, hello=b"")
        second.send(hello(link="me") + SETUP + call(1, 1, "head"))
        second.next()
        server._store.free.set()
        assert second.next() == (Kind.RESULT, 1, 0)
        assert server._store.branch("main").head == 0
        second.close()


# -- who may what


@pytest.mark.parametrize(
    "token", [None, "", "x", TOKEN[:-1], TOKEN + "x", "strata_another", 5, [TOKEN], {"a": 1}]
)
def test_a_token_that_is_wrong_is_refused_and_never_said_again(token):
    with serving(tokens=tokens_of([f"{hash_of(TOKEN)} write me"])) as server:
        _, port = server.listen_tcp("127.0.0.1", 0)
        client = Client(server, hello=b"", port=port)
        client.send(hello(**({} if token is None else {"token": token})) + TALK)
        assert codes(client.rest()) == ["access_denied"]
        said = b"".join(client.said)
        assert TOKEN.encode() not in said
        if isinstance(token, str) and len(token) > 1:
            assert token.encode() not in said


@pytest.mark.parametrize("access", ["read", "write", "admin"])
def test_a_token_gives_what_its_line_says(access):
    with serving(tokens=tokens_of([f"{hash_of(TOKEN)} {access}"])) as server:
        _, port = server.listen_tcp("127.0.0.1", 0)
        client = Client(server, hello=b"", port=port)
        client.send(hello(token=TOKEN) + SETUP)
        assert client.next()[2]["access"] == access
        assert client.ask(1, 2, "get", "a") is not None
        assert client.ask(2, 2, "put", "a", 1, None) == (1 if access != "read" else "access_denied")
        assert (client.ask(3, 0, "create", "b") == "access_denied") == (access != "admin")
        assert client.ask(4, 0, "backup", "/nowhere") == "access_denied"  # that is for who is near
        client.close()


@pytest.mark.parametrize("who", ["server", "client"])
def test_read_only(who):
    with serving(read_only=who == "server") as server:
        client = Client(server, hello=b"")
        client.send(hello(read_only=who == "client") + SETUP + BEGIN)
        assert client.next()[2]["access"] == "read"
        assert client.ask(1, 2, "put", "a", 1, None) == "read_only"
        assert client.ask(2, 4, "put", "a", 1, None) == "read_only"
        assert client.ask(3, 0, "create", "b") == "read_only"
        assert client.ask(4, 2, "get", "a") is not None
        assert client.ask(5, 3, "commit", None, None, None, once="k") == 0
        client.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "127.example.com", "10.0.0.1", "127.0.0.1.nip.io"])
def test_without_tokens_nobody_listens_where_others_come(host):
    with serving() as server, pytest.raises(InvalidInput):
        server.listen_tcp(host, 0)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("localhost\0", 0)])
def test_an_address_that_cannot_be_had_is_invalid_input(host, port):
    with serving() as server, pytest.raises(InvalidInput):
        server.listen_tcp(host, port)


@pytest.mark.parametrize(
    "limit", [{"frame_bytes": 9}, {"connections": 0}, {"in_flight": True}, {"greeting_s": 0}, {"idle_s": -1}]
)
def test_limits_that_are_none_are_refused(limit):
    with pytest.raises(InvalidInput):
        Limits(**limit)


def test_an_answer_that_is_longer_than_a_frame_comes_to_a_client_whole():
    with serving(frame_bytes=1024) as server:
        _, port = server.listen_tcp("127.0.0.1", 0)
        with strata.remote.connect(f"strata://127.0.0.1:{port}") as db:
            for size in range(900, 960):
                db.kv.put(f"{size}", "x" * size)
                assert db.kv.get(f"{size}") == "x" * size
            assert len(list(db.kv.scan())) == 60
            with pytest.raises(strata.errors.RemoteError):
                db.kv.put("a", "x" * 1024)


# -- the end


def test_at_the_end_who_does_not_read_is_cut_off_and_who_waits_is_answered():
    with serving(drain_s=0.03) as server:
        reads, waits = Client(server), Client(server)
        assert reads.ask(1, 2, "put", "a", "x" * 200_000, None) == 1
        reads.send(b"".join(call(id, 2, "get", "a") for id in range(2, 102)))
        waits.send(call(1, 0, "flush"))
        until(lambda: server._store.begun == 1)
        server._store.free.set()
        server.close()
        found = waits.rest()
        assert {kind for kind, _, _ in found} == {Kind.BYE, Kind.RESULT}
        assert not server.connections


def test_a_server_that_ends_says_so_before_it_greets():
    with serving() as server:
        client = Client(server, hello=b"")
        until(lambda: server.connections)
        server.close()
        assert [kind for kind, _, _ in client.rest()] == [Kind.BYE]


@pytest.mark.parametrize("error", [StorageError("\udcff", path="\udcff"), LimitExceeded(actual=2**70)])
@pytest.mark.parametrize("method", ["outcome", "flush"])
def test_an_error_that_no_message_can_hold_is_answered_all_the_same(method, error):
    def fails(*_: Any) -> None:
        raise error

    with serving() as server:
        setattr(server._store, method, fails)
        client = Client(server)
        arguments = ["x"] if method == "outcome" else []
        assert client.ask(1, 0, method, *arguments) == error.code
        assert client.ask(2, 1, "head") == 0
        client.close()


def test_errors_are_counted_and_none_was_ours():
    with serving() as server:
        client = Client(server)
        client.ask(1, 99, "head")
        client.ask(2, 1, "burn")
        assert server.errors == {"closed": 1, "invalid_input": 1}
        assert isinstance(server, Server)
        client.close()
