#!/usr/bin/env python3
"""Prints docs/reference/operations.md, which is made from the catalogue; a test compares the two.

python tools/operations_page.py > docs/reference/operations.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from strata.api.examples import EXAMPLES
from strata.api.operations import OPERATIONS, Operation
from strata.api.plain import encode_json, plain
from strata.api.schema import Schemas

HEAD = """# Operations

<!-- Made by tools/operations_page.py from src/strata/api/operations.py; a test compares them. -->

Every operation of Strata once, as all its surfaces have it: Python, the wire, HTTP, the command line, MCP. Of
each stands here what it takes and gives as plain data, the access it needs, and an example that a test runs.

- **Arguments** are given by name. In Python they are those of the method; as data, an instant is a version,
  an ISO 8601 text, `{"tag": name}` or `{"time": text}`; a ref its text; a duration seconds; a vector a list
  of numbers (or its bytes, 4 for each); a retention policy `{"last": n, "for_s": seconds, "both": false}`.
  Unknown arguments are `InvalidInput`.
- **Places**: an operation runs at a branch and a space, and those marked *at* also at a point in history.
- **Pages**: where many rows may come back there are `items` and `next`: the arguments to add for the page
  after it, or null. A page has 1,000 rows unless `limit` says otherwise, and 10,000 at most; it ends with
  the row that makes it 4 MiB long. Pages with
  `skip` read what they skip. Each is as of its own moment; with a version as the place's `at` all are of one.
- **JSON** has no bytes, NaN and infinities: they are `{"$bytes": "aGk="}` and `{"$float": "nan"}` (`"inf"`,
  `"-inf"`). A stored map whose only key is one of these two, or one of them with more `$` in front, gets one
  more `$`. MessagePack needs none of this.
- **Access** is read, write or admin. A search with `log_recall` writes.
- **Idempotent**: doing it twice does no more than doing it once. Others are made so by an idempotency key,
  which writes of one primitive take with `message`, `actor` and `cause` of their commit.
- **Errors** named are those that an operation is known for. `InvalidInput` for arguments, `NotFound` for a
  place, `Closed`, `ReadOnly`, `Protected` and `StorageError` may come from any. See [errors](errors.md).
"""

SIMPLE = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean", "null": "null"}
TITLES = {"": "place and database"}


def page() -> str:
    """Return the text of the page."""
    schemas = Schemas()
    parts = [HEAD]
    groups = dict.fromkeys(operation.group for operation in OPERATIONS.values())
    for group in groups:
        parts.append(f"\n## {TITLES.get(group, group)}\n")
        members = [operation for operation in OPERATIONS.values() if operation.group == group]
        parts += ["\n" + "\n".join(section(operation, schemas)) + "\n" for operation in members]
    parts.append("\n## Records\n\nWhat the operations above give, by name; all fields are always there.\n\n")
    parts += [record(name, schema) for name, schema in sorted(schemas.definitions.items())]
    return "".join(parts)


def section(operation: Operation, schemas: Schemas) -> Iterator[str]:
    """Yield the lines on one operation."""
    request, result = schemas.request(operation), schemas.result(operation)
    marks = [operation.access, *(["idempotent"] if operation.idempotent else [])]
    marks += ["at"] if operation.on_views else []
    yield f"### {operation.name}\n"
    yield f"{operation.summary} *({', '.join(marks)})*\n"
    needed = request.get("required", [])
    fields = [field(name, kind, name in needed) for name, kind in request["properties"].items()]
    yield f"- takes {', '.join(fields) or 'nothing'}"
    rows = result.get("properties", {}).get("items") if operation.pages else None
    yield f"- gives {shown(rows) + ', in pages' if rows else shown(result)}"
    if operation.errors:
        yield f"- raises {', '.join(operation.errors)}"
    example = EXAMPLES[operation.name]
    after = f" after `{'; '.join(example.setting)}`" if example.setting else ""
    yield f"- example `{example.code(operation)}`{after}"
    if example.arguments:
        yield f"- as data `{encode_json(plain(example.arguments)).decode()}`"


def field(name: str, schema: dict[str, Any], is_needed: bool) -> str:
    """Return one argument as people read it."""
    default = schema.get("default")
    said = "" if is_needed else " (optional)" if default is None else f" (default {default!r})"
    return f"`{name}`: {shown(schema)}{said}"


def shown(schema: dict[str, Any]) -> str:
    """Return a schema in few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(shown(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(SIMPLE.get(part, "map") for part in kind)
    if kind == "array":
        if "prefixItems" in schema:
            return f"({', '.join(map(shown, schema['prefixItems']))})"
        return f"list of {shown(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties", True)
        return f"map of {shown(values)}" if isinstance(values, dict) else "map"
    return SIMPLE.get(kind or "", "anything")


def record(name: str, schema: dict[str, Any]) -> str:
    """Return the line on one record."""
    fields = ", ".join(f"`{field}` {shown(kind)}" for field, kind in schema.get("properties", {}).items())
    text = schema.get("description", "")
    return f"- **{name}**{': ' + text if text else ''} {fields or shown(schema)}\n"


if __name__ == "__main__":
    print(page(), end="")
