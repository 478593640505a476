"""Body: bytes to plain data and back, as JSON or as MessagePack, never more of them than is allowed."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from strata.api.plain import decode_json, encode_json
from strata.core.errors import InvalidInput, LimitExceeded
from strata.server.http.statuses import bad_request
from strata.server.http.web import Headers, Request

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
BYTES: Final = "application/octet-stream"
_NAMES: Final = {
    JSON: JSON, MSGPACK: MSGPACK, "application/x-msgpack": MSGPACK, "application/vnd.msgpack": MSGPACK,
}  # fmt: skip


def type_of(headers: Headers) -> str:
    """Return the media type of a body, in lower case and without parameters; "" where none is said."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def wanted(headers: Headers) -> str:
    """Return the encoding of the answer: what is accepted first, else that of the request, else JSON."""
    for part in headers.get("accept", "").split(","):
        found = _NAMES.get(part.partition(";")[0].strip().lower())
        if found is not None:
            return found
    return JSON if "accept" in headers else _NAMES.get(type_of(headers), JSON)


async def read_body(request: Request, most: int, within_s: float) -> bytes:
    """Return the body of a request.

    Raises: LimitExceeded, before anything is read where the length is said; Refused where it takes too long.
    """
    said = request.headers.get("content-length", "0")
    if len(said) > 18 or int(said) > most:
        raise LimitExceeded(what="bytes of a request's body", limit=most, actual=int(said[:18]))
    found, size = [], 0
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise LimitExceeded(what="bytes of a request's body", limit=most, actual=size)
                found.append(chunk)
    except TimeoutError:
        raise bad_request("the body took too long to come", 408, Connection="close") from None
    return b"".join(found)


def decoded(body: bytes, kind: str, *, default: Any) -> Any:
    """Return the plain data that a body holds; `default` for an empty one.

    Raises: InvalidInput for what it cannot be; Refused for another media type.
    """
    if not body:
        return default
    known = _NAMES.get(kind)
    if known is None:
        # No guess: a form or a text is what a page of somebody else can make a browser send.
        raise bad_request(
            f"the body is {kind[:100] or 'of no type'}, and here it is JSON or MessagePack", 415,
            hint="Content-Type: application/json", Accept=f"{JSON}, {MSGPACK}",
        )  # fmt: skip
    return decode_json(body) if known == JSON else decode_msgpack(body)


def encoded(data: Any, kind: str) -> bytes:
    """Return plain data as bytes."""
    return msgspec.msgpack.encode(data) if kind == MSGPACK else encode_json(data)


def decode_msgpack(body: bytes) -> Any:
    """Return the plain data that MessagePack holds.

    Raises: InvalidInput for what is none, and for kinds of data that have no plain form.
    """
    try:
        return msgspec.msgpack.decode(body, ext_hook=_no_extension)
    except RecursionError:
        raise InvalidInput("this is no MessagePack: nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise InvalidInput(f"this is no MessagePack that can be read: {error}") from None


def _no_extension(code: int, data: memoryview) -> Any:
    raise ValueError(f"extension {code} is unknown")
