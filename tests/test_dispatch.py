"""Operations by name: places, pages, options of commits, and what is refused."""

from __future__ import annotations

import math
from datetime import timedelta

import databases
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strata
from strata.api.dispatch import PAGE, PAGE_MAX, dispatch, find
from strata.api.operations import OPERATIONS
from strata.api.plain import decode_json, encode_json, error_data, from_json, to_json
from strata.core.values import same
from strata.errors import Conflict, InvalidInput, LimitExceeded, NotFound, StrataError
from strata.testing import FakeClock


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param, FakeClock()) as database:
        yield database


# -- places ----------------------------------------------------------------------------------------


def test_an_operation_runs_at_a_branch_a_space_and_a_point(db):
    first = db.kv.put("k", "main")
    db.branches.tag("v1")
    db.branches.fork("main", "b")
    db.branch("b").space("s").kv.put("k", "b/s")
    db.kv.put("k", "later")

    def get(**place):
        return dispatch(db, "kv.get", place, {"key": "k"})

    assert get() == get(branch="main", space="default") == "later"
    assert get(at=first) == get(at={"tag": "v1"}) == get(branch="b") == "main"
    assert get(branch="b", space="s") == "b/s"
    assert dispatch(db, "version", {"at": first}) == first
    assert dispatch(db, "spaces.list", {"branch": "b"})["items"] == ["default", "s"]


def test_instants_are_texts(db):
    db.kv.put("k", 1)
    assert dispatch(db, "kv.get", {"at": "2026-01-01T00:00Z"}, {"key": "k"}) == 1
    assert dispatch(db, "kv.get", {"at": {"time": "2025-01-01T00:00Z"}}, {"key": "k"}) is None


def test_the_space_of_the_place_is_that_of_branches_and_indexes(db):
    dispatch(db, "indexes.create", {"space": "s"}, {"name": "words", "primitive": "kv"})
    assert dispatch(db, "indexes.get", {}, {"name": "words"})["space"] == "s"


def test_forget_takes_the_space_of_the_place_unless_it_is_said():
    with strata.open() as db:
        for space in ("default", "s", "t"):
            db.space(space).kv.put("k", 1)
        dispatch(db, "forget", {"space": "s"}, {"primitive": "kv", "key": "k"})
        assert [db.space(space).kv.get("k") for space in ("default", "s", "t")] == [1, None, 1]
        dispatch(db, "forget", {"space": "s"}, {"primitive": "strata://main/t/kv/k"})
        assert [db.space(space).kv.get("k") for space in ("default", "s", "t")] == [1, None, None]
        dispatch(db, "forget", {"space": "s"}, {"primitive": "kv", "key": "k", "space": None})
        assert db.kv.get("k") is None


@pytest.mark.parametrize(
    ("name", "place", "arguments"),
    [
        ("kv.put", {"at": 0}, {"key": "k", "value": 1}),
        ("log", {"at": 0}, {}),
        ("runs.begin", {"at": 0}, {}),
        ("runs.orphans", {"at": 0}, {}),
        ("branches.list", {"at": 0}, {}),
        ("info", {"at": 0}, {}),
        ("kv.get", {"where": "main"}, {"key": "k"}),
        ("kv.get", {"branch": 7}, {"key": "k"}),
        ("kv.get", {"at": {}}, {"key": "k"}),
        ("kv.get", {"at": {"tag": "v", "time": "2026-01-01T00:00Z"}}, {"key": "k"}),
        ("kv.get", {"at": "yesterday"}, {"key": "k"}),
    ],
)
def test_places_that_cannot_be(db, name, place, arguments):
    before = db.version
    with pytest.raises(InvalidInput):
        dispatch(db, name, place, arguments)
    assert db.version == before


def test_places_that_are_not_there(db):
    for place in ({"branch": "none"}, {"at": {"tag": "none"}}, {"space": "none"}):
        with pytest.raises(NotFound):
            dispatch(db, "kv.get", place, {"key": "k"})


# -- arguments -------------------------------------------------------------------------------------


