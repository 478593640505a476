"""Watch: from every version what the log has, once and in order, whoever commits. Oracle and kernel."""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import databases
import pytest
import stores
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_histories import call, plain
from test_replay import COMMITS, grow

import strata
from strata import KeepLast
from strata.core.errors import StrataError
from strata.errors import Closed, HistoryTrimmed, InvalidInput, NotFound, RunClosed
from strata.history.diff import Limits
from strata.history.replay import Change, Step, step_of
from strata.history.watch import Watch
from strata.testing import FakeClock

BRANCHES = ("main", "b")


def log_of(branch: Any, after: int = 0) -> list[Step]:
    """What a watch must give: all commits after a version that changed something, read at once."""
    rows = branch.writes(after, branch.head)
    steps = [
        step_of(branch, commit, [row for row in rows if row[0] == commit.version])
        for commit in branch.commits(after, None, False, None)
    ]
    return [step for step in steps if step.changes]


def alike(one: list[Step], other: list[Step]) -> bool:
    return [plain(step.to_dict()) for step in one] == [plain(step.to_dict()) for step in other]


def all_there_is(watch: Watch) -> list[Step]:
    found = []
    while (step := watch.next(timeout_s=0)) is not None:
        assert step.version == watch.version
        found.append(step)
    return found


@pytest.mark.parametrize("kind", stores.KINDS)
@settings(max_examples=30, deadline=None)
@given(commits=COMMITS)
def test_from_every_version_it_is_what_the_log_has(kind: str, commits: Any) -> None:
    clock = FakeClock()
    store = stores.make(kind, clock)
    grow(store, clock, commits)
    db = strata.Database(store)
    for name in BRANCHES:
        branch = store.branch(name)
        whole = log_of(branch)
        for after in (
            0,
            *(commit.version for commit in branch.commits(None, None, False, None)),
            branch.head,
        ):
            watch = db.branch(name).watch(from_version=after)
            assert alike(all_there_is(watch), [step for step in whole if step.version > after])
            assert watch.version == branch.head
    store.close()


@pytest.mark.parametrize("kind", stores.KINDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data(), commits=COMMITS)
def test_those_that_read_now_and_then_miss_nothing(kind: str, data: Any, commits: Any) -> None:
    """Watches of each branch, some from the beginning and some from its fork on, are asked between commits,
    for less than there is, and are begun anew where they were."""
    clock = FakeClock()
    store = stores.make(kind, clock)
    db = strata.Database(store)
    seen: dict[tuple[str, int], tuple[Watch, list[Step]]] = {}

    def look() -> None:
        for name in db.branches:
            for after in (0, store.branch(name).head):
                if (name, after) not in seen and len(seen) < 4:
                    seen[name, after] = db.branch(name).watch(from_version=after), []
        for place, (watch, found) in seen.items():
            for _ in range(data.draw(st.integers(0, 3))):
                step = watch.next(timeout_s=0)
                found += [] if step is None else [step]
            if data.draw(st.booleans()):
                seen[place] = db.branch(place[0]).watch(from_version=watch.version), found

    look()
    for number in range(1, len(commits) + 1):
        _grow_one(store, clock, commits, number)
        look()
    for (name, after), (watch, found) in seen.items():
        assert alike(found + all_there_is(watch), log_of(store.branch(name), after))
    store.close()


def _grow_one(store: Any, clock: FakeClock, commits: Any, number: int) -> None:
    """Make the next commit of a history; in its middle a fork, and at its end merges."""
    branch, operations, micros = commits[number - 1]
    clock.advance(micros)
    is_forked = len(store.branches()) > 1
    inside = stores.Place(store, branch if is_forked else "main").begin()
    for space, operation in operations:
        with contextlib.suppress(StrataError):
            call(inside.space(space), operation)
    with contextlib.suppress(StrataError):
        inside.commit(f"number {number}")
    if not is_forked and number > len(commits) // 3:
        store.fork("main", "b")
    elif number == len(commits) and is_forked:
        strata.Database(store).branches.merge("b", "main", "source")
        strata.Database(store).branches.merge("main", "b", "target")


