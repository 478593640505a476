"""Places: a branch and a space in which one can read, write and look back.

    Place          what all have
      Branch       db.branch("draft")
      Space        db.space("notes"), db.branch("draft").space("notes")
      Database     (database.py) its default branch and space

A place is a handle: cheap to make, safe to share between threads, valid until the database closes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, TypeVar, cast, overload

from strata.api.face import Lazy
from strata.api.ingest import IngestInfo, MissingParents, Source, ingest_otlp, ingest_transcript
from strata.api.instants import Instant, version_of
from strata.api.portable import AnyPath, check_path
from strata.api.replay import Replay, replay, replay_range, replay_until
from strata.api.retry import RETRIES, retrying
from strata.api.search import Searchable, State
from strata.api.table import Table
from strata.api.transaction import Cause, Transaction
from strata.api.view import View
from strata.core.clock import to_micros
from strata.core.errors import InvalidInput
from strata.core.keys import check_int, check_key, check_name
from strata.core.protocols import Branch as NativeBranch
from strata.core.protocols import Commit, Snapshot, Store, Tag, Txn
from strata.core.refs import EntityRef
from strata.history.diff import Diff, Limits
from strata.history.explain import Explanation, explain
from strata.history.log import between, commits
from strata.history.watch import Watch, watch
from strata.primitives import RunRecords

if TYPE_CHECKING:
    from strata.api.rstmdb.exporting import RstmdbExport
    from strata.api.rstmdb.importing import Progress, RstmdbImport
    from strata.api.runs import Run, Runs

P = ParamSpec("P")
R = TypeVar("R")
Isolation = Literal["serializable", "snapshot"]
_ISOLATIONS: Final = ("serializable", "snapshot")
Body = Callable[Concatenate[Transaction, P], R]


class Place(Searchable):
    """One branch and one space, now."""

    __slots__ = ("_branch", "_store")

    runs: Runs

    def __init__(self, store: Store, branch: NativeBranch, space: str) -> None:
        self._store = store
        self._branch = self._source = branch
        self._space = space

    def _made(self, primitive: type[Any], txn: Txn) -> Any:
        if primitive is not RunRecords:
            return super()._made(primitive, txn)
        from strata.api.runs import Runs  # which makes branches, and so imports this module

        return Runs(txn, self._store, self._branch, self._space)

    @property
    def version(self) -> int:
        """The version of the newest commit of this branch."""
        return self._branch.head

    def branch(self, name: str) -> Branch:
        """Return the handle of a branch, in the same space as here.

        Raises: NotFound when there is none; `branches.create` and `branches.fork` make one.
        """
        return Branch(self._store, self._store.branch(check_name(name, "branch")), self._space)

    def space(self, name: str) -> Space:
        """Return the handle of a space of this branch. The space begins to exist with its first write."""
        return Space(self._store, self._branch, check_name(name, "space"))

    def run(self, id: str) -> Run:
        """Return the handle of a run that was begun here, whatever its status.

        Raises: NotFound when there is none, or its branch was deleted; `runs.begin` begins one.
        """
        return self.runs._run(id)

    def at(self, when: Instant) -> View:
        """Return everything as it was at `when`: a version, a tag, an aware datetime or an ISO 8601 text.

        An instant means the newest commit at or before it; before the first commit all is empty. It shows
        what had not expired by then, and a version shows what had not expired by the time of its commit.
        Reads there raise HistoryTrimmed where retention has let go of something.
        Raises: InvalidInput for a time without a zone.
        Cost: none worth naming; nothing is copied.
        """
        return View(self._view(when), self._space, self._branch)

    def _view(self, when: Instant) -> Snapshot:
        version = version_of(self._branch, when)
        time = None if isinstance(when, int | Tag) else to_micros(when)
        return self._branch.view(version, time)

    def _searched(self, at: Instant | None) -> State:
        seen = self._branch.view() if at is None else self._view(at)
        return State(seen, seen.version, None if at is None else seen.version, self._branch)

    def replay(self, run: str | Place) -> Replay:
        """Return the history of a run as steps: each of its commits in order, with all that it changed.

        Args:
            run: its id, as begun here, or its handle; also a branch by name or handle, from its fork on.
        Raises: NotFound; HistoryTrimmed where retention has let go of a part of it.
        Cost: the replay none; walking it grows with the steps, not with the database.
        """
        return replay(self, run)

    def replay_until(self, run: str | Place, when: Instant) -> Replay:
        """Return the history of a run as steps, up to a version, a tag or an instant. As `replay`.

        Raises: InvalidInput when that is before the run began.
        """
        return replay_until(self, run, when)

    def replay_range(self, a: Instant, b: Instant, branch: str | Place | None = None) -> Replay:
        """Return the commits after `a` and up to `b` as steps: versions, tags or instants of this branch.

        Args:
            branch: another branch, or a run, as in `replay`.
        Raises: InvalidInput when `b` is before `a`; NotFound; HistoryTrimmed.
        """
        return replay_range(self, a, b, branch)

    def watch(
        self,
        primitive: str | None = None,
        *,
        space: str | None = None,
        prefix: str | None = None,
        type: str | None = None,
        from_version: int | None = None,
        timeout_s: float | None = None,
        limit: int | None = None,
    ) -> Watch:
        """Return the commits of this branch as they come: iterate over them, each once and in order.

        Each is a step, as in `replay`, with those of its changes that are watched; commits without any are
        left out. `version` of the watch is where another one would go on.

        Args:
            primitive, space, prefix: only this part; of events, those of streams that begin with `prefix`.
            type: only events of this type.
            from_version: begin after this version, with what is there already, of ancestors too; left out,
                with what comes from now on.
            timeout_s: end when nothing came for so long; 0 gives what is there. Left out, wait for ever.
            limit: end after so many commits.
        Raises: NotFound for a version that is yet to come; and while iterating HistoryTrimmed where retention
            has let go of what comes next, NotFound once the branch is deleted, Closed once the database is.
        Cost: of what was committed since, in pages; nothing to those who commit.
        """
        return watch(
            self._store,
            self._branch,
            Limits(space, primitive, prefix),
            type,
            from_version,
            timeout_s,
            limit,
        )

    def explain(self, ref: EntityRef | str, *, depth: int = 3, limit: int = 100) -> Explanation:
        """Return why something is what it is: who wrote it, when, why, from what, as a tree.

        What a transaction had read is known where it was begun with `record_reads=True`; where not, the
        explanation says so. `print` it, look at it in a notebook, or take `to_dict()`.

        Args:
            ref: as in `strata://main/default/kv/key`, with `#$.path` for a place in a document and `@version`
                for an earlier state; or an EntityRef.
            depth: how many commits deep, each reading what the next one wrote.
            limit: how many values and commits are looked at; `truncated` says that there would be more.
        Raises: InvalidInput for what is no ref; NotFound for what never was; HistoryTrimmed.
        Cost: grows with `limit`. Finding what an old commit wrote beside may read what lies next to it, up to
            all of the branch that is in files.
        """
        return explain(self._store, ref, depth, limit)

    def transaction(
        self,
        *,
        isolation: Isolation = "serializable",
        record_reads: bool = False,
        idempotency_key: str | None = None,
        message: str | None = None,
        actor: str | None = None,
        cause: Cause = None,
    ) -> Transaction:
        """Begin a transaction on this branch; use it in a `with` block.

        Args:
            isolation: "serializable" refuses whatever could not have happened one after the other;
                "snapshot" lets write skew and phantoms pass.
            record_reads: keep with the commit what it read, so that it can be explained.
            idempotency_key: the same key again writes nothing and gives the first commit's version.
            message, actor, cause: what the commit says about itself.
        """
        if isolation not in _ISOLATIONS:
            raise InvalidInput(f"isolation {isolation!r} is unknown", hint=f"one of {', '.join(_ISOLATIONS)}")
        if idempotency_key is not None:
            check_key(idempotency_key)
        begun = self._branch.begin(isolation, record_reads, idempotency_key)
        return Transaction(self._store, begun, self._space, message, actor, cause)

    def transact(self, body: Callable[[Transaction], R], *, retries: int = RETRIES, **options: Any) -> R:
        """Return what `body(tx)` returns, committed. On Conflict it runs again, after a random short pause.

        `body` may run several times, so what it does outside the database should bear that. Options are
        those of `transaction`.
        Raises: Conflict when `retries` more attempts conflict as well; what `body` raises, rolled back.
        """

        def attempt() -> R:
            with self.transaction(**options) as tx:
                return body(tx)

        return retrying(attempt, retries)

    @overload
    def transactional(self, body: Body[P, R], /) -> Callable[P, R]: ...
    @overload
    def transactional(
        self, /, *, retries: int = RETRIES, **options: Any
    ) -> Callable[[Body[P, R]], Callable[P, R]]: ...
    def transactional(self, body: Any = None, /, *, retries: int = RETRIES, **options: Any) -> Any:
        """Make a function of a transaction into a function that runs in one, with retries.

        The function takes the transaction as its first argument, and is called without it.
        """
        if body is None:
            return functools.partial(self.transactional, retries=retries, **options)

        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self.transact(lambda tx: body(tx, *args, **kwargs), retries=retries, **options)

        del cast(Any, run).__wrapped__  # help() would show the transaction as an argument to pass
        return run

    def ingest_otlp(
        self, source: Source, *, missing_parents: MissingParents = "refuse", tags: Iterable[str] = ()
    ) -> IngestInfo:
        """Record OpenTelemetry spans as traces, in one commit; return how many.

        Spans that are there already, by trace id and span id, are left as they are. See `api/otlp` for what
        becomes of their fields.

        Args:
            source: OTLP in JSON: a path, an open file or a dict; a file may have a document a line.
            missing_parents: "refuse" spans whose parent is neither there nor in `source`, or take them as
                "roots" that keep the id in `metadata.parent`.
            tags: for all of them.
        Raises: InvalidInput, naming line and field, for what is no OTLP, and for parents in a circle;
            NotFound for a path without a file; LimitExceeded. Nothing is written then.
        """
        return ingest_otlp(self, source, missing_parents, tags)

    def ingest_transcript(
        self,
        source: Source,
        *,
        stream: str = "main",
        id: str | None = None,
        time_field: str | None = None,
        tags: Iterable[str] = (),
    ) -> IngestInfo:
        """Append chat messages as events, and record tool calls as traces, in one commit; return how many.

        A conversation that is there already is left as it is. See `api/transcript` for what becomes of it.

        Args:
            source: messages as the API of OpenAI has them: a path, an open file, or a list; a file may have a
                message or a conversation a line.
            stream: of the events.
            id: of the conversation and its root trace; left out, a digest of its messages.
            time_field: the field of messages that has their time, in seconds since 1970 or as ISO 8601.
            tags: for all traces.
        Raises: InvalidInput, naming line and field, for what is no message and for answers to calls that were
            not made; AlreadyExists when `id` is that of something else; NotFound for a path without a file;
            LimitExceeded. Nothing is written then.
        """
        return ingest_transcript(self, source, stream, id, time_field, tags)

    def import_rstmdb(
        self, path: AnyPath, *, salvage: bool = False, progress: Progress | None = None
    ) -> RstmdbImport:
        """Take in what rstmdb has logged, machines, instances and all their transitions; return how much.

        A thousand entries become a commit. Run again, after a crash or for what was logged since, it goes on
        where it was. States and contexts are those of the log, whose entries have no times: what is imported
        happened now. Idempotency keys are not taken along.

        Args:
            path: a data directory of rstmdb, which may be that of a server that runs, or a `.rstmbak`.
            salvage: go on behind damage, and leave out what cannot be kept here; the result lists it. Else
                it ends there, and what came before is kept.
            progress: called after each commit with the bytes of the log that are done and those there are.
                What it raises ends the import, and comes out of it; what was committed stays.
        Raises: Corrupt, with file and byte, where the log is damaged, other than at its end; InvalidInput for
            what is no log or no backup, for another log than the one that was imported here before, and,
            naming the offset, for what cannot be kept; LimitExceeded for a backup that is too large; NotFound
            where there is nothing at `path`.
        Cost: reads the log once, a backup twice, in little memory.
        """
        from strata.api.rstmdb.importing import import_log

        return import_log(self, Path(check_path(path)), salvage, progress)

    def export_rstmdb(self, path: AnyPath, *, history: bool = False) -> RstmdbExport:
        """Write the machines and instances of this branch and space to a backup of rstmdb; say what it holds.

        rstmdb restores it, and `import_rstmdb` takes it in again. Without `history` it makes each instance as
        it is now; with it, all transitions that are kept are in it. What rstmdb has no words for, expiry,
        timers and times among it, it does not say.

        Args:
            path: a file that does not exist yet, such as `orders.rstmbak`. It appears when it is whole.
        Raises: AlreadyExists when there is something at `path`; InvalidInput for a context with bytes in it,
            which JSON cannot say; LimitExceeded for one that is larger than rstmdb takes; NotFound for a
            space that there is not.
        Cost: reads what it writes, with `history` twice. The log lies beside the file for a while.
        """
        from strata.api.rstmdb.exporting import export_log

        return export_log(self, Path(check_path(path)), history)

    def diff(
        self,
        old: str | Place | View | Instant,
        new: str | Place | View | Instant | None = None,
        *,
        space: str | None = None,
        primitive: str | None = None,
        prefix: str | None = None,
    ) -> Diff:
        """Return what differs in `new` (None: this branch, now), change by change, of all primitives.

        Args:
            old, new: each the name of a branch, a branch or view itself, or a version, tag or datetime of
                this branch.
            space, primitive, prefix: only this part.
        Raises: NotFound; HistoryTrimmed, while iterating, where retention let go of something.
        Cost: grows with what changed on both sides since they parted, not with the data. Expiry is no change.
        """
        limits = Limits(space, primitive, prefix)
        return Diff(self._state(old), self._state(new), limits)

    def _state(self, of: str | Place | View | Instant | None) -> Snapshot:
        if isinstance(of, View):
            return of._source
        if isinstance(of, Place):
            return of._branch.view()
        if of is None:
            return self._branch.view()
        if isinstance(of, str):
            return self._store.branch(of).view()
        return self._branch.view(version_of(self._branch, of))

    def log(
        self,
        *,
        after: int | None = None,
        before: int | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        actor: str | None = None,
        primitive: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Table[Commit]:
        """Return the commits of this branch and, below its fork, of its ancestors; newest first.

        Args:
            after, before: only versions strictly between these.
            start, end: only commits at start <= time < end.
            actor: only commits by them.
            primitive: only commits that wrote to it.
            reverse: oldest first.
            limit: at most so many.
        Cost: of what is returned; with `actor` or `primitive`, of what is looked at for it.
        """
        for name, number in (("after", after), ("before", before), ("limit", limit)):
            if number is not None:
                check_int(number, name)
        after, before = between(self._branch, after, before, start, end)
        return Table(commits(self._branch, after, before, not reverse, limit, actor, primitive))


class Branch(Lazy, Place):
    """A named line of history."""

    @property
    def name(self) -> str:
        """The name of the branch."""
        return self._branch.name

    def __repr__(self) -> str:
        return f"<Branch {self.name!r} version={self.version} space={self._space!r}>"


class Space(Lazy, Place):
    """A namespace within a branch."""

    @property
    def name(self) -> str:
        """The name of the space."""
        return self._space

    def __repr__(self) -> str:
        return f"<Space {self.name!r} branch={self._branch.name!r}>"
