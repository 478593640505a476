"""Plain data: what operations take and return, as any language and any encoding can carry it.

    plain data   None, bool, int, float, str, bytes, lists, maps with text keys: MessagePack says all of it
    JSON         the same, with two tagged maps for what JSON lacks:
                 {"$bytes": base64} and {"$float": "nan" | "inf" | "-inf"}

A map of a user that has one key, and that key is one of these tags, gets one more `$` in front; so does one
that already looks escaped (`$$bytes`). All other keys, `$ref` and `$.path` among them, stay as they are.

Records become maps of their fields, without those that begin with `_` or are ABSENT; times ISO 8601 texts in
UTC, durations seconds, refs their text, retention policies `{"last", "for_s", "both"}`, vectors lists.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from strata.core.brief import brief
from strata.core.errors import InvalidInput, StrataError
from strata.core.patches import ABSENT
from strata.core.refs import EntityRef
from strata.core.retention import Combined, KeepAll, KeepFor, KeepLast, bounds_of
from strata.search.results import Hit

MAX_DEPTH: Final = 512  # of JSON: values have 128 levels, and an explanation 100 of two each

_TAG: Final = re.compile(r"\$+(bytes|float)")
_NOT_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_ATOMS: Final = frozenset({str, int, bool, float, bytes, type(None)})


def plain(value: Any) -> Any:
    """Return what an operation returned as plain data."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return {str(key): plain(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(value)
    if isinstance(value, msgspec.Struct):
        return _record(value, value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return _record(value, (field.name for field in dataclasses.fields(value)))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    raise TypeError(f"{kind.__name__} has no plain form")  # a bug of ours: the catalogue's test sees it


def _record(record: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a record; one that holds ABSENT (a side of a conflict) is left out."""
    found = {name: getattr(record, name) for name in names if name[0] != "_"}
    return {name: plain(value) for name, value in found.items() if value is not ABSENT}


def error_data(error: StrataError) -> dict[str, Any]:
    """Return an error as plain data: its code, message, hint and typed fields."""
    fields = {name: _field(value) for name, value in error.fields().items()}
    return {"code": error.code, "message": error.message, "hint": error.hint, "fields": fields}


def _field(value: Any) -> Any:
    try:
        return plain(value)
    except TypeError:
        return str(value)  # an error must get through, whatever was put into it


def to_json(data: Any) -> Any:
    """Return plain data as JSON can say it, with tags for bytes, NaN and infinities."""
    if type(data) is bytes:
        return {"$bytes": base64.b64encode(data).decode()}
    if type(data) is float and not math.isfinite(data):
        return {"$float": "nan" if data != data else "inf" if data > 0 else "-inf"}
    if type(data) is list or type(data) is tuple:
        return [to_json(item) for item in data]
    if type(data) is dict:
        if len(data) == 1 and _TAG.fullmatch(str(key := next(iter(data)))):
            return {f"${key}": to_json(data[key])}
        return {str(key): to_json(item) for key, item in data.items()}
    return data


def from_json(data: Any, depth: int = MAX_DEPTH) -> Any:
    """Return the plain data that JSON, once decoded, stands for.

    Raises: InvalidInput for a tag that holds something else, and for what is nested too deep.
    """
    if type(data) is list:
        _check_depth(depth)
        return [from_json(item, depth - 1) for item in data]
    if type(data) is not dict:
        return data
    _check_depth(depth)
    if len(data) == 1 and _TAG.fullmatch(key := next(iter(data))):
        if key.startswith("$$"):
            return {key[1:]: from_json(data[key], depth - 1)}
        return _untagged(key, data[key])
    return {key: from_json(item, depth - 1) for key, item in data.items()}


def encode_json(data: Any) -> bytes:
    """Return plain data as the bytes of its JSON."""
    return msgspec.json.encode(to_json(data))


def decode_json(text: bytes | str) -> Any:
    """Return the plain data that a JSON text stands for.

    Raises: InvalidInput for what is no JSON.
    """
    try:
        return from_json(msgspec.json.decode(text))
    except RecursionError:
        raise InvalidInput("this is no JSON: nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"this is no JSON: {error}") from None


def _check_depth(depth: int) -> None:
    if depth <= 0:
        raise InvalidInput(f"JSON is nested deeper than {MAX_DEPTH} levels")


def _untagged(tag: str, data: Any) -> Any:
    if tag == "$float" and type(data) is str and data in _NOT_FINITE:
        return _NOT_FINITE[data]
    try:
        if tag == "$bytes":
            return base64.b64decode(data, validate=True)
    except (binascii.Error, TypeError, ValueError):
        pass
    hint = "base64, as in {'$bytes': 'aGk='}" if tag == "$bytes" else "one of nan, inf, -inf"
    raise InvalidInput(f"{brief(data)} is nothing that {tag} can hold", hint=hint)


def _hit(hit: Hit) -> dict[str, Any]:
    """Return a hit with what it reads when it is asked for it."""
    return {
        "ref": str(hit.ref),
        "key": hit.key,
        "score": hit.score,
        "rank": hit.rank,
        "signals": plain(dict(hit.signals)),
        "value": plain(hit.value),
        "snippet": plain(hit.snippet),
    }


def _policy(policy: Any) -> dict[str, Any]:
    last, micros, both = bounds_of(policy)
    return {"last": last, "for_s": None if micros is None else micros / 1e6, "both": both}


_SPECIAL: Final[dict[type[Any], Callable[[Any], Any]]] = {
    EntityRef: str,
    datetime: lambda time: time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    timedelta: timedelta.total_seconds,
    memoryview: lambda view: view.tolist(),
    Hit: _hit,
    **dict.fromkeys((KeepAll, KeepLast, KeepFor, Combined), _policy),
}
