"""Resources: keys, state cells and documents, each with a URL of its own and its version as ETag.

    GET /v1/kv/KEY        the value; If-None-Match: "7" answers 304 while it is that of version 7
    PUT /v1/kv/KEY        store the body; If-Match: "7" only over version 7, If-None-Match: * only if new
    DELETE /v1/kv/KEY     remove it, with If-Match too
    PATCH /v1/json/DOC    merge patch (RFC 7396) or JSON patch (RFC 6902), by media type

All of the path after the group is the key, slashes too. What a condition relies on is read and written in one
transaction, so nothing comes between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any, Final, NamedTuple

from strata.api.database import Database
from strata.api.dispatch import HERE, Options, Where, dispatch, resolve, run
from strata.api.operations import OPERATIONS, Operation
from strata.api.requests import converted, read
from strata.api.retry import RETRIES, retrying
from strata.api.view import View
from strata.core.clock import ttl_micros
from strata.core.errors import InvalidInput, NotFound, conflict
from strata.core.paths import parse
from strata.server.http.body import BYTES, JSON, decoded, encoded, type_of, wanted
from strata.server.http.calls import KEY_HEADER, with_key
from strata.server.http.query import Query, check_empty, place_of, take
from strata.server.http.statuses import Refused, bad_request
from strata.server.http.web import Headers, Request, Response

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
_TAG: Final = re.compile(r'\s*(W/)?"([\x21\x23-\x7e]*)"\s*')
_NOTHING: Final = object()


class Resource(NamedTuple):
    """What a group of resources is: its primitive, the argument that is the key, and its operations."""

    group: str
    key: str
    put: str
    delete: str
    methods: tuple[str, ...] = ("GET", "PUT", "DELETE")


RESOURCES: Final = {
    "kv": Resource("kv", "key", "kv.put", "kv.delete"),
    "state": Resource("state", "name", "state.set", "state.delete"),
    "json": Resource("json", "doc", "json.set", "json.destroy", ("GET", "PUT", "DELETE", "PATCH")),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What If-Match and If-None-Match say of the version that must be there; 0 is none."""

    match: frozenset[str] | None
    none_match: frozenset[str] | None

    def holds(self, version: int) -> bool:
        """Return whether to write over a version."""
        is_wanted = self.match is None or _is_in(version, self.match)
        return is_wanted and (self.none_match is None or not _is_in(version, self.none_match))

    def is_known(self, version: int) -> bool:
        """Return whether who reads has this version already."""
        return self.none_match is not None and _is_in(version, self.none_match)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a resource."""

    resource: Resource
    operation: Operation
    key: str
    where: Where
    parameters: dict[str, str]
    headers: Headers
    condition: Condition
    is_reading: bool
    options: Options | None

    @property
    def is_conditional(self) -> bool:
        """Whether it writes only over a certain version."""
        return not self.is_reading and self.condition != Condition(None, None)


class Resources:
    """Answers to requests for resources."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def asked(self, resource: Resource, request: Request, key: str, query: Query) -> Asked:
        """Return what is asked for.

        Raises: InvalidInput for parameters that it does not take; Refused for ETags that are none.
        """
        headers, is_reading = request.headers, request.method in ("GET", "HEAD")
        operation = _operation(resource, request.method, type_of(headers), has_path="path" in query)
        where = converted(place_of(query), Where, "the query") if query else HERE
        names = ["path"] if resource.group == "json" and operation.name != "json.patch" else []
        names += ["ttl"] if request.method == "PUT" else []
        parameters = take(query, *names)
        if "path" in parameters:
            parse(parameters["path"])  # what can never be is said before a condition that does not hold
        said = {} if is_reading else take(query, "message", "actor", "cause")
        check_empty(query, f"{request.method} of {resource.group}")
        options = None if is_reading else with_key(Options(**said) if said else None, headers.get(KEY_HEADER))
        condition = Condition(_tags(headers, "if-match"), _tags(headers, "if-none-match"))
        if options is not None and options.idempotency_key and condition != Condition(None, None):
            raise InvalidInput("a condition and an idempotency key at once: each alone makes it happen once")
        return Asked(resource, operation, key, where, parameters, headers, condition, is_reading, options)

    def answer(self, asked: Asked, body: bytes) -> Response:
        """Return the response to a request that the gate let through."""
        request = read(asked.operation, _arguments(asked, body))
        if asked.is_reading:
            return self._read(asked)
        if asked.is_conditional:
            result = retrying(lambda: self._attempt(asked, request), RETRIES)
        else:
            result = dispatch(
                self._database, asked.operation.name, asked.where, request, commit=asked.options
            )
        if asked.operation.name not in (asked.resource.delete, "json.delete"):
            return _written(result, asked.headers)
        if result is False:
            raise _missing(asked)
        return Response(status_code=204)

    def _attempt(self, asked: Asked, request: Any) -> Any:
        """Write if the condition holds; return the version of the commit."""
        place = resolve(self._database, asked.operation, asked.where)
        assert not isinstance(place, View)  # writes refuse `at`
        options = asked.options or Options()
        tx = place.transaction(message=options.message, actor=options.actor, cause=options.cause)
        try:
            found = _entry(tx, asked)
            if not asked.condition.holds(0 if found is None else found.version):
                raise self._failed(asked)
            run(asked.operation, request, self._database, tx)
            return tx.commit()
        except BaseException:
            tx.rollback()
            raise

    def _read(self, asked: Asked) -> Response:
        entry, value = self._found(asked)
        etag = f'"{entry.version}"'
        headers = {"ETag": etag, "Last-Modified": format_datetime(entry.timestamp, usegmt=True)}
        if asked.condition.match is not None and not asked.condition.holds(entry.version):
            raise self._failed(asked)
        if asked.condition.is_known(entry.version):
            return Response(status_code=304, headers=headers)
        if isinstance(value, bytes) and BYTES in asked.headers.get("accept", ""):
            return Response(value, headers=headers, media_type=BYTES)
        kind = wanted(asked.headers)
        return Response(encoded(value, kind), headers=headers, media_type=kind)

    def _failed(self, asked: Asked) -> Refused:
        """Return the answer to a condition that does not hold."""
        branch = asked.where.branch or self._database._branch.name
        space = asked.where.space or self._database._space
        return Refused(412, conflict(keys=[(branch, space, asked.resource.group, asked.key)]))

    def _found(self, asked: Asked) -> tuple[Any, Any]:
        """Return the entry that is asked for, and the value: of a document maybe only a part.

        Raises: NotFound.
        """
        at = resolve(self._database, asked.operation, asked.where)
        if "path" not in asked.parameters:
            entry = _entry(at, asked)
            if entry is None:
                raise _missing(asked)
            return entry, entry.value
        if isinstance(at, View):
            return _part(at, asked)
        with at.transaction(isolation="snapshot") as tx:  # both of one moment
            return _part(tx, asked)


