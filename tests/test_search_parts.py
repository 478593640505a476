"""The parts of search: fusion, context and snippets, each against what its definition says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from stores import Place

from strata.search import Context, Importance, Recency
from strata.search.boosts import _WEIGHT
from strata.search.context import in_context
from strata.search.fusion import RankedList, fuse
from strata.search.snippets import Snippet, cut
from strata.testing import Model


def ranked(scores: dict[Any, float]) -> list[tuple[Any, float]]:
    return sorted(scores.items(), key=lambda row: (-row[1], row[0]))


# -- fusion

lists_of_scores = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), max_size=6), min_size=2, max_size=3
)


@given(lists_of_scores, st.lists(st.floats(0, 3), min_size=3, max_size=3))
def test_fusion_is_the_sum_of_reciprocal_ranks(lists: list[dict[str, float]], weights: list[float]):
    rows = [ranked({("s", "kv", key.encode()): score for key, score in one.items()}) for one in lists]
    fused = fuse([RankedList(str(n), one, weights[n]) for n, one in enumerate(rows)])
    want: dict[Any, float] = {}
    for number, one in enumerate(rows):
        for rank, (place, _) in enumerate(one, 1):
            want[place] = want.get(place, 0.0) + weights[number] / (60 + rank)
    assert [(found.place, found.score) for found in fused] == ranked(want)


def test_equal_scores_are_ordered_by_place():
    places = [("s", "kv", b"b"), ("s", "json", b"z"), ("r", "kv", b"c"), ("s", "kv", b"a")]
    fused = fuse([RankedList("one", [(place, 1.0) for place in places])])
    assert [found.place for found in fused] == sorted(places)


# -- context


@given(
    own=st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(0, 7)), st.floats(0.01, 9), min_size=1),
    turns=st.integers(1, 3),
    session=st.sampled_from([0.0, 0.3]),
)
def test_context_is_what_its_definition_says(own: dict[tuple[str, int], float], turns: int, session: float):
    db = Place(Model())
    everything = [(name, turn) for name in "ab" for turn in range(8)]
    for name, turn in everything:
        db.json.set(f"talk/{name}/{turn}", "$", {})
    rows = [(("default", "json", f"talk/{n}/{t}".encode()), score) for (n, t), score in own.items()]
    txn = db.branch.view().keyspace("default", db.json.LAYOUT)
    found = in_context(ranked(dict(rows)), txn, Context(turns, session=session))
    best = {name: max([own.get((name, turn), 0.0) for turn in range(8)]) for name in "ab"}
    want = {}
    for name, turn in everything:
        beside = [d for d in range(-turns, turns + 1) if (name, turn + d) in own]
        if beside:
            near = sum(0.5 ** abs(d) * own[name, turn + d] for d in beside)
            want[f"talk/{name}/{turn}"] = near + session * best[name]
    assert {place[2].decode(): round(score, 9) for place, score in found} == {
        key: round(score, 9) for key, score in want.items()
    }
    assert found == sorted(found, key=lambda row: (-row[1], row[0]))


def test_context_of_a_long_talk_is_that_of_its_parts():
    """However the keys are read, in stretches, each turn has all of its neighbours."""
    db = Place(Model())
    count = 300
    for turn in range(count):
        db.json.set(f"talk/{turn:03}", "$", {})
    own = {turn: float(turn % 7) + 1 for turn in range(count) if turn % 3}
    rows = ranked({("default", "json", f"talk/{turn:03}".encode()): score for turn, score in own.items()})
    txn = db.branch.view().keyspace("default", db.json.LAYOUT)
    found = {place[2]: score for place, score in in_context(rows, txn, Context(2, session=0))}
    for turn in range(count):
        near = sum(0.5 ** abs(d) * own.get(turn + d, 0.0) for d in range(-2, 3))
        assert found[f"talk/{turn:03}".encode()] == near


# -- snippets


@given(st.text(max_size=400), st.data())
def test_a_snippet_marks_what_was_asked_for_and_nothing_else(text: str, data: Any):
    edges = data.draw(st.lists(st.integers(0, len(text)), unique=True, max_size=8).map(sorted))
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    width = data.draw(st.integers(20, 200))
    snippet = cut(text, spans, width)
    assert all(0 <= start < end <= len(snippet.text) for start, end in snippet.spans)
    assert list(snippet.spans) == sorted(snippet.spans)
    assert snippet.marked("", "") == snippet.text
    assert "\n" not in snippet.text
    if text.isprintable():
        shown = [snippet.text[start:end] for start, end in snippet.spans]
        asked = [text[start:end] for start, end in spans]
        assert all(part in asked for part in shown)
        assert snippet.text.strip("…").strip() in text or "…" in text
        if spans and spans[0][1] - spans[0][0] < width // 2:
            assert shown or all(end - start >= width // 2 for start, end in spans[1:])


def test_a_snippet_shows_where_most_of_it_stands():
    text = f"tea {'filler ' * 50}green tea from Uji {'filler ' * 50}"
    spans = [(at, at + 3) for at in range(len(text)) if text.startswith("tea", at)]
    at = text.index("green")
    snippet = cut(text, [*spans[:1], (at, at + 5), *spans[1:]], width=60)
    assert "**green** **tea** from Uji" in str(snippet)
    assert snippet.text.startswith("…") and snippet.text.endswith("…")
    assert "fille " not in snippet.text


def test_a_snippet_of_short_text_is_the_text():
    assert str(cut("green tea", [(6, 9)])) == "green **tea**"
    assert str(cut("a\nb\x1b[2J", [])) == "a\\nb\\x1b[2J"
    assert not cut("", [])


def test_a_snippet_in_html_is_escaped():
    assert Snippet("<b>tea</b>", ((3, 6),))._repr_html_() == "&lt;b&gt;<mark>tea</mark>&lt;/b&gt;"


# -- boosts


def test_factors_are_between_what_is_lost_and_one():
    day = 86_400_000_000
    recency = Recency(86_400, weight=0.4)
    assert [recency.factor(age) for age in (-5, 0, day, 2 * day)] == [1, 1, 0.8, 0.7]
    importance = Importance("$.weight")
    low = 1 - _WEIGHT
    values = [{"weight": 1}, {"weight": 7}, {"weight": -1}, {"weight": "1"}, {}, 5, {"weight": float("nan")}]
    middle = low + _WEIGHT / 2
    assert [importance.factor(value) for value in values] == [1, 1, low, middle, middle, middle, middle]
