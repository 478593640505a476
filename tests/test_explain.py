"""Explain: who wrote it, from what, and so on back; and what cannot be known is said."""

from __future__ import annotations

import contextlib
import json
from html.parser import HTMLParser
from typing import Any

import databases
import pytest
import stores
from hypothesis import given, settings
from test_replay import COMMITS, grow

import strata
from strata import KeepLast
from strata.core.errors import StrataError
from strata.core.paths import render
from strata.core.refs import EntityRef
from strata.errors import HistoryTrimmed, InvalidInput, LimitExceeded, NotFound
from strata.history.explain import explain
from strata.testing import FakeClock

KEYS_IN_ORDER = [0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 2, 3, 4, 5, 6, 7, 8, 9]  # k0, k1, k10, ...
CHOICE = "strata://main/default/state/choice"


@pytest.fixture(params=databases.KINDS)
def db(request, clock):
    with databases.make(request.param, clock) as database:
        yield database


@pytest.fixture
def versions(db):
    """A choice that came from a plan that came from a price: three transactions that recorded reads."""
    with db.transaction(message="search", actor="scout", record_reads=True) as first:
        first.kv.get("query")
        first.kv.put("price", 900)
        first.events.append("found", {"id": 815})
        first.traces.record("tool_call", "search", id="s", output=[815])
    with db.transaction(message="plan", actor="planner", record_reads=True) as second:
        second.json.set("plan", "$.max", second.kv.get("price") * 2)
        second.traces.record("thought", id="t", output="twice the price")
    db.json.set("plan", "$.city", "Turin")
    with db.transaction(message="decide", actor="boss", record_reads=True, cause="the customer") as third:
        third.state.set("choice", third.json.get("plan", "$.max"))
        third.events.append("decided", {"price": 1800})
    return first.version, second.version, third.version


def by_name(found: Any) -> dict[str, Any]:
    nodes = [node for node in found.walk() if node.ref is not None]
    return {f"{node.ref.primitive}/{node.ref.key}": node for node in reversed(nodes)}


def test_a_value_three_transactions_deep_names_its_writers(db, versions):
    found = db.explain(CHOICE)
    nodes = by_name(found)
    assert [nodes[name].commit.actor for name in ("state/choice", "json/plan", "kv/price")] == [
        "boss", "planner", "scout"
    ]  # fmt: skip
    assert [nodes[name].ref.version for name in ("state/choice", "json/plan", "kv/price")] == [
        *reversed(versions)
    ]
    assert [nodes[name].had_read for name in ("json/plan", "kv/price")] == [2, 2]
    assert render(nodes["json/plan"].ref.path) == "$.max" and nodes["json/plan"].value == 1800
    assert nodes["state/choice"].value.counter == 1
    assert [event.type for event in nodes["state/choice"].events] == ["decided"]
    assert [event.type for event in nodes["kv/price"].events] == ["found"]
    assert [trace.id for trace in nodes["json/plan"].traces] == ["t"]
    assert [trace.id for trace in nodes["kv/price"].traces] == ["s"]
    assert nodes["kv/query"].found == "absent"
    assert found.commit.cause == "the customer" and not found.truncated


def test_it_prints_as_a_tree(db, versions):
    lines = str(db.explain(CHOICE)).splitlines()
    assert lines[0] == f"{CHOICE}@{versions[2]} = 1800 (counter 1)"
    assert lines[1].startswith(f"│ set by commit {versions[2]} on main") and '"decide"' in lines[1]
    assert "│ event main/1 decided" in lines[2]
    text = "\n".join(lines)
    assert f"├─ had read strata://main/default/json/plan#$.max@{versions[1]} = 1800" in text
    assert "scout" in text and "trace s tool_call search: [815]" in text


def test_the_depth_is_how_many_commits_are_told(db, versions):
    for depth, actors in ((1, {"boss"}), (2, {"boss", "planner"}), (3, {"boss", "planner", "scout"})):
        found = db.explain(CHOICE, depth=depth)
        assert {node.commit.actor for node in found.walk() if node.commit} == actors
        assert not found.truncated
    last = by_name(db.explain(CHOICE, depth=1))["json/plan"]
    assert last.value == 1800 and last.ref.version == versions[1] and not last.followed


