"""What the values of a column have in common, for formats whose columns have types.

A column in which all are integers, floats, texts, bytes, booleans or vectors is one of those; any other holds
JSON texts, with the tags of `strata.api.plain`. None stands in all of them.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from strata.api.plain import decode_json, encode_json
from strata.cli.formats import Records

Kind = Literal["int", "float", "text", "bytes", "bool", "vector", "json"]
_KINDS: dict[type, Kind] = {
    bool: "bool", int: "int", float: "float", str: "text", bytes: "bytes", memoryview: "vector",
}  # fmt: skip


def survey(records: Records, columns: tuple[str, ...], exact_floats: bool) -> dict[str, Kind]:
    """Return the columns of all records, in the order in which they come, and what they hold.

    Args:
        columns: those that are there in any case.
        exact_floats: whether the format can say NaN, infinities and -0.0.
    """
    found: dict[str, set[Kind]] = {name: set() for name in columns}
    for record in records():
        for name, value in record.items():
            kinds = found.setdefault(name, set())
            if value is not None:
                kinds.add(_kind(value, exact_floats))
    return {name: next(iter(kinds)) if len(kinds) == 1 else "json" for name, kinds in found.items()}


def _kind(value: Any, exact_floats: bool) -> Kind:
    kind = _KINDS.get(type(value), "json")
    if kind == "float" and not exact_floats:
        odd = not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)
        return "json" if odd else kind
    return kind


def to_text(value: Any) -> str | None:
    """Return a value as it stands in a column of JSON texts."""
    return None if value is None else encode_json(listed(value)).decode()


def from_text(text: str | None) -> Any:
    """Return the value that stands in a column of JSON texts.

    Raises: InvalidInput for what is no JSON.
    """
    return None if text is None else decode_json(text)


def listed(value: Any) -> Any:
    """Return a vector as a list, and all else as it is."""
    return value.tolist() if isinstance(value, memoryview) else value
