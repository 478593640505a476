"""The plan of a merge: what brings one state into another, and where both sides are at odds.

    base    what both come from          diff(base, theirs) are the rows to bring, so a merge costs what the
    theirs  the state that is merged     source changed, whatever the data and the target hold
    ours    the branch that takes it, as a transaction on it sees it

Each row is asked three times: what it was, what it is here, and what it is there. Where only theirs changed
it is taken; where both changed, alike or not, the primitive decides (`Primitive._merge`). Events never
clash: those that ours does not know yet follow its own, each with its origin.

Reverts, resets and picks are the same with other states: to undo what lies between two versions is to merge
the older one, with the newer one as base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

from strata.core import patches
from strata.core.changes import Change
from strata.core.errors import ConflictSides, InvalidInput, MergeConflict
from strata.core.merging import NO_CHANGE, Add, Clash, Delete, Patch, Put, Three, Write
from strata.core.patches import ABSENT
from strata.core.paths import render
from strata.core.protocols import UNKNOWN, DiffRow, How, Kept, Snapshot, Store, Transaction, Txn
from strata.history.diff import ALL, Limits, joined, rows
from strata.primitives import PRIMITIVES, Event, Events
from strata.primitives.base import Primitive


@dataclass(frozen=True, slots=True)
class Resolution:
    """What to do about one contested place; made by the methods of `Contested`."""

    write: Write | None


@dataclass(frozen=True, slots=True)
class Contested(ConflictSides):
    """A thing, or a place inside a document, that both sides changed, each in its own way.

    `base`, `source` and `target` are its values; `strata.ABSENT` where there is nothing.
    """

    _clash: Clash = field(repr=False, compare=False)

    def take_source(self) -> Resolution:
        """Let it be as in the source."""
        return Resolution(self._clash.take_theirs)

    def take_target(self) -> Resolution:
        """Leave it as it is in the target."""
        return Resolution(None)

    def use(self, value: Any) -> Resolution:
        """Let it be another value."""
        return Resolution(self._clash.take(value))

    def delete(self) -> Resolution:
        """Remove it."""
        return Resolution(self._clash.take(ABSENT))


Resolve = Callable[[Contested], Resolution]
Strategy = str | Resolve
STRATEGIES = ("strict", "source", "target")


@dataclass(frozen=True, slots=True)
class Pending:
    """Stands for the write of a contested place, until that is resolved."""

    number: int


@dataclass(slots=True)
class Step:
    """What is to be written to one key."""

    space: str
    primitive: type[Primitive]
    key: bytes
    before: Kept | None
    writes: list[Write | Pending]


@dataclass(slots=True)
class Plan:
    """What a merge writes."""

    steps: list[Step] = field(default_factory=list)
    events: list[tuple[str, Event, str]] = field(default_factory=list)  # space, event, branch it is from
    contested: list[Contested] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.steps or self.events or self.contested)


class Planner:
    """Makes the plan of bringing what changed between two states into the branch of a transaction."""

    def __init__(
        self,
        store: Store,
        ours: Snapshot,
        transaction: Transaction,
        *,
        limits: Limits = ALL,
        only_forward: bool = False,
    ) -> None:
        self._store, self._ours, self._transaction = store, ours, transaction
        self._limits = limits
        self._only_forward = only_forward  # leave what is never taken back: events, traces, runs
        self._keyspaces: dict[tuple[bool, str, type[Primitive]], Txn] = {}
        # By an earlier plan of the same transaction:
        self._written: set[tuple[str, str, bytes]] = set()
        self._adopted: set[tuple[Any, ...]] = set()

    def plan(self, base: Snapshot, theirs: Snapshot) -> Plan:
        """Return what brings the changes from `base` to `theirs` into ours.

        Raises: HistoryTrimmed where the base is no longer kept.
        """
        plan = Plan()
        lines = is_line(base, theirs), is_line(base, self._ours)
        for primitive, found in joined(rows(base, theirs, self._limits)):
            if self._only_forward and primitive._FORWARD:
                continue
            if primitive is Events:
                self._plan_events(plan, found, theirs)
                continue
            for row in found:
                self._plan_row(plan, primitive, (base, theirs), lines, row)
        return plan

    def _plan_row(
        self,
        plan: Plan,
        primitive: type[Primitive],
        sides: tuple[Snapshot, Snapshot],
        lines: tuple[bool, bool],
        row: DiffRow,
    ) -> None:
        base, theirs = sides
        space, kind, key, old, new, how = row
        is_written = bool(self._written) and (space, kind, key) in self._written
        txn = self._keyspace(self._transaction if is_written else self._ours, space, primitive)
        ours = txn.kept(key.decode() if primitive.LAYOUT.text_keys else key)
        if ours is not None and old is not None and ours[1] == old[1] and not is_written:
            ours = old  # the same commit wrote both
        if ours is None and old is not None and old[2] is not None and old[2] <= txn.now:
            ours = old  # it went by itself

        def how_ours() -> How:
            return (UNKNOWN, []) if is_written else self._ours.how(base, space, kind, key)

        if how == NO_CHANGE:
            how = base.how(theirs, space, kind, key)  # a way back: what was done on the way there
            lines = False, lines[1]
        if is_written:
            lines = lines[0], False
        merged = primitive._merge(Three(old, ours, new, how, how_ours, *lines))
        writes: list[Write | Pending] = merged.writes  # type: ignore[assignment]  # which is ours alone
        for clash in merged.clashes:
            writes.append(Pending(len(plan.contested)))
            path = None if clash.path is None else render(clash.path)
            values = (clash.base, clash.theirs, clash.ours)
            plan.contested.append(Contested(space, kind, primitive._name(key) or "", path, *values, clash))
        if writes:
            plan.steps.append(Step(space, primitive, key, ours, writes))

    def _keyspace(self, source: Snapshot | Transaction, space: str, primitive: type[Primitive]) -> Txn:
        """Return the rows of a primitive and space, each asked for once."""
        place = source is self._transaction, space, primitive
        if place not in self._keyspaces:
            self._keyspaces[place] = source.keyspace(space, primitive.LAYOUT)
        return self._keyspaces[place]

    def _plan_events(self, plan: Plan, rows: Iterator[DiffRow], theirs: Snapshot) -> None:
        shared = self._shared(theirs)
        for (space, prefix), group in groupby(rows, key=lambda row: (row[0], row[2][:-9])):
            ours, stream = self._ours.keyspace(space, Events.LAYOUT), prefix.decode()
            start = 0 if shared is None else Events(shared.keyspace(space, Events.LAYOUT))._length(stream)
            missing = Events._missing(list(group), stream, ours, start)
            for event in missing:
                place = (space, stream, *Events._identity(event))
                if place not in self._adopted:
                    self._adopted.add(place)
                    plan.events.append((space, event, self._owner(theirs, event)))

    def _shared(self, theirs: Snapshot) -> Snapshot | None:
        """Return the newest state that both sides come from by forks alone."""
        ours = dict(self._ours.lineage())
        for branch, version in theirs.lineage():
            if branch in ours:
                return self._store.snapshot(branch, min(version, ours[branch]))
        return None

    def _owner(self, state: Snapshot, event: Event) -> str:
        """Return the name of the branch that an event was appended to first."""
        if event.origin is not None:
            return event.origin.branch
        owner = [branch for branch, version in state.lineage() if (event.version or 0) <= version][-1]
        names = {info.id: info.name for info in self._store.branches()}
        return names.get(owner, state.name)

    # -- carrying it out

    def carry_out(self, plan: Plan, resolve: Resolve) -> list[Change]:
        """Write what the plan says into the transaction; return what changes by it.

        Raises: InvalidInput when `resolve` returns what is no resolution; what it raises.
        """
        resolved = [resolve(contested) for contested in plan.contested]
        for contested, resolution in zip(plan.contested, resolved, strict=True):
            if type(resolution) is not Resolution:
                raise InvalidInput(
                    f"a conflict function returns a resolution, not {resolution!r} (for {contested.key!r})",
                    hint="return conflict.take_source(), .take_target(), .use(value) or .delete()",
                )
        rows = [row for step in plan.steps for row in self._carry_out(step, resolved)]
        changes: list[Change] = []
        for (_, kind), group in groupby(rows, key=itemgetter(0, 1)):
            changes += PRIMITIVES[kind]._diff(group)
        for (space, stream), found in groupby(plan.events, key=lambda found: (found[0], found[1].stream)):
            events = Events(self._transaction.keyspace(space, Events.LAYOUT))
            adopted = [events.adopt(event, branch=branch) for _, event, branch in found]
            changes.append(Change("added", space, "events", stream, new=adopted, start=adopted[0].sequence))
        return changes

    def _carry_out(self, step: Step, resolved: list[Resolution]) -> list[DiffRow]:
        """Write one step; return what it makes of the row."""
        primitive, kind = step.primitive, step.primitive.LAYOUT.kind
        txn = self._keyspace(self._transaction, step.space, primitive)
        key: Any = step.key.decode() if primitive.LAYOUT.text_keys else step.key
        place = (step.space, kind, step.key)
        writes = [resolved[w.number].write if isinstance(w, Pending) else w for w in step.writes]
        after = step.before
        for write in writes:
            if write is None:
                continue
            live = after if after is None or after[2] is None else _live(after, txn.now)
            if place not in self._written and isinstance(write, Put | Delete):
                # Adds and patches meet others by their own rules; this must replace what was looked at.
                _expect(txn, key, live)
            self._written.add(place)
            _write(txn, key, write)
            after = _after(live, write)
        if after is step.before:
            return []
        if primitive._DERIVES:
            primitive._follow(txn, step.key, step.before, after)
        return [(*place, step.before, after, NO_CHANGE)]


def _expect(txn: Txn, key: Any, live: Kept | None) -> None:
    if live is None:
        txn.expect(key, absent=True)
    else:
        txn.expect(key, version=live[1])


def _write(txn: Txn, key: Any, write: Write) -> None:
    match write:
        case Put(value, expires):
            txn.put_until(key, value, expires)
        case Delete():
            txn.delete(key)
        case Patch(ops):
            txn.patch(key, ops)
        case Add(delta):
            txn.add(key, delta)


def is_line(base: Snapshot, state: Snapshot) -> bool:
    """Return whether one of two states comes from the other by commits and forks alone."""
    (old, version), *_ = base.lineage()
    (new, newest), *_ = state.lineage()
    return dict(state.lineage()).get(old, -1) >= version or dict(base.lineage()).get(new, -1) >= newest


def resolver(strategy: Strategy, plan: Plan) -> Resolve:
    """Return the function that resolves what is contested.

    Raises: MergeConflict when nothing may be contested, and something is.
    """
    if callable(strategy):
        return strategy
    if strategy == "strict" and plan.contested:
        raise MergeConflict(conflicts=plan.contested)
    return Contested.take_source if strategy == "source" else Contested.take_target


def check_strategy(strategy: Any) -> Strategy:
    """Return `strategy` if it is one."""
    if callable(strategy):
        return cast(Resolve, strategy)
    if type(strategy) is str and strategy in STRATEGIES:
        return strategy
    raise InvalidInput(
        f"{strategy!r} is no strategy of a merge",
        hint=f"one of {', '.join(STRATEGIES)}, or a function of one conflict",
    )


def _live(kept: Kept | None, now: int) -> Kept | None:
    """Return a row unless it has expired, so that what is added or patched begins anew."""
    return None if kept is None or (kept[2] is not None and kept[2] <= now) else kept


def _after(before: Kept | None, write: Write) -> Kept | None:
    """Return the row as it is after a write, which has no version yet."""
    version, expires = (0, None) if before is None else (before[1], before[2])
    value = ABSENT if before is None else before[0]
    match write:
        case Put(value, expires):
            return value, version, expires
        case Delete():
            return None
        case Patch(ops):
            made, _ = patches.apply(value, ops)
            return None if made is ABSENT else (made, version, expires)
        case Add(delta):
            return (delta if value is ABSENT else value + delta), version, expires
