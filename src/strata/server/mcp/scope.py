"""Scope: what a host may reach. A pinned branch or space is the only one; read-only has no writes.

The tools see the database through a `Door` alone, which refuses what lies outside; there is no other way in.
It uses public handles only, so it works the same where another process owns the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from strata.api.database import Database
from strata.api.place import Space
from strata.core.embedding import Embedder, check_embedder
from strata.core.errors import InvalidInput
from strata.core.refs import EntityRef
from strata.primitives import PRIMITIVES

MAIN: Final = "main"
DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a host may reach. Left out: every branch, every space, and writing."""

    branch: str | None = None
    space: str | None = None
    read_only: bool = False

    @property
    def home(self) -> tuple[str, str]:
        """The branch and space that are meant where none is named."""
        return self.branch or MAIN, self.space or DEFAULT

    def holds(self, branch: str, space: str | None = None) -> bool:
        """Whether a branch, and a space, may be seen."""
        return self.branch in (None, branch) and (space is None or self.space in (None, space))


class Door:
    """A database, as far as a scope goes; and what makes vectors of texts, if anything does.

    Raises: NotFound for a scope whose branch is not there; InvalidInput for what is no name.
    """

    __slots__ = ("database", "embedder", "scope")

    def __init__(self, database: Database, scope: Scope, embedder: Embedder | None = None) -> None:
        self.database = database
        self.scope = scope
        self.embedder = None if embedder is None else check_embedder(embedder)
        self.place()

    def branch(self, name: str | None) -> str:
        """Return the name of a branch, that of the scope when left out.

        Raises: InvalidInput when the scope is another branch.
        """
        return _within("branch", name, self.scope.branch, MAIN)

    def space(self, name: str | None) -> str:
        """Return the name of a space, likewise."""
        return _within("space", name, self.scope.space, DEFAULT)

    def place(self, branch: str | None = None, space: str | None = None) -> Space:
        """Return the handle of a space of a branch.

        Raises: InvalidInput outside of the scope; NotFound for a branch that is not there.
        """
        return self.database.branch(self.branch(branch)).space(self.space(space))

    def ref(self, text: str) -> EntityRef:
        """Return the ref that a text is.

        Raises: InvalidInput for what is none, and outside of the scope.
        """
        ref = EntityRef.parse(text)
        if ref.primitive not in PRIMITIVES:
            raise InvalidInput(
                f"there is no primitive {ref.primitive!r}", hint=f"one of {', '.join(PRIMITIVES)}"
            )
        self.branch(ref.branch)
        self.space(ref.space)
        return ref

    def instant(self, when: int | str) -> Any:
        """Return what a model wrote for a point in history as one: "12" is a version, a tag's name the tag.

        Raises: InvalidInput for a text that is neither, nor a time with a zone.
        """
        if isinstance(when, str) and when.isascii() and when.isdigit():
            return int(when)
        if isinstance(when, str):
            return self.database.branches.tags.get(when, when)
        return when


def _within(what: str, name: str | None, only: str | None, home: str) -> str:
    if only is None:
        return home if name is None else name
    if name is not None and name != only:
        raise InvalidInput(
            f"this server reaches the {what} {only!r} only, not {name!r}", hint=f"leave {what} out"
        )
    return only
