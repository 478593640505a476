"""Patches: changes inside a value, as `protocols.PatchOp` lists them, on plain Python values.

This is the specification of what the kernel does on encoded values; the model uses it, and `Json` to foresee
what its own operations will have done.

A patch *touches* regions, each a path; two patches conflict when a region of one holds a region of the other:

    set at a map key or list index     that path, with indexes counted from the start
    delete at a map key                that path, also when it is missing
    insert, append, delete in a list   the path of the list: everything behind may move
    merge                              one region per leaf; where it replaces what is no map, that place

Invariant: values are never changed in place; what is not on a path is shared between before and after.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final

from strata.core.errors import InvalidInput
from strata.core.paths import render
from strata.core.protocols import PatchOp, Path, Step

ABSENT: Final[Any] = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()


def get_path(value: Any, path: Path, default: Any = None) -> Any:
    """Return what is at `path` inside `value`, or `default` when a step is missing or fits no container."""
    for step in path:
        if type(value) is dict and isinstance(step, str) and step in value:
            value = value[step]
        elif type(value) is list and (index := _index(value, step)) is not None:
            value = value[index]
        else:
            return default
    return value


def resolve(value: Any, path: Path) -> Path:
    """Return the region that a read of `path` depends on: indexes counted from the start.

    Where a list has no such place, it is the list's own path, since only a structural change can make one.
    """
    at: Path = ()
    for step in path:
        if type(value) is list and not isinstance(step, str):
            step = _index(value, step)
            if step is None:
                break
        at = (*at, step)
        value = get_path(value, (step,), ABSENT)
    return at


def apply(value: Any, ops: Iterable[PatchOp]) -> tuple[Any, list[Path]]:
    """Return `value` (ABSENT if none) after all of `ops`, and the outermost regions that they touched.

    Raises: InvalidInput for an index beyond the end and for a step into what is not a fitting container.
    """
    regions: list[Path] = []
    for op in ops:
        value = _apply_one(value, op, regions)
    return value, outermost(regions)


def outermost(regions: Iterable[Path]) -> list[Path]:
    """Return the regions that lie in no other one."""
    kept: list[Path] = []
    for region in sorted(set(regions), key=len):
        if not any(region[: len(outer)] == outer for outer in kept):
            kept.append(region)
    return kept


def _apply_one(value: Any, op: PatchOp, regions: list[Path]) -> Any:
    kind, path, *rest = op
    if kind == "delete":
        if not path:
            raise InvalidInput("the root of a value cannot be deleted by a patch", hint="delete its key")
        return _delete(value, path, (), regions)
    if kind not in ("set", "insert", "merge") or len(rest) != 1:
        raise InvalidInput(f"{op!r} is no patch operation")
    if kind == "insert" and (not path or isinstance(path[-1], str)):
        raise InvalidInput(f"insert needs a list index at the end of its path, not {render(path)}")
    return _change(value, kind, path, rest[0], (), regions)


def _change(value: Any, kind: str, rest: Path, new: Any, at: Path, regions: list[Path]) -> Any:
    """Return `value`, which lies at `at`, with `new` set, inserted or merged at `rest` below it."""
    if not rest:
        if kind == "merge":
            return _merge(value, new, at, regions)
        regions.append(at)
        return new
    step, further = rest[0], rest[1:]
    if value is ABSENT:
        value = {}  # missing maps are made on the way, lists are not
    if type(value) is dict and isinstance(step, str):
        return {**value, step: _change(value.get(step, ABSENT), kind, further, new, (*at, step), regions)}
    if type(value) is not list or isinstance(step, str):
        raise _no_step(value, step, at)
    if not further and (kind == "insert" or (kind == "set" and step is None)):
        index = len(value) if step in (None, len(value)) else _index(value, step)
        if index is None:
            raise _no_element(value, step, at)
        regions.append(at)
        return [*value[:index], new, *value[index:]]
    index = _index(value, step)
    if index is None:
        raise _no_element(value, step, at)
    below = _change(value[index], kind, further, new, (*at, index), regions)
    return [*value[:index], below, *value[index + 1 :]]


def _merge(value: Any, new: Any, at: Path, regions: list[Path]) -> Any:
    """RFC 7396. A region is a leaf of `new`, or the place of what is no map and goes away."""
    if type(new) is not dict:
        regions.append(at)
        return new
    if not new or (value is not ABSENT and type(value) is not dict):
        regions.append(at)
    merged = dict(value) if type(value) is dict else {}
    for key, item in new.items():
        if item is None:
            regions.append((*at, key))
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key, ABSENT), item, (*at, key), regions)
    return merged


def _delete(value: Any, rest: Path, at: Path, regions: list[Path]) -> Any:
    step, further = rest[0], rest[1:]
    if type(value) is dict and isinstance(step, str) and step in value:
        if not further:
            regions.append((*at, step))
            return {key: item for key, item in value.items() if key != step}
        return {**value, step: _delete(value[step], further, (*at, step), regions)}
    if value is ABSENT or (type(value) is dict and isinstance(step, str)):
        # Where a list would have to be there, a map that somebody makes would be in the way: hence its place.
        regions.append((*at, *takewhile(lambda step: isinstance(step, str), rest)))
        return value
    if type(value) is not list or isinstance(step, str):
        raise _no_step(value, step, at)
    index = _index(value, step)
    if index is None or not further:
        regions.append(at)
        return value if index is None else [*value[:index], *value[index + 1 :]]
    below = _delete(value[index], further, (*at, index), regions)
    return [*value[:index], below, *value[index + 1 :]]


def _index(value: list[Any], step: Step) -> int | None:
    """Return the index of an element from the start, or None when there is none at `step`."""
    if not isinstance(step, int) or not -len(value) <= step < len(value):
        return None
    return step % len(value)


def _no_element(value: list[Any], step: Step, at: Path) -> InvalidInput:
    return InvalidInput(
        f"{render((step,))[1:]} is beyond the end of {render(at)}, which has {len(value)} elements"
    )


def _no_step(value: Any, step: Step, at: Path) -> InvalidInput:
    kind = {"dict": "map", "NoneType": "null"}.get(type(value).__name__, type(value).__name__)
    return InvalidInput(f"{render(at)} is a {kind}, so there is no {render((step,))[1:]} in it")
