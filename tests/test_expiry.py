"""Expiry: what was put with a time to live is absent from the end of it on, and present in views before that.

Time comes from the clock of the store alone, so nothing here waits.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import databases
import pytest
import stores

from strata.core.clock import to_datetime
from strata.core.errors import AlreadyExists, Conflict, InvalidInput
from strata.core.protocols import KEEP
from strata.testing import FakeClock

SECOND = 1_000_000


@pytest.fixture(params=databases.KINDS)
def base(request, clock):
    with databases.make(request.param, clock) as base:
        yield base


def test_an_entry_is_there_until_its_instant_and_not_at_it(db, clock):
    db.kv.put("a", 1, ttl=10)
    clock.advance(10 * SECOND - 1)
    assert db.kv.get("a") == 1
    clock.advance(1)
    assert db.kv.get("a", "gone") == "gone"


def test_what_expired_is_absent_in_every_respect_but_history(db, clock):
    db.kv.put_many({"a": 1, "b": 2}, ttl=timedelta(seconds=1))
    db.kv.put("c", 3)
    version = db.kv.put("d", 4, ttl=1)
    clock.advance(SECOND)
    kv = db.kv
    assert (kv.get("a"), kv.entry("a"), kv.exists("a"), "a" in kv) == (None, None, False, False)
    assert (kv.get_many(["a", "c"]), len(kv), kv.count("a"), list(kv)) == ([None, 3], 1, 0, ["c"])
    assert list(kv.scan()) == list(kv.scan(limit=9)) == [("c", 3)] == list(kv.scan(reverse=True))
    assert (kv.delete("a"), kv.delete_many(["a", "b", "c"])) == (False, 1)
    with pytest.raises(KeyError):
        kv["a"]
    with pytest.raises(Conflict):
        kv.cas("d", 5, expected_version=version)
    assert kv.cas("d", 5, expected_version=0)
    assert [(old.value, old.deleted) for old in kv.history("a")] == [(1, False)]


def test_entry_and_history_tell_when(db, clock):
    db.kv.put("a", 1)
    db.kv.put("a", 2, ttl=1.5)
    entry = db.kv.entry("a")
    assert entry.expires - entry.timestamp == timedelta(seconds=1.5)
    assert [old.expires for old in db.kv.history("a")] == [entry.expires, None]
    db.state.set("s", 1, ttl=60)
    assert (
        db.state.entry("s").expires == to_datetime(clock() + 60 * SECOND) == db.state.history("s")[0].expires
    )
    db.json.create("d", {}, ttl=60)
    assert db.json.entry("d").expires == to_datetime(clock() + 60 * SECOND) == db.json.history("d")[0].expires


def test_a_put_clears_and_an_increment_keeps(db, clock):
    db.kv.put("n", 1, ttl=10)
    db.kv.incr("n", 4)
    clock.advance(10 * SECOND)
    db.kv.incr("n")
    assert (db.kv.get("n"), db.kv.entry("n").expires) == (1, None)
    db.kv.put("n", 1, ttl=10)
    db.kv.put("n", 2)
    db.kv.put("m", 1, ttl=10)
    db.kv.cas("m", 2, expected=1)
    clock.advance(10 * SECOND)
    assert db.kv.get_many(["n", "m"]) == [2, 2]
    db.kv.cas("m", 3, expected=2, ttl=1)
    clock.advance(SECOND)
    assert not db.kv.exists("m")


def test_a_cell_keeps_its_expiry_in_transitions_and_its_counter_for_ever(db, clock):
    db.state.init("lease", 1, ttl=10)
    with pytest.raises(AlreadyExists):
        db.state.init("lease", 2)
    db.state.transition("lease", lambda value: value + 1)
    clock.advance(10 * SECOND)
    assert (db.state.get("lease"), list(db.state.list()), db.state.count()) == (None, [], 0)
    db.state.init("lease", 5)
    assert (db.state.entry("lease").counter, db.state.entry("lease").expires) == (3, None)
    db.state.transition("lease", lambda value: value, ttl=1)
    db.state.set("other", 1, ttl=1)
    db.state.cas("other", 1, 2)
    clock.advance(SECOND)
    assert list(db.state.list()) == ["other"]


def test_a_document_expires_as_a_whole(db, clock):
    db.json.create("d", {"a": {"b": 1}}, ttl=10)
    db.json.set("d", "$.a.c", 2)
    db.json.merge("d", {"e": 3})
    with pytest.raises(InvalidInput):
        db.json.set("d", "$.a", 1, ttl=1)
    clock.advance(10 * SECOND)
    assert not db.json.exists("d") and db.json.get("d", "$.a", "none") == "none"
    db.json.set("d", "$.x", 1)  # a new one
    assert (db.json.get("d"), db.json.entry("d").expires) == ({"x": 1}, None)
    db.json.set("d", "$", {"y": 1}, ttl=10)
    db.json.set("d", "$", {"z": 1})
    assert db.json.entry("d").expires is None


def test_siblings_of_a_document_that_expires_do_not_conflict(db):
    db.json.create("d", {"a": 1, "b": 1}, ttl=10)
    one = db.begin()
    one.json.set("d", "$.a", one.json.get("d", "$.a") + 1)
    db.json.set("d", "$.b", 5)
    one.commit()
    assert db.json.get("d") == {"a": 2, "b": 5} and db.json.entry("d").expires


@pytest.mark.parametrize(
    "ttl", [0, -1, 0.0, math.nan, math.inf, -math.inf, True, "1", timedelta(0), 1e12, [1]]
)
def test_a_ttl_that_is_none_is_refused(db, ttl):
    for write in (
        lambda: db.kv.put("a", 1, ttl=ttl),
        lambda: db.kv.put_many({"a": 1}, ttl=ttl),
        lambda: db.kv.cas("a", 1, expected_version=0, ttl=ttl),
        lambda: db.state.init("a", 1, ttl=ttl),
        lambda: db.state.set("a", 1, ttl=ttl),
        lambda: db.state.cas("a", 0, 1, ttl=ttl),
        lambda: db.state.transition("a", lambda value: value, ttl=ttl),
        lambda: db.json.create("a", 1, ttl=ttl),
        lambda: db.json.set("a", "$", 1, ttl=ttl),
    ):
        with pytest.raises(InvalidInput):
            write()
    assert db.branch.head == 0


def test_the_shortest_and_the_longest_ttl(db, clock):
    db.kv.put("a", 1, ttl=1e-9)
    db.kv.put("b", 1, ttl=timedelta(microseconds=1))
    db.kv.put("c", 1, ttl=1000 * 365 * 24 * 3600)
    assert db.kv.get_many(["a", "b"]) == [1, 1] and db.kv.entry("c").expires.year == 3025
    clock.advance(1)
    assert list(db.kv) == ["c"]


def test_a_transaction_sees_its_own_puts_live_and_they_count_from_the_commit(db, clock):
    tx = db.begin()
    tx.kv.put("a", 1, ttl=10)
    tx.kv.put("n", 1, ttl=10)
    clock.advance(60 * SECOND)
    assert (tx.kv.get("a"), list(tx.kv), tx.kv.exists("a")) == (1, ["a", "n"], True)
    entry = tx.kv.entry("a")
    assert entry.expires - entry.timestamp == timedelta(seconds=10)
    tx.kv.incr("n")
    tx.commit()
    until = to_datetime(clock() + 10 * SECOND)
    assert (db.kv.entry("a").expires, db.kv.entry("n").expires) == (until, until)
    clock.advance(10 * SECOND)
    assert list(db.kv) == []


def test_within_a_transaction_the_last_write_says_when(db, clock):
    db.json.create("old", {"a": 1}, ttl=10)
    tx = db.begin()
    tx.kv.put("cleared", 1, ttl=1)
    tx.kv.put("cleared", 2)
    tx.kv.put("remade", 1, ttl=1)
    tx.kv.delete("remade")
    tx.kv.incr("remade")
    tx.json.create("inside", {"a": 1}, ttl=1)
    tx.json.set("inside", "$.b", 2)
    tx.json.create("whole", {"a": 1}, ttl=1)
    tx.json.set("whole", "$", {"b": 2})
    tx.json.set("old", "$.b", 2)
    assert tx.json.entry("old").expires and tx.json.entry("inside").expires
    tx.state.set("cell", 1, ttl=1)
    tx.state.transition("cell", lambda value: value + 1)
    tx.commit()
    clock.advance(SECOND)
    assert (list(db.kv), list(db.json.list()), list(db.state.list())) == (
        ["cleared", "remade"],
        ["old", "whole"],
        [],
    )
    clock.advance(9 * SECOND)
    assert list(db.json.list()) == ["whole"]


def test_a_transaction_reads_at_one_time(db, clock):
    db.kv.put("a", 1, ttl=1)
    tx = db.begin()
    clock.advance(SECOND)
    assert (tx.kv.get("a"), list(tx.kv), db.kv.get("a")) == (1, ["a"], None)


def test_what_expires_before_the_commit_is_changed_as_absent(db, clock):
    """The patch had been tried on the document; its outcome must not outlive it."""
    db.json.create("d", {"a": 1}, ttl=1)
    db.kv.put("n", 5, ttl=1)
    tx = db.begin("snapshot")
    tx.json.set("d", "$.b", 2)
    tx.kv.incr("n")
    clock.advance(SECOND)
    tx.commit()
    assert (db.json.get("d"), db.json.entry("d").expires) == ({"b": 2}, None)
    assert (db.kv.get("n"), db.kv.entry("n").expires) == (1, None)


def test_a_put_may_keep_the_expiry(db, clock):
    from strata.primitives import Kv

    txn = db.branch.keyspace("default", Kv.LAYOUT)
    txn.put("a", 1, SECOND)
    txn.put("a", 2, KEEP)
    txn.put("b", 1, KEEP)
    clock.advance(SECOND)
    txn.put("a", 3, KEEP)
    clock.advance(SECOND)
    assert txn.scan(None, None, None, False, None) == [("a", 3), ("b", 1)]


def test_a_view_shows_what_expired_later(base, clock):
    version = base.kv.put("a", 1, ttl=10)
    later = base.kv.put("b", 1)
    clock.advance(60 * SECOND)
    last = base.kv.put("c", 1)
    assert (base.at(version).kv.get("a"), base.at(later).kv.get("a"), base.at(last).kv.get("a")) == (
        1,
        1,
        None,
    )
    assert list(base.at(later).kv.scan()) == [("a", 1), ("b", 1)]
    assert base.at(version).kv.count() == 1


def test_an_instant_shows_what_had_not_expired_by_then(base, clock):
    base.kv.put("a", 1, ttl=10)
    put = to_datetime(clock())
    clock.advance(60 * SECOND)
    assert base.at(put + timedelta(seconds=9)).kv.get("a") == 1
    assert base.at(put + timedelta(seconds=10)).kv.get("a") is None
    assert base.at((put + timedelta(seconds=9)).isoformat()).kv.get("a") == 1


def test_the_future_is_now(base, clock):
    """An instant to come gives the newest state as of now, and what it shows does not change."""
    base.kv.put("a", 1, ttl=10)
    view = base.at(datetime(2099, 1, 1, tzinfo=UTC))
    assert view.kv.get("a") == 1
    clock.advance(60 * SECOND)
    assert (view.kv.get("a"), base.kv.get("a")) == (1, None)


def test_a_fork_inherits_when(base, clock):
    base.kv.put("a", 1, ttl=10)
    base.branches.fork("main", "other")
    clock.advance(10 * SECOND)
    assert base.branch("other").kv.get("a") is None


def test_a_clock_that_runs_backwards_decides_what_has_expired(db, clock):
    """Expiry goes by the clock, and counts from the time of the commit, which never goes back."""
    start = clock()
    db.kv.put("a", 1, ttl=10)
    clock.advance(10 * SECOND)
    db.kv.put("b", 1)
    clock.set(start)
    assert list(db.kv) == ["a", "b"]
    version = db.kv.put("c", 1, ttl=10)
    assert db.kv.entry("c").expires == to_datetime(start + 20 * SECOND)
    assert db.at(version).kv.get_many(["a", "c"]) == [None, 1]
    assert db.kv.delete("a")


@pytest.mark.parametrize("durability", ["buffered", "strict"])
def test_expiry_survives_a_restart_whatever_the_clock_did(durability):
    """A key was deleted that lived by the clock and had expired by the time of the commit. The log is read
    back by the latter, and lost the deletion."""
    from strata.store import open_store
    from strata.testing import SimDisk

    clock, disk = FakeClock(), SimDisk(1)

    def opened():
        return open_store("db", durability=durability, disk=disk, clock=clock)

    store = opened()
    db, start = stores.Place(store), clock()
    db.kv.put_many({"a": 1, "b": 1, "n": 1}, ttl=10)
    db.json.create("d", {"a": [1]}, ttl=10)
    clock.advance(60 * SECOND)
    db.kv.put("later", 1)
    clock.set(start)
    db.kv.delete("a")
    db.kv.incr("n")
    db.json.append("d", "$.a", 2)
    db.state.set("s", 1, ttl=10)
    seen = [
        db.everything,
        db.kv.history("a"),
        db.kv.history("n"),
        db.json.history("d"),
        db.state.history("s"),
    ]
    store.close()
    store = opened()
    db = stores.Place(store)
    assert seen == [
        db.everything, db.kv.history("a"), db.kv.history("n"), db.json.history("d"), db.state.history("s")
    ]  # fmt: skip
    store.close()