FILTERS = st.fixed_dictionaries(
    {
        "primitive": st.none() | st.sampled_from(["kv", "json", "events", "state", "traces"]),
        "space": st.none() | st.sampled_from(["default", "s"]),
        "prefix": st.none() | st.sampled_from(["a", "a/", "d", "m", "log"]),
    }
)


@pytest.mark.parametrize("kind", stores.KINDS)
@settings(max_examples=30, deadline=None)
@given(commits=COMMITS, wanted=FILTERS, type=st.none() | st.sampled_from(["t", "u"]))
def test_it_leaves_out_what_is_not_watched(kind: str, commits: Any, wanted: Any, type: str | None) -> None:
    clock = FakeClock()
    store = stores.make(kind, clock)
    grow(store, clock, commits)
    if type is not None:
        wanted["primitive"] = "events"
    watch = strata.Database(store).watch(**wanted, type=type, from_version=0)

    def is_wanted(change: Change) -> bool:
        name = change.key.rpartition("/")[0] if change.primitive == "events" else change.key
        return (
            wanted["primitive"] in (None, change.primitive)
            and wanted["space"] in (None, change.space)
            and name.startswith(wanted["prefix"] or "")
            and (type is None or change.value.type == type)
        )

    expected = [
        (step.version, [change.ref for change in step.changes if is_wanted(change)])
        for step in log_of(store.branch("main"))
    ]
    got = [(step.version, [change.ref for change in step.changes]) for step in all_there_is(watch)]
    assert got == [(version, refs) for version, refs in expected if refs]
    assert watch.version == store.branch("main").head
    store.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    commits=st.lists(st.tuples(st.sampled_from(BRANCHES), st.sampled_from(["a", "b"])), max_size=14),
    cuts=st.lists(st.sampled_from(["", "", "checkpoint", "compact", "reopen"]), min_size=14, max_size=14),
)
def test_it_goes_on_where_it_was_after_a_checkpoint_and_another_opening(
    tmp_path_factory: Any, commits: Any, cuts: Any
) -> None:
    path = tmp_path_factory.mktemp("watch") / "a.strata"
    db = strata.open(path)
    db.kv.put("begun", True)
    db.branches.fork("main", "b")
    seen: dict[str, list[Step]] = {name: [] for name in BRANCHES}
    watches = {name: db.branch(name).watch(from_version=0) for name in BRANCHES}
    for (name, key), cut in zip(commits, cuts, strict=False):
        with db.branch(name).transaction() as tx:
            tx.kv.put(key, len(seen[name]))
            tx.events.append("put", {"key": key})
        if cut == "reopen":
            db.close()
            db = strata.open(path)
            watches = {name: db.branch(name).watch(from_version=watches[name].version) for name in BRANCHES}
        elif cut:
            getattr(db, cut)()
        seen[name] += all_there_is(watches[name])
    for name in BRANCHES:
        seen[name] += all_there_is(watches[name])
        assert alike(seen[name], list(db.replay_range(0, db.branch(name).version, name)))
    db.close()


# -- live


@pytest.fixture(params=databases.KINDS)
def db(request: Any) -> Iterator[strata.Database]:
    with databases.make(request.param) as database:
        yield database


class Listener(threading.Thread):
    """A thread that iterates over a watch, and says when it begins to."""

    def __init__(self, watch: Watch, then: Callable[[Step], None] = lambda step: None) -> None:
        super().__init__(daemon=True)
        self.watch, self.then = watch, then
        self.got: list[Step] = []
        self.raised: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for step in self.watch:
                self.got.append(step)
                self.then(step)
        except StrataError as error:
            self.raised = error

    def end(self) -> None:
        self.join(60)
        assert not self.is_alive(), "it waits for ever"


def test_who_waits_gets_what_another_commits(db):
    asked, answered = threading.Event(), []

    def answer(step: Step) -> None:
        answered.append(step.changes[0].value)
        asked.set()

    listener = Listener(db.watch("kv", prefix="question", limit=20), answer)
    for number in range(20):
        db.kv.put(f"question/{number}", number)
        assert asked.wait(60)
        asked.clear()
    listener.end()
    assert answered == list(range(20)) and listener.watch.closed


