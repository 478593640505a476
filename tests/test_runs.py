"""Runs: branches with a lifecycle, over the oracle and the kernel."""

from __future__ import annotations

import gc
import threading
import weakref

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
from strata.api import runs as runs_api
from strata.core.errors import run_over
from strata.errors import (
    AlreadyExists,
    InvalidInput,
    InvalidTransition,
    LimitExceeded,
    NotFound,
    Protected,
    ReadOnly,
    RunClosed,
)
from strata.primitives.runs import STEPS
from strata.testing import FakeClock

CLOSE = {
    "completed": "end",
    "failed": "fail",
    "cancelled": "cancel",
    "paused": "pause",
    "archived": "archive",
}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=databases.KINDS)
def db(request, clock):
    with databases.make(request.param, clock) as database:
        yield database


def process_ends(db):
    """From here on the database is as after the next opening, as far as runs know."""
    runs_api._openings.pop(db._store)


def ids(found):
    return [run.id for run in found]


def contents(db):
    return db.version, db.runs.list(), list(db.branches)


def test_a_run_is_a_branch(db, clock):
    db.kv.put("a", 1)
    before = db.version
    run = db.runs.begin("plan a trip", tags=["demo"], metadata={"model": "none"})
    assert isinstance(run, strata.Branch) and run.status == "active"
    assert run.kv.get("a") == 1
    run.kv.put("a", 2)
    run.events.append("x", {})
    run.space("s").kv.put("b", 1)
    assert db.kv.get("a") == 1 and len(db.events) == 0
    info = db.runs.get(run.id)
    assert info == run.info
    assert (info.name, info.tags, info.metadata, info.parent) == (
        "plan a trip", ("demo",), {"model": "none"}, None,
    )  # fmt: skip
    assert info.branch == run.name and run.name in db.branches and "plan a trip" in run.name
    assert info.source == "main" and before <= info.fork_version <= db.version
    assert info.begun.timestamp() == clock() / 1e6 and info.ended is None and info.duration_us is None
    clock.advance(1000)
    done = run.end({"answer": 42})
    assert done == db.runs.get(run.id)
    assert (done.status, done.result, done.duration_us) == ("completed", {"answer": 42}, 1000)
    assert db.branch(run.name).kv.get("a") == 2


def test_the_with_block(db):
    with db.runs.begin() as run:
        run.kv.put("a", 1)
    assert run.status == "completed"
    with pytest.raises(ZeroDivisionError), db.runs.begin() as run:
        1 / 0
    assert run.status == "failed" and run.info.error == "ZeroDivisionError: division by zero"
    with pytest.raises(KeyboardInterrupt), db.runs.begin() as run:
        raise KeyboardInterrupt
    assert run.status == "failed"
    with db.runs.begin() as run:
        run.pause()
    assert run.status == "paused"
    with db.runs.begin() as run:
        run.end(7)
    assert run.info.result == 7
    with pytest.raises(ZeroDivisionError) as caught, db.runs.begin() as run:
        db.close()
        1 / 0
    assert "could not be recorded" in caught.value.__notes__[0]


@pytest.mark.parametrize("to", CLOSE)
def test_a_run_that_is_not_active_takes_no_writes_through_any_handle(db, to):
    run = db.runs.begin()
    other, space, tx = db.branch(run.name), run.space("s"), run.transaction()
    other.kv.put("a", 1)
    space.kv.put("a", 1)
    tx.kv.put("b", 1)
    if to == "archived":
        run.end()
    getattr(run, CLOSE[to])()
    before = run.version
    for use in (
        lambda: run.kv.put("a", 2), lambda: other.kv.delete("a"), lambda: space.state.set("x", 1), tx.commit,
        lambda: run.events.append("x", {}), lambda: db.branch(run.name).json.set("d", "$", 1),
        lambda: db.run(run.id).kv.incr("n"), lambda: run.traces.record("thought"),
        lambda: run.transact(lambda tx: tx.kv.put("c", 1)), lambda: run.runs.begin(),
    ):  # fmt: skip
        with pytest.raises(RunClosed) as caught:
            use()
        assert (caught.value.run, caught.value.status) == (run.id, to)
    assert run.version == before and run.kv.get("a") == 1
    fork = db.branches.fork(run.name, "fork")
    fork.kv.put("a", 3)  # which is another branch


