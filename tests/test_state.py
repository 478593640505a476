"""State cells, over the oracle and the kernel."""

from __future__ import annotations

import math

import pytest

from strata.core.errors import AlreadyExists, Conflict, InvalidInput
from strata.core.values import same


def test_init_get_set(db):
    assert db.state.get("s", "none") == "none"
    version = db.state.init("s", {"step": 1})
    assert db.state.get("s") == {"step": 1}
    with pytest.raises(AlreadyExists):
        db.state.init("s", 2)
    assert db.branch.head == version
    assert db.state.set("s", None) == version + 1
    assert db.state.get("s", "none") is None
    db.state.set("new", math.nan)
    assert same(db.state.get("new"), math.nan)


def test_entry_and_counter(db, clock):
    for n in range(1, 4):
        version = db.state.set("s", n * 10)
        cell = db.state.entry("s")
        assert (cell.value, cell.counter, cell.version) == (n * 10, n, version)
        assert cell.timestamp.timestamp() == clock() / 1e6
    assert db.state.entry("x") is None
    assert db.state.exists("s") and not db.state.exists("x")


def test_cas(db):
    db.state.cas("s", 0, "first")
    for wrong in (0, 2):
        with pytest.raises(Conflict) as caught:
            db.state.cas("s", wrong, "second")
        assert caught.value.keys[0].ref.key == "s"
    db.state.cas("s", 1, "second")
    assert db.state.entry("s").counter == 2
    with pytest.raises(Conflict):
        db.state.cas("absent", 1, "x")
    for wrong in (-1, True, "1", None, 1.0):
        with pytest.raises(InvalidInput):
            db.state.cas("s", wrong, "x")


def test_transition(db):
    db.state.transition("s", lambda value: [*value, 1], default=[])
    version = db.state.transition("s", lambda value: [*value, 2])
    assert db.state.get("s") == [1, 2]
    assert version == db.branch.head
    assert db.state.entry("s").counter == 2


def test_a_transition_that_raises_writes_nothing(db):
    db.state.set("s", 1)
    before = db.everything
    with pytest.raises(ZeroDivisionError):
        db.state.transition("s", lambda value: value / 0)
    with pytest.raises(InvalidInput):
        db.state.transition("s", lambda value: {value})
    assert db.everything == before


def test_a_transition_begins_again_when_another_came_first(db):
    db.state.set("s", 1)
    seen = []

    def slow(value):
        seen.append(value)
        if len(seen) < 3:
            db.state.set("s", value + 10)
        return value + 1

    db.state.transition("s", slow)
    assert seen == [1, 11, 21]
    assert db.state.get("s") == 22
    assert db.state.entry("s").counter == 4


def test_the_counter_goes_on_after_a_deletion(db):
    """Else a counter that was read before could be met again with another value behind it (ABA)."""
    db.state.set("s", 1)
    db.state.set("s", 2)
    assert db.state.delete("s") is True
    assert db.state.delete("s") is False
    assert db.state.get("s") is None
    db.state.init("s", 3)
    assert db.state.entry("s").counter == 3
    with pytest.raises(Conflict):
        db.state.cas("s", 2, "stale")
    db.state.delete("s")
    db.state.cas("s", 0, 4)
    assert db.state.entry("s").counter == 4


def test_inside(db):
    db.state.set("s", 1)
    tx = db.begin()
    assert tx.state.set("s", 2) is None
    assert tx.state.cas("s", 2, 3) is None
    assert tx.state.transition("s", lambda value: value + 1) is None
    assert (tx.state.entry("s").value, tx.state.entry("s").counter) == (4, 4)
    assert tx.state.delete("s") is None
    assert tx.state.init("s", 9) is None
    with pytest.raises(AlreadyExists):
        tx.state.init("s", 10)
    tx.commit()
    assert db.state.get("s") == 9
    assert db.state.entry("s").counter == 2  # one commit after the first, on top of what is kept


def test_of_two_cas_at_one_counter_one_wins(db):
    db.state.set("s", 0)
    one, two = db.begin(), db.begin()
    one.state.cas("s", 1, "one")
    two.state.cas("s", 1, "two")
    two.commit()
    with pytest.raises(Conflict):
        one.commit()
    assert db.state.get("s") == "two"


def test_list_count_history(db):
    for name in ("b", "a/2", "a/1"):
        db.state.set(name, 0)
    assert list(db.state.list()) == ["a/1", "a/2", "b"]
    assert list(db.state.list("a/", reverse=True)) == ["a/2", "a/1"]
    assert list(db.state.list(start="a/2", limit=1)) == ["a/2"]
    assert db.state.count() == 3 and db.state.count("a/") == 2
    db.state.set("b", 1)
    db.state.delete("b")
    found = [(cell.value, cell.counter, cell.deleted) for cell in db.state.history("b")]
    assert found == [(None, 0, True), (1, 2, False), (0, 1, False)]
    assert len(db.state.history("b", limit=1)) == 1
    assert db.state.history("x") == []


def test_a_fork_continues_the_counter(store, db):
    import stores

    db.state.set("s", 1)
    store.fork("main", "f")
    fork = stores.Place(store, "f")
    fork.state.set("s", 2)
    assert fork.state.entry("s").counter == 2
    assert db.state.entry("s").counter == 1
