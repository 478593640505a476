"""Plain: what history finds, as JSON can say it.

Bytes become {"bytes": base64}, NaN and infinities {"float": text}; times become ISO 8601, refs their text.
Records become maps, without the fields that are empty.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from datetime import datetime
from typing import Any

import msgspec

from strata.core.refs import EntityRef


def plain(value: Any) -> Any:
    """Return `value` as maps, lists, texts, numbers, booleans and None."""
    if isinstance(value, msgspec.Struct):
        return _fields({name: getattr(value, name) for name in value.__struct_fields__})
    if isinstance(value, EntityRef):
        return str(value)
    if dataclasses.is_dataclass(value):
        return _fields({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value.isoformat() if isinstance(value, datetime) else value


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that say something. What its user put there is always kept."""
    return {
        name: plain(value)
        for name, value in fields.items()
        if name in ("value", "payload") or not (value is None or value == () or value == {} or value is False)
    }
