"""Recorded calls: what was returned comes back, and nothing that is finished is called again."""

from __future__ import annotations

import asyncio
import hashlib
import math
import subprocess
import sys
import threading
from pathlib import Path

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strata
from strata.api import runs as runs_api
from strata.core.values import same
from strata.errors import (
    AlreadyExists,
    Closed,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    RecordedError,
    ReplayMismatch,
    RunClosed,
)


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


def again(run):
    """A handle of the same run as another process gets it."""
    runs_api._openings.pop(run._store)
    return strata.Database(run._store).runs.take_over(run.id)


class Tool:
    """Counts its calls."""

    __name__ = "tool"

    def __init__(self, *returns):
        self.returns, self.calls = list(returns), 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        result = self.returns[(self.calls - 1) % len(self.returns)]
        if isinstance(result, BaseException):
            raise result
        return result(*args, **kwargs) if callable(result) else result


def test_a_finished_call_is_not_made_again(db):
    tool, run = Tool(1, "two", [3.0, b"x"], None, {"a": {"b": math.nan}}), db.runs.begin()
    search = run.recorded(tool)
    first = [search(number, flag=True) for number in range(5)]
    assert first[:4] == [1, "two", [3.0, b"x"], None] and tool.calls == 5
    replay = again(run).recorded(tool)
    assert all(same(one, replay(number, flag=True)) for number, one in enumerate(first)) and tool.calls == 5
    assert replay(5) == 1 and tool.calls == 6  # past the record it is called
    assert [(call.place, call.name, call.finished) for call in run.calls()] == [
        (str(number), "tool", True) for number in range(6)
    ]


def test_as_a_decorator(db):
    run = db.runs.begin()

    @run.recorded
    def double(number):
        """Twice."""
        return number * 2

    @run.recorded(name="triple")
    def other(number):
        return number * 3

    assert (double(2), other(2), double.__doc__) == (4, 6, "Twice.")
    assert [(call.name, call.result) for call in run.calls()] == [("double", 4), ("triple", 6)]


def test_what_comes_back_the_first_time_is_what_comes_back_later(db):
    """A tuple is stored as a list, so it is given as a list at once."""
    run, kept = db.runs.begin(), {"a": [1]}
    tool = Tool((1, (2, 3)), kept)
    call = run.recorded(tool)
    assert call() == [1, [2, 3]]
    result = call()
    kept["a"].append(2)
    assert result == {"a": [1]}
    replay = again(run).recorded(tool)
    assert (replay(), replay()) == ([1, [2, 3]], {"a": [1]}) and tool.calls == 2


def test_other_name_or_arguments(db):
    run = db.runs.begin()
    run.recorded(lambda a, b=1: a, name="search")(1, b=2)
    for name, args, kwargs in [("fetch", (1,), {"b": 2}), ("search", (1,), {"b": 3}), ("search", (1, 2), {}),
                               ("search", (1.0,), {"b": 2}), ("search", (True,), {"b": 2})]:  # fmt: skip
        tool = Tool(0)
        with pytest.raises(ReplayMismatch) as caught:
            again(run).recorded(tool, name=name)(*args, **kwargs)
        assert (caught.value.run, caught.value.place, caught.value.expected, caught.value.asked) == (
            run.id, "0", "search", name,
        )  # fmt: skip
        assert tool.calls == 0
    before = run.version
    with pytest.raises(ReplayMismatch):
        again(run).recorded(Tool(0))(2)
    assert run.version == before


def test_a_run_that_is_over_replays_and_calls_nothing(db):
    tool, run = Tool(1, 2), db.runs.begin()
    call = run.recorded(tool)
    call(), call()
    run.end()
    replay = db.run(run.id).recorded(tool)
    assert (replay(), replay()) == (1, 2)
    with pytest.raises(ReplayMismatch) as caught:
        replay()
    assert (caught.value.place, caught.value.expected) == ("2", "") and tool.calls == 2


