"""Diff and merge (semantics.md §6): the laws, over random histories on three branches, and what is refused.

Strategy: the kernel and the oracle go through the same history of all primitives, with merges in all
directions, picks, reverts, resets and undos in between; what each gives must be alike. After each step the
laws are held against the kernel: what was merged is known, no event is lost, chains verify, and a diff
applied to one side gives the other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import databases
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from test_histories import outcome, plain

import strata
from strata.core import patches
from strata.core.paths import parse
from strata.core.values import same
from strata.errors import InvalidInput, MergeConflict, NotFound, Protected
from strata.testing import FakeClock, Model

BRANCHES = st.sampled_from(["main", "b1", "b2"])
KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from([0, 1, 1.0, "x", None])
DOCS = st.sampled_from(["d", "e"])
PATHS = st.sampled_from(["$", "$.a", "$.a.b", "$.a.c", "$.l", "$.l[0]", "$.l[1].k", "$.l[-]", "$.m"])
JSON = st.sampled_from([0, 1, {"b": 1}, {"a": {"b": 2, "c": 3}, "l": [1, {"k": 1}]}, [1, {"k": 2}], [1]])


def call(primitive: str, name: str, *args: Any, **options: Any) -> Any:
    return st.tuples(st.just(primitive), st.just(name), st.tuples(*args), st.fixed_dictionaries(options))


WRITES = st.one_of(
    call("kv", "put", KEYS, VALUES),
    call("kv", "put", KEYS, VALUES, ttl=st.sampled_from([None, 86_400])),
    call("kv", "delete", KEYS),
    call("kv", "incr", st.sampled_from(["n", "m"]), st.sampled_from([1, 5, -2])),
    call("kv", "put", st.just("n"), st.just(7)),
    call("state", "set", KEYS, VALUES),
    call("state", "delete", KEYS),
    call("json", "set", DOCS, PATHS, JSON),
    call("json", "set", DOCS, PATHS, JSON),
    call("json", "delete", DOCS, PATHS),
    call("json", "merge", DOCS, JSON),
    call("json", "destroy", DOCS),
    call("events", "append", st.just("t"), st.just({"n": 1}), stream=st.sampled_from(["main", "log"])),
    call("traces", "record", st.just("thought"), id=st.sampled_from(["t1", "t2", "t3"]), tags=st.just(["x"])),
)
STRATEGIES = st.sampled_from(["strict", "strict", "source", "target", "use", "delete"])


def strategy_of(name: str) -> Any:
    if name == "use":
        return lambda conflict: conflict.use({"used": conflict.key})
    return (lambda conflict: conflict.delete()) if name == "delete" else name


def shown(face: Any) -> dict[tuple[str, ...], Any]:
    """What a branch or view holds, thing by thing."""
    held: dict[tuple[str, ...], Any] = {}
    held |= {("kv", key): value for key, value in face.kv.scan()}
    held |= {("state", name): face.state.get(name) for name in face.state.list()}
    held |= {("json", doc): face.json.get(doc) for doc in face.json.list()}
    held |= {("traces", trace.id): trace.kind for trace in face.traces.list()}
    for stream in face.events.streams():
        held["events", stream] = [event.hash for event in face.events.range(stream=stream)]
    return held


def applied(held: dict[tuple[str, ...], Any], changes: Any) -> dict[tuple[str, ...], Any]:
    """What a diff makes of what a state holds."""
    held = dict(held)
    for change in changes:
        place = (change.primitive, change.key)
        if change.primitive == "events":
            stream = held.get(place, [])[: change.start]
            held[place] = stream + [event.hash for event in change.new or []]
        elif change.path is not None:
            op = (
                ("delete", parse(change.path))
                if change.what == "removed"
                else ("set", parse(change.path), change.new)
            )
            held[place] = patches.apply(held[place], [op])[0]
        elif change.what == "removed":
            del held[place]
        else:
            held[place] = change.new.kind if change.primitive == "traces" else change.new
    return {place: value for place, value in held.items() if value != []}


def events_of(face: Any) -> set[tuple[str, int, int]]:
    """The events that a branch knows, by stream and where they were appended first."""
    found = set()
    for stream in face.events.streams():
        for event in face.events.range(stream=stream):
            first = event.origin or face.events.get(event.sequence, stream=stream)
            found.add((stream, first.version, first.sequence))
    return found


def done(place: Any, write: Any) -> Any:
    primitive, name, args, options = write
    return getattr(getattr(place, primitive), name)(*args, **options)


class Merging(RuleBasedStateMachine):
    """One history with merges, made twice."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()

    @initialize()
    def begin(self) -> None:
        from strata.store import open_store

        self.pair = [strata.Database(open_store(clock=self.clock)), strata.Database(Model(self.clock))]
        self.both(lambda db: db.json.set("d", "$", {"a": {"b": 0, "c": 0}, "l": [0, {"k": 0}]}))
        self.both(lambda db: db.kv.put_many({"a": 0, "n": 10}))
        self.both(lambda db: db.branches.fork("main", "b1").name)
        self.both(lambda db: db.branches.fork("main", "b2").name)

    def both(self, act: Any) -> Any:
        made, expected = (outcome(lambda db=db: act(db)) for db in self.pair)
        assert made == expected
        return made

    @rule(branch=BRANCHES, writes=st.lists(WRITES, min_size=1, max_size=4))
    def write(self, branch: str, writes: Any) -> None:
        for write in writes:
            self.both(lambda db, write=write: done(db.branch(branch), write))

    @rule(source=BRANCHES, into=BRANCHES, strategy=STRATEGIES, back=st.sampled_from([None, None, 1, 3]))
    def merge(self, source: str, into: str, strategy: str, back: int | None) -> None:
        db = self.pair[0]
        at = None if back is None else max(db.branch(source).version - back, 0)
        known = events_of(db.branch(into)) | events_of(db.branch(source).at(at) if at else db.branch(source))
        made = self.both(lambda db: said(db.branches.merge(source, into, strategy_of(strategy), at=at)))
        if not isinstance(made, dict):
            return
        assert events_of(db.branch(into)) == known
        assert self.both(lambda db: said(db.branches.merge(source, into, at=at)))["version"] == (
            "NoneType",
            None,
        )

    @rule(source=BRANCHES, into=BRANCHES, back=st.integers(0, 3), strategy=STRATEGIES)
    def pick(self, source: str, into: str, back: int, strategy: str) -> None:
        commits = self.pair[0].branch(source).log(limit=5)
        versions = [commit.version for commit in commits[back : back + 2]]
        self.both(lambda db: said(db.branches.cherry_pick(source, versions, into, strategy_of(strategy))))

    @rule(branch=BRANCHES, back=st.integers(0, 4), count=st.integers(0, 2), strategy=STRATEGIES)
    def revert(self, branch: str, back: int, count: int, strategy: str) -> None:
        last = self.pair[0].branch(branch).version - back
        self.both(lambda db: said(db.branches.revert(last - count, last, branch, strategy_of(strategy))))

    @rule(branch=BRANCHES, back=st.integers(0, 9))
    def undo(self, branch: str, back: int) -> None:
        version = self.pair[0].branch(branch).version - back
        self.both(lambda db: said(db.branches.undo(version, branch, "source")))

    @rule(branch=BRANCHES, back=st.integers(0, 9))
    def reset(self, branch: str, back: int) -> None:
        db = self.pair[0]
        version = max(db.branch(branch).version - back, 0)
        then = shown(db.branch(branch).at(version))
        self.both(lambda db: said(db.branches.reset(branch, version)))
        now = shown(db.branch(branch))
        forward = ("events", "traces")
        for place, value in then.items():
            assert place[0] in forward or (place in now and same(now[place], value))
        assert all(place in then for place in now if place[0] not in forward)

    @rule(old=BRANCHES, new=BRANCHES, back=st.integers(0, 6))
    def diff(self, old: str, new: str, back: int) -> None:
        db = self.pair[0]
        version = max(db.branch(old).version - back, 0)
        self.both(lambda db: plain(list(db.diff(db.branch(old).at(version), new))))
        assert not db.diff(old, old) and list(db.diff(new, new)) == []

    @rule(micros=st.integers(0, 30))
    def time_passes(self, micros: int) -> None:
        self.clock.advance(micros)

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        db = self.pair[0]
        names = [info.name for info in db.branches.list()]
        for name in names:
            assert self.both(lambda db, name=name: plain(shown(db.branch(name)))) is not None
            assert db.branch(name).events.verify().ok
            for other in names:
                check_applied(db, name, other)
        for db in self.pair:
            db.close()


