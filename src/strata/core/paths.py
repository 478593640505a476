"""Paths: places inside a value, as text and as tuples.

    $.a.b[0]      map keys and list indexes       ("a", "b", 0)
    $['odd key']  any key, with \\' and \\\\        ("odd key",)
    $[-1]  $[-]   from the end, after the end     (-1,)  (None,)
    /a/b/0        JSON Pointer (RFC 6901)         ("a", "b", 0)
    $  or ""      the whole value                 ()

In a pointer, digits are an index and `-` is the place after the end; a map key made of digits is written in
brackets instead (`$['0']`). Invariant: `parse(render(path)) == path`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.protocols import Path, Step

MAX_STEPS: Final = 128  # no value is nested deeper

_STEP: Final = re.compile(
    r"\.(?P<name>[^.\[\]'\"\s\x00-\x1f]+)"
    r"|\[(?P<index>-?(?:0|[1-9]\d{0,17}))\]"
    r"|\[(?P<end>-)\]"
    r"|\['(?P<single>(?:[^'\\]|\\.)*)'\]"
    r'|\["(?P<double>(?:[^"\\]|\\.)*)"\]',
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"[^.\[\]'\"\s\x00-\x1f]+")
_POINTER_INDEX: Final = re.compile(r"0|[1-9]\d{0,17}")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def parse(path: Any) -> Path:
    """Return the steps of a path.

    Raises: InvalidInput for bad syntax, naming where it begins.
    """
    try:
        return _parse(path)
    except TypeError:  # not hashable, so not text
        raise _not_text(path) from None


@lru_cache(maxsize=8192)
def _parse(path: Any) -> Path:
    if type(path) is not str:
        raise _not_text(path)
    steps = tuple(_pointer(path)) if path == "" or path[0] == "/" else tuple(_dotted(path))
    if len(steps) > MAX_STEPS:
        raise LimitExceeded(what="number of steps of the path", limit=MAX_STEPS, actual=len(steps))
    return steps


def render(path: Iterable[Step]) -> str:
    """Return the path as text that starts with `$`."""
    return "$" + "".join(map(_render_step, path))


def pointer_tokens(pointer: Any) -> tuple[str, ...]:
    """Return the unescaped tokens of a JSON Pointer."""
    if type(pointer) is not str or (pointer and pointer[0] != "/"):
        raise InvalidInput(f"{pointer!r} is no JSON Pointer", hint="as in '/a/0'; '' is the whole document")
    if re.search(r"~(?![01])", pointer):
        raise InvalidInput(f"{pointer!r} has a '~' that is neither '~0' nor '~1'")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def overlap(one: Path, other: Path) -> bool:
    """Return whether one of the two places holds the other."""
    return all(mine == theirs for mine, theirs in zip(one, other, strict=False))


def token_index(token: str) -> int | None:
    """Return the list index that a pointer's token could mean, or None."""
    return int(token) if _POINTER_INDEX.fullmatch(token) else None


def _dotted(path: str) -> Iterable[Step]:
    if path[0] != "$":
        raise InvalidInput(f"path {path!r} starts with neither '$' nor '/'", hint=f"perhaps '$.{path}'")
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise InvalidInput(
                f"path {path!r} makes no sense from {path[at : at + 20]!r}",
                hint="as in $.a.b[0]['odd key'][-1]",
            )
        at = found.end()
        yield _step(found)


def _step(found: re.Match[str]) -> Step:
    kind, text = found.lastgroup, found[found.lastgroup or 0]
    if kind == "index":
        return int(text)
    if kind == "end":
        return None
    return text if kind == "name" else _ESCAPE.sub(r"\1", text)


def _pointer(path: str) -> Iterable[Step]:
    for token in pointer_tokens(path):
        index = token_index(token)
        yield index if index is not None else None if token == "-" else token


def _render_step(step: Step) -> str:
    if step is None:
        return "[-]"
    if isinstance(step, int):
        return f"[{step}]"
    if _PLAIN.fullmatch(step):
        return f".{step}"
    escaped = step.replace("\\", "\\\\").replace("'", "\\'")
    return f"['{escaped}']"


def _not_text(path: Any) -> InvalidInput:
    return InvalidInput(f"a path is a str, not {type(path).__name__}", hint="as in '$.a.b[0]' or '/a/b/0'")
