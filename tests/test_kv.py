"""Key-value, over the oracle and the kernel."""

from __future__ import annotations

import itertools
import math

import pytest
import stores

from strata.core.errors import Conflict, InvalidInput, LimitExceeded, NotFound, ReadOnly
from strata.core.values import INT_MAX, same


def test_put_get_delete(db):
    assert db.kv.get("a") is None
    first = db.kv.put("a", [1, {"b": None}])
    assert first == db.branch.head
    assert db.kv.get("a") == [1, {"b": None}]
    assert db.kv.exists("a")
    assert db.kv.delete("a") is True
    assert db.kv.delete("a") is False
    assert db.branch.head == first + 1
    assert not db.kv.exists("a")
    assert db.kv.get("a", "gone") == "gone"


@pytest.mark.parametrize(
    "value", [None, True, 0, 1.0, -0.0, math.nan, math.inf, "", b"\0", [], {}, {"b": 1, "a": [None, b"x"]}]
)
def test_values_come_back_of_their_kind(db, value):
    db.kv.put("k", value)
    assert same(db.kv.get("k", "absent"), value)
    assert same(db.kv["k"], value)


def test_a_stored_none_is_not_absent(db):
    db.kv.put("k", None)
    assert db.kv.get("k", 7) is None
    assert db.kv.exists("k")
    assert db.kv.entry("k").value is None


def test_what_was_put_is_not_changed_from_outside(db):
    value = {"a": [1]}
    db.kv.put("k", value)
    value["a"].append(2)
    db.kv.get("k")["a"].append(3)
    assert db.kv.get("k") == {"a": [1]}


def test_tuples_come_back_as_lists(db):
    db.kv.put("k", (1, (2,)))
    assert db.kv.get("k") == [1, [2]]


def test_keys_of_maps_come_back_as_they_were(db):
    """The kernel keeps the strings of such keys, in fewer places than there are keys here."""
    names = [f"{'é' * (number % 14)}{number}" for number in range(3_000)]
    maps = {name: {name: number, "x" * (number % 40): name} for number, name in enumerate(names)}
    db.kv.put_many(maps)
    for _ in range(2):
        assert dict(zip(names, db.kv.get_many(names), strict=True)) == maps
    assert db.kv.get(names[7]) == maps[names[7]]


def test_entry(db, clock):
    db.kv.put("k", 1)
    clock.advance(1_000_000)
    version = db.kv.put("k", 2)
    found = db.kv.entry("k")
    assert (found.value, found.version) == (2, version)
    assert found.timestamp.timestamp() == clock() / 1e6
    assert found.timestamp.utcoffset().total_seconds() == 0
    assert db.kv.entry("x") is None


def test_increments(db):
    db.kv.incr("n")
    db.kv.incr("n", 41)
    assert db.kv.get("n") == 42
    db.kv.incr("n", -2)
    assert db.kv.get("n") == 40
    db.kv.incr("f", 0.5)
    db.kv.incr("f", 0.25)
    assert same(db.kv.get("f"), 0.75)


@pytest.mark.parametrize(
    ("stored", "by"),
    [(1, 1.0), (1.0, 1), ("1", 1), (True, 1), (None, 1), ([], 1), (1, True), (1, "1"), (1, None)],
)
def test_increments_of_the_wrong_kind(db, stored, by):
    db.kv.put("n", stored)
    before = db.everything
    with pytest.raises(InvalidInput):
        db.kv.incr("n", by)
    assert db.everything == before


@pytest.mark.parametrize(("stored", "by"), [(INT_MAX, 1), (-INT_MAX, -2)])
def test_an_increment_that_overflows(db, stored, by):
    db.kv.put("n", stored)
    with pytest.raises(LimitExceeded):
        db.kv.incr("n", by)
    assert db.kv.get("n") == stored
    with pytest.raises(InvalidInput):
        db.kv.incr("n", 2**63)


