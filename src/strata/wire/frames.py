"""Frames: what goes over a connection, in both directions.

    frame    length u32 | kind u8 | id u32 | body        all big-endian; `length` counts from the kind on
    body     one MessagePack value, packed by zlib where the highest bit of the kind is set

The id is of the request that a frame belongs to, and 0 where there is none. Answers may come in any order.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgspec

from strata.core.errors import InvalidInput, LimitExceeded

PROTOCOL: Final = 1
MAGIC: Final = "strata"

HEADER: Final = struct.Struct(">IBI")
AFTER_LENGTH: Final = 5  # kind and id, which the length counts
_BIN_HEAD: Final = 5  # what MessagePack puts in front of bytes, at most
PACKED: Final = 0x80
PACK_FROM_BYTES: Final = 4096  # below that, packing costs more than it saves

# Before anybody said who they are: what they may make the other side keep.
GREETING_BYTES_MAX: Final = 64 << 10
# One value of 32 MiB, with room for what goes around it; more rows than that go in several frames.
FRAME_BYTES_MAX: Final = 40 << 20
FRAME_BYTES_LEAST: Final = 1024  # of that limit, where somebody sets it: every error has room


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 0  # {"magic", "protocols", "token", "client", "strict", "packs"}: the first frame of a client
    WELCOME = 1  # {"protocol", "database", "server", "access", "frame_bytes_max", "packs"}: its answer
    CALL = 2  # [handle, method, arguments] or [handle, method, arguments, options]
    RESULT = 3  # what the call returned
    ERROR = 4  # {"code", "message", "hint", "fields"}
    PROGRESS = 5  # [done, all]: of a call that said {"progress": true}
    CANCEL = 6  # null: end the call with this id, if that can still be done
    OPEN = (
        7  # [new handle, handle, method, arguments]: not answered; what went wrong is said at its first use
    )
    RELEASE = 8  # [handle, ...]: not answered
    OPERATION = 9  # [name, place, arguments] or [name, place, arguments, options]
    ITEMS = 10  # [item, ...]: of an operation that streams; RESULT ends it
    CREDIT = 11  # n: send so many more of the stream with this id
    BYE = 12  # {"reason"}: nothing more will be answered
    PART = 13  # bytes: a piece of the body that goes before that of the next RESULT or ITEMS with this id


class Frame(NamedTuple):
    """One frame as it came: its body is still packed in MessagePack."""

    kind: int
    id: int
    body: bytes | memoryview


# What a read gives where nothing is, so that a stored None is something else. Extension type 1, without
# bytes.
class _Absent:
    __slots__ = ()

    def __repr__(self) -> str:
        return "<absent>"


ABSENT: Final[Any] = _Absent()
_ABSENT_CODE: Final = 1


def _to_wire(value: Any) -> Any:
    if value is ABSENT:
        return msgspec.msgpack.Ext(_ABSENT_CODE, b"")
    raise TypeError(f"{type(value).__name__} cannot go over the wire")


def from_ext(code: int, data: memoryview) -> Any:
    """Return what an extension type stands for."""
    if code == _ABSENT_CODE and not data:
        return ABSENT
    raise InvalidInput(f"extension type {code} is unknown")


encode_body = msgspec.msgpack.Encoder(enc_hook=_to_wire).encode
_decode_body = msgspec.msgpack.Decoder(ext_hook=from_ext).decode


def decode_body(body: bytes | memoryview) -> Any:
    """Return the value of a body.

    Raises: InvalidInput for what is no MessagePack.
    """
    try:
        return _decode_body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a message: {error}") from None


def answer(id: int, body: bytes, limit: int, *, packs: bool, kind: int = Kind.RESULT) -> bytes:
    """Return the frames of an answer: one, or several where it is longer than `limit`, as `Reader` counts."""
    if len(body) + AFTER_LENGTH <= limit:
        return frame(kind, id, body, packs=packs)
    size = limit - AFTER_LENGTH - _BIN_HEAD
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    parts = [frame(Kind.PART, id, encode_body(piece), packs=packs) for piece in pieces[:-1]]
    return b"".join([*parts, frame(kind, id, pieces[-1])])


def frame(kind: int, id: int, body: bytes, *, packs: bool = False) -> bytes:
    """Return a frame as it goes over the wire."""
    if packs and len(body) >= PACK_FROM_BYTES:
        packed = zlib.compress(body, 1)
        if len(packed) < len(body):
            kind, body = kind | PACKED, packed
    return HEADER.pack(len(body) + AFTER_LENGTH, kind, id) + body


class Reader:
    """Makes frames of bytes as they come in. A frame that is too long is refused before it is kept."""

    __slots__ = ("_kept", "_wanted", "limit", "unpacks")

    def __init__(self, limit: int) -> None:
        self.limit = limit  # of bytes after the length, and of a body once it is unpacked
        self.unpacks = True  # else frames come with PACKED in their kind, for `unpacked`
        self._kept = bytearray()
        self._wanted = 0  # so many bytes make the next frame whole, if that is known

    @property
    def is_empty(self) -> bool:
        """Whether no part of a frame is waiting for the rest."""
        return not self._kept

    def only(self, data: bytes) -> Frame | None:
        """Return the frame that `data` is, where it is exactly one that is not packed. Else feed it."""
        if self._kept or len(data) < HEADER.size:
            return None
        length, kind, id = HEADER.unpack_from(data)
        if length + 4 != len(data) or length > self.limit or length < AFTER_LENGTH or kind & PACKED:
            return None
        return Frame(kind, id, data[HEADER.size :])

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` makes whole. Take them all before feeding again.

        Nothing is unpacked before it is taken, so a read full of packed frames costs one of them at a time.

        Raises: LimitExceeded; InvalidInput for what is no frame.
        """
        kept = self._kept
        if kept:
            kept += data
            if len(kept) < self._wanted:
                return
            data = bytes(kept)
            kept.clear()
        at, end = 0, len(data)
        try:
            while end - at >= HEADER.size:
                length, kind, id = HEADER.unpack_from(data, at)
                if length > self.limit:
                    raise LimitExceeded(what="frame bytes", limit=self.limit, actual=length)
                if length < AFTER_LENGTH:
                    raise InvalidInput(f"a frame of {length} bytes has no room for kind and id")
                if end - at < 4 + length:
                    self._wanted = 4 + length
                    break
                start, at = at + HEADER.size, at + 4 + length
                body: bytes | memoryview = memoryview(data)[start:at]
                found = Frame(kind, id, body)
                yield self.unpacked(found) if kind & PACKED and self.unpacks else found
            else:
                self._wanted = HEADER.size
        finally:
            kept += memoryview(data)[at:]

    def unpacked(self, found: Frame) -> Frame:
        """Return a packed frame as it was before.

        Raises: LimitExceeded; InvalidInput for what is damaged.
        """
        return Frame(found.kind & ~PACKED, found.id, self._unpack(found.body))

    def _unpack(self, body: bytes | memoryview) -> bytes:
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(body, self.limit + 1)
        except zlib.error as error:
            raise InvalidInput(f"a packed body is damaged: {error}") from None
        if len(found) > self.limit:
            raise LimitExceeded(what="frame bytes", limit=self.limit, actual=len(found))
        if not unpacker.eof or unpacker.unused_data:
            raise InvalidInput("a packed body does not end where its frame does")
        return found
