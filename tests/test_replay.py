"""Replay: steps give back the state at every version, of every kind of data, over oracle and kernel."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import databases
import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st
from test_histories import JSON_WRITES, SPACES, WRITES, call, plain

import strata
from strata import KeepLast
from strata.core.errors import StrataError
from strata.errors import HistoryTrimmed, InvalidInput, NotFound
from strata.history import replay
from strata.history.digest import digest
from strata.testing import FakeClock

OPERATION = st.tuples(SPACES, WRITES | JSON_WRITES)
# One commit of several operations, on main or the fork; the clock moves in between, so that things expire.
COMMITS = st.lists(
    st.tuples(st.sampled_from(["main", "b"]), st.lists(OPERATION, min_size=1, max_size=4), st.integers(0, 9)),
    min_size=1,
    max_size=12,
)


def grow(store: Any, clock: FakeClock, commits: Any) -> None:
    """Make a history: half of it, a fork, the rest, and a merge of each into the other."""
    for number, (branch, operations, micros) in enumerate(commits):
        if number == len(commits) // 2:
            store.fork("main", "b")
        clock.advance(micros)
        place = stores.Place(store, branch if number >= len(commits) // 2 else "main")
        inside = place.begin()
        for space, operation in operations:
            with contextlib.suppress(StrataError):
                call(inside.space(space), operation)
        with contextlib.suppress(StrataError):
            inside.commit(f"number {number}")
    branches = strata.Database(store).branches
    branches.merge("b", "main", "source")
    branches.merge("main", "b", "target")


def versions_of(branch: Any) -> list[int]:
    return [0, *(commit.version for commit in branch.commits(None, None, False, None)), branch.head]


def read(face: stores.Face, change: replay.Change) -> Any:
    """What a read gives of what a change made."""
    if change.primitive == "events":
        stream, _, sequence = change.key.rpartition("/")
        return face.events.get(int(sequence), stream=stream)
    if change.primitive == "state":
        return face.state.entry(change.key)
    return getattr(face, change.primitive).get(change.key)


@pytest.mark.parametrize("kind", stores.KINDS)
@settings(max_examples=60, deadline=None)
@given(commits=COMMITS)
def test_steps_add_up_to_the_state_at_every_version(kind: str, commits: Any) -> None:
    clock = FakeClock()
    store = stores.make(kind, clock)
    grow(store, clock, commits)
    for name in ("main", "b"):
        branch = store.branch(name)
        versions = versions_of(branch)
        for after in versions[::3]:
            for upto in versions:
                if after <= upto:
                    assert replay.Stretch(branch, after, upto).digest() == digest(branch.view(upto))
    store.close()


@pytest.mark.parametrize("kind", stores.KINDS)
@settings(max_examples=60, deadline=None)
@given(commits=COMMITS)
def test_what_a_step_shows_is_what_is_read_there(kind: str, commits: Any) -> None:
    clock = FakeClock()
    store = stores.make(kind, clock)
    grow(store, clock, commits)
    branch = store.branch("b")
    stretch = replay.Stretch(branch, 0, branch.head)
    steps = list(stretch)
    assert [(step.version, step.message) for step in steps] == [
        (commit.version, commit.message) for commit in branch.commits(None, None, False, None)
    ]
    assert len(stretch) == len(steps)
    assert list(stretch) == steps or "nan" in repr(steps)
    for step in steps:
        for change in step.changes:
            if change.expires_us is not None and change.expires_us <= step.time_us:
                continue  # merges also take what has expired
            face = stores.Face(branch.view(step.version), change.space)
            assert plain(read(face, change)) == plain(change.value), change
            for part in change.parts:
                assert plain(face.json.get(change.key, part.path)) == plain(part.value)
                assert face.json.exists(change.key, part.path) is not part.removed
        json.dumps(step.to_dict(), allow_nan=False)
        assert str(step).isprintable() or "\n" in str(step)
    store.close()


@settings(max_examples=40, deadline=None)
@given(commits=COMMITS)
def test_the_oracle_and_the_kernel_show_the_same_steps(commits: Any) -> None:
    shown = []
    for kind in stores.KINDS:
        clock = FakeClock()
        store = stores.make(kind, clock)
        grow(store, clock, commits)
        branch = store.branch("b")
        shown.append(
            (
                [step.to_dict() for step in replay.Stretch(branch, 0, branch.head)],
                digest(branch.view()),
            )
        )
        store.close()
    assert plain(shown[0]) == plain(shown[-1])


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


@pytest.fixture
def run(db):
    """A run of three commits that touch everything there is."""
    db.kv.put("before", 1)
    with db.runs.begin("try", id="r1") as run:
        run.json.set("doc", "$", {"a": 1, "list": [1, 2]})
        with run.transaction(message="think", actor="planner", cause="commit:1") as tx:
            tx.kv.incr("n", 2)
            tx.state.set("mood", "calm")
            tx.json.set("doc", "$.a", 2)
            tx.json.delete("doc", "$.list[0]")
            tx.events.append("said", {"text": "hi"})
            tx.traces.record("thought", id="t", output="hm")
            tx.space("notes").kv.put("k", b"\0\1")
        run.kv.delete("before")
    db.kv.put("after", 1)
    return run


def test_a_run_is_replayed_by_id_by_handle_and_by_branch(db, run):
    for source in ("r1", run, db.run("r1"), run.name, db.branch(run.name)):
        replayed = db.replay(source)
        assert [len(step.changes) for step in replayed] == [1, 6, 1]
        assert len(replayed) == 3
        assert replayed.branch == run.name
    assert db.replay("r1").view.kv.get("n") == 2
    assert db.replay("r1").start.kv.get("before") == 1
    assert db.replay("r1").start.json.get("doc") is None
    assert db.branch(run.name).replay(run.name).view.version == run.version


def test_a_step_says_who_what_and_why(db, run):
    step = list(db.replay("r1"))[1]
    assert (step.message, step.actor, step.cause) == ("think", "planner", "commit:1")
    assert [(c.space, c.primitive, c.key, c.action) for c in step.changes] == [
        ("default", "events", "main/0", "append"),
        ("default", "json", "doc", "patch"),
        ("default", "kv", "n", "incr"),
        ("default", "state", "mood", "set"),
        ("default", "traces", "t", "record"),
        ("notes", "kv", "k", "put"),
    ]
    by_kind = {(c.space, c.primitive): c for c in step.changes}
    assert by_kind["default", "state"].value.counter == 1
    assert by_kind["default", "events"].value.payload == {"text": "hi"}
    assert by_kind["default", "json"].parts == (replay.Part("$.a", 2), replay.Part("$.list", [2]))
    ref = by_kind["notes", "kv"].ref
    assert str(ref) == f"strata://{run.name.replace('/', '%2F')}/notes/kv/k@{step.version}"
    assert "kv n incr 2" in str(step) and '"think"' in str(step)


def test_what_is_printed_moves_no_cursor(db):
    with db.transaction(message="\x1b[2J\nnew line", actor="\r", cause="\x1b") as tx:
        tx.kv.put("\x1b[1m", "\x1b[0m")
        tx.events.append("a", {"\x1b": "\n"})
        tx.traces.record("error", error="\x1b[31m")
    for line in str(next(iter(db.replay("main")))).split("\n"):
        assert line.isprintable(), line


def test_steps_give_the_state_at_the_end_of_the_run(db, run):
    replayed = db.replay("r1")
    assert replayed.digest() == replayed.view.digest() == db.branch(run.name).at(run.version).digest()
    assert replayed.digest() != replayed.start.digest()


def test_a_notebook_shows_a_table(db, run):
    with db.branches.fork("main", "<b>").transaction(message="<script>") as tx:
        tx.kv.put_many({f"<k{number}>": number for number in range(9)})
    shown = db.replay("<b>")._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>" not in shown and "<k" not in shown
    assert "and 4 more" in shown and shown.count("<tr>") == 2
    for number in range(60):
        db.kv.put("k", number)
    assert "more</p>" in db.replay("main")._repr_html_()


def test_replay_until_stops_there(db, run):
    versions = [step.version for step in db.replay("r1")]
    assert [step.version for step in db.replay_until("r1", versions[1])] == versions[:2]
    assert db.replay_until("r1", versions[0]).view.kv.get("n") is None
    assert len(db.replay_until("r1", 10_000)) == len(db.replay_until("r1", "2999-01-01T00:00Z")) == 3
    tag = db.branches.tag("here", run.name, at=versions[0])
    assert len(db.replay_until(run, tag)) == 1
    with pytest.raises(InvalidInput):
        db.replay_until("r1", "1999-01-01T00:00Z")
    with pytest.raises(InvalidInput):
        db.replay_until("r1", 0)


def test_replay_range_is_what_lies_between(db):
    versions = [db.kv.put("k", number) for number in range(5)]
    assert [step.version for step in db.replay_range(versions[1], versions[3])] == versions[2:4]
    assert [step.changes[0].value for step in db.replay_range(0, 10_000)] == [0, 1, 2, 3, 4]
    assert list(db.replay_range(versions[1], versions[1])) == []
    db.branches.fork("main", "b")
    at = db.branch("b").kv.put("k", 9)
    assert [step.version for step in db.replay_range(versions[3], at, "b")] == [versions[4], at]
    assert [step.branch for step in db.replay_range(versions[3], at, db.branch("b"))] == ["main", "b"]
    assert [step.version for step in db.replay("b")] == [at]
    with pytest.raises(InvalidInput):
        db.replay_range(versions[3], versions[1])


def test_bad_input_is_told(db, run):
    for nothing in ("nothing", "r2"):
        with pytest.raises(NotFound):
            db.replay(nothing)
    for bad in (7, None, b"r1", "", "a\0"):
        with pytest.raises(InvalidInput):
            db.replay(bad)
    for bad in (-1, "yesterday", None, 1.5, "2026-01-01T00:00"):
        with pytest.raises(InvalidInput):
            db.replay_until("r1", bad)
    with databases.make("model") as other, pytest.raises(InvalidInput):
        other.replay(run)
    db.branches.delete(run.name)
    with pytest.raises(NotFound):
        db.replay("r1")


def test_merges_and_notes_are_steps_that_add_up(db):
    db.kv.put("a", 1)
    draft = db.branches.fork("main", "draft")
    draft.kv.incr("a")
    draft.events.append("said", {"b": 1})
    db.kv.incr("a")
    db.branches.merge("draft", "main")
    db.branches.note(db.version, "merged")
    replayed = db.replay("main")
    steps = list(replayed)
    assert [(c.primitive, c.key) for c in steps[-2].changes] == [("events", "main/0"), ("kv", "a")]
    assert steps[-2].changes[0].value.origin.branch == "draft" and steps[-1].changes == ()
    assert replayed.digest() == replayed.view.digest()


def test_what_is_recorded_of_calls_is_shown(db):
    with db.runs.begin(id="r") as run:
        run.recorded(len)([1, 2])
    calls = [(c.key, c.action, c.value.result) for step in db.replay("r") for c in step.changes]
    assert calls == [("r/0", "call", None), ("r/0", "call", 2)]


def test_a_replay_does_not_change_while_others_write(db):
    db.kv.put("k", 1)
    replayed = db.replay("main")
    before = list(replayed)
    db.kv.put("k", 2)
    assert list(replayed) == before and len(replayed) == 1


def test_nothing_is_written(db, run):
    before = db.version, run.version, [info.head for info in db.branches.list()]
    replayed = db.replay("r1")
    list(replayed), replayed.digest(), replayed.view.digest()
    assert before == (db.version, run.version, [info.head for info in db.branches.list()])


def test_what_retention_let_go_of_is_no_replay(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1))
        versions = [db.kv.put("k", number) for number in range(9)]
        db.compact()
        with pytest.raises(HistoryTrimmed) as error:
            db.replay("main")
        oldest = error.value.oldest
        assert versions[0] < oldest
        replayed = db.replay_range(oldest, versions[-1])
        assert replayed.digest() == db.at(db.version).digest()


def test_a_run_is_whole_whatever_becomes_of_what_it_was_forked_off(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.kv.put("k", 0)
        with db.runs.begin(id="r") as run:
            run.kv.put("k", 1)
            run.kv.put("k", 2)
        db.retention.set(KeepLast(1), branch="main")
        for number in range(9):
            db.kv.put("k", number)
        db.compact()
        replayed = db.replay("r")
        assert [step.changes[0].value for step in replayed] == [1, 2]
        assert replayed.digest() == replayed.view.digest() and replayed.start.kv.get("k") == 0
        with pytest.raises(HistoryTrimmed):
            db.replay("main")


@pytest.mark.slow
def test_a_hundred_thousand_commits_reproduce_the_state(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        with db.runs.begin(id="r") as run:
            for number in range(32_000):
                run.kv.put(f"k{number % 5_000}", number)
                run.events.append("step", {"number": number})
                run.json.set(f"doc{number % 100}", f"$.a{number % 7}", number)
                run.kv.delete(f"k{number % 1_000}")
        for settle in (lambda: None, db.checkpoint, db.compact):
            settle()
            replayed = db.replay("r")
            assert replayed.digest() == replayed.view.digest()
    with strata.open(tmp_path / "a.strata") as db:
        replayed = db.replay("r")
        assert len(replayed) > 100_000 and replayed.digest() == replayed.view.digest()


def test_many_commits_come_in_pages(monkeypatch, db):
    monkeypatch.setattr(replay, "_FIRST_PAGE", 3)
    monkeypatch.setattr(replay, "_LARGEST_PAGE", 10)
    monkeypatch.setattr(replay, "_ROWS", 8)
    for number in range(30):
        db.kv.put_many({f"k{key}": number for key in range(number % 4 + 1)})
    steps = list(db.replay("main"))
    assert [step.changes[0].value for step in steps] == list(range(30))
    assert [len(step.changes) for step in steps] == [number % 4 + 1 for number in range(30)]
    assert len(db.replay("main")) == 30


def test_a_digest_is_that_of_what_is_there(db):
    empty = db.at(0).digest()
    first = db.kv.put("a", 1)
    digests = {empty, db.at(first).digest()}
    for change in (
        lambda: db.kv.put("a", 1.0), lambda: db.kv.put("a", 1, ttl=60), lambda: db.kv.put("b", 1),
        lambda: db.json.set("a", "$", 1), lambda: db.space("s").kv.put("a", 1),
        lambda: db.events.append("a", {}),
    ):  # fmt: skip
        change()
        digests.add(db.at(db.version).digest())
    assert len(digests) == 8
    db.branches.fork("main", "b")
    assert db.branch("b").at(db.branch("b").version).digest() == db.at(db.version).digest()
    db.kv.put_many({"x": {"a": 1, "b": 2}})
    one = db.at(db.version).digest()
    db.kv.put_many({"x": {"b": 2, "a": 1}})
    assert db.at(db.version).digest() == one, "the order of a map does not count"


def test_a_digest_reads_more_than_a_page(db):
    db.kv.put_many({f"{number:05}": number for number in range(2_500)})
    before = db.at(db.version).digest()
    db.kv.put("02499", None)
    assert db.at(db.version).digest() != before