def test_cas_by_version(db):
    with pytest.raises(Conflict) as caught:
        db.kv.cas("k", 1, expected_version=5)
    assert caught.value.keys[0].ref.key == "k"
    version = db.kv.cas("k", 1, expected_version=0)
    with pytest.raises(Conflict):
        db.kv.cas("k", 2, expected_version=0)
    assert db.kv.cas("k", 2, expected_version=version) > version
    with pytest.raises(Conflict):
        db.kv.cas("k", 3, expected_version=version)
    assert db.kv.get("k") == 2


def test_cas_by_value(db):
    with pytest.raises(Conflict):
        db.kv.cas("k", 1, expected=None)  # a stored None, not an absent key
    db.kv.put("k", None)
    db.kv.cas("k", 1, expected=None)
    for wrong in (1.0, True, 2, None):
        with pytest.raises(Conflict):
            db.kv.cas("k", 2, expected=wrong)
    db.kv.cas("k", math.nan, expected=1)
    db.kv.cas("k", 0, expected=math.nan)
    assert db.kv.get("k") == 0


def test_cas_takes_one_expectation(db):
    for wrong in (
        {},
        {"expected": 1, "expected_version": 1},
        {"expected_version": None},
        {"expected_version": -1},
    ):
        with pytest.raises(InvalidInput):
            db.kv.cas("k", 1, **wrong)


def test_cas_inside_sees_own_writes(db):
    tx = db.begin()
    tx.kv.put("k", 1)
    tx.kv.cas("k", 2, expected=1)
    with pytest.raises(Conflict):
        tx.kv.cas("k", 3, expected=1)
    tx.commit()
    assert db.kv.get("k") == 2


def test_many(db):
    version = db.kv.put_many({"a": 1, "b": 2})
    assert db.kv.put_many([("c", 3), ("a", 4), ("a", 5)]) == version + 1
    assert db.kv.get_many(["a", "x", "b", "a"]) == [5, None, 2, 5]
    assert db.kv.get_many(iter(["x"]), default=0) == [0]
    assert db.kv.get_many([]) == []
    assert db.kv.delete_many(["a", "x", "a", "b"]) == 2
    assert list(db.kv) == ["c"]
    assert db.kv.put_many({}) == db.branch.head == version + 2
    assert db.kv.delete_many([]) == 0


def test_many_are_all_or_nothing(db):
    db.kv.put("a", 0)
    before = db.everything
    for wrong in ([("a", 1), ("b", {1})], [("a", 1), ("", 2)], [("a", 1), "b"], [("a", 1), ("b",)], 7):
        with pytest.raises(InvalidInput):
            db.kv.put_many(wrong)
    with pytest.raises(InvalidInput):
        db.kv.delete_many(["a", ""])
    assert db.everything == before


KEYS = [
    "",
    "a",
    "a/1",
    "a/2",
    "a/3",
    "ab",
    "b",
    "\x7f",
    "é",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U0001f600",
    "\U0010ffff",
]
BOUNDS = [None, "a", "a/", "a/2", "b", "é", "\ud7ff", "\U0010ffff"]


@pytest.fixture
def full(db):
    db.kv.put_many((key, n) for n, key in enumerate(KEYS) if key)
    return db


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_agree_with_sorting_bytes(full, reverse):
    for prefix, start, end, limit in itertools.product(BOUNDS, BOUNDS, BOUNDS, [None, 0, 1, 3, 5000]):
        expected = sorted(
            (
                key
                for key in KEYS[1:]
                if (prefix is None or key.startswith(prefix))
                and (start is None or key.encode() >= start.encode())
                and (end is None or key.encode() < end.encode())
            ),
            key=str.encode,
            reverse=reverse,
        )[:limit]
        options = {"start": start, "end": end, "reverse": reverse, "limit": limit}
        assert list(full.kv.keys(prefix, **options)) == expected
        assert [key for key, _ in full.kv.scan(prefix, **options)] == expected
        if limit is None and not reverse:
            assert full.kv.count(prefix, start=start, end=end) == len(expected)


