"""Serving: an application on a port, in a thread with a loop of its own. The only import of uvicorn.

uvicorn reads requests with h11, which refuses what is no HTTP. What it leaves open is how long a client may
take, so connections here have deadlines: for the head of a request, and for reading what was answered.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from strata.core.errors import InternalError, InvalidInput, LimitExceeded
from strata.core.keys import check_int
from strata.server.descriptors import is_none_left
from strata.server.http.limits import HttpLimits
from strata.server.http.stats import Stats
from strata.server.logs import Log
from strata.server.tls import ServerTls

_BACKLOG: Final = 128  # as many are accepted before the first is served
_PORT_MAX: Final = 65_535  # the system would take what is more modulo this
_KEEP_ALIVE_S: Final = 75  # proxies keep connections for 60 s, and must not meet one that just closed
log = logging.getLogger("strata.http")
_quiet = log.getChild("connections")
_quiet.setLevel(logging.ERROR)  # that somebody sent what is no HTTP is no news, and could fill a log


class Serving:
    """An application that listens."""

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        tls: ServerTls | None = None,
    ) -> None:
        limits = getattr(app, "limits", None) or HttpLimits()
        self._app = app
        self._closed = False
        context = None if tls is None else tls.context
        knows_clients = context is not None and context.verify_mode == ssl.CERT_REQUIRED
        asks_who = knows_clients or not getattr(app, "is_open", False)
        self._socket = _listening(host, port, anywhere=asks_who)
        try:
            self._server = _Server(_config(app, limits, context, getattr(app, "log", None)))
            self._thread = threading.Thread(target=self._run, name="strata-http", daemon=True)
            self._thread.start()
            self._server.has_begun.wait()
            if not self._server.started:
                raise InternalError("the HTTP server did not begin, and has logged why")
        except BaseException:
            self._socket.close()
            raise
        self.address: tuple[str, int] = self._socket.getsockname()[:2]  # with the port that it got

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    def stats(self) -> Stats:
        """Return what the application counted, with the connections that are open."""
        counted: Stats = self._app.stats(self.connections)
        return counted

    def close(self) -> None:
        """Stop listening, let what is under way end within the limit `drain_s`, then return. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._app.drain()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("the HTTP server failed")
        finally:
            self._server.has_begun.set()

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(_note_failure)
        await self._server.serve(sockets=[self._socket])


def _note_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not is_none_left(context):  # which is no news for each connection that waits
        loop.default_exception_handler(context)


class _Server(uvicorn.Server):
    """One that tells when it takes requests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_begun = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.has_begun.set()


class Connection(H11Protocol):
    """A connection that does not wait for ever."""

    limits = HttpLimits()  # a class for each server has its own
    log: Log | None = None
    numbers: Iterator[int] = count(1)
    logger: logging.Logger
    _deadline: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _quiet

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._reason: str | None = None
        self._begun = self.loop.time()
        self.name = f"h{next(self.numbers)}"
        self.app_state = {**self.app_state, "connection": self.name}
        peer = f"{self.client[0]} {self.client[1]}" if self.client else ""
        if len(self.connections) > self.limits.connections:
            self._reason = "there are too many"
            if self.log is not None:
                self.log.refused(self.name, LimitExceeded.code, over=self.scheme, peer=peer)
            transport.abort()
        elif self.log is not None:
            self.log.opened(self.name, over=self.scheme, peer=peer)
        self._hurry(self.limits.head_s)

    def data_received(self, data: bytes) -> None:
        was_quiet = self.timeout_keep_alive_task is not None
        super().data_received(data)
        if self._is_answering():
            self._relax()
        elif was_quiet:  # the first bytes of another request
            self._hurry(self.limits.head_s)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_answering():
            return  # the next request was there already
        has_begun = bool(self.conn.trailing_data[0])
        self._hurry(self.limits.head_s if has_begun else _KEEP_ALIVE_S)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_at_reader(self.transport.get_write_buffer_size() + 1)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        if self._stall is not None:
            self._stall.cancel()
        if self.log is not None:
            lost = "it ended" if exc is None else f"it broke: {type(exc).__name__}"
            lasted_s = round(self.loop.time() - self._begun, 3)
            self.log.closed(self.name, self._reason or lost, lasted_s=lasted_s)
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _hurry(self, seconds: float) -> None:
        """Close the connection unless the head of a request is there in time."""
        self._relax()
        self._deadline = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._reason = "no request came in time"
        self.transport.close()

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _look_at_reader(self, before: int) -> None:
        """Close the connection of a client that takes nothing of what it is sent."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self._reason = "it does not read"
            self.transport.abort()
        else:
            self._stall = self.loop.call_later(self.limits.stall_s, self._look_at_reader, left)


def _config(app: Any, limits: HttpLimits, context: ssl.SSLContext | None, told: Log | None) -> uvicorn.Config:
    protocol = type("Connection", (Connection,), {"limits": limits, "log": told})
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol,
        ws="none",
        lifespan="off",  # whoever made the application closes it
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is known by the token, never by an address that a header says
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
        h11_max_incomplete_event_size=limits.head_bytes,
        ssl_context_factory=None if context is None else lambda config, make: context,
    )


def _listening(host: str, port: int, *, anywhere: bool) -> socket.socket:
    """Return a socket that listens.

    Raises: InvalidInput for an address that cannot be had, and unless `anywhere` for one that others reach.
    """
    check_int(port, "port")
    try:
        if port > _PORT_MAX:
            raise OverflowError(f"a port is at most {_PORT_MAX}")
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if not anywhere and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise InvalidInput(
                f"other machines reach {host}, and without tokens they may do everything",
                hint="give authorize=, or listen on 127.0.0.1",
            )
        return _bound(family, address)
    except InvalidInput:
        raise
    except (OSError, OverflowError, ValueError) as error:  # the last for names that cannot be one
        said = getattr(error, "strerror", None) or error
        raise InvalidInput(f"cannot listen on {host}:{port}: {said}") from None


def _bound(family: int, address: Any) -> socket.socket:
    # Said to be TCP, for asyncio to send small answers at once (40 ms otherwise: Nagle's algorithm).
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
    except BaseException:
        found.close()
        raise
    return found
