"""Compaction: logically invisible, but for what retention lets go of; and the space comes back."""

from __future__ import annotations

import contextlib
from typing import Any

import databases
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import strata
from strata import KeepAll, KeepFor, KeepLast
from strata.errors import HistoryTrimmed, InvalidInput
from strata.testing import FakeClock, SimDisk

# -- random histories ---------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "c"])
SPACES = st.sampled_from(["default", "s"])
BRANCHES = ["main", "b1", "b2", "b3"]
POLICIES = st.sampled_from(
    [
        KeepLast(1), KeepLast(1), KeepLast(2), KeepLast(3), KeepFor(5e-5), KeepFor(1), KeepAll(),
        KeepLast(2) | KeepFor(3e-5), KeepLast(3) & KeepFor(4e-5),
    ]
)  # fmt: skip
Shown = dict[str, Any]  # what one version shows


def show(face: Any) -> Shown:
    """All of one branch at one version."""
    shown: Shown = {}
    for name in face.spaces:
        place = face.space(name)
        shown[name] = {
            "kv": list(place.kv.scan()),
            "gets": [place.kv.get(key, "none") if name == "default" else None for key in "abc"],
            "state": [(cell, place.state.entry(cell)) for cell in place.state.list()],
            "json": [(doc, place.json.get(doc)) for doc in place.json.list()],
            "events": [place.events.range(0, stream=stream) for stream in place.events.streams()],
        }
        shown[name]["events"] = [list(events) for events in shown[name]["events"]]
    return shown