def _part(face: Any, asked: Asked) -> tuple[Any, Any]:
    entry = _entry(face, asked)
    value = face.json.get(asked.key, asked.parameters["path"], _NOTHING) if entry else _NOTHING
    if value is _NOTHING:
        raise _missing(asked)
    return entry, value


def _entry(face: Any, asked: Asked) -> Any:
    """Return what is there; None also in a space that is not there yet, and that a write would make."""
    try:
        return getattr(face, asked.resource.group).entry(asked.key)
    except NotFound as error:
        if asked.is_reading or error.what != "space":
            raise
        return None


def _operation(resource: Resource, method: str, kind: str, *, has_path: bool) -> Operation:
    """Return the operation that a method stands for."""
    if method == "PUT":
        name = resource.put
    elif method == "DELETE":
        name = "json.delete" if has_path and resource.group == "json" else resource.delete
    elif method == "PATCH":
        names = {MERGE_PATCH: "json.merge", JSON_PATCH: "json.patch"}
        if kind not in names:
            raise bad_request(f"a patch is {MERGE_PATCH} or {JSON_PATCH}", 415, Accept_Patch=", ".join(names))
        name = names[kind]
    else:
        name = f"{resource.group}.entry"
    return OPERATIONS[name]


def _arguments(asked: Asked, body: bytes) -> dict[str, Any]:
    """Return the arguments of the operation."""
    found: dict[str, Any] = {asked.resource.key: asked.key}
    match asked.operation.name:
        case "json.merge":
            return {**found, **asked.parameters, "patch": _value(body, JSON)}
        case "json.patch":
            return {**found, "operations": _value(body, JSON)}
        case "json.delete":
            return {**found, **asked.parameters}
        case "json.set":
            found["path"] = asked.parameters.get("path", "$")
    if asked.operation.name == asked.resource.put:
        found["value"] = _value(body, type_of(asked.headers))
        if "ttl" in asked.parameters:
            found["ttl"] = _seconds(asked.parameters["ttl"])
    return found


def _value(body: bytes, kind: str) -> Any:
    if kind == BYTES:
        return body
    value = decoded(body, kind, default=_NOTHING)
    if value is _NOTHING:
        raise InvalidInput("the body is the value, and there is none", hint="null is a value")
    return value


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise InvalidInput(f"ttl is {text[:100]!r}, which is no number of seconds") from None
    ttl_micros(seconds)
    return seconds


def _written(version: Any, headers: Headers) -> Response:
    kind = wanted(headers)
    return Response(encoded({"version": version}, kind), headers={"ETag": f'"{version}"'}, media_type=kind)


def _missing(asked: Asked) -> NotFound:
    what = {"kv": "key", "state": "state cell", "json": "document"}[asked.resource.group]
    path = asked.parameters.get("path")
    return NotFound(what=what, name=asked.key if path is None else f"{asked.key} at {path}")


def _is_in(version: int, tags: frozenset[str]) -> bool:
    return version != 0 and ("*" in tags or str(version) in tags)


def _tags(headers: Headers, name: str) -> frozenset[str] | None:
    """Return the ETags of a header, or {"*"}; None where it is not there.

    Raises: Refused for what is no list of ETags.
    """
    given = headers.getlist(name)
    if not given:
        return None
    text = ",".join(given)
    if text.strip() == "*":
        return frozenset({"*"})
    found = [_TAG.fullmatch(part) for part in text.split(",")]
    if not all(found):
        raise bad_request(f"{name} is no list of ETags", hint=f'{name}: "7", or {name}: *')
    # A weak tag is never strong enough to write over; to read, it is as good.
    is_strong = name == "if-match"
    return frozenset(tag[2] for tag in found if tag is not None and not (is_strong and tag[1]))
