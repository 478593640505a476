"""Runs: an execution of an agent as a branch with a lifecycle.

    with db.runs.begin("answer") as run:        forks a branch, and records the run where it was begun
        run.kv.put("plan", "ask")               the run is a branch
                                                the end of the block completes it, an exception fails it

    active -> completed | failed | cancelled | paused       paused -> active | cancelled
    completed, failed, cancelled, paused -> archived        archived is final

A run that is not active takes no writes through any handle: its branch is sealed in the kernel. A step is two
commits, as record and branch are apart, so their order matters to a crash in between: whatever ends a run
seals the branch first, and whatever lets it go on opens the branch last. What is left then is a run that is
active and sealed, whose process is gone: an orphan like others.

Invariant: who is active has the session of the opening of the database that works on it. After the next
opening, those with another are orphans.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

from strata.api.instants import Instant, version_of
from strata.api.place import Branch, Place
from strata.api.recorded import Fn, Recorder, options_of
from strata.core.errors import (
    AlreadyExists,
    InvalidInput,
    InvalidTransition,
    NotFound,
    RunClosed,
    StrataError,
    run_over,
)
from strata.core.ids import new_id
from strata.core.keys import MAX_NAME_BYTES, check_name
from strata.core.protocols import Branch as NativeBranch
from strata.core.protocols import Store, Txn
from strata.core.values import check
from strata.primitives.index import check_metadata, check_tags
from strata.primitives.runs import Infos, RecordedCall, RunInfo, RunRecords, Status, check_step

ACTIVE: Final = "active"
_ID_BYTES: Final = 100  # of an id that goes into the name of a branch as it is


class Opening:
    """What this process keeps for a store that is open: who it is, and that steps of runs come one by one."""

    __slots__ = ("database", "lock", "session")

    def __init__(self, store: Store) -> None:
        self.database: str = store.info()["id"]
        self.session = os.urandom(16).hex()
        self.lock = threading.RLock()


_openings: weakref.WeakKeyDictionary[Store, Opening] = weakref.WeakKeyDictionary()
_openings_lock: Final = threading.Lock()


def opening_of(store: Store) -> Opening:
    """Return what is kept for a store, made when it is first asked for."""
    with _openings_lock:
        found = _openings.get(store)
        if found is None:
            found = _openings[store] = Opening(store)
        return found


class Runs(RunRecords):
    """The runs that are begun on one branch and space. `db.run(id)` is the handle to work with one."""

    __slots__ = ("_home", "_origin", "_parent", "_space", "_store")

    def __init__(
        self,
        txn: Txn,
        store: Store,
        home: NativeBranch,
        space: str,
        parent: str | None = None,
        origin: NativeBranch | None = None,
    ) -> None:
        super().__init__(txn)
        self._store = store
        self._home = home
        self._space = space
        self._parent = parent  # of the runs begun here
        self._origin = origin or home  # what they are forked off

    def begin(
        self,
        name: str | None = None,
        *,
        from_: str | Place | None = None,
        at: Instant | None = None,
        tags: Iterable[str] = (),
        metadata: dict[str, Any] | None = None,
        id: str | None = None,
        replay: str | None = None,
    ) -> Run:
        """Begin a run on a branch forked for it, and return the handle of that branch.

        Args:
            from_: the branch to fork off, by name or handle; left out, this one. `run.runs.begin` forks off
                the run's own branch, and the new run has that run as its parent.
            at: fork it off as it was at a version or an instant.
            id: of the run; given when left out, so that ids sort by time.
            replay: the id of a run begun here. The new one is forked off where that was, unless `from_` or
                `at` say otherwise, and its recorded calls return what they did in that one. None is made.
        Raises: AlreadyExists for an id that is taken; NotFound for a branch that is not there; RunClosed when
            the run that begins it is not active.
        Cost: a fork and a commit of a few rows.
        """
        replayed = None if replay is None else self._named(replay)
        if replayed is not None and from_ is None:
            from_, at = replayed.source, replayed.fork_version if at is None else at
        source = self._source(from_)
        thing: dict[str, Any] = {"status": ACTIVE, "begun": self._txn.now}
        optional = {
            "name": None if name is None else check_name(name, "run name"),
            "parent": self._parent,
            "replays": replay,
            "tags": check_tags(tags),
            "metadata": check_metadata(metadata),
        }
        thing |= {field: value for field, value in optional.items() if value}
        check(thing)
        given = new_id(thing["begun"]) if id is None else check_name(id, "run id")
        opening = opening_of(self._store)
        with opening.lock:
            if self._txn.contains(given.encode()):
                raise AlreadyExists(what="run", name=given, hint="go on with db.run(id)")
            if self._parent is not None:
                self._check_active(self._parent)
            branch = self._fork(source, None if at is None else version_of(source, at), name, given)
            (branch_id, _), (_, fork_version), *_ = self._store.branch(branch).view().lineage()
            thing |= {"session": opening.session, "branch": branch, "from": [source.name, fork_version]}
            thing |= self._ids_here(branch_id)
            try:
                run = self._insert(given, thing)
            except BaseException:
                self._store.delete(branch)
                raise
        return self._handle(run, branch)

    def end(self, id: str, result: Any = None) -> RunInfo:
        """Complete a run; return it.

        Args:
            result: a value to keep with it.
        Raises: NotFound; InvalidTransition unless it is active.
        """
        check(result)
        return self._close(id, "completed", ended=self._txn.now, result=result)

    def fail(self, id: str, error: str | BaseException | None = None) -> RunInfo:
        """Say that a run failed, and why; return it.

        Raises: NotFound; InvalidTransition unless it is active.
        """
        return self._close(id, "failed", ended=self._txn.now, error=_reason(error))

    def cancel(self, id: str, reason: str | None = None) -> RunInfo:
        """Say that a run will not go on; return it.

        Raises: NotFound; InvalidTransition unless it is active or paused.
        """
        return self._close(id, "cancelled", ended=self._txn.now, error=_reason(reason))

    def pause(self, id: str) -> RunInfo:
        """Let nobody write to a run until it is resumed, also after the next opening; return it.

        Raises: NotFound; InvalidTransition unless it is active.
        """
        return self._close(id, "paused")

    def archive(self, id: str) -> RunInfo:
        """Put a run away for good; return it. Its branch stays, read-only, until it is deleted.

        Raises: NotFound; InvalidTransition while it is active.
        """
        return self._close(id, "archived")

    def resume(self, id: str) -> Run:
        """Go on with a run that is paused; return its handle.

        Raises: NotFound; InvalidTransition unless it is paused.
        """
        return self._open(id, ACTIVE)

    def take_over(self, id: str) -> Run:
        """Go on with an orphan: a run that was active when its process ended; return its handle.

        Of many that try, one gets it.
        Raises: NotFound; InvalidTransition when it is not active, or this process works on it already.
        """
        return self._open(id, None)

    def orphans(self) -> Infos:
        """Return the runs begun here that are active, and whose process has ended. Cost: O(active runs)."""
        session = opening_of(self._store).session
        return [run for run in self.list(status="active") if run.session != session and self._is_home(run)]

    def _close(self, id: str, to: str, **changes: Any) -> RunInfo:
        """Take a step after which the run takes no writes."""
        with opening_of(self._store).lock:
            run = self._mine(id)
            check_step(run.status, to)
            name = self._branch_of(run)
            if name is not None:  # a run is over also when its branch was deleted
                changes |= self._ids_here(_id_of(self._store.branch(name)))
                self._store.seal(name, run_over(id, to))
            return self._change(id, to, **changes)

    def _open(self, id: str, to: str | None) -> Run:
        """Take a step after which the run takes writes, by this process."""
        opening = opening_of(self._store)
        with opening.lock:
            run = self._mine(id)
            if to is None and (run.status != ACTIVE or run.session == opening.session):
                raise InvalidTransition(
                    from_=run.status, to=ACTIVE, hint="only orphans can be taken over: see runs.orphans"
                )
            if to is not None:
                check_step(run.status, to)
            name = self._branch_of(run)
            if name is None:
                raise NotFound(what="branch", name=run.branch, hint="the branch of the run was deleted")
            ids = self._ids_here(_id_of(self._store.branch(name)))
            run = self._change(id, to, session=opening.session, branch=name, **ids)
            self._store.seal(name, None)
            return self._handle(run, name)

    def _mine(self, id: str) -> RunInfo:
        """Return a run that can be changed here.

        Raises: NotFound; InvalidInput for the copy that a fork has of the record.
        """
        run = self._named(id)
        if not self._is_home(run):
            home = next((info.name for info in self._store.branches() if info.id == run.home_id), run.home)
            raise InvalidInput(
                f"run {id!r} was not begun on branch {self._home.name!r}, which has a copy of its record",
                hint=f"use db.branch({home!r}).runs",
            )
        return run

    def _check_active(self, id: str) -> None:
        status = self._named(id).status
        if status != ACTIVE:
            raise RunClosed(run=id, status=status)

    def _source(self, from_: str | Place | None) -> NativeBranch:
        if from_ is None:
            return self._origin
        if isinstance(from_, Place):
            if from_._store is not self._store:
                raise InvalidInput("from_ is a branch of another database", hint="give its name")
            return from_._branch
        return self._store.branch(check_name(from_, "branch"))

    def _fork(self, source: NativeBranch, at: int | None, name: str | None, id: str) -> str:
        """Fork a branch for a run, and return its name."""
        branch = _branch_name(name, id)
        try:
            self._store.fork(source.name, branch, at)
        except AlreadyExists:  # by hand, or by a process that died before it recorded the run
            branch = _branch_name(branch.removeprefix("runs/"), new_id(self._txn.now))
            self._store.fork(source.name, branch, at)
        return branch

    def _ids_here(self, branch_id: int) -> dict[str, Any]:
        """Return what a record says of branches so that they are found again, as they are now."""
        home = {"home": self._home.name, "home_id": _id_of(self._home)}
        return {"branch_id": branch_id, "database": opening_of(self._store).database, **home}

    def _is_here(self, run: RunInfo) -> bool:
        """Whether a run is of this very database, so that ids of branches mean what they meant then."""
        return run.database == opening_of(self._store).database

    def _is_home(self, run: RunInfo) -> bool:
        """Whether a run was begun on this branch, rather than on one that it was forked off later."""
        return run.home_id == _id_of(self._home) if self._is_here(run) else run.home == self._home.name

    def _branch_of(self, run: RunInfo) -> str | None:
        """Return the name that the branch of a run has now; None when it was deleted."""
        is_here = self._is_here(run)
        try:
            if _id_of(self._store.branch(run.branch)) == run.branch_id or not is_here:
                return run.branch
        except NotFound:
            pass  # renamed, or deleted
        found = (info.name for info in self._store.branches() if info.id == run.branch_id and is_here)
        return next(found, None)

    def _handle(self, run: RunInfo, branch: str) -> Run:
        home = Runs(self._txn, self._store, self._home, self._space)
        source = None
        if run.replays is not None:
            source = home._run(run.replays)._recorder
        return Run(self._store, self._store.branch(branch), self._space, home, run.id, source)

    def _run(self, id: str) -> Run:
        """Return the handle of a run, whatever its status."""
        run = self._named(id)
        name = self._branch_of(run)
        if name is None:
            raise NotFound(what="branch", name=run.branch, hint="the branch of the run was deleted")
        return self._handle(run, name)


class Run(Branch):
    """A branch that was forked for a run, and the lifecycle of that run."""

    def __init__(
        self, store: Store, branch: NativeBranch, space: str, home: Runs, id: str, source: Recorder | None
    ) -> None:
        super().__init__(store, branch, space)
        self._runs = home
        self.id = id
        # Over a handle of its own, since one on this would hold this for ever.
        self._recorder = Recorder(Branch(store, branch, space), id, source)

    @property
    def runs(self) -> Runs:  # type: ignore[override]
        """The runs where this one was begun; those begun through this have it as their parent."""
        home = self._runs
        return Runs(home._txn, self._store, home._home, self._space, self.id, self._branch)

    @property
    def info(self) -> RunInfo:
        """What is known of the run now."""
        return self._runs._named(self.id)

    @property
    def status(self) -> Status:
        """Its status now."""
        return self.info.status

    def end(self, result: Any = None) -> RunInfo:
        """Complete it, with a value to keep; return what is known of it. As `runs.end`."""
        return self._runs.end(self.id, result)

    def fail(self, error: str | BaseException | None = None) -> RunInfo:
        """Say that it failed, and why; return what is known of it. As `runs.fail`."""
        return self._runs.fail(self.id, error)

    def cancel(self, reason: str | None = None) -> RunInfo:
        """Say that it will not go on; return what is known of it. As `runs.cancel`."""
        return self._runs.cancel(self.id, reason)

    def pause(self) -> RunInfo:
        """Let nobody write to it until `resume`; return what is known of it. As `runs.pause`."""
        return self._runs.pause(self.id)

    def resume(self) -> Run:
        """Go on after a pause; return a new handle of it. As `runs.resume`."""
        return self._runs.resume(self.id)

    def archive(self) -> RunInfo:
        """Put it away for good; return what is known of it. As `runs.archive`."""
        return self._runs.archive(self.id)

    def children(self) -> Infos:
        """Return the runs that it has begun. As `runs.children`."""
        return self._runs.children(self.id)

    def recorded(
        self,
        fn: Any = None,
        /,
        *,
        name: str | None = None,
        key: Fn | None = None,
        encode: Fn | None = None,
        decode: Fn | None = None,
        transaction: bool = False,
    ) -> Any:
        """Return `fn` as a function whose calls are kept with the run; also as a decorator.

        A call that is finished is never made again: when the run goes on after a crash, or is replayed, it
        returns what was returned, or raises what was raised. A call in which the process ended is made again.
        What is recorded may call other recorded functions. Functions may be `async`.

        Args:
            name: under which it is kept; left out, that of the function.
            key: what of the arguments counts, as a function of them; left out, all, which must be values.
            encode, decode: make a value of the result, and the result of a value.
            transaction: `fn` takes a transaction on this run first, and is called without it. What it writes
                and its result are one commit: both are there once, or neither. On Conflict it runs again.
        Raises, when called: ReplayMismatch when the record has something else at this point, or ends here and
            the run is over; InvalidInput for arguments and results that are no values, and for two calls at
            once outside of lanes.
        """
        if fn is None:
            return functools.partial(
                self.recorded, name=name, key=key, encode=encode, decode=decode, transaction=transaction
            )
        return self._recorder.wrap(fn, options_of(fn, name, key, encode, decode, transaction))

    def lane(self, name: str) -> AbstractContextManager[None]:
        """Count the recorded calls of a `with` block by themselves, so that several threads may make some.

        Each thread or task takes a name of its own, the same when the run is replayed.
        """
        return self._recorder.lane(name)

    def calls(self) -> list[RecordedCall]:
        """Return the recorded calls of the run, in order of their places; nested ones after theirs."""
        return self._recorder.calls()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if self.status == ACTIVE:
                self.end()
            return
        try:
            if self.status == ACTIVE:
                self.fail(error)
        except StrataError as failure:
            error.add_note(f"run {self.id!r} could not be recorded as failed: {failure}")

    def __repr__(self) -> str:
        return f"<Run {self.id!r} branch={self.name!r} space={self._space!r}>"


def _id_of(branch: NativeBranch) -> int:
    return branch.view().lineage()[0][0]


def _branch_name(name: str | None, id: str) -> str:
    """Return a name for the branch of a run: legal, and unique as the id is."""
    encoded = id.encode()
    end = "/" + (id if len(encoded) <= _ID_BYTES else hashlib.sha256(encoded).hexdigest())
    stem = "runs" if name is None else f"runs/{name}"
    return stem.encode()[: MAX_NAME_BYTES - len(end.encode())].decode(errors="ignore") + end


def _reason(error: Any) -> str | None:
    if error is None or type(error) is str:
        return error
    if isinstance(error, BaseException):
        return f"{type(error).__name__}: {error}"
    raise InvalidInput(f"a reason is a text or an exception, not {type(error).__name__}", hint="use str(...)")