def test_pause_and_resume(db):
    run = db.runs.begin()
    run.kv.put("a", 1)
    run.pause()
    again = run.resume()
    assert again.id == run.id and again.status == "active"
    again.kv.put("a", 2)
    run.kv.put("a", 3)  # the older handle is as good
    assert [step.status for step in db.runs.steps(run.id)] == ["active", "paused", "active"]
    for use in (run.resume, lambda: db.runs.take_over(run.id)):
        with pytest.raises(InvalidTransition):
            use()
    run.pause()
    run.cancel("no use")
    assert run.info.error == "no use"
    for use in (run.resume, run.end, run.pause, lambda: db.runs.take_over(run.id)):
        with pytest.raises(InvalidTransition) as caught:
            use()
        assert caught.value.from_ == "cancelled"


def test_every_step_that_is_not_one(db):
    for status in STEPS:
        for to in STEPS:
            run = db.runs.begin()
            if status == "archived":
                run.end()
            if status != "active":
                getattr(run, CLOSE[status])()
            step = run.resume if to == "active" else getattr(run, CLOSE[to])
            if to in STEPS[status]:
                step()
                assert run.status == to
            else:
                before = contents(db)
                with pytest.raises(InvalidTransition) as caught:
                    step()
                assert (caught.value.from_, caught.value.to) == (status, to)
                assert contents(db) == before


def test_list(db, clock):
    runs = []
    for number in range(6):
        runs.append(db.runs.begin(f"r{number}", tags=["odd" if number % 2 else "even", "all"]))
        clock.advance(10)
    nested = [runs[0].runs.begin(tags=["all"]), runs[0].runs.begin()]
    for run in runs[:2]:
        run.end()
    runs[2].fail("no")
    everything = [*ids(runs), *ids(nested)]
    assert ids(db.runs.list()) == ids(db.runs) == everything
    assert ids(db.runs.list(reverse=True, limit=2)) == everything[:-3:-1]
    assert ids(db.runs.list(status="completed")) == ids(runs[:2])
    assert ids(db.runs.list(tag="odd", status="active")) == ids(runs[3::2])
    assert ids(db.runs.list(parent=runs[0].id)) == ids(db.runs.children(runs[0].id)) == ids(nested)
    assert ids(runs[0].children()) == ids(nested) and nested[0].info.parent == runs[0].id
    assert ids(db.runs.list(parent=runs[0].id, tag="all", status="active")) == ids(nested[:1])
    assert ids(db.runs.list(start=runs[1].info.begun, end=runs[3].info.begun)) == ids(runs[1:3])
    assert ids(db.runs.list(parent="nobody")) == [] == ids(db.runs.list(tag="none"))
    stats = db.runs.stats()
    assert (stats.completed, stats.failed, stats.active, stats.total) == (2, 1, 5, 8)
    assert db.runs.count() == len(db.runs) == 8 and db.runs.count(status="failed") == 1
    assert runs[0].id in db.runs and db.runs.exists(runs[0].id) and not db.runs.exists("x")


def test_nested_runs(db):
    outer = db.runs.begin("outer")
    outer.kv.put("a", 1)
    with outer.runs.begin("inner") as inner:
        assert inner.kv.get("a") == 1 and inner.info.source == outer.name
        inner.kv.put("a", 2)
        innermost = inner.runs.begin(from_="main")
        assert innermost.info.parent == inner.id and innermost.kv.get("a") is None
    outer.end()
    innermost.end()  # its parents being over does not keep it from ending
    assert outer.kv.get("a") == 1 and db.runs.stats().completed == 3
    with pytest.raises(RunClosed):
        inner.runs.begin()
    beside = db.runs.begin(from_=inner)  # by no run, but off the branch of one
    assert beside.info.parent is None and beside.kv.get("a") == 2


def test_from_other_branches_and_points(db):
    version = db.kv.put("a", 1)
    db.kv.put("a", 2)
    db.branches.fork("main", "other").kv.put("a", 3)
    assert db.runs.begin(from_="other").kv.get("a") == 3
    assert db.runs.begin(from_=db.branch("other")).kv.get("a") == 3
    old = db.runs.begin(at=version)
    assert old.kv.get("a") == 1 and old.info.fork_version == version
    there = db.branch("other").runs.begin()
    assert there.kv.get("a") == 3 and there.id in db.branch("other").runs and there.id not in db.runs
    there.end()


def test_spaces_have_runs_of_their_own(db):
    run = db.space("s").runs.begin()
    run.kv.put("a", 1)
    assert db.branch(run.name).space("s").kv.get("a") == 1
    assert run.id not in db.runs and db.space("s").run(run.id).kv.get("a") == 1
    run.end()
    assert db.space("s").runs.get(run.id).status == "completed"
    with pytest.raises(NotFound):
        db.run(run.id)


