"""Agents side by side: plans on forks, what becomes of those that go wrong, the best, and its merge."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from datetime import timedelta

import agent_plans
import databases
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strata
from strata import agents
from strata.errors import InvalidInput, MergeConflict, NotFound, RunClosed
from strata.testing import FakeClock


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


def number_of(run):
    return run.info.metadata["plan"]


def guess(run):
    run.kv.put("guess", number_of(run))
    return number_of(run)


# -- fork_many -------------------------------------------------------------------------------------


def test_forks_begin_with_the_same(db):
    db.kv.put("goal", 7)
    runs = agents.fork_many(db, 12, tags=["try"])
    assert [run.info.name for run in runs[::11]] == ["plan-00", "plan-11"]
    assert len({run.info.fork_version for run in runs}) == 1
    assert [number_of(run) for run in runs] == list(range(12))
    assert all(run.kv.get("goal") == 7 and run.status == "active" for run in runs)
    assert db.runs.count() == 12 and runs[0].info.tags == ("try",)


def test_forks_of_another_branch_and_of_the_past(db):
    version = db.kv.put("goal", 1)
    db.kv.put("goal", 2)
    db.branches.fork("main", "draft").kv.put("goal", 3)
    (past,) = agents.fork_many(db, 1, at=version)
    (draft,) = agents.fork_many(db, 1, source="draft", prefix="other")
    (same,) = agents.fork_many(db, 1, source=db.branch("draft"))
    assert [run.kv.get("goal") for run in (past, draft, same)] == [1, 3, 3]
    assert draft.info.source == "draft" and draft.info.name == "other-0"


@pytest.mark.parametrize("n", [0, -1, 1.0, True, None])
def test_how_many_is_a_number(db, n):
    with pytest.raises(InvalidInput):
        agents.fork_many(db, n)


def test_what_cannot_be_forked_leaves_nothing_active(db):
    with pytest.raises(NotFound):
        agents.fork_many(db, 2, source="none")
    with pytest.raises(InvalidInput):
        agents.fork_many(db, 2, prefix="a\nb")
    assert db.runs.stats().active == 0


# -- run_plans -------------------------------------------------------------------------------------


def test_each_plan_writes_on_its_own_fork(db):
    outcomes = agents.run_plans(agents.fork_many(db, 8), guess)
    assert [outcome.result for outcome in outcomes] == list(range(8))
    assert [outcome.run.kv.get("guess") for outcome in outcomes] == list(range(8))
    assert all(outcome.success and outcome.measures["latency_ms"] > 0 for outcome in outcomes)
    assert "guess" not in db.kv


def test_a_plan_of_its_own_for_each(db):
    plans = [lambda run, n=n: n * n for n in range(3)]
    outcomes = agents.run_plans(agents.fork_many(db, 3), plans)
    assert [outcome.result for outcome in outcomes] == [0, 1, 4]
    with pytest.raises(InvalidInput):
        agents.run_plans(agents.fork_many(db, 2), plans)


def test_what_goes_wrong_is_recorded_for_that_plan_alone(db):
    late, released = threading.Event(), []

    def hang(run):
        run.kv.put("before", True)
        late.wait(30)
        try:
            run.kv.put("after", True)
        except RunClosed as error:
            released.append(error.status)

    def hang_inside(run):
        try:
            with run.transaction() as tx:
                tx.kv.put("half", True)
                late.wait(30)
        except RunClosed as error:
            released.append(error.status)

    def flood(run):
        while True:
            run.kv.incr("flood")

    def fail(run):
        raise ValueError("no idea")

    plans = [guess, fail, lambda run: sys.exit(3), hang, hang_inside, flood, lambda run: object(), guess]
    runs = agents.fork_many(db, len(plans))
    outcomes = agents.run_plans(runs, plans, timeout=1.5, max_writes=500)
    assert [outcome.status for outcome in outcomes] == [
        "completed", "failed", "failed", "cancelled", "cancelled", "cancelled", "failed", "completed",
    ]  # fmt: skip
    said = ("no idea", "SystemExit", "1.5 s", "1.5 s", "500 keys", "InvalidInput")
    for outcome, part in zip(outcomes[1:7], said, strict=True):
        assert part in outcome.error
    assert outcomes[5].measures["latency_ms"] < 1500
    late.set()
    for thread in threading.enumerate():
        if thread.name in {run.name for run in runs}:
            thread.join(10)
    assert released == ["cancelled", "cancelled"]
    assert list(runs[3].kv) == ["before"] and list(runs[4].kv) == []
    assert db.runs.stats().active == 0 and len(db.kv) == 0


def test_no_more_at_the_same_time_than_asked_for(db):
    going, most, lock = 0, 0, threading.Lock()

    def plan(run):
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        time.sleep(0.01)
        with lock:
            going -= 1

    agents.run_plans(agents.fork_many(db, 9), plan, parallel=3)
    assert most == 3


def test_plans_may_wait_for_each_other(db):
    barrier = threading.Barrier(5)
    outcomes = agents.run_plans(agents.fork_many(db, 5), lambda run: barrier.wait(10) >= 0)
    assert all(outcome.success for outcome in outcomes)


def test_the_time_of_a_plan_begins_with_it(db):
    outcomes = agents.run_plans(
        agents.fork_many(db, 4), lambda run: time.sleep(0.2), parallel=1, timeout=timedelta(seconds=0.7)
    )
    assert all(outcome.success for outcome in outcomes)


def test_a_plan_may_close_its_run_itself(db):
    plans = [lambda run: run.end("early"), lambda run: run.fail("gave up"), lambda run: run.pause()]
    outcomes = agents.run_plans(agents.fork_many(db, 3), [*map(silent, plans)])
    assert [(outcome.status, outcome.result, outcome.error) for outcome in outcomes] == [
        ("completed", "early", None), ("failed", None, "gave up"), ("paused", None, None),
    ]  # fmt: skip


def silent(plan):
    def called(run):
        plan(run)

    return called


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": "soon"}, {"max_writes": 0}, {"workers": "ants"}, {"parallel": 0},
        {"measures": {"score": 7}}, {"measures": {"tokens": len}}, {"measures": {7: len}},
    ],
)  # fmt: skip
def test_options_are_checked_before_anything_runs(db, options):
    runs = agents.fork_many(db, 1)
    with pytest.raises(InvalidInput):
        agents.run_plans(runs, guess, **options)
    assert runs[0].status == "active" and len(runs[0].kv) == 0


def test_only_active_runs_are_worked_on(db):
    runs = agents.fork_many(db, 3)
    runs[1].end()
    with pytest.raises(InvalidInput):
        agents.run_plans(runs, guess, parallel=1)
    assert "active" not in [run.status for run in runs]
    with pytest.raises(InvalidInput):
        agents.run_plans([db.branch("main")], guess)


def test_an_interrupt_leaves_nothing_active(db, monkeypatch):
    from strata.agents import forks

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(forks.Foreman, "_take", interrupt)
    runs = agents.fork_many(db, 3)
    with pytest.raises(KeyboardInterrupt):
        agents.run_plans(runs, lambda run: time.sleep(1), parallel=2)
    assert [run.status for run in runs] == ["cancelled"] * 3


# -- processes -------------------------------------------------------------------------------------


def test_plans_in_processes_of_their_own():
    """Each does its deed over a pipe; those that are killed, leave or flood harm no other."""
    with strata.open() as db:
        db.kv.put("goal", 7)
        runs = agents.fork_many(db, len(agent_plans.DEEDS))
        outcomes = agents.run_plans(
            runs, agent_plans.plan, workers="processes", timeout=100, max_writes=300, parallel=4
        )
        statuses = [outcome.status for outcome in outcomes]
        wanted = ["completed", "failed", "failed", "failed", "failed", "cancelled"]
        assert statuses == [*wanted, "failed", "failed", "failed", "failed", "completed"], str(outcomes)
        said = ("no idea", "exit code 3", "signal 9", "exit code 4", "300 keys", "stored", "sent")
        for outcome, part in zip(outcomes[1:8], said, strict=True):
            assert part in outcome.error
        assert "no function" in outcomes[8].error and "AttributeError" in outcomes[9].error
        assert outcomes[0].result == [7, 2, True, ["goal", "guess"], runs[0].name]
        assert runs[0].space("notes").kv.get("seen") == ["goal", "guess"]
        assert "half" not in runs[4].kv
        assert [run.events.get(0).payload["number"] for run in runs] == list(range(len(runs)))
        assert list(db.kv) == ["goal"]


def test_a_plan_in_a_process_is_told_that_it_does_not_watch():
    """It would wait in the process that has the database, where nothing could stop it."""
    with strata.open() as db:
        (run,) = agents.fork_many(db, 1)
        (outcome,) = agents.run_plans([run], agent_plans.watch, workers="processes", timeout=60)
        assert outcome.status == "failed" and "does not watch" in outcome.error


def test_a_process_that_hangs_is_killed():
    with strata.open() as db:
        (run,) = agents.fork_many(db, 1)
        (outcome,) = agents.run_plans([run], agent_plans.hang, workers="processes", timeout=1)
        assert outcome.status == "cancelled" and "1 s" in outcome.error
        deadline = time.monotonic() + 30
        while multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not multiprocessing.active_children()


def test_a_plan_that_is_no_function_of_a_module_is_a_failure_of_its_own():
    with strata.open() as db:
        plans = [lambda run: 1, agent_plans.plan]
        outcomes = agents.run_plans(agents.fork_many(db, 2), plans, workers="processes")
        assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
        assert "lambda" in outcomes[0].error and "no idea" in outcomes[1].error


# -- evaluate --------------------------------------------------------------------------------------


def test_only_what_a_plan_did_is_measured(db):
    db.traces.record("tool_call", "before", metadata={"tokens": 1000})
    db.events.append("model", {"usage": {"total_tokens": 1000}})

    def plan(run):
        run.traces.record("tool_call", "search", metadata={"usage": {"input_tokens": 3, "output_tokens": 4}})
        run.traces.record("thought", "hm", metadata={"attributes": {"gen_ai.usage.input_tokens": 10}})
        run.events.append(
            "model", {"usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}}
        )
        run.space("notes").traces.record("tool_call", "write")

    (outcome,) = agents.run_plans(agents.fork_many(db, 1), plan)
    assert outcome.measures["tool_calls"] == 2
    assert outcome.measures["tokens"] == 7 + 10 + 25


def test_runs_that_were_carried_out_otherwise_are_evaluated_too():
    clock = FakeClock()
    with strata.open(clock=clock) as db:
        with db.runs.begin("by hand") as run:
            clock.advance(250_000)
        (outcome,) = agents.evaluate([run], {"keys": lambda run: len(run.kv)})
        assert outcome.measures == {
            "success": True, "latency_ms": 250.0, "tool_calls": 0, "tokens": 0, "keys": 0,
        }  # fmt: skip
        assert outcome.name == "by hand"
        active = db.runs.begin()
        (outcome,) = agents.evaluate([active])
        assert outcome.measures["latency_ms"] is None and not outcome.success and outcome.name == active.id


def test_a_measure_that_raises_is_a_problem_of_that_outcome_alone(db):
    outcomes = agents.run_plans(
        agents.fork_many(db, 3), guess, measures={"inverse": lambda run: 1 / run.kv.get("guess")}
    )
    assert outcomes[0].problems == {"inverse": "ZeroDivisionError: division by zero"}
    assert outcomes.best("inverse").name == "plan-1"
    assert "! ZeroDivisionError" in str(outcomes)


def test_the_table_shows_itself(db):
    def plan(run):
        if number_of(run) == 1:
            raise ValueError("<b>\nno\x1b[31m")

    outcomes = agents.run_plans(agents.fork_many(db, 60, prefix="<i>"), plan)
    lines = str(outcomes).splitlines()
    assert lines[0].split() == ["plan", "status", "success", "latency_ms", "tool_calls", "tokens", "error"]
    assert len(lines) == 52 and lines[-1] == "... and 10 more" and "\x1b" not in str(outcomes)
    html = outcomes._repr_html_()
    assert "<b>" not in html and "<i>" not in html and "and 10 more" in html
    assert str(agents.evaluate([])) == "(none)"


# -- the best, and its merge -----------------------------------------------------------------------


def test_the_best(db):
    def plan(run):
        if number_of(run) == 3:
            raise ValueError
        for _ in range(3 - number_of(run)):
            run.traces.record("tool_call", "search")

    measures = {"score": lambda run: [0.5, 2.5, float("nan"), 9.0][number_of(run)], "text": lambda run: {}}
    outcomes = agents.run_plans(agents.fork_many(db, 4), plan, measures=measures)
    assert outcomes.best().name == "plan-0"
    assert outcomes.best("score").name == "plan-1"
    assert outcomes.best("score", least=True).name == "plan-0"
    assert outcomes.best("tool_calls").name == "plan-2"
    assert outcomes.best("tool_calls", least=False).name == "plan-0"
    assert outcomes.best(lambda outcome: -outcome.measures["tool_calls"]).name == "plan-2"
    for wrong in ("speed", "text"):
        with pytest.raises(InvalidInput):
            outcomes.best(wrong)


def test_without_a_winner_nothing_is_merged(db):
    outcomes = agents.run_plans(agents.fork_many(db, 2), lambda run: 1 / 0)
    for none in (outcomes, agents.evaluate([])):
        with pytest.raises(NotFound):
            none.merge_winner(keep="none")
    assert len(db.branches) == 3


@pytest.mark.parametrize(("keep", "left"), [("all", 3), ("winner", 1), ("none", 0)])
def test_the_winner_is_merged(db, keep, left):
    outcomes = agents.run_plans(
        agents.fork_many(db, 3), guess, measures={"guess": lambda run: run.kv.get("guess")}
    )
    merged = outcomes.merge_winner("guess", keep=keep)
    assert db.kv.get("guess") == 2 and merged.ok
    assert db.log(limit=4)[0].message == "the best of 3 plans: plan-2"
    names = {outcome.run.name for outcome in outcomes}
    assert len(names & set(db.branches)) == left
    assert db.runs.stats().completed == 3  # what is known of them stays
    if keep == "winner":
        assert set(db.branches) == {"main", outcomes[2].run.name}
    with pytest.raises(InvalidInput):
        outcomes.merge_winner(keep="some")


def test_what_a_plan_has_forked_goes_with_it(db):
    def plan(run):
        with run.runs.begin("inner") as inner, inner.runs.begin("innermost") as innermost:
            innermost.kv.put("deep", number_of(run))
        return number_of(run)

    outcomes = agents.run_plans(agents.fork_many(db, 3), plan)
    assert len(db.branches) == 1 + 3 * 3
    outcomes.merge_winner(lambda outcome: outcome.result, keep="winner")
    assert len(db.branches) == 1 + 3
    db.branches.delete(outcomes[2].run.children()[0].branch)
    outcomes.merge_winner(lambda outcome: outcome.result, keep="none")
    assert list(db.branches) == ["main"]


def test_a_conflict_leaves_all_as_it_was(db):
    outcomes = agents.run_plans(agents.fork_many(db, 2), guess)
    db.kv.put("guess", "mine")
    with pytest.raises(MergeConflict):
        outcomes.merge_winner(keep="none")
    assert db.kv.get("guess") == "mine" and len(db.branches) == 3
    outcomes.merge_winner(strategy="source", keep="none", message="took it", actor="judge")
    assert db.kv.get("guess") == 0 and list(db.branches) == ["main"]
    assert {(commit.message, commit.actor) for commit in db.log()} >= {("took it", "judge")}


def test_forks_of_forks(db):
    """A plan forks again, merges the best of its own into itself, and is merged in its turn."""

    def outer(run):
        def inner(child):
            child.kv.put("guess", 10 * number_of(run) + number_of(child))

        best = agents.run_plans(
            agents.fork_many(run, 3), inner, measures={"guess": lambda child: child.kv.get("guess")}
        ).merge_winner("guess", keep="none")
        assert best.target == run.name

    db.branches.fork("main", "draft")
    outcomes = agents.run_plans(
        agents.fork_many(db.branch("draft"), 3), outer, measures={"guess": lambda run: run.kv.get("guess")}
    )
    assert all(outcome.success for outcome in outcomes), str(outcomes)
    outcomes.merge_winner("guess", keep="none")
    assert db.branch("draft").kv.get("guess") == 22 and "guess" not in db.kv
    draft = db.branch("draft")
    assert [len(draft.runs.children(outcome.run.id)) for outcome in outcomes] == [3, 3, 3]
    assert sorted(db.branches) == ["draft", "main"]


KEYS = st.sampled_from(["a", "b", "c"])
DEEDS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(0, 3)),
    st.tuples(st.just("delete"), KEYS, st.just(0)),
    st.tuples(st.just("incr"), st.just("count"), st.integers(1, 3)),
    st.tuples(st.just("set"), KEYS, st.integers(0, 3)),
    st.tuples(st.just("append"), KEYS, st.integers(0, 3)),
    st.tuples(st.just("cell"), KEYS, st.integers(0, 3)),
)


def do(place, deeds):
    for deed, key, value in deeds:
        if deed == "put":
            place.kv.put(key, value)
        elif deed == "delete":
            place.kv.delete(key)
        elif deed == "incr":
            place.kv.incr(key, value)
        elif deed == "set":
            place.json.set("doc", f"$.{key}", value)
        elif deed == "append":
            place.events.append("noted", {key: value})
        else:
            place.state.set(key, value)


def contents(place):
    return (
        {key: place.kv.get(key) for key in place.kv},
        place.json.get("doc"),
        [event.payload for event in place.events.range()],
        {name: place.state.get(name) for name in place.state.list()},
    )


@pytest.mark.parametrize("kind", databases.KINDS)
@given(
    before=st.lists(DEEDS, max_size=5),
    plans=st.lists(st.lists(DEEDS, max_size=6), min_size=1, max_size=3),
    choice=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_merging_the_winner_is_as_if_it_had_run_alone(kind, before, plans, choice):
    with databases.make(kind) as db, databases.make(kind) as alone:
        for place in (db, alone):
            place.state.list()
            do(place, before)
        winner = choice % len(plans)
        outcomes = agents.run_plans(
            agents.fork_many(db, len(plans)),
            [lambda run, deeds=deeds: do(run, deeds) for deeds in plans],
            measures={"chosen": lambda run: number_of(run) == winner},
        )
        outcomes.merge_winner("chosen", keep="none")
        do(alone, plans[winner])
        assert contents(db) == contents(alone)
        assert db.events.verify().ok
