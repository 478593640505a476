"""Views: everything of one branch as it was at one version. Read-only."""

from __future__ import annotations

from strata.api.face import Face, Lazy
from strata.core.keys import check_name
from strata.core.protocols import Snapshot
from strata.history.digest import digest


class View(Lazy, Face):
    """The face at one version: what was true then stays readable, whatever is written later."""

    _source: Snapshot

    def __init__(self, snapshot: Snapshot, space: str) -> None:
        self._source = snapshot
        self._space = space

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
        return View(self._source, check_name(name, "space"))

    def __repr__(self) -> str:
        return f"<View version={self.version} space={self._space!r}>"