@pytest.mark.parametrize("place", ["memory", "files"])
def test_all_of_eight_writers_reaches_all_watches_once_and_in_order(tmp_path, place):
    """Some begin before, one while they write; one is slow, and holds nobody up."""
    writers, commits = 8, 150
    with strata.open(tmp_path / "a.strata" if place == "files" else None) as db:
        go_on = threading.Event()
        watches = [db.watch(limit=writers * commits) for _ in range(2)]
        watches.append(db.watch("events", limit=writers * commits))
        listeners = [Listener(watch) for watch in watches]
        slow = Listener(db.watch(limit=writers * commits), lambda step: go_on.wait(60) and None)

        def write(number: int) -> None:
            for index in range(commits):
                with db.transaction() as tx:
                    tx.kv.put(f"{number}/{index}", index)
                    tx.events.append("put", {"by": number, "index": index}, stream=str(number))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
        for thread in threads:
            thread.start()
        listeners.append(Listener(db.watch(from_version=0, limit=writers * commits)))
        for thread in threads:
            thread.join()
        for listener in listeners:
            listener.end()
        go_on.set()  # all have all, and the slow one has hardly begun
        slow.end()
        versions = [commit.version for commit in db.log(reverse=True)]
        for listener in (*listeners, slow):
            assert [step.version for step in listener.got] == versions
        for number in range(writers):
            mine = [step for step in slow.got if step.changes[0].value.payload["by"] == number]
            assert [step.changes[0].value.payload["index"] for step in mine] == list(range(commits))


def test_it_begins_with_what_comes_from_now_on(db):
    db.kv.put("before", 1)
    watch = db.watch()
    db.kv.put("after", 2)
    assert [step.changes[0].key for step in all_there_is(watch)] == ["after"]
    assert watch.next(timeout_s=0) is None and watch.next(timeout_s=0.001) is None and not watch.closed
    db.kv.put("later", 3)
    assert [step.changes[0].key for step in db.watch(from_version=1, timeout_s=0)] == ["after", "later"]
    assert [step.changes[0].key for step in db.watch(from_version=0, limit=1)] == ["before"]


def test_what_branches_do_shows_and_expiry_does_not(db):
    db.kv.put("k", 1, ttl=1e-6)
    db.branches.fork("main", "b")
    watch = db.watch()
    db.branch("b").kv.put("from b", 1)
    db.branches.merge("b", "main", message="bring it")
    db.branches.reset("main", 1, message="as it was")
    db.events.append("said", {})
    told = [(step.message, [change.action for change in step.changes]) for step in all_there_is(watch)]
    assert told == [("bring it", ["put"]), ("as it was", ["delete"]), (None, ["append"])]


def test_closing_it_ends_who_waits(db):
    listener = Listener(db.watch())
    db.kv.put("k", 1)
    listener.watch.close()
    listener.end()
    assert listener.watch.closed and listener.raised is None
    with db.watch() as watch:
        assert not watch.closed
    assert watch.closed and watch.next() is None and list(watch) == []


def test_a_deleted_branch_and_a_closed_database_end_it_with_an_error(db):
    listener = Listener(db.branches.fork("main", "b").watch())
    db.branches.delete("b")
    listener.end()
    assert isinstance(listener.raised, NotFound)
    listener = Listener(db.watch())
    db.close()
    listener.end()
    assert isinstance(listener.raised, Closed)


def test_a_run_that_is_over_ends_it_after_its_last_commit(db):
    run = db.runs.begin("r")
    listener, late = Listener(run.watch()), run.watch()
    for number in range(9):
        run.kv.put("k", number)
    run.end()
    listener.end()
    assert [step.changes[0].value for step in listener.got] == list(range(9))
    assert listener.watch.closed and listener.raised is None
    assert [step.changes[0].value for step in late] == list(range(9))


