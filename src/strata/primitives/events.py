"""Events: append-only streams, each event chained to the one before.

One event is one key, so reading is a range scan, and branches and time travel need no code here.

    key    stream name in UTF-8, 0x00, sequence as 8 bytes big-endian (so bytes sort as numbers do)
    value  [type, time in microseconds, payload, hash], and if merged its origin: [branch, sequence, hash,
           version]

    hash   SHA-256 of the canonical MessagePack of [previous hash, sequence, type, time, payload] with, if
           there is one, the origin as sixth element; before the first event stand 32 zero bytes

Invariant: the sequences of a stream are 0, 1, 2, ... without gaps, and times never go backwards. The
transaction gives both at commit, where it also makes the hash, so writers queue and never conflict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from typing import Any, ClassVar, Final, cast

import msgspec

from strata.core.atomic import atomically
from strata.core.changes import Change, change
from strata.core.clock import to_datetime, to_micros
from strata.core.errors import InvalidInput, NotFound
from strata.core.keys import check_int, check_name
from strata.core.protocols import Appended, DiffRow, Layout, Path, Txn
from strata.core.values import canonical, text_of
from strata.primitives.base import Primitive, pages

GENESIS: Final = bytes(32)
MAIN: Final = "main"
_TYPE: Final = (0,)
_TIME: Final = (1,)


class Origin(msgspec.Struct, frozen=True):
    """Where a merged event was first appended. Version and sequence are its identity, on all branches."""

    branch: str
    sequence: int
    hash: bytes  # of that event, so that the copy can be checked
    version: int  # of its commit


class Event(msgspec.Struct, frozen=True):
    """One event. While `pending` (inside the transaction that appends it) its sequence is provisional.

    `version` is that of its commit; None where the read did not ask for it, which only `get` and `head` do.
    """

    # A Struct rather than a dataclass: it is made in 0.1 us instead of 1, and each append makes one.
    sequence: int
    type: str
    payload: dict[str, Any]
    stream: str
    time_us: int | None = None
    hash: bytes | None = None
    version: int | None = None
    origin: Origin | None = None

    @property
    def pending(self) -> bool:
        """Whether its commit has not happened yet."""
        return self.hash is None

    @property
    def time(self) -> datetime | None:
        """When it was committed, in UTC; None while pending."""
        return None if self.time_us is None else to_datetime(self.time_us)


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What `verify` found: the first event whose sequence, time or hash is not what the chain says."""

    events: int  # that were checked and are good
    stream: str | None = None  # None: all is well
    sequence: int | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.stream is None


class _Prefixes(dict[Any, bytes]):
    """Key prefixes by stream name, so that a name is checked and encoded once and not for each event."""

    def __missing__(self, stream: Any) -> bytes:
        prefix = check_name(stream, "stream").encode() + b"\0"
        if len(self) < 10_000:  # more would be a leak rather than a cache
            self[stream] = prefix
        return prefix


class _Types(dict[Any, str]):
    """Event types that have been checked."""

    def __missing__(self, type: Any) -> str:
        check_name(type, "event type")
        if len(self) < 10_000:
            self[type] = type
        return cast(str, type)


_PREFIXES: Final = _Prefixes()
_TYPES: Final = _Types()


