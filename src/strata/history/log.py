"""The log of commits: which there were, by version, time, actor and primitive.

Versions and times bound what is looked at; actor and primitive choose among that, page by page, so a search
for few commits among many reads the notes of all of these, and for a primitive what they wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from strata.core.clock import to_micros
from strata.core.errors import InvalidInput
from strata.core.protocols import Branch, Commit
from strata.history.diff import Limits

PAGE_COMMITS: Final = 1000


def commits(
    branch: Branch,
    after: int | None,
    before: int | None,
    reverse: bool,
    limit: int | None,
    actor: str | None = None,
    primitive: str | None = None,
) -> list[Commit]:
    """Return the commits strictly between two versions, newest first when `reverse`, that were asked for."""
    Limits(primitive=primitive)  # refuses what is none
    if actor is not None and type(actor) is not str:
        raise InvalidInput(f"an actor is a str, not {type(actor).__name__}")
    if actor is None and primitive is None:
        return branch.commits(after, before, reverse, limit)
    return list(islice(_chosen(branch, after, before, reverse, actor, primitive), limit))


def between(
    branch: Branch, after: int | None, before: int | None, start: object, end: object
) -> tuple[int | None, int | None]:
    """Return the versions strictly between which commits at start <= time < end lie, None being open."""
    if start is not None:
        after = max(after or 0, branch.version_at(to_micros(start) - 1))
    if end is not None:
        first = branch.version_at(to_micros(end) - 1) + 1
        before = first if before is None else min(before, first)
    return after, before


def _chosen(
    branch: Branch,
    after: int | None,
    before: int | None,
    reverse: bool,
    actor: str | None,
    primitive: str | None,
) -> Iterator[Commit]:
    while page := branch.commits(after, before, reverse, PAGE_COMMITS):
        wrote = None if primitive is None else _writers(branch, page, primitive)
        for commit in page:
            if actor in (None, commit.actor) and (wrote is None or commit.version in wrote):
                yield commit
        if len(page) < PAGE_COMMITS:
            return
        after, before = (after, page[-1].version) if reverse else (page[-1].version, before)


def _writers(branch: Branch, page: list[Commit], primitive: str) -> set[int]:
    """Return which of some commits wrote to a primitive."""
    versions = [commit.version for commit in page]
    written = branch.writes(min(versions) - 1, max(versions))
    return {row[0] for row in written if row[2] == primitive and not row[1].startswith("_")}