def check_applied(db: Any, old: str, new: str) -> None:
    """A diff applied to one side gives the other."""
    sides = [shown(db.branch(name)) for name in (old, new)]
    made = applied(sides[0], db.diff(old, new))
    assert made.keys() == sides[1].keys()
    assert all(same(made[place], sides[1][place]) for place in made)


def said(info: Any) -> dict[str, Any]:
    """What a merge says, to compare."""
    return {
        "version": info.version,
        "base": info.base,
        "changes": [plain(change) for change in info.changes],
        "conflicts": [
            (found.key, found.path, found.base, found.source, found.target) for found in info.conflicts
        ],
    }


def test_random_merges() -> None:
    run_state_machine_as_test(Merging, settings=settings(
        max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    ))  # fmt: skip


@pytest.mark.slow
def test_many_random_merges() -> None:
    run_state_machine_as_test(Merging, settings=settings(
        max_examples=3000, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    ))  # fmt: skip


@pytest.fixture(params=databases.KINDS)
def db(request: Any) -> Any:
    with databases.make(request.param) as database:
        database.kv.put("k", 0)
        database.branches.fork("main", "f")
        yield database


def test_merges_of_disjoint_changes_give_the_same_in_both_orders():
    made = []
    for first, second in (("b1", "b2"), ("b2", "b1")):
        with strata.open() as db:
            db.json.set("d", "$", {"a": 1, "b": 1, "l": [1]})
            for name in ("b1", "b2"):
                branch = db.branches.fork("main", name)
                branch.kv.put(name, 1)
                branch.kv.incr("n", len(name))
                branch.json.set("d", f"$.{'a' if name == 'b1' else 'b'}", name)
                branch.state.set(name, name)
            for name in (first, second):
                db.branches.merge(name)
            made.append(shown(db.branch("main")))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("ours", "theirs", "meet"),
    [
        ("$.a", "$.b", False),  # siblings
        ("$.a", "$.a", True),  # the same
        ("$.a", "$.a.b", True),  # an ancestor
        ("$.a.b", "$.a", True),  # a descendant
        ("$", "$.a", True),  # the root meets all
        ("$.a", "$", True),
        ("$.l[0]", "$.l[1]", False),  # elements
        ("$.l[-]", "$.l[1]", True),  # a structural change meets every path through the list
        ("$.l[0]", "$.l[-]", True),
        ("$.l[-]", "$.l[-]", True),
        ("$.l[-]", "$.a", False),
    ],
)
def test_documents_merge_by_the_rules_of_transactions(db, ours, theirs, meet):
    db.json.set("d", "$", {"a": {"b": 0}, "b": 0, "l": [0, 0]})
    db.branches.merge("main", "f")
    db.json.set("d", ours, "ours")
    db.branch("f").json.set("d", theirs, "theirs")
    db.json.set("other", "$", 1)  # different documents never meet
    db.branch("f").json.set("another", "$", 1)
    if meet:
        with pytest.raises(MergeConflict) as caught:
            db.branches.merge("f")
        (found,) = caught.value.conflicts
        assert (found.space, found.primitive, found.key) == ("default", "json", "d")
        assert not db.json.exists("another")
        db.branches.merge("f", "main", "source")
    else:
        db.branches.merge("f")
        assert db.json.get("d", ours if ours != "$.l[-]" else "$.l[2]") == "ours"
    assert db.json.get("d", theirs if theirs != "$.l[-]" else "$.l[2]") == "theirs"
    assert db.json.exists("another")