def test_unknown_operations_are_named_with_what_was_probably_meant(db):
    with pytest.raises(InvalidInput) as error:
        dispatch(db, "kv.gett", {}, {})
    assert "kv.get" in error.value.hint
    for name in (None, 7, "", "kv._txn", "close", "transact", "kv.__class__", "x" * 10_000):
        with pytest.raises(InvalidInput):
            find(name)


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("kv.get", {}, "key"),
        ("kv.get", {"key": "k", "kye": 1}, "kye"),
        ("kv.get", {"key": 7}, "key"),
        ("kv.scan", {"limit": "7"}, "limit"),
        ("kv.scan", {"limit": True}, "limit"),
        ("kv.scan", {"limit": -1}, "limit"),
        ("events.between", {"start": None, "end": None, "skip": -1}, "skip"),
        ("kv.put", {"key": "k", "value": 1, "ttl": "soon"}, "ttl"),
        ("branches.merge", {"source": "b", "strategy": "mine"}, "strategy"),
        ("vectors.query", {"collection": "c", "vector": [1, "x"]}, "vector"),
        ("search", {"text": "x", "context": {"turns": 1, "more": 2}}, "context"),
        ("compact", {"progress": 1}, "progress"),
        ("kv.get", {b"key": "k"}, "key"),
        ("indexes.create", {"name": "n", "primitive": "kv", "options": {"kind": "text"}}, "kind"),
    ],
)
def test_wrong_arguments_are_named(db, name, arguments, field):
    with pytest.raises(InvalidInput) as error:
        dispatch(db, name, {}, arguments)
    assert field in str(error.value)


def test_values_of_python_are_taken_as_they_are(db):
    db.branches.fork("main", "b")
    dispatch(db, "kv.put", {}, {"key": "k", "value": (1, b"x"), "ttl": timedelta(seconds=5)})
    assert db.kv.get("k") == [1, b"x"]
    assert db.kv.entry("k").expires is not None
    dispatch(db, "retention.set", {}, {"policy": strata.KeepLast(3) | strata.KeepFor(60), "branch": "b"})
    assert dispatch(db, "retention.get", {}, {"branch": "b"}) == {"last": 3, "for_s": 60.0, "both": False}
    made = dispatch(db, "diff", {}, {"old": db.branch("b"), "new": "main"})
    assert [change["key"] for change in made["items"]] == ["k"]
    with pytest.raises(InvalidInput):
        dispatch(db, "kv.put", {}, {"key": "k", "value": timedelta(1)})


def test_vectors_are_lists_or_bytes():
    with strata.open() as db:
        db.vectors.create_collection("c", 2)
        packed = memoryview(bytearray(8)).cast("f")
        packed[0] = 1.0
        for key, vector in (("list", [1, 0]), ("bytes", bytes(packed)), ("view", packed)):
            dispatch(db, "vectors.upsert", {}, {"collection": "c", "key": key, "vector": vector})
            assert dispatch(db, "vectors.get", {}, {"collection": "c", "key": key})["vector"] == [1.0, 0.0]
        with pytest.raises(InvalidInput):
            dispatch(db, "vectors.query", {}, {"collection": "c", "vector": b"12345"})


def test_how_much_is_asked_for_has_a_bound(db):
    db.kv.put("k", 1)
    for name, arguments in (("search", {"text": "x", "scan": True, "k": PAGE_MAX + 1}),):
        with pytest.raises(LimitExceeded):
            dispatch(db, name, {}, arguments)


def test_a_search_that_is_logged_writes():
    search = OPERATIONS["search"]
    assert search.access_for(search.request_type(text="x")) == "read"
    assert search.access_for(search.request_type(text="x", log_recall=True)) == "write"


# -- pages -----------------------------------------------------------------------------------------


