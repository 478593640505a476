"""A client of the HTTP application in this process: httpx for what clients send, raw ASGI for the rest."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.testclient import TestClient

import strata
from strata.server.http import app

HERE = "http://127.0.0.1:6381"


def client(database: strata.Database, token: str | None = None, **options: Any) -> TestClient:
    """Return a client of an application of its own."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return TestClient(app(database, **options), base_url=HERE, headers=headers)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def raw(
    served: Any,
    method: str,
    path: bytes,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: tuple[bytes, ...] = (b"",),
    query: bytes = b"",
    most: int = 1_000,
) -> Answer:
    """Return what an application answers to a request as it came on the line.

    Args:
        body: in pieces.
        most: so many pieces of the body may be read, and then it is a failure.
    """
    scope = {
        "type": "http", "method": method, "path": path.decode("latin-1"), "raw_path": path,
        "query_string": query, "headers": [(b"host", b"127.0.0.1"), *headers], "scheme": "http",
        "http_version": "1.1", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    return asyncio.run(_asked(served, scope, list(body), most))


async def _asked(served: Any, scope: dict[str, Any], body: list[bytes], most: int) -> Answer:
    said: list[dict[str, Any]] = []
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        assert read <= most, "more was read than had to be"
        piece = body.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(body)}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await served(scope, receive, send)
    start = said[0]
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(part.get("body", b"") for part in said[1:]))
