"""Frames and lines of RCP: what is said is read again, however it is cut, and no bytes do harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.crc32c import crc32c
from strata.server.rcp.frames import HAS_CRC, HEADER, MAGIC, PAYLOAD_BYTES_MAX, Reader, Unreadable, frame

lines = st.binary(max_size=60).map(lambda data: b"{" + data.replace(b"\n", b""))
payloads = st.binary(max_size=300)
spaces = st.sampled_from([b"", b"\n", b" \r\n\t"])


@st.composite
def frames(draw):
    """A payload, and a frame of it: with a header extension, with a checksum or without."""
    payload, extension = draw(payloads), draw(st.binary(max_size=20))
    flags = draw(st.integers(0, 15))
    checksum = crc32c(payload) if flags & HAS_CRC else draw(st.integers(0, 2**32 - 1))
    header = HEADER.pack(MAGIC, 1, flags, len(extension), len(payload), checksum)
    return (False, payload), header + extension + payload


messages = frames() | payloads.map(lambda payload: ((False, payload), frame(payload)))
messages |= lines.map(lambda line: ((True, line), line + b"\n"))


def taken(pieces):
    reader, found = Reader(), []
    for piece in pieces:
        reader.feed(piece)
        while (message := reader.take()) is not None:
            found.append(tuple(message))
    return found, reader


@given(st.lists(st.tuples(spaces, messages), max_size=8), st.data())
def test_messages_are_read_however_they_are_cut(said, data):
    stream = b"".join(space + packed for space, (_, packed) in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found, reader = taken(pieces)
    assert found == [message for _, (message, _) in said]
    assert reader.is_empty
    assert taken(bytes([byte]) for byte in stream)[0] == found


@given(st.lists(st.binary(max_size=60) | messages.map(lambda said: said[1]), max_size=8))
def test_no_bytes_do_harm(pieces):
    try:
        taken(pieces)
    except Unreadable:
        pass


@given(frames().filter(lambda said: said[1][7] & HAS_CRC and said[0][1]), st.data())
def test_no_payload_is_taken_that_its_checksum_is_not_of(said, data):
    _, packed = said
    begin = HEADER.size + int.from_bytes(packed[8:10])
    wrong = bytearray(packed)
    wrong[data.draw(st.integers(begin, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unreadable):
        taken([bytes(wrong)])


def test_the_vectors_of_the_reference():
    payload = b'{"type":"request","id":"1","op":"PING"}'
    header = bytes.fromhex("52 43 50 58 00 01 00 01 00 00 00 00 00 27 15 f1 93 b1")
    assert frame(payload) == header + payload
    assert frame(b"{}")[10:] == bytes.fromhex("00 00 00 02 29 7b d0 aa 7b 7d")


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(b"RCPY", 1, 0, 0, 0, 0),
        HEADER.pack(MAGIC, 2, 0, 0, 0, 0),
        HEADER.pack(MAGIC, 1, 0x10, 0, 0, 0),
        HEADER.pack(MAGIC, 1, 0, 0, PAYLOAD_BYTES_MAX + 1, 0),
        HEADER.pack(MAGIC, 1, 1, 0, 2, 0) + b"{}",
        b"\x16\x03\x01",  # TLS
        b"GET / HTTP/1.1",
    ],
)
def test_what_is_no_message_is_refused_as_soon_as_it_shows(header):
    with pytest.raises(Unreadable):
        taken([header])


def test_the_largest_payload_is_taken_and_costs_its_size_once():
    payload = b"x" * PAYLOAD_BYTES_MAX
    packed = frame(payload)
    pieces = [packed[at : at + 65536] for at in range(0, len(packed), 65536)]
    assert taken(pieces)[0] == [(False, payload)]
    line = b"{" + b"x" * (PAYLOAD_BYTES_MAX - 1)
    assert taken([line[:1000], line[1000:], b"\n"])[0] == [(True, line)]
    with pytest.raises(Unreadable):
        taken([line, b"x\n"])
    with pytest.raises(Unreadable):
        taken([line, b"xx"])