def test_names_and_ids(db):
    made = [db.runs.begin(name) for name in (None, "a/b", "ä" * 127, "n" * 255, "same", "same")]
    made += [db.runs.begin(id=id) for id in ("mine", "i" * 255, "ü" * 127)]
    made.append(db.runs.begin("n" * 255, id="j" * 255))
    assert len({run.name for run in made}) == len(made)
    assert all(len(run.name.encode()) <= 255 for run in made)
    assert db.run("mine").info.name is None and sorted(ids(made)) == sorted(ids(db.runs.list()))
    before = contents(db)
    with pytest.raises(AlreadyExists) as caught:
        db.runs.begin(id="mine")
    assert (caught.value.what, caught.value.name) == ("run", "mine")
    assert contents(db) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": 7}, {"name": "_x"}, {"name": "a\nb"}, {"id": ""}, {"id": "_x"}, {"id": 7},
        {"tags": "a"}, {"tags": [7]}, {"tags": 7}, {"metadata": []}, {"metadata": {"a": {1}}},
        {"metadata": {1: 1}}, {"from_": 7}, {"from_": "_x"}, {"at": "yesterday"}, {"at": 1.5},
        {"name": "n" * 256}, {"from_": "nowhere"}, {"replay": "nobody"},
    ],
    ids=repr,
)  # fmt: skip
def test_bad_input_begins_nothing(db, wrong):
    before = contents(db)
    with pytest.raises((InvalidInput, LimitExceeded, NotFound)):
        db.runs.begin(**wrong)
    assert contents(db) == before