@pytest.mark.parametrize("kind", databases.KINDS)
@pytest.mark.parametrize(("old", "step"), [(5, 1), (5, 1.0), (None, 1), ("text", 2)])
def test_a_number_that_began_anew_after_it_had_expired_counts_from_nothing(kind, old, step):
    """It was merged as the difference to what had expired: 1 - 5, or an error where that was no number."""
    clock = FakeClock()
    with databases.make(kind, clock) as db:
        db.kv.put("n", old, ttl=1)
        fork = db.branches.fork("main", "f")
        clock.advance(2_000_000)
        fork.kv.incr("n", step)
        db.branches.merge("f")
        assert plain(db.kv.get("n")) == plain(step)
        db.kv.incr("n", step)
        fork.kv.incr("n", step)
        db.branches.merge("f")
        assert plain(db.kv.get("n")) == plain(3 * step)


@pytest.mark.parametrize("kind", databases.KINDS)
def test_both_sides_may_begin_anew(kind):
    clock = FakeClock()
    with databases.make(kind, clock) as db:
        db.kv.put("n", 5, ttl=1)
        fork = db.branches.fork("main", "f")
        late = db.branches.fork("main", "late")
        late.kv.incr("n", 100)  # to what is to expire
        clock.advance(2_000_000)
        db.kv.incr("n", 1)
        fork.kv.incr("n", 10)
        db.branches.merge("f")
        assert db.kv.get("n") == 11
        with pytest.raises(MergeConflict):
            db.branches.merge("late")


