"""Envelopes: what requests, responses and events are as JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from strata.server.rcp.errors import Refused

ID_BYTES_MAX: Final = 256
NULL: Final = Raw(b"null")


class Request(Struct):
    """What a client asks for."""

    id: str
    op: str
    type: str = "request"
    params: Raw = NULL


class Response(Struct, tag_field="type", tag="response"):
    """The answer where all went well. A result is an object, always."""

    id: str
    result: Any
    status: str = "ok"


class Failure(Struct, tag_field="type", tag="response"):
    """The answer where it did not."""

    id: str
    error: dict[str, Any]
    status: str = "error"


class Event(Struct, tag_field="type", tag="event"):
    """A transition, for a subscription."""

    subscription_id: str
    instance_id: str
    machine: str
    version: int
    wal_offset: int
    from_state: str
    to_state: str
    event: str
    payload: dict[str, Any] | None
    ctx: dict[str, Any] | UnsetType = UNSET


class End(Struct, tag_field="type", tag="end"):
    """That nothing more comes for a subscription."""

    subscription_id: str
    reason: str


class NoRequest(Exception):
    """What came is no request, and has no id that it could be answered by."""


encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Request).decode


def request_of(payload: bytes) -> Request:
    """Return a request.

    Raises: NotAsked for what is none and has an id; NoRequest for what has none either.
    """
    try:
        found = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(payload, error) from None
    if found.type != "request" or len(found.id) > ID_BYTES_MAX or len(found.id.encode()) > ID_BYTES_MAX:
        raise NoRequest(f"a request has the type 'request' and an id of at most {ID_BYTES_MAX} bytes")
    return found


class NotAsked(Refused):
    """A request with an id, and otherwise none."""

    def __init__(self, id: str, message: str) -> None:
        super().__init__("BAD_REQUEST", message)
        self.id = id


def _unreadable(payload: bytes, error: Exception) -> Exception:
    """Return what to say of a payload: to its id, where it has one."""
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return NoRequest(f"no JSON: {error}")
    id = found.get("id") if isinstance(found, dict) else None
    is_request = isinstance(found, dict) and found.get("type", "request") == "request"
    if not is_request or not isinstance(id, str) or len(id.encode()) > ID_BYTES_MAX:
        return NoRequest(str(error))
    return NotAsked(id, str(error))


def response(id: str, result: Any) -> bytes:
    """Return an answer as JSON."""
    return encode(Response(id, result))


def failure(id: str, error: Refused) -> bytes:
    """Return an answer that says what went wrong."""
    return encode(Failure(id, error.data()))
