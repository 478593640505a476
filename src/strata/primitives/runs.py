"""Runs: executions of an agent, each recorded where it was begun; its own work is on a branch forked for it.

    id                                    {status, begun, branch, ...}: the run, without what it does not have
    0x00, "s", status, 0x00, ...          found by status
    0x00, "p", parent or "", 0x00, ...    by parent; runs begun by no other have the parent ""
    0x00, "t", tag, 0x00, ...             by tag
    0x00, "a", 0x00, ...                  by time: see `index`
    0x00, "c", id, 0x00, place            on the branch of the run: a recorded call (see api/recorded)

Invariants: the status of a run changes along STEPS only, each change a commit of its own that moves the row
by status along. `home` is the branch on which the run was begun: a fork of that sees the record as it was,
and only the one at home is changed. Ids of branches are those of `database`: in another, which a bundle was
imported into, names count. What else belongs to a run (its branch, who may write there) is the business of
api/runs, as a primitive knows nothing of branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Any, ClassVar, Final, Literal, cast

import msgspec

from strata.core.atomic import atomically
from strata.core.clock import to_datetime
from strata.core.errors import AlreadyExists, InvalidInput, InvalidTransition, NotFound
from strata.core.keys import check_int, check_name
from strata.core.protocols import Layout, Txn
from strata.core.values import text_of
from strata.primitives.index import ALL, Indexed, Instant

Status = Literal["active", "paused", "completed", "failed", "cancelled", "archived"]
STEPS: Final[dict[str, tuple[str, ...]]] = {
    "active": ("completed", "failed", "cancelled", "paused"),
    "paused": ("active", "cancelled", "archived"),
    "completed": ("archived",),
    "failed": ("archived",),
    "cancelled": ("archived",),
    "archived": (),
}
_STATUS, _PARENT, _TAG, _CALL = "s", "p", "t", "c"
_TOP: Final = ""
_CALLS: Final = b"\0c"
PLACE_BYTES: Final = 4  # of the number of a call among its siblings


class RunInfo(msgspec.Struct, frozen=True):
    """What is known of a run."""

    id: str
    status: Status
    begun_us: int
    branch: str  # forked for it, under the name that it got then
    branch_id: int
    home: str  # the branch on which it was begun and is recorded, as it was named then
    home_id: int
    database: str  # in which the ids are those of branches
    session: str  # of the opening of the database that works on it, or did
    source: str  # the branch that it was forked off
    fork_version: int  # where
    name: str | None = None
    parent: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    ended_us: int | None = None
    result: Any = None
    error: str | None = None  # why it failed or was cancelled
    replays: str | None = None  # the run whose recorded calls it answers from

    @property
    def begun(self) -> datetime:
        """When it was begun, in UTC."""
        return to_datetime(self.begun_us)

    @property
    def ended(self) -> datetime | None:
        """When it was completed, failed or cancelled, in UTC."""
        return None if self.ended_us is None else to_datetime(self.ended_us)

    @property
    def duration_us(self) -> int | None:
        """How long it took, pauses included, once it is over."""
        return None if self.ended_us is None else self.ended_us - self.begun_us


@dataclass(frozen=True, slots=True)
class RunStats:
    """How many runs there are of each status."""

    active: int
    paused: int
    completed: int
    failed: int
    cancelled: int
    archived: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class RunStep:
    """A change of status."""

    status: Status
    time_us: int
    version: int

    @property
    def time(self) -> datetime:
        """When, in UTC."""
        return to_datetime(self.time_us)


class RecordedCall(msgspec.Struct, frozen=True):
    """A recorded call: `finished` unless the process ended in the middle of it, or is in it now."""

    place: str  # as 3, 3.0 for the first inside of it, worker:0 in a lane
    name: str
    digest: bytes  # of its arguments
    started_us: int
    attempts: int = 1  # how often it was called
    ended_us: int | None = None
    result: Any = None
    error: str | None = None  # type and text of what it raised

    @property
    def finished(self) -> bool:
        """Whether its outcome is kept."""
        return self.ended_us is not None

    @property
    def started(self) -> datetime:
        """When it was last called, in UTC."""
        return to_datetime(self.started_us)

    @property
    def ended(self) -> datetime | None:
        """When it returned, in UTC."""
        return None if self.ended_us is None else to_datetime(self.ended_us)


Infos = list[RunInfo]  # a name of its own, since `RunRecords.list` hides the builtin inside the class


class RunRecords(Indexed):
    """The runs that were begun on one branch and space. To begin one, or to change one, take a branch."""

    LAYOUT: ClassVar[Layout] = Layout("runs", text_keys=False)
    _FORWARD: ClassVar[bool] = True
    _TIME: ClassVar[str] = "begun"

    __slots__ = ()

    @classmethod
    def _name(cls, key: bytes) -> str | None:
        if not key.startswith(_CALLS):
            return super()._name(key)
        run, _, place = key[len(_CALLS) :].partition(b"\0")
        return f"{run.decode()}/{place_text(place)}"

    @classmethod
    def _verb(cls, key: bytes, how: int) -> str:
        return "call" if key.startswith(_CALLS) else super()._verb(key, how)

    @classmethod
    def _shown(
        cls, key: bytes, value: Any, version: int, time: int, expires: int | None
    ) -> RunInfo | RecordedCall:
        if not key.startswith(_CALLS):
            return _info(key.decode(), value)
        return recorded_call(place_text(key[len(_CALLS) :].partition(b"\0")[2]), value)

    @classmethod
    def _line(cls, shown: RunInfo | RecordedCall) -> str:
        if isinstance(shown, RunInfo):
            return f"{shown.status} on branch {shown.branch}"
        return f"{shown.name} {shown.error or (text_of(shown.result) if shown.finished else 'begins')}"

    @classmethod
    def _labels(cls, thing: dict[str, Any]) -> Iterator[tuple[str, str]]:
        yield _STATUS, thing["status"]
        yield _PARENT, thing.get("parent", _TOP)
        for tag in thing.get("tags", ()):
            yield _TAG, tag

    @classmethod
    def _derived(cls, key: bytes, value: Any) -> list[tuple[bytes, bool]]:
        found = super()._derived(key, value)
        return [*found, (calls_of(key.decode()), True)] if found else []

    def get(self, id: str) -> RunInfo | None:
        """Return what is known of a run, or None."""
        found = self._read(self._txn, check_name(id, "run id").encode())
        if found is None:
            self._check_space()
        return found

    def exists(self, id: str) -> bool:
        """Return whether there is a run with that id."""
        if self._txn.contains(check_name(id, "run id").encode()):
            return True
        self._check_space()
        return False

    def list(
        self,
        *,
        status: Status | None = None,
        tag: str | None = None,
        parent: str | None = None,
        start: Instant = None,
        end: Instant = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Infos:
        """Return the runs in the order in which they were begun, all as of one version.

        Args:
            status, tag, parent: only those of a status, with a tag, begun by a run. All that are given must
                hold.
            start, end: only those begun at start <= time < end, None being open.
            reverse: the newest first; `limit` counts from there.
        Cost: reads those of the parent, else of the status, else with the tag, up to the last one taken.
        """
        if status is not None:
            check_status(status)
        if tag is not None:
            check_name(tag, "tag")
        if parent is not None:
            label = _PARENT, check_name(parent, "run id")
        elif status is not None:
            label = _STATUS, status
        else:
            label = (ALL, "") if tag is None else (_TAG, tag)
        left = None if limit is None else check_int(limit, "limit")
        txn, ids = self._ids(*label, start, end, reverse, None)
        read = (self._read(txn, id) for id in ids)
        wanted = (
            run
            for run in read
            if run is not None and status in (None, run.status) and (tag is None or tag in run.tags)
        )
        return [*islice(wanted, left)]

    def children(self, id: str) -> Infos:
        """Return the runs that were begun by a run.

        Raises: NotFound when there is no such run.
        """
        self._named(id)
        return self.list(parent=id)

    def count(self, *, status: Status | None = None) -> int:
        """Return how many runs there are, of a status or in all. Cost: O(number counted)."""
        if status is None:
            return self._counted(ALL, "")
        return self._counted(_STATUS, check_status(status))

    def stats(self) -> RunStats:
        """Return how many runs there are of each status. Cost: O(number of runs)."""
        here = RunRecords(self._txn.pinned())
        return RunStats(*(here._counted(_STATUS, status) for status in STEPS_IN_ORDER))

    def steps(self, id: str) -> Steps:
        """Return the changes of the status of a run, oldest first, as far as retention keeps them.

        Raises: NotFound when there is no such run.
        """
        self._named(id)
        found: Steps = []
        for thing, version, time, deleted, _ in reversed(self._history(id.encode(), None, None)):
            if not deleted and (not found or found[-1].status != thing["status"]):
                found.append(RunStep(thing["status"], time, version))
        return found

    def __len__(self) -> int:
        return self.count()

    def __iter__(self) -> Iterator[RunInfo]:
        return iter(self.list())

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.exists(id)

    def _insert(self, id: str, thing: dict[str, Any]) -> RunInfo:
        """Write a run that begins; return it."""
        key = id.encode()

        def insert(txn: Txn) -> None:
            if txn.contains(key):
                raise AlreadyExists(what="run", name=id, hint="leave out the id, or go on with db.run(id)")
            txn.put_many([(key, thing), *((row, None) for row in self._index(key, thing))])

        atomically(self._txn, insert)
        return _info(id, thing)

    def _change(self, id: str, to: str | None, **changes: Any) -> RunInfo:
        """Write a run as it is after a step to a status (None: without one); return it. None takes away.

        Raises: NotFound; InvalidTransition when there is no such step.
        """
        key = check_name(id, "run id").encode()

        def change(txn: Txn) -> dict[str, Any]:
            old = txn.get(key)
            if old is None:
                raise NotFound(what="run", name=id)
            if to is not None:
                check_step(old["status"], to)
            new = old | {"status": to or old["status"]} | changes
            new = {field: value for field, value in new.items() if value is not None}
            txn.delete_many(self._index(key, old))
            txn.put_many([(key, new), *((row, None) for row in self._index(key, new))])
            return new

        return _info(id, atomically(self._txn, change)[0])

    def _read(self, txn: Txn, key: bytes) -> RunInfo | None:
        thing = txn.get(key)
        return None if thing is None else _info(key.decode(), thing)

    def _named(self, id: str) -> RunInfo:
        found = self.get(id)
        if found is None:
            raise NotFound(what="run", name=id)
        return found


Steps = list[RunStep]
STEPS_IN_ORDER: Final = tuple(field.name for field in fields(RunStats))


def calls_of(run: str) -> bytes:
    """Return the prefix of the rows in which the recorded calls of a run are kept."""
    return f"\0{_CALL}{run}\0".encode()


def check_step(from_: str, to: str) -> None:
    """Raise InvalidTransition unless a run may go from one status to the other."""
    if to not in STEPS[from_]:
        steps = ", ".join(STEPS[from_])
        raise InvalidTransition(from_=from_, to=to, hint=f"from {from_!r}: {steps or 'nowhere, it is final'}")


def check_status(status: Any) -> Status:
    """Return `status` if it is one."""
    if type(status) is not str or status not in STEPS:
        raise InvalidInput(f"{status!r} is no status of a run", hint=f"one of {', '.join(STEPS)}")
    return cast(Status, status)


def _info(id: str, thing: dict[str, Any]) -> RunInfo:
    """Return a run as the user gets it."""
    source, fork_version = thing["from"]
    rest = {field: value for field, value in thing.items() if field not in ("from", "begun", "ended", "tags")}
    return RunInfo(
        id=id,
        begun_us=thing["begun"],
        ended_us=thing.get("ended"),
        source=source,
        fork_version=fork_version,
        tags=tuple(thing.get("tags", ())),
        **rest,
    )


def recorded_call(place: str, row: dict[str, Any]) -> RecordedCall:
    """Return a recorded call as the user gets it."""
    error = row.get("error")
    text = None if error is None else f"{error['type'].rpartition(':')[2]}: {error['text']}"
    return RecordedCall(
        place,
        row["name"],
        row["digest"],
        row["started"],
        row["attempts"],
        row.get("ended"),
        row.get("result"),
        text,
    )


def place_text(place: bytes) -> str:
    """Return a place as people read it."""
    text = ""
    while place:
        if place[:1] == b"n":
            number = int.from_bytes(place[1 : 1 + PLACE_BYTES])
            text += f"{'.' if text and not text.endswith(':') else ''}{number}"
            place = place[1 + PLACE_BYTES :]
        else:
            name, _, place = place[1:].partition(b"\0")
            text += f"{'.' if text and not text.endswith(':') else ''}{name.decode()}:"
    return text
