"""OpenTelemetry spans as traces: OTLP in JSON, as exporters write it to files and send it by HTTP.

    resourceSpans[].resource.attributes             metadata.resource
    resourceSpans[].scopeSpans[].scope              metadata.scope
    ....spans[]  traceId, spanId                    id: the two as hex digits with "-" between
                 parentSpanId                       parent, in the same trace
                 name                               name
                 startTimeUnixNano, endTimeUnixNano started, ended: nanoseconds become microseconds
                 attributes, events, links          metadata.attributes, .events, .links
                 status                             error, when its code is 2
                 kind                               metadata.span_kind

Ids are hex, 64-bit integers are decimal texts or numbers, fields that are not known are passed over: that is
what the protocol says. The kind of a trace follows from the attributes that the conventions for generative
models and OpenInference have (KINDS); what has none of them is `custom`.

Invariant: spans are recorded parents first, whatever the order they come in, so parents exist and never make
a cycle; what cannot be put in such an order is refused.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass
from typing import Any, Final

from strata.api.documents import Part, cut
from strata.api.ingest import MissingParents
from strata.core.errors import InvalidInput
from strata.core.keys import MAX_NAME_BYTES
from strata.core.values import INT_MAX, INT_MIN, MAX_DEPTH, same

KINDS: Final[dict[str, dict[str, str]]] = {
    "gen_ai.operation.name": {
        "execute_tool": "tool_call",
        "chat": "thought",
        "text_completion": "thought",
        "generate_content": "thought",
        "embeddings": "query",
        "retrieval": "query",
    },
    "openinference.span.kind": {
        "TOOL": "tool_call",
        "LLM": "thought",
        "RETRIEVER": "query",
        "EMBEDDING": "query",
    },
}
_INPUTS: Final = ("gen_ai.tool.call.arguments", "gen_ai.input.messages", "input.value")
_OUTPUTS: Final = ("gen_ai.tool.call.result", "gen_ai.output.messages", "output.value")
_SPAN_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS_ERROR: Final = (2, "STATUS_CODE_ERROR")
_HEX: Final = re.compile(r"[0-9a-fA-F]+")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,20}")
_UINT64: Final = 1 << 64
_FLOATS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(slots=True)
class Span:
    """A span as `traces.record` takes it, and where it stands."""

    part: Part
    id: str
    parent: str | None
    fields: dict[str, Any]  # the other arguments


def read_spans(documents: list[Part]) -> list[Span]:
    """Return the spans of all documents, each once.

    Raises: InvalidInput, naming line and field.
    """
    found: dict[str, Span] = {}
    for document in documents:
        if "resourceSpans" not in document.map():
            document.fail(
                "has no resourceSpans", hint="this is for OTLP traces in JSON, not for logs or metrics"
            )
        for resource in document["resourceSpans"].items():
            of_resource = _attributes(resource["resource"]["attributes"])
            for scope in resource["scopeSpans"].items():
                of_scope = {name: scope["scope"][name].text() for name in ("name", "version")}
                for part in scope["spans"].items():
                    span = _span(part, of_resource, {key: text for key, text in of_scope.items() if text})
                    before = found.setdefault(span.id, span)
                    if before.parent != span.parent or not same(before.fields, span.fields):
                        part["spanId"].fail(f"is that of another span: {span.id}")
    return [*found.values()]


def in_order(spans: list[Span], known: set[str], missing: MissingParents) -> list[Span]:
    """Return the spans, parents before children.

    Args:
        known: ids of traces that are there already.
        missing: what becomes of spans whose parent is nowhere: they are refused, or become roots and keep the
            id in metadata.parent.
    Raises: InvalidInput for a parent that is missing, and for parents in a circle.
    """
    ids = {span.id for span in spans} | known
    waiting: dict[str, list[Span]] = {}
    ready: list[Span] = []
    for span in spans:
        if span.parent is not None and span.parent not in ids:
            if missing == "refuse":
                span.part["parentSpanId"].fail(
                    f"names a span that is not there: {span.parent}",
                    hint="missing_parents='roots' takes it as a root",
                )
            span.fields["metadata"]["parent"] = span.parent
            span.parent = None
        if span.parent is None or span.parent in known:
            ready.append(span)
        else:
            waiting.setdefault(span.parent, []).append(span)
    for span in ready:  # which grows
        ready += waiting.pop(span.id, [])
    if waiting:
        lost = next(iter(waiting.values()))[0]
        lost.part["parentSpanId"].fail(f"leads back to the span itself, or to such a circle: {lost.parent}")
    return ready


def _span(part: Part, resource: dict[str, Any], scope: dict[str, Any]) -> Span:
    trace = _id(part["traceId"], 32)
    id = f"{trace}-{_id(part['spanId'], 16)}"
    above = part["parentSpanId"]
    parent = f"{trace}-{_id(above, 16)}" if above.text() else None
    if parent == id:
        above.fail("is the span itself")
    attributes = _attributes(part["attributes"])
    name = part["name"].text()
    kind = _kind(attributes)
    fields: dict[str, Any] = {
        "kind": kind,
        "name": cut(_tool(kind, attributes) or name, MAX_NAME_BYTES) or "span",
        "started": _nanos(part["startTimeUnixNano"]) // 1000,
        "input": _first(attributes, _INPUTS),
        "output": _first(attributes, _OUTPUTS),
        "error": _error(part["status"]),
    }
    started, ended = _nanos(part["startTimeUnixNano"]), _nanos(part["endTimeUnixNano"])
    if not started:
        part["startTimeUnixNano"].fail("is missing")
    if ended:
        if ended < started:
            part["endTimeUnixNano"].fail("is before startTimeUnixNano")
        fields["ended"] = ended // 1000
    metadata = {
        "name": name if name != fields["name"] else None,
        "span_kind": _span_kind(part["kind"]),
        "attributes": attributes,
        "resource": resource,
        "scope": scope,
        "events": [_event(event) for event in part["events"].items()],
        "links": [_link(link) for link in part["links"].items()],
        "trace_state": part["traceState"].text(),
    }
    fields["metadata"] = {key: value for key, value in metadata.items() if value}
    Part(fields, part.where, part.path).check(finite=False)
    return Span(part, id, parent, fields)


def _id(part: Part, digits: int) -> str:
    text = part.text()
    if len(text) != digits or not _HEX.fullmatch(text) or not text.strip("0"):
        part.fail(
            f"is not {digits} hex digits, not all of them 0: {text[:40]!r}",
            hint="OTLP in JSON has hex there, unlike the general JSON mapping of protobuf, which has base64",
        )
    return text.lower()


def _nanos(part: Part) -> int:
    """Return nanoseconds since 1970, which are a text or a number; 0 for nothing."""
    return _int(part, 0, _UINT64 - 1) if part.given else 0


def _int(part: Part, least: int, most: int) -> int:
    value = part.value
    if type(value) is str and _DECIMAL.fullmatch(value):
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        part.fail(f"is no integer from {least} to {most}: {str(part.value)[:40]!r}")
    return value


def _attributes(part: Part) -> dict[str, Any]:
    """Return a list of keys and values as a map."""
    return _pairs(part.items(), 0)


def _pairs(rows: list[Part], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        key = row["key"].text()
        if key in found:
            row["key"].fail(f"comes twice: {key[:80]!r}")
        found[key] = _value(row["value"], depth)
    return found


def _value(part: Part, depth: int) -> Any:
    """Return an AnyValue: one field, which says of what kind it is."""
    if depth > MAX_DEPTH // 2:
        part.fail("is nested too deep")
    given = [name for name, value in part.map().items() if value is not None]
    if not given:
        return None
    name, field = given[0], part[given[0]]
    if len(given) > 1:
        part.fail(f"has several kinds: {', '.join(sorted(given))}")
    if name == "stringValue":
        return field.text()
    if name == "boolValue":
        return field.flag()
    if name == "intValue":
        return _int(field, INT_MIN, INT_MAX)
    if name == "doubleValue":
        return _double(field)
    if name == "bytesValue":
        return _bytes(field)
    if name == "arrayValue":
        return [_value(item, depth + 1) for item in field["values"].items()]
    if name == "kvlistValue":
        return _pairs(field["values"].items(), depth + 1)
    return field.fail("is no kind of value", hint="stringValue, intValue, ...")


def _double(part: Part) -> float:
    value = part.value
    if type(value) is str and value in _FLOATS:
        return _FLOATS[value]
    if type(value) not in (int, float):
        part.fail(f"is no number: {str(value)[:40]!r}")
    try:
        return float(value)
    except OverflowError:
        part.fail("is too large for 64 bits")


def _bytes(part: Part) -> bytes:
    try:
        return base64.b64decode(part.text(), validate=True)
    except (binascii.Error, ValueError):
        part.fail("is no base64")


def _kind(attributes: dict[str, Any]) -> str:
    for attribute, kinds in KINDS.items():
        said = attributes.get(attribute)
        if isinstance(said, str) and said in kinds:
            return kinds[said]
    return "custom"


def _tool(kind: str, attributes: dict[str, Any]) -> str | None:
    """Return the name of the tool, which is a better name than that of the span."""
    said = attributes.get("gen_ai.tool.name", attributes.get("tool.name"))
    return said if kind == "tool_call" and isinstance(said, str) else None


def _first(attributes: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((attributes[name] for name in names if name in attributes), None)


def _error(part: Part) -> str | None:
    code = part["code"].value
    if code is not None and type(code) not in (int, str):
        part["code"].fail("is no status code")
    message = part["message"].text()
    return (message or "error") if code in _STATUS_ERROR else None


def _span_kind(part: Part) -> str | None:
    if not part.given:
        return None
    if type(part.value) is str:
        name = part.value.removeprefix("SPAN_KIND_").lower()
        if name not in _SPAN_KINDS:
            part.fail(f"is no kind of span: {part.value[:40]!r}")
        return name
    return _SPAN_KINDS[_int(part, 0, len(_SPAN_KINDS) - 1)]


def _event(part: Part) -> dict[str, Any]:
    event = {
        "name": part["name"].text(),
        "time_us": _nanos(part["timeUnixNano"]) // 1000,
        "attributes": _attributes(part["attributes"]),
    }
    return {key: value for key, value in event.items() if value}


def _link(part: Part) -> dict[str, Any]:
    link: dict[str, Any] = {"id": f"{_id(part['traceId'], 32)}-{_id(part['spanId'], 16)}"}
    attributes = _attributes(part["attributes"])
    return link | ({"attributes": attributes} if attributes else {})


def check_missing(missing: Any) -> MissingParents:
    """Return what is to become of missing parents, if it is one of the two."""
    if missing == "refuse" or missing == "roots":
        return "roots" if missing == "roots" else "refuse"
    raise InvalidInput(f"missing_parents is 'refuse' or 'roots', not {missing!r}")
