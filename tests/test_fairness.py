"""Clients that ask for much beside clients that ask for little: whose turn it is, and answers in pages.

No test looks at a clock: what counts is the order. `python -m benchmarks.fair` has the figures.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter, deque

import pytest
import served
import stores
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_clients import GREETING, SETUP, Client, call, opens, serving, still_serves, until

from strata.core.protocols import Layout
from strata.server.turns import Turns
from strata.store import open_store
from strata.wire import paging
from strata.wire.asks import ASKS, Ask
from strata.wire.frames import PACKED, Kind, Reader, encode_body, frame

KV = Layout("kv")
EVENTS = Layout("events", text_keys=False)


# -- turns


class Threads:
    """Threads that work when they are told to, and one step at a time."""

    def __init__(self, count: int) -> None:
        self.turns = Turns(self.submit, count)
        self.count = count
        self.queue: deque = deque()
        self.done: list = []
        self.busy: Counter = Counter()

    def submit(self, run) -> None:
        self.queue.append(run)

    def add(self, who, what) -> None:
        self.turns.add(who, lambda: self.done.append((who, what)))

    def run(self) -> None:
        while self.queue:
            self.queue.popleft()()


def test_each_has_a_turn_and_what_one_asks_is_done_in_its_order():
    threads = Threads(1)
    for number in range(5):
        threads.add("greedy", number)
    threads.add("second", 0)
    threads.add("third", 0)
    threads.add("second", 1)
    threads.run()
    assert threads.done == [
        ("greedy", 0), ("second", 0), ("third", 0),
        ("greedy", 1), ("second", 1), ("greedy", 2), ("greedy", 3), ("greedy", 4),
    ]  # fmt: skip


def test_what_raises_ends_nobodys_turn():
    threads = Threads(1)

    def fails() -> None:
        raise RuntimeError

    threads.turns.add("a", fails)
    threads.add("a", 1)
    with pytest.raises(RuntimeError):
        threads.run()
    threads.run()
    assert threads.done == [("a", 1)]


class Real:
    """Threads that work at something until it is let go."""

    def __init__(self, count: int) -> None:
        self.count, self.begun = count, []
        self.lock, self.gates = threading.Lock(), {}
        self.turns = Turns(lambda run: threading.Thread(target=run, daemon=True).start(), count)

    def add(self, who, number) -> None:
        gate = self.gates[who, number] = threading.Event()

        def work() -> None:
            with self.lock:
                self.begun.append((who, number))
            assert gate.wait(20)

        self.turns.add(who, work)

    def working(self) -> Counter:
        with self.lock:
            return Counter(who for who, number in self.begun if not self.gates[who, number].is_set())


def test_no_one_has_more_threads_than_are_left_for_the_others():
    real = Real(8)
    for who, most in (("a", 4), ("b", 2), ("c", 1), ("d", 1)):
        for number in range(8):
            real.add(who, number)
        until(lambda who=who, most=most: real.working()[who] == most)
    assert real.working() == {"a": 4, "b": 2, "c": 1, "d": 1}
    for gate in real.gates.values():
        gate.set()
    until(lambda: len(real.begun) == 32)
    for who in "abcd":
        assert next(number for one, number in real.begun if one == who) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40), st.integers(1, 5))
def test_everything_is_done_once_and_the_threads_are_never_too_few(steps, count):
    """A model of the threads: what is queued begins in any order, and ends when it does."""
    chance = random.Random(len(steps))
    queue: list = []
    turns = Turns(queue.append, count)
    added: Counter = Counter()
    done: list = []

    def work_of(who, number):
        def work() -> None:
            held = turns._working
            assert sum(held.values()) + turns._free == count and turns._free >= 0
            assert held[who] - 1 < turns._free + 1  # as it was before this one began
            done.append((who, number))
            if queue and chance.random() < 0.5:  # another thread begins meanwhile
                queue.pop(chance.randrange(len(queue)))()

        return work

    for who, runs in steps:
        turns.add(who, work_of(who, added[who]))
        added[who] += 1
        if runs and queue:
            queue.pop(chance.randrange(len(queue)))()
    while queue:
        queue.pop(0)()
    assert Counter(who for who, _ in done) == added
    for who in added:
        assert [number for one, number in done if one == who] == list(range(added[who]))
    assert turns._free == count and not turns._waiting and not turns._working


# -- connections


def test_who_sends_much_at_once_does_not_hold_up_who_sends_a_little():
    """A turn ends when its time is over, and each look at this clock costs as much."""
    with serving() as server:
        ticks = itertools.count()
        server.clock = lambda: float(next(ticks))
        first, second = Client(server), Client(server)
        both_sent = threading.Event()
        server.loop.call_soon_threadsafe(both_sent.wait)
        first.send(b"".join(call(id, 2, "put", "first", id, None) for id in range(1, 31)))
        second.send(b"".join(call(id, 2, "put", "second", id, None) for id in range(1, 31)))
        both_sent.set()
        versions = [[client.next()[2] for _ in range(30)] for client in (first, second)]
        assert max(min(found) for found in versions) <= 9  # by turns, whoever was the first
        assert sorted(versions[0] + versions[1]) == list(range(1, 61))
        first.close(), second.close()


def test_one_connection_does_not_have_all_threads():
    with serving(threads=4) as server:
        greedy, other = Client(server), Client(server)
        greedy.send(b"".join(call(id, 0, "flush") for id in range(1, 11)))
        until(lambda: server._store.begun == 2)
        other.send(call(1, 0, "flush"))
        until(lambda: server._store.begun == 3)
        server._store.free.set()
        assert other.next() == (Kind.RESULT, 1, 0)
        assert sorted(greedy.next()[1] for _ in range(10)) == list(range(1, 11))
        greedy.close(), other.close()


@pytest.fixture
def counting(monkeypatch):
    """Let `count` wait until it may go on."""
    begun, free = threading.Event(), threading.Event()

    def count(thing, *arguments):
        begun.set()
        assert free.wait(20)
        return thing.count(*arguments)

    monkeypatch.setitem(ASKS["txn"], "count", Ask(count, heavy=True))
    return begun, free


def test_what_looks_at_many_rows_is_done_by_a_thread_and_keeps_its_place(counting):
    begun, free = counting
    with serving() as server:
        client, other = Client(server), Client(server)
        client.send(call(1, 2, "put", "a", 1, None) + call(2, 2, "count", None, None, None))
        client.send(call(3, 2, "put", "b", 1, None) + call(4, 2, "count", None, None, None))
        assert begun.wait(20)
        assert other.ask(1, 2, "get", "a") == 1
        assert other.ask(2, 1, "head") == 1  # what comes behind the count waits for it
        free.set()
        assert [client.next()[1:] for _ in range(4)] == [(1, 1), (2, 1), (3, 2), (4, 2)]
        client.close(), other.close()


def test_who_vanishes_while_a_thread_counts_is_let_go(counting):
    begun, free = counting
    with serving() as server:
        client = Client(server)
        client.send(call(1, 2, "count", None, None, None) + call(2, 2, "put", "a", 1, None))
        assert begun.wait(20)
        client.close()
        still_serves(server)
        free.set()
        until(lambda: not server.connections)


def test_long_requests_and_long_answers_keep_their_place():
    rows = [[f"k{number:05}", "x" * 20] for number in range(5000)]
    with serving() as server:
        for packs in (False, True):
            client = Client(server, hello=b"")
            hello = Kind.HELLO, 0, {"magic": "strata", "protocols": [1], "packs": packs}
            client.send(frame_of(*hello) + SETUP)
            client.next()
            client.send(call(1, 2, "put_many", rows, None) + call(2, 2, "get", "k04999"))
            client.send(call(3, 2, "put", "long", "y" * 100_000, None) + call(4, 2, "get", "long"))
            client.send(call(5, 2, "get", "k00000"))
            found = [client.next()[1:] for _ in range(5)]
            assert [id for id, _ in found] == [1, 2, 3, 4, 5]
            assert [body for _, body in found][1::2] == ["x" * 20, "y" * 100_000]
            client.close()


def frame_of(kind, id, body):
    return frame(kind, id, encode_body(body))


def test_what_is_packed_is_unpacked_by_a_thread_and_keeps_its_place(monkeypatch):
    begun, free, unpack = threading.Event(), threading.Event(), Reader._unpack

    def unpacking(reader, body):
        begun.set()
        assert free.wait(20)
        return unpack(reader, body)

    with serving() as server:
        client, other = Client(server), Client(server)
        monkeypatch.setattr(Reader, "_unpack", unpacking)
        body = encode_body([2, "put", ["a", "x" * 9999, None]])
        client.send(call(1, 1, "head") + frame(Kind.CALL, 2, body, packs=True) + call(3, 1, "head"))
        assert client.next() == (Kind.RESULT, 1, 0)
        assert begun.wait(20)
        assert other.ask(1, 1, "head") == 0
        free.set()
        assert [client.next()[1:] for _ in range(2)] == [(2, 1), (3, 1)]
        client.send(call(4, 1, "head") + frame(Kind.CALL | PACKED, 5, b"no zlib") + call(6, 1, "head"))
        found = client.rest()
        assert [(kind, id) for kind, id, _ in found] == [(Kind.RESULT, 4), (Kind.ERROR, 0)]
        client.close(), other.close()


def test_a_diff_is_made_by_a_thread_and_what_was_wrong_is_said_at_its_use():
    with serving() as server:
        client = Client(server)
        client.ask(1, 2, "put", "a", 1, None)
        client.send(opens(3, 1, "view", 0, None) + opens(4, 1, "view", 1, None))
        client.send(opens(5, 3, "diff", 4) + call(2, 5, "page", 10) + call(3, 5, "page", 10))
        found = dict(client.next()[1:] for _ in range(2))
        assert sorted(len(rows) for rows in found.values()) == [0, 1]
        client.send(opens(6, 3, "diff", 99) + call(4, 6, "page", 10))
        assert client.next()[2]["code"] == "closed"
        client.send(opens(6, 3, "diff", 4))  # a number that is in use
        assert client.next()[:2] == (Kind.ERROR, 0)
        client.close()


# -- pages


@pytest.fixture
def small(monkeypatch):
    """Pages of a few rows, or bytes."""
    monkeypatch.setattr(paging, "PAGE_ROWS", 3)
    monkeypatch.setattr(paging, "PAGE_KEYS", 2)
    monkeypatch.setattr(paging, "PAGE_BYTES", 60)
    monkeypatch.setattr(paging, "_STEP", 2)
    monkeypatch.setattr(paging, "_COMMITS", 4)


names = st.sampled_from(["a", "a/b", "a/c", "ab", "b", "b" * 1024, "c", "ä", "z"])
values = st.sampled_from([1, "x" * 30, "y" * 70, {"n": 1}, None])


@pytest.mark.parametrize("kind", ["kernel", "model"])
def test_what_is_found_page_by_page_is_what_is_found_at_once(kind, small):
    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def check(data) -> None:
        store = stores.make(kind, stores.FakeClock())
        here, there = store.branch("main"), served.over_socket(store)
        try:
            write(data, here)
            compare(data, here, there.branch("main"))
        finally:
            there.close()

    check()


def write(data, branch) -> None:
    kv = branch.keyspace("default", KV)
    kv.put("a", 0)
    for key, value in data.draw(st.lists(st.tuples(names, values), max_size=20)):
        if value is None:
            kv.delete(key)
        else:
            kv.put(key, value)
    for number in range(data.draw(st.integers(0, 9))):
        branch.keyspace("default", EVENTS).append(b"s\0", "k", {"n": number})


def compare(data, here, there) -> None:
    bounds = st.none() | names
    at = data.draw(st.integers(0, here.head))
    arguments = data.draw(st.tuples(bounds, bounds, bounds, st.booleans(), st.none() | st.integers(0, 12)))
    for one, other in zip(places(here, at), places(there, at), strict=True):
        for method in ("scan", "scan_keys"):
            assert getattr(one, method)(*arguments) == getattr(other, method)(*arguments), method
        asked = data.draw(st.lists(names, max_size=9))
        assert one.get_many(asked, "none") == other.get_many(asked, "none")
        limit = data.draw(st.none() | st.integers(0, 12))
        for key in asked:
            assert one.history(key, None, limit) == other.history(key, None, limit)
    after, upto = sorted(data.draw(st.tuples(st.integers(0, here.head), st.integers(0, here.head))))
    assert here.writes(after, upto) == there.writes(after, upto)
    assert here.commits(after, upto + 1, False, limit) == there.commits(after, upto + 1, False, limit)
    assert here.commits(None, None, True, limit) == there.commits(None, None, True, limit)


def places(branch, at):
    """The keyspace of a branch as it is now, as it was, and inside a transaction that has own writes."""
    transaction = branch.begin()
    inside = transaction.keyspace("default", KV)
    inside.put("a/bb", 7)
    inside.delete("b")
    return branch.keyspace("default", KV), branch.view(at).keyspace("default", KV), inside


def test_rows_of_an_index_come_in_pages_too(small):
    store = open_store(None)
    there = served.over_socket(store)
    kv = store.branch("main").keyspace("default", KV)
    store.create_index("n", "default", "kv", b"", {"type": "ordered", "paths": [["n"]], "unique": False})
    kv.put_many([(f"k{number:02}", {"n": number // 4}) for number in range(17)])
    seen = there.branch("main").keyspace("default", KV)
    for reverse, limit, skip in itertools.product((False, True), (None, 0, 1, 5, 17, 99), (0, 3, 20)):
        asked = "n", ([1], True), None, reverse, limit, skip
        assert seen.by_value(*asked) == kv.by_value(*asked)
        assert seen.pinned().by_value(*asked) == kv.by_value(*asked)
    there.close()


def test_a_scan_is_as_of_one_version_though_others_write_between_its_pages(small, monkeypatch):
    store = open_store(None)
    there = served.over_socket(store)
    kv = store.branch("main").keyspace("default", KV)
    kv.put_many([(f"k{number:02}", number) for number in range(20)])
    pages = []

    def scan(thing, *arguments):
        found = paging.scan(thing, *arguments)
        pages.append(found)
        kv.put_many([(f"k{number:02}", -len(pages)) for number in range(20)])
        return found

    monkeypatch.setitem(ASKS["txn"], "scan", Ask(scan))
    found = there.branch("main").keyspace("default", KV).scan(None, None, None, False, None)
    assert len(pages) > 5
    assert [key for key, _ in found] == [f"k{number:02}" for number in range(20)]
    assert {value for _, value in found} == {-1}
    there.close()


def test_no_answer_is_longer_than_a_page_and_a_row():
    with serving() as server:
        client = Client(server, hello=GREETING + SETUP)
        rows = [[f"k{number:04}", number] for number in range(3000)]
        client.ask(1, 2, "put_many", rows, None)
        found, more = client.ask(2, 2, "scan", None, None, None, False, None)
        assert (found, more) == (rows[:1024], True)
        assert client.ask(3, 2, "scan", None, None, None, False, 1024) == [rows[:1024], False]
        for number in range(4):
            client.ask(10 + number, 2, "put", f"l{number}", "x" * 400_000, None)
        found, more = client.ask(4, 2, "scan", "l", None, None, False, None)
        assert (len(found), more) == (3, True)
        assert len(client.ask(5, 2, "get_many", ["l0"] * 10_000)) == paging._STEP
        assert client.ask(6, 2, "get_many", "l0") == "invalid_input"
        client.close()
