"""Watching: commits as server-sent events, which a browser's EventSource resumes by itself.

    id: 42            the version; a client that comes back says it as Last-Event-ID, and goes on after it
    event: commit
    data: {"version": 42, "changes": [...], ...}

After a while without any, an `id` alone moves the position on, past commits that are not watched, and shows
that the server is there. An error ends the answer as `event: error`; when nothing more comes it is `end`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from strata.api.database import Database
from strata.api.dispatch import Where
from strata.api.plain import encode_json, error_data, plain
from strata.api.requests import converted
from strata.core.errors import InvalidInput, LimitExceeded, StrataError
from strata.server.http.limits import HttpLimits
from strata.server.http.query import Query, check_empty, integer, place_of, take
from strata.server.http.statuses import Refused
from strata.server.http.web import Receive, Request, Response, Scope, Send, StreamingResponse

EVENTS: Final = "text/event-stream"
FILTERS: Final = ("primitive", "prefix", "type")
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


class Watching:
    """The watches that are open."""

    def __init__(self, database: Database, limits: HttpLimits) -> None:
        self._database = database
        self._limits = limits
        self._open: set[Any] = set()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(limits.watches, thread_name_prefix="strata-watch")

    def end(self) -> None:
        """End all watches, each within a tenth of a second."""
        with self._lock:
            for watch in self._open:
                watch.close()

    def close(self) -> None:
        """End all watches, and wait until they have."""
        self.end()
        self._threads.shutdown()

    async def begin(
        self, request: Request, query: Query, check: Callable[[], None], in_thread: InThread
    ) -> Response:
        """Return an answer that goes on.

        Args:
            check: raises AccessDenied; asked again for each event, as tokens expire and are taken back.
        Raises: what the watch does, where that shows before it waits; Refused for one too many.
        """
        check()
        place, options = self._asked(request, query)
        with self._lock:
            if len(self._open) >= self._limits.watches:
                error = LimitExceeded(
                    what="open watches", limit=self._limits.watches, actual=len(self._open) + 1
                )
                raise Refused(503, error, {"Retry-After": "1"})
            watch = place.watch(**options)
            self._open.add(watch)
        try:
            first = await in_thread(lambda: watch.next(timeout_s=0))
        except BaseException:
            self._end(watch)
            raise
        return _Going(self._events(watch, first, check), lambda: self._end(watch))

    def _asked(self, request: Request, query: Query) -> tuple[Any, dict[str, Any]]:
        """Return the place to watch, and what of it."""
        where = place_of(query, {"at"})
        options: dict[str, Any] = take(query, *FILTERS)
        if "space" in where:
            options["space"] = where.pop("space")
        version = request.headers.get("last-event-id") or take(query, "from_version").get("from_version")
        query.pop("from_version", None)  # a client that comes back says it too
        check_empty(query, "a watch")
        if version is not None:
            try:
                options["from_version"] = integer(version)
            except ValueError:
                raise InvalidInput(f"{version[:100]!r} is no version") from None
        place = converted(where, Where, "the query")
        return self._database if place.branch is None else self._database.branch(place.branch), options

    async def _events(self, watch: Any, step: Any, check: Callable[[], None]) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        heartbeat_s = self._limits.heartbeat_s
        try:
            while step is not None or not watch.closed:
                check()
                yield _event(step) if step is not None else f"id: {watch.version}\n\n".encode()
                step = None
                if not watch.closed:
                    step = await loop.run_in_executor(
                        self._threads, lambda: watch.next(timeout_s=heartbeat_s)
                    )
            yield b"event: end\ndata: {}\n\n"
        except StrataError as error:
            yield b"event: error\ndata: " + encode_json(error_data(error)) + b"\n\n"

    def _end(self, watch: Any) -> None:
        watch.close()
        with self._lock:
            self._open.discard(watch)


class _Going(StreamingResponse):
    """An answer that ends its watch, also when the client went before the first event."""

    def __init__(self, events: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        super().__init__(events, media_type=EVENTS)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def _event(step: Any) -> bytes:
    data = encode_json(plain(step))  # JSON has no line breaks of its own
    return b"id: %d\nevent: commit\ndata: %b\n\n" % (step.version, data)
