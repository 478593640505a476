"""Frames: the bytes of RCP, without I/O.

    frame   "RCPX" | version u16 = 1 | flags u16 | header length u16 | payload length u32 | CRC32C u32
            | header extension | payload, all integers big-endian
    line    a JSON object and a line feed

Which of the two a message is shows its first byte, so a client may change between them at any time. The
checksum is that of the payload, and counts where the first flag says that there is one.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from strata.api.checksum import crc32c

MAGIC: Final = b"RCPX"
VERSION: Final = 1
HEADER: Final = struct.Struct(">4sHHHII")
PAYLOAD_BYTES_MAX: Final = 16 << 20
HAS_CRC: Final = 0x1
FLAGS: Final = 0xF  # those that are known; the others say what no version 1 means
_FRAME, _LINE = MAGIC[0], ord("{")
_SPACE: Final = frozenset(b" \t\r\n")


class Unreadable(Exception):
    """What came is no message, and where the next one begins is not known."""


class Message(NamedTuple):
    """What one message holds, and whether it came as a line."""

    is_line: bool
    payload: bytes


def frame(payload: bytes) -> bytes:
    """Return a payload as a frame."""
    return HEADER.pack(MAGIC, VERSION, HAS_CRC, 0, len(payload), crc32c(payload)) + payload


class Reader:
    """Takes bytes as they come, and gives messages."""

    __slots__ = ("_at", "_buffer", "_has_end", "_later", "_later_bytes", "_needed")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # where in it the next message begins
        self._needed = 0  # bytes from there on that the message takes, as far as is known
        self._later: list[bytes] = []  # what came since, joined only once it is enough
        self._later_bytes = 0
        self._has_end = False  # whether there is a line feed in that

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits: not even a part of a message."""
        return not self._later and self._at >= len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take bytes in."""
        if self.is_empty:
            self._buffer, self._at, self._needed = data, 0, 0
            return
        self._later.append(data)
        self._later_bytes += len(data)
        self._has_end = self._has_end or b"\n" in data

    def take(self) -> Message | None:
        """Return the next message, or None while it is not whole.

        Raises: Unreadable.
        """
        if self._later:
            if not self._has_end and len(self._buffer) - self._at + self._later_bytes < self._needed:
                return None
            self._buffer = b"".join((self._buffer[self._at :], *self._later))
            self._at, self._later_bytes, self._has_end = 0, 0, False
            self._later.clear()
        buffer, at = self._buffer, self._at
        while at < len(buffer):
            first = buffer[at]
            if first == _FRAME:
                return self._frame(at)
            if first == _LINE:
                return self._line(at)
            if first not in _SPACE:
                raise Unreadable(f"a message does not begin with the byte {first:#04x}")
            at += 1
        self._at = at
        return None

    def _frame(self, at: int) -> Message | None:
        buffer = self._buffer
        begin = at + HEADER.size
        if begin > len(buffer):
            self._wait(at, HEADER.size)
            return None
        magic, version, flags, extension, length, checksum = HEADER.unpack_from(buffer, at)
        if magic != MAGIC or version != VERSION or flags & ~FLAGS:
            raise Unreadable(f"no frame of version {VERSION}: {buffer[at:begin].hex()}")
        if length > PAYLOAD_BYTES_MAX:
            raise Unreadable(f"a payload of {length} bytes, and the limit is {PAYLOAD_BYTES_MAX}")
        begin += extension
        end = begin + length
        if end > len(buffer):
            self._wait(at, end - at)
            return None
        payload = buffer[begin:end]
        if flags & HAS_CRC and crc32c(payload) != checksum:
            raise Unreadable("a frame whose checksum is wrong")
        self._at = end
        return Message(False, payload)

    def _line(self, at: int) -> Message | None:
        end = self._buffer.find(b"\n", at)
        size = (len(self._buffer) if end < 0 else end) - at
        if size > PAYLOAD_BYTES_MAX:
            raise Unreadable(f"a line of more than {PAYLOAD_BYTES_MAX} bytes")
        if end < 0:
            self._wait(at, PAYLOAD_BYTES_MAX + 1)
            return None
        self._at = end + 1
        return Message(True, self._buffer[at:end])

    def _wait(self, at: int, needed: int) -> None:
        self._at, self._needed = at, needed
