"""Patches as plain Python: what they do, what they touch, and why siblings cannot conflict."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.errors import InvalidInput
from strata.core.patches import ABSENT, apply, get_path, outermost, resolve
from strata.core.paths import overlap
from strata.core.values import same

DOC = {"a": {"b": [1, {"c": 2}, 3], "n": None}, "s": "text"}


def changed(**changes):
    return {**copy.deepcopy(DOC), **changes}


@pytest.mark.parametrize(
    ("op", "after", "touched"),
    [
        (("set", ("x",), 1), changed(x=1), [("x",)]),
        (("set", ("x", "y", "z"), 1), changed(x={"y": {"z": 1}}), [("x", "y", "z")]),
        (("set", ("s",), 1), changed(s=1), [("s",)]),
        (("set", ("a", "n"), 1), changed(a={**DOC["a"], "n": 1}), [("a", "n")]),
        (
            ("set", ("a", "b", -2, "c"), 9),
            changed(a={"b": [1, {"c": 9}, 3], "n": None}),
            [("a", "b", 1, "c")],
        ),
        (("set", ("a", "b", None), 4), changed(a={"b": [1, {"c": 2}, 3, 4], "n": None}), [("a", "b")]),
        (("set", (), 5), 5, [()]),
        (("delete", ("s",)), {"a": DOC["a"]}, [("s",)]),
        (("delete", ("x",)), DOC, [("x",)]),
        (("delete", ("x", "y")), DOC, [("x", "y")]),
        (("delete", ("x", 0, "y")), DOC, [("x",)]),
        (("delete", ("a", "b", 0)), changed(a={"b": [{"c": 2}, 3], "n": None}), [("a", "b")]),
        (("delete", ("a", "b", 9)), DOC, [("a", "b")]),
        (("delete", ("a", "b", 1, "c")), changed(a={"b": [1, {}, 3], "n": None}), [("a", "b", 1, "c")]),
        (("insert", ("a", "b", 0), 0), changed(a={"b": [0, 1, {"c": 2}, 3], "n": None}), [("a", "b")]),
        (("insert", ("a", "b", 3), 4), changed(a={"b": [1, {"c": 2}, 3, 4], "n": None}), [("a", "b")]),
        (("insert", ("a", "b", -1), 0), changed(a={"b": [1, {"c": 2}, 0, 3], "n": None}), [("a", "b")]),
        (("insert", ("a", "b", None), 4), changed(a={"b": [1, {"c": 2}, 3, 4], "n": None}), [("a", "b")]),
        (("merge", (), {"s": None, "x": {"y": 1}}), {"a": DOC["a"], "x": {"y": 1}}, [("s",), ("x", "y")]),
        (("merge", ("a",), {"n": {"m": None, "k": 1}}), changed(a={**DOC["a"], "n": {"k": 1}}), [("a", "n")]),
        (("merge", ("s",), {"y": {"z": None}}), changed(s={"y": {}}), [("s",)]),
        (("merge", ("a",), {}), DOC, [("a",)]),
        (("merge", ("a", "b"), [1]), changed(a={"b": [1], "n": None}), [("a", "b")]),
    ],
)
def test_one_change(op, after, touched):
    before = copy.deepcopy(DOC)
    value, regions = apply(before, [op])
    assert same(value, after)
    assert regions == touched
    assert before == DOC


@pytest.mark.parametrize(
    "op",
    [
        ("set", ("a", "b", 3), 1), ("set", ("a", "b", -4), 1), ("set", ("a", "b", "x"), 1),
        ("set", ("s", "x"), 1),
        ("set", ("s", 0), 1), ("set", ("a", 0), 1), ("set", ("a", "n", "x"), 1), ("set", ("x", 0), 1),
        ("set", ("x", None), 1), ("set", ("a", "b", None, "c"), 1),
        ("delete", ()), ("delete", ("s", "x")), ("delete", ("a", 0)), ("delete", ("a", "b", "x")),
        ("insert", (), 1), ("insert", ("a",), 1), ("insert", ("x", 0), 1), ("insert", ("a", "b", 4), 1),
        ("insert", ("a", "b", -4), 1), ("insert", ("a", 0), 1),
        ("merge", ("a", "b", None), 1), ("merge", ("s", "x"), 1), ("merge", ("x", 0), 1),
        ("other", ("a",), 1), ("set", ("a",)), ("set", ("a",), 1, 2),
    ],
)  # fmt: skip
def test_what_cannot_be(op):
    with pytest.raises(InvalidInput):
        apply(copy.deepcopy(DOC), [op])


def test_documents_are_made_on_the_way():
    assert apply(ABSENT, [("set", ("a", "b"), 1)]) == ({"a": {"b": 1}}, [("a", "b")])
    assert apply(ABSENT, [("merge", (), {"a": {"b": 1, "c": None}})])[0] == {"a": {"b": 1}}
    assert apply(ABSENT, [("set", (), 1)]) == (1, [()])
    assert apply(ABSENT, [("delete", ("a",))])[0] is ABSENT


def test_all_or_nothing_is_for_the_caller_but_the_value_is_never_changed_in_place():
    before = copy.deepcopy(DOC)
    with pytest.raises(InvalidInput):
        apply(before, [("set", ("s",), 1), ("set", ("s", "x"), 1)])
    assert before == DOC


def test_regions_inside_others_go():
    assert outermost([("a", "b"), ("a",), ("b", 0), ("a", "c"), ("b", 0)]) == [("a",), ("b", 0)]
    assert outermost([("a",), ()]) == [()]


@pytest.mark.parametrize(
    ("path", "region"),
    [
        (("a", "b", -1), ("a", "b", 2)),
        (("a", "b", 7, "x"), ("a", "b")),
        (("a", "b", None), ("a", "b")),
        (("x", 0, "y"), ("x", 0, "y")),
        (("s", "x"), ("s", "x")),
    ],
)
def test_what_a_read_depends_on(path, region):
    assert resolve(DOC, path) == region


keys, indexes = st.sampled_from("ab"), st.integers(-3, 3)
leaves = st.recursive(
    st.integers(0, 3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=6,
)
docs = st.dictionaries(keys, leaves, min_size=1, max_size=2) | leaves
paths = st.lists(keys | indexes | st.none(), max_size=3).map(tuple)
ops = st.one_of(
    st.tuples(st.just("set"), paths, leaves),
    st.tuples(st.just("delete"), paths),
    st.tuples(st.just("insert"), paths, leaves),
    st.tuples(st.just("merge"), paths, leaves),
)


def possible(value, changes):
    """Return those of `changes` that can be made one after the other."""
    made = []
    for change in changes:
        try:
            value, _ = apply(value, [change])
            made.append(change)
        except InvalidInput:
            pass
    return made


@given(docs, st.lists(ops, max_size=4), st.lists(ops, max_size=4))
def test_patches_that_touch_no_common_region_commute(doc, ours, theirs):
    ours, theirs = possible(doc, ours), possible(doc, theirs)
    (mine, my_regions), (other, other_regions) = apply(doc, ours), apply(doc, theirs)
    if any(overlap(one, two) for one in my_regions for two in other_regions):
        return
    one_way, regions = apply(mine, theirs)
    other_way, _ = apply(other, ours)
    assert same(one_way, other_way)
    assert regions == other_regions


@given(docs, st.lists(ops, max_size=4), paths)
def test_what_no_region_overlaps_reads_as_before(doc, changes, path):
    after, regions = apply(doc, possible(doc, changes))
    region = resolve(doc, path)
    if any(overlap(region, touched) for touched in regions):
        return
    assert same(get_path(after, path, "absent"), get_path(doc, path, "absent"))
    assert resolve(after, path) == region
