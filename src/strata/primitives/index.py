"""Things that are found by label and time: what traces and runs share.

    id                                  the thing, a map; ids have no NUL, so all things lie behind all labels
    0x00, letter, label, 0x00, time, id a null, one for each label that it is found by

The letter says what kind of label it is (a tag, a parent, ...). Time is microseconds since 1970 plus 2**63 as
8 bytes big-endian, so that bytes sort as instants do.

Invariant: the second kind of rows follows from the first (`_index`). Whoever writes a thing writes them in
the same commit; whoever merges may pass over them and make them anew; whoever forgets a thing forgets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, Final, cast

from strata.core.clock import to_micros
from strata.core.errors import InvalidInput
from strata.core.keys import check_name
from strata.core.merging import Merged, Three, Write, merge_keys
from strata.core.protocols import Txn
from strata.core.values import INT_MIN
from strata.primitives.base import Primitive, pages

Instant = datetime | str | None  # None is open
ALL: Final = "a"  # the letter under which everything is found
_TIME_BYTES: Final = 8
_TIMES: Final = range(-62_135_596_800_000_000, 253_402_300_800_000_000)  # what a datetime can say
_THINGS: Final = b"\x01"  # the first key that can be an id


class Indexed(Primitive):
    """One keyspace of things with labels, as one transaction sees it."""

    _DERIVES: ClassVar[bool] = True
    _TIME: ClassVar[str]  # the field by which things are in order

    __slots__ = ()

    @classmethod
    def _labels(cls, thing: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (letter, label) of all that `thing` is found by, besides ALL."""
        raise NotImplementedError

    @classmethod
    def _index(cls, id: bytes, thing: dict[str, Any]) -> list[bytes]:
        """Return the keys of the rows by which a thing is found."""
        end = _time(thing[cls._TIME]) + id
        return [_prefix(letter, label) + end for letter, label in ((ALL, ""), *cls._labels(thing))]

    @classmethod
    def _name(cls, key: bytes) -> str | None:
        return None if key < _THINGS else key.decode()

    @classmethod
    def _place(cls, name: str) -> bytes:
        return check_name(name, f"id in {cls.LAYOUT.kind}").encode()

    @classmethod
    def _merge(cls, three: Three) -> Merged:
        """Two things with one id: one side or the other is taken, as a thing is not made by a merge."""

        def take(value: Any) -> Write:
            raise InvalidInput(
                f"what both sides of a merge have in {cls.LAYOUT.kind} under one id is not replaced",
                hint="take_source() or take_target()",
            )

        merged = merge_keys(three)
        return Merged(merged.writes, [replace(clash, take=take) for clash in merged.clashes])

    @classmethod
    def _follows(cls, key: bytes, value: Any) -> list[bytes]:
        return [] if key < _THINGS else cls._index(key, value)

    def _ids(
        self, letter: str, label: str, start: Instant, end: Instant, reverse: bool, limit: int | None
    ) -> tuple[Txn, Iterator[bytes]]:
        """Return the ids of what is found by a label, in order of time, and the version to read them at."""
        txn = self._txn.pinned()
        prefix, low, high = _bounds(letter, label, start, end)
        keys = pages(txn.scan_keys, prefix, low, high, reverse, limit, self._check_space)
        return txn, (key[len(prefix) + _TIME_BYTES :] for key in keys)

    def _counted(self, letter: str, label: str, start: Instant = None, end: Instant = None) -> int:
        return self._count(*_bounds(letter, label, start, end))


def _bounds(
    letter: str, label: str, start: Instant, end: Instant
) -> tuple[bytes, bytes | None, bytes | None]:
    prefix = _prefix(letter, label)
    low = None if start is None else prefix + _time(to_micros(start))
    high = None if end is None else prefix + _time(to_micros(end))
    return prefix, low, high


def _prefix(letter: str, label: str) -> bytes:
    return f"\0{letter}{label}\0".encode()


def _time(micros: int) -> bytes:
    return (micros - INT_MIN).to_bytes(_TIME_BYTES)


def check_tags(tags: Any) -> list[str]:
    """Return `tags` as a list, each once, if all of them may be tags."""
    if tags == ():
        return []
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise InvalidInput(f"tags are a list of texts, not {tags!r}", hint="as in tags=['search']")
    return list(dict.fromkeys(check_name(tag, "tag") for tag in tags))


def check_metadata(metadata: Any) -> dict[str, Any]:
    """Return `metadata` if it is a map; what is in it is checked by whoever stores it."""
    if metadata is not None and type(metadata) is not dict:
        raise InvalidInput(f"metadata is a dict, not {type(metadata).__name__}")
    return cast(dict[str, Any], metadata or {})


def check_instant(instant: Any, what: str) -> int:
    """Return an instant in microseconds: an int of them, an aware datetime, or ISO 8601 with an offset."""
    if type(instant) is not int:
        return to_micros(instant)
    if instant not in _TIMES:
        raise InvalidInput(f"{what} {instant} is in no year from 1 to 9999", hint="it counts microseconds")
    return instant
