"""Search: from what indexes say to hits. The indexes here are lists of keys and scores; see `sources`."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import Place
from test_search_parts import ranked

from strata.core.errors import InvalidInput, LimitExceeded
from strata.search import Context, Importance, Recency, Request, Results
from strata.search.engine import WINDOW, Answer, Source, search
from strata.testing import Model

DAY_US = 86_400_000_000


def sources(db: Place, primitive: str = "json", **lists: dict[str, float]) -> list[Source]:
    """An index for each list of keys and scores: `text` is one of texts, all others are of vectors."""
    view = db.branch.view()
    layout = getattr(db, primitive).LAYOUT

    def source(name: str, scores: dict[str, float]) -> Source:
        rows = ranked({key.encode() if isinstance(key, str) else key: s for key, s in scores.items()})
        txn = view.keyspace("default", layout)

        def spans(text: str) -> list[tuple[int, int]]:
            at = text.find("tea")
            return [] if at < 0 else [(at, at + 3)]

        return Source(
            name,
            "text" if name == "text" else "vector",
            txn,
            lambda limit, passes: Answer(rows[:limit], len(rows)),
            spans,
        )

    return [source(name, scores) for name, scores in lists.items()]


def run(db: Place, lists: dict[str, dict[str, float]], **asked: Any) -> Results:
    found = sources(db, asked.pop("primitive", "json"), **lists)
    now = asked.pop("now_us", 0)
    clock = asked.pop("clock", None)
    options = {} if clock is None else {"clock": clock}
    request = Request(**{"text": "tea", **asked})
    return search(request, found, version=db.branch.head, now_us=now, **options)


def keys(results: Results) -> list[str]:
    return [hit.key for hit in results]


@pytest.fixture
def teas(db: Place) -> Place:
    for number in range(8):
        value = {"text": f"a cup of tea number {number}", "kind": "even" if number % 2 == 0 else "odd"}
        db.json.set(f"t{number}", "$", {**value, "importance": number / 8})
    return db


SCORES = {f"t{number}": 8.0 - number for number in range(8)}


# -- one list


def test_one_list_keeps_its_order_and_scores(teas: Place):
    found = run(teas, {"text": SCORES}, k=3)
    assert [(hit.key, hit.score, hit.rank) for hit in found] == [("t0", 8, 1), ("t1", 7, 2), ("t2", 6, 3)]
    assert str(found[0].ref) == "strata://main/default/json/t0"
    assert found[0].value == teas.json.get("t0")
    assert str(found[0].snippet) == "a cup of **tea** number 0 · even"
    assert found[0].signals["text"].score == 8
    assert (found.truncated, found.version) == (False, teas.branch.head)
    assert found.statistics.lists[0].matched == 8


def test_pages_are_the_whole_in_parts(teas: Place):
    whole = keys(run(teas, {"text": SCORES}, k=8))
    paged = [key for at in range(0, 9, 3) for key in keys(run(teas, {"text": SCORES}, k=3, offset=at))]
    assert paged == whole
    assert run(teas, {"text": SCORES}, k=3, offset=6)[0].rank == 7
    assert keys(run(teas, {"text": SCORES}, k=0)) == []
    assert keys(run(teas, {"text": SCORES}, offset=20)) == []


@given(
    kinds=st.lists(st.booleans(), min_size=1, max_size=40),
    k=st.integers(0, 12),
    offset=st.integers(0, 12),
)
def test_a_filter_takes_out_none_too_many(kinds: list[bool], k: int, offset: int):
    """However few pass, there are k hits if there are k."""
    db = Place(Model())
    for number, wanted in enumerate(kinds):
        db.json.set(f"t{number:02}", "$", {"wanted": wanted})
    scores = {f"t{number:02}": 100.0 - number for number in range(len(kinds))}
    found = run(db, {"text": scores}, k=k, offset=offset, where={"wanted": True})
    passing = [f"t{number:02}" for number, wanted in enumerate(kinds) if wanted]
    assert keys(found) == passing[offset : offset + k]
    assert not found.truncated


def test_filters_by_prefix_and_time(db: Place, clock: Any):
    db.json.set("a/1", "$", {})
    clock.advance(DAY_US)
    db.json.set("a/2", "$", {})
    db.json.set("b/1", "$", {})
    when = db.json.entry("a/2").timestamp
    scores = {"text": {"a/1": 3.0, "a/2": 2.0, "b/1": 1.0, "gone": 9.0}}
    assert keys(run(db, scores, prefix="a/")) == ["a/1", "a/2"]
    assert keys(run(db, scores, start=when)) == ["a/2", "b/1"]
    assert keys(run(db, scores, end=when)) == ["a/1"]
    assert keys(run(db, scores, start=when, prefix="a/")) == ["a/2"]


def test_what_filters_see_of_each_primitive(db: Place):
    db.events.append("note", {"mood": "calm"})
    db.events.append("note", {"mood": "wild"})
    db.state.init("lamp", {"on": True})
    db.kv.put("lamp", {"on": True})
    event = b"main\0" + (0).to_bytes(8)
    rows = {"text": {event: 1.0, b"main\0" + (1).to_bytes(8): 2.0}}
    (hit,) = run(db, rows, primitive="events", where={"mood": "calm"})
    assert (hit.key, hit.value.payload) == ("main/0", {"mood": "calm"})
    assert keys(run(db, {"text": {"lamp": 1.0}}, primitive="state", where={"on": True})) == ["lamp"]
    assert keys(run(db, {"text": {"lamp": 1.0}}, primitive="kv", where={"on": False})) == []


# -- budgets


def test_a_budget_of_candidates_is_kept_and_told(teas: Place):
    found = run(teas, {"text": SCORES}, k=4, where={"kind": "odd"}, candidates=4)
    assert (keys(found), found.truncated) == (["t1", "t3"], True)
    assert not run(teas, {"text": SCORES}, k=2, where={"kind": "odd"}, candidates=4).truncated
    assert not run(teas, {"text": SCORES}, k=4, where={"kind": "odd"}, candidates=100).truncated


def test_a_budget_of_time_gives_what_was_found_until_then(teas: Place):
    ticks = iter(range(100))
    lists = {"text": SCORES, "vector": {"t7": 1.0}}
    found = run(teas, lists, budget_ms=0.5, clock=lambda: next(ticks))
    assert found.truncated
    assert keys(found)[0] == "t0"
    assert "vector" not in found[-1].signals


# -- several lists


def test_lists_are_put_together_by_ranks(teas: Place):
    found = run(teas, {"text": {"t1": 9.0, "t2": 5.0}, "vector": {"t2": 0.9, "t3": 0.8}})
    assert keys(found) == ["t2", "t1", "t3"]
    assert found[0].score == pytest.approx(1 / 62 + 1 / 61)
    assert {name: signal.rank for name, signal in found[0].signals.items()} == {"text": 2, "vector": 1}


def test_weights_by_name_or_kind(teas: Place):
    lists = {"text": {"t1": 9.0}, "notes": {"t2": 0.9}}
    assert keys(run(teas, lists)) == ["t1", "t2"]
    assert keys(run(teas, lists, weights={"notes": 2.0})) == ["t2", "t1"]
    assert keys(run(teas, lists, weights={"vector": 2.0})) == ["t2", "t1"]
    assert keys(run(teas, lists, weights={"vector": 2.0, "notes": 0.5})) == ["t1", "t2"]


def test_pages_of_several_lists_fit_together(db: Place):
    """Every page is cut out of the same order, as deep as one goes."""
    count = WINDOW + 50
    for number in range(count):
        db.json.set(f"t{number:03}", "$", {})
    text = {f"t{number:03}": float(number) for number in range(count)}
    vector = {f"t{number:03}": float(number * 7 % count) for number in range(count)}
    lists = {"text": text, "vector": vector}
    whole = keys(run(db, lists, k=90))
    assert whole == [key for at in (0, 30, 60) for key in keys(run(db, lists, k=30, offset=at))]
    assert len(keys(run(db, lists, k=count))) == count
    deep = keys(run(db, lists, k=20, offset=WINDOW + 1))
    assert deep == keys(run(db, lists, k=19, offset=WINDOW + 1)) + keys(
        run(db, lists, k=1, offset=WINDOW + 20)
    )


# -- context


def talk(db: Place) -> Place:
    for session, turns in {"d1": 5, "d2": 3}.items():
        for turn in range(turns):
            db.json.set(f"{session}/{turn}", "$", {"text": f"turn {turn}"})
    return db


def test_context_finds_the_turn_beside(db: Place):
    talk(db)
    lists = {"text": {"d1/1": 4.0, "d1/3": 3.0, "d2/0": 3.5}}
    found = run(db, lists, context=1)
    scores = {hit.key: hit.score for hit in found}
    assert scores == pytest.approx(
        {
            "d1/0": 0 + 2 + 1.2, "d1/1": 4 + 1.2, "d1/2": 2 + 1.5 + 1.2, "d1/3": 3 + 1.2,
            "d1/4": 1.5 + 1.2, "d2/0": 3.5 + 1.05, "d2/1": 1.75 + 1.05,
        }
    )  # fmt: skip
    assert keys(found) == sorted(scores, key=lambda key: -scores[key])


def test_context_of_events_stays_in_the_stream(db: Place):
    for stream in ("a", "b"):
        for turn in range(3):
            db.events.append("turn", {"n": turn}, stream=stream)
    at = {name: name[:1].encode() + b"\0" + int(name[1:]).to_bytes(8) for name in ("a2", "b0")}
    found = run(db, {"text": {at["a2"]: 2.0}}, primitive="events", context=Context(2, session=0))
    assert {hit.key: hit.score for hit in found} == {"a/2": 2.0, "a/1": 1.0, "a/0": 0.5}


def test_filters_are_for_what_is_found_not_for_its_context(db: Place):
    talk(db)
    db.json.set("d1/2", "$", {"text": "turn", "wanted": True})
    found = run(db, {"text": {"d1/1": 4.0}}, context=1, where={"wanted": True})
    assert [(hit.key, hit.score) for hit in found] == [("d1/2", pytest.approx(3.2))]


def test_context_of_more_than_can_be_looked_at_is_told(db: Place, monkeypatch: pytest.MonkeyPatch):
    talk(db)
    lists = {"text": {"d1/1": 4.0, "d1/3": 3.0, "d2/0": 3.5}}
    assert not run(db, lists, context=1).truncated
    monkeypatch.setattr("strata.search.engine._CONTEXT_ROWS", 2)
    assert run(db, lists, context=1).truncated


# -- boosts and rerankers


def test_recency_lets_the_newer_one_pass(db: Place, clock: Any):
    db.json.set("old", "$", {})
    clock.advance(10 * DAY_US)
    db.json.set("new", "$", {})
    lists = {"text": {"old": 1.1, "new": 1.0}}
    now = clock()
    assert keys(run(db, lists, now_us=now)) == ["old", "new"]
    found = run(db, lists, recency=Recency(timedelta(days=10), weight=0.5), now_us=now)
    assert [(hit.key, hit.score) for hit in found] == [("new", 1.0), ("old", pytest.approx(1.1 * 0.75))]
    assert found[1].signals["recency"].score == pytest.approx(0.75)


def test_importance_of_a_value_counts(teas: Place):
    lists = {"text": {"t1": 1.0, "t7": 0.9}}
    assert keys(run(teas, lists)) == ["t1", "t7"]
    assert keys(run(teas, lists, importance=Importance("$.importance"))) == ["t7", "t1"]


def test_boosts_of_scores_below_zero_go_by_rank(teas: Place):
    found = run(teas, {"dot": {"t1": -1.0, "t2": -2.0}}, importance=Importance("$.importance", weight=0.1))
    assert keys(found) == ["t1", "t2"]
    assert all(hit.score > 0 for hit in found)


def test_a_reranker_has_the_last_word(teas: Place):
    asked: list[list[str]] = []

    def judge(query: str, texts: list[str]) -> list[float]:
        asked.append(texts)
        return [float(text[-1]) for text in texts]

    lists = {"text": SCORES}
    view = sources(teas, **lists)
    request = Request(text="tea", k=2, rerank=judge)
    by_field = [Source(s.index, s.kind, s.txn, s.top, s.spans, (("text",),)) for s in view]
    found = search(request, by_field, version=1)
    assert [(hit.key, hit.score) for hit in found] == [("t7", 7.0), ("t6", 6.0)]
    assert asked[0][0] == "a cup of tea number 0"
    assert found[0].signals["text"].rank == 8


# -- why


def test_near_misses_say_by_how_much_or_which_filter(teas: Place):
    found = run(teas, {"text": SCORES}, k=2, where={"kind": "even"}, explain=True)
    assert (keys(found), found.cut) == (["t0", "t2"], 4.0)
    reasons = {miss.ref.key: miss.reason for miss in found.near_misses}
    assert reasons["t4"] == "below the cut by 2"
    assert reasons["t1"] == "taken out by the filter: where"
    assert run(teas, {"text": SCORES}, k=2).near_misses == ()


def test_a_snippet_is_read_when_it_is_asked_for(teas: Place):
    """In the state that was searched: what is written later does not change it."""
    found = run(teas, {"text": SCORES}, k=1)
    teas.json.set("t0", "$", {"text": "coffee"})
    assert "tea" in str(found[0].snippet)
    assert found[0].value["kind"] == "even"


def test_results_show_themselves(teas: Place):
    found = run(teas, {"text": SCORES}, k=2)
    assert "t0" in str(found)
    assert "<mark>tea</mark>" in found._repr_html_()
    assert repr(found) == "<Results 2 hits at version 8>"
    assert found.to_dict()["hits"][0]["signals"] == {"text": 8.0}
    assert str(run(teas, {"text": {}})) == "(nothing found)"


# -- what cannot be asked


@pytest.mark.parametrize(
    "asked",
    [
        {"text": None}, {"text": ""}, {"text": " \n"}, {"text": 7}, {"text": "\ud800"},
        {"vector": []}, {"vector": [math.nan]}, {"vector": "ab"}, {"vector": [[1.0]]}, {"vector": [True]},
        {"k": -1}, {"k": 1.5}, {"k": True}, {"offset": -1}, {"candidates": 0}, {"budget_ms": 0},
        {"budget_ms": math.nan}, {"budget_ms": "1"}, {"primitives": ["kv", "nosuch"]}, {"primitives": "kv"},
        {"primitives": []}, {"indexes": "a"}, {"spaces": [""]}, {"prefix": b"a"}, {"prefix": "\ud800"},
        {"where": {"a": {"like": "x"}}}, {"where": "a"}, {"where": {"$.a[": 1}}, {"start": "yesterday"},
        {"weights": {"a": -1}}, {"weights": {"a": math.inf}}, {"weights": [1]}, {"context": -1},
        {"context": 51}, {"context": 1.5}, {"recency": 7}, {"importance": "$.a"}, {"rerank": 7},
        {"explain": 1}, {"scan": "yes"},
    ],
)  # fmt: skip
def test_what_can_never_be_answered_is_refused(asked: dict[str, Any]):
    with pytest.raises(InvalidInput):
        Request(**{"text": "tea", **asked})


@pytest.mark.parametrize("asked", [{"k": 10_001}, {"offset": 10_001}, {"text": "a" * 65_537}])
def test_what_is_too_much_is_refused(asked: dict[str, Any]):
    with pytest.raises(LimitExceeded):
        Request(**{"text": "tea", **asked})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Recency, {"half_life": 0}), (Recency, {"half_life": 1, "weight": 0}),
        (Recency, {"half_life": 1, "weight": 2}), (Importance, {"path": "$.a["}),
        (Importance, {"path": "$.a", "default": 2}), (Context, {"decay": 2}), (Context, {"session": -1}),
        (Context, {"separator": ""}),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(kind: Any, options: dict[str, Any]):
    with pytest.raises(InvalidInput):
        kind(**options)


def test_a_request_can_be_written_down():
    request = Request(text="tea", k=3, where={"a": 1}, primitives={"kv", "json"}, context=2)
    assert request.plain() == {
        "text": "tea",
        "k": 3,
        "where": {"a": 1},
        "primitives": ["json", "kv"],
        "context": "Context(turns=2, decay=0.5, session=0.3, separator='/')",
    }
