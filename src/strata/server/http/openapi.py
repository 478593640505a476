"""OpenAPI 3.1: the catalogue as a description that programs read, at /openapi.json.

Every operation is a POST; those that read and take simple arguments are a GET too. What may go wrong is
listed for each, with one body for all errors. Schemas are of JSON; MessagePack has the same without the tags
for bytes, NaN and infinities.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from strata.api.dispatch import Options, Where
from strata.api.operations import OPERATIONS, Operation
from strata.api.plain import to_json
from strata.api.requests import Field
from strata.api.schema import Schemas
from strata.server.http.body import BYTES, JSON, MSGPACK
from strata.server.http.query import PLACE, is_readable, simple_fields
from strata.server.http.resources import JSON_PATCH, MERGE_PATCH, RESOURCES, Resource
from strata.server.http.statuses import STATUS, codes
from strata.server.http.watching import EVENTS, FILTERS

Json = dict[str, Any]
_PREFIX: Final = "#/components/schemas/"
_NAME: Final[Json] = {"type": ["string", "null"], "minLength": 1}
_ERROR: Final[Json] = {
    "type": "object",
    "description": "What went wrong: code does not change between releases, hint says what to do.",
    "properties": {
        "code": {"type": "string", "enum": codes()},
        "message": {"type": "string"},
        "hint": {"type": "string"},
        "fields": {"type": "object"},
    },
    "required": ["code", "message", "hint", "fields"],
    "additionalProperties": False,
}
_ABOUT: Final = """\
Every operation of Strata. A POST has one body: `arguments`, and where it runs (`place`) and what the commit
of a write says (`commit`), which may be left out. Where many rows may come back there are `items` and `next`,
the arguments to add for the page after them. Bytes are {"$bytes": base64} in JSON, NaN and infinities
{"$float": "nan"}; MessagePack (application/msgpack) needs neither."""
_SAYS: Final = {
    400: "What was sent can never be accepted.",
    401: "A token is needed, and there is none or not one that is known.",
    403: "The token, or the server, does not allow this.",
    404: "There is no such operation, branch, space, stream or key.",
    405: "The path does not take this method.",
    408: "The body took too long to come.",
    409: "What is stored stands against it; read again, and try again.",
    410: "That point in history is no longer kept.",
    412: "The version is another than the condition says.",
    413: "More than a limit allows.",
    415: "The body is neither JSON nor MessagePack.",
    422: "No index answers this.",
    500: "The server failed.",
    502: "Another server failed.",
    503: "The server ends, or its disk failed.",
}
_PLACE_SAYS: Final = {
    "branch": "The branch; left out, that of the server.",
    "space": "The space; left out, that of the server.",
    "at": "A point in history: a version, an ISO 8601 text, or tag:NAME.",
}
_AFTER: Final = ("message", "actor", "cause")
_KEY: Final[Json] = {
    "name": "Idempotency-Key", "in": "header", "schema": {"type": "string"},
    "description": "Makes a write happen once, however often it is sent.",
}  # fmt: skip


@cache
def document() -> bytes:
    """Return the description as JSON."""
    return msgspec.json.encode(description())


def description() -> Json:
    """Return the description."""
    schemas = Schemas(_PREFIX)
    paths: Json = {f"/v1/{operation.name}": _path(operation, schemas) for operation in OPERATIONS.values()}
    for resource in RESOURCES.values():
        paths[f"/v1/{resource.group}/{{{resource.key}}}"] = _resource(resource, schemas)
    paths["/v1/watch"] = {"get": _watch()}
    schemas.definitions |= {"Error": _ERROR, "Place": _place_schema()}
    found = {
        "openapi": "3.1.0",
        "info": {"title": "Strata", "version": "1", "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": [{"name": name} for name in _groups()],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "responses": _error_responses(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    portable: Json = _portable(found)
    return portable


def _portable(schema: Any) -> Any:
    """Return a schema without `prefixItems`, which programs that read OpenAPI still stumble over."""
    if isinstance(schema, list):
        return [_portable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _portable(part) for name, part in schema.items()}
    parts = found.pop("prefixItems", None)
    return found if parts is None or {} in parts else {**found, "items": {"anyOf": parts}}


def _place_schema() -> Json:
    """Return the schema of a place that is now."""
    names = {name: {**_NAME, "description": _PLACE_SAYS[name]} for name in PLACE if name != "at"}
    return {"type": "object", "properties": names, "additionalProperties": False}


def _groups() -> list[str]:
    return list(dict.fromkeys(operation.group or "database" for operation in OPERATIONS.values()))


def _path(operation: Operation, schemas: Schemas) -> Json:
    result = schemas.result(operation)
    found: Json = {"post": _post(operation, schemas, result)}
    if is_readable(operation):
        found["get"] = _get(operation, schemas, result)
    return found


def _head(operation: Operation, method: str) -> Json:
    return {
        "operationId": operation.name if method == "post" else f"{operation.name}.{method}",
        "summary": operation.summary,
        "description": f"{operation.docs}\n\nAccess: {operation.access}.",
        "tags": [operation.group or "database"],
    }


def _post(operation: Operation, schemas: Schemas, result: Json) -> Json:
    request = schemas.request(operation)
    commits = operation.access == "write" and operation.in_transactions
    place = schemas.of(Where) if operation.on_views else {"$ref": _PREFIX + "Place"}
    body: Json = {
        "type": "object",
        "properties": {"arguments": request, "place": place}
        | ({"commit": schemas.of(Options)} if commits else {}),
        "additionalProperties": False,
    }
    if request.get("required"):
        body["required"] = ["arguments"]
    example = {"arguments": to_json(operation.example.arguments)}
    return {
        **_head(operation, "post"),
        "parameters": [_KEY] if commits else [],
        "requestBody": {
            "required": bool(request.get("required")),
            "content": {JSON: {"schema": body, "example": example}, MSGPACK: {"schema": body}},
        },
        "responses": _responses(operation, result, has_body=True),
    }


def _get(operation: Operation, schemas: Schemas, result: Json) -> Json:
    fields = simple_fields(operation)
    parameters = [_parameter(field, schemas) for field in fields.values()]
    parameters += _place(*(name for name in PLACE if name not in fields and _may_say(operation, name)))
    return {
        **_head(operation, "get"),
        "parameters": parameters,
        "responses": _responses(operation, result, has_body=False),
    }


def _may_say(operation: Operation, name: str) -> bool:
    return name != "at" or operation.on_views


def _parameter(field: Field, schemas: Schemas) -> Json:
    schema = schemas.of(field.type)
    if isinstance(schema.get("type"), list):  # what may be null is left out of a query
        (kind,) = [kind for kind in schema["type"] if kind != "null"]
        schema = {"type": kind}
    elif "anyOf" in schema:
        schema = next(part for part in schema["anyOf"] if part != {"type": "null"})
    if schema.get("$ref") == f"{_PREFIX}Float":
        schema = {"type": "number"}
    return {
        "name": field.name, "in": "query", "schema": schema,
        "required": field.default is msgspec.NODEFAULT,
    }  # fmt: skip


def _place(*names: str) -> list[Json]:
    return [
        {
            "name": name,
            "in": "query",
            "schema": {"type": "string", "minLength": 1},
            "description": _PLACE_SAYS[name],
        }
        for name in names
    ]


def _responses(operation: Operation, result: Json, *, has_body: bool) -> Json:
    good = {
        "description": operation.summary,
        "content": {kind: {"schema": result} for kind in (JSON, MSGPACK)},
    }
    named = {status for cls, status in STATUS.items() if cls.__name__ in operation.errors}
    usual = {400, 401, 403, 404, 410, 413, 500, 503} | ({408, 415} if has_body else set())
    usual |= {409} if operation.access != "read" else set()
    return {"200": good, **_errors(named | usual)}


def _errors(statuses: set[int]) -> Json:
    return {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(statuses)}


def _error_responses() -> Json:
    content = {kind: {"schema": {"$ref": _PREFIX + "Error"}} for kind in (JSON, MSGPACK)}
    return {f"Error{status}": {"description": says, "content": content} for status, says in _SAYS.items()}


# -- resources and watches ------------------------------------------------------------------------------


_VERSION: Final[Json] = {"ETag": {"description": "The version.", "schema": {"type": "string"}}}
_TAGS: Final = r'^(\*|(W/)?"[0-9]+"(, (W/)?"[0-9]+")*)$'
_IF: Final[Json] = {
    "If-Match": "Only where the version is one of these ETags; * is any.",
    "If-None-Match": "Only where it is none of these; * is only where there is none.",
}


def _resource(resource: Resource, schemas: Schemas) -> Json:
    key = {
        "name": resource.key, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1},
        "description": "All of the rest of the path, slashes too.",
    }  # fmt: skip
    made = {"GET": _read, "PUT": _put, "DELETE": _delete, "PATCH": _patch}
    return {
        "parameters": [key],
        **{method.lower(): made[method](resource, schemas) for method in resource.methods},
    }


def _about(resource: Resource, verb: str, summary: str) -> Json:
    name = f"{resource.group}.{resource.key}.{verb}"
    return {"operationId": name, "summary": summary, "tags": [resource.group]}


def _text(name: str, where: str, says: str) -> Json:
    return {"name": name, "in": where, "schema": {"type": "string"}, "description": says}


def _conditions() -> list[Json]:
    schema = {"type": "string", "pattern": _TAGS}
    return [{**_text(name, "header", says), "schema": schema} for name, says in _IF.items()]


def _within(resource: Resource) -> list[Json]:
    return [_text("path", "query", "A path inside the document.")] if resource.group == "json" else []


def _write_parameters(resource: Resource, *, has_path: bool = True) -> list[Json]:
    said = [_text(name, "query", f"The {name} of the commit.") for name in _AFTER]
    within = _within(resource) if has_path else []
    return [*within, *_place("branch", "space"), *said, *_conditions(), _KEY]


def _read(resource: Resource, schemas: Schemas) -> Json:
    content: Json = {JSON: {"schema": {}}, MSGPACK: {"schema": {}}, BYTES: {}}
    return {
        **_about(resource, "get", "Return the value."),
        "parameters": [*_within(resource), *_place(*PLACE), *_conditions()],
        "responses": {
            "200": {"description": "The value.", "headers": _VERSION, "content": content},
            "304": {"description": "It is that of the version in If-None-Match.", "headers": _VERSION},
            **_errors({400, 401, 403, 404, 410, 412, 413, 500, 503}),
        },
    }


def _put(resource: Resource, schemas: Schemas) -> Json:
    ttl = {
        "name": "ttl", "in": "query", "schema": {"type": "number", "exclusiveMinimum": 0},
        "description": "Seconds after which it expires.",
    }  # fmt: skip
    content: Json = {JSON: {"schema": {}}, MSGPACK: {"schema": {}}, BYTES: {}}
    return {
        **_about(resource, "put", "Store the body as the value."),
        "parameters": [*_write_parameters(resource), ttl],
        "requestBody": {"required": True, "content": content},
        "responses": _version_responses(),
    }


def _patch(resource: Resource, schemas: Schemas) -> Json:
    operations = {"type": "array", "items": {"type": "object"}}
    return {
        **_about(resource, "patch", "Change parts of the document."),
        "parameters": _write_parameters(resource),
        "requestBody": {
            "required": True,
            "content": {MERGE_PATCH: {"schema": {}}, JSON_PATCH: {"schema": operations}},
        },
        "responses": _version_responses(),
    }


def _version_responses() -> Json:
    schema = {
        "type": "object", "properties": {"version": {"type": "integer"}}, "required": ["version"],
        "additionalProperties": False,
    }  # fmt: skip
    content = {kind: {"schema": schema} for kind in (JSON, MSGPACK)}
    return {
        "200": {"description": "The version of the commit.", "headers": _VERSION, "content": content},
        **_errors({400, 401, 403, 404, 408, 409, 412, 413, 415, 500, 503}),
    }


def _delete(resource: Resource, schemas: Schemas) -> Json:
    return {
        **_about(resource, "delete", "Remove it."),
        "parameters": _write_parameters(resource),
        "responses": {
            "204": {"description": "It is gone."},
            **_errors({400, 401, 403, 404, 409, 412, 413, 500, 503}),
        },
    }


def _watch() -> Json:
    parameters = [_text(name, "query", f"Only changes of this {name}.") for name in (*FILTERS, "space")]
    version = {
        "name": "from_version", "in": "query", "schema": {"type": "integer", "minimum": 0},
        "description": "Begin after this version; left out, with what comes from now on.",
    }  # fmt: skip
    resume = _text("Last-Event-ID", "header", "Goes before from_version.")
    return {
        "operationId": "watch",
        "summary": "Return the commits of a branch as server-sent events, as they come.",
        "tags": ["database"],
        "parameters": [*_place("branch"), *parameters, version, resume],
        "responses": {
            "200": {"description": "Events without end.", "content": {EVENTS: {}}},
            **_errors({400, 401, 403, 404, 410, 413, 500, 503}),
        },
    }
