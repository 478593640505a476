"""Retention policies: what they say, what combines, which one is in force where."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from datetime import timedelta

import databases
import pytest

import strata
from strata import KeepAll, KeepFor, KeepLast
from strata.core.retention import bounds_of, policy_of
from strata.errors import Closed, InvalidInput, NotFound, ReadOnly

HOUR = timedelta(hours=1)


@pytest.fixture(params=[*databases.KINDS, "directory"])
def db(request, tmp_path):
    on_disk = request.param == "directory"
    with strata.open(tmp_path / "a.strata") if on_disk else databases.make(request.param) as opened:
        yield opened


@pytest.mark.parametrize(
    "policy",
    [
        KeepAll(),
        KeepLast(1),
        KeepLast(7),
        KeepFor(HOUR),
        KeepLast(3) | KeepFor(HOUR),
        KeepLast(3) & KeepFor(1.5),
    ],
    ids=repr,
)
def test_a_policy_comes_back_from_its_bounds(policy):
    assert policy_of(*bounds_of(policy)) == policy
    assert hash(policy_of(*bounds_of(policy))) == hash(policy)
    assert eval(repr(policy), {**vars(strata), "timedelta": timedelta}) == policy


def test_durations_are_seconds_or_timedeltas():
    assert KeepFor(3600) == KeepFor(3600.0) == KeepFor(HOUR)
    assert KeepFor(1e-6).micros == KeepFor(1e-9).micros == 1
    assert KeepFor(HOUR).duration == HOUR


def test_the_order_of_two_does_not_matter():
    assert KeepLast(3) | KeepFor(HOUR) == KeepFor(HOUR) | KeepLast(3)
    assert KeepLast(3) & KeepFor(HOUR) == KeepFor(HOUR) & KeepLast(3)
    assert KeepLast(3) & KeepFor(HOUR) != KeepLast(3) | KeepFor(HOUR)


def test_policies_are_frozen():
    with pytest.raises(FrozenInstanceError):
        KeepLast(3).n = 4


@pytest.mark.parametrize("n", [0, -1, True, 1.0, "3", None, 2**63])
def test_counts_that_cannot_be(n):
    with pytest.raises(InvalidInput):
        KeepLast(n)


@pytest.mark.parametrize(
    "duration", [0, -1, True, "1d", None, math.nan, math.inf, timedelta(0), -HOUR, 1e300, timedelta.max]
)
def test_durations_that_cannot_be(duration):
    with pytest.raises(InvalidInput):
        KeepFor(duration)


EITHER = KeepLast(3) | KeepFor(HOUR)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (KeepAll(), KeepLast(3)), (KeepFor(1), KeepAll()), (KeepAll(), KeepAll()),
        (KeepLast(3), KeepLast(4)), (KeepFor(1), KeepFor(1)),
        (EITHER, KeepLast(2)), (KeepFor(1), EITHER), (EITHER, EITHER), (KeepLast(3), 3), (KeepFor(1), None),
    ],
    ids=repr,
)  # fmt: skip
def test_what_does_not_combine(one, other):
    with pytest.raises(InvalidInput):
        one | other
    with pytest.raises(InvalidInput):
        one & other


def test_all_is_kept_where_nothing_is_said(db):
    assert db.retention.get() == KeepAll() and db.retention.list() == []
    assert db.retention.get(branch="main", space="default", primitive="kv") == KeepAll()
    assert not db.retention.clear()


def test_the_most_specific_wins(db):
    db.branches.create("b")
    places = [
        {}, {"branch": "b"}, {"space": "notes"}, {"branch": "b", "space": "notes"}, {"primitive": "kv"},
        {"branch": "b", "primitive": "kv"}, {"space": "notes", "primitive": "kv"},
        {"branch": "b", "space": "notes", "primitive": "kv"},
    ]  # fmt: skip
    everywhere = places[-1]
    for rank, place in enumerate(places, 1):
        db.retention.set(KeepLast(rank), **place)
        assert db.retention.get(**place) == db.retention.get(**everywhere) == KeepLast(rank)
    assert [rule.policy.n for rule in db.retention.list()] == list(range(1, 9))
    assert db.retention.get(branch="main", space="notes", primitive="json") == KeepLast(3)
    assert db.retention.get(branch="b", space="default", primitive="json") == KeepLast(2)
    assert db.retention.get(branch="main", space="default", primitive="kv") == KeepLast(5)
    assert db.retention.get(space="default") == KeepLast(1)
    for rank, place in reversed(list(enumerate(places, 1))):
        assert db.retention.get(**everywhere) == KeepLast(rank)
        assert db.retention.clear(**place) and not db.retention.clear(**place)
    assert db.retention.get(**everywhere) == KeepAll()


def test_a_policy_takes_the_place_of_one_for_the_same(db):
    db.retention.set(KeepLast(3), primitive="kv")
    db.retention.set(EITHER, primitive="kv")
    [rule] = db.retention.list()
    assert (rule.branch, rule.space, rule.primitive, rule.policy) == (None, None, "kv", EITHER)
    assert "KeepLast(3) | KeepFor" in str(db.retention.list())
    assert repr(db.retention) == "<Retention 1 policies>" and "<td>" in db.retention._repr_html_()


def test_a_policy_follows_its_branch(db):
    db.branches.create("b")
    db.retention.set(KeepLast(3), branch="b")
    db.branches.rename("b", "c")
    assert db.retention.get(branch="c") == KeepLast(3)
    assert [rule.branch for rule in db.retention.list()] == ["c"]
    db.branches.delete("c")
    assert db.retention.list() == []
    db.branches.create("b")
    assert db.retention.get(branch="b") == KeepAll()


def test_it_has_no_version(db):
    version = db.kv.put("k", 1)
    db.retention.set(KeepLast(1))
    assert db.version == version and len(db.log()) == 1


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ({"branch": "nope"}, NotFound), ({"branch": ""}, InvalidInput), ({"space": "_x"}, InvalidInput),
        ({"space": 3}, InvalidInput), ({"primitive": "vectros"}, InvalidInput),
        ({"primitive": 3}, InvalidInput), ({"primitive": []}, InvalidInput),
    ],
    ids=repr,
)  # fmt: skip
def test_places_that_are_none(db, place, error):
    for act in (lambda **place: db.retention.set(KeepLast(1), **place), db.retention.get, db.retention.clear):
        with pytest.raises(error):
            act(**place)
    assert db.retention.list() == []


@pytest.mark.parametrize("policy", [3, None, "last=3", KeepLast, timedelta(1)], ids=repr)
def test_what_is_no_policy(db, policy):
    with pytest.raises(InvalidInput):
        db.retention.set(policy)
    assert db.retention.list() == []


def test_it_stays_and_a_reader_cannot_change_it(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.kv.put("k", 1)
        db.retention.set(EITHER, branch="main", space="s", primitive="json")
    with strata.open(path, read_only=True) as db:
        assert db.retention.get(branch="main", space="s", primitive="json") == EITHER
        for act in (lambda: db.retention.set(KeepAll()), db.compact, lambda: db.forget("kv", "k")):
            with pytest.raises(ReadOnly):
                act()
    for act in (lambda: db.retention.set(KeepAll()), db.retention.get, db.retention.list, db.retention.clear):
        with pytest.raises(Closed):
            act()


def test_it_is_durable_at_once():
    disk = strata.testing.SimDisk(7)
    db = strata.open(disk=disk)
    db.retention.set(KeepLast(2), primitive="kv")
    with strata.open(disk=disk.crash(3)) as again:
        assert again.retention.get(primitive="kv") == KeepLast(2)
    db.close()