@pytest.mark.parametrize(("base", "ours", "theirs"), [(0, 2**62, 2**62), (-(2**63), 1, 2**63 - 1)])
def test_a_sum_that_no_number_holds_is_a_conflict(db, base, ours, theirs):
    db.kv.put("n", base)
    fork = db.branches.fork("main", "g")
    db.kv.incr("n", ours)
    fork.kv.incr("n", theirs)
    fork.kv.incr("n", theirs if base else 0)
    with pytest.raises(MergeConflict):
        db.branches.merge("g")
    db.branches.merge("g", strategy="source")
    assert db.kv.get("n") == fork.kv.get("n")


def test_an_int_and_a_float_are_a_conflict(db):
    db.kv.incr("n", 1)
    db.branch("f").kv.incr("n", 1.0)
    with pytest.raises(MergeConflict):
        db.branches.merge("f")
    db.branches.merge("f", strategy="source")
    assert plain(db.kv.get("n")) == plain(1.0)


def test_counters_add_up_merge_after_merge(db):
    fork = db.branch("f")
    total = 0
    for number in range(1, 6):
        db.kv.incr("n", number)
        fork.kv.incr("n", 10 * number)
        total += 11 * number
        db.branches.merge("f")
        assert db.kv.get("n") == total
        if number % 2:
            db.branches.merge("main", "f")
            assert fork.kv.get("n") == total
    undone = db.branches.merge("f").version
    assert undone is None
    fork.kv.incr("n", 100)
    version = db.branches.merge("f").version
    db.kv.incr("n")
    db.branches.undo(version)
    assert db.kv.get("n") == total + 1
    db.branches.merge("f")
    assert db.kv.get("n") == total + 101
    db.kv.put("n", 5)  # no addition
    fork.kv.incr("n")
    with pytest.raises(MergeConflict):
        db.branches.merge("f")


