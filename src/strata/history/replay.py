"""Replay: a stretch of one branch's history as steps, each a commit with what it changed.

    Stretch(branch, after, upto)      the commits with after < version <= upto, oldest first
      Step                            one of them
        Change                        one thing that it wrote, as users read it
          Part                        a place inside a document, where only that was changed

Steps on top of the state at `after` give the state at `upto`: `Stretch.digest` says which that is. Nothing is
written, and each walk gives the same. A stretch that retention has let go of is refused at once, since what
is left of it would give another state.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec

from strata.core import patches
from strata.core.clock import to_datetime, to_expiry
from strata.core.errors import HistoryTrimmed
from strata.core.paths import render
from strata.core.protocols import DELETE, PATCH, PUT, Branch, Commit, Written
from strata.core.refs import EntityRef
from strata.core.values import one_line, text_of
from strata.history.digest import Fold, is_ours
from strata.history.plain import plain
from strata.primitives import PRIMITIVES

# Commits that are read at once. The first page is small, so that the first step comes soon. Later ones grow,
# since each page looks through the parts of sorted files that anything newer is in, which may be all.
_FIRST_PAGE: Final = 16  # commits, which may be large ones
_LARGEST_PAGE: Final = 32_000
_VERSION, _PLACE = itemgetter(0), itemgetter(1, 2, 3)  # of a write
_ROWS: Final = 20_000  # writes of a page that bound memory: pages get smaller when there are more


class Part(msgspec.Struct, frozen=True):
    """A place inside a document, and what is there since."""

    path: str
    value: Any
    removed: bool = False


class Change(msgspec.Struct, frozen=True):
    """What a commit did to one thing. `action` is the name of the method that does it."""

    branch: str
    version: int
    space: str
    primitive: str
    key: str  # as refs write it
    action: str
    value: Any  # as a read gives it; None where it was removed
    expires_us: int | None = None
    parts: tuple[Part, ...] = ()  # of a document that was changed by path
    removed: bool = False

    @property
    def ref(self) -> EntityRef:
        """The address of what it made."""
        return EntityRef(self.branch, self.space, self.primitive, self.key, None, self.version)

    @property
    def expires(self) -> datetime | None:
        """When what was written expires; None is never."""
        return to_expiry(self.expires_us)

    def __repr__(self) -> str:
        return f"<Change {self.primitive} {one_line(self.key, 80)!r} {self.action} at {self.version}>"

    def lines(self) -> list[str]:
        """Return it as people read it: a line, or one for each part."""
        name = f"{self.primitive} {one_line(self.key)}"
        if self.parts:
            return [
                f"{name} {one_line(part.path)} {'removed' if part.removed else text_of(part.value)}"
                for part in self.parts
            ]
        said = "" if self.removed else f" {one_line(PRIMITIVES[self.primitive]._line(self.value))}"
        return [f"{name} {self.action}{said}"]


class Step(msgspec.Struct, frozen=True):
    """One commit: who did what, why, and what it changed."""

    version: int
    branch: str
    time_us: int
    message: str | None
    actor: str | None
    cause: str | None
    changes: tuple[Change, ...]

    @property
    def time(self) -> datetime:
        """When it was committed, in UTC."""
        return to_datetime(self.time_us)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return {**plain(self), "changes": [plain(change) for change in self.changes]}

    def __repr__(self) -> str:
        return f"<Step {self.version} of {self.branch!r}, {len(self.changes)} changes>"

    def __str__(self) -> str:
        spaces = {change.space for change in self.changes} - {"default"}
        lines = [head_of(self)]
        for change in self.changes:
            place = f"{change.space}: " if spaces else ""
            lines += [f"  {place}{line}" for line in change.lines()]
        return "\n".join(lines)


class Stretch:
    """The commits of a branch with after < version <= upto. Iterates over them as steps, oldest first."""

    def __init__(self, branch: Branch, after: int, upto: int) -> None:
        self._branch = branch
        self.after = after
        self.upto = upto
        self._count: int | None = None
        check_kept(branch, after)

    def __iter__(self) -> Iterator[Step]:
        for commit, rows in self._commits():
            yield step_of(self._branch, commit, rows)

    def __len__(self) -> int:
        """Return how many steps there are. Cost: reads who committed when, but not what."""
        if self._count is None:
            count, after = 0, self.after
            while page := self._page(after, _LARGEST_PAGE):
                count, after = count + len(page), page[-1].version
            self._count = count
        return self._count

    def digest(self) -> str:
        """Return the digest of the state that the steps give, on top of the one they begin at.

        It is that of the view at their end, or something is broken.
        Cost: the steps, and all that there was before them.
        """
        fold = Fold(self._branch.view(self.after))
        for _, rows in self._commits():
            fold.apply(rows)
        newest = self._branch.commits(None, self.upto + 1, True, 1)
        return fold.digest(newest[0].time if newest else 0)

    def _commits(self) -> Iterator[tuple[Commit, list[Written]]]:
        """Yield each commit with what it wrote."""
        return written(self._branch, self.after, self.upto)

    def _page(self, after: int, size: int) -> list[Commit]:
        return _page(self._branch, after, self.upto, size)


def written(
    branch: Branch, after: int, upto: int, space: str | None = None, primitive: str | None = None
) -> Iterator[tuple[Commit, list[Written]]]:
    """Yield the commits with after < version <= upto, each with what it wrote, page by page.

    Raises: HistoryTrimmed, before the first commit of a page, where retention has let go of a part of it, of
        what was written to `space` and `primitive` (None: all).
    """
    size = _FIRST_PAGE
    while page := _page(branch, after, upto, size):
        writes = branch.writes(after, page[-1].version)
        check_kept(branch, after, space, primitive)  # only now: what was let go of meanwhile may be missing
        of = {version: sorted(rows, key=_PLACE) for version, rows in groupby(writes, key=_VERSION)}
        yield from ((commit, of.pop(commit.version, [])) for commit in page)
        after = page[-1].version
        size = max(1, min(2 * size, _LARGEST_PAGE, len(page) * _ROWS // max(1, len(writes))))
    if after < upto:
        check_kept(branch, after, space, primitive)  # a commit goes with the last thing that it wrote


def _page(branch: Branch, after: int, upto: int, size: int) -> list[Commit]:
    return branch.commits(after, upto + 1, False, size) if after < upto else []


def check_kept(branch: Branch, version: int, space: str | None = None, primitive: str | None = None) -> None:
    """Raise HistoryTrimmed unless all that changed after a version is kept, in `space` and `primitive`."""
    oldest = branch.oldest(space, primitive)
    if version < oldest:
        raise HistoryTrimmed(requested=version, oldest=oldest)


def step_of(branch: Branch, commit: Commit, rows: list[Written]) -> Step:
    """Return a commit of `branch` as a step."""
    changes = [change for row in rows if (change := change_of(branch, commit, row)) is not None]
    return Step(
        commit.version,
        commit.branch,
        commit.time,
        commit.message,
        commit.actor,
        commit.cause,
        tuple(changes),
    )


def change_of(branch: Branch, commit: Commit, row: Written) -> Change | None:
    """Return a write as users read it; None where it only follows from another, or is Strata's own."""
    version, space, kind, key, how, value, expires = row
    primitive = PRIMITIVES.get(kind)
    if primitive is None or is_ours(space):
        return None
    name = primitive._name(key)
    if name is None:
        return None
    verb, parts = primitive._verb(key, how), tuple[Part, ...]()
    if how == DELETE:
        shown = None
    else:
        shown = primitive._shown(key, value, version, commit.time, expires)
        if how == PATCH and primitive._PLAIN:
            parts = _parts(branch, row)
            verb = verb if parts else primitive._verb(key, PUT)
    return Change(commit.branch, version, space, kind, name, verb, shown, expires, parts, how == DELETE)


