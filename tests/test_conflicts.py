"""What conflicts and what does not, over the oracle and the kernel."""

from __future__ import annotations

import pytest

from strata.core.errors import Conflict
from strata.core.paths import overlap, parse

DOC = {"a": {"b": {"c": 1}, "x": 1}, "l": [{"n": 1}, {"n": 2}], "s": 1}


@pytest.fixture
def docs(db):
    db.json.create("d", DOC)
    db.json.create("e", DOC)
    db.kv.put_many({"k1": 1, "k2": 2, "n": 0})
    return db


def refused(transaction):
    with pytest.raises(Conflict) as caught:
        transaction.commit()
    return caught.value


PATHS = [
    "$",
    "$.a",
    "$.a.b",
    "$.a.b.c",
    "$.a.x",
    "$.a.new",
    "$.l",
    "$.l[0]",
    "$.l[0].n",
    "$.l[1]",
    "$.s",
    "$.new",
]


@pytest.mark.parametrize("isolation", ["serializable", "snapshot"])
@pytest.mark.parametrize("theirs", PATHS)
@pytest.mark.parametrize("ours", PATHS)
def test_patches_conflict_where_one_path_holds_the_other(docs, ours, theirs, isolation):
    tx = docs.begin(isolation)
    tx.json.set("d", ours, "ours")
    docs.json.set("d", theirs, "theirs")
    docs.json.set("e", ours, "another document")
    if not overlap(parse(ours), parse(theirs)):
        tx.commit()
        assert docs.json.get("d", ours) == "ours" and docs.json.get("d", theirs) == "theirs"
        return
    error = refused(tx)
    assert [(found.ref.key, found.ours, found.theirs) for found in error.paths] == [("d", ours, theirs)]
    assert docs.json.get("d", theirs) == "theirs"


@pytest.mark.parametrize("theirs", PATHS)
@pytest.mark.parametrize("ours", PATHS)
def test_reads_conflict_with_patches_in_the_same_way(docs, ours, theirs):
    tx = docs.begin()
    tx.json.get("d", ours)
    tx.kv.put("other", 1)
    docs.json.set("d", theirs, "theirs")
    if not overlap(parse(ours), parse(theirs)):
        tx.commit()
        return
    error = refused(tx)
    assert [key.ref.key for key in (*error.keys, *error.paths)] == (["d"])
    if error.paths:
        assert (error.paths[0].ours, error.paths[0].theirs) == (ours, theirs)


