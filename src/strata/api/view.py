"""Views: everything of one branch as it was at one version. Read-only."""

from __future__ import annotations

from strata.api.face import Lazy
from strata.api.instants import Instant
from strata.api.search import Searchable, State
from strata.core.errors import InvalidInput
from strata.core.keys import check_name
from strata.core.protocols import Branch, Snapshot
from strata.history.digest import digest


class View(Lazy, Searchable):
    """The face at one version: what was true then stays readable, whatever is written later."""

    _source: Snapshot

    def __init__(self, snapshot: Snapshot, space: str, branch: Branch) -> None:
        self._source = snapshot
        self._space = space
        self._branch = branch

    @property
    def version(self) -> int:
        """The version that is seen here."""
        return self._source.version

    def digest(self) -> str:
        """Return one hash, in hex, of all that is seen here in all spaces; equal states have equal ones.

        Cost: reads everything.
        """
        return digest(self._source)

    def space(self, name: str) -> View:
        """Return the view of another space at the same version."""
        return View(self._source, check_name(name, "space"), self._branch)

    def _searched(self, at: Instant | None) -> State:
        if at is not None:
            raise InvalidInput("a view is at one version already", hint="as in db.search(..., at=...)")
        return State(self._source, self.version, self.version, self._branch)

    def __repr__(self) -> str:
        return f"<View version={self.version} space={self._space!r}>"
