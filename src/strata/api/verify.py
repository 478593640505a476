"""Verify: read everything again, from the files up to the chains of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from strata.core.errors import Corrupt, NotFound
from strata.core.protocols import Store
from strata.core.refs import EntityRef
from strata.primitives import Events
from strata.primitives.events import ChainReport

Progress = Callable[[int, int], object]  # bytes read, of how many


@dataclass(frozen=True, slots=True)
class Problem:
    """One place where something is not as it was written."""

    place: str  # a file, or the reference of a stream
    at: int  # byte of the file, or sequence in the stream
    reason: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` read, and what was wrong with it."""

    version: int  # the newest on disk
    records: int  # of the log
    segments: int
    runs: int
    rows: int  # of the runs
    streams: int
    events: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(store: Store, progress: Progress | None = None) -> VerifyReport:
    """Return what reading all files and all chains of events shows."""
    problems: dict[tuple[str, int], Problem] = {}  # by place: a damaged part may be met more than once

    def wrong(place: str, at: int, reason: str) -> None:
        problems.setdefault((place, at), Problem(place, at, reason))

    found = store.verify(progress)
    for file, offset, reason in found.pop("problems"):
        wrong(file, offset, reason)
    streams = events = 0
    for info in store.branches():
        try:
            chains = list(_chains(store, info.name))
        except NotFound as error:
            if error.what != "branch":
                raise
            continue  # it was deleted meanwhile
        except Corrupt as error:
            wrong(error.file, error.offset, str(error))
            continue
        for place, report in chains:
            streams, events = streams + 1, events + report.events
            if report.sequence is not None:
                wrong(place, report.sequence, report.reason)
    return VerifyReport(**found, streams=streams, events=events, problems=tuple(problems.values()))


def _chains(store: Store, branch: str) -> Iterator[tuple[str, ChainReport]]:
    """Yield each event stream of a branch with what verifying it says."""
    view = store.branch(branch).view()
    for space in view.spaces():
        kept = Events(view.keyspace(space, Events.LAYOUT))
        for stream in kept.streams():
            yield str(EntityRef(branch, space, "events", stream)), kept.verify(stream)
