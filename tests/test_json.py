"""JSON documents, over the oracle and the kernel."""

from __future__ import annotations

import math

import pytest

from strata.core.errors import AlreadyExists, Conflict, InvalidInput, LimitExceeded, NotFound, NotIndexed

DOC = {"name": "Ada", "tags": ["a", "b"], "deep": {"odd key": {"n": 1}}, "nil": None}


@pytest.fixture
def docs(db):
    db.json.create("d", DOC)
    return db


def test_create(db):
    version = db.json.create("d", DOC)
    assert version == db.branch.head
    assert db.json.get("d") == DOC
    with pytest.raises(AlreadyExists):
        db.json.create("d", {})
    for root in ([1], "text", None, 5):
        db.json.create(f"root {root}", root)
        assert db.json.get(f"root {root}", default="absent") == root


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", DOC), ("", DOC), ("$.name", "Ada"), ("/name", "Ada"), ("$.tags[0]", "a"), ("$.tags[-1]", "b"),
        ("/tags/1", "b"), ("$.deep['odd key'].n", 1), ("/deep/odd key/n", 1), ("$.nil", None),
        ("$.missing", "absent"), ("$.tags[2]", "absent"), ("$.tags[-3]", "absent"), ("$.tags[-]", "absent"),
        ("$.name.x", "absent"), ("$.tags.x", "absent"), ("$[0]", "absent"), ("$.nil.x", "absent"),
    ],
)  # fmt: skip
def test_get(docs, path, value):
    assert docs.json.get("d", path, "absent") == value
    assert docs.json.exists("d", path) is (value != "absent")
    assert docs.json.get("other", path) is None
    assert docs.json.exists("other", path) is False


def test_set(docs):
    docs.json.set("d", "$.name", "Eve")
    docs.json.set("d", "$.new.map.on.the.way", 1)
    docs.json.set("d", "$.tags[0]", {"x": 1})
    docs.json.set("d", "$.tags[-]", "c")
    version = docs.json.set("d", "$['deep']['odd key'].n", math.pi)
    assert version == docs.branch.head
    assert docs.json.get("d") == {
        "name": "Eve",
        "tags": [{"x": 1}, "b", "c"],
        "deep": {"odd key": {"n": math.pi}},
        "nil": None,
        "new": {"map": {"on": {"the": {"way": 1}}}},
    }
    docs.json.set("fresh", "$.a.b", 1)
    assert docs.json.get("fresh") == {"a": {"b": 1}}
    docs.json.set("fresh", "$", [1])
    assert docs.json.get("fresh") == [1]


def test_delete_and_destroy(docs):
    docs.json.delete("d", "$.deep")
    docs.json.delete("d", "$.tags[0]")
    docs.json.delete("d", "$.missing.too")
    assert docs.json.get("d") == {"name": "Ada", "tags": ["b"], "nil": None}
    with pytest.raises(InvalidInput):
        docs.json.delete("d", "$")
    docs.json.delete("other", "$.a")
    assert not docs.json.exists("other")
    assert docs.json.destroy("d") is True
    assert docs.json.destroy("d") is False
    assert not docs.json.exists("d")


def test_merge(docs):
    docs.json.merge("d", {"name": None, "deep": {"odd key": {"m": 2}}, "x": {"y": None, "z": 1}})
    assert docs.json.get("d") == {
        "tags": ["a", "b"],
        "deep": {"odd key": {"n": 1, "m": 2}},
        "nil": None,
        "x": {"z": 1},
    }
    docs.json.merge("d", {"k": 1}, "$.x")
    assert docs.json.get("d", "$.x") == {"z": 1, "k": 1}
    docs.json.merge("new", {"a": {"b": None, "c": 1}})
    assert docs.json.get("new") == {"a": {"c": 1}}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}), ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}), ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}), ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}), (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]), ({"a": "foo"}, None, None), ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}), ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)  # fmt: skip
def test_merge_as_the_rfc_has_it(db, target, patch, result):
    db.json.create("d", target)
    db.json.merge("d", patch)
    assert db.json.get("d", default="absent") == result


def test_lists(docs):
    docs.json.append("d", "$.tags", "c")
    docs.json.insert("d", "$.tags[0]", "first")
    docs.json.insert("d", "$.tags[4]", "last")
    docs.json.insert("d", "$.tags[-]", "very last")
    assert docs.json.get("d", "$.tags") == ["first", "a", "b", "c", "last", "very last"]


@pytest.mark.parametrize(
    "change",
    [
        lambda json: json.set("d", "$.tags[2]", 1), lambda json: json.set("d", "$.name.x", 1),
        lambda json: json.set("d", "$.tags.x", 1), lambda json: json.set("d", "$[0]", 1),
        lambda json: json.set("d", "$.nil.x", 1), lambda json: json.set("d", "$.fresh[0]", 1),
        lambda json: json.delete("d", "$.name.x"), lambda json: json.append("d", "$.name", 1),
        lambda json: json.append("d", "$.missing", 1), lambda json: json.append("other", "$", 1),
        lambda json: json.insert("d", "$.tags[3]", 1), lambda json: json.insert("d", "$.name", 1),
        lambda json: json.insert("d", "$", 1), lambda json: json.merge("d", {}, "$.tags[9]"),
        lambda json: json.cas("d", 1, "$.name.x", 1),
    ],
)  # fmt: skip
def test_what_the_document_has_no_place_for(docs, change):
    before = docs.everything
    with pytest.raises(InvalidInput) as caught:
        change(docs.json)
    assert "document '" in str(caught.value) and "$" in str(caught.value)
    assert docs.everything == before
    tx = docs.begin()
    tx.json.set("d", "$.kept", 1)
    if change.__code__.co_names[0] != "cas":
        with pytest.raises(InvalidInput):
            change(tx.json)
    tx.commit()
    assert docs.json.get("d") == {**DOC, "kept": 1}


