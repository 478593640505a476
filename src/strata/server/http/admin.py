"""Admin: what those who run a server ask it. No token: it listens where only they are.

GET /healthz   200 while the process answers; 503 where the database refuses writes since a failed sync,
               which only opening it again ends; /health is the same
GET /readyz    200 while requests are taken; 503, and why, where the database is closed, refuses writes
               since a failed sync, or the server ends
GET /metrics   for Prometheus
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from strata.api.database import Database
from strata.core.errors import Closed
from strata.server.http import metrics
from strata.server.http.limits import HttpLimits
from strata.server.http.stats import Stats
from strata.server.http.web import Receive, Request, Response, Scope, Send


class Admin:
    """The ASGI application."""

    def __init__(
        self,
        database: Database,
        server_stats: Callable[[], Stats],
        more: Callable[[], str] = str,
    ) -> None:
        self.limits = HttpLimits(connections=100)
        self._database = database
        self._server_stats = server_stats
        self._more = more  # metrics of others
        self._begun = time.monotonic()

    def stats(self, connections: int = 0) -> Stats:
        """Return what the server counted: of this application nothing is."""
        return self._server_stats()

    def drain(self) -> None:
        """Do nothing: those who run a server look at it until it has ended."""

    def close(self) -> None:
        """Do nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = await self._respond(Request(scope, receive))
            response.headers["Cache-Control"] = "no-store"
            await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = request.scope["path"]
        if path not in ("/healthz", "/health", "/readyz", "/metrics"):
            return _text("there are /healthz, /readyz and /metrics\n", 404)
        if request.method not in ("GET", "HEAD"):
            return Response("", 405, {"Allow": "GET, HEAD"})
        if path in ("/healthz", "/health"):
            why = self._refuses_writes()
            return _text(f"{why}\n", 503) if why else _text("alive\n")
        # Sizes of files come from the disk, which may keep one waiting.
        work = self._ready if path == "/readyz" else self._metrics
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def _ready(self) -> Response:
        why = self._unready()
        return _text(f"{why}\n", 503) if why else _text("ready\n")

    def _unready(self) -> str | None:
        if self._database.closed:
            return "the database is closed"
        if self._server_stats().draining:
            return "the server ends"
        return self._refuses_writes()

    def _refuses_writes(self) -> str | None:
        poisoned = getattr(self._database._store, "poisoned", None)  # the model has no disk that could fail
        return None if poisoned is None else f"the database refuses writes: {poisoned}"

    def _metrics(self) -> Response:
        try:
            info = self._database.info()
        except Closed as error:
            return _text(f"{error}\n", 503)
        text = metrics.text(self._server_stats(), info, time.monotonic() - self._begun)
        return Response(text + self._more(), media_type=None, headers={"Content-Type": metrics.TYPE})


def _text(said: str, status: int = 200) -> Response:
    return Response(said, status, media_type="text/plain")
