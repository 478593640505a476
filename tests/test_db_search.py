"""`db.search`: which indexes answer, in which state, and that all ways to ask give the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strata
from strata.errors import HistoryTrimmed, InvalidInput, NotFound, NotIndexed, ReadOnly
from strata.search import Context, Recency, Results
from strata.testing import FakeClock

TALK = {
    "d1/01": "What have you been researching, Bob?",
    "d1/02": "Adoption agencies.",
    "d1/03": "Lovely weather for tea in the harbour",
    "d2/01": "Bob, shall we have tea?",
}


@pytest.fixture(params=databases.KINDS)
def db(request: Any, clock: FakeClock) -> Iterator[strata.Database]:
    with databases.make(request.param, clock) as opened:
        yield opened


@pytest.fixture
def talk(db: strata.Database, clock: FakeClock) -> strata.Database:
    db.indexes.create("talk", primitive="json", paths="$.text")
    for key, text in TALK.items():
        clock.advance(1_000_000)
        db.json.set(key, "$", {"text": text, "session": key[:2]})
    return db


def keys(results: Results) -> list[str]:
    return [hit.key for hit in results]


def found(results: Results) -> list[tuple[str, float]]:
    return [(hit.key, hit.score) for hit in results]


# -- states


def test_words_find_what_has_them_best_first(talk: strata.Database):
    results = talk.search("what did Bob research")
    assert keys(results) == ["d1/01", "d2/01"]
    assert str(results[0].snippet) == "What have you been **researching**, **Bob**?"
    assert results[0].value == {"text": TALK["d1/01"], "session": "d1"}
    assert str(results[0].ref) == "strata://main/default/json/d1/01"


def test_an_earlier_version_answers_as_it_did_then(talk: strata.Database):
    then, version = found(talk.search("tea")), talk.version
    for key in TALK:
        talk.json.destroy(key)
    assert keys(talk.search("tea")) == []
    for results in (talk.search("tea", at=version), talk.at(version).search("tea")):
        assert found(results) == then
        assert results.version == version
        assert results[0].ref.version == version
        assert talk.explain(results[0].ref)
    draft = talk.branches.fork("main", "draft", at=version)
    assert found(draft.search("tea")) == then
    assert draft.search("tea")[0].ref.branch == "draft"


def test_a_transaction_finds_what_it_wrote_and_nobody_else_does(talk: strata.Database):
    with talk.transaction() as tx:
        tx.json.set("d3/01", "$", {"text": "tea, tea and tea"})
        tx.json.destroy("d2/01")
        assert keys(tx.search("tea")) == ["d3/01", "d1/03"]
        assert keys(tx.space("default").search("tea")) == ["d3/01", "d1/03"]
        assert keys(talk.search("tea")) == ["d1/03", "d2/01"] or keys(talk.search("tea")) == [
            "d2/01",
            "d1/03",
        ]
        tx.rollback()


def test_between_two_states_some_enter_and_some_leave(talk: strata.Database):
    before = talk.version
    talk.json.destroy("d1/03")
    after = talk.json.set("d2/02", "$", {"text": "Green tea, please"})
    results = talk.search("tea", over=(before, after))
    assert keys(results) == keys(talk.search("tea"))
    assert results.over is not None
    assert [hit.key for hit in results.over.entered] == ["d2/02"]
    assert [hit.key for hit in results.over.left] == ["d1/03"]
    assert [one.ref.key for one in results.over.stayed] == ["d2/01"]
    assert "+" in str(results.over) and results.over.to_dict()["versions"] == [before, after]


def test_a_state_that_is_gone_says_so():
    with strata.open() as db:
        db.indexes.create("talk", primitive="json", paths="$.text")
        version = db.json.set("a", "$", {"text": "tea"})
        for number in range(5):
            db.json.set("a", "$", {"text": f"tea {number}"})
        db.retention.set(strata.KeepLast(1))
        db.compact()
        with pytest.raises(HistoryTrimmed):
            db.search("tea", at=version)


# -- which indexes


def test_all_primitives_of_a_space_are_asked(db: strata.Database):
    for primitive in ("kv", "events", "state", "json", "traces"):
        db.indexes.create(f"of {primitive}", primitive=primitive)
    db.kv.put("note", "green tea")
    db.events.append("said", {"text": "black tea"})
    db.state.init("cup", {"holds": "tea"})
    db.json.set("doc", "$", {"a": ["tea"]})
    trace = db.traces.record("thought", output={"text": "more tea"})
    results = db.search("tea")
    assert {(hit.ref.primitive, hit.key) for hit in results} == {
        ("kv", "note"), ("events", "main/0"), ("state", "cup"), ("json", "doc"), ("traces", trace.id),
    }  # fmt: skip
    assert [hit.ref.primitive for hit in results] == ["events", "json", "kv", "state", "traces"]
    assert keys(db.search("tea", primitives=["kv", "json"])) == ["doc", "note"]
    assert keys(db.search("tea", indexes=["of kv"])) == ["note"]
    assert keys(db.search("tea", indexes=["of kv", "of events"], weights={"of kv": 2})) == ["note", "main/0"]


def test_spaces_are_searched_apart_or_together(db: strata.Database):
    for space in ("a", "b"):
        db.indexes.create(f"in {space}", primitive="kv", space=space)
        db.space(space).kv.put(space, "tea")
    assert keys(db.space("a").search("tea")) == ["a"]
    assert keys(db.search("tea", spaces=["b", "a"])) == ["a", "b"]
    with pytest.raises(NotIndexed):
        db.search("tea")


def test_where_no_index_answers_it_says_how_or_reads_everything(db: strata.Database):
    db.kv.put("note", "green tea")
    db.json.set("doc", "$", {"text": "Teas of the world"})
    with pytest.raises(NotIndexed) as caught:
        db.search("tea", primitives=["kv"])
    assert "db.indexes.create('kv', primitive='kv')" in caught.value.hint
    assert keys(db.search("tea", primitives=["kv"], scan=True)) == ["note"]
    assert set(keys(db.search("tea", scan=True))) == {"note", "doc"}
    db.indexes.create("docs", primitive="json")
    assert keys(db.search("tea")) == ["doc"]
    assert set(keys(db.search("tea", scan=True))) == {"note", "doc"}
    with pytest.raises(NotIndexed):
        db.search("tea", primitives=["json", "kv"])
    with pytest.raises(NotFound):
        db.search("tea", indexes=["docs", "nosuch"])


def test_a_prefix_leaves_out_indexes_of_other_keys(db: strata.Database):
    db.indexes.create("of a", primitive="kv", prefix="a/")
    db.indexes.create("of all", primitive="kv")
    for key in ("a/1", "b/1"):
        db.kv.put(key, "tea")
    assert keys(db.search("tea", prefix="b/")) == ["b/1"]
    assert set(db.search("tea", prefix="a/")[0].signals) == {"of a", "of all"}


# -- filters and the rest


def test_filters_by_value_and_by_time(talk: strata.Database):
    talk.indexes.create("session", primitive="json", kind="ordered", paths="$.session")
    assert keys(talk.search("tea Bob", where={"session": "d2"})) == ["d2/01"]
    assert keys(talk.search("tea", where={"session": {"gt": "d1"}}, prefix="d2")) == ["d2/01"]
    when = talk.json.entry("d2/01").timestamp
    assert keys(talk.search("tea", start=when)) == ["d2/01"]
    assert keys(talk.search("tea", end=when)) == ["d1/03"]
    missed = talk.search("tea", end=when, explain=True).near_misses
    assert [(miss.ref.key, miss.reason) for miss in missed] == [("d2/01", "taken out by the filter: time")]


@pytest.mark.parametrize("start", [None, -1, 0, 7, 19, 24, 30])
@pytest.mark.parametrize("end", [None, -1, 0, 1, 8, 22, 30])
def test_times_leave_out_what_was_written_outside(
    db: strata.Database, clock: FakeClock, start: int | None, end: int | None
):
    """However few were written then, there are k hits if there are k; also beside own writes."""
    db.indexes.create("kv", primitive="kv")
    for number in range(25):
        clock.advance(1_000_000)
        db.kv.put(f"{number:02}", "tea")
    entry = db.kv.entry("00")
    assert entry is not None
    bounds = {"start": start, "end": end}
    span: dict[str, Any] = {
        name: entry.timestamp + (number - 0.5) * timedelta(seconds=1)
        for name, number in bounds.items()
        if number is not None
    }
    inside = range(25)[max(start or 0, 0) :]
    expected = [f"{number:02}" for number in inside if end is None or number < end]
    for k in (1, 3, 100):
        assert keys(db.search("tea", k=k, **span)) == expected[:k]
        early = [key for key in expected if key < "20"]
        assert keys(db.at(db.version - 5).search("tea", k=k, **span)) == early[:k]
    with db.transaction() as own:
        own.kv.put("new", "tea")
        news = ["new"] if (start or 0) < 30 and (end is None or end == 30) else []
        assert sorted(keys(own.search("tea", k=100, **span))) == expected + news
        own.rollback()


def test_a_turn_is_found_by_what_stands_around_it(talk: strata.Database):
    assert "d1/02" not in keys(talk.search("what did Bob research"))
    results = talk.search("what did Bob research", context=1)
    assert keys(results)[:2] == ["d1/01", "d1/02"]
    alone = {hit.key: hit.score for hit in talk.search("what did Bob research")}
    scores = {hit.key: hit.score for hit in results}
    assert scores["d1/02"] == pytest.approx(0.5 * alone["d1/01"] + 0.3 * alone["d1/01"])
    assert talk.search("what did Bob research", context=Context(1)).hits == results.hits


def test_explain_says_what_each_word_gave(talk: strata.Database):
    (hit,) = talk.search("research weather", k=1, explain=True)
    (signal,) = hit.signals.values()
    if signal.terms:  # the oracle does not say
        assert sum(term.contribution for term in signal.terms) == pytest.approx(hit.score)


def test_a_recall_log_keeps_what_was_asked_and_found(talk: strata.Database):
    results = talk.search("tea", k=2, log_recall=True)
    (trace,) = talk.traces.by_kind("query")
    assert trace.input == {"text": "tea", "k": 2}
    assert [(hit["ref"], hit["score"]) for hit in trace.output["hits"]] == [
        (str(hit.ref), hit.score) for hit in results
    ]
    assert [ref.key for ref in trace.reads] == keys(results)
    with pytest.raises(ReadOnly):
        talk.at(talk.version).search("tea", log_recall=True)


def test_recency_counts_back_from_the_newest_commit(talk: strata.Database, clock: FakeClock):
    """So the same question to the same state gives the same answer, whatever the clock says."""
    first = talk.search("tea", recency=Recency(60))
    again = talk.search("tea", recency=Recency(60))
    assert first == again
    assert first.hits[0].signals["recency"].score <= 1
    view = talk.at(talk.version)
    clock.advance(3_600_000_000)
    assert talk.search("tea", recency=Recency(60)) == first
    talk.kv.put("later", 1)
    assert found(view.search("tea", recency=Recency(60))) == found(first)
    assert found(talk.search("tea", recency=Recency(60))) != found(first)


@pytest.mark.parametrize(
    "asked",
    [
        {"over": 3}, {"over": (1,)}, {"over": (1, 2), "at": 1}, {"at": "yesterday"}, {"k": -1},
        {"where": {"a": {"x": 1}}},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(talk: strata.Database, asked: dict[str, Any]):
    with pytest.raises(InvalidInput):
        talk.search("tea", **asked)
    with pytest.raises(InvalidInput):
        talk.at(1).search("tea", at=1)


@pytest.mark.parametrize(
    "text", ['"open', "-tea", "+", "field:", "a:b:c", "***", "((", "\\", "tea OR", "𝒯ea", "\x00"]
)
def test_anything_is_a_query(talk: strata.Database, text: str):
    for hit in talk.search(text):
        str(hit.snippet)


# -- an index, and reading everything

words = st.lists(st.sampled_from(["tea", "teas", "green", "harbour", "the", "rain"]), max_size=6).map(
    " ".join
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcde"), words),
        st.tuples(st.just("delete"), st.sampled_from("abcde"), st.just("")),
        st.tuples(st.just("fork"), st.just(""), st.just("")),
        st.tuples(st.just("checkpoint"), st.just(""), st.just("")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(history=steps, asked=words.filter(bool))
def test_an_index_finds_what_a_scan_finds(
    history: list[tuple[str, str, str]], asked: str, tmp_path_factory: Any
):
    """Hit for hit and score for score, on every branch and at every version."""
    path = tmp_path_factory.mktemp("db") / "x"
    with strata.open(path) as db:
        db.indexes.create("all", primitive="kv")
        place: Any = db
        states: list[Callable[..., Results]] = []
        for what, key, text in history:
            if what == "put":
                place.kv.put(key, text)
            elif what == "delete":
                place.kv.delete(key)
            elif what == "checkpoint":
                db.checkpoint()
            else:
                place = db.branches.fork(place._branch.name, f"b{len(states)}")
            states.append(place.at(place.version).search)
        indexed = [found(search(asked, indexes=["all"])) for search in states]
        db.indexes.drop("all")
        assert indexed == [found(search(asked, primitives=["kv"], scan=True)) for search in states]


filters = st.one_of(
    st.builds(lambda n: {"n": n}, st.integers(0, 4)),
    st.builds(lambda n, m: {"n": {"gte": n, "lt": m}}, st.integers(0, 4), st.integers(0, 5)),
    st.builds(lambda ns: {"n": {"in": ns}}, st.lists(st.integers(0, 5), max_size=3)),
    st.builds(lambda n, tag: {"n": n, "tag": tag}, st.integers(0, 4), st.sampled_from("xy")),
    st.builds(lambda n: {"not": {"n": n}}, st.integers(0, 4)),
    st.builds(lambda n: {"or": [{"n": n}, {"tag": "x"}]}, st.integers(0, 4)),
)
documents = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("xy"), words), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(
    documents, filters, st.integers(0, 8), st.integers(0, 8), st.sampled_from([[], ["$.n"], ["$.tag", "$.n"]])
)
def test_a_filter_takes_out_what_does_not_pass_and_nothing_else(
    docs: list[tuple[int, str, str]], where: dict[str, Any], k: int, offset: int, paths: list[str]
):
    """Whether or not an ordered index answers it, the hits are those of a search without it, less some."""
    with strata.open() as db:
        db.indexes.create("text", primitive="json", paths="$.text")
        if paths:
            db.indexes.create("ordered", primitive="json", kind="ordered", paths=paths)
        with db.transaction() as tx:
            for number, (n, tag, text) in enumerate(docs):
                tx.json.set(f"d{number:02}", "$", {"n": n, "tag": tag, "text": text})
        passing = {key for key, _ in db.json.find(where, scan=True)}
        for options in ({}, {"context": 1}):
            whole = db.search("green tea", k=100, **options)
            some = db.search("green tea", k=k, offset=offset, where=where, **options)
            wanted = [hit for hit in found(whole) if hit[0] in passing][offset : offset + k]
            assert found(some) == wanted
            assert not some.truncated
            assert (
                found(db.search("green tea", k=k, offset=offset, where=where, explain=True, **options))
                == wanted
            )
