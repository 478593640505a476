"""Notes on versions: rows of the branch itself, so that they fork, travel and recover with it.

space "_strata", kind "notes":  version, as digits  ->  text
"""

from __future__ import annotations

from typing import Final

from strata.core.errors import NotFound
from strata.core.keys import check_int, check_text
from strata.core.protocols import Branch, Layout, Snapshot
from strata.history.ancestry import SPACE

NOTES: Final = Layout("notes")


def write_note(branch: Branch, version: int, text: str) -> int:
    """Write a note on a version; return the version of that commit."""
    head = branch.head
    if check_int(version, "version") > head:
        raise NotFound(what="version", name=str(version), hint=f"the newest is {head}")
    return branch.keyspace(SPACE, NOTES).put(str(version), check_text(text, "note")) or head


def notes(state: Snapshot) -> dict[int, str]:
    """Return the notes that a state has, by version."""
    rows = state.keyspace(SPACE, NOTES).scan(None, None, None, False, None)
    return dict(sorted((int(version), text) for version, text in rows))