@pytest.mark.parametrize("durability", ["buffered", "strict"])
def test_all_that_was_acknowledged_before_the_end_of_a_run_is_seen(tmp_path, durability):
    """Others write to the run when it ends: what they were told is there comes before the watch ends."""
    with strata.open(tmp_path / "a.strata", durability=durability) as db:
        run = db.runs.begin("r")
        listeners = [Listener(run.watch()) for _ in range(3)]
        written: list[list[int]] = [[] for _ in range(4)]
        busy = threading.Semaphore(0)

        def write(mine: list[int]) -> None:
            with contextlib.suppress(RunClosed):
                while True:
                    mine.append(run.kv.put(f"{id(mine)}/{len(mine)}", 1))
                    busy.release()

        threads = [threading.Thread(target=write, args=(mine,)) for mine in written]
        for thread in threads:
            thread.start()
        for _ in range(40):
            assert busy.acquire(timeout=60)
        run.end()
        for thread in threads:
            thread.join(60)
        for listener in listeners:
            listener.end()
            assert [step.version for step in listener.got] == sorted(chain.from_iterable(written))


def test_a_run_that_is_paused_and_a_protected_branch_may_go_on(db):
    run = db.runs.begin("r")
    listener = Listener(run.watch(limit=2))
    run.kv.put("k", 1)
    db.runs.pause(run.id)
    watch = run.watch()
    assert watch.next(timeout_s=0.001) is None and not watch.closed
    run = db.runs.resume(run.id)
    run.kv.put("k", 2)
    listener.end()
    assert [step.changes[0].value for step in listener.got] == [1, 2]
    watch = db.watch()
    db.branches.protect("main")
    assert watch.next(timeout_s=0.001) is None and not watch.closed
    db.branches.unprotect("main")
    db.kv.put("k", 3)
    step = watch.next()
    assert step is not None and step.changes[0].value == 3


def test_ctrl_c_ends_who_waits(db):
    watch = db.watch()
    with pytest.raises(KeyboardInterrupt):
        threading.Thread(target=_thread.interrupt_main).start()
        watch.next()
    db.kv.put("k", 1)
    assert watch.next() is not None


class Telling:
    """A branch that calls somebody before each call of one of its methods."""

    def __init__(self, branch: Any, method: str, tell: Callable[[], object]) -> None:
        self.branch, self.method, self.tell = branch, method, tell

    def __getattr__(self, name: str) -> Any:
        if name == self.method:
            self.tell()
        return getattr(self.branch, name)


def test_a_second_thread_is_told_to_make_its_own(db):
    waited_for = threading.Event()
    branch: Any = Telling(db._branch, "wait", waited_for.set)
    listener = Listener(Watch(branch, db.version, Limits(), limit=2))
    assert waited_for.wait(60)
    with pytest.raises(InvalidInput):
        listener.watch.next(timeout_s=0)
    db.kv.put("a", 1)
    db.kv.put("b", 1)
    listener.end()
    assert [step.changes[0].key for step in listener.got] == ["a", "b"]


@pytest.mark.parametrize(
    "options",
    [
        {"primitive": "nope"},
        {"space": "_strata"},
        {"prefix": 1},
        {"type": ""},
        {"type": "t", "primitive": "kv"},
        {"from_version": -1},
        {"from_version": 1.5},
        {"from_version": True},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"timeout_s": "1"},
        {"limit": 0},
    ],
)
def test_what_makes_no_sense_is_refused_at_once(db, options):
    with pytest.raises(InvalidInput):
        db.watch(**options)


def test_a_version_that_is_yet_to_come_is_refused(db):
    db.branches.fork("main", "b")
    db.kv.put("k", 1)
    with pytest.raises(NotFound):
        db.watch(from_version=db.version + 1)
    assert list(db.branch("b").watch(from_version=db.version, timeout_s=0)) == []  # another has got there


# -- retention