class Compacting(RuleBasedStateMachine):
    """Each version of each branch is written down when it is made. Later it reads alike, or is trimmed: never
    otherwise. The newest, open views and what forks have of it always read alike."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.disk = SimDisk(1)
        self.shown: dict[tuple[str, int], Shown] = {}
        self.views: list[tuple[Any, Shown]] = []
        self.forks: dict[str, tuple[str, int]] = {}
        self.policies: dict[tuple[Any, ...], Any] = {}
        self.trims = False
        self.open()

    def open(self) -> None:
        self.db = strata.open(disk=self.disk, clock=self.clock, memory_budget=1 << 20)

    def teardown(self) -> None:
        self.check_all()
        self.db.close()

    @initialize()
    def begin(self) -> None:
        self.note("main")

    def note(self, name: str) -> None:
        branch = self.db.branch(name)
        self.shown[name, branch.version] = show(branch)

    def names(self) -> list[str]:
        return list(self.db.branches)

    @rule(which=st.integers(0, 3), space=SPACES, key=KEYS, what=st.integers(0, 5), number=st.integers(0, 9))
    def write(self, which: int, space: str, key: str, what: int, number: int) -> None:
        self.clock.advance(10)
        name = self.names()[which % len(self.names())]
        place = self.db.branch(name).space(space)
        if what == 0:
            place.kv.delete(key)
        elif what == 1:
            place.state.set(key, number)
        elif what == 2:
            place.json.set(key, f"$.f{number % 2}", number)
        elif what == 3:
            place.events.append("t", {"n": number}, stream=key)
        else:
            place.kv.put(key, number)
        self.note(name)

    @rule(which=st.integers(0, 3), key=KEYS)
    def delete_all(self, which: int, key: str) -> None:
        self.clock.advance(10)
        name = self.names()[which % len(self.names())]
        place = self.db.branch(name)
        with place.transaction() as tx:
            tx.kv.delete(key)
            tx.state.delete(key)
            tx.kv.put("c", 0)
        self.note(name)

    @rule(name=st.sampled_from(BRANCHES), which=st.integers(0, 3), back=st.integers(0, 3))
    def fork(self, name: str, which: int, back: int) -> None:
        if name in self.db.branches:
            return
        source = self.names()[which % len(self.names())]
        own = sorted(version for branch, version in self.shown if branch == source)
        at = own[max(0, len(own) - 1 - back)]
        with contextlib.suppress(HistoryTrimmed):
            self.db.branches.fork(source, name, at=at)
            branch = self.db.branch(name)
            assert show(branch) == self.shown[source, at]
            self.shown = {place: shown for place, shown in self.shown.items() if place[0] != name}
            self.note(name)
            return
        assert self.trims

    @precondition(lambda self: len(self.db.branches) > 1)
    @rule(which=st.integers(0, 3))
    def delete_branch(self, which: int) -> None:
        names = [name for name in self.names() if name != "main"]
        name = names[which % len(names)]
        self.db.branches.delete(name)
        self.shown = {place: shown for place, shown in self.shown.items() if place[0] != name}
        self.policies = {place: policy for place, policy in self.policies.items() if place[0] != name}

    @rule(which=st.integers(0, 50))
    def view(self, which: int) -> None:
        places = sorted(self.shown)
        name, version = places[which % len(places)]
        with contextlib.suppress(HistoryTrimmed):
            view = self.db.branch(name).at(version)
            show(view)
            self.views.append((view, self.shown[name, version]))

    @rule()
    def drop_views(self) -> None:
        self.views.clear()

    @rule(
        policy=POLICIES, which=st.none() | st.integers(0, 3), space=st.none() | SPACES,
        primitive=st.none() | st.sampled_from(["kv", "state", "json"]),
    )  # fmt: skip
    def keep(self, policy: Any, which: int | None, space: str | None, primitive: str | None) -> None:
        branch = None if which is None else self.names()[which % len(self.names())]
        place = {"branch": branch, "space": space, "primitive": primitive}
        self.db.retention.set(policy, **place)
        self.policies[branch, space, primitive] = policy
        self.trims = self.trims or policy != KeepAll()

    @rule()
    def checkpoint(self) -> None:
        self.db.checkpoint()

    @rule(mode=st.sampled_from(["full", "full", "log"]))
    def compact(self, mode: Any) -> None:
        self.db.compact(mode)
        self.check_all()

    @rule(how=st.sampled_from(["close", "kill"]))
    def reopen(self, how: str) -> None:
        self.views.clear()
        if how == "kill":
            self.db.flush()
            disk = self.disk.killed()
            self.db.close()
            self.disk = disk
        else:
            self.db.close()
        self.open()
        assert {
            (rule.branch, rule.space, rule.primitive): rule.policy for rule in self.db.retention.list()
        } == self.policies

    @invariant()
    def heads(self) -> None:
        for name in self.names():
            newest = max(version for branch, version in self.shown if branch == name)
            assert show(self.db.branch(name)) == self.shown[name, newest], name

    @invariant()
    def open_views(self) -> None:
        for view, shown in self.views:
            assert show(view) == shown

    def check_all(self) -> None:
        for (name, version), shown in sorted(self.shown.items()):
            branch = self.db.branch(name)
            try:
                seen = show(branch.at(version))
            except HistoryTrimmed as error:
                assert self.trims and error.requested <= version < branch.version
                continue
            assert seen == shown, (name, version)
        for name in self.names():
            self.check_history(self.db.branch(name))
        assert self.db.verify().ok

    def check_history(self, branch: Any) -> None:
        """What a history still has is what a view shows, and has its commit."""
        commits = {commit.version for commit in branch.log()}
        for key in "abc":
            for old in branch.kv.history(key):
                assert old.version in commits
                with contextlib.suppress(HistoryTrimmed):
                    found = branch.at(old.version).kv.get(key, "gone")
                    assert found == ("gone" if old.deleted else old.value)


SETTINGS = settings(
    deadline=None, stateful_step_count=40, suppress_health_check=list(HealthCheck), print_blob=True
)


def test_random_histories():
    run_state_machine_as_test(Compacting, settings=settings(SETTINGS, max_examples=25))


@pytest.mark.slow
def test_many_random_histories():
    run_state_machine_as_test(Compacting, settings=settings(SETTINGS, max_examples=1500))


# -- space ---------------------------------------------------------------------------------------------


def size(path):
    """What the files take, without the space that the log reserves."""
    return sum(len(data) for name, data in databases.tree(path).items() if name.startswith("DATA"))


def noise(number):
    """About 100 bytes that do not pack."""
    import hashlib

    return b"".join(hashlib.sha256(b"%d/%d" % (number, part)).digest() for part in range(3))


def test_keep_last_shrinks_to_what_survives(tmp_path):
    keys, versions = 50, 40
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(3))
        for version in range(versions):
            db.kv.put_many({f"k{key}": noise(version * keys + key) for key in range(keys)})
            if version % 10 == 0:
                db.checkpoint()
        db.compact()  # some went before, in the background
        assert all(len(db.kv.history(f"k{key}")) == 3 for key in range(keys))
    with strata.open(tmp_path / "fresh.strata") as fresh:
        for version in range(versions - 3, versions):
            fresh.kv.put_many({f"k{key}": noise(version * keys + key) for key in range(keys)})
        fresh.compact()
    assert size(tmp_path / "a.strata") <= 1.3 * size(tmp_path / "fresh.strata")


def test_deleted_branches_give_their_space_back(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.kv.put("k", 1)
        db.branches.fork("main", "draft")
        db.branch("draft").kv.put_many({f"k{number}": noise(number) for number in range(500)})
        db.branches.fork("draft", "kept")
        db.branch("draft").kv.put_many({f"l{number}": noise(number) for number in range(500, 1000)})
        db.compact()
        whole = size(path)
        db.branches.delete("draft")
        db.compact()
        half = size(path)
        assert half < 0.6 * whole
        kept = db.branch("kept")
        assert kept.kv.count() == 501 and kept.kv.get("k7") == noise(7) and "l500" not in kept.kv
        db.branches.delete("kept")
        assert db.compact().reclaimed_bytes > 0.8 * half
        assert size(path) < 0.05 * whole and db.kv.get("k") == 1
    with strata.open(path) as db:
        assert list(db.branches) == ["main"] and db.kv.count() == 1 and db.verify().ok


def test_the_log_alone(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.retention.set(KeepLast(1))
        for number in range(10):
            db.kv.put("k", number)
        done = db.compact("log")
        assert done.versions_removed == 0 and done.log_segments_removed == 1
        assert len(db.kv.history("k")) == 10
        done = db.compact("log")
        assert (done.versions_removed, done.log_segments_removed) == (0, 0)
        assert db.compact().versions_removed >= 9
        assert [old.value for old in db.kv.history("k")] == [9]


@pytest.mark.parametrize("mode", ["", "FULL", None, 3, "logs", []])
@pytest.mark.parametrize("kind", databases.KINDS)
def test_modes_that_are_none(kind, mode):
    with databases.make(kind) as db, pytest.raises(InvalidInput):
        db.compact(mode)


@pytest.mark.parametrize("kind", databases.KINDS)
@pytest.mark.parametrize("mode", ["full", "log"])
def test_in_memory_nothing_is_lost(kind, mode):
    with databases.make(kind) as db:
        versions = [db.kv.put("k", number) for number in range(5)]
        done = db.compact(mode)
        assert (done.log_segments_removed, done.versions_removed) == (0, 0)
        assert [db.at(version).kv.get("k") for version in versions] == list(range(5))


def test_in_memory_policies_count_too():
    with strata.open() as db:
        db.retention.set(KeepLast(2), primitive="kv")
        versions = [db.kv.put("k", number) for number in range(10)]
        view = db.at(versions[3])
        assert db.compact().versions_removed == 7
        assert [old.value for old in db.kv.history("k")] == [9, 8, 3] and view.kv.get("k") == 3
        with pytest.raises(HistoryTrimmed):
            db.at(versions[5]).kv.get("k")


def test_progress_is_told_and_may_end_it(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        for part in range(3):
            db.kv.put_many({f"k{part}/{number}": number for number in range(2000)})
            db.checkpoint()
        told = []
        db.retention.set(KeepLast(1))

        def stop(done, all_):
            told.append((done, all_))
            raise RuntimeError("enough")

        before = db.info().files.runs.rows
        with pytest.raises(RuntimeError, match="enough"):
            db.compact(progress=stop)
        assert db.info().files.runs.rows == before and db.kv.count() == 6000
        assert len(told) == 1 and 0 < told[0][0] <= told[0][1]
        told.clear()
        db.compact(progress=lambda done, all_: told.append((done, all_)))
        assert told == sorted(told) and db.info().files.runs.count == 1


# -- what it leaves alone --------------------------------------------------------------------------------


def test_open_views_and_transactions_are_not_disturbed(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1))
        first = db.kv.put("k", 0)
        old = db.at(first)
        rows = db.kv.scan()
        for number in range(1, 20):
            db.kv.put("k", number)
        tx = db.transaction()
        assert tx.kv.get("k") == 19
        middle = db.at(first + 7)
        for number in range(20, 40):
            db.kv.put("k", number)
        db.compact()
        assert (old.kv.get("k"), middle.kv.get("k"), tx.kv.get("k")) == (0, 7, 19)
        assert list(rows) == [("k", 0)]
        assert [entry.value for entry in db.kv.history("k")] == [39, 19, 7, 0]
        with pytest.raises(HistoryTrimmed) as error:
            db.at(first + 3).kv.get("k")
        assert error.value.requested == first + 3 and error.value.oldest == first + 39
        with pytest.raises(HistoryTrimmed):
            db.branches.fork("main", "late", at=first + 3)
        db.branches.fork("main", "pinned", at=first + 7)
        tx.kv.put("other", 1)
        with pytest.raises(strata.errors.Conflict):
            tx.commit()
        del old, middle, tx
        db.compact()
        assert [entry.value for entry in db.kv.history("k")] == [39, 7]
        assert db.branch("pinned").kv.get("k") == 7


def test_the_most_specific_policy_is_what_counts(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1))
        db.retention.set(KeepLast(4), space="notes")
        db.retention.set(KeepAll(), space="notes", primitive="json")
        db.branches.create("b")
        db.retention.set(KeepLast(2), branch="b")
        for number in range(10):
            for place in (db, db.space("notes"), db.branch("b"), db.branch("b").space("notes")):
                place.kv.put("k", number)
                place.json.set("k", "$", number)
        db.compact()

        def left(place):
            return len(place.kv.history("k")), len(place.json.history("k"))

        assert left(db) == (1, 1) and left(db.space("notes")) == (4, 10)
        assert left(db.branch("b")) == (2, 2) and left(db.branch("b").space("notes")) == (4, 10)


def test_keep_for_counts_from_the_last_commit(tmp_path):
    clock = FakeClock()
    with strata.open(tmp_path / "a.strata", clock=clock) as db:
        db.retention.set(KeepFor(60))
        for number in range(10):
            db.kv.put("k", number)
            clock.advance(30_000_000)
        clock.advance(3600_000_000)
        db.compact()
        # Two were made in the 60 seconds before the last commit, and one was current when they began.
        assert [old.value for old in db.kv.history("k")][:2] == [9, 8]
        assert len(db.kv.history("k")) in (2, 3)


def test_what_was_deleted_does_not_come_back(tmp_path):
    path = tmp_path / "a.strata"
    db = strata.open(path)
    db.retention.set(KeepLast(1), primitive="kv")
    for turn in range(6):
        for key in "abcdef":
            db.kv.put(key, turn)
        if turn % 2:
            db.checkpoint()
        db.kv.delete("a")
        if turn % 3 == 0:
            db.compact()
        with db.transaction() as tx:
            tx.kv.delete("b")
            tx.kv.delete("c")
        db.compact("log")
        db.branches.fork("main", f"f{turn}")
        db.branch(f"f{turn}").kv.delete("d")
        db.compact()
        if turn % 2 == 0:
            db.close()
            db = strata.open(path)
        assert list(db.kv) == ["d", "e", "f"]
        for number in range(turn + 1):
            assert list(db.branch(f"f{number}").kv) == ["e", "f"]
            assert db.branch(f"f{number}").kv.get("a") is None
    db.close()


def test_idempotency_keys_and_commits_survive(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.retention.set(KeepLast(2))
        with db.transaction(idempotency_key="once", message="first") as tx:
            tx.kv.put("k", 0)
        for number in range(1, 10):
            with db.transaction(message=f"m{number}", actor="me") as other:
                other.kv.put("k", number)
        db.events.append("t", {})
        db.compact()
    with strata.open(path) as db:
        with db.transaction(idempotency_key="once") as again:
            again.kv.put("k", "never")
        assert again.version == tx.version and db.kv.get("k") == 9
        log = {commit.version: commit for commit in db.log()}
        for old in db.kv.history("k"):
            assert log[old.version].message == f"m{old.value}" and log[old.version].actor == "me"
        assert db.events.len() == 1 and db.events.verify().ok
        assert db.kv.cas("k", "next", expected_version=db.kv.entry("k").version)
