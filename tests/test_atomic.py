"""Several operations as one step, over the oracle and the kernel."""

from __future__ import annotations

import pytest

from strata.core.atomic import atomically, back_off
from strata.core.errors import Conflict, ReadOnly


@pytest.fixture
def raw(db):
    db.kv.put("k", 0)
    return db.kv._txn


def test_automatic(db, raw):
    result, version = atomically(raw, lambda txn: txn.put("k", 1) or "done")
    assert (result, version) == ("done", db.branch.head)


def test_inside_it_is_part_of_what_is_open(db):
    tx = db.begin()
    assert atomically(tx.kv._txn, lambda txn: txn.put("k", 1) or "done") == ("done", None)
    assert db.kv.get("k") is None
    tx.commit()
    assert db.kv.get("k") == 1


def test_in_a_view_writes_are_refused(db, raw):
    with pytest.raises(ReadOnly):
        atomically(db.at(db.branch.head).kv._txn, lambda txn: txn.put("k", 1))


@pytest.mark.parametrize("conflicts", [0, 1, 7])
def test_conflicts_of_the_commit_are_tried_again(db, raw, conflicts):
    tries, pauses = [], []

    def step(txn):
        tries.append(txn.get("k"))
        if len(tries) <= conflicts:
            db.kv.incr("k")
        txn.put("k", txn.get("k") + 100)

    atomically(raw, step, pause=pauses.append)
    assert tries == list(range(conflicts + 1))
    assert pauses == list(range(1, conflicts + 1))
    assert db.kv.get("k") == conflicts + 100


def test_there_is_an_end_to_trying(db, raw):
    def step(txn):
        txn.put("k", txn.get("k") + 1)
        db.kv.incr("k")

    with pytest.raises(Conflict):
        atomically(raw, step, tries=5, pause=lambda attempt: None)
    assert db.kv.get("k") == 5


@pytest.mark.parametrize("error", [Conflict, ZeroDivisionError, KeyboardInterrupt])
def test_what_the_step_raises_comes_out_at_once(db, raw, error):
    tries = []

    def step(txn):
        tries.append(txn.put("k", 9))
        raise error

    with pytest.raises(error):
        atomically(raw, step)
    assert len(tries) == 1
    assert db.kv.get("k") == 0


def test_pauses_grow_and_end(monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    for attempt in range(1, 1001):
        back_off(attempt)
    assert len(slept) == 997
    assert slept == sorted(slept)
    assert slept[0] == 1e-4 and slept[-1] == 0.02
