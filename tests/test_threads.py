"""Many threads on one database."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import databases
import pytest

import strata
from strata.cli.demo import child

THREADS = 8


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


def together(work):
    """Run `work(n)` on 8 threads at once; raise what any of them raises."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


def test_increments_add_up(db):
    def work(n):
        for _ in range(1000):
            db.kv.incr("n")

    together(work)
    assert db.kv.get("n") == 8000


def test_transitions_happen_once_each(db):
    def work(n):
        for _ in range(100):
            db.state.transition("counter", lambda value: value + 1, default=0)

    together(work)
    assert db.state.get("counter") == 800
    assert db.state.entry("counter").counter == 800


def test_transact_loses_no_update(db):
    db.kv.put("n", 0)

    def work(n):
        for _ in range(50):
            db.transact(lambda tx: tx.kv.put("n", tx.kv.get("n") + 1))

    together(work)
    assert db.kv.get("n") == 400


def test_appends_queue_without_gaps(db):
    def work(n):
        return [db.events.append("t", {"thread": n, "i": i}).sequence for i in range(250)]

    sequences = together(work)
    assert sorted(chain.from_iterable(sequences)) == list(range(2000))
    assert all(own == sorted(own) for own in sequences)
    assert [event.sequence for event in db.events.range()] == list(range(2000))
    assert db.events.verify().ok


def test_the_chain_of_many_threads_verifies_in_another_process(tmp_path):
    path = tmp_path / "events.strata"
    with strata.open(path) as db:
        together(lambda n: [db.events.append("t", {"thread": n, "i": i}) for i in range(250)])
        here = child.chain(db, "main")
    assert here["events"] == 2000
    done = subprocess.run(
        [sys.executable, "-m", "strata.cli.demo", "verify", str(path), "main"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


def test_branches_do_not_wait_for_each_other(db):
    def work(n):
        branch = db.branches.create(f"b{n}")
        for i in range(100):
            with branch.transaction() as tx:
                tx.kv.put("n", tx.kv.get("n", 0) + 1)
                tx.kv.put(f"k{i}", n)
        return branch.kv.get("n")

    assert together(work) == [100] * THREADS


def test_views_hold_still_while_others_write(db):
    db.kv.put_many({"a": 0, "b": 0})

    def work(n):
        for _ in range(100):
            if n < 4:
                db.transact(lambda tx: tx.kv.put_many({"a": tx.kv.get("a") + 1, "b": tx.kv.get("b") + 1}))
            else:
                view = db.at(db.version)
                assert view.kv.get("a") == view.kv.get("b")
                with db.transaction() as tx:
                    assert tx.kv.get("a") == tx.kv.get("b")

    together(work)
    assert db.kv.get("a") == db.kv.get("b") == 400
