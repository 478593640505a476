"""Filters."""

from __future__ import annotations

import pytest

from strata.core.errors import InvalidInput
from strata.core.where import compile

DOC = {
    "n": 5,
    "f": 5.0,
    "s": "text",
    "t": True,
    "nil": None,
    "l": [1, "x"],
    "m": {"k": 1},
    "$odd": {"a.b": 2},
}


@pytest.mark.parametrize(
    ("where", "passes"),
    [
        ({}, True),
        ({"$.n": 5}, True), ({"$.n": 5.0}, True), ({"n": 5}, True), ({"/n": 5}, True), ({"$.n": "5"}, False),
        ({"$.t": 1}, False), ({"$.t": True}, True), ({"$.nil": None}, True), ({"$.missing": None}, False),
        ({"$.n": {"gt": 4}}, True), ({"$.n": {"gt": 5}}, False), ({"$.n": {"gte": 5.0, "lt": 6}}, True),
        ({"$.n": {"lte": 4}}, False), ({"$.s": {"gt": "a"}}, True), ({"$.s": {"gt": 1}}, False),
        ({"$.t": {"gte": 0}}, False), ({"$.nil": {"lt": 1}}, False), ({"$.missing": {"lt": 1}}, False),
        ({"$.n": {"ne": 5}}, False), ({"$.missing": {"ne": 5}}, True),
        ({"$.n": {"in": [1, 5]}}, True), ({"$.n": {"in": []}}, False), ({"$.l": {"in": [[1, "x"]]}}, True),
        ({"$.l": {"contains": "x"}}, True), ({"$.l": {"contains": 2}}, False), ({"$.s": {"contains": "ex"}},
        True),
        ({"$.m": {"contains": "k"}}, True), ({"$.n": {"contains": 5}}, False), ({"$.s": {"contains": 1}},
        False),
        ({"$.missing": {"contains": 1}}, False),
        ({"$.nil": {"exists": True}}, True), ({"$.missing": {"exists": False}}, True),
        ({"$.n": {"exists": False}}, False),
        ({"$.m": {"eq": {"k": 1.0}}}, True), ({"$.m.k": 1, "$.l[-1]": "x"}, True), ({"$['$odd']['a.b']": 2},
        True),
        ({"or": [{"n": 1}, {"n": 5}]}, True), ({"or": []}, False), ({"and": [{"n": 5}, {"s": "x"}]}, False),
        ({"not": {"n": 5}}, False), ({"not": {"n": 5, "s": "x"}}, True),
    ],
)  # fmt: skip
def test_filters(where, passes):
    assert compile(where)(DOC) is passes


@pytest.mark.parametrize(
    "where",
    [
        None, [], "n", {"$.n": {"gr": 1}}, {"$.n": {}}, {"$.n": {"gt": 1, "x": 2}}, {"$.m": {"k": 1}},
        {"$..": 1},
        {"": {}}, {"or": {}}, {"and": 1}, {"not": [1]}, {"$.n": {"in": 5}}, {"$.n": {"exists": 1}}, {7: 1},
    ],
)  # fmt: skip
def test_what_is_no_filter(where):
    """A typo must never match all."""
    with pytest.raises(InvalidInput):
        compile(where)