def test_the_limit_takes_away_what_is_farthest(db):
    for number in range(20):
        with db.transaction(record_reads=True) as tx:
            for other in range(number):
                tx.kv.get(f"k{other}")
            tx.kv.put(f"k{number}", number)
    for limit in (1, 2, 5, 20, 30):
        found = db.explain("strata://main/default/kv/k19", depth=100, limit=limit)
        nodes = list(found.walk())
        assert len(nodes) == limit and found.truncated
        assert [cause.value for cause in found.causes] == KEYS_IN_ORDER[: limit - 1]
        assert found.left_out == max(0, 19 - (limit - 1))
    assert "more was left out" in str(found)


def test_a_tree_of_many_ways_to_the_same_tells_it_once(db):
    """Each reads all before it: 2**19 ways lead to the first."""
    for number in range(20):
        with db.transaction(record_reads=True) as tx:
            for other in range(number):
                tx.kv.get(f"k{other}")
            tx.kv.put(f"k{number}", number)
    found = db.explain("strata://main/default/kv/k19", depth=100, limit=100_000)
    assert not found.truncated
    told = [node.ref for node in found.walk() if node.commit]
    assert len(told) == len(set(told)) == 20
    assert "(explained elsewhere in this tree)" in str(found)


def test_what_was_not_recorded_is_said(db):
    db.kv.put("a", 1)
    found = db.explain("strata://main/default/kv/a")
    assert found.had_read is None and "not recorded" in found.unknown[0]
    with db.transaction() as tx:
        tx.kv.put("a", tx.kv.get("a"))
    assert "not recorded" in db.explain("strata://main/default/kv/a").unknown[0]


def test_a_path_is_explained_by_the_commit_that_touched_it_last(db):
    whole = db.json.set("doc", "$", {"a": {"b": 1}, "list": [1, 2], "still": 0})
    a = db.json.set("doc", "$.a.b", 2)
    listed = db.json.append("doc", "$.list", 3)
    gone = db.json.set("doc", "$.gone", 1) and db.json.delete("doc", "$.gone")

    def version(path: str) -> tuple[Any, Any, str]:
        found = db.explain(EntityRef("main", "default", "json", "doc", strata.core.paths.parse(path)))
        return found.ref.version, found.value, found.found

    assert version("$.a.b") == (a, 2, "value")
    assert version("$.a") == (a, {"b": 2}, "value")
    assert version("$.list[-1]") == (listed, 3, "value")
    assert version("$.list[0]") == (listed, 1, "value")
    assert version("$.still") == (whole, 0, "value")
    assert version("$.gone") == (gone, None, "absent")
    assert version("$.never") == (whole, None, "absent")
    assert version("$")[:1] == (gone,)
    assert db.explain(f"strata://main/default/json/doc#$.a.b@{whole}").value == 1
    db.json.destroy("doc")
    assert version("$.a.b")[2] == "removed"


def test_a_document_that_began_anew_after_it_expired_has_no_older_places(db, clock):
    db.json.create("doc", {"a": 1, "b": 1}, ttl=1)
    clock.advance(2_000_000)
    anew = db.json.set("doc", "$.a", 2)
    found = db.explain("strata://main/default/json/doc#$.b")
    assert (found.found, found.ref.version) == ("absent", anew)


def test_a_path_far_back_costs_no_more_than_the_limit(db):
    first = db.json.set("doc", "$.a", 1)
    for number in range(50):
        db.json.set("doc", "$.b", number)
    ref = "strata://main/default/json/doc#$.a"
    assert db.explain(ref, limit=60).ref.version == first
    found = db.explain(ref, limit=30)
    assert found.value == 1 and found.ref.version is None and found.truncated
    assert "limit" in found.unknown[0]


def test_what_was_removed_or_has_expired_is_explained(db, clock):
    db.kv.put("a", 1)
    with db.transaction(actor="cleaner") as tx:
        tx.kv.delete("a")
    found = db.explain("strata://main/default/kv/a")
    assert (found.found, found.value, found.action) == ("removed", None, "delete")
    assert found.commit.actor == "cleaner"
    version = db.kv.put("b", 1, ttl=1)
    assert db.explain("strata://main/default/kv/b").found == "value"
    clock.advance(2_000_000)
    found = db.explain("strata://main/default/kv/b")
    assert (found.ref.version, found.found, found.commit.version) == (version, "expired", version)
    assert db.explain(f"strata://main/default/kv/b@{version}").found == "value"