@pytest.mark.parametrize("value", [math.nan, -math.inf, {1}, {1: 2}, 2**63, "\ud800", object()])
def test_what_no_document_holds(docs, value):
    before = docs.everything
    for change in (
        lambda: docs.json.create("new", value),
        lambda: docs.json.set("d", "$.a", [value]),
        lambda: docs.json.merge("d", {"a": value}),
        lambda: docs.json.append("d", "$.tags", value),
        lambda: docs.json.patch("d", [{"op": "add", "path": "/a", "value": value}]),
    ):
        with pytest.raises(InvalidInput):
            change()
    assert docs.everything == before


def test_a_document_that_would_become_too_deep_or_too_large(db):
    db.json.set("d", "$" + ".a" * 100, 1)
    deep = 1
    for _ in range(40):
        deep = [deep]
    before = db.everything
    with pytest.raises(LimitExceeded):
        db.json.set("d", "$" + ".a" * 100, deep)
    assert db.everything == before
    db.json.set("big", "$.a", b"x" * (20 << 20))
    with pytest.raises(LimitExceeded):
        db.json.set("big", "$.b", b"x" * (20 << 20))
    assert not db.json.exists("big", "$.b")


def test_cas(docs):
    version = docs.json.entry("d").version
    with pytest.raises(Conflict):
        docs.json.cas("d", version + 1, "$.name", "Eve")
    newer = docs.json.cas("d", version, "$.name", "Eve")
    with pytest.raises(Conflict):
        docs.json.cas("d", version, "$.name", "Bob")
    with pytest.raises(Conflict):
        docs.json.cas("d", 0, "$.name", "Bob")
    docs.json.cas("fresh", 0, "$.a", 1)
    assert docs.json.entry("d").version == newer
    assert docs.json.get("d", "$.name") == "Eve" and docs.json.get("fresh") == {"a": 1}
    tx = docs.begin()
    tx.json.set("d", "$.x", 1)
    assert tx.json.cas("d", newer, "$.name", "Bob") is None
    docs.json.set("d", "$.y", 1)
    with pytest.raises(Conflict):
        tx.commit()


def test_list_count_history(docs):
    docs.json.set("e", "$.a", 1)
    assert list(docs.json.list()) == ["d", "e"]
    assert list(docs.json.list("e", limit=1)) == ["e"]
    assert docs.json.count() == 2 and docs.json.count(end="e") == 1
    docs.json.set("e", "$.b", 2)
    docs.json.destroy("e")
    assert [(row.value, row.deleted) for row in docs.json.history("e")] == [
        (None, True),
        ({"a": 1, "b": 2}, False),
        ({"a": 1}, False),
    ]


def test_find(db):
    for n in range(6):
        db.json.create(f"d{n}", {"n": n, "even": n % 2 == 0})
    with pytest.raises(NotIndexed) as caught:
        db.json.find({"$.n": 1})
    assert isinstance(caught.value, NotFound) and "scan=True" in caught.value.hint
    assert [name for name, _ in db.json.find({"$.even": True}, scan=True)] == ["d0", "d2", "d4"]
    assert list(db.json.find({"$.n": {"gte": 3}, "$.even": True}, scan=True)) == [
        ("d4", {"n": 4, "even": True})
    ]
    assert len(list(db.json.find({"$.even": True}, scan=True, limit=2))) == 2
    assert [name for name, _ in db.json.find({}, scan=True, prefix="d5")] == ["d5"]
    with pytest.raises(InvalidInput):
        db.json.find({"$.n": {"above": 3}}, scan=True)


@pytest.mark.parametrize("path", [None, 1, "a", "$.", ["a"], "/~"])
def test_bad_paths(docs, path):
    before = docs.everything
    for use in (
        lambda: docs.json.get("d", path),
        lambda: docs.json.exists("d", path),
        lambda: docs.json.set("d", path, 1),
        lambda: docs.json.delete("d", path),
        lambda: docs.json.append("d", path, 1),
        lambda: docs.json.cas("d", 1, path, 1),
    ):
        with pytest.raises(InvalidInput):
            use()
    assert docs.everything == before


def test_a_patch_of_a_document_that_was_destroyed_before(docs):
    """A delete by path finds nothing there, a set makes a new document. The first made the kernel panic."""
    tx = docs.begin()
    tx.json.destroy("d")
    tx.json.delete("d", "$.name")
    assert not tx.json.exists("d")
    tx.commit()
    assert not docs.json.exists("d")
    tx = docs.begin()
    tx.json.set("d", "$.a", 1)
    tx.json.destroy("d")
    tx.json.set("d", "$.b", 2)
    tx.commit()
    assert docs.json.get("d") == {"b": 2}