class Events(Primitive):
    """The event streams of one branch and space. A stream begins with its first event; "main" always is."""

    LAYOUT: ClassVar[Layout] = Layout("events", text_keys=False, finite=True)
    _FORWARD: ClassVar[bool] = True
    _VALUE: ClassVar[Path] = (2,)
    _TEXTS: ClassVar[dict[str, Path]] = {"text": (2,)}

    __slots__ = ()

    @classmethod
    def _erasure(cls, name: str, is_prefix: bool) -> tuple[bytes, bool]:
        """Return the keys of the stream `name`, or of all whose names begin so."""
        stem = check_name(name, "stream").encode()
        return (stem if is_prefix else stem + b"\0"), True

    @classmethod
    def _thing(cls, key: bytes, name: str) -> str:
        return key[:-9].decode()

    @classmethod
    def _diff(cls, rows: Iterable[DiffRow]) -> Iterator[Change]:
        """Yield ranges of events: those that only the old state has, then those that only the new one has."""
        for (space, kind, prefix), found in groupby(rows, key=lambda row: (*row[:2], row[2][:-8])):
            stream = prefix[:-1].decode()
            old, new = _sides(stream, found)
            if old:
                yield change(space, kind, stream, (old, old[-1].version), None, start=old[0].sequence)
            if new:
                yield change(space, kind, stream, None, (new, new[-1].version), start=new[0].sequence)

    def _length(self, stream: str) -> int:
        """Return how many events a stream has, which may be none."""
        last = self._txn.scan_keys(_prefix(stream), None, None, True, 1)
        return _sequence(last[0]) + 1 if last else 0

    @staticmethod
    def _identity(event: Event) -> tuple[int | None, int]:
        """Return what an event and its copies on other branches have in common."""
        origin = event.origin
        return (event.version, event.sequence) if origin is None else (origin.version, origin.sequence)

    @classmethod
    def _missing(cls, rows: list[DiffRow], stream: str, ours: Txn, start: int) -> list[Event]:
        """Return the events that a diff brings to `stream` and ours does not have, in their order.

        Args:
            start: up to there ours and theirs have the same events in the same places.
        """
        prefix = _prefix(stream)
        gone, brought = _sides(stream, rows)
        known = {cls._identity(event) for event in gone}
        for _, value in pages(ours.scan, prefix, _key(prefix, start), None, False, None, lambda: None):
            if len(value) > 4:
                origin = Origin(*value[4])
                known.add((origin.version, origin.sequence))

        def is_ours(event: Event) -> bool:
            origin = event.origin
            found = None if origin is None else ours.entry(_key(prefix, origin.sequence))
            return found is not None and origin is not None and found[1] == origin.version

        return [event for event in brought if cls._identity(event) not in known and not is_ours(event)]

    @classmethod
    def _place(cls, name: str) -> bytes:
        stream, _, sequence = name.rpartition("/")
        if not (stream and sequence.isascii() and sequence.isdigit()):
            raise InvalidInput(f"{name!r} names no event", hint="as in main/7: the stream and the sequence")
        return _key(_prefix(stream), int(sequence))

    @classmethod
    def _shown(cls, key: bytes, value: Any, version: int, time: int, expires: int | None) -> Event:
        return _event(key[:-9].decode(), _sequence(key), value, version)

    @classmethod
    def _line(cls, shown: Event) -> str:
        return f"{shown.type} {text_of(shown.payload)}"

    def append(self, type: str, payload: dict[str, Any], *, stream: str = MAIN) -> Event:
        """Put an event at the end of `stream`; return it.

        Raises: InvalidInput when `type` or `stream` is not a name, or `payload` not a map of values.
        """
        if payload.__class__ is not dict:
            raise _no_payload(payload)
        try:
            prefix, kind = _PREFIXES[stream], _TYPES[type]
        except TypeError:
            raise InvalidInput("event type and stream are str") from None
        sequence, time, hash, version = self._txn.append(prefix, kind, payload)
        return Event(sequence, kind, payload, stream, time, hash, version)

    def append_many(self, items: Iterable[tuple[str, dict[str, Any]]], *, stream: str = MAIN) -> list[Event]:
        """Put (type, payload) pairs at the end of `stream` in one commit; return the events in order."""
        prefix, batch = _prefix(stream), [_checked(item) for item in items]
        if not batch:
            return []

        def append(txn: Txn) -> list[Appended]:
            return [txn.append(prefix, type, payload) for type, payload in batch]

        given, version = atomically(self._txn, append)
        if version is not None:
            given = _landed(self._txn, prefix, given[0][0], len(batch), version)
        return [
            Event(sequence, type, payload, stream, time, hash, at)
            for (sequence, time, hash, at), (type, payload) in zip(given, batch, strict=True)
        ]

    def adopt(self, event: Event, *, branch: str) -> Event:
        """Append a copy of `event`, which was read on `branch`, and return it. Only merge calls this.

        Two branches that both appended are no conflict: the target keeps its events, and the source's new
        ones follow in their order, each with its origin (branch, sequence, hash, version).
        """
        # Refused: a Conflict, which would stop any two agents that keep a log; and interleaving by
        # time, which would rewrite what readers of the target have already seen.
        if event.hash is None or event.version is None:
            raise InvalidInput("a pending event has no hash yet and cannot be adopted", hint="commit first")
        origin = event.origin or Origin(branch, event.sequence, event.hash, event.version)
        stored = [origin.branch, origin.sequence, origin.hash, origin.version]
        sequence, time, hash, version = self._txn.append(
            _prefix(event.stream), event.type, event.payload, stored
        )
        return Event(sequence, event.type, event.payload, event.stream, time, hash, version, origin)

    def get(self, sequence: int, *, stream: str = MAIN) -> Event | None:
        """Return the event with that sequence, or None."""
        prefix = _prefix(stream)
        found = self._txn.entry(_key(prefix, check_int(sequence, "sequence")))
        if found is None:
            self._check_stream(stream, prefix)
            return None
        return _event(stream, sequence, found[0], found[1])

    def head(self, stream: str = MAIN) -> Event | None:
        """Return the newest event of `stream`, or None."""
        length = self.len(stream)
        return self.get(length - 1, stream=stream) if length else None

    def len(self, stream: str = MAIN) -> int:
        """Return how many events `stream` has. Cost: one seek, since sequences have no gaps."""
        length = self._length(stream)
        if not length:
            self._check_stream(stream, _prefix(stream))
        return length

    def range(
        self,
        start: int = 0,
        end: int | None = None,
        *,
        stream: str = MAIN,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """Return the events with start <= sequence < end, oldest first or, with `reverse`, newest first."""
        return self._walk(stream, start, end, reverse, limit)

    def by_type(
        self,
        type: str,
        *,
        stream: str = MAIN,
        start: int = 0,
        end: int | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """Return the events of that type. Cost: reads all events from `start` up to the last one taken."""
        check_name(type, "event type")
        left = None if limit is None else check_int(limit, "limit")
        return islice(
            (event for event in self._walk(stream, start, end, reverse, None) if event.type == type), left
        )

    def between(
        self,
        start: datetime | str | None,
        end: datetime | str | None,
        *,
        stream: str = MAIN,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """Return the events committed at start <= time < end, None being open.

        Cost: two searches by halving, since times of a stream never go backwards, then the events.
        """
        length = self.len(stream)
        first = 0 if start is None else self._position(stream, to_micros(start), length)
        last = None if end is None else self._position(stream, to_micros(end), length)
        return self._walk(stream, first, last, reverse, limit)

    def streams(self) -> list[str]:
        """Return the names of the streams that have events, sorted. Cost: one seek a stream."""
        found: list[str] = []
        keys = self._txn.scan_keys(None, None, None, False, 1)
        while keys:
            name = cast(bytes, keys[0]).partition(b"\0")[0]
            found.append(name.decode())
            keys = self._txn.scan_keys(None, name + b"\x01", None, False, 1)
        if not found:
            self._check_space()
        return found

    def types(self, stream: str = MAIN) -> list[str]:
        """Return the types of the events of `stream`, sorted. Cost: reads the stream."""
        return sorted({event.type for event in self._walk(stream, 0, None, False, None)})

    def verify(self, stream: str | None = None) -> ChainReport:
        """Recompute the chain of `stream`, or of all streams, and report the first event that does not fit.

        Cost: reads every event and hashes it.
        """
        good = 0
        for name in [stream] if stream is not None else self.streams():
            checked, bad = _verify(name, self._stored(name))
            good += checked
            if bad is not None:
                return ChainReport(good, name, *bad)
        return ChainReport(good)

    def __len__(self) -> int:
        return self.len()

    def __iter__(self) -> Iterator[Event]:
        return self._walk(MAIN, 0, None, False, None)

    def _walk(
        self, stream: str, start: int, end: int | None, reverse: bool, limit: int | None
    ) -> Iterator[Event]:
        prefix = _prefix(stream)
        low = _key(prefix, check_int(start, "start"))
        high = None if end is None else _key(prefix, check_int(end, "end"))
        found = pages(
            self._txn.pinned().scan,
            prefix,
            low,
            high,
            reverse,
            limit,
            lambda: self._check_stream(stream, prefix),
        )
        return (_event(stream, _sequence(key), value) for key, value in found)

    def _stored(self, stream: str) -> Iterator[tuple[bytes, list[Any]]]:
        prefix = _prefix(stream)
        scan = self._txn.pinned().scan
        return pages(scan, prefix, None, None, False, None, lambda: self._check_stream(stream, prefix))

    def _position(self, stream: str, time: int, length: int) -> int:
        """Return the sequence of the first event at or after `time`; pending events are after every time."""
        prefix, low, high = _prefix(stream), 0, length
        while low < high:
            middle = (low + high) // 2
            at = self._txn.get_path(_key(prefix, middle), _TIME)
            low, high = (middle + 1, high) if at is not None and at < time else (low, middle)
        return low

    def _check_stream(self, stream: str, prefix: bytes) -> None:
        """Raise NotFound for a named stream without events. Called when a read found nothing."""
        self._check_space()
        if stream != MAIN and not self._txn.scan_keys(prefix, None, None, False, 1):
            raise NotFound(
                f"stream {stream!r} has no events", what="stream", name=stream, hint="append makes it"
            )


def chain_hash(
    previous: bytes, sequence: int, type: str, time: int, payload: Any, origin: Any = None
) -> bytes:
    """Return the hash of an event from that of the one before, as every language computes it."""
    chained = [previous, sequence, type, time, payload]
    return hashlib.sha256(canonical(chained if origin is None else [*chained, origin])).digest()


def _verify(stream: str, stored: Iterable[tuple[bytes, list[Any]]]) -> tuple[int, tuple[int, str] | None]:
    """Return how many events are good, and the first bad sequence with the reason."""
    previous, before, expected = GENESIS, 0, 0
    for key, (type, time, payload, hash, *rest) in stored:
        if _sequence(key) != expected:
            return expected, (expected, f"event {expected} is missing")
        if hash is None:  # pending: it has no hash to check, nor has any that follows
            break
        if time < before:
            return expected, (expected, f"its time is before that of event {expected - 1}")
        if hash != chain_hash(previous, expected, type, time, payload, *rest):
            return expected, (expected, "its hash does not fit its content and the event before it")
        previous, before, expected = hash, time, expected + 1
    return expected, None


def _landed(txn: Txn, prefix: bytes, provisional: int, count: int, version: int) -> list[Appended]:
    """Return what became of `count` events that commit `version` appended.

    They lie in a row, at or after the provisional place: others may have come in between. Versions rise
    with the sequence, and nearly always the first guess is right.
    """
    first = provisional
    while (found := txn.entry(_key(prefix, first))) is not None and found[1] < version:
        first += 1
    landed = txn.scan(prefix, _key(prefix, first), None, False, count)
    return [(_sequence(key), value[1], value[3], version) for key, value in landed]


def _event(stream: str, sequence: int, stored: list[Any], version: int | None = None) -> Event:
    origin = Origin(*stored[4]) if len(stored) > 4 else None
    hash = stored[3]  # None before the commit, when there is no version either
    return Event(
        sequence, stored[0], stored[2], stream, stored[1], hash, None if hash is None else version, origin
    )


def _sides(stream: str, rows: Iterable[DiffRow]) -> tuple[list[Event], list[Event]]:
    """Return the old and the new events of rows that differ. Streams part once, so both are ranges."""
    old: list[Event] = []
    new: list[Event] = []
    for row in rows:
        for kept, events in ((row[3], old), (row[4], new)):
            if kept is not None:
                events.append(_event(stream, _sequence(row[2]), kept[0], kept[1]))
    return old, new


def _checked(item: Any) -> tuple[str, dict[str, Any]]:
    try:
        type, payload = item
    except (TypeError, ValueError):
        raise InvalidInput(f"append_many takes (type, payload) pairs, not {item!r}") from None
    if payload.__class__ is not dict:
        raise _no_payload(payload)
    return check_name(type, "event type"), payload


def _prefix(stream: Any) -> bytes:
    try:
        return _PREFIXES[stream]
    except TypeError:  # not hashable
        raise InvalidInput(f"a stream is a str, not {type(stream).__name__}") from None


def _key(prefix: bytes, sequence: int) -> bytes:
    try:
        return prefix + sequence.to_bytes(8)
    except OverflowError:
        raise InvalidInput(f"sequence {sequence} does not fit in 64 bits") from None


def _sequence(key: Any) -> int:
    return int.from_bytes(key[-8:])


def _no_payload(payload: Any) -> InvalidInput:
    return InvalidInput(f"a payload is a dict, not {type(payload).__name__}", hint="as in {'text': value}")