def test_causes_are_followed(db):
    price = db.kv.put("price", 1)
    with db.transaction(cause="strata://main/default/kv/price") as by_ref:
        by_ref.kv.put("a", 1)
    with db.transaction(cause=f"commit:{by_ref.version}") as by_commit:
        by_commit.kv.put("b", 1)
    found = db.explain("strata://main/default/kv/b")
    (commit,) = found.causes
    assert (commit.role, commit.found, commit.commit.version) == ("cause", "commit", by_ref.version)
    assert [ref.key for ref in commit.also_wrote] == ["a"]
    (ref,) = commit.causes
    assert (ref.role, ref.ref.version, ref.value) == ("cause", price, 1)
    db.kv.put("price", 2)
    assert by_name(db.explain("strata://main/default/kv/a"))["kv/price"].value == 1, "as it was then"


@pytest.mark.parametrize(
    "cause",
    ["commit:99999999999", "commit:x", "commit:0", "strata://nowhere/default/kv/a", "strata://x", "why not",
     "strata://main/default/nothing/a", "strata://main/default/kv/a@99999", "strata://main/default/kv/none"],
)  # fmt: skip
def test_a_cause_that_leads_nowhere_harms_nobody(db, cause):
    with db.transaction(cause=cause) as tx:
        tx.kv.put("a", 1)
    found = db.explain("strata://main/default/kv/a")
    assert found.commit.cause == cause and cause in str(found)


def test_traces_that_name_it_are_found(db):
    version = db.kv.put("a" * 1000, 1)
    ref = EntityRef("main", "default", "kv", "a" * 1000, None, version)
    db.space("other").traces.record("decision", id="names it", writes=[ref])
    db.traces.record("decision", id="names another version", writes=[f"{str(ref)[:-1]}9"])
    with db.transaction() as tx:
        tx.kv.put("b", 1)
        tx.traces.record("decision", id="beside it", writes=["strata://main/default/kv/b"])
    assert [trace.id for trace in db.explain(ref).named_by] == ["names it"]
    found = db.explain("strata://main/default/kv/b")
    assert ([trace.id for trace in found.traces], found.named_by) == (["beside it"], ())


def test_ranges_that_were_read_are_followed(db):
    version = db.kv.put_many({f"in/{number:02}": number for number in range(15)})
    with db.transaction(record_reads=True) as tx:
        tx.kv.put("sum", sum(value for _, value in tx.kv.scan("in/")))
    found = db.explain("strata://main/default/kv/sum")
    (span,) = found.causes
    assert span.found == "range" and "in/" in span.label and len(span.causes) == 10
    assert "first 10" in span.unknown[0]
    assert [cause.ref.version for cause in span.causes] == [version] * 10
    with db.transaction(record_reads=True) as tx:
        tx.kv.put("n", len(list(tx.events.range())) + len(list(tx.traces.list())) + tx.kv.count())
    assert "found by what they are" in str(db.explain("strata://main/default/kv/n"))


def test_what_a_fork_inherits_is_explained_on_it(db, versions):
    fork = db.branches.fork("main", "draft")
    found = db.explain("strata://draft/default/state/choice")
    assert {node.commit.actor for node in found.walk() if node.commit} == {"boss", "planner", "scout"}
    assert found.commit.branch == "main" and found.ref.branch == "draft"
    with fork.transaction(record_reads=True, actor="draughtsman") as tx:
        tx.state.set("choice", tx.state.get("choice") + 1)
    found = db.explain("strata://draft/default/state/choice", depth=4)
    assert [node.commit.actor for node in found.walk() if node.commit] == [
        "draughtsman", "boss", "planner", "scout"
    ]  # fmt: skip
    db.branches.fork("draft", "deep")
    db.branches.delete("draft")
    assert db.explain("strata://deep/default/state/choice", depth=4).causes


def test_of_an_earlier_version_it_is_what_was_known_then(db):
    first = db.kv.put("a", 1)
    db.kv.put("b", 1)
    db.kv.put("a", 2)
    found = db.explain(f"strata://main/default/kv/a@{first + 1}")
    assert (found.ref.version, found.value) == (first, 1)


