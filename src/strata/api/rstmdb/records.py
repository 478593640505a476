"""Records of rstmdb's log: the bytes of one, and a segment as a sequence of them.

    segment  wal/%016x.wal, by its id in hex; records one behind the other
    record   "WLOG" | type u8 | flags u8 | reserved u16 | length u32 | crc32c u32 | sequence u64 | payload
             all big-endian; the checksum is of the payload alone
    payload  the entry as JSON, whose "type" says again what the type does
    offset   segment id << 40 | byte in the segment, of the record's first byte

A crash leaves a tail that is no whole record, and rstmdb writes on behind it. So what cannot be read is a
tail where no whole record comes after it, and otherwise damage, which is refused unless it is to be salvaged.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from strata.api.checksum import crc32c
from strata.core.errors import Corrupt, InvalidInput, LimitExceeded, StorageError, StrataError

Entry = dict[str, Any]

SEGMENT_BYTES: Final = 64 << 20
RECORD_BYTES_MAX: Final = 16 << 20  # of a payload that is read
# Newer versions take a little less, so that a record goes into one frame to a replica.
WRITTEN_BYTES_MAX: Final = RECORD_BYTES_MAX - (64 << 10)
SEGMENT_ID_MAX: Final = (1 << 23) - 1  # so that offsets fit in 64 bits

TYPES: Final = {
    1: "put_machine",
    2: "create_instance",
    3: "apply_event",
    4: "delete_instance",
    5: "snapshot",
    6: "checkpoint",
    255: "noop",
}
_NUMBERS: Final = {name: number for number, name in TYPES.items()}
_HEADER: Final = struct.Struct(">4sBBHIIQ")
_MAGIC: Final = b"WLOG"
_OFFSET_BITS: Final = 40
_NAME: Final = re.compile(r"([0-9a-f]{16})\.wal")
_CHUNK_BYTES: Final = 256 << 10
# What is summed in search of a record behind damage: bounds the work that bytes made for it could cause.
_TRIED_BYTES_MAX: Final = 1 << 30
_SALVAGE: Final = "salvage=True (--salvage) takes what is whole, and says what is not"

_decode = msgspec.json.Decoder().decode
# Not msgspec's, which writes bytes as Base64 texts.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class Reader(Protocol):
    """What gives the bytes of a segment."""

    def read(self, size: int, /) -> bytes: ...


Segments = Iterable[tuple[int, Reader]]  # by id, ascending


class Record(NamedTuple):
    """One entry of the log."""

    offset: int
    sequence: int
    entry: Entry
    checksum: int = 0  # of its payload, as it was read


class Damage(NamedTuple):
    """A stretch of the log that is no record."""

    offset: int
    length: int  # 0 where it is not known
    reason: str
    is_tail: bool = False  # whether nothing comes after it, as a crash leaves it
    file: str = ""  # where it is none of the log's

    @property
    def place(self) -> tuple[str, int]:
        """The file, and the byte in it."""
        return (self.file, self.offset) if self.file else place_of(self.offset)

    def __str__(self) -> str:
        file, at = self.place
        what = "a torn tail" if self.is_tail else "damage"
        size = f" of {self.length:,} bytes" if self.length else ""
        return f"{file} at byte {at:,}: {what}{size} ({self.reason})"

    def error(self) -> Corrupt:
        """Return the error that refuses it."""
        file, at = self.place
        offset = "" if self.file else f" (offset {self.offset})"
        message = f"{file} is damaged at byte {at}{offset}: {self.reason}"
        return Corrupt(message, file=file, offset=at, hint=_SALVAGE)


Report = Callable[[Damage], object]


def segment_name(id: int) -> str:
    """Return the name of the file of a segment."""
    return f"{id:016x}.wal"


def segment_id(name: str) -> int | None:
    """Return the id of the segment that a file of this name is; None for another file."""
    found = _NAME.fullmatch(name)
    id = None if found is None else int(found[1], 16)
    if id is not None and id > SEGMENT_ID_MAX:
        raise InvalidInput(f"{name} would be segment {id}; there are none above {SEGMENT_ID_MAX}")
    return id


def offset_of(segment: int, at: int) -> int:
    """Return the offset of a byte of a segment."""
    return segment << _OFFSET_BITS | at


def segment_of(offset: int) -> int:
    """Return the id of the segment that an offset is in."""
    return offset >> _OFFSET_BITS


def place_of(offset: int) -> tuple[str, int]:
    """Return the file that an offset is in, and the byte there."""
    at = offset & ((1 << _OFFSET_BITS) - 1)
    return f"wal/{segment_name(segment_of(offset))}", at


# -- writing


def encode(sequence: int, entry: Entry) -> bytes:
    """Return the bytes of a record.

    Raises: InvalidInput for what is no entry, or has what JSON cannot say, such as bytes; LimitExceeded.
    """
    kind = _NUMBERS.get(entry["type"]) if isinstance(entry.get("type"), str) else None
    if kind is None:
        raise InvalidInput(
            f"{entry.get('type')!r} is no type of an entry", hint=f"one of {', '.join(_NUMBERS)}"
        )
    try:
        payload = _encode(entry).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"an entry is JSON, and {entry['type']} {_named(entry)}: {error}") from None
    if len(payload) > WRITTEN_BYTES_MAX:
        what = f"size of a record of rstmdb's log in bytes ({entry['type']} {_named(entry)})"
        raise LimitExceeded(what=what, limit=WRITTEN_BYTES_MAX, actual=len(payload))
    return _HEADER.pack(_MAGIC, kind, 0, 0, len(payload), crc32c(payload), sequence) + payload


def _named(entry: Entry) -> str:
    return repr(entry.get("instance_id", entry.get("machine", "")))


# -- reading


def read_log(segments: Segments, *, salvage: bool = False, report: Report | None = None) -> Iterator[Record]:
    """Yield the records of a log in order. Cost: one record at a time is in memory.

    Args:
        segments: from the first that is there; older ones may have been removed by compaction.
        salvage: go on behind damage.
        report: is told of damage that was passed, and of a torn tail.
    Raises: Corrupt, naming the file and the byte, for damage and for a missing segment; InvalidInput for
        segments that are not in order.
    """
    tell = report or (lambda damage: None)
    open_: list[Damage] = []  # that nothing has come behind so far
    last: int | None = None
    for id, stream in segments:
        for damage in _missing(last, id):
            if not salvage:
                raise damage.error()
            tell(damage)
        last = id
        for found in read_segment(id, stream):
            if isinstance(found, Damage):
                open_.append(found)
                continue
            for damage in open_:
                if not salvage:
                    raise damage.error()
                tell(damage)
            open_.clear()
            yield found
    for damage in open_:
        tell(damage._replace(is_tail=True))


def _missing(last: int | None, id: int) -> Iterator[Damage]:
    if last is not None and id <= last:
        raise InvalidInput(f"segment {id} comes behind segment {last}")
    if last is not None and id > last + 1:
        what = "a segment is" if id == last + 2 else f"{id - last - 1:,} segments are"
        yield Damage(offset_of(last + 1, 0), 0, f"{what} missing before {segment_name(id)}")


def read_segment(id: int, stream: Reader) -> Iterator[Record | Damage]:
    """Yield the records of a segment, and in their place what is none, up to the next one or the end."""
    window = _Window(stream)
    while window.fill(1):
        found = _record(id, window)
        if isinstance(found, Record):
            yield found
        else:
            start = window.place
            _skip(id, window)
            yield Damage(offset_of(id, start), window.place - start, found)


class _Window:
    """The bytes of a segment from some place on, of which those are in memory that are looked at."""

    __slots__ = ("_before", "_stream", "at", "kept")

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self._before = 0  # bytes of the segment before `kept`
        self.kept = b""
        self.at = 0  # in `kept`

    @property
    def place(self) -> int:
        """Where it is in the segment."""
        return self._before + self.at

    def fill(self, size: int) -> int:
        """Return how many bytes are at hand: at least `size`, or all there are."""
        there = len(self.kept) - self.at
        if there >= size:
            return there
        pieces = [self.kept[self.at :]]
        while there < size and (piece := self._read(max(size - there, _CHUNK_BYTES))):
            pieces.append(piece)
            there += len(piece)
        self._before += self.at
        self.kept, self.at = b"".join(pieces), 0
        return there

    def _read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except StrataError:
            raise
        except OSError as error:
            raise StorageError(f"the log cannot be read: {error}", errno=error.errno) from error


def _record(segment: int, window: _Window) -> Record | str:
    """Return the record that begins here, and go behind it; or why there is none, and stay."""
    if window.fill(_HEADER.size) < _HEADER.size:
        return "a header is cut short"
    magic, kind, _, _, length, checksum, sequence = _HEADER.unpack_from(window.kept, window.at)
    if magic != _MAGIC:
        return "no record begins there"
    if kind not in TYPES:
        return f"a record has the type {kind}, which is unknown"
    if length > RECORD_BYTES_MAX:
        return f"a record of {length:,} bytes is more than there can be"
    if window.fill(_HEADER.size + length) < _HEADER.size + length:
        return "a record is cut short"
    start = window.at + _HEADER.size
    payload = window.kept[start : start + length]
    if crc32c(payload) != checksum:
        return "the checksum of a record is wrong"
    entry = _entry(kind, payload)
    if isinstance(entry, str):
        return entry
    record = Record(offset_of(segment, window.place), sequence, entry, checksum)
    window.at = start + length
    return record


def _entry(kind: int, payload: bytes) -> Entry | str:
    """Return the entry in a payload, or why there is none."""
    if TYPES[kind] == "noop":
        return {"type": "noop"}
    try:
        entry = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"the entry of a record is no JSON: {error}"
    if type(entry) is not dict or entry.get("type") != TYPES[kind]:
        return f"the entry of a record is no {TYPES[kind]}, as its header says"
    return entry


def _skip(segment: int, window: _Window) -> None:
    """Go to the next place where a whole record begins, or to the end."""
    window.at += 1
    tried = 0
    while window.fill(len(_MAGIC)) >= len(_MAGIC):
        found = window.kept.find(_MAGIC, window.at)
        if found < 0:
            window.at = len(window.kept) - len(_MAGIC) + 1  # its end may be the beginning of a mark
            continue
        window.at = found
        tried += _claimed(window)
        if tried > _TRIED_BYTES_MAX:
            break
        place = window.place
        if isinstance(_record(segment, window), Record):
            window.at -= window.place - place
            return
        window.at += 1
    while window.fill(1):
        window.at = len(window.kept)


def _claimed(window: _Window) -> int:
    """Return how many bytes the record that may begin here says to have."""
    if window.fill(_HEADER.size) < _HEADER.size:
        return 0
    _, kind, _, _, length, *_ = _HEADER.unpack_from(window.kept, window.at)
    return length if kind in TYPES and length <= RECORD_BYTES_MAX else 0