CHANGES = {
    "append": lambda json: json.append("d", "$.l", 0),
    "insert": lambda json: json.insert("d", "$.l[1]", 0),
    "delete": lambda json: json.delete("d", "$.l[0]"),
    "set": lambda json: json.set("d", "$.l", [1, 2]),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", ["$.l[0]", "$.l[1].n", "$.l[-1]", "$.l", "$.l[7]", "$.l[-]"])
def test_structural_changes_of_a_list_conflict_with_every_path_through_it(docs, change, path):
    reads, writes = docs.begin(), docs.begin()
    reads.json.get("d", path)
    reads.kv.put("other", 1)
    if path not in ("$.l[7]", "$.l[-]"):
        writes.json.set("d", path, 0)
    beside = docs.begin()
    beside.json.set("d", "$.a.x", 5)
    CHANGES[change](docs.json)
    assert refused(reads).paths[0].theirs == "$.l"
    if path not in ("$.l[7]", "$.l[-]"):
        assert refused(writes).paths[0].theirs == "$.l"
    beside.commit()


def test_an_element_that_is_set_moves_no_other(docs):
    tx = docs.begin()
    tx.json.set("d", "$.l[-1].n", 20)
    docs.json.set("d", "$.l[0].n", 10)
    tx.commit()
    assert docs.json.get("d", "$.l") == [{"n": 10}, {"n": 20}]


def test_merges_meet_leaf_by_leaf(docs):
    one, two, three = docs.begin(), docs.begin(), docs.begin()
    one.json.merge("d", {"a": {"b": {"c": None}}, "new": {"one": 1}})
    two.json.merge("d", {"a": {"x": 2}, "new": {"two": 2}})
    three.json.merge("d", {"new": 3})
    one.commit()
    two.commit()
    assert {found.theirs for found in refused(three).paths} <= {"$.new.one", "$.new.two"}
    assert docs.json.get("d", "$.a") == {"b": {}, "x": 2}
    assert docs.json.get("d", "$.new") == {"one": 1, "two": 2}


@pytest.mark.parametrize(
    "whole",
    [lambda json: json.destroy("d"), lambda json: json.set("d", "$", {}), lambda json: json.merge("d", 5)],
)
def test_the_whole_document_conflicts_with_all_in_it(docs, whole):
    reads, writes = docs.begin(), docs.begin()
    reads.json.get("d", "$.a.b")
    reads.kv.put("other", 1)
    writes.json.set("d", "$.a.b", 1)
    whole(docs.json)
    for tx, path in ((reads, "$.a.b"), (writes, "$.a.b")):
        error = refused(tx)
        assert [(found.ref.key, found.ours, found.theirs) for found in error.paths] == [("d", path, "$")]


def test_blind_writes_do_not_conflict(docs):
    tx = docs.begin()
    tx.kv.put("k1", "ours")
    tx.kv.delete("k2")
    tx.kv.incr("n", 10)
    tx.events.append("t", {})
    docs.kv.put("k1", "theirs")
    docs.kv.put("k2", "theirs")
    docs.kv.incr("n")
    docs.events.append("t", {})
    tx.commit()
    assert dict(docs.kv) == {"k1": "ours", "n": 11}
    assert len(docs.events) == 2


def test_own_writes_are_no_reads(docs):
    tx = docs.begin()
    tx.kv.put("k1", "ours")
    assert tx.kv.get("k1") == "ours"
    docs.kv.put("k1", "theirs")
    tx.commit()
    assert docs.kv.get("k1") == "ours"


@pytest.mark.parametrize(
    "change",
    [
        lambda kv: kv.put("k1", 1), lambda kv: kv.delete("k1"), lambda kv: kv.incr("k1"),
        lambda kv: kv.put_many({"x": 1, "k1": 1}), lambda kv: kv.delete_many(["k1"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "read",
    [
        lambda kv: kv.get("k1"), lambda kv: kv.exists("k1"), lambda kv: kv.entry("k1"), lambda kv: kv["k1"],
        lambda kv: kv.get_many(["x", "k1"]), lambda kv: kv.cas("k1", 5, expected=1),
    ],
)  # fmt: skip
def test_what_was_read_must_not_change(docs, read, change):
    tx = docs.begin()
    read(tx.kv)
    tx.kv.put("other", 1)
    change(docs.kv)
    assert [key.ref.key for key in refused(tx).keys] in (["k1"], ["k1", "x"])
    assert not docs.kv.exists("other")


def test_a_key_that_was_missing_is_read_too(docs):
    tx = docs.begin()
    assert tx.kv.get("new") is None
    tx.kv.put("other", 1)
    docs.kv.put("new", 1)
    assert str(refused(tx).keys[0].ref) == "strata://main/default/kv/new"


def test_write_skew(docs):
    one, two = docs.begin(), docs.begin()
    one.kv.put("k1", one.kv.get("k2"))
    two.kv.put("k2", two.kv.get("k1"))
    one.commit()
    assert [key.ref.key for key in refused(two).keys] == ["k1"]


@pytest.mark.parametrize(
    ("read", "inside", "outside"),
    [
        (lambda kv: list(kv.scan("k")), ["k", "k15", "k9"], ["j", "l"]),
        (lambda kv: list(kv.keys(start="k1", end="k2")), ["k1", "k15"], ["k0", "k2", "k3"]),
        (lambda kv: kv.count("x"), ["x", "xy"], ["w", "y"]),
        (lambda kv: list(kv.scan(limit=1)), ["a", "k1"], ["k15", "z"]),
        (lambda kv: list(kv.scan(limit=1, reverse=True)), ["n", "z"], ["a", "k1"]),
        (lambda kv: list(kv.scan("k", limit=5)), ["k15", "kz"], ["n"]),
        (lambda kv: len(kv), ["", "z"], []),
    ],
)  # fmt: skip
def test_phantoms(docs, read, inside, outside):
    for key in filter(None, inside):
        tx = docs.begin()
        read(tx.kv)
        tx.state.set("other", key)
        docs.kv.put(key, 1)
        error = refused(tx)
        assert [(found.space, found.primitive) for found in error.ranges] == [("default", "kv")]
        docs.kv.delete(key) if key not in ("k1", "n") else None
    for key in outside:
        tx = docs.begin()
        read(tx.kv)
        tx.state.set("other", key)
        docs.kv.put(key, 1)
        tx.commit()


def test_readers_of_a_stream_conflict_with_appends_and_appenders_do_not(docs):
    docs.events.append("t", {})
    reader, appender, old = docs.begin(), docs.begin(), docs.begin()
    assert len(reader.events) == 1
    reader.kv.put("count", 1)
    appender.events.append("t", {})
    old.events.get(0)
    old.kv.put("other", 1)
    docs.events.append("t", {})
    assert refused(reader).ranges[0].primitive == "events"
    appender.commit()
    old.commit()


def test_transactions_that_only_read_never_fail(docs):
    tx = docs.begin()
    tx.kv.get("k1"), list(tx.kv.scan()), tx.json.get("d", "$.a")
    snapshot = docs.branch.head
    docs.kv.put("k1", 2)
    docs.json.set("d", "$.a", 2)
    assert tx.kv.get("k1") == 1
    assert tx.commit() == snapshot


def test_snapshot_isolation(docs):
    """First committer wins on what is written; what is only read may change."""
    skew, phantom = docs.begin("snapshot"), docs.begin("snapshot")
    skew.kv.put("k1", skew.kv.get("k2"))
    phantom.kv.put("count", phantom.kv.count())
    docs.kv.put("k2", "theirs")
    skew.commit()
    phantom.commit()

    for ours in (lambda kv: kv.put("k1", "ours"), lambda kv: kv.delete("k1")):
        for theirs in (lambda kv: kv.put("k1", "theirs"), lambda kv: kv.delete("k1")):
            docs.kv.put("k1", 0)
            tx = docs.begin("snapshot")
            ours(tx.kv)
            theirs(docs.kv)
            assert [key.ref.key for key in refused(tx).keys] == ["k1"]

    tx = docs.begin("snapshot")
    tx.kv.incr("n", 10)
    tx.events.append("t", {})
    docs.kv.put("n", 5)
    docs.events.append("t", {})
    tx.commit()
    assert docs.kv.get("n") == 15


def test_snapshot_isolation_loses_no_increment_to_a_put(docs):
    tx = docs.begin("snapshot")
    tx.kv.put("n", tx.kv.get("n") + 1)
    docs.kv.incr("n")
    assert [key.ref.key for key in refused(tx).keys] == ["n"]


def test_expectations(docs):
    raw = docs.kv._txn
    version = docs.kv.entry("k1").version

    def expecting(key, **expected):
        transaction, inside = raw.begin()
        inside.expect(key, **expected)
        inside.put("done", key)
        return transaction

    for expected in ({"version": version}, {"value": 1}):
        expecting("k1", **expected).commit()
    expecting("new", absent=True).commit()
    for key, expected in (
        ("k1", {"version": version - 1}),
        ("k1", {"version": version + 1}),
        ("k1", {"value": 1.0}),
        ("k1", {"value": None}),
        ("k1", {"absent": True}),
        ("new", {"value": None}),
        ("new", {"version": version}),
    ):
        assert [found.ref.key for found in refused(expecting(key, **expected)).keys] == [key]
    late = expecting("k1", value=1)
    docs.kv.put("k1", 2)
    docs.kv.put("k1", 1)
    late.commit()  # it is the newest value that counts


def test_a_conflict_writes_nothing_and_a_retry_succeeds(docs):
    tx = docs.begin()
    tx.kv.put("k1", tx.kv.get("k1") + 1)
    tx.events.append("t", {})
    tx.json.set("d", "$.s", 2)
    docs.kv.put("k1", 10)
    before = docs.everything
    refused(tx)
    assert docs.everything == before
    tx = docs.begin()
    tx.kv.put("k1", tx.kv.get("k1") + 1)
    tx.commit()
    assert docs.kv.get("k1") == 11