def test_every_primitive_can_be_asked_about(db):
    db.state.set("s", 1)
    db.events.append("a", {"b": 1}, stream="a/b")
    db.traces.record("thought", id="t")
    run = db.runs.begin(id="r")
    run.end()
    for what, key in (("state", "s"), ("events", "a/b/0"), ("traces", "t"), ("runs", "r")):
        found = db.explain(EntityRef("main", "default", what, key))
        assert found.commit is not None and found.action
        json.dumps(found.to_dict(), allow_nan=False)
    assert found.value.status == "completed"


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("", InvalidInput),
        ("kv/a", InvalidInput),
        ("strata://main/default/kv", InvalidInput),
        (7, InvalidInput),
        (None, InvalidInput),
        ("strata://nowhere/default/kv/a", NotFound),
        ("strata://main/nowhere/kv/a", NotFound),
        ("strata://main/default/nothing/a", InvalidInput),
        ("strata://main/default/kv/none", NotFound),
        ("strata://main/default/kv/a@999", InvalidInput),
        ("strata://main/default/kv/a@0", NotFound),
        ("strata://main/default/events/main", InvalidInput),
        ("strata://main/default/events/main/x", InvalidInput),
        ("strata://main/default/events/main/99999999999999999999999", InvalidInput),
        ("strata://main/default/events/main/7", NotFound),
        ("strata://main/default/state/s#$.a", InvalidInput),
        ("strata://main/default/kv/a#nonsense", InvalidInput),
        (f"strata://main/default/kv/{'a' * 2000}", LimitExceeded),
    ],
)
def test_what_cannot_be_explained_is_told(db, ref, error):
    db.kv.put("a", 1)
    with pytest.raises(error):
        db.explain(ref)


@pytest.mark.parametrize(
    "limits", [{"depth": 0}, {"depth": -1}, {"depth": 1.5}, {"limit": 0}, {"limit": None}, {"depth": 101}]
)
def test_limits_that_make_no_sense(db, limits):
    db.kv.put("a", 1)
    with pytest.raises((InvalidInput, LimitExceeded)):
        db.explain("strata://main/default/kv/a", **limits)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_is_in_the_data_is_no_html_and_moves_no_cursor(db):
    bad = "<script>alert('x')</script>\x1b[2J\n\"&"
    key = bad.replace("\n", "")
    with db.transaction(message=bad, actor=bad, cause=bad, record_reads=True) as tx:
        tx.kv.get(key + "2")
        tx.kv.put(key, {bad: bad})
        tx.kv.put("other" + key, 1)
        tx.events.append("a<b>", {bad: bad})
        tx.traces.record("error", bad.replace("\n", "").replace("\x1b", ""), error=bad, output=bad)
    found = db.explain(EntityRef("main", "default", "kv", key))
    tags = _Tags()
    tags.feed(found.to_html())
    assert tags.seen == {"div", "details", "summary", "code", "ul", "li"} and not tags.open
    assert found.to_html() == found._repr_html_()
    assert all(line.isprintable() for line in str(found).split("\n"))
    assert repr(found).isprintable() and len(repr(found)) < 400


def test_it_can_be_had_as_json(db, versions):
    told = json.loads(json.dumps(db.explain(CHOICE).to_dict(), allow_nan=False))
    assert told["ref"] == f"{CHOICE}@{versions[2]}" and told["truncated"] is False
    assert told["commit"]["actor"] == "boss" and told["causes"]


def test_nothing_is_written(db, versions):
    before = [(info.name, info.head) for info in db.branches.list()]
    db.explain(CHOICE)
    assert before == [(info.name, info.head) for info in db.branches.list()]