def walked(db, name, arguments, limit):
    """Return all rows of an operation, page by page."""
    rows, more = [], {}
    while more is not None:
        page = dispatch(db, name, {}, {**arguments, **more, "limit": limit})
        assert len(page["items"]) <= limit
        rows += page["items"]
        assert len(rows) < 100, "the pages go round in circles"
        more = page["next"]
    return rows


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_together_are_all_there_is(db, reverse, limit):
    for number in range(7):
        db.kv.put(f"k/{number}", number)
        db.kv.put("same", number)
        db.state.set(f"k/{number}", number)
        db.json.set(f"k/{number}", "$", {"n": number})
        db.events.append("even" if number % 2 == 0 else "odd", {"n": number})
        db.traces.record("thought", id=f"t{number}", tags=["x"])
    turned = {"reverse": True} if reverse else {}
    for name, arguments in [
        ("kv.keys", {"prefix": "k/", **turned}), ("kv.scan", {"start": "k/1", "end": "k/6", **turned}),
        ("state.list", turned), ("json.list", turned), ("events.range", {"start": 1, "end": 6, **turned}),
        ("events.by_type", {"type": "even", **turned}),
        ("events.between", {"start": None, "end": None, **turned}),
        ("traces.list", turned), ("traces.by_tag", {"tag": "x", **turned}), ("log", {"after": 3, **turned}),
        ("json.find", {"where": {"$.n": {"gte": 2}}, "scan": True}), ("kv.history", {"key": "same"}),
        ("diff", {"old": 0}), ("replay_range", {"a": 0, "b": db.version}), ("events.types", {}),
    ]:  # fmt: skip
        whole = dispatch(db, name, {}, {**arguments, "limit": PAGE_MAX})
        assert whole["next"] is None and len(whole["items"]) > 1
        assert walked(db, name, arguments, limit) == whole["items"], name


@pytest.mark.parametrize("reverse", [False, True])
def test_pages_end_with_bytes_too(db, reverse, monkeypatch):
    """The story: a page of 1,000 rows could have 32 MiB in each of them."""
    for module in ("api.dispatch", "primitives.base", "primitives.kv"):
        monkeypatch.setattr(f"strata.{module}.PAGE_BYTES", 60)
    for number in range(9):
        db.kv.put(f"k/{number}", "x" * 10 * number)
        db.events.append("e", {"n": "x" * 10 * number})
        db.json.set(f"k/{number}", "$", {"n": number})
    turned = {"reverse": True} if reverse else {}
    expected = [[f"k/{number}", "x" * 10 * number] for number in range(9)]
    expected = expected[::-1] if reverse else expected
    for limit in (2, 5, 9, 100):
        found = walked(db, "kv.scan", {"prefix": "k/", **turned}, limit)
        assert [list(row) for row in found] == expected
        assert len(walked(db, "events.range", turned, limit)) == 9
        assert [list(row) for row in db.kv.scan(limit=limit, **turned)] == expected[:limit]
    assert len(dispatch(db, "kv.scan", {}, {"limit": 100, **turned})["items"]) < 7


def test_pages_have_bounds(db):
    db.kv.put_many({f"{number:05}": number for number in range(PAGE_MAX + 1)})
    page = dispatch(db, "kv.keys")
    assert len(page["items"]) == PAGE and page["next"] == {"start": f"{PAGE:05}"}
    assert len(dispatch(db, "kv.keys", {}, {"limit": PAGE_MAX * 2})["items"]) == PAGE_MAX
    assert dispatch(db, "kv.keys", {}, {"limit": 0}) == {"items": [], "next": None}


# -- options of commits ----------------------------------------------------------------------------


def test_a_write_says_what_its_commit_is_about(db):
    said = {"message": "why", "actor": "me", "cause": "strata://main/default/kv/x"}
    version = dispatch(db, "kv.put", {"space": "s"}, {"key": "k", "value": 1}, commit=said)
    assert version == db.version
    (commit,) = db.log(limit=1)
    assert (commit.message, commit.actor, commit.cause) == tuple(said.values())
    assert db.space("s").kv.get("k") == 1


