"""Service: what each request is answered. It finds who is asked, lets nobody through who may not, and writes.

    POST /v1/kv.put      an operation, with a body of {"arguments", "place", "commit"}
    GET  /v1/kv.get?key= one that reads
    ...  /v1/kv/KEY      a resource
    GET  /v1/watch       commits as they come
    GET  /openapi.json, /

Short operations run in the loop, which costs less than to hand them over; all others in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from time import perf_counter
from typing import Any, Final, TypeVar

from strata.api.database import Database
from strata.api.dispatch import dispatch, find
from strata.api.operations import OPERATIONS, Operation
from strata.api.plain import error_data
from strata.core.errors import Closed, InvalidInput, NotFound
from strata.server.http import openapi, page
from strata.server.http.access import Authorize, Gate, Role
from strata.server.http.body import JSON, decoded, encoded, read_body, type_of, wanted
from strata.server.http.calls import KEY_HEADER, asked_by_get, asked_by_post
from strata.server.http.guard import check_framing, check_origin, path_of
from strata.server.http.limits import HttpLimits
from strata.server.http.query import is_readable, query_of
from strata.server.http.resources import RESOURCES, Resources
from strata.server.http.stats import Stats
from strata.server.http.statuses import Refused, bad_request, refused
from strata.server.http.watching import Watching
from strata.server.http.web import ClientDisconnect, Receive, Request, Response, Scope, Send
from strata.server.logs import OK, Log, where_of

T = TypeVar("T")
log = logging.getLogger("strata.http")

PREFIX: Final = "/v1/"
_INLINE_BYTES: Final = 64 << 10  # of a body: below this, decoding takes less than handing over
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", "Vary": "Accept"}


class Service:
    """The ASGI application."""

    def __init__(
        self,
        database: Database,
        *,
        authorize: Authorize | None,
        read_only: bool,
        files: bool,
        origins: frozenset[str],
        limits: HttpLimits,
        log: Log | None = None,
    ) -> None:
        self.limits = limits
        self.draining = False
        self.log = log
        self._numbers = count(1)  # of requests in the log
        self._database = database
        self._gate = Gate(authorize, read_only, files)
        self._origins = origins
        self._waits_for_disk = database.info().durability == "strict"
        self._operations: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="strata-http")
        self._resources = Resources(database)
        self._watching = Watching(database, limits)

    @property
    def is_open(self) -> bool:
        """Whether everybody who gets here may do everything."""
        return self._gate.is_open

    def stats(self, connections: int = 0) -> Stats:
        """Return what was counted so far."""
        return Stats(Counter(self._operations), Counter(self._errors), connections, self.draining)

    def drain(self) -> None:
        """End all watches, and take no more requests."""
        self.draining = True
        self._watching.end()

    def close(self) -> None:
        """Drain, and wait for what is under way. Idempotent."""
        self.drain()
        self._watching.close()
        self._threads.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive)
            try:
                response = await self._answer(request)
                await response(scope, receive, send)
            except ClientDisconnect:
                pass  # nobody is there to be told

    async def _live(self, receive: Receive, send: Send) -> None:
        """Go along with a server that says when it begins and ends."""
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.shutdown":
                self.close()
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _answer(self, request: Request) -> Response:
        begun = perf_counter()
        code, where = OK, {}
        try:
            response = await self._respond(request)
        except ClientDisconnect:
            raise
        except Exception as error:
            refusal = refused(error)
            code, response = refusal.error.code, self._refusal(request, refusal)
            where = {"error": where_of(error)} if refusal.status == 500 else {}
            if where and self.log is None:
                log.error("%s %r failed", request.method, request.scope["path"], exc_info=error)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if self.log is not None:
            self._note(self.log, request, response, perf_counter() - begun, code, where)
        return response

    def _note(
        self, log: Log, request: Request, response: Response, took_s: float, code: str, where: dict[str, Any]
    ) -> None:
        """Let the log know of a request. Its path may be a key, which is nobody's business."""
        id = response.headers["X-Request-Id"] = f"r{next(self._numbers)}"
        connection = request.scope.get("state", {}).get("connection", "")
        client = request.scope.get("client") or ("", "")
        status = response.status_code
        if status == 401:
            log.refused(connection, code, request=id, over="http", peer=f"{client[0]} {client[1]}")
        name = request.scope.get("strata.name", "")
        log.request(connection, id, name, took_s, code, waits=name == "watch", status=status, **where)

    def _refusal(self, request: Request, refusal: Refused) -> Response:
        """Return an error as a response."""
        self._errors[refusal.error.code] += 1
        data, kind = error_data(refusal.error), wanted(request.headers)
        try:
            body = encoded(data, kind)
        except (
            OverflowError,
            UnicodeEncodeError,
        ):  # a number or text that no encoding has, given by a client
            kind = JSON
            body = encoded({**data, "message": ascii(data["message"]), "hint": "", "fields": {}}, kind)
        response = Response(body, refusal.status, refusal.headers, kind)
        if not request.scope.get("strata.body_is_read"):
            has_body = "transfer-encoding" in request.headers or "content-length" in request.headers
            if has_body and request.headers.get("content-length") != "0":
                response.headers["Connection"] = "close"  # rather than read what nobody wants
        return response

    async def _respond(self, request: Request) -> Response:
        check_framing(request.headers)
        check_origin(request.headers, self._origins, is_open=self._gate.is_open)
        path = path_of(request.scope)
        if not path.startswith(PREFIX):
            return await self._description(request, path)
        role = self._gate.role(request.headers)
        if self.draining:
            raise Closed("the server ends", hint="ask again elsewhere, or later")
        name = path.removeprefix(PREFIX)
        group, slash, key = name.partition("/")
        if slash and group in RESOURCES:
            return await self._resource(request, role, group, key)
        if name == "watch":
            _check_method(request, "GET", has_head=False)
            return await self._watch(request)
        if name not in OPERATIONS:
            raise _unknown(name)
        return await self._operation(request, role, OPERATIONS[name])

    async def _description(self, request: Request, path: str) -> Response:
        if path not in ("/", "/openapi.json"):
            raise NotFound(what="path", name=path[:200], hint="/ lists what there is")
        _check_method(request, "GET")
        if path == "/":
            return Response(await self._in_thread(page.page), headers=page.HEADERS, media_type="text/html")
        return Response(await self._in_thread(openapi.document), media_type=JSON)

    async def _operation(self, request: Request, role: Role, operation: Operation) -> Response:
        _check_method(request, *(("GET", "POST") if is_readable(operation) else ("POST",)))
        self._gate.check(role, operation)
        query, headers = query_of(request.scope), request.headers
        out, body = wanted(headers), b""
        if request.method == "POST":
            if query:
                raise bad_request("a POST has its arguments in the body, and none in the query")
            body = await self._body(request, role)

        def work() -> bytes:
            if request.method == "POST":
                asked = asked_by_post(
                    operation, decoded(body, type_of(headers), default={}), headers.get(KEY_HEADER)
                )
            else:
                asked = asked_by_get(operation, query)
            self._gate.check(role, operation, asked.request)
            return encoded(
                dispatch(self._database, operation.name, asked.place, asked.request, commit=asked.commit), out
            )

        self._count(request, operation.name)
        return Response(await self._run(operation, len(body), work), media_type=out)

    async def _resource(self, request: Request, role: Role, group: str, key: str) -> Response:
        resource = RESOURCES[group]
        _check_method(request, *resource.methods)
        asked = self._resources.asked(resource, request, key, query_of(request.scope))
        self._gate.check(role, asked.operation)
        body = b"" if request.method in ("GET", "HEAD", "DELETE") else await self._body(request, role)
        self._count(request, asked.operation.name)

        def work() -> Response:
            return self._resources.answer(asked, body)

        if asked.is_conditional:
            return await self._in_thread(work)
        return await self._run(asked.operation, len(body), work)

    async def _watch(self, request: Request) -> Response:
        def check() -> None:
            self._gate.check_access(self._gate.role(request.headers), "read")

        self._count(request, "watch")
        return await self._watching.begin(request, query_of(request.scope), check, self._in_thread)

    def _count(self, request: Request, name: str) -> None:
        self._operations[name] += 1
        request.scope["strata.name"] = name

    async def _body(self, request: Request, role: Role) -> bytes:
        limits = self.limits
        is_reader = role == "read"
        most = min(limits.reader_body_bytes, limits.body_bytes) if is_reader else limits.body_bytes
        body = await read_body(request, most, limits.body_s)
        request.scope["strata.body_is_read"] = True
        return body

    async def _run(self, operation: Operation, size: int, work: Callable[[], T]) -> T:
        """Return what `work` makes of an operation: here where that is short, else in a thread."""
        is_short = operation.is_point and size <= _INLINE_BYTES
        if is_short and (operation.access == "read" or not self._waits_for_disk):
            return work()
        return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _check_method(request: Request, *methods: str, has_head: bool = True) -> None:
    """Raise Refused for a method that is not for this path; HEAD is for those that have GET."""
    allowed = (*methods, "HEAD") if "GET" in methods and has_head else methods
    if request.method not in allowed:
        raise bad_request(f"this path takes {', '.join(methods)}", 405, Allow=", ".join(allowed))


def _unknown(name: str) -> Refused:
    """Return the answer to an operation that there is none of, with what was probably meant."""
    try:
        find(name)
    except InvalidInput as error:
        return Refused(404, NotFound(what="operation", name=name[:100], hint=error.hint))
    raise AssertionError(name)