def test_delete_against_change_is_a_conflict_and_delete_alone_is_taken(db):
    fork = db.branch("f")
    db.kv.put_many({"a": 1, "b": 1, "c": 1})
    db.branches.merge("main", "f")
    fork.kv.delete("a")
    db.kv.delete("b")
    fork.kv.put("b", 2)
    db.kv.delete("c")
    fork.kv.delete("c")
    with pytest.raises(MergeConflict) as caught:
        db.branches.merge("f")
    (found,) = caught.value.conflicts
    assert (found.key, found.base, found.source, found.target) == ("b", 1, 2, strata.ABSENT)
    db.branches.merge("f", "main", lambda conflict: conflict.take_source())
    assert dict(db.kv.scan()) == {"b": 2, "k": 0}


def test_events_of_both_follow_each_other_and_keep_their_origin(db):
    fork = db.branch("f")
    db.events.append("own", {"n": 1})
    first = fork.events.append("theirs", {"n": 1})
    fork.events.append("theirs", {"n": 2})
    db.branches.merge("f")
    assert [event.type for event in db.events] == ["own", "theirs", "theirs"]
    copy = db.events.get(1)
    assert (copy.origin.branch, copy.origin.sequence, copy.origin.version) == ("f", 0, first.version)
    assert copy.origin.hash == first.hash and db.events.verify().ok
    # There and back, and over a third branch: each event once.
    third = db.branches.fork("f", "third")
    third.events.append("third", {})
    for source, target in (
        ("main", "f"),
        ("third", "f"),
        ("third", "main"),
        ("f", "main"),
        ("main", "third"),
    ):
        db.branches.merge(source, target)
    for branch in (db, fork, third):
        kinds = sorted((event.type, event.payload.get("n", 0)) for event in branch.events)
        assert kinds == [("own", 1), ("theirs", 1), ("theirs", 2), ("third", 0)]
        assert branch.events.verify().ok


def test_expiry_travels_with_its_entry(db):
    clock = FakeClock()
    with databases.make("kernel", clock) as db:
        fork = db.branches.fork("main", "f")
        fork.kv.put("short", 1, ttl=10)
        fork.json.set("doc", "$", {"a": 1}, ttl=10)
        expires = fork.kv.entry("short").expires
        clock.advance(3_000_000)
        db.branches.merge("f")
        assert db.kv.entry("short").expires == db.json.entry("doc").expires == expires
        clock.advance(8_000_000)
        assert db.kv.get("short") is None
        fork.kv.put("late", 1, ttl=1)
        clock.advance(2_000_000)
        db.branches.merge("f")
        assert db.kv.get("late") is None


def test_preview_says_what_merge_would_do_and_writes_nothing(db):
    fork = db.branch("f")
    fork.kv.put("new", 1)
    fork.kv.put("k", "theirs")
    db.kv.put("k", "ours")
    before = db.version, shown(db)
    seen = db.branches.preview("f")
    assert (db.version, shown(db)) == before
    assert not seen.ok and [found.key for found in seen.conflicts] == ["k"] and seen.version is None
    assert [(change.what, change.key) for change in seen.changes] == [("added", "new")]
    made = db.branches.merge("f", "main", "target")
    assert [change.key for change in made.changes] == ["new"]
    assert db.branches.merge("f").version is None  # what was decided stays decided


def test_a_part_alone_is_merged_and_the_rest_later(db):
    fork = db.branch("f")
    fork.kv.put_many({"a/1": 1, "b/1": 1})
    fork.json.set("d", "$.x", 1)
    fork.space("s").kv.put("a/2", 1)
    db.branches.merge("f", prefix="a/", primitive="kv", space="default")
    assert dict(db.kv.scan()) == {"a/1": 1, "k": 0} and "s" not in db.spaces
    db.branches.merge("f", primitive="json")
    assert db.json.get("d") == {"x": 1}
    db.branches.merge("f")
    assert dict(db.kv.scan()) == {"a/1": 1, "b/1": 1, "k": 0} and db.space("s").kv.get("a/2") == 1


