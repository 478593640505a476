"""From a filter to an index: which rows to look at, and what to ask of each.

Of the conditions that must all hold, an ordered index answers those that say what its first paths are equal
to and, of the path behind them, within which bounds it is. Whatever is found is held against the whole
filter, so an index only ever saves work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from strata.core.paths import parse, render
from strata.core.protocols import Bound, IndexRow, Path

_SCALARS: Final = (bool, int, float, str, bytes)
_BOUNDS: Final = ("gt", "gte", "lt", "lte")


class FindPlan(msgspec.Struct, frozen=True):
    """How a filter is answered."""

    index: str | None  # None: every document is read
    ranges: tuple[tuple[Bound, Bound], ...]  # of leading values of the index: from, to, and whether inside
    answered: tuple[str, ...]  # the paths whose conditions the index answers
    checked: tuple[str, ...]  # the conditions that are left for each document found
    order: bool = False  # whether rows come in the order that was asked for
    exact: bool = False  # whether what the index finds passes the filter, so that nobody need look

    def __str__(self) -> str:
        if self.index is None:
            return "read every document" + (f", check {', '.join(self.checked)}" if self.checked else "")
        what = f"{len(self.ranges)} range{'s' * (len(self.ranges) != 1)} of {self.index}"
        by = f" for {', '.join(self.answered)}" if self.answered else ""
        return f"{what}{by}" + (f", check {', '.join(self.checked)}" if self.checked else "")


def plan(
    where: Mapping[str, Any],
    indexes: Sequence[IndexRow],
    base: Path,
    prefix: str | None,
    order_by: str | None,
) -> FindPlan:
    """Return the plan that looks at the fewest rows, as far as the filter tells; if need be without an index.

    Args:
        where: a filter that `core.where.compile` has taken.
        base: where in a stored row the value is that the filter is about.
        order_by: the path by whose values rows are to come.
    """
    wanted = {
        (*base, *_path(name)): value for name, value in where.items() if name not in ("and", "or", "not")
    }
    best: tuple[tuple[int, ...], FindPlan] | None = None
    for row in indexes:
        if row[4]["type"] != "ordered" or not (prefix or "").encode().startswith(row[3]):
            continue
        found = _use(row, where, wanted, base, None if order_by is None else (*base, *_path(order_by)))
        if found is not None and (best is None or found[0] > best[0]):
            best = found
    if best is None:
        return FindPlan(None, (), (), tuple(map(str, where)))
    return best[1]


def _use(
    row: IndexRow, where: Mapping[str, Any], wanted: dict[Path, Any], base: Path, order: Path | None
) -> tuple[tuple[int, ...], FindPlan] | None:
    """Return how well an index serves, and how; None where it does not."""
    paths = [tuple(path) for path in row[4]["paths"]]
    equal: list[Any] = []
    while len(equal) < len(paths) and _is_equality(wanted.get(paths[len(equal)], _NOTHING)):
        equal.append(_value(wanted[paths[len(equal)]]))
    ranges: list[tuple[Bound, Bound]] = []
    behind = paths[len(equal)] if len(equal) < len(paths) else None
    condition = wanted.get(behind, _NOTHING) if behind is not None else _NOTHING
    if condition is not _NOTHING:
        ranges = _ranges(equal, condition)
    is_used = bool(ranges)
    is_ordered = order is not None and order in (behind, *paths[:1]) and (behind == order or len(equal) == 1)
    if not ranges and equal:
        # In an order, what has no value there is left out: null is the first value that there is.
        start = [*equal, None] if is_ordered and behind == order else equal
        ranges = [((start, True), (equal, True))]
    if not ranges and is_ordered and paths[0] == order:
        # All that have the path: those that do not would be last, and nobody asked for an order of them.
        ranges = [(None, None)]
    if not ranges or (order is not None and not is_ordered):
        return None
    answered = paths[: len(equal)] + ([behind] if is_used and behind is not None else [])
    left = [name for name in where if name in ("and", "or", "not") or (*base, *_path(name)) not in answered]
    made = FindPlan(
        row[0],
        tuple(ranges),
        tuple(render(path[len(base) :]) for path in answered),
        tuple(map(str, left)),
        is_ordered and len(ranges) == 1,
        # Of two conditions on one path, written otherwise, one would be missing.
        not left and len(wanted) == len(where) and all(_is_exact(wanted[path]) for path in answered),
    )
    return (len(equal), int(is_used), -len(ranges), -len(paths)), made


_NOTHING: Final = object()


def _path(name: str) -> Path:
    return parse(name) if name[:1] in ("$", "/", "") else (name,)


def _is_scalar(value: Any) -> bool:
    # NaN equals nothing, and what is in a list or a map no index tells apart.
    return (value is None or isinstance(value, _SCALARS)) and value == value


def _is_equality(condition: Any) -> bool:
    if isinstance(condition, Mapping):
        return "eq" in condition and _is_scalar(condition["eq"])
    return condition is not _NOTHING and _is_scalar(condition)


def _is_exact(condition: Any) -> bool:
    """Return whether the ranges made of a condition hold what passes it, and nothing else."""
    if not isinstance(condition, Mapping):
        return True
    if len(condition) == 1:
        return next(iter(condition)) in ("eq", "in", "exists", *_BOUNDS)
    # A lower and an upper bound, both numbers or both texts.
    texts = {isinstance(value, str) for value in condition.values()}
    is_pair = len(condition) == 2 and {name[:2] for name in condition} == {"gt", "lt"}
    return is_pair and len(texts) == 1 and all(map(_bounds, condition.values()))


def _bounds(value: Any) -> bool:
    """Return whether a value can bound a range."""
    return type(value) in (int, float, str) and value == value


def _value(condition: Any) -> Any:
    return condition["eq"] if isinstance(condition, Mapping) else condition


def _ranges(equal: list[Any], condition: Any) -> list[tuple[Bound, Bound]]:
    """Return the ranges in which a condition on the path behind `equal` may hold; none where that is all."""
    if not isinstance(condition, Mapping):
        return []
    if "in" in condition and all(map(_is_scalar, condition["in"])):
        values: list[Any] = []
        for value in condition["in"]:
            if not any(
                value == other and isinstance(value, bool) == isinstance(other, bool) for other in values
            ):
                values.append(value)
        return [(([*equal, value], True), ([*equal, value], True)) for value in values]
    start: Bound = None
    end: Bound = None
    for name in _BOUNDS:
        value = condition.get(name, _NOTHING)
        if not _bounds(value):
            continue
        if name in ("gt", "gte"):
            start = [*equal, value], name == "gte"
        else:
            end = [*equal, value], name == "lte"
    if start is None and end is None:
        return [(None, None)] if condition.get("exists") is True and not equal else []
    if start is not None and end is not None and isinstance(start[0][-1], str) != isinstance(end[0][-1], str):
        return [(start, None)]  # a number and a text: nothing is between, as the check will say
    return [(start, end)]