def test_what_retention_let_go_of_is_said_below_the_root(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.retention.set(KeepLast(1), primitive="kv")
        first = db.kv.put("price", 1)
        with db.transaction(record_reads=True, actor="me") as tx:
            tx.state.set("choice", tx.kv.get("price"))
        for number in range(5):
            db.kv.put("price", number)
        db.compact()
        with pytest.raises(HistoryTrimmed):
            db.explain(f"strata://main/default/kv/price@{first}")
        found = db.explain(CHOICE)
        price = by_name(found)["kv/price"]
        assert found.commit.actor == "me" and price.found == "trimmed" and price.value is None
        assert "retention" in price.unknown[0] and "retention" in found.unknown[0]
        assert "not known any more" in str(found)


def test_what_a_merge_brought_is_explained_on_the_branch_it_came_from(db):
    db.kv.put("a", 0)
    draft = db.branches.fork("main", "draft")
    with draft.transaction(actor="draughtsman") as tx:
        tx.kv.put("a", 1)
        tx.json.set("doc", "$.theirs", 1)
    db.json.set("doc", "$.ours", 1)
    merged = db.branches.merge("draft", "main")
    found = db.explain("strata://main/default/kv/a")
    assert found.ref.version == merged.version and not found.unknown
    (source,) = found.causes
    assert (source.role, source.ref.branch, source.ref.version) == ("merged", "draft", tx.version)
    assert source.commit.actor == "draughtsman"
    # What both sides made is from both.
    found = db.explain("strata://main/default/json/doc")
    assert found.value == {"ours": 1, "theirs": 1}
    assert [(cause.role, cause.value) for cause in found.causes] == [
        ("merged", {"theirs": 1}), ("before", {"ours": 1})
    ]  # fmt: skip
    assert db.explain("strata://main/default/json/doc#$.ours").commit.version < merged.version
    (source,) = db.explain("strata://main/default/json/doc#$.theirs").causes
    assert (source.value, source.commit.actor) == (1, "draughtsman")
    db.branches.delete("draft")
    assert "was deleted" in db.explain("strata://main/default/kv/a").unknown[0]


def test_a_value_is_followed_over_two_merges_to_its_reads(db):
    db.kv.put("price", 900)
    one, two = db.branches.fork("main", "one"), db.branches.fork("main", "two")
    with one.transaction(record_reads=True, actor="first") as tx:
        tx.kv.put("total", tx.kv.get("price") * 2)
    db.branches.merge("one", "two")
    two.kv.put("else", 1)
    db.branches.merge("two", "main")
    found = db.explain("strata://main/default/kv/total", depth=9)
    path = [(node.role, node.ref.branch, node.value) for node in found.walk() if node.value is not None]
    assert path == [
        ("", "main", 1800), ("merged", "two", 1800), ("merged", "one", 1800), ("read", "one", 900)
    ]  # fmt: skip


def test_an_event_that_a_merge_brought_is_explained_where_it_was_appended(db):
    with db.branches.fork("main", "draft").transaction(actor="draughtsman") as tx:
        tx.events.append("said", {"a": 1})
    db.events.append("said", {"b": 1})
    db.branches.merge("draft", "main")
    found = db.explain("strata://main/default/events/main/1")
    (source,) = found.causes
    assert (source.role, source.ref.branch, source.commit.actor) == ("merged", "draft", "draughtsman")
    # Over two branches: the middle one has another event under that sequence.
    middle = db.branches.fork("main", "middle", at=0)
    middle.events.append("said", {"c": 1})
    db.branches.merge("main", "middle")
    number = next(event.sequence for event in middle.events if event.payload == {"a": 1})
    (source,) = db.explain(f"strata://middle/default/events/main/{number}").causes
    assert (source.ref.branch, source.value.payload) == ("draft", {"a": 1})
    db.branches.delete("draft")
    assert "none of that name" in str(db.explain("strata://main/default/events/main/1"))
    db.branches.create("draft").events.append("said", {"another": 1})
    assert "does not have it" in str(db.explain("strata://main/default/events/main/1"))


@pytest.mark.parametrize("kind", stores.KINDS)
@settings(max_examples=40, deadline=None)
@given(commits=COMMITS)
def test_the_commit_that_is_named_is_the_last_that_changed_it(kind: str, commits: Any) -> None:
    clock = FakeClock()
    store = stores.make(kind, clock)
    grow(store, clock, commits)
    branch = store.branch("b")
    for space in branch.spaces():
        face = stores.Face(branch, space)
        for doc in face.json.list():
            for path in (("a",), ("a", "b"), ("l",), ("l", 0), ()):
                found = explain(store, EntityRef("b", space, "json", doc, path), 1, 1000)
                now = face.json.get(doc, render(path), "absent")
                assert now == (found.value if found.found == "value" else "absent")
                assert found.ref is not None and found.ref.version is not None
                for commit in branch.commits(found.ref.version - 1, None, False, None):
                    then = stores.Face(branch.view(commit.version), space).json
                    assert then.get(doc, render(path), "absent") == now
        for key in face.kv:
            found = explain(store, EntityRef("b", space, "kv", key), 1, 10)
            entry = face.kv.entry(key)
            assert entry is not None and found.ref is not None and found.commit is not None
            assert (found.value, found.ref.version) == (entry.value, entry.version) or "nan" in repr(entry)
    store.close()


def test_oracle_and_kernel_explain_alike():
    told = []
    for kind in databases.KINDS:
        with databases.make(kind, FakeClock()) as db:
            for number in range(9):
                with db.transaction(record_reads=True, cause=f"commit:{number}") as tx:
                    tx.kv.incr(f"k{number % 3}")
                    tx.kv.get(f"k{(number + 1) % 3}")
                    list(tx.kv.scan(f"k{number % 2}"))
                    tx.json.set("doc", f"$.a{number % 2}", tx.json.get("doc", "$.a1"))
                    with contextlib.suppress(StrataError):
                        tx.state.transition("s", lambda value: (value or 0) + 1)
            told.append(
                [
                    db.explain(f"strata://main/default/{name}", depth=9).to_dict()
                    for name in ("kv/k0", "state/s", "json/doc#$.a1")
                ]
            )
    assert told[0] == told[-1]
