"""The client's side of a connection, and servers of no good will: an error of the tree, in time, and no
thread that waits for ever."""

from __future__ import annotations

import socket
import threading

import pytest
from wire_clients import HELLO, PATIENCE_S

from strata.core.errors import AccessDenied, InvalidInput, NotFound, RemoteError
from strata.remote.channel import Lost, SocketChannel, greet
from strata.remote.link import Link
from strata.wire.errors import to_wire
from strata.wire.frames import FRAME_BYTES_MAX, HEADER, Kind, Reader, answer, encode_body, frame

WELCOME = frame(
    Kind.WELCOME, 0, encode_body({"protocol": 1, "access": "admin", "frame_bytes_max": 2048, "packs": False})
)


class Server:
    """What says bytes to a client, which it has before it asks for them."""

    def __init__(self) -> None:
        self.ours, self.client = socket.socketpair()
        self.client.settimeout(PATIENCE_S)

    def greets(self, data: bytes = WELCOME) -> SocketChannel:
        self.ours.sendall(data)
        return greet(self.client, 1, HELLO, FRAME_BYTES_MAX)[0]

    def asked(self) -> list[tuple[int, int]]:
        """Kind and id of the frames that came."""
        return [(found.kind, found.id) for found in Reader(FRAME_BYTES_MAX).feed(self.ours.recv(1 << 16))]


@pytest.fixture
def server():
    made = Server()
    yield made
    made.ours.close()
    made.client.close()


def call(channel: SocketChannel) -> object:
    return channel.call(0, "info", (), None, None)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-ERR unknown command\r\n",
        frame(Kind.RESULT, 0, encode_body(1)),
        frame(Kind.WELCOME, 0, encode_body({"protocol": 2})),
        frame(Kind.WELCOME, 0, encode_body([1])),
    ],
)
def test_who_does_not_speak_our_protocol_is_a_remote_error(server, data):
    with pytest.raises(RemoteError):
        server.greets(data)


def test_a_greeting_that_is_refused_says_why(server):
    with pytest.raises(AccessDenied):
        server.greets(frame(Kind.ERROR, 0, encode_body(to_wire(AccessDenied("no")))))


@pytest.mark.parametrize("data", [WELCOME[:7], frame(Kind.BYE, 0, encode_body({"reason": "it ends"}))])
def test_a_server_that_ends_at_the_greeting_is_lost_so_that_another_is_looked_for(server, data):
    server.ours.sendall(data)
    server.ours.shutdown(socket.SHUT_WR)
    with pytest.raises(Lost) as caught:
        greet(server.client, 1, HELLO, FRAME_BYTES_MAX)
    assert not caught.value.sent


@pytest.mark.parametrize(
    "data",
    [
        HEADER.pack(2**32 - 1, Kind.RESULT, 1),
        HEADER.pack(2, Kind.RESULT, 1),
        frame(Kind.RESULT, 1, b"\xc1"),
        frame(Kind.RESULT | 0x80, 1, b"no zlib"),
        frame(Kind.ERROR, 1, encode_body(5)),
        frame(Kind.ERROR, 1, encode_body({"code": "of a newer version"})),
    ],
)
def test_an_answer_that_is_none_is_a_remote_error(server, data):
    channel = server.greets()
    server.ours.sendall(data)
    with pytest.raises(RemoteError):
        call(channel)
    channel.close()


def test_after_bytes_that_are_no_frames_nothing_more_is_read(server):
    channel = server.greets()
    server.ours.sendall(
        frame(Kind.RESULT, 1, encode_body(1)) + bytes(9) + frame(Kind.RESULT, 2, encode_body(2))
    )
    with pytest.raises(RemoteError):
        call(channel)
    with pytest.raises(Lost) as caught:
        call(channel)
    assert not caught.value.sent


def test_a_connection_that_breaks_before_the_answer_is_lost(server):
    channel = server.greets()
    server.ours.sendall(frame(Kind.RESULT, 1, encode_body(1))[:-1])
    server.ours.shutdown(socket.SHUT_WR)
    with pytest.raises(Lost) as caught:
        call(channel)
    assert caught.value.sent


def test_what_nobody_asked_for_is_left_aside(server):
    channel = server.greets()
    server.ours.sendall(
        frame(Kind.RESULT, 99, encode_body(5))
        + frame(Kind.PROGRESS, 1, encode_body([1, 2]))
        + frame(Kind.ERROR, 0, encode_body(to_wire(InvalidInput("x"))))
        + frame(Kind.BYE, 0, encode_body({"reason": "it ends"}))
        + answer(1, encode_body("x" * 5000), 2048, packs=False)
    )
    assert call(channel) == "x" * 5000


def test_errors_come_out_and_the_talk_goes_on(server):
    channel = server.greets()
    server.ours.sendall(frame(Kind.ERROR, 1, encode_body(to_wire(NotFound(what="branch", name="b")))))
    with pytest.raises(NotFound):
        call(channel)
    server.ours.sendall(frame(Kind.RESULT, 2, encode_body(5)))
    assert call(channel) == 5
    assert server.asked() == [(Kind.HELLO, 0), (Kind.CALL, 1), (Kind.CALL, 2)]


def test_what_the_other_side_would_not_take_is_not_sent(server):
    channel = server.greets()
    for size in range(2000, 2060):  # of a body that would need a frame of 2048 and more
        body = encode_body(bytes(size))
        if len(body) + 5 > 2048:
            with pytest.raises(RemoteError):
                channel.request(Kind.CALL, body)
    server.ours.sendall(frame(Kind.RESULT, 1, encode_body(5)))
    assert channel.request(Kind.CALL, encode_body(bytes(2000))) == 5


def test_an_interrupted_call_is_cancelled(server):
    channel = server.greets()
    server.asked()
    server.ours.sendall(frame(Kind.PROGRESS, 1, encode_body([1, 2])))

    def interrupts(done: int, all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        channel.call(0, "verify", (), None, interrupts)
    assert server.asked() == [(Kind.CALL, 1), (Kind.CANCEL, 1)]
    server.ours.sendall(frame(Kind.RESULT, 1, encode_body(1)) + frame(Kind.RESULT, 2, encode_body(2)))
    assert call(channel) == 2


def test_a_link_that_is_closed_while_it_looks_for_a_channel_leaves_none_open():
    """The channel that was found came after `close`, and stayed open for good."""

    class Found:
        can_be_lost = True

        def __init__(self, number):
            self.number, self.is_closed = number, False

        def close(self):
            self.is_closed = True

    looks, may_find, found = threading.Event(), threading.Event(), []

    def connect(number):
        looks.set()
        may_find.wait()
        found.append(Found(number))
        return found[-1]

    first = Found(1)
    link = Link(connect, first)
    renewing = threading.Thread(target=link.renew, args=(first,))
    renewing.start()
    looks.wait()
    closing = threading.Thread(target=link.close)
    closing.start()
    while not link.is_closed:
        pass
    may_find.set()
    renewing.join()
    closing.join()
    assert [channel.is_closed for channel in found] == [True]