def test_bad_input_ends_nothing(db):
    run = db.runs.begin()
    before = contents(db)
    for use in (
        lambda: run.end({1, 2}), lambda: run.fail(7), lambda: run.cancel(["x"]), lambda: db.runs.end(7),
        lambda: db.runs.end(""), lambda: db.runs.list(status="over"), lambda: db.runs.count(status=7),
        lambda: db.runs.list(limit=-1), lambda: db.runs.list(parent=7), lambda: db.runs.list(tag=""),
        lambda: db.runs.begin(from_=strata.Database(strata.testing.Model())),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            use()
    for use in (db.runs.end, db.runs.fail, db.runs.resume, db.runs.take_over, db.runs.children, db.run):
        with pytest.raises(NotFound) as caught:
            use("nobody")
        assert (caught.value.what, caught.value.name) == ("run", "nobody")
    assert contents(db) == before and run.kv.put("a", 1)
    assert db.runs.get("nobody") is None


def test_views_transactions_and_forks_read_them(db):
    run = db.runs.begin()
    version = db.version
    run.end()
    assert db.at(version).runs.get(run.id).status == "active"
    assert db.at(version).runs.stats().active == 1 and db.runs.stats().active == 0
    assert ids(db.transaction().runs.list(status="completed")) == [run.id]
    with pytest.raises(AttributeError):
        db.at(version).runs.begin()
    fork = db.branches.fork("main", "fork", at=version)
    process_ends(db)
    assert fork.runs.get(run.id).status == "active" and fork.runs.orphans() == []
    for use in (fork.runs.end, fork.runs.take_over):  # a copy, which must not go ways of its own
        with pytest.raises(InvalidInput) as caught:
            use(run.id)
        assert "db.branch('main').runs" in caught.value.hint


def test_the_branch_of_a_run_renamed_or_deleted(db):
    run, gone = db.runs.begin(), db.runs.begin()
    db.branches.rename(run.name, "renamed")
    assert db.run(run.id).name == "renamed" and run.info.branch != "renamed"
    run.kv.put("a", 1)
    run.end()
    with pytest.raises(RunClosed):
        db.branch("renamed").kv.put("a", 2)
    gone.pause()
    db.branches.delete(gone.name)
    for use in (lambda: db.run(gone.id), lambda: db.runs.resume(gone.id)):
        with pytest.raises(NotFound) as caught:
            use()
        assert caught.value.what == "branch"
    assert db.runs.cancel(gone.id).status == "cancelled" and db.runs.archive(gone.id)


# -- orphans ---------------------------------------------------------------------------------------


def test_orphans(db):
    lost, paused, over = db.runs.begin("lost"), db.runs.begin("paused"), db.runs.begin("over")
    paused.pause()
    over.end()
    lost.kv.put("a", 1)
    assert db.runs.orphans() == []
    process_ends(db)
    fresh = db.runs.begin("fresh")
    assert ids(db.runs.orphans()) == [lost.id]
    run = db.runs.take_over(lost.id)
    assert db.runs.orphans() == [] and run.kv.get("a") == 1 and run.kv.put("a", 2)
    for id in (lost.id, fresh.id, paused.id, over.id):
        with pytest.raises(InvalidTransition):
            db.runs.take_over(id)
    process_ends(db)
    assert ids(db.runs.orphans()) == [lost.id, fresh.id]
    db.runs.fail(fresh.id, "its process died")
    assert ids(db.runs.orphans()) == [lost.id]


def test_a_crash_between_the_two_commits_of_a_step(db):
    """The branch is sealed first, so nobody writes to what may be over; and it can be taken over."""
    run = db.runs.begin()
    db._store.seal(run.name, run_over(run.id, "completed"))
    process_ends(db)
    assert ids(db.runs.orphans()) == [run.id]
    db.runs.take_over(run.id).kv.put("a", 1)
    db._store.seal(run.name, run_over(run.id, "completed"))
    assert db.runs.end(run.id).status == "completed"


def test_after_opening_again(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        active, over = db.runs.begin("active"), db.runs.begin("over")
        active.kv.put("a", 1)
        over.end()
    with strata.open(path, read_only=True) as db:
        assert ids(db.runs.orphans()) == [active.id]
        with pytest.raises(ReadOnly):
            db.runs.begin()
        with pytest.raises(ReadOnly):
            db.runs.end(active.id)
    with strata.open(path) as db:
        assert ids(db.runs.orphans()) == [active.id]
        with pytest.raises(RunClosed) as caught:
            db.branch(over.name).kv.put("a", 1)
        assert (caught.value.run, caught.value.status) == (over.id, "completed")
        with db.runs.take_over(active.id) as run:
            assert run.kv.get("a") == 1
    with strata.open(path) as db:
        assert db.runs.orphans() == [] and db.runs.stats().completed == 2


@pytest.mark.parametrize("history", [False, True])
def test_in_another_database(tmp_path, history):
    """Where a bundle was imported branches have other ids, and those of others may be the ones recorded."""
    with strata.open(tmp_path / "a.strata") as db:
        lost = [db.branches.create(name) for name in "abc"]
        active, over = db.runs.begin("active"), db.runs.begin("over")
        there = db.branches.fork("main", "other").runs.begin()
        for run in (active, over, there):
            run.kv.put("of", run.id)
        over.end()
        for branch in lost:
            db.branches.delete(branch.name)
        db.export(tmp_path / "bundle", history=history)
    strata.import_(tmp_path / "bundle", tmp_path / "b.strata")
    with strata.open(tmp_path / "b.strata") as db:
        db.branches.create("new")
        assert ids(db.runs.orphans()) == [active.id]
        assert ids(db.branch("other").runs.orphans()) == [there.id]
        assert all(db.run(run.id).kv.get("of") == run.id for run in (active, over))
        run = db.runs.take_over(active.id)
        run.kv.put("a", 1)
        db.branches.rename(run.name, "renamed")
        db.run(run.id).end()
        with pytest.raises(RunClosed):
            db.branch("renamed").kv.put("a", 2)
        assert db.runs.archive(over.id).status == "archived"
        with pytest.raises(RunClosed):
            db.branch(over.name).kv.put("a", 2)
        db.branch("new").kv.put("a", 1)
        db.branch("other").runs.cancel(there.id)


def test_a_branch_of_that_name_is_there(db):
    """By hand, or left by a process that died between the fork and the record."""
    db.branches.fork("main", "runs/mine").kv.put("a", 1)
    run = db.runs.begin(id="mine")
    assert run.name != "runs/mine" and run.kv.get("a") is None and db.run("mine").name == run.name


def test_main_may_have_another_name(db):
    db.branches.rename("main", "trunk")
    with db.runs.begin() as run:
        run.kv.put("a", 1)
    assert db.runs.get(run.id).status == "completed" and db.runs.get(run.id).home == "trunk"


def test_what_is_protected_begins_nothing(db):
    db.branches.protect("main")
    before = contents(db)[1:]
    with pytest.raises(Protected):
        db.runs.begin()
    assert contents(db)[1:] == before


def test_forgetting_a_run(db):
    run = db.runs.begin("Ada's", tags=["Ada"], id="r")
    run.recorded(len)("Ada")
    db.runs.begin(id="r2")
    run.end()
    db.forget("runs", "r")
    assert ids(db.runs.list()) == ["r2"] and db.runs.stats().total == 1 and db.runs.list(tag="Ada") == []
    assert run.calls() == [] and db.runs.get("r") is None


def test_handles_are_not_held(db):
    run = db.runs.begin()
    run.runs, run.kv, run.calls()
    gone = weakref.ref(run)
    gc.disable()
    try:
        del run
        assert gone() is None
    finally:
        gc.enable()


# -- at the same time ------------------------------------------------------------------------------


def in_threads(work, count=4):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_many_that_end_a_run_one_does(db):
    ended, runs = [], [db.runs.begin() for _ in range(10)]

    def work(number):
        for run in runs:
            try:
                getattr(db.runs, ("end", "fail", "cancel", "pause")[number])(run.id)
                ended.append((run.id, number))
            except InvalidTransition:
                pass

    in_threads(work)
    after = [run for run in db.runs.list() if run.status != "active"]
    assert len(after) == 10
    for run in after:
        steps = [number for id, number in ended if id == run.id]
        assert len(steps) == 1 or sorted(steps) == [2, 3]  # what is paused can be cancelled
    for run in after:
        with pytest.raises(RunClosed) as caught:
            db.branch(run.branch).kv.put("a", 1)
        assert caught.value.status == run.status


def test_of_many_that_take_over_an_orphan_one_gets_it(db):
    runs, got = [db.runs.begin() for _ in range(10)], []
    process_ends(db)

    def work(_):
        for run in runs:
            try:
                got.append(db.runs.take_over(run.id).id)
            except InvalidTransition:
                pass

    in_threads(work)
    assert sorted(got) == sorted(ids(runs))


def test_many_begin_at_once(db):
    def work(number):
        for step in range(5):
            try:
                with db.runs.begin("r", id=f"shared-{step}") as run:
                    run.kv.put("by", number)
            except AlreadyExists:
                pass
            with db.runs.begin("own", tags=[f"t{number}"]) as run, run.runs.begin() as inner:
                inner.kv.put("a", number)

    in_threads(work)
    stats = db.runs.stats()
    assert stats.completed == stats.total == 5 + 4 * 5 * 2
    assert all(db.runs.count() and len(db.runs.list(tag=f"t{number}")) == 5 for number in range(4))


# -- random walks ----------------------------------------------------------------------------------


class Walks(RuleBasedStateMachine):
    """Runs take random steps, next to a dict of statuses."""

    @initialize(kind=st.sampled_from(databases.KINDS))
    def open(self, kind):
        self.clock = FakeClock()
        self.db = databases.make(kind, self.clock)
        self.status, self.parent, self.tags, self.ours = {}, {}, {}, {}

    @rule(tags=st.sets(st.sampled_from("ab")), parent=st.none() | st.integers(0, 20))
    def begin(self, tags, parent):
        self.clock.advance(1)
        above = list(self.status)[parent % len(self.status)] if parent is not None and self.status else None
        runs = self.db.runs if above is None else self.db.run(above).runs
        if above is not None and self.status[above] != "active":
            with pytest.raises(RunClosed):
                runs.begin()
            return
        run = runs.begin(tags=sorted(tags))
        self.status[run.id], self.parent[run.id], self.tags[run.id] = "active", above, tags
        self.ours[run.id] = True

    @precondition(lambda self: self.status)
    @rule(which=st.integers(0, 20), to=st.sampled_from([*STEPS, "take over"]))
    def step(self, which, to):
        id = list(self.status)[which % len(self.status)]
        if to == "take over":
            act, is_step = self.db.runs.take_over, self.status[id] == "active" and not self.ours[id]
            to = "active"
        else:
            act = self.db.runs.resume if to == "active" else getattr(self.db.runs, CLOSE[to])
            is_step = to in STEPS[self.status[id]]
        if not is_step:
            with pytest.raises(InvalidTransition):
                act(id)
            return
        act(id)
        self.status[id], self.ours[id] = to, self.ours[id] or to == "active"

    @rule()
    def process_ends(self):
        process_ends(self.db)
        self.ours = dict.fromkeys(self.ours, False)

    @invariant()
    def all_is_as_it_should_be(self):
        if not hasattr(self, "db"):
            return
        runs = self.db.runs
        assert {run.id: run.status for run in runs.list()} == self.status
        for status in STEPS:
            assert ids(runs.list(status=status)) == [id for id, has in self.status.items() if has == status]
        for tag in "ab":
            assert ids(runs.list(tag=tag)) == [id for id in self.status if tag in self.tags[id]]
        orphans = [id for id, has in self.status.items() if has == "active" and not self.ours[id]]
        assert ids(runs.orphans()) == orphans
        for id, status in self.status.items():
            assert ids(runs.children(id)) == [child for child, above in self.parent.items() if above == id]
            writes = self.db.run(id).kv.put
            if status == "active":
                writes("a", 1)
            else:
                with pytest.raises(RunClosed):
                    writes("a", 1)


def test_random_walks():
    run_state_machine_as_test(
        Walks,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