@pytest.mark.parametrize("place", ["memory", "files"])
def test_who_is_too_slow_is_told_where_history_begins(tmp_path, place):
    with strata.open(tmp_path / "a.strata" if place == "files" else None) as db:
        db.retention.set(KeepLast(2))
        watch = db.watch()
        other = db.watch("json")
        versions = [db.kv.put("k", number) for number in range(9)]
        first = watch.next()
        db.compact()
        assert first is not None
        with pytest.raises(HistoryTrimmed) as error:
            list(db.watch(from_version=first.version, timeout_s=0))
        oldest = error.value.oldest
        assert error.value.requested == first.version < oldest
        resumed = db.watch(from_version=oldest)
        assert [step.version for step in all_there_is(resumed)] == [v for v in versions if v > oldest]
        assert all_there_is(other) == []  # what it watches is whole
        db.kv.put("k", 9)
        assert len(all_there_is(resumed)) == 1


def test_pages_that_were_read_are_given_whatever_is_let_go_of(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1))
        watch = db.watch()
        versions = [db.kv.put("k", number) for number in range(9)]
        first = watch.next()
        db.compact()
        assert first is not None
        assert [first.version, *(step.version for step in all_there_is(watch))] == versions


def test_what_could_not_be_shown_is_what_comes_next(db):
    """Which places of a document were changed is looked up when a commit is shown, and that may fail."""
    db.json.create("doc", {"a": 1})
    failures = [StrataError("the disk said no")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    branch: Any = Telling(db._branch, "view", fail)
    watch = Watch(branch, db.version, Limits())
    db.json.set("doc", "$.a", 2)
    db.json.set("doc", "$.a", 3)
    with pytest.raises(StrataError):
        watch.next(timeout_s=0)
    assert [step.changes[0].parts[0].value for step in all_there_is(watch)] == [2, 3]


@pytest.mark.parametrize("method", ["commits", "writes", "oldest"])
def test_what_is_let_go_of_in_the_middle_of_a_page_is_noticed(method):
    """Commits, what they wrote, and what is kept are asked one after the other. Whenever retention comes in
    between, either all was read before, or it is told."""
    with strata.open() as db:
        db.retention.set(KeepLast(1))
        versions = [db.kv.put("k", number) for number in range(9)]
        branch: Any = Telling(db._branch, method, db.compact)
        watch = Watch(branch, 0, Limits())
        with contextlib.suppress(HistoryTrimmed):
            got = [(step.version, step.changes[0].value) for step in all_there_is(watch)]
            assert got == list(zip(versions, range(9), strict=True))
        assert watch.version in (0, versions[-1])


def test_what_ends_with_a_deletion_of_which_nothing_is_kept_is_noticed(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1))
        db.kv.put("k", 1)
        kept = db.version
        db.kv.put("k", 2)
        db.kv.delete("k")
        db.compact()
        with pytest.raises(HistoryTrimmed) as error:
            list(db.watch(from_version=kept, timeout_s=0))
        assert list(db.watch(from_version=error.value.oldest, timeout_s=0)) == []


def test_what_a_tag_holds_on_to_is_no_history(tmp_path):
    """The state at a tag can be read, but the versions between it and what is kept are gone: a watch and a
    replay from there would have left them out, and nobody would have noticed."""
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1))
        db.kv.put("k", "tagged")
        tag = db.branches.tag("here")
        for number in range(9):
            db.kv.put("k", number)
        db.compact()
        assert db.at(tag).kv.get("k") == "tagged"
        with pytest.raises(HistoryTrimmed):
            list(db.watch(from_version=tag.version, timeout_s=0))
        with pytest.raises(HistoryTrimmed):
            db.replay_range(tag, db.version)


def test_a_fork_is_whole_whatever_becomes_of_what_it_was_forked_off(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1), branch="main")
        db.kv.put("k", "old")
        db.kv.put("k", "new")
        fork = db.branches.fork("main", "b")
        forked_at = db.version
        fork.kv.put("k", 1)
        fork.kv.put("k", 2)
        db.kv.put("k", 3)
        db.compact()
        assert [step.changes[0].value for step in fork.watch(from_version=forked_at, timeout_s=0)] == [1, 2]
        with pytest.raises(HistoryTrimmed) as error:
            list(fork.watch(from_version=0, timeout_s=0))
        assert [
            step.changes[0].value for step in fork.watch(from_version=error.value.oldest, timeout_s=0)
        ] == [1, 2]