def test_replay_in_another_run(db):
    """Code that also writes runs on a fork from the same point, and answers come from the record."""
    tool = Tool(*range(100))

    def agent(run, steps=3):
        call = run.recorded(tool)
        for step in range(steps):
            run.kv.put(f"k{step}", [call(step), run.kv.get("given")])

    db.kv.put("given", "old")
    with db.runs.begin() as first:
        agent(first)
    db.kv.put("given", "new")
    with db.runs.begin(replay=first.id) as twin:
        agent(twin)
    assert list(twin.kv.scan()) == list(first.kv.scan()) and tool.calls == 3
    assert twin.info.replays == first.id and len(twin.calls()) == 3
    with db.runs.begin(replay=twin.id, from_="main") as other:
        agent(other, 2)
        assert other.kv.get("k1") == [1, "new"]
        with pytest.raises(ReplayMismatch):
            other.recorded(tool, name="else")(2)
    with db.runs.begin(replay=first.id) as longer, pytest.raises(ReplayMismatch):
        agent(longer, 4)
    assert tool.calls == 3
    db.branches.delete(first.name)
    with pytest.raises(NotFound):
        db.runs.begin(replay=first.id)


# -- errors ----------------------------------------------------------------------------------------


class Mine(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code, self.detail, self.handle = code, detail, object()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"), KeyError("k"), TimeoutError(), FileNotFoundError(2, "not there", "f"),
        Mine(7, detail=["x"]), NotFound(what="stream", name="s", hint="append"), AlreadyExists("taken"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ExceptionGroup("g", [ValueError(1)]),
        StopIteration(3), OSError("plain"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_was_raised_is_raised_again(db, error):
    run, tool = db.runs.begin(), Tool(error)
    with pytest.raises(type(error)) as first:
        run.recorded(tool)()
    assert first.value is error
    replay = again(run).recorded(tool)
    wanted = RecordedError if isinstance(error, ExceptionGroup) else type(error)
    with pytest.raises(wanted) as second:
        replay()
    assert str(second.value) == str(error) and tool.calls == 1
    if isinstance(error, Mine):
        assert (second.value.code, second.value.detail) == (7, ["x"]) and not hasattr(second.value, "handle")
    if isinstance(error, (NotFound, FileNotFoundError)):
        assert (second.value.args, vars(second.value)) == (error.args, vars(error))
    assert type(error).__name__ in run.calls()[0].error


def test_an_exception_of_a_class_that_is_not_there(db):
    class Local(Exception):
        pass

    run, tool = db.runs.begin(), Tool(Local("gone"))
    with pytest.raises(Local):
        run.recorded(tool)()
    with pytest.raises(RecordedError) as caught:
        again(run).recorded(tool)()
    assert str(caught.value) == "gone" and caught.value.type.endswith("Local") and tool.calls == 1


def test_a_record_cannot_make_us_run_code(db):
    """Types are looked up among what is loaded, and only exceptions are made, without their own code."""
    for type_ in (
        "os:system",
        "builtins:exec",
        "subprocess:Popen",
        "builtins:SystemExit",
        "antigravity:x",
        ":",
        "",
    ):
        run = db.runs.begin()
        run.recorded(Tool(ValueError("x")))
        rows = run._recorder._txn
        digest = hashlib.sha256(b"\x92\x90\x80").digest()  # of no arguments
        rows.put(run._recorder._prefix + b"n" + bytes(4), {
            "name": "tool", "digest": digest, "started": 1, "attempts": 1, "ended": 2,
            "error": {"type": type_, "text": "t", "args": ["exit 3"], "state": {}},
        })  # fmt: skip
        with pytest.raises(RecordedError):
            run.recorded(Tool(0))()


def test_an_interrupt_is_no_outcome(db):
    run, tool = db.runs.begin(), Tool(KeyboardInterrupt(), 5)
    with pytest.raises(KeyboardInterrupt):
        run.recorded(tool)()
    (call,) = run.calls()
    assert (call.finished, call.attempts) == (False, 1)
    assert again(run).recorded(tool)() == 5 and tool.calls == 2
    (call,) = run.calls()
    assert (call.finished, call.attempts, call.result) == (True, 2, 5)


@pytest.mark.parametrize(
    "result", [{1, 2}, 2**64, {1: 2}, [b"x", {"a": Path("x")}], 1j, frozenset(), bytearray(b"x")], ids=repr
)
def test_results_that_are_no_values(db, result):
    run, tool = db.runs.begin(), Tool(result)
    with pytest.raises(InvalidInput) as caught:
        run.recorded(tool)()
    assert "tool" in str(caught.value) and "encode=" in caught.value.hint
    (call,) = run.calls()
    assert not call.finished and call.result is None


def test_encode_and_decode(db):
    run, tool = db.runs.begin(), Tool(Path("a/b"))
    options = {"encode": str, "decode": Path}
    assert run.recorded(tool, **options)() == Path("a/b")
    assert again(run).recorded(tool, **options)() == Path("a/b") and tool.calls == 1
    assert run.calls()[0].result == "a/b"


def test_arguments_that_are_no_values(db):
    run, tool = db.runs.begin(), Tool(1)
    with pytest.raises(InvalidInput) as caught:
        run.recorded(tool)("a", at={object()})
    assert "$[1].at" in str(caught.value) and "key=" in caught.value.hint
    assert tool.calls == 0 and run.calls() == []
    keyed = run.recorded(tool, key=lambda handle, query: query)
    assert keyed(object(), "q") == 1
    replay = again(run).recorded(tool, key=lambda handle, query: query)
    assert replay(object(), "q") == 1 and tool.calls == 1


def test_what_cannot_be_recorded(db):
    run = db.runs.begin()

    def generator():
        yield 1

    async def task(tx):
        return 1

    for use in (
        lambda: run.recorded(7), lambda: run.recorded(lambda: 1), lambda: run.recorded(generator),
        lambda: run.recorded(len, name=""), lambda: run.recorded(len, name="a\nb"),
        lambda: run.recorded(len, encode=str), lambda: run.recorded(len, decode=str),
        lambda: run.recorded(task, transaction=True), lambda: run.lane("").__enter__(),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            use()
    assert run.recorded(len)([1, 2]) == 2


# -- inside each other, and side by side -----------------------------------------------------------


def test_nested_calls(db):
    log = []

    def agent(run, stop_at=None):
        @run.recorded
        def leaf(n):
            if n == stop_at:
                raise KeyboardInterrupt
            log.append(n)
            return n * 10

        @run.recorded
        def branch(n):
            return [leaf(n), leaf(n + 1)]

        return [branch(1), leaf(5), branch(2)]

    run = db.runs.begin()
    with pytest.raises(KeyboardInterrupt):
        agent(run, stop_at=3)
    assert log == [1, 2, 5, 2]
    assert [(call.place, call.finished) for call in run.calls()] == [
        ("0", True), ("0.0", True), ("0.1", True), ("1", True), ("2", False), ("2.0", True), ("2.1", False),
    ]  # fmt: skip
    assert agent(again(run)) == [[10, 20], 50, [20, 30]]
    assert log == [1, 2, 5, 2, 3]  # what was finished inside of the one that was not
    assert agent(again(run)) == [[10, 20], 50, [20, 30]] and len(log) == 5


def test_a_mismatch_inside_is_no_outcome_of_what_is_around(db):
    run = db.runs.begin()

    def outer(run, arg):
        return run.recorded(run.recorded(Tool(1), name="inner"), name="outer", key=lambda *_: 0)(arg)

    inner = run.recorded(Tool(KeyboardInterrupt()), name="inner")
    with pytest.raises(KeyboardInterrupt):
        run.recorded(inner, name="outer", key=lambda *_: 0)(1)
    for _ in range(2):
        with pytest.raises(ReplayMismatch):
            outer(again(run), 2)
    run2 = again(run)
    bad = run2.recorded(run2.recorded(Tool({1}), name="inner"), name="outer", key=lambda *_: 0)
    with pytest.raises(InvalidInput):
        bad(1)
    assert outer(again(run), 1) == 1


def test_deeper_than_a_place_can_say(db):
    """What the record refuses is no outcome of the calls around it."""
    run = db.runs.begin()

    @run.recorded
    def down(n):
        return down(n + 1) if n < 300 else n

    try:
        assert down(0) == 300
    except LimitExceeded:
        assert not any(call.finished for call in run.calls())


def test_threads_take_lanes(db):
    calls = []

    def agent(run):
        results = {}

        @run.recorded
        def tool(lane, step):
            calls.append((lane, step))
            return f"{lane}{step}"

        def work(lane):
            with run.lane(lane):
                results[lane] = [tool(lane, step) for step in range(10)]

        threads = [threading.Thread(target=work, args=(lane,)) for lane in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results, tool("main", 0)

    run = db.runs.begin()
    first = agent(run)
    assert len(calls) == 41
    assert agent(again(run)) == first and len(calls) == 41
    assert {call.place for call in run.calls()} >= {"0", "a:0", "d:9"}


def test_two_calls_at_once_are_refused(db):
    run, inside, go_on = db.runs.begin(), threading.Event(), threading.Event()

    @run.recorded
    def slow():
        inside.set()
        go_on.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    inside.wait(10)
    try:
        with pytest.raises(InvalidInput) as caught:
            run.recorded(len)([])
        assert "lane" in caught.value.hint
        with run.lane("own"):
            assert run.recorded(len)([]) == 0
    finally:
        go_on.set()
        thread.join()
    assert [call.place for call in run.calls()] == ["own:0", "0"]


def test_tasks(db):
    calls = []

    async def agent(run):
        @run.recorded
        async def tool(n):
            calls.append(n)
            await asyncio.sleep(0)
            if n == 3:
                raise ValueError(n)
            return n

        async def lane(n):
            with run.lane(f"l{n}"):
                return [await tool(n), await tool(n + 10)]

        result = [await tool(0), await asyncio.gather(lane(1), lane(2))]
        with pytest.raises(ValueError):
            await tool(3)
        return result

    run = db.runs.begin()
    assert asyncio.run(agent(run)) == [0, [[1, 11], [2, 12]]] == asyncio.run(agent(again(run)))
    assert len(calls) == 6

    class Tool:
        async def __call__(self):
            return 7

    assert asyncio.run(run.recorded(Tool(), name="object")()) == 7

    async def overlapping():
        tool = run.recorded(asyncio.sleep, key=lambda *_: 0)
        await asyncio.gather(tool(0), tool(0))

    with pytest.raises(InvalidInput):
        asyncio.run(overlapping())


def test_with_a_transaction(db):
    """What it writes and its result are one commit, so it has happened once, whatever comes in between."""
    run, attempts = db.runs.begin(), []

    def agent(run):
        @run.recorded(transaction=True)
        def pay(tx, amount):
            attempts.append(amount)
            if len(attempts) == 1:
                run.kv.put("rate", 2)  # so that the first attempt conflicts
            tx.kv.put("paid", tx.kv.get("paid", 0) + amount * tx.kv.get("rate", 1))
            return tx.kv.get("paid")

        return pay(10), pay(5)

    assert agent(run) == (20, 30) and attempts == [10, 10, 5]
    assert agent(again(run)) == (20, 30) and run.kv.get("paid") == 30 and attempts == [10, 10, 5]
    record = run._recorder
    assert run.kv.entry("paid").version == record._txn.entry(record._prefix + b"n" + (1).to_bytes(4))[1]

    def fails(tx):
        tx.kv.put("paid", 0)
        raise ValueError("no")

    for handle in (run, again(run)):
        handle._recorder._top.next = 2
        with pytest.raises(ValueError):
            handle.recorded(fails, transaction=True)()
    assert run.kv.get("paid") == 30


def test_what_the_database_refuses_is_no_outcome(db):
    run = db.runs.begin()
    tool = Tool(Conflict(), Closed(), MemoryError(), 1)
    for error in (Conflict, Closed, MemoryError):
        with pytest.raises(error):
            run.recorded(tool)()
        run = again(run)
    assert run.recorded(tool)() == 1 and tool.calls == 4
    with pytest.raises(RunClosed):
        run.recorded(lambda: run.pause().status, name="pauses")()


def test_runs_do_not_see_the_records_of_others(db):
    one = db.runs.begin()
    one.recorded(Tool(1))()
    below = one.runs.begin()
    tool = Tool(2)
    assert below.recorded(tool)() == 2 and [call.result for call in below.calls()] == [2]
    assert [call.result for call in one.calls()] == [1]


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(st.lists(st.none(), max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=12),
    st.lists(st.integers(1, 12), max_size=4),
    st.sampled_from(databases.KINDS),
)
def test_programs_that_are_broken_off_anywhere(shape, breaks, kind):
    """Random nested programs, broken off at random calls: the result is that of one that was not, and a call
    that had returned is not made again."""
    finished, made = set(), []

    def program(run, patience):
        def node(shape, path):
            nonlocal patience
            made.append(path)
            assert tuple(path) not in finished
            patience -= 1
            if patience == 0:
                raise KeyboardInterrupt
            return [path, [call(below or [], [*path, number]) for number, below in enumerate(shape)]]

        inner = run.recorded(node)

        def call(shape, path):
            result = inner(shape, path)
            finished.add(tuple(path))
            return result

        return call(shape, [0])

    with databases.make(kind) as db:
        expected = program(db.runs.begin(), 10_000)
        calls = len(made)
        finished.clear()
        run = db.runs.begin()
        for patience in [*breaks, 10_000]:
            try:
                result = program(run, patience)
                break
            except KeyboardInterrupt:
                run = again(run)
        assert result == expected and len(finished) == calls == len(run.calls())
        assert program(again(run), 1) == expected
        assert all(call.finished for call in run.calls())


# -- a process that is killed ----------------------------------------------------------------------

PROGRAM = Path(__file__).parent / "recorded_program.py"
LINES = 2_500  # about what the program runs through in our code; later than the end means it is not killed


def live(path: Path, kill_at: int) -> str:
    """Let a process go on with the run until it is done or has run through so many lines."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(path), str(kill_at)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, -9), done.stderr
    return done.stdout


def kill_and_resume(path: Path, kills) -> None:
    """Nothing that is finished when a process dies is called by a later one, and the end is right."""
    finished: set[str] = set()
    for kill_at in [*kills, 0]:
        called = path / "called"
        called.write_text("")
        out = live(path, kill_at)
        assert not finished & set(called.read_text().split()), f"called again after a kill at {kill_at}"
        if "done" in out:
            break
        with strata.open(path / "db.strata") as db:
            for run in db.runs.list():
                finished = {call.place for call in db.run(run.id).calls() if call.finished}
    with strata.open(path / "db.strata") as db:
        (info,) = db.runs.list()
        assert info.status == "completed" and info.result == [n * n for n in range(8)]
        run = db.run(info.id)
        assert run.kv.get("total") == sum(info.result)  # added to in transactions, so once each
        assert all(call.finished for call in run.calls()) and db.runs.orphans() == []


def test_killed_and_resumed(tmp_path):
    kill_and_resume(tmp_path, [1_900, 60, 1_200])


@pytest.mark.slow
def test_killed_at_a_hundred_random_points(tmp_path):
    import random

    chance, kills = random.Random(4), 0
    while kills < 100:
        place = tmp_path / str(kills)
        place.mkdir()
        points = [chance.randrange(1, LINES) for _ in range(5)]
        kill_and_resume(place, points)
        kills += 5
