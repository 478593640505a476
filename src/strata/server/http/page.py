"""Page: the catalogue for people, at /. One file without anything from elsewhere, so it works offline.

It is made here, and read without a script; the one that is there filters the list and sends requests.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any, Final

from strata.api.operations import OPERATIONS, Operation
from strata.api.plain import encode_json
from strata.api.requests import fields_of
from strata.api.schema import Schemas
from strata.server.http.query import is_readable
from strata.server.http.resources import RESOURCES

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --key: #0a6ebd; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { margin-bottom: 0; } h2 { margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
code, pre, textarea { font: 14px/1.45 ui-monospace, monospace; }
pre, textarea { background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: .5rem;
  overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
textarea { width: 100%; box-sizing: border-box; min-height: 5rem; color: inherit; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; } summary code { font-weight: 600; color: var(--key); }
small { opacity: .75; } table { border-collapse: collapse; }
td, th { text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0; }
input { font: inherit; padding: .3rem .5rem; } .tools { display: flex; gap: .5rem; flex-wrap: wrap; }
.tools input { flex: 1 1 15rem; }
"""
_SCRIPT: Final = """
"use strict";
const all = (what, where = document) => [...where.querySelectorAll(what)];
const filter = document.getElementById("filter"), token = document.getElementById("token");
document.querySelector(".tools").hidden = false;
filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase();
  for (const one of all("details[id]"))
    one.hidden = !one.querySelector("summary").textContent.toLowerCase().includes(wanted);
  for (const part of all("section.group")) part.hidden = !all("details", part).some(one => !one.hidden);
});
for (const form of all("form.try")) {
  form.hidden = false;
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const headers = {"Content-Type": "application/json"};
    if (token.value) headers.Authorization = "Bearer " + token.value;
    const shown = form.querySelector("output");
    try {
      const said = {method: "POST", headers, body: form.querySelector("textarea").value};
      const answer = await fetch(form.action, said);
      shown.firstChild.textContent = answer.status + " " + await answer.text();
    } catch (error) { shown.firstChild.textContent = String(error); }
  });
}
if (location.hash) { const one = document.getElementById(location.hash.slice(1)); if (one) one.open = true; }
"""


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


HEADERS: Final = {
    # Nothing but what is in it may run or be shown, and nobody may frame it.
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; connect-src 'self';"
        " img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


@cache
def page() -> bytes:
    """Return the page."""
    return "".join(_page()).encode()


def _page() -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Strata</title>'
    yield '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    yield f"<style>{_STYLE}</style></head><body><h1>Strata</h1>"
    yield f"<p>{len(OPERATIONS)} operations over HTTP."
    yield " For programs: <a href='/openapi.json'>OpenAPI 3.1</a>.</p>"
    yield '<div class="tools" hidden>'
    yield '<input id="filter" type="search" placeholder="Filter" aria-label="Filter">'
    yield '<input id="token" type="password" placeholder="Token, where one is needed" aria-label="Token">'
    yield "</div>"
    yield from _conventions()
    schemas, group = Schemas(), ""
    for operation in OPERATIONS.values():
        name = operation.group or "database"
        if name != group:
            yield "</section>" if group else ""
            yield f'<section class="group"><h2>{name}</h2>'
            group = name
        yield from _operation(operation, schemas)
    yield f"</section><script>{_SCRIPT}</script></body></html>"


def _conventions() -> Iterator[str]:
    rows = [
        ("POST /v1/OPERATION", '{"arguments": {…}, "place": {"branch", "space", "at"}, "commit": {…}}'),
        ("GET /v1/OPERATION?…", "those that read and take simple arguments; ?branch=&amp;space=&amp;at="),
    ]
    rows += [
        (
            f"{' '.join(found.methods)} /v1/{found.group}/{found.key.upper()}",
            "one by its URL; ETag is the version",
        )
        for found in RESOURCES.values()
    ]
    rows.append(("GET /v1/watch?…", "commits as server-sent events; Last-Event-ID goes on after a version"))
    yield "<table>"
    for what, says in rows:
        yield f"<tr><td><code>{what}</code></td><td>{says}</td></tr>"
    yield "</table><p>JSON or MessagePack, by <code>Content-Type</code> and <code>Accept</code>. Bytes are"
    yield " <code>{&quot;$bytes&quot;: base64}</code> in JSON. Many rows come as <code>items</code> and"
    yield " <code>next</code>, the arguments to add for the page after them. An error has <code>code</code>,"
    yield " <code>message</code>, <code>hint</code> and <code>fields</code>.</p>"


def _operation(operation: Operation, schemas: Schemas) -> Iterator[str]:
    name = escape(operation.name)
    yield f'<details id="{name}"><summary><code>{name}</code> {escape(operation.summary)}'
    methods = "POST, GET" if is_readable(operation) else "POST"
    kind = f"{methods}; {operation.access}{', idempotent' if operation.idempotent else ''}"
    yield f" <small>({kind})</small></summary>"
    rest = operation.docs.partition("\n\n")[2]
    if rest:
        yield f"<pre>{escape(rest)}</pre>"
    rows = [(field.name, _said(schemas.of(field.type))) for field in fields_of(operation)]
    if rows:
        yield "<table><tr><th>argument</th><th>is</th></tr>"
        yield from (
            f"<tr><td><code>{escape(name)}</code></td><td>{escape(says)}</td></tr>" for name, says in rows
        )
        yield "</table>"
    body = encode_json({"arguments": operation.example.arguments}).decode()
    yield f'<form class="try" action="/v1/{name}" method="post" hidden>'
    yield f'<textarea aria-label="Body">{escape(body)}</textarea>'
    yield "<button>Send</button><output><pre></pre></output></form>"
    yield f"<noscript><pre>{escape(body)}</pre></noscript></details>"


def _said(schema: Any) -> str:
    """Return in words what a schema allows."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_said, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_said(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
