"""Filters on values: what `json.find` and vector queries take as `where`.

    {"$.status": "open", "$.age": {"gte": 18, "lt": 65}}        all must hold
    {"or": [{...}, {...}]}   {"and": [...]}   {"not": {...}}

A plain value means `eq`, and a dict must consist of operators (`{"eq": {...}}` compares with a map). Paths
without `$` or `/` are one key. Numbers compare by value, 1 and 1.0 alike; order exists only between two
numbers or two texts, elsewhere `gt` and its kin are false. A missing path satisfies `ne` and `exists: False`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from strata.core.errors import InvalidInput
from strata.core.patches import ABSENT, get_path
from strata.core.paths import parse
from strata.core.protocols import Path
from strata.core.values import equal

Test = Callable[[Any], bool]


def compile(where: Mapping[str, Any]) -> Test:
    """Return a function that tells whether a value passes `where`.

    Raises: InvalidInput for an unknown operator or a bad path, so that a typo never matches all.
    """
    if not isinstance(where, Mapping):
        raise InvalidInput(f"where is a dict, not {type(where).__name__}", hint="as in {'$.status': 'open'}")
    return _all([_clause(name, wanted) for name, wanted in where.items()])


def _clause(name: Any, wanted: Any) -> Test:
    if name in ("and", "or"):
        if not isinstance(wanted, (list, tuple)):
            raise InvalidInput(f"{name!r} takes a list of filters, not {type(wanted).__name__}")
        tests = [compile(part) for part in wanted]
        return _all(tests) if name == "and" else lambda value: any(test(value) for test in tests)
    if name == "not":
        test = compile(wanted)
        return lambda value: not test(value)
    return _at(_path(name), wanted)


def _at(path: Path, wanted: Any) -> Test:
    if not isinstance(wanted, Mapping):
        wanted = {"eq": wanted}
    if not wanted:
        raise InvalidInput(
            "an empty dict is no condition", hint="use {'eq': {}} to compare with an empty map"
        )
    unknown = [name for name in wanted if name not in OPERATORS]
    if unknown:
        raise InvalidInput(
            f"{unknown[0]!r} is no operator; there are {', '.join(OPERATORS)}",
            hint="use {'eq': ...} to compare maps",
        )
    _check_operands(wanted)
    tests = [(OPERATORS[name], operand) for name, operand in wanted.items()]

    def test(value: Any) -> bool:
        found = get_path(value, path, ABSENT)
        return all(operator(found, operand) for operator, operand in tests)

    return test


def _check_operands(wanted: Mapping[str, Any]) -> None:
    if not isinstance(wanted.get("in", ()), (list, tuple)):
        raise InvalidInput("'in' takes a list of values")
    if not isinstance(wanted.get("exists", True), bool):
        raise InvalidInput("'exists' takes True or False")


def _all(tests: list[Test]) -> Test:
    return lambda value: all(test(value) for test in tests)


def _path(name: Any) -> Path:
    return parse(name) if type(name) is not str or name[:1] in ("$", "/", "") else (name,)


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _ordered(one: Any, other: Any) -> bool:
    return (_number(one) and _number(other)) or (type(one) is str and type(other) is str)


def _contains(found: Any, wanted: Any) -> bool:
    if type(found) is str:
        return type(wanted) is str and wanted in found
    if type(found) is list:
        return any(equal(item, wanted) for item in found)
    return type(found) is dict and type(wanted) is str and wanted in found


OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": equal,
    "ne": lambda found, wanted: not equal(found, wanted),
    "gt": lambda found, wanted: _ordered(found, wanted) and found > wanted,
    "gte": lambda found, wanted: _ordered(found, wanted) and found >= wanted,
    "lt": lambda found, wanted: _ordered(found, wanted) and found < wanted,
    "lte": lambda found, wanted: _ordered(found, wanted) and found <= wanted,
    "in": lambda found, wanted: any(equal(found, item) for item in wanted),
    "contains": _contains,
    "exists": lambda found, wanted: (found is not ABSENT) is wanted,
}
