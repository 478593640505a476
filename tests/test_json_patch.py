"""JSON Patch (RFC 6902), over the oracle and the kernel: its own examples, and what it reads."""

from __future__ import annotations

import pytest

from strata.core.errors import Conflict, InvalidInput

GOOD = [
    # RFC 6902, appendix A
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "q"}], {"foo": ["bar", "q", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    ({"foo": [1, 2, 3, 4]}, [{"op": "move", "from": "/foo/1", "path": "/foo/3"}], {"foo": [1, 3, 4, 2]}),
    (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    ({"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"g": {}}}],
    {"foo": "bar", "child": {"g": {}}}),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": 1, "xyz": 123}], {"foo": "bar", "baz": 1}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["x"]}], {"foo": ["bar", ["x"]]}),
    # what is easily got wrong
    ({}, [{"op": "add", "path": "/0", "value": 1}], {"0": 1}),
    ({"0": {"1": 2}}, [{"op": "replace", "path": "/0/1", "value": 3}], {"0": {"1": 3}}),
    ([], [{"op": "add", "path": "/0", "value": 1}], [1]),
    ([1], [{"op": "add", "path": "/1", "value": 2}], [1, 2]),
    ({"-": 1}, [{"op": "add", "path": "/-", "value": 2}], {"-": 2}),
    ({"-": 1}, [{"op": "remove", "path": "/-"}], {}),
    ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
    ({"a": 1}, [{"op": "add", "path": "", "value": [1]}], [1]),
    ({"a": 1}, [{"op": "replace", "path": "", "value": None}], None),
    ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/a/c"}], {"a": {"b": 1, "c": {"b": 1}}}),
    ({"a": 1}, [{"op": "move", "from": "/a", "path": "/a"}], {"a": 1}),
    ({"a": None}, [{"op": "test", "path": "/a", "value": None}, {"op": "remove", "path": "/a"}], {}),
    ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
    ({"a": 1}, [], {"a": 1}),
    # later operations see what earlier ones did
    ({}, [{"op": "add", "path": "/a", "value": {}}, {"op": "add", "path": "/a/b", "value": 1}],
    {"a": {"b": 1}}),
    (
        {"l": [1, 2, 3]},
        [{"op": "remove", "path": "/l/0"}, {"op": "remove", "path": "/l/0"},
        {"op": "test", "path": "/l/0", "value": 3}],
        {"l": [3]},
    ),
    (
        {"a": {"x": 1}, "b": 2},
        [
            {"op": "move", "from": "/a", "path": "/c"},
            {"op": "test", "path": "/c/x", "value": 1},
            {"op": "replace", "path": "/c/x", "value": 9},
            {"op": "copy", "from": "/c", "path": "/d"},
            {"op": "add", "path": "/d/y", "value": 0},
        ],
        {"b": 2, "c": {"x": 9}, "d": {"x": 9, "y": 0}},
    ),
    (
        {"a": 1},
        [{"op": "add", "path": "", "value": {"l": []}}, {"op": "add", "path": "/l/-", "value": 1}],
        {"l": [1]},
    ),
]  # fmt: skip

BAD = [
    ({"a": 1}, [{"op": "add", "path": "/b/c", "value": 1}]),
    ({"a": 1}, [{"op": "add", "path": "/a/c", "value": 1}]),
    ({"a": 1}, [{"op": "remove", "path": "/b"}]),
    ({"a": 1}, [{"op": "replace", "path": "/b", "value": 1}]),
    ({"a": 1}, [{"op": "test", "path": "/b", "value": None}]),
    ({"a": 1}, [{"op": "copy", "from": "/b", "path": "/c"}]),
    ({"a": 1}, [{"op": "move", "from": "/b", "path": "/c"}]),
    ({"a": {}}, [{"op": "move", "from": "/a", "path": "/a/b"}]),
    ({"a": 1}, [{"op": "remove", "path": ""}]),
    ([1], [{"op": "add", "path": "/2", "value": 1}]),
    ([1], [{"op": "add", "path": "/01", "value": 1}]),
    ([1], [{"op": "add", "path": "/x", "value": 1}]),
    ([1], [{"op": "remove", "path": "/-"}]),
    ([1], [{"op": "remove", "path": "/-1"}]),
    ([1], [{"op": "replace", "path": "/1", "value": 1}]),
    ({}, [{"op": "merge", "path": "/a", "value": 1}]),
    ({}, [{"op": "add", "path": "/a"}]),
    ({}, [{"op": "add", "value": 1}]),
    ({}, [{"path": "/a", "value": 1}]),
    ({}, [{"op": "move", "path": "/a"}]),
    ({}, [{"op": "add", "path": "a", "value": 1}]),
    ({}, [{"op": "add", "path": "$.a", "value": 1}]),
    ({}, [{"op": "add", "path": "/~2", "value": 1}]),
    ({}, [{"op": "add", "path": 7, "value": 1}]),
    ({}, [{"op": ["add"], "path": "/a", "value": 1}]),
    ({}, ["add"]),
    ({}, [None]),
]


@pytest.mark.parametrize(("before", "operations", "after"), GOOD)
def test_operations(db, before, operations, after):
    db.json.create("d", before)
    db.json.patch("d", iter(operations))
    assert db.json.get("d", default="absent") == after


@pytest.mark.parametrize(("before", "operations", "after"), GOOD)
def test_operations_inside(db, before, operations, after):
    db.json.create("d", before)
    tx = db.begin()
    assert tx.json.patch("d", operations) is None
    assert tx.json.get("d", default="absent") == after
    tx.commit()
    assert db.json.get("d", default="absent") == after


@pytest.mark.parametrize(("before", "operations"), BAD)
def test_all_or_nothing(db, before, operations):
    db.json.create("d", before)
    everything = db.everything
    for patch in (operations, [{"op": "replace", "path": "", "value": before}, *operations]):
        with pytest.raises(InvalidInput) as caught:
            db.json.patch("d", patch)
        assert f"operation {len(patch) - 1} of the patch of 'd'" in str(caught.value)
    assert db.everything == everything
    tx = db.begin()
    with pytest.raises(InvalidInput):
        tx.json.patch("d", operations)
    assert tx.json.get("d") == before
    tx.kv.put("the transaction", "goes on")
    tx.commit()
    assert db.json.get("d") == before


def test_a_test_that_fails_is_a_conflict(db):
    db.json.create("d", {"a": 1, "b": [True]})
    before = db.everything
    for path, wrong in (("/a", 2), ("/a", True), ("/b/0", 1), ("/b", []), ("", {})):
        with pytest.raises(Conflict) as caught:
            db.json.patch(
                "d", [{"op": "add", "path": "/c", "value": 1}, {"op": "test", "path": path, "value": wrong}]
            )
        assert caught.value.paths[0].ref.key == "d"
    assert db.everything == before


def test_a_document_that_is_not_there(db):
    with pytest.raises(InvalidInput):
        db.json.patch("d", [{"op": "add", "path": "/a", "value": 1}])
    with pytest.raises(InvalidInput):
        db.json.patch("d", [{"op": "add", "path": "", "value": 1}])
    assert not db.json.exists("d")


def test_only_what_is_tested_or_found_is_read(db):
    db.json.create("d", {"a": 1, "b": {"x": 1, "y": 2}, "l": [{"n": 1}, {"n": 2}]})
    tx = db.begin()
    tx.json.patch(
        "d",
        [
            {"op": "test", "path": "/a", "value": 1},
            {"op": "replace", "path": "/b/x", "value": 9},
            {"op": "replace", "path": "/l/0/n", "value": 9},
        ],
    )
    db.json.set("d", "$.b.y", 8)
    db.json.set("d", "$.l[1].n", 8)
    db.json.set("d", "$.c", 8)
    tx.commit()
    assert db.json.get("d") == {"a": 1, "b": {"x": 9, "y": 8}, "l": [{"n": 9}, {"n": 8}], "c": 8}


def test_what_was_tested_must_still_hold(db):
    db.json.create("d", {"a": 1, "b": 2})
    tx = db.begin()
    tx.json.patch(
        "d", [{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/b", "value": 3}]
    )
    db.json.set("d", "$.a", 5)
    with pytest.raises(Conflict):
        tx.commit()
