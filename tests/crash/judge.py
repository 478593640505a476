"""The judge: the acknowledgement log, which lies outside of the database, replayed into the model.

What recovery yields must be the state at exactly one version V (D2). So all commits up to V, acknowledged or
not, are done again by the model in the order of their versions, on a clock that shows their times: each must
get the same version, and in the end everything must read alike, on every branch, at the heads and at
versions before.

A commit that nobody acknowledged is known by the mark that its operation leaves (`operations`). Versions may
have gaps; what no operation explains must have left no trace, which the comparison shows.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import strata
from crash import child
from crash.child import Spec
from crash.life import Ack, Life
from crash.operations import SHARED, STREAMS, Op, do
from strata.errors import StrataError
from strata.store import open_store
from strata.testing import FakeClock, Model

BRANCH_OPS = ("fork", "rename", "delete")


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the database was like when it was opened again."""

    open_s: float
    log_bytes: int
    lost: int  # acknowledged, and not there
    ambiguous: int  # acknowledged when the end had begun, and not there
    span_us: int  # by which the acknowledgements lost lay apart, at least
    unacknowledged: int  # that are there


class Judge:
    """Follows one database through all its lives."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.chance = path, random.Random(seed)
        self.clock = FakeClock(0)
        self.model = strata.Database(Model(self.clock))
        self.version = 0
        self.backup = 0  # how far it must have come

    def leftovers(self) -> tuple[str, ...]:
        """The branches that a new life need not go on with."""
        return tuple(name for name in self.model.branches if name not in SHARED)

    def create(self, spec: Spec) -> None:
        """Make the database, with all that the operations need; the model gets the same."""
        with child.opened(spec, create=True) as db:
            for place in (db, db.space("notes")):
                place.kv.put("n", 0)
            db.branches.fork("main", "side")
            times = {commit.version: commit.time for commit in db.log()}
        for number, space in ((1, "default"), (2, "notes")):
            self.clock.set(times[number])
            self.model.space(space).kv.put("n", 0)
        self.model.branches.fork("main", "side")
        self.version = 3

    def examine(self, life: Life, *, power_cut: bool = False, looks: int = 3) -> Found:
        """Open what `life` left behind and hold it against what was promised. Raises: Violation."""
        if life.bugs:
            raise Violation(f"the child failed: {life.bugs[0]}")
        log_bytes = sum(file.stat().st_size for file in (self.path / "WAL").iterdir())
        began = time.monotonic()
        try:
            store = open_store(str(self.path), durability=life.spec.durability, create=False)
        except StrataError as error:
            raise Violation(f"it was refused: {error!r}") from error
        open_s = time.monotonic() - began
        with strata.Database(store, path=self.path) as db:
            report = db.verify()
            if not report.ok:
                raise Violation(f"verify says {report.problems}")
            gone = [ack for ack in life.acks if ack.version > report.version]
            lost = [ack for ack in gone if ack.ended < life.ends or not power_cut]
            span_us = self._check_lost(lost, life, report.version, power_cut)
            self._check_forks(life)
            unacknowledged = self._replay(db, life, report.version)
            self._compare(db, looks)
        self._check_backup(life)
        return Found(open_s, log_bytes, len(lost), len(gone) - len(lost), span_us, unacknowledged)

    def _check_lost(self, lost: list[Ack], life: Life, version: int, power_cut: bool) -> int:
        """D1. Returns how far apart those lost were acknowledged, at least."""
        durable = max((durable for durable, at in life.durable if at < life.ends), default=0)
        if version < durable:
            raise Violation(f"version {durable} was called durable, {version} was found")
        if not lost:
            return 0
        if life.spec.durability == "strict" or not power_cut:
            raise Violation(
                f"{len(lost)} acknowledged commits are lost, {lost[0]} the first: found {version}"
            )
        span_us = max(ack.began for ack in lost) - min(ack.ended for ack in lost)
        if span_us > life.spec.options["flush_interval_us"]:
            raise Violation(f"{len(lost)} acknowledged commits of {span_us} us are lost")
        return max(span_us, 0)

    def _check_forks(self, life: Life) -> None:
        """A fork shows all that was acknowledged on its source before it was asked for.

        Of what goes on at the same time it may miss a commit, even one with a smaller version.
        """
        commits = [ack for ack in life.acks if ack.op.kind not in BRANCH_OPS]
        for fork in (ack for ack in life.acks if ack.op.kind == "fork"):
            names = {fork.op.branch, fork.op.branch.replace("r", "b", 1)}
            before = [ack.version for ack in commits if ack.op.branch in names and ack.ended < fork.began]
            if not max(before, default=0) <= fork.fork_version < fork.version:
                raise Violation(f"{fork} lacks version {max(before)}")

    def _check_backup(self, life: Life) -> None:
        """A crash leaves the older backup or the newer one, and each is the state at its version."""
        self.backup = max([self.backup, *(version for version, at in life.backups if at < life.ends)])
        path = child.backup_of(life.spec)
        if not self.backup and not (path / "MANIFEST").exists():
            return  # there is none yet
        try:
            db = strata.open(path, read_only=True)
        except StrataError as error:
            raise Violation(f"the backup was refused: {error!r}") from error
        with db:
            report = db.verify()
            if not report.ok or not self.backup <= report.version <= self.version:
                raise Violation(f"the backup is of {report}, not between {self.backup} and {self.version}")
            for name in set(db.branches) & set(self.model.branches):
                ours = self.model.branch(name).at(report.version)
                alike(ours, db.branch(name), f"{name} in the backup at version {report.version}")

    # --- the replay ----------------------------------------------------------------------------------

    def _replay(self, db: strata.Database, life: Life, newest: int) -> int:
        """Do in the model what was done up to version `newest`. Returns how much was not acknowledged."""
        acked = {ack.version: ack for ack in life.acks}
        for ack in life.acks:
            if acked[ack.version] is not ack or ack.version <= self.version:
                raise Violation(f"version {ack.version} was given twice: {ack} and {acked[ack.version]}")
        commits = {}
        for info in db.branches.list():
            commits |= {row.version: row for row in db.branch(info.name).log(after=self.version)}
        under_way = {op: life.newest(op) for op in life.under_way()}
        for version in range(self.version + 1, newest + 1):
            row = commits.get(version)
            if row is not None:
                self.clock.set(row.time)
            ack = acked.get(version)
            if ack is not None:
                self._again(ack.op, version, ack.fork_version)
                continue
            op = next(
                (op for op, after in under_way.items() if after < version and shows(db, op, version, row)),
                None,
            )
            if op is not None:
                del under_way[op]
                self._again(op, version, fork_version(db, op))
            elif row is not None:
                raise Violation(f"nobody issued version {version}: {row}")
        self.version = newest
        return len(life.under_way()) - len(under_way)

    def _again(self, op: Op, version: int, fork_version: int) -> None:
        model: Any = self.model._store
        model.version = version - 1
        try:
            again = do(self.model, op, fork_version)
        except StrataError as error:
            raise Violation(f"{op} is version {version}, and in the model {error!r}") from error
        if again != version:
            raise Violation(f"{op} is version {version}, and in the model {again}")

    # --- the comparison ------------------------------------------------------------------------------

    def _compare(self, db: strata.Database, looks: int) -> None:
        ours, theirs = list(self.model.branches), list(db.branches)
        if ours != theirs:
            raise Violation(f"the branches are {theirs}, not {ours}")
        for name in ours:
            alike(self.model.branch(name), db.branch(name), f"{name} at version {self.version}")
        for _ in range(looks):
            name, at = self.chance.choice(ours), self.chance.randint(0, self.version)
            alike(self.model.branch(name).at(at), db.branch(name).at(at), f"{name} at version {at}")
            key = self.chance.choice(["n", "total", "k0", "k1", "swapped", "row07"])
            here, there = (place.branch(name).kv.history(key) for place in (self.model, db))
            if list(here) != list(there):
                raise Violation(f"the history of {key} on {name} differs")


def fork_version(db: strata.Database, op: Op) -> int:
    """Where the branch begins that `op` made; 0 if it made none."""
    return (db.branches.get(op.target).fork_version or 0) if op.kind == "fork" else 0


def shows(db: strata.Database, op: Op, version: int, row: Any) -> bool:
    """Whether `op`, of which no word came, is what was committed as `version`."""
    if op.kind in BRANCH_OPS:
        if row is not None:
            return False  # a commit, not a change of branches
        if op.kind == "delete":
            return op.branch not in db.branches
        return op.target in db.branches and fork_version(db, op) < version
    if row is None or row.branch != op.branch:
        return False
    if op.kind in ("transfer", "rows"):
        return bool(row.message == op.name)
    branch = db.branch(op.branch)
    view, before = (branch.at(at).space(op.space) for at in (version, version - 1))
    if op.kind == "incr":
        return bool(row.message is None and view.kv.get("n") - before.kv.get("n") == op.amount)
    return row.message is None and _mark(view, op, version)


def _mark(view: Any, op: Op, version: int) -> bool:
    match op.kind:
        case "put" | "put_many" | "cas" | "blob":
            entry = view.kv.entry("swapped" if op.kind == "cas" else op.key)
            return entry is not None and entry.version == version and entry.value["op"] == op.name
        case "set_state" | "transition":
            cell = view.state.entry("machine" if op.kind == "transition" else op.key)
            return cell is not None and cell.version == version and cell.value["op"] == op.name
        case "append":
            stream = STREAMS[op.amount % 2]
            return stream in view.events.streams() and view.events.head(stream).payload["op"] == op.name
    document = view.json.entry("doc")
    return document is not None and document.version == version and op.name in repr(document.value)


def alike(ours: Any, theirs: Any, where: str) -> None:
    """Raises: Violation where two places do not read alike."""
    spaces = list(ours.spaces)
    if spaces != list(theirs.spaces):
        raise Violation(f"{where}: the spaces are {list(theirs.spaces)}, not {spaces}")
    for space in spaces:
        for part, read in READ.items():
            here, there = read(ours.space(space)), read(theirs.space(space))
            if here != there:
                raise Violation(f"{where}: {space}/{part}: {first_difference(here, there)}")


def first_difference(here: list[Any], there: list[Any]) -> str:
    for one, other in zip(here, there, strict=False):
        if one != other:
            return f"{other!r} is there, not {one!r}"[:600]
    return f"{len(there)} rows are there, not {len(here)}"


def _events(place: Any) -> list[Any]:
    """All but time and hash, which `verify` checks. An event may be a little older than its commit."""
    events = (event for stream in place.events.streams() for event in place.events.range(stream=stream))
    return [(event.stream, event.sequence, event.type, event.payload) for event in events]


READ = {
    "kv": lambda place: [(key, value, place.kv.entry(key).version) for key, value in place.kv.scan()],
    "events": _events,
    "state": lambda place: [(name, place.state.entry(name)) for name in place.state.list()],
    "json": lambda place: [place.json.entry(doc) for doc in place.json.list()],
}
