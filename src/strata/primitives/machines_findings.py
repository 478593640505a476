"""What is wrong with a definition or strange about it, and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.keys import check_name


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a definition. `code` is stable; `path` says where."""

    code: str
    message: str
    path: str


@dataclass(frozen=True, slots=True)
class Validation:
    """What is wrong with a definition, and what is only strange."""

    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    @property
    def valid(self) -> bool:
        """Whether it can be stored."""
        return not self.errors


def shape_of_name(name: Any, what: str, at: str) -> Iterator[Finding]:
    """Yield what keeps a value from being the name of a `what`."""
    try:
        check_name(name, what, reserved=True)
    except (InvalidInput, LimitExceeded) as error:
        yield Finding("INVALID_TYPE", str(error), at)


def shape_of_names(names: Any, what: str, at: str) -> Iterator[Finding]:
    """Yield what keeps a value from being a name, or a list of names."""
    if not isinstance(names, (list, tuple)):
        yield from shape_of_name(names, what, at)
        return
    for index, name in enumerate(names):
        yield from shape_of_name(name, what, f"{at}[{index}]")


def no_state(name: str, at: str) -> Finding:
    """Return that there is no such state."""
    return Finding("INVALID_STATE", f"{name!r} is none of the states", at)


def listed(names: Any) -> list[str]:
    """Return a name, or names, as a list."""
    return [names] if isinstance(names, str) else list(names)