def test_commits_and_things_are_picked(db):
    fork = db.branch("f")
    versions = [fork.kv.put(name, 1) for name in "abc"]
    db.branches.cherry_pick("f", [versions[0], versions[2]], message="only these", actor="me")
    assert dict(db.kv.scan()) == {"a": 1, "c": 1, "k": 0}
    commit = db.log(limit=1)[0]
    assert (commit.message, commit.actor) == ("only these", "me")
    fork.json.set("d", "$.x", 1)
    fork.json.set("e", "$.x", 1)
    db.branches.cherry_pick("f", [strata.EntityRef("f", "default", "json", "d")])
    assert list(db.json.list()) == ["d"]
    db.branches.merge("f")
    assert dict(db.kv.scan()) == {"a": 1, "b": 1, "c": 1, "k": 0} and list(db.json.list()) == ["d", "e"]
    with pytest.raises(NotFound):
        db.branches.cherry_pick("f", 10_000)
    for picks in ([], [versions[0], strata.EntityRef("f", "default", "kv", "a")], ["a"]):
        with pytest.raises(InvalidInput):
            db.branches.cherry_pick("f", picks)


def test_revert_reset_and_what_stays(db):
    db.kv.put("k", 1)
    db.events.append("happened", {})
    bad = db.kv.put("k", "bad")
    db.kv.put("other", 1)
    db.branches.revert(bad)
    assert dict(db.kv.scan()) == {"k": 1, "other": 1} and len(db.events) == 1
    db.kv.put("k", 2)
    with pytest.raises(MergeConflict):
        db.branches.revert(bad)
    first = db.log(reverse=True, limit=1)[0].version
    db.branches.reset("main", first)
    assert dict(db.kv.scan()) == {"k": 0} and len(db.events) == 1
    assert db.at(bad).kv.get("k") == "bad"  # history only grows
    for refused in (lambda: db.branches.revert(5, 3), lambda: db.branches.undo(first)):
        with pytest.raises(InvalidInput):
            refused()
    with pytest.raises(NotFound):
        db.branches.revert(10_000)


def test_what_cannot_be_merged(db):
    db.branches.create("stranger").kv.put("k", 1)
    refused = {
        InvalidInput: [
            lambda: db.branches.merge("main", "main"),
            lambda: db.branches.merge("stranger"),
            lambda: db.branches.merge("f", strategy="best"),
            lambda: db.branches.merge("f", strategy=None),
            lambda: db.branches.merge("f", primitive="tables"),
            lambda: db.branches.merge("f", prefix=7),
            lambda: db.branches.merge("f", message=7),
            lambda: db.branches.cherry_pick("f", [-1]),
            lambda: db.diff("main", "f", primitive="tables"),
            lambda: db.diff(1.5),
        ],
        NotFound: [
            lambda: db.branches.merge("nobody"),
            lambda: db.branches.merge("f", "nobody"),
            lambda: db.diff("main", "nobody"),
            lambda: db.branches.note(10_000, "to come"),
        ],
    }
    db.branch("f").kv.put("k", 1)
    db.kv.put("k", 2)
    before = db.version, shown(db)
    for error, calls in refused.items():
        for use in calls:
            with pytest.raises(error):
                use()
    for nonsense in (None, "source", 7, [1], strata.ABSENT):
        with pytest.raises(InvalidInput, match="resolution"):
            db.branches.merge("f", "main", lambda conflict, nonsense=nonsense: nonsense)
    with pytest.raises(ZeroDivisionError):
        db.branches.merge("f", "main", lambda conflict: 1 / 0)
    with pytest.raises(InvalidInput):
        db.branches.merge("f", "main", lambda conflict: conflict.use(object()))
    db.branches.protect("main", "released")
    with pytest.raises(Protected):
        db.branches.merge("f", "main", "source")
    db.branches.unprotect("main")
    assert shown(db) == before[1]


