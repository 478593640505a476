"""What we take of starlette: requests, responses, and answers that go on."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

__all__ = [
    "ClientDisconnect",
    "Headers",
    "Message",
    "Receive",
    "Request",
    "Response",
    "Scope",
    "Send",
    "StreamingResponse",
]
