"""How much one answer holds: reads that may find much are answered in pieces, and asked again for the rest.

So that nobody waits long for what another one asked, and an answer takes little memory, whatever it is of.

    scan, scan_keys, history, by_value, commits   [rows, whether more may follow]
    writes                                        [rows, up to which version they are]
    get_many                                      values of the first of the keys, at least of one
    page (of a diff)                              at most so many as were asked for, and none at the end

An answer ends with the row that makes it `PAGE_BYTES` long. Where a store gives several rows at a time there
may be `_STEP` rows of the largest size behind that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from strata.core.errors import InvalidInput
from strata.wire.frames import encode_body

PAGE_ROWS: Final = 1_024  # about a millisecond of work
PAGE_KEYS: Final = 4_096  # of an index, where to begin behind what was skipped costs as much as that
PAGE_BYTES: Final = 1 << 20
_STEP: Final = 8
_COMMITS: Final = 256

More = tuple[list[Any], bool]


def _most(limit: Any, most: int) -> Any:
    """Return how many rows are asked of the store, which says what is wrong with a limit that is none."""
    return min(limit, most) if type(limit) is int else most if limit is None else limit


def _goes_on(rows: Sequence[Any], most: int, limit: int | None) -> bool:
    """Return whether more may follow than the rows that were found, of which there may be `most`."""
    return len(rows) >= most and (limit is None or len(rows) < limit)


def scan(thing: Any, prefix: Any, start: Any, end: Any, reverse: Any, limit: Any) -> More:
    rows, is_cut = thing.scan_page(prefix, start, end, reverse, _most(limit, PAGE_ROWS), PAGE_BYTES)
    return rows, is_cut and (limit is None or len(rows) < limit)


def scan_keys(thing: Any, prefix: Any, start: Any, end: Any, reverse: Any, limit: Any) -> More:
    most = _most(limit, PAGE_ROWS)
    keys = thing.scan_keys(prefix, start, end, reverse, most)
    return keys, _goes_on(keys, most, limit)


def by_value(thing: Any, index: Any, start: Any, end: Any, reverse: Any, limit: Any, skip: Any = 0) -> More:
    most = _most(limit, PAGE_KEYS)
    rows = thing.by_value(index, start, end, reverse, most, skip)
    return rows, _goes_on(rows, most, limit)


def history(thing: Any, key: Any, before: Any, limit: Any) -> More:
    most = _most(limit, PAGE_ROWS)
    rows: list[Any] = []
    size = 0
    while True:
        step = min(_STEP, most - len(rows))
        found = thing.history(key, before, step)
        rows += found
        size += len(encode_body(found))
        if len(found) < step or step <= 0:
            return rows, False
        if size >= PAGE_BYTES or len(rows) >= most:
            return rows, limit is None or len(rows) < limit
        before = found[-1][1]


def get_many(thing: Any, keys: Any, default: Any) -> list[Any]:
    if not isinstance(keys, list):
        raise InvalidInput("keys are an array")
    values: list[Any] = []
    size = 0
    while len(values) < min(len(keys), PAGE_ROWS) and size < PAGE_BYTES:
        found = thing.get_many(keys[len(values) : len(values) + _STEP], default)
        values += found
        size += len(encode_body(found))
    return values


def commits(thing: Any, after: Any, before: Any, reverse: Any, limit: Any) -> More:
    most = _most(limit, PAGE_ROWS)
    rows = thing.commits(after, before, reverse, most)
    return rows, _goes_on(rows, most, limit)


def writes(thing: Any, after: int, upto: int) -> tuple[list[Any], int]:
    rows: list[Any] = []
    size = 0
    for until in _steps(thing, after, upto):
        found = thing.writes(after, until)
        rows += found
        after = until
        size += len(encode_body(found))
        if len(rows) >= PAGE_ROWS or size >= PAGE_BYTES:
            break
    return rows, after


def _steps(thing: Any, after: int, upto: int) -> list[int]:
    """Return versions up to which to go, one after the other: with a few commits between two of them."""
    found = thing.commits(after, upto + 1, False, _COMMITS)
    ends = [commit.version for commit in found[_STEP - 1 :: _STEP]]
    if len(found) == _COMMITS:
        return ends
    return [*ends, upto] if ends[-1:] != [upto] else ends


def page(thing: Any, limit: Any) -> list[Any]:
    most = _most(limit, PAGE_ROWS)
    rows: list[Any] = thing.page(min(_STEP, most))
    size = len(encode_body(rows))
    while rows and len(rows) < most and size < PAGE_BYTES:
        found = thing.page(min(_STEP, most - len(rows)))
        if not found:
            break
        rows += found
        size += len(encode_body(found))
    return rows
