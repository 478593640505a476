"""Writes through a network that delays, cuts, resets and swallows: what was acknowledged is there, and once.

A seed says what becomes of the connections and what is asked; it stands in the failure. What was neither
acknowledged nor refused was raised as an error that says so, and is there once or not at all. STRATA_SEEDS:
how many the slow test tries.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter

import pytest
from lossy import Fate, Proxy, fates

import strata
from strata.core.protocols import Layout
from strata.errors import OutcomeUnknown, RemoteError, StrataError, TransactionLost
from strata.server.limits import Limits
from strata.server.server import Server
from strata.store import open_store

TIMEOUT_S, SILENCE_S = 3.0, 0.3
PATIENCE_S = 2 * TIMEOUT_S + 4 * SILENCE_S + 10  # of one call, on a machine that has more to do
BAD = 6  # connections, before all are good


class Told:
    """What the client was told of what it wrote."""

    def __init__(self) -> None:
        self.done: dict[str, str] = {}  # the way it was written, by name
        self.lost: dict[str, str] = {}  # it says that it did not happen
        self.unknown: dict[str, str] = {}
        self.slowest_s = 0.0

    def note(self, name: str, write) -> None:
        begun = time.monotonic()
        try:
            write(name)
        except TransactionLost:
            self.lost[name] = write.__name__
        except (OutcomeUnknown, RemoteError):
            self.unknown[name] = write.__name__
        else:
            self.done[name] = write.__name__
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)


def writes(db, chance: random.Random):
    """Ways to write a name so that it can be seen how often it was."""

    def put(name):
        db.kv.put(f"put/{name}", "x" * chance.choice((1, 10, 2000)))
        db.kv.incr(f"sum/{name}")

    def append(name):
        db.events.append("e", {"name": name})

    def transaction(name):
        with db.transaction() as tx:
            tx.kv.incr(f"sum/{name}")
            tx.events.append("e", {"name": name})

    def many(name):
        db.kv.put_many({f"many/{name}/{number}": number for number in range(20)})

    def delete(name):
        db.kv.put("gone", name)
        db.kv.delete("gone")

    return [put, append, append, transaction, many, delete]


def served(store, schedule):
    server = Server(store, limits=Limits(drain_s=1))
    _, port = server.listen_tcp("127.0.0.1", 0)
    return server, Proxy(port, schedule)


def connect(proxy):
    url = f"strata://127.0.0.1:{proxy.port}"
    return strata.connect(url, timeout_s=TIMEOUT_S, silence_s=SILENCE_S)


def run(seed: int, schedule: list[Fate], count: int = 25) -> Told:
    """Write through a bad network, let it heal, and look what is there."""
    chance, told = random.Random(seed), Told()
    store = open_store(None)
    server, proxy = served(store, schedule)
    try:
        try:
            db = connect(proxy)
        except StrataError:
            proxy.heal()
            db = connect(proxy)
        ways = writes(db, chance)
        worker = threading.Thread(target=work, args=(db, chance, ways, told, count), daemon=True)
        worker.start()
        worker.join(count * PATIENCE_S)
        assert not worker.is_alive(), f"seed {seed}: a call hangs"
        proxy.heal()
        until_whole(db)
        check(store, told, seed)
        db.close()
    finally:
        proxy.close()
        server.close()
        store.close()
    return told


def work(db, chance, ways, told, count) -> None:
    for number in range(count):
        told.note(str(number), chance.choice(ways))
        try:
            db.kv.get("gone")
        except StrataError:
            pass


def until_whole(db) -> None:
    """The same handles go on, at the latest when the connection they have is seen to be broken."""
    for _ in range(3):
        try:
            db.kv.put("whole", True)
        except (RemoteError, OutcomeUnknown):
            continue
        assert db.kv.get("whole") is True
        return
    pytest.fail("the handles do not go on")


def check(store, told: Told, seed: int) -> None:
    kv = store.branch("main").keyspace("default", Layout("kv"))
    events = store.branch("main").keyspace("default", Layout("events", text_keys=False))
    appended = Counter(
        row[1][2]["name"] for row in events.scan(None, None, None, False, None) if is_event(row[1])
    )
    sums = {key.removeprefix("sum/"): value for key, value in kv.scan("sum/", None, None, False, None)}
    many = Counter(key.split("/")[1] for key, _ in kv.scan("many/", None, None, False, None))
    assert set(many.values()) <= {20}, f"seed {seed}: half of a write"
    for name, way in (told.done | told.unknown | told.lost).items():
        times = max(appended[name], sums.get(name, 0), many[name] // 20)
        assert times <= 1, f"seed {seed}: {name} is there {times} times"
        is_there = times == 1
        assert not (name in told.lost and is_there), f"seed {seed}: {name} was said to be lost"
        should_be = name in told.done and way != "delete"
        assert is_there or not should_be, f"seed {seed}: {name}, a {way}, was acknowledged"
    assert told.slowest_s < PATIENCE_S, f"seed {seed}: a call took {told.slowest_s:.1f} s"


def is_event(value) -> bool:
    return isinstance(value, list) and isinstance(value[2], dict)


@pytest.mark.parametrize("seed", [1, 14, 15, 26])  # the last three find a write that is made twice
def test_writes_through_a_network_that_is_bad_for_a_while(seed):
    run(seed, fates(seed, BAD), count=12)


@pytest.mark.slow
def test_writes_through_many_bad_networks(capsys):
    count = int(os.environ.get("STRATA_SEEDS", "200"))
    told = Counter()
    slowest_s = 0.0
    for seed in range(1000, 1000 + count):
        found = run(seed, fates(seed, BAD))
        told.update(done=len(found.done), lost=len(found.lost), unknown=len(found.unknown))
        slowest_s = max(slowest_s, found.slowest_s)
    with capsys.disabled():
        print(f"\n{count} seeds: {dict(told)}, slowest call {slowest_s:.1f} s")


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_reset_in_the_middle_of_a_commit(direction):
    """At every few bytes of what goes to and fro: the commit is there once, or was said to be lost."""
    store = open_store(None)
    server, proxy = served(store, [])
    outcomes = Counter()
    for at in range(0, 900, 45) if direction == "up" else range(0, 400, 20):
        proxy._fates = [Fate(resets=True, **{f"cut_{direction}": at})]
        try:
            with connect(proxy) as db:
                try:
                    with db.transaction() as tx:
                        tx.kv.incr(f"sum/{at}")
                        tx.kv.put(f"k/{at}", at)
                    outcomes["done"] += 1
                    assert db.kv.get(f"sum/{at}") == 1
                except TransactionLost:
                    outcomes["lost"] += 1
                    assert db.kv.get(f"sum/{at}") is None
        except (OutcomeUnknown, RemoteError):
            outcomes["unknown"] += 1
    proxy.close()
    server.close()
    sums = store.branch("main").keyspace("default", Layout("kv")).scan("sum/", None, None, False, None)
    assert {value for _, value in sums} == {1}
    assert outcomes["done"] >= 1 and outcomes["lost"] >= 1 and not outcomes["unknown"]
    store.close()


@pytest.mark.parametrize("hole", [{"hole_up": 400}, {"hole_down": 250}, {"hole_up": 0}, {"hole_down": 0}])
def test_a_network_that_swallows_everything_is_noticed(hole):
    """The story: a call waited for ever for the answer, since nothing came, not even the end."""
    store = open_store(None)
    server, proxy = served(store, [Fate(**hole)])
    with connect(proxy) as db:
        for number in range(20):
            assert db.kv.incr("n") == number + 1
        assert proxy.used > 1
    proxy.close(), server.close(), store.close()


def test_a_call_that_takes_longer_than_the_silence_is_answered():
    """A server that works on something says so, and nothing where it does not."""
    store = open_store(None)
    slow = Slow(store)
    server, proxy = served(slow, [])
    with strata.connect(f"strata://127.0.0.1:{proxy.port}", silence_s=0.5) as db:
        db.kv.put("k", 1)
        db.flush()
        assert slow.begun == 1 and proxy.used == 1
    proxy.close(), server.close(), store.close()


class Slow:
    """A store whose flush takes longer than anybody waits in silence."""

    def __init__(self, store) -> None:
        self._store, self.begun = store, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def flush(self):
        self.begun += 1
        time.sleep(0.9)
        return self._store.flush()
