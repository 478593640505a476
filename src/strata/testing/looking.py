"""What indexes say, by looking at every row: the oracle of `Txn.by_value` and `Txn.by_text`.

Text is read by the kernel's own reader, whose words have tests of their own; the ranking is written down here
once more. Queries are plain words.
"""

from __future__ import annotations

import math
import operator
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from strata.core.patches import ABSENT, get_path
from strata.core.protocols import Bound, IndexRow, Key, Passes
from strata.store import TextReader

# Key, version and stored value of a row.
Seen = tuple[Key, int, Any]
Order = tuple[tuple[int, Any], ...]
_MISSING: Final = (0, 0)
_NUMBER, _TEXT = 3, 4


def by_value(index: IndexRow, rows: Iterable[Seen], start: Bound, end: Bound) -> list[tuple[Order, Seen]]:
    """Return the rows between two bounds, in order."""
    inside = _between(start, end)
    found = []
    for row in _of(index, rows):
        order = _order(row[2], index[4]["paths"])
        if order is not None and inside(order):
            found.append((order, row))
    return sorted(found, key=lambda found: (found[0], _bytes(found[1][0])))


def by_text(index: IndexRow, rows: Iterable[Seen], query: str, passing: Callable[[Seen], bool]) -> list[Any]:
    """Return (key, version, score) of the rows that have a word of `query`, best first."""
    spec = index[4]
    reader = TextReader(spec)
    weights = [part["weight"] for part in spec["fields"]]
    documents = []
    for row in _of(index, rows):
        counts = [
            Counter(
                term
                for text in _texts(get_path(row[2], tuple(part["path"]), ABSENT))
                for term, _ in reader.terms(text)
            )
            for part in spec["fields"]
        ]
        length = sum(count.total() for count in counts)
        if length:
            documents.append((row, counts, length))
    words = [term for term, _ in reader.terms(query)]
    average = sum(length for _, _, length in documents) / max(1, len(documents))
    hits = []
    having = {
        word: sum(any(word in count for count in counts) for _, counts, _ in documents) for word in words
    }
    for row, counts, length in documents:
        score, has_any = 0.0, False
        for word in words:
            tf = sum(weight * count[word] for weight, count in zip(weights, counts, strict=True))
            if tf:
                has_any = True
                df = having[word]
                idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
                norm = spec["k1"] * (1 - spec["b"] + spec["b"] * length / average)
                score += idf * (spec["k1"] + 1) * tf / (tf + norm)
        if has_any and passing(row):
            hits.append((row[0], row[1], score))
    return sorted(hits, key=lambda hit: (-hit[2], _bytes(hit[0])))


def by_vector(
    index: IndexRow, rows: Iterable[Seen], query: bytes, passing: Callable[[Seen], bool]
) -> list[tuple[Key, int, float]]:
    """Return (key, version, score) of the rows that have a vector, nearest first."""
    spec, asked = index[4], _vector(query)
    assert asked is not None
    hits = []
    for row in _of(index, rows):
        vector = _vector(get_path(row[2], tuple(spec["path"]), ABSENT))
        if vector is not None and len(vector) == spec["dim"] and passing(row):
            hits.append((row[0], row[1], _nearness(spec["metric"], asked, vector)))
    return sorted(hits, key=lambda hit: (-hit[2], _bytes(hit[0])))


def _vector(value: Any) -> list[float] | None:
    if isinstance(value, bytes):
        return list(struct.unpack(f"<{len(value) // 4}f", value)) if len(value) % 4 == 0 else None
    is_list = isinstance(value, list) and all(type(number) in (int, float) for number in value)
    return array("f", value).tolist() if is_list else None


def _nearness(metric: str, a: list[float], b: list[float]) -> float:
    if metric == "euclidean":
        return 1 / (1 + math.dist(a, b))
    product = math.fsum(map(operator.mul, a, b))
    if metric == "dot":
        return product
    length = math.hypot(*a) * math.hypot(*b)
    return product / length if length else 0.0


def passes(
    filters: Passes | None, rows: list[Seen], index_of: Callable[[str], IndexRow]
) -> Callable[[Seen], bool]:
    """Return a function that tells whether a row may be a hit."""
    filters = filters or {}
    allowed: set[Key] | None = None
    for name, ranges in filters.get("values", ()):
        inside = {row[0] for start, end in ranges for _, row in by_value(index_of(name), rows, start, end)}
        allowed = inside if allowed is None else allowed & inside
    if "keys" in filters:
        keys = set(filters["keys"])
        allowed = keys if allowed is None else allowed & keys
    prefix, (first, last) = filters.get("prefix"), filters.get("written", (0, math.inf))

    def test(row: Seen) -> bool:
        begins = prefix is None or _bytes(row[0]).startswith(_bytes(prefix))
        return (allowed is None or row[0] in allowed) and begins and first <= row[1] <= last

    return test


def _of(index: IndexRow, rows: Iterable[Seen]) -> Iterable[Seen]:
    return (row for row in rows if _bytes(row[0]).startswith(index[3]))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return [text for item in value.values() for text in _texts(item)] if isinstance(value, dict) else []


def _order(value: Any, paths: list[list[Any]]) -> Order | None:
    parts = [get_path(value, tuple(path), ABSENT) for path in paths]
    return None if parts[0] is ABSENT else tuple(_rank(part) for part in parts)


def _rank(value: Any) -> tuple[int, Any]:
    if value is ABSENT:
        return _MISSING
    if value is None:
        return 1, 0
    if isinstance(value, bool):
        return 2, value
    if isinstance(value, (int, float)):
        return _NUMBER, value
    if isinstance(value, str):
        return _TEXT, value.encode()
    return (5, value) if isinstance(value, bytes) else (6, 0)


def _between(start: Bound, end: Bound) -> Callable[[Order], bool]:
    low = start and tuple(map(_rank, start[0]))
    high = end and tuple(map(_rank, end[0]))

    def inside(order: Order) -> bool:
        if low and start and not (order[: len(low)] > low or (start[1] and order[: len(low)] == low)):
            return False
        if high and end and not (order[: len(high)] < high or (end[1] and order[: len(high)] == high)):
            return False
        only = low or high
        if not only or (low and high) or only[-1][0] not in (_NUMBER, _TEXT):
            return True
        last = len(only) - 1
        return order[:last] == only[:last] and order[last][0] == only[last][0]

    return inside


def _bytes(key: Key) -> bytes:
    return key.encode() if isinstance(key, str) else key
