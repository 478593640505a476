"""Replay: a run, or another stretch of history, step by step.

for step in db.replay(run):         each commit of the run, with what it changed
    print(step)
db.replay(run).view                 everything as the run left it
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from strata.api.instants import Instant, version_of
from strata.api.table import html_table, show_time
from strata.api.view import View
from strata.core.errors import InvalidInput, NotFound
from strata.core.keys import check_name
from strata.core.protocols import Branch
from strata.history.replay import Step, Stretch

if TYPE_CHECKING:
    from strata.api.place import Place


# In a notebook; the rest is counted.
_STEPS_SHOWN: Final = 50
_CHANGES_SHOWN: Final = 5


class Replay(Stretch):
    """The commits of a run, or between two versions, as steps in their order.

    Iterate over it as often as you like: nothing is written, and each time is the same.
    Memory: some thousand commits, however many there are.
    """

    def __init__(self, branch: Branch, after: int, upto: int, space: str) -> None:
        super().__init__(branch, after, upto)
        self._space = space

    @property
    def branch(self) -> str:
        """The name of the branch."""
        return self._branch.name

    @property
    def start(self) -> View:
        """Everything as it was before the first step."""
        return View(self._branch.view(self.after), self._space, self._branch)

    @property
    def view(self) -> View:
        """Everything as it was after the last step."""
        return View(self._branch.view(self.upto), self._space, self._branch)

    def _repr_html_(self) -> str:
        steps = list(islice(self, _STEPS_SHOWN))
        rows = [
            (str(step.version), show_time(step.time_us), step.actor or "", step.message or "", _changes(step))
            for step in steps
        ]
        left_out = len(self) - len(steps)
        more = f"<p>… and {left_out} more</p>" if left_out else ""
        return html_table(("version", "time", "actor", "message", "changes"), rows) + more

    def __repr__(self) -> str:
        return f"<Replay of {self.branch!r} from {self.after} to {self.upto}>"


def _changes(step: Step) -> str:
    lines = [line for change in step.changes[:_CHANGES_SHOWN] for line in change.lines()]
    left_out = len(step.changes) - _CHANGES_SHOWN
    return "; ".join(lines) + (f"; and {left_out} more" if left_out > 0 else "")


def replay(place: Place, run: str | Place) -> Replay:
    """Return the replay of a run or branch: its own commits."""
    branch = branch_of(place, run)
    return Replay(branch, _start(place, branch), branch.head, place._space)


def replay_until(place: Place, run: str | Place, when: Instant) -> Replay:
    """Return the replay of a run or branch up to a point."""
    branch = branch_of(place, run)
    start, end = _start(place, branch), min(branch.head, version_of(branch, when))
    if end < start:
        raise InvalidInput(
            f"{when!r} is before {branch.name!r} began, at version {start}",
            hint="db.at reads earlier states, db.replay_range earlier commits",
        )
    return Replay(branch, start, end, place._space)


def replay_range(place: Place, a: Instant, b: Instant, source: str | Place | None) -> Replay:
    """Return the replay of what lies between two points of a branch."""
    branch = place._branch if source is None else branch_of(place, source)
    after, upto = (min(branch.head, version_of(branch, when)) for when in (a, b))
    if upto < after:
        raise InvalidInput(f"{b!r} is before {a!r}", hint="the earlier one comes first")
    return Replay(branch, after, upto, place._space)


def _start(place: Place, branch: Branch) -> int:
    """Return the version at which a branch was forked off; 0 for one that was not."""
    forks = {info.name: info.fork_version for info in place._store.branches()}
    return forks.get(branch.name) or 0


def branch_of(place: Place, source: str | Place) -> Branch:
    """Return the branch that is meant by a run's id, a branch's name, or the handle of either.

    Raises: NotFound; InvalidInput for anything else, and for a handle of another database.
    """
    from strata.api.place import Place  # which imports this module

    if isinstance(source, Place):
        if source._store is not place._store:
            raise InvalidInput("that is a handle of another database", hint="give a name or id")
        return source._branch
    name = check_name(source, "run or branch")
    if place._space in (*place._branch.spaces(), "default") and name in place.runs:
        return place.runs._run(name)._branch
    try:
        return place._store.branch(name)
    except NotFound as error:
        raise NotFound(
            f"there is no run and no branch {name!r}",
            what="run",
            name=name,
            hint=error.hint or "db.runs.list() lists the runs, db.branches.list() the branches",
        ) from None
