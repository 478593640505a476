"""Merge, and what is made of it: pick, revert, reset, undo. Each is one commit on the branch that takes it.

             base                                              theirs
    merge    the best common ancestor, merges counted          the source, now or at a version
    pick     the state before a commit, of each                the state after it
    revert   the state after a range of commits                the state before it
    reset    the branch as it is                               the branch as it was
    undo     a revert of a merge, which is then forgotten: merging again brings it back

Nothing is taken away: history only grows. Events, traces and runs say what happened, so what goes back in
history leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from strata.core.atomic import back_off
from strata.core.changes import Change
from strata.core.errors import Conflict, HistoryTrimmed, InvalidInput, NotFound
from strata.core.keys import check_int
from strata.core.protocols import Branch, Snapshot, Store, Transaction
from strata.history.ancestry import MERGES, SPACE, bases, knows, pin, remember
from strata.history.diff import ALL, Limits
from strata.history.plan import Contested, Plan, Planner, Strategy, check_strategy, resolver

TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class MergeInfo:
    """What a merge, a pick, a revert or a reset did, or would do."""

    source: str
    target: str
    version: int | None  # of the commit on the target; None where there was nothing to write
    base: tuple[str, int] | None  # branch and version that both sides come from
    source_version: int
    changes: tuple[Change, ...]  # of the target
    conflicts: tuple[Contested, ...]  # that the strategy decided, or would have to

    @property
    def ok(self) -> bool:
        """Whether nothing is contested."""
        return not self.conflicts


@dataclass(frozen=True, slots=True)
class Note:
    """What the commit says about itself."""

    message: str | None = None
    actor: str | None = None
    cause: str | None = None


class Merger:
    """Merges into one branch."""

    def __init__(self, store: Store, target: Branch, note: Note | None = None, *, dry: bool = False) -> None:
        self._store, self._target = store, target
        self._note = note or Note()
        self._dry = dry  # only say what would be

    def merge(self, source: Snapshot, strategy: Strategy = "strict", limits: Limits = ALL) -> MergeInfo:
        """Bring what `source` has and the target has not."""
        check_strategy(strategy)
        ours = self._target.view()
        if source.lineage()[0][0] == ours.lineage()[0][0]:
            raise InvalidInput(f"branch {source.name!r} cannot be merged into itself")

        def step(transaction: Transaction, ours: Snapshot) -> tuple[Planner, Plan, tuple[str, int]]:
            if knows(ours, source):
                return Planner(self._store, ours, transaction), Plan(), (source.name, source.version)
            planner = Planner(self._store, ours, transaction, limits=limits)
            plan, base = self._plan(planner, ours, source)
            if plan and not limits:
                remember(transaction, source)
            return planner, plan, base

        info = self._commit(source, step, strategy, f"merge {source.name!r} at {source.version}")
        if info.version is not None and not limits:
            pin(self._store, source, ours.lineage()[0][0])
        return info

    def _plan(self, planner: Planner, ours: Snapshot, source: Snapshot) -> tuple[Plan, tuple[str, int]]:
        trimmed: HistoryTrimmed | None = None
        for base in bases(self._store, ours, source):
            try:
                return planner.plan(base, source), (base.name, base.version)
            except HistoryTrimmed as error:
                trimmed = trimmed or error
        if trimmed is not None:
            raise trimmed
        raise InvalidInput(
            f"branches {source.name!r} and {ours.name!r} have nothing in common",
            hint="fork one off the other, or copy what you want",
        )

    def pick(self, source: Branch, versions: Iterable[int], strategy: Strategy = "strict") -> MergeInfo:
        """Bring what some commits of `source` changed, and nothing else."""
        check_strategy(strategy)
        picked = sorted({check_int(version, "version", 1) for version in versions})
        for version in picked:
            _check_commit(source, version)
        if not picked:
            raise InvalidInput("there is nothing to pick", hint="give versions of commits, or things")

        def step(transaction: Transaction, ours: Snapshot) -> tuple[Planner, Plan, None]:
            planner = Planner(self._store, ours, transaction)
            for version in picked[:-1]:
                plan = planner.plan(source.view(version - 1), source.view(version))
                planner.carry_out(plan, resolver(strategy, plan))
            last = picked[-1]
            return planner, planner.plan(source.view(last - 1), source.view(last)), None

        text = f"pick {', '.join(map(str, picked))} of {source.name!r}"
        return self._commit(source.view(picked[-1]), step, strategy, text)

    def revert(
        self, first: int, last: int, strategy: Strategy = "strict", *, undo: bool = False
    ) -> MergeInfo:
        """Take back what the commits from `first` to `last` of the target changed."""
        check_strategy(strategy)
        check_int(first, "version", 1)
        head = self._target.head
        if check_int(last, "version", 1) < first:
            raise InvalidInput(f"a range of versions goes up, not from {first} to {last}")
        if last > head:
            raise NotFound(what="version", name=str(last), hint=f"the newest is {head}")
        before, after = self._target.view(first - 1), self._target.view(last)

        def step(transaction: Transaction, ours: Snapshot) -> tuple[Planner, Plan, tuple[str, int]]:
            planner = Planner(self._store, ours, transaction, only_forward=True)
            plan = planner.plan(after, before)
            if undo:
                _forget_merges(transaction, before, after)
            return planner, plan, (after.name, last)

        commits = str(first) if first == last else f"{first} to {last}"
        return self._commit(before, step, strategy, f"{'undo' if undo else 'revert'} {commits}")

    def reset(self, version: int) -> MergeInfo:
        """Make the target what it was at a version."""
        theirs = self._target.view(check_int(version, "version"))

        def step(transaction: Transaction, ours: Snapshot) -> tuple[Planner, Plan, tuple[str, int]]:
            planner = Planner(self._store, ours, transaction, only_forward=True)
            return planner, planner.plan(ours, theirs), (ours.name, ours.version)

        return self._commit(theirs, step, "source", f"reset to {theirs.version}")

    def undo(self, version: int, strategy: Strategy = "strict") -> MergeInfo:
        """Take a merge back."""
        check_int(version, "version", 1)
        written = self._target.writes(version - 1, version)
        if not any((row[1], row[2]) == (SPACE, MERGES.kind) for row in written):
            raise InvalidInput(
                f"version {version} of branch {self._target.name!r} is no merge",
                hint="revert takes any commit",
            )
        return self.revert(version, version, strategy, undo=True)

    def _commit(
        self,
        source: Snapshot,
        step: Callable[[Transaction, Snapshot], tuple[Planner, Plan, tuple[str, int] | None]],
        strategy: Strategy,
        text: str,
    ) -> MergeInfo:
        """Plan in a transaction and commit it; again, when somebody else came first."""
        attempt = 0
        while True:
            transaction = self._target.begin()
            try:
                ours = self._target.view(transaction.snapshot)
                planner, plan, base = step(transaction, ours)
                resolve = Contested.take_target if self._dry else resolver(strategy, plan)
                changes = planner.carry_out(plan, resolve)
                version = None
                if not self._dry:
                    version = self._version(transaction, text, source)
            except Conflict as conflict:
                transaction.rollback()
                attempt += 1
                if type(conflict) is not Conflict or attempt >= TRIES:
                    raise
                back_off(attempt)
                continue
            except BaseException:
                transaction.rollback()
                raise
            transaction.rollback()
            return MergeInfo(
                source.name,
                self._target.name,
                version,
                base,
                source.version,
                tuple(changes),
                tuple(plan.contested),
            )

    def _version(self, transaction: Transaction, text: str, source: Snapshot) -> int | None:
        note = self._note
        cause = note.cause or f"commit:{source.version}"
        version = transaction.commit(note.message or text, note.actor, cause)
        return None if version == transaction.snapshot else version


def _check_commit(branch: Branch, version: int) -> None:
    if not branch.commits(version - 1, version + 1, False, 1):
        raise NotFound(what="commit", name=str(version), hint=f"db.log() lists those of {branch.name!r}")


def _forget_merges(transaction: Transaction, before: Snapshot, after: Snapshot) -> None:
    """Let what was remembered between two states be as it was."""
    rows = transaction.keyspace(SPACE, MERGES)
    old, new = (_merges(state) for state in (before, after))
    for key, row in new.items():
        if old.get(key) != row:
            if key in old:
                rows.put(key, old[key])
            else:
                rows.delete(key)


def _merges(state: Snapshot) -> dict[Any, Any]:
    return dict(state.keyspace(SPACE, MERGES).scan(None, None, None, False, None))