def test_a_write_with_a_key_happens_once(db):
    once = {"idempotency_key": "a"}
    first = dispatch(db, "kv.incr", {}, {"key": "n"}, commit=once)
    db.kv.put("other", 1)
    assert dispatch(db, "kv.incr", {}, {"key": "n"}, commit=once) == first
    assert db.kv.get("n") == 1


def test_events_come_back_as_their_commit_wrote_them(db):
    db.events.append("x", {"n": 0})
    arguments = {"items": [["x", {"n": 1}], ["x", {"n": 2}]]}
    made = dispatch(db, "events.append_many", {}, arguments, commit={"idempotency_key": "a"})
    assert [event["sequence"] for event in made] == [1, 2]
    assert {event["version"] for event in made} == {db.version}
    db.events.append("x", {"n": 3})
    assert dispatch(db, "events.append_many", {}, arguments, commit={"idempotency_key": "a"}) == made
    assert db.events.len() == 4
    one = dispatch(db, "events.append", {}, {"type": "x", "payload": {}}, commit={"actor": "me"})
    assert (one["sequence"], one["version"]) == (4, db.version)


def test_options_that_make_no_sense_are_refused(db):
    for name, arguments, options in [
        ("kv.get", {"key": "k"}, {"actor": "me"}),
        ("branches.merge", {"source": "b"}, {"actor": "me"}),
        ("runs.begin", {}, {"actor": "me"}),
        ("kv.put", {"key": "k", "value": 1}, {"author": "me"}),
        ("kv.put", {"key": "k", "value": 1}, {"actor": 7}),
    ]:
        with pytest.raises(InvalidInput):
            dispatch(db, name, {}, arguments, commit=options)
    assert db.version == 0


def test_a_write_that_fails_leaves_nothing_behind(db):
    with pytest.raises(Conflict):
        dispatch(db, "kv.cas", {}, {"key": "k", "new": 1, "expected_version": 9}, commit={"actor": "me"})
    assert db.version == 0
    db.kv.put("k", 1)  # nothing holds it up


# -- plain data ------------------------------------------------------------------------------------

keys = st.text(max_size=5) | st.from_regex(r"\$+(bytes|float|ref|\.a)", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_any_value_goes_through_json_and_comes_back(value):
    assert same(decode_json(encode_json(value)), value)


@given(values)
def test_what_is_no_value_of_ours_stays_what_it_is(value):
    """JSON that never came from us decodes to something, or is refused; what it decodes to is stable."""
    try:
        data = from_json(to_json(value))
    except InvalidInput:
        return
    assert same(from_json(to_json(data)), data)


def test_json_has_tags_only_where_it_must():
    assert to_json({"$ref": "x", "$.path": 1, "$bytes": 1, "x": 2}) == {
        "$ref": "x", "$.path": 1, "$bytes": 1, "x": 2,
    }  # fmt: skip
    assert to_json({"$bytes": 1}) == {"$$bytes": 1}
    assert to_json([b"hi", math.inf]) == [{"$bytes": "aGk="}, {"$float": "inf"}]


@pytest.mark.parametrize(
    "text",
    [
        b"{", b"", b"\xff", b'{"$bytes": 7}', b'{"$bytes": "a"}', b'{"$float": "x"}', b'{"$float": 1}',
        b"[" * 600 + b"]" * 600, b"[" * 100_000, b'{"a":' * 5_000, b"NaN",
    ],
)  # fmt: skip
def test_what_is_no_json_of_ours_is_refused(text):
    with pytest.raises(InvalidInput):
        decode_json(text)


def test_errors_are_plain_data(db):
    db.branches.fork("main", "b")
    db.kv.put("k", 1)
    db.branch("b").kv.put("k", 2)
    with pytest.raises(StrataError) as error:
        dispatch(db, "branches.merge", {}, {"source": "b"})
    data = decode_json(encode_json(error_data(error.value)))
    assert data["code"] == "merge_conflict"
    (conflict,) = data["fields"]["conflicts"]
    assert (conflict["key"], conflict["source"], conflict["target"]) == ("k", 2, 1)
    assert data["hint"] and data["message"]
