"""What others recorded, as events and traces: every field may be wrong, and then nothing is written."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import threading

import databases
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strata
from strata.core.refs import EntityRef
from strata.errors import AlreadyExists, InvalidInput, LimitExceeded, NotFound, StrataError

TRACE = "5b8efff798038103d269b633813fc60c"
START = 1_544_712_660_000_000_000


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


def span(number, parent=None, **fields):
    found = {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": f"span {number}",
        "startTimeUnixNano": str(START + number * 1000),
        "endTimeUnixNano": str(START + number * 1000 + 5_000_000),
    }
    if parent is not None:
        found["parentSpanId"] = f"{parent:016x}"
    return found | fields


def id_of(number):
    return f"{TRACE}-{number:016x}"


def otlp(*spans, **resource):
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def attribute(key, **value):
    return {"key": key, "value": value}


def contents(db):
    return db.version, list(db.traces.list()) if "default" in db.spaces else [], db.events.streams()


# -- spans -----------------------------------------------------------------------------------------


def test_a_span_with_everything(db):
    made = db.ingest_otlp(
        otlp(
            span(1, name="execute_tool search", kind=3, traceState="a=b", flags=1, unheardOf=[{}],
                 attributes=[
                     attribute("gen_ai.operation.name", stringValue="execute_tool"),
                     attribute("gen_ai.tool.name", stringValue="search"),
                     attribute("gen_ai.tool.call.arguments", stringValue='{"q": 1}'),
                     attribute("gen_ai.tool.call.result", arrayValue={"values": [{"intValue": "7"}, {}]}),
                     attribute("i", intValue=-5), attribute("b", boolValue=False),
                     attribute("d", doubleValue=1),
                     attribute("n", doubleValue="NaN"), attribute("bytes", bytesValue="AAE="),
                     attribute("none"),
                     attribute("m", kvlistValue={"values": [attribute("x", stringValue="")]}),
                     attribute("e", arrayValue={}),
                 ],
                 events=[{"name": "retry", "timeUnixNano": START,
                          "attributes": [attribute("n", intValue=2)]}],
                 links=[{"traceId": TRACE, "spanId": "00f067aa0ba902b7"}],
                 status={"code": 2, "message": "timed out"}),
            attributes=[attribute("service.name", stringValue="agent")],
        ),
        tags=["imported"],
    )  # fmt: skip
    assert (made.traces, made.events, made.skipped, made.version) == (1, 0, 0, db.version)
    trace = db.traces.get(id_of(1))
    assert (trace.kind, trace.name, trace.error, trace.tags) == (
        "tool_call", "search", "timed out", ("imported",),
    )  # fmt: skip
    assert (trace.started_us, trace.duration_us) == ((START + 1000) // 1000, 5_000)
    assert (trace.input, trace.output) == ('{"q": 1}', [7, None])
    attributes = trace.metadata.pop("attributes")
    assert trace.metadata == {
        "name": "execute_tool search", "span_kind": "client", "trace_state": "a=b",
        "resource": {"service.name": "agent"},
        "events": [{"name": "retry", "time_us": START // 1000, "attributes": {"n": 2}}],
        "links": [{"id": f"{TRACE}-00f067aa0ba902b7"}],
    }  # fmt: skip
    assert math.isnan(attributes.pop("n"))
    assert {name: attributes[name] for name in ("i", "b", "d", "bytes", "none", "m", "e")} == {
        "i": -5, "b": False, "d": 1.0, "bytes": b"\0\1", "none": None, "m": {"x": ""}, "e": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ([], "custom"),
        ([attribute("gen_ai.operation.name", stringValue="chat")], "thought"),
        ([attribute("gen_ai.operation.name", stringValue="embeddings")], "query"),
        ([attribute("openinference.span.kind", stringValue="TOOL")], "tool_call"),
        ([attribute("openinference.span.kind", stringValue="RETRIEVER")], "query"),
        ([attribute("gen_ai.operation.name", intValue=3)], "custom"),
    ],
)
def test_kinds(db, attributes, kind):
    db.ingest_otlp(otlp(span(1, attributes=attributes)))
    assert [trace.kind for trace in db.traces] == [kind]


def test_names_that_are_no_trace_names(db):
    for number, name in enumerate(["", "n" * 300, "a\nb", "__x", "ü" * 200, "\0"], 1):
        db.ingest_otlp(otlp(span(number, name=name)))
        trace = db.traces.get(id_of(number))
        assert (
            len(trace.name.encode()) <= 255 and trace.metadata.get("name", trace.name) == name
        ) or not name


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-1, 40), max_size=25), st.integers(0, 99), st.sampled_from(databases.KINDS))
def test_random_trees_in_any_order_and_in_any_parts(parents, seed, kind):
    """However the spans are shuffled, nested in resources and cut into files, the same tree comes out."""
    spans = [span(n + 1, parent % n + 1 if n and parent >= 0 else None) for n, parent in enumerate(parents)]
    chance = random.Random(seed)
    chance.shuffle(spans)
    half = chance.randint(0, len(spans))
    lines = [otlp(*spans[:half]), otlp(*spans[half:]), otlp(*chance.sample(spans, min(3, len(spans))))]
    with databases.make(kind) as db:
        made = db.ingest_otlp(io.StringIO("\n".join(map(json.dumps, lines))))
        assert (made.traces, made.skipped) == (len(spans), 0)
        for one in spans:
            trace = db.traces.get(f"{TRACE}-{one['spanId']}")
            assert trace.parent == (f"{TRACE}-{one['parentSpanId']}" if "parentSpanId" in one else None)
        again = db.ingest_otlp(otlp(*spans))
        assert (again.traces, again.skipped, db.traces.count()) == (0, len(spans), len(spans))


def test_parts_that_come_one_by_one(db):
    db.ingest_otlp(otlp(span(1)))
    made = db.ingest_otlp(otlp(span(3, 2), span(2, 1), span(1)))
    assert (made.traces, made.skipped) == (2, 1)
    assert [depth for depth, _ in db.traces.tree(id_of(1)).walk()] == [0, 1, 2]


def test_parents_that_are_missing(db):
    before = contents(db)
    with pytest.raises(InvalidInput) as caught:
        db.ingest_otlp(otlp(span(1), span(3, 2)))
    assert "spans[1].parentSpanId" in str(caught.value) and "roots" in caught.value.hint
    assert contents(db) == before
    db.ingest_otlp(otlp(span(1), span(3, 2), span(4, 3)), missing_parents="roots")
    assert [trace.id for trace in db.traces.roots()] == [id_of(1), id_of(3)]
    assert db.traces.get(id_of(3)).metadata["parent"] == id_of(2)
    assert db.traces.get(id_of(4)).parent == id_of(3)


@pytest.mark.parametrize("spans", [[span(1, 1)], [span(1, 2), span(2, 1)],
[span(9), span(1, 2), span(2, 3), span(3, 1)],
                                   [span(4, 1), span(1, 2), span(2, 1)]])  # fmt: skip
@pytest.mark.parametrize("missing", ["refuse", "roots"])
def test_parents_in_a_circle(db, spans, missing):
    before = contents(db)
    with pytest.raises(InvalidInput) as caught:
        db.ingest_otlp(otlp(*spans), missing_parents=missing)
    assert "parentSpanId" in str(caught.value) and contents(db) == before


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"traceId": None}, "traceId"), ({"traceId": "abc"}, "traceId"), ({"traceId": "0" * 32}, "traceId"),
        ({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, "traceId"), ({"traceId": 7}, "traceId"),
        ({"traceId": "g" * 32}, "traceId"), ({"spanId": ""}, "spanId"), ({"spanId": "ab" * 16}, "spanId"),
        ({"parentSpanId": "xyz"}, "parentSpanId"), ({"parentSpanId": 7}, "parentSpanId"),
        ({"name": 7}, "name"),
        ({"startTimeUnixNano": None}, "startTimeUnixNano"), ({"startTimeUnixNano": "0"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": "-5"}, "startTimeUnixNano"), ({"startTimeUnixNano": 1.5}, "startTimeUnixNano"),
        ({"startTimeUnixNano": str(2**64)}, "startTimeUnixNano"),
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano"),
        ({"startTimeUnixNano": True}, "startTimeUnixNano"), ({"endTimeUnixNano": "1"}, "endTimeUnixNano"),
        ({"endTimeUnixNano": []}, "endTimeUnixNano"), ({"attributes": {}}, "attributes"),
        ({"attributes": [7]}, "attributes[0]"), ({"attributes": [{"key": 7}]}, "attributes[0].key"),
        ({"attributes": [attribute("a", intValue="x")]}, "attributes[0].value.intValue"),
        ({"attributes": [attribute("a", intValue=2**63)]}, "attributes[0].value.intValue"),
        ({"attributes": [attribute("a", intValue=1.5)]}, "attributes[0].value.intValue"),
        ({"attributes": [attribute("a", stringValue=1)]}, "attributes[0].value.stringValue"),
        ({"attributes": [attribute("a", boolValue="true")]}, "attributes[0].value.boolValue"),
        ({"attributes": [attribute("a", doubleValue="x")]}, "attributes[0].value.doubleValue"),
        ({"attributes": [attribute("a", doubleValue=10**400)]}, "attributes[0].value.doubleValue"),
        ({"attributes": [attribute("a", bytesValue="?")]}, "attributes[0].value.bytesValue"),
        ({"attributes": [attribute("a", bytesValue="ü")]}, "attributes[0].value.bytesValue"),
        ({"attributes": [attribute("a", listValue=[])]}, "attributes[0].value.listValue"),
        ({"attributes": [attribute("a", intValue=1, boolValue=True)]}, "attributes[0].value"),
        ({"attributes": [attribute("a"), attribute("a")]}, "attributes[1].key"),
        ({"attributes": [attribute("\ud800")]}, ""),
        ({"attributes": [attribute("a", stringValue="\ud800")]}, ""),
        ({"attributes": [attribute("a", arrayValue={"values": [{"x": 1}]})]}, "arrayValue.values[0].x"),
        ({"attributes": [attribute("a", arrayValue=[])]}, "arrayValue"),
        ({"events": [{"timeUnixNano": "x"}]}, "events[0].timeUnixNano"),
        ({"events": [{"name": 1}]}, "events[0].name"),
        ({"links": [{"traceId": TRACE, "spanId": ""}]}, "links[0].spanId"), ({"links": 7}, "links"),
        ({"status": []}, "status"), ({"status": {"code": []}}, "status.code"),
        ({"status": {"message": 7}}, "status.message"), ({"kind": 6}, "kind"),
        ({"kind": "SPAN_KIND_X"}, "kind"),
        ({"kind": {}}, "kind"), ({"traceState": 7}, "traceState"),
    ],
    ids=repr,
)  # fmt: skip
def test_every_field_of_a_span_may_be_wrong(db, fields, place):
    before = contents(db)
    lines = [otlp(span(1)), otlp(span(2), span(3, **fields))]
    text = "\n\n".join(map(json.dumps, lines))
    with pytest.raises(InvalidInput) as caught:
        db.ingest_otlp(io.StringIO(text))
    assert f"line 3: resourceSpans[0].scopeSpans[0].spans[1]{'.' if place else ''}" in str(caught.value)
    assert place in str(caught.value) and contents(db) == before


@pytest.mark.parametrize(
    "document", [[], {}, {"resourceSpans": 7}, {"resourceSpans": [7]}, {"resourceLogs": []},
                 {"resourceSpans": [{"scopeSpans": {}}]},
                 {"resourceSpans": [{"scopeSpans": [{"spans": [[]]}]}]},
                 {"resourceSpans": [{"resource": 7}]}, {"resourceSpans": [{"scopeSpans": [{"scope": "x"}]}]},
                 otlp(span(1), span(1, name="other")), otlp(span(1), attributes=7)],
    ids=repr,
)  # fmt: skip
def test_documents_that_are_not_otlp(db, document):
    before = contents(db)
    with pytest.raises(InvalidInput):
        db.ingest_otlp(document)
    assert contents(db) == before


def test_nothing_in_it(db):
    for document in ({"resourceSpans": []}, {"resourceSpans": None}, otlp()):
        made = db.ingest_otlp(document)
        assert (made.traces, made.skipped, made.version) == (0, 0, db.version)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", "empty"), (b" \n\n", "empty"), (b"{", "line 1"), (b"{}\n{", "line 2"),
        (b"[1,\n2,\n}", "line 3"),
        (b'{"resourceSpans": [NaN]}', "NaN"), (b"\xff\xfe", "line 1"), (b'{}\n"\xff"', "line 2"),
        (b"[" * 100_000, "too deep"), (b'{"a": ' + b"9" * 5000 + b"}", "JSON"), (b"hello", "line 1"),
        (b'{"resourceSpans": []}\nhello', "line 2"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_files_that_are_no_json(db, tmp_path, content, place):
    file = tmp_path / "spans.json"
    file.write_bytes(content)
    before = contents(db)
    for ingest in (db.ingest_otlp, db.ingest_transcript):
        for source in (file, str(file), io.BytesIO(content)):
            with pytest.raises(InvalidInput) as caught:
                ingest(source)
            assert place in str(caught.value)
    assert contents(db) == before


def test_sources(db, tmp_path, monkeypatch):
    pretty, lines = tmp_path / "a.json", tmp_path / "b.jsonl"
    pretty.write_text(json.dumps(otlp(span(1)), indent=2), encoding="utf-8-sig")
    lines.write_text("\n" + json.dumps(otlp(span(2))) + "\n \r\n" + json.dumps(otlp(span(3))) + "\n")
    with pretty.open("rb") as file:
        assert db.ingest_otlp(file).traces == 1
    assert db.ingest_otlp(lines).traces == 2
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(NotFound) as caught:
            db.ingest_otlp(missing)
        assert caught.value.what == "file"
    for wrong in (7, None, b"{}", {1}):
        with pytest.raises(InvalidInput):
            db.ingest_otlp(wrong)
    for wrong in ({"missing_parents": "drop"}, {"missing_parents": None}, {"tags": "x"}, {"tags": [7]}):
        with pytest.raises(InvalidInput):
            db.ingest_otlp(otlp(), **wrong)
    monkeypatch.setattr("strata.api.documents.MAX_BYTES", 10)
    with pytest.raises(LimitExceeded):
        db.ingest_otlp(lines)


def test_ingest_into_a_branch_a_space_and_a_run(db):
    run = db.runs.begin()
    run.ingest_otlp(otlp(span(1)))
    run.space("s").ingest_transcript([{"role": "user", "content": "hi"}])
    assert run.traces.count() == 1 and db.traces.count() == 0 and len(run.space("s").events) == 1


# -- transcripts -----------------------------------------------------------------------------------


def tool_call(id, name="search", arguments='{"q": "tides"}'):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "When is high tide?"}]},
    {"role": "assistant", "content": None,
     "tool_calls": [tool_call("c1"), tool_call("c2", "clock", "no json")]},
    {"role": "tool", "tool_call_id": "c2", "content": "12:00"},
    {"role": "tool", "tool_call_id": "c1", "content": "at 14:10"},
    {"role": "assistant", "content": "In two hours."},
]  # fmt: skip


def test_a_transcript(db):
    db.events.append("before", {})
    made = db.ingest_transcript(CHAT, id="chat", tags=["t"])
    assert (made.traces, made.events, made.skipped, made.version) == (5, 6, 0, db.version)
    assert [event.payload for event in db.events.by_type("message")] == CHAT and db.events.verify().ok
    tree = db.traces.tree("chat")
    assert (
        str(tree) == "custom conversation\n  thought\n    tool_call search 0.0 ms\n"
        "    tool_call clock 0.0 ms\n  thought"
    )
    _, _, search, clock, answer = (trace for _, trace in tree.walk())
    assert (search.input, search.output, clock.input, clock.output) == (
        {"q": "tides"}, "at 14:10", "no json", "12:00",
    )  # fmt: skip
    assert answer.output == "In two hours." and answer.tags == ("t",)
    assert search.writes == (EntityRef("main", "default", "events", "main/5", None, made.version),)
    for _, trace in tree.walk():
        sequence = int(trace.writes[0].key.rpartition("/")[2])
        event = db.events.get(sequence)
        assert event.version == trace.version
        assert trace.output in (None, event.payload["content"])


def test_the_same_again_adds_nothing(db):
    first = db.ingest_transcript(CHAT)
    before = contents(db)
    again = db.ingest_transcript({"messages": CHAT})
    assert (again.traces, again.events, again.skipped, again.version) == (0, 0, 1, first.version)
    assert contents(db) == before
    db.ingest_transcript(CHAT, id="mine")
    assert db.ingest_transcript(CHAT, id="mine").skipped == 1
    before = contents(db)
    with pytest.raises(AlreadyExists) as caught:
        db.ingest_transcript(CHAT[:2], id="mine")
    assert caught.value.name == "mine" and contents(db) == before


def test_forms_of_files(db):
    def one(*lines):
        return io.StringIO("\n".join(json.dumps(line) for line in lines))

    forms = [one(*CHAT), one({"messages": CHAT, "tools": []}), one(CHAT),
             io.StringIO(json.dumps(CHAT, indent=1)),
             {"messages": CHAT}, CHAT]  # fmt: skip
    for number, form in enumerate(forms):
        assert db.ingest_transcript(form).skipped == (number > 0)
    many = db.ingest_transcript(
        one({"messages": CHAT[:1]}, {"messages": CHAT[:2]}, {"messages": []}), stream="s"
    )
    assert (many.traces, many.events) == (2, 3) and db.events.len("s") == 3
    with pytest.raises(InvalidInput):
        db.ingest_transcript(one({"messages": CHAT[:1]}, {"messages": CHAT[:2]}), id="one")


def test_times(db):
    chat = [{"role": "user", "content": "a", "at": 1_700_000_000},
            {"role": "assistant", "tool_calls": [tool_call("c")], "at": "2023-11-14T22:13:21Z"},
            {"role": "tool", "tool_call_id": "c", "content": "x", "at": 1_700_000_003.5},
            {"role": "assistant", "content": "b"}]  # fmt: skip
    db.ingest_transcript(chat, id="c", time_field="at")
    root, thought, call, last = db.traces.list()
    assert [trace.started_us - 1_700_000_000_000_000 for trace in (root, thought, call, last)] == [
        0, 1_000_000, 1_000_000, 3_500_000,
    ]  # fmt: skip
    assert call.duration_us == 2_500_000
    for wrong in ("yesterday", "2026-01-01T00:00", -1, 1e300, [], True):
        with pytest.raises(InvalidInput) as caught:
            db.ingest_transcript([{"role": "user", "content": "x", "at": wrong}], time_field="at")
        assert "[0].at" in str(caught.value)


def test_older_and_odd_calls(db):
    chat = [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": "", "refusal": None, "tool_calls": None},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant",
         "tool_calls": [{"id": "x", "type": "custom", "custom": {"name": "g", "input": "in"}}]},
        {"role": "tool", "tool_call_id": "x", "content": "2"},
        {"role": "assistant", "tool_calls": [tool_call("x", "unanswered", {"a": 1})]},
        {"role": "assistant", "tool_calls": [tool_call("y", "huge", '{"n": NaN, "m": 1e999}')]},
    ]  # fmt: skip
    db.ingest_transcript(chat, id="c")
    calls = {
        trace.name: (trace.input, trace.output, trace.ended is None)
        for trace in db.traces.by_kind("tool_call")
    }
    assert calls == {"f": ({}, "1", False), "g": ("in", "2", False), "unanswered": ({"a": 1}, None, True),
                     "huge": ('{"n": NaN, "m": 1e999}', None, True)}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (7, ""), ({}, "role"), ({"role": "robot", "content": ""}, "role"),
        ({"role": 7, "content": ""}, "role"),
        ({"role": "user"}, "content"), ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": 7}, "content"), ({"role": "user", "content": [7]}, "content[0]"),
        ({"role": "user", "content": [{}]}, "content[0].type"), ({"role": "user", "content": {}}, "content"),
        ({"role": "user", "content": "x", "n": 2**70}, ""), ({"role": "user", "content": "\ud800"}, ""),
        ({"role": "user", "content": "x", "tool_calls": [tool_call("z")]}, "tool_calls"),
        ({"role": "assistant"}, "content"), ({"role": "assistant", "tool_calls": {}}, "tool_calls"),
        ({"role": "assistant", "tool_calls": [7]}, "tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, "tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{"id": "z"}]}, "tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": [{"id": "z", "function": 7}]}, "tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": [{"id": "z", "type": "x"}]}, "tool_calls[0].type"),
        ({"role": "assistant", "tool_calls": [tool_call("z", 7)]}, "tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": [tool_call("z", "f", 7)]}, "tool_calls[0].function.arguments"),
        ({"role": "assistant", "tool_calls": [tool_call("z"), tool_call("z")]}, "tool_calls"),
        ({"role": "assistant", "function_call": 7}, "function_call"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": "nobody"}, "tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": "done"}, "tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": 7}, "tool_call_id"),
        ({"role": "function", "content": "x", "name": "f"}, "name"),
    ],
    ids=repr,
)  # fmt: skip
def test_every_field_of_a_message_may_be_wrong(db, message, place):
    before = contents(db)
    good = [{"role": "assistant", "tool_calls": [tool_call("done")]},
            {"role": "tool", "content": "", "tool_call_id": "done"}]  # fmt: skip
    with pytest.raises(InvalidInput) as caught:
        db.ingest_transcript(io.StringIO("\n".join(map(json.dumps, [*good, message]))))
    assert "line 3: " in str(caught.value) and place in str(caught.value)
    with pytest.raises(InvalidInput) as caught:
        db.ingest_transcript([*good, message])
    assert f"[2]{'.' if place else ''}{place}" in str(caught.value)
    assert contents(db) == before


def test_options_that_are_wrong(db):
    for wrong in (
        {"stream": "_x"},
        {"stream": ""},
        {"id": "_x"},
        {"id": 7},
        {"time_field": 7},
        {"tags": "x"},
    ):
        with pytest.raises(InvalidInput):
            db.ingest_transcript(CHAT, **wrong)
    assert db.version == 0


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["c1", "tool", "0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def places(value, path=()):
    yield path
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in rows:
        yield from places(below, (*path, key))


def with_junk(document, path, junk):
    if not path:
        return junk
    found = document = copy.deepcopy(document)
    for key in path[:-1]:
        found = found[key]
    found[path[-1]] = junk
    return document


RICH = otlp(
    span(
        1, kind=1, attributes=[attribute("a", arrayValue={"values": [{"intValue": 1}]})], status={"code": 2}
    ),
    span(2, 1, events=[{"name": "e", "timeUnixNano": "5"}], links=[{"traceId": TRACE, "spanId": "1" * 16}]),
    attributes=[attribute("m", kvlistValue={"values": [attribute("x", doubleValue=1)]})],
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), JUNK, st.sampled_from(["otlp", "openai"]))
def test_junk_anywhere_is_taken_or_refused_as_a_whole(data, junk, kind):
    """One value of a good document is replaced by anything: our error and nothing written, or all of it."""
    document = RICH if kind == "otlp" else {"messages": CHAT}
    path = data.draw(st.sampled_from(list(places(document))))
    spoilt = with_junk(document, path, junk)
    with strata.Database(strata.testing.Model()) as db:
        ingest = db.ingest_otlp if kind == "otlp" else db.ingest_transcript
        try:
            made = ingest(spoilt)
        except StrataError:
            assert db.version == 0
        else:
            assert db.traces.count() == made.traces and db.events.len() == made.events


def test_others_append_meanwhile(db):
    """A trace points at the event of its message, wherever that came to lie."""

    def append():
        for number in range(300):
            db.events.append("noise", {"n": number})

    thread = threading.Thread(target=append)
    thread.start()
    for number in range(10):
        db.ingest_transcript([{"role": "assistant", "content": f"text {number}"}])
    thread.join()
    for trace in db.traces.by_kind("thought"):
        sequence = int(trace.writes[0].key.rpartition("/")[2])
        assert db.events.get(sequence).payload["content"] == trace.output