def test_scans_merge_own_writes(full):
    tx = full.begin()
    tx.kv.delete("a/2")
    tx.kv.put("a/15", "new")
    tx.kv.put("a/3", "changed")
    tx.kv.incr("a/1", 10)
    assert list(tx.kv.scan("a/")) == [("a/1", 12), ("a/15", "new"), ("a/3", "changed")]
    assert list(tx.kv.scan("a/", reverse=True, limit=2)) == [("a/3", "changed"), ("a/15", "new")]
    assert tx.kv.count("a/") == 3
    tx.rollback()
    assert full.kv.count("a/") == 3


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [None, 999, 1000, 1001, 2000, 2500, 9999])
def test_large_scans_page_at_one_version(db, limit, reverse):
    keys = [f"{n:05}" for n in range(2500)]
    db.kv.put_many((key, 0) for key in keys)
    expected = (keys[::-1] if reverse else keys)[:limit]
    scan, names = (read(limit=limit, reverse=reverse) for read in (db.kv.scan, db.kv.keys))
    for _ in range(3):
        next(scan), next(names)
    db.kv.put_many((key, 1) for key in keys)
    db.kv.put_many([("00000x", 1), ("02499x", 1), ("zz", 1)])
    db.kv.delete_many(keys[1000:1500])
    assert list(scan) == [(key, 0) for key in expected[3:]]
    assert list(names) == expected[3:]


def test_large_scans_inside(db):
    db.kv.put_many((f"{n:05}", 0) for n in range(2500))
    tx = db.begin()
    tx.kv.delete("00999")
    assert len(list(tx.kv.scan())) == 2499
    scan = tx.kv.scan()
    [next(scan) for _ in range(1000)]
    tx.kv.delete("01000")  # the very row after which the next page begins
    assert next(scan)[0] == "01001"


@pytest.mark.parametrize("limit", [-1, True, 1.0, "1", 2**63])
@pytest.mark.parametrize("reverse", [False, True])
def test_wrong_limits(db, limit, reverse):
    for read in (db.kv.scan, db.kv.keys):
        with pytest.raises(InvalidInput):
            read(limit=limit, reverse=reverse)


@pytest.mark.parametrize("wrong", [{"prefix": b"a"}, {"start": 1}, {"end": ["a"]}, {"prefix": "\ud800"}])
def test_wrong_bounds(db, wrong):
    for read in (db.kv.scan, db.kv.keys, db.kv.count):
        with pytest.raises(InvalidInput):
            read(**wrong)


def test_history(db):
    versions = [db.kv.put("k", n) for n in range(3)]
    db.kv.put("other", 1)
    db.kv.delete("k")
    gone = db.branch.head
    again = db.kv.put("k", 9)
    found = [(row.value, row.version, row.deleted) for row in db.kv.history("k")]
    assert found == [
        (9, again, False),
        (None, gone, True),
        (2, versions[2], False),
        (1, versions[1], False),
        (0, versions[0], False),
    ]
    pages, before = [], None
    while page := db.kv.history("k", before=before, limit=2):
        pages += page
        before = page[-1].version
    assert pages == db.kv.history("k")
    assert db.kv.history("never") == []
    for wrong in ({"limit": -1}, {"before": "x"}, {"limit": 1.5}):
        with pytest.raises(InvalidInput):
            db.kv.history("k", **wrong)


def test_deleting_what_is_not_there_leaves_no_trace(db):
    db.kv.put("k", 1)
    tx = db.begin()
    tx.kv.delete("never")
    tx.kv.put("brief", 1)
    tx.kv.delete("brief")
    tx.commit()
    assert db.kv.history("never") == []
    assert db.kv.history("brief") == []


