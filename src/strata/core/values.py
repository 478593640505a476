"""Values: the eight kinds that can be stored, and their two encodings.

null, bool, int (64 bit), float (64 bit), str, bytes, list and map, which in Python are exactly None, bool,
int, float, str, bytes, list (or tuple) and dict. Subclasses (IntEnum, str enums, numpy.float64, named tuples,
OrderedDict) are refused, because they would come back as something else than what was put in.

Two encodings, both MessagePack in its smallest form with floats as 64 bits: `encode` keeps the order of maps,
`canonical` sorts their keys as UTF-8 bytes sort, so that equal values have equal bytes, as hashes need.

Invariant: `decode(encode(value))` is `same` as `value` for every value that `check` lets pass.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from strata.core.errors import InvalidInput, LimitExceeded

MAX_DEPTH: Final = 128
MAX_SIZE_BYTES: Final = 32 << 20
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1

encode = msgspec.msgpack.Encoder().encode
canonical = msgspec.msgpack.Encoder(order="sorted").encode
decode = msgspec.msgpack.Decoder().decode

_JSON: Final = json.JSONEncoder(ensure_ascii=False, default=lambda item: f"{len(item)} bytes")

_PLAIN: Final = frozenset({str, int, bool, bytes, type(None)})  # whose equality says it all
_CURES: Final = {
    "datetime": "use value.isoformat(), or int microseconds",
    "date": "use value.isoformat()",
    "time": "use value.isoformat()",
    "timedelta": "use value.total_seconds()",
    "UUID": "use str(value) or value.bytes",
    "Decimal": "use str(value), or float(value) if its rounding is acceptable",
    "Fraction": "use str(value), or float(value) if its rounding is acceptable",
    "complex": "use [value.real, value.imag]",
    "set": "use sorted(value) or list(value)",
    "frozenset": "use sorted(value) or list(value)",
    "bytearray": "use bytes(value)",
    "memoryview": "use bytes(value)",
    "ndarray": "use value.tolist() or value.tobytes()",
    "PosixPath": "use str(value)",
    "WindowsPath": "use str(value)",
}


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value with the commit that wrote it. In a history `deleted` marks a deletion, whose value is None."""

    value: Any
    version: int
    timestamp: datetime  # aware, UTC
    deleted: bool = False
    expires: datetime | None = None  # from then on it reads as absent; None is never


def check(value: Any, *, finite: bool = False) -> None:
    """Do nothing if `value` can be stored.

    Args:
        finite: refuse NaN and infinities too, as JSON does.
    Raises: InvalidInput naming the place inside the value (`$.a[3]`) and the cure; LimitExceeded when it is
        nested deeper than 128 containers or larger than 32 MiB in its encoding.
    """
    _walk(value, (), 0, finite)


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of equal kinds: 1 is not 1.0, True is not 1, 0.0 is not -0.0.

    NaN is the same as any NaN, the order of the keys of a map does not count, and a tuple is a list.
    """
    kind = type(one)
    if kind in _PLAIN:
        return kind is type(other) and bool(one == other)
    if isinstance(one, float) and isinstance(other, float):
        if one != one or other != other:
            return one != one and other != other
        return one == other and math.copysign(1.0, one) == math.copysign(1.0, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return type(one) is type(other) and bool(one == other)


def equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal as filters and RFC 6902 have it: 1 is 1.0, but True is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other)


def text_of(value: Any, width: int = 80) -> str:
    """Return a value on one line of at most `width` characters, as JSON where that can say it."""
    text = ""
    for piece in _JSON.iterencode(value[:width] if type(value) is str else value):
        text += piece[: width + 1]
        if len(text) > width:
            break
    return one_line(text, width)


def one_line(text: str, width: int = 200) -> str:
    """Return at most `width` characters of a text, without what breaks lines or moves a cursor."""
    shown = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text[: width + 1])
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def _walk(value: Any, path: tuple[str | int, ...], size: int, finite: bool) -> int:
    """Return `size` plus that of the encoding of `value`; refuse as soon as the limit is passed."""
    cls = type(value)
    if cls is list or cls is tuple:
        size = _open(value, path, size)
        for index, item in enumerate(value):
            size = _walk(item, (*path, index), size, finite)
    elif cls is dict:
        size = _open(value, path, size)
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidInput(
                    f"keys of maps are str; {_place(path)} has the {type(key).__name__} {key!r}",
                    hint="use str(key)",
                )
            size = _grow(size, _text(key, path))
            size = _walk(item, (*path, key), size, finite)
    else:
        size = _grow(size, _scalar(value, cls, path, finite))
    return size


def _open(
    container: list[Any] | tuple[Any, ...] | dict[Any, Any], path: tuple[str | int, ...], size: int
) -> int:
    if len(path) == MAX_DEPTH:
        raise LimitExceeded(what="depth of the value", limit=MAX_DEPTH, actual=MAX_DEPTH + 1)
    return _grow(size, _header(len(container), 15))


def _grow(size: int, more: int) -> int:
    if size + more > MAX_SIZE_BYTES:
        raise LimitExceeded(what="size of the value in bytes", limit=MAX_SIZE_BYTES, actual=size + more)
    return size + more


def _scalar(value: Any, cls: type, path: tuple[str | int, ...], finite: bool) -> int:
    if value is None or cls is bool:
        return 1
    if cls is int:
        if not INT_MIN <= value <= INT_MAX:
            raise InvalidInput(
                f"the int at {_place(path)} does not fit in 64 bits", hint="use str(value) or a float"
            )
        return _int_size(value)
    if cls is float:
        if finite and not math.isfinite(value):
            raise InvalidInput(f"{value} at {_place(path)} is no JSON number", hint="use None or a str")
        return 9
    if cls is str:
        return _text(value, path)
    if cls is bytes:
        return _header(len(value), -1) + len(value)
    raise InvalidInput(f"{_kind(cls)} at {_place(path)} cannot be stored", hint=_cure(value, cls))


def _header(count: int, tiny: int) -> int:
    """Bytes before the content: `tiny` is the largest count that fits into the first byte."""
    if count <= tiny:
        return 1
    if tiny != 15 and count < 1 << 8:  # lists and maps have no form with one byte of length
        return 2
    return 3 if count < 1 << 16 else 5


def _int_size(value: int) -> int:
    if -32 <= value < 128:
        return 1
    bits = value.bit_length() if value >= 0 else (-value - 1).bit_length() + 1
    return next(1 + size for size in (1, 2, 4, 8) if bits <= size * 8)


def _text(text: str, path: tuple[str | int, ...]) -> int:
    try:
        count = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput(
            f"the str at {_place(path)} has a lone surrogate and is no Unicode text", hint="use bytes"
        ) from None
    return _header(count, 31) + count


def _kind(cls: type) -> str:
    article = "an" if cls.__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {cls.__name__}"


def _cure(value: Any, cls: type) -> str:
    if cls.__name__ in _CURES:
        return _CURES[cls.__name__]
    if hasattr(cls, "__dataclass_fields__"):
        return "use dataclasses.asdict(value)"
    if hasattr(cls, "_member_map_"):
        return "use value.value"
    if cls.__module__.partition(".")[0] == "numpy":
        return "use value.item()"
    for base in (bool, int, float, str, bytes, list, tuple, dict):
        if isinstance(value, base):
            return f"use {base.__name__}(value)"
    return "a value is None, bool, int, float, str, bytes, list or dict"


def _place(path: tuple[str | int, ...]) -> str:
    from strata.core.paths import (
        render,
    )  # paths needs nothing of ours; imported here so that hot calls do not pay

    return render(path)