def _parts(branch: Branch, row: Written) -> tuple[Part, ...]:
    """Return the places that a patch touched; none where it is not known, or it was the whole."""
    version, space, kind, key, _, value, _ = row
    before = branch.view(version - 1)
    known, paths = branch.view(version).how(before, space, kind, key)
    if known != PATCH or () in paths:
        return ()
    old = before.keyspace(space, PRIMITIVES[kind].LAYOUT)
    parts = []
    for path in sorted(patches.outermost(paths), key=render):
        found = patches.get_path(value, path, patches.ABSENT)
        if found is not patches.ABSENT:
            parts.append(Part(render(path), found))
        elif old.get_path(key.decode(), path, patches.ABSENT) is not patches.ABSENT:
            parts.append(Part(render(path), None, True))  # what was not there has not been removed
    return tuple(parts)


def head_of(step: Step | Commit) -> str:
    """Return who committed what and why, on a line."""
    time = to_datetime(step.time_us if isinstance(step, Step) else step.time)
    said = [f"commit {step.version} on {step.branch}", time.isoformat().replace("+00:00", "Z")]
    said += [f"by {one_line(step.actor)}"] if step.actor else []
    said += [f'"{one_line(step.message)}"'] if step.message else []
    said += [f"because of {one_line(step.cause)}"] if step.cause else []
    return "  ".join(said)