def test_merges_go_on_after_branches_are_deleted_and_history_is_trimmed(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.kv.put_many({f"k{number}": 0 for number in range(20)})
        fork = db.branches.fork("main", "f")
        child = db.branches.fork("f", "child")
        fork.kv.put("k1", 1)
        child.kv.put("k2", 2)
        db.branches.delete("f")
        db.kv.put("k3", 3)
        db.retention.set(strata.KeepLast(1))
        db.compact()
        db.branches.merge("child")
        assert [db.kv.get(f"k{number}") for number in range(1, 4)] == [0, 2, 3]
        child.kv.put("k2", 22)
        db.compact()
        db.branches.merge("child")
        assert db.kv.get("k2") == 22
        db.close()
    with strata.open(tmp_path / "db") as db:
        assert db.branches.merge("child").version is None
        db.branch("child").kv.put("k4", 4)
        assert [change.key for change in db.branches.merge("child").changes] == ["k4"]


def test_a_merge_is_one_commit_among_writers(tmp_path):
    import threading

    with strata.open(tmp_path / "db") as db:
        db.branches.fork("main", "f")
        fork = db.branch("f")
        stop = threading.Event()

        own = 0

        def write() -> None:
            nonlocal own
            while not stop.is_set():
                db.kv.put(f"own/{own % 7}", own)
                db.kv.incr("n")
                own += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for number in range(30):
                fork.kv.put_many({f"theirs/{key}": number for key in range(20)})
                fork.kv.incr("n", 1000)
                db.branches.merge("f", "main", "source")
                view = db.at(db.version)
                assert {view.kv.get(f"theirs/{key}") for key in range(20)} == {number}
        finally:
            stop.set()
            thread.join()
        assert db.kv.get("n") == 30_000 + own


def test_diff_of_views_versions_and_branches(db):
    first = db.version
    second = db.kv.put("k", {"a": 1})
    db.json.set("d", "$", {"a": 1, "l": [1, 2]})
    db.state.set("s", 1)
    third = db.json.set("d", "$.l[1]", 3)
    found = [
        (change.what, change.key, change.path, change.old, change.new) for change in db.diff(second, third)
    ]
    assert found == [("added", "d", None, None, {"a": 1, "l": [1, 3]}), ("added", "s", None, None, 1)]
    assert [change.path for change in db.diff(db.at(third - 1), db)] == ["$.l[1]"]
    assert [change.key for change in db.diff(first, space="default", primitive="kv")] == ["k"]
    assert not db.diff(db.branch("f"), db.at(first)) and db.diff("f")
    assert str(db.diff("f").to_list()[0].ref("main")) == "strata://main/default/json/d"
    db.branches.note(second, "before it went wrong")
    db.branches.note(second, "right before it went wrong")
    assert db.branches.notes() == {second: "right before it went wrong"}
    assert "_strata" not in db.spaces and not db.diff(third)


def test_the_log_by_time_actor_and_primitive():
    clock = FakeClock()
    for kind in databases.KINDS:
        with databases.make(kind, clock) as db:
            instants = []
            for number in range(2500):
                clock.advance(1_000_000)
                if number % 1000 == 7:
                    instants.append(clock())
                    with db.transaction(actor="ada", message=f"{number}") as tx:
                        tx.state.set("s", number)
                else:
                    db.kv.put("k", number)
            by_ada = db.log(actor="ada")
            assert [commit.message for commit in by_ada] == ["2007", "1007", "7"]
            assert db.log(primitive="state") == by_ada
            assert db.log(primitive="state", reverse=True, limit=2) == by_ada[::-1][:2]
            assert len(db.log(primitive="kv")) == 2497 and db.log(primitive="json") == []
            assert db.log(actor="nobody") == [] and db.log(actor="ada", primitive="kv") == []
            start, end = (datetime.fromtimestamp(micros / 1e6, UTC) for micros in instants[:2])
            assert len(db.log(start=start, end=end)) == 1000
            assert db.log(start=start, end=end, actor="ada") == by_ada[2:]
            assert db.log(start=start, before=by_ada[1].version, actor="ada") == by_ada[2:]
            for wrong in ({"primitive": "tables"}, {"actor": 7}, {"start": 7}, {"end": datetime(2026, 1, 1)}):
                with pytest.raises(InvalidInput):
                    db.log(**wrong)