def test_mapping(db):
    db.kv["b"] = 2
    db.kv["a"] = 1
    assert db.kv["a"] == 1
    assert "a" in db.kv and "x" not in db.kv and 7 not in db.kv
    assert len(db.kv) == 2
    assert list(db.kv) == ["a", "b"]
    assert dict(db.kv) == {"a": 1, "b": 2}
    del db.kv["a"]
    for missing in (lambda: db.kv["a"], lambda: db.kv.__delitem__("a")):
        with pytest.raises(KeyError) as caught:
            missing()
        assert not isinstance(caught.value, NotFound)


def reads(face):
    return [
        lambda: face.kv.get("k"),
        lambda: face.kv["k"],
        lambda: face.kv.entry("k"),
        lambda: face.kv.exists("k"),
        lambda: face.kv.get_many(["k"]),
        lambda: face.kv.scan(limit=1),
        lambda: face.kv.scan(),
        lambda: face.kv.keys(),
        lambda: face.kv.count(),
        lambda: face.kv.history("k"),
        lambda: face.state.get("k"),
        lambda: face.state.entry("k"),
        lambda: face.state.exists("k"),
        lambda: face.state.list(),
        lambda: face.json.get("k"),
        lambda: face.json.exists("k", "$.a"),
        lambda: face.json.list(),
        lambda: face.json.find({}, scan=True),
        lambda: face.events.get(0),
        lambda: face.events.len(),
        lambda: face.events.head(),
        lambda: face.events.range(),
        lambda: face.events.streams(),
        lambda: face.events.verify(),
    ]


def test_reading_a_space_that_was_never_written_to(store, db):
    db.kv.put("k", 1)
    before = db.branch.head
    there = stores.Place(store, space="there")
    for read in [*reads(there), *reads(db.begin().space("there")), *reads(db.at(before, "there"))]:
        with pytest.raises(NotFound) as caught:
            read()
        assert "there" in str(caught.value)
    assert there.kv.delete("k") is False
    there.kv.put("k", 1)
    for read in reads(there):
        read()
    with pytest.raises(NotFound):
        db.at(before, "there").kv.get("k")


def test_a_space_written_inside_exists_inside(db):
    tx = db.begin()
    here = tx.space("new")
    with pytest.raises(NotFound):
        here.kv.get("k")
    here.kv.put("k", 1)
    assert here.kv.get("x") is None
    assert here.kv.get("k") == 1


def test_views_do_not_move_and_refuse_writes(db):
    version = db.kv.put("k", 1)
    db.kv.put("k", 2)
    db.kv.delete("k")
    view = db.at(version)
    assert view.kv.get("k") == 1
    assert list(view.kv.scan()) == [("k", 1)]
    assert [row.version for row in view.kv.history("k")] == [version]
    for write in (
        lambda: view.kv.put("k", 1),
        lambda: view.kv.put_many({"k": 1}),
        lambda: view.kv.delete("k"),
        lambda: view.kv.delete_many(["k"]),
        lambda: view.kv.incr("k"),
        lambda: view.kv.cas("k", 1, expected=1),
        lambda: view.events.append("t", {}),
        lambda: view.events.append_many([("t", {})]),
        lambda: view.state.init("s", 1),
        lambda: view.state.set("s", 1),
        lambda: view.state.delete("s"),
        lambda: view.json.create("d", 1),
        lambda: view.json.set("d", "$.a", 1),
        lambda: view.json.destroy("d"),
    ):
        with pytest.raises(ReadOnly):
            write()
    assert db.branch.head == version + 2


def test_writes_inside_return_nothing(db):
    db.kv.put("k", 1)
    tx = db.begin()
    assert tx.kv.put("a", 1) is tx.kv.put_many({"b": 1}) is tx.kv.incr("n") is None
    assert tx.kv.delete("k") is tx.kv.delete_many(["a"]) is tx.kv.cas("b", 2, expected=1) is None
    assert tx.commit() == db.branch.head
    assert dict(db.kv) == {"b": 2, "n": 1}
