"""The seam between the benchmark and what it measures.

A `System` is one database, open in one durability mode. Each row of the benchmark calls one method with
inputs made before the clock starts; the method does all of them in the idiom of that database, so the
loop is the same cost for all, and returns its last result, which the row checks. A method that a system
does not have is a row that it does not appear in: reported, not guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

Rows = Sequence[tuple[Any, Any]]
LEAST_BUDGET = 1 << 20  # of memory; ours takes no less


class Absent(Exception):
    """This system cannot be opened so; the text says why."""


class System:
    """One database. Subclasses add the methods named in `rows.py` that they can do."""

    name: ClassVar[str]
    # How each mode is had here, in words; a mode that is not named is absent.
    modes: ClassVar[dict[str, str]]
    fork_limit: ClassVar[int] = 1_000_000  # keys; above this a fork takes too long to wait for
    has_budget: ClassVar[bool] = False
    has_encryption: ClassVar[bool] = False

    def __init__(
        self, mode: str, path: Path, *, budget: int | None = None, secret: bytes | None = None
    ) -> None:
        """Open it in `path`, within `budget` bytes of memory, encrypted with `secret`; or raise Absent."""
        if budget is not None and not self.has_budget:
            raise Absent("takes no budget of memory")
        if secret is not None and not self.has_encryption:
            raise Absent("does not encrypt")
        self.mode = mode
        self.path = path

    def close(self) -> None: ...

    def key(self, text: str) -> Any:
        """The key as this system wants it. Called before the clock starts."""
        return text

    def value(self, data: bytes) -> Any:
        """The value as this system wants it. Called before the clock starts."""
        return data

    def thread_handle(self) -> System:
        """What another thread uses; itself where one handle serves all."""
        return self

    def put_many(self, rows: Rows) -> Any:
        raise NotImplementedError

    def load(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Fill in batches of 1,000."""
        native = ((self.key(key), self.value(value)) for key, value in rows)
        while batch := list(islice(native, 1000)):
            self.put_many(batch)


def operation(system: System, name: str) -> Callable[..., Any]:
    """The method of that name. Raises Absent where the system has nothing like it."""
    method: Callable[..., Any] | None = getattr(system, name, None)
    if method is None:
        raise Absent("has nothing like it")
    return method


def dumps(value: Any) -> bytes:
    """JSON as bytes: for peers that hold documents as text."""
    return json.dumps(value, separators=(",", ":")).encode()


def loads(data: bytes | str) -> Any:
    return json.loads(data)


def set_in(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a path in plain Python: what users of a store without paths write by hand."""
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = value


def get_in(document: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        document = document[step]
    return document
