"""The server: listeners, the loop that they run on, and what all connections share.

It lives in a thread of its own, so that whoever began it goes on: `strata serve` waits for signals, the
owner of a directory does what it likes. `close` lets what is under way end, within a limit.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from strata.api.database import Database
from strata.api.opening import version
from strata.core.errors import AccessDenied, InvalidInput, LimitExceeded
from strata.core.keys import check_int
from strata.core.protocols import Store
from strata.primitives.vectors import declare_named
from strata.server.access import Tokens
from strata.server.connection import Connection
from strata.server.descriptors import is_none_left, room
from strata.server.handshake import TlsListener
from strata.server.limits import Limits
from strata.server.logs import Log
from strata.server.peer import Peer
from strata.server.turns import Turns
from strata.wire.asks import Access
from strata.wire.frames import PROTOCOL
from strata.wire.session import Session

if TYPE_CHECKING:
    from strata.server.operations import Operations

T = TypeVar("T")
Listener = asyncio.Server | TlsListener
Make = Callable[[], asyncio.BaseProtocol]  # the server's side of a connection; a Peer

_SWEEP_S: Final = 1.0
_SWEEP_LEAST_S: Final = 0.002
_SWEPT: Final = 256  # at a time
_BACKLOG: Final = 1024
_READERS: Final = 4  # threads that make rows into answers: more would only take the interpreter from the loop
_PORT_MAX: Final = 65_535  # some systems would take what is more modulo this


class Server:
    """One database, for whoever connects."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits | None = None,
        tokens: Tokens | None = None,
        read_only: bool = False,
        name: str = "strata",
        log: Log | None = None,
    ) -> None:
        """Serve `store`, once there is a listener.

        Args:
            tokens: who may do what over the network; without, everybody who reaches a listener may do all.
            read_only: nobody may write.
            log: told of clients and of what they ask; whoever made it closes it.
        """
        self.limits = limits or Limits()
        self.tokens = tokens
        self.read_only = read_only
        self.log = log
        self._numbers = itertools.count(1)
        self.counts: Counter[str] = Counter()  # of calls by method, and of what went wrong by code
        self.errors: Counter[str] = Counter()
        self.connections: set[Peer] = set()
        self.handshakes: set[asyncio.Task[None]] = set()  # connections that do not speak TLS yet
        self.connections_max = room(self.limits.connections)
        self._links: dict[str, Connection] = {}  # of clients that connect again, what they had last
        self.begun = time.time()
        self._store = store
        info = store.info()
        self._database: str = info["id"]
        self.is_strict: bool = info["durability"] == "strict"
        self._face: Database | None = None  # for operations, once one is asked for
        self._listeners: list[Listener] = []
        readers = min(_READERS, self.limits.threads)
        threads = self.limits.threads + readers
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"{name}-work")
        self._waiting = ThreadPoolExecutor(self.limits.waiting, thread_name_prefix=f"{name}-wait")
        self.working = Turns(self._executor.submit, self.limits.threads)
        self.reading = Turns(self._executor.submit, readers)
        self._waits: Counter[Hashable] = Counter()  # calls that wait, by whose they are
        self.clock: Callable[[], float] = time.perf_counter  # of the turns of connections in the loop
        self.is_draining = False
        shortest = min(self.limits.idle_s or _SWEEP_S, self.limits.stalled_s, self.limits.transaction_idle_s)
        self._sweep_s = max(min(shortest / 2, _SWEEP_S), _SWEEP_LEAST_S)
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._note_failure)
        self._sweep()
        self.loop.run_forever()

    def _note_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if is_none_left(context):
            if self.log is not None:
                self.log.refused("", "too many open files")
        elif not self.is_draining:  # or a listener that was to try again is gone
            loop.default_exception_handler(context)

    def _do(self, work: Any) -> Any:
        """Run a coroutine on the loop, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    # -- listeners

    def listen_tcp(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        connection: Make | None = None,
    ) -> tuple[str, int]:
        """Listen on an address, and return it with the port that it got.

        Args:
            connection: makes the server's side of a connection that speaks another protocol; a Peer.
        Raises: InvalidInput for an address that cannot be had, and for one that other machines reach where no
            token is asked for.
        """
        if self.tokens is None and not _is_loopback(host):
            raise InvalidInput(
                f"{host} can be reached by other machines, so who connects needs a token",
                hint="give a file of tokens, or listen on 127.0.0.1",
            )
        if not 0 <= check_int(port, "port") <= _PORT_MAX:
            raise InvalidInput(f"a port is a number up to {_PORT_MAX}, not {port}")
        try:
            make = connection or (lambda: Connection(self, is_local=False))
            listener = self._do(self._listen(host, port, tls, make))
        except (OSError, OverflowError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise InvalidInput(f"cannot listen on {host}:{port}: {why}") from None
        self._listeners.append(listener)
        found = listener.sockets[0].getsockname()
        return found[0], found[1]

    async def _listen(self, host: str, port: int, tls: ssl.SSLContext | None, make: Make) -> Listener:
        backlog = _backlog(self.loop)
        made = await self.loop.create_server(make, host, port, backlog=backlog, start_serving=tls is None)
        if tls is None:
            return made
        listening = [one.dup() for one in made.sockets]
        made.close()
        for one in listening:
            one.listen(backlog)
            one.setblocking(False)
        return TlsListener(self, listening, tls, make)

    def listen_on(self, listening: socket.socket) -> None:
        """Accept local connections on a socket that listens already."""
        made = self.loop.create_unix_server(lambda: Connection(self, is_local=True), sock=listening)
        self._listeners.append(self._do(made))

    def adopt(self, accepted: socket.socket) -> None:
        """Serve a local connection that was accepted elsewhere."""
        self._do(self.loop.connect_accepted_socket(lambda: Connection(self, is_local=True), accepted))

    # -- what connections ask

    def next_name(self) -> str:
        """Return the name of a new connection in the log."""
        return f"w{next(self._numbers)}"

    @property
    def has_room(self) -> bool:
        """Whether there may be one more connection."""
        return len(self.connections) + len(self.handshakes) < self.connections_max

    def add(self, connection: Peer) -> None:
        """Take a connection in. Raises: LimitExceeded."""
        if not self.has_room:
            raise LimitExceeded(
                what="connections", limit=self.connections_max, actual=len(self.connections) + 1
            )
        self.connections.add(connection)
        self.counts["connections"] += 1

    def remove(self, connection: Peer) -> None:
        self.connections.discard(connection)

    def succeed(self, link: str, connection: Connection) -> Connection | None:
        """Note a client's connection, and return the one that it had before, if that has not ended."""
        older = self._links.get(link)
        self._links[link] = connection
        return older

    def forget(self, connection: Connection) -> None:
        """Forget a connection of which nothing is under way."""
        if connection.link is not None and self._links.get(connection.link) is connection:
            del self._links[connection.link]

    def session(self, is_local: bool, transport: asyncio.Transport, hello: dict[str, Any]) -> Session:
        """Return the session of a client that says who it is.

        Raises: AccessDenied.
        """
        access: Access = "admin"
        if is_local:
            _check_peer(transport.get_extra_info("socket"))
        else:
            access = self.access_of(hello.get("token"))
        read_only = self.read_only or bool(hello.get("read_only"))
        strict = bool(hello.get("strict")) and not self.is_strict
        return Session(
            self._store,
            access=access,
            files=is_local,
            strict=strict,
            read_only=read_only,
            declares=declare_named,
        )

    def access_of(self, token: object) -> Access:
        """Return what a token allows over the network.

        Raises: AccessDenied.
        """
        return "admin" if self.tokens is None else self.tokens.access_of(token)

    def renew_tokens(self, tokens: Tokens) -> None:
        """Let these tokens count from now on; who is connected by one that no longer does is sent away."""
        self.tokens = tokens
        for connection in list(self.connections):
            self.soon(connection.check_token, tokens)

    def welcome(self, session: Session) -> dict[str, Any]:
        """Return what a client is told first."""
        return {
            "protocol": PROTOCOL,
            "database": self._database,
            "server": version(),
            "access": session.access,
            "frame_bytes_max": self.frame_bytes(session),
        }

    def frame_bytes(self, session: Session) -> int:
        """Return how long a frame of a session may be.

        Of small values a body makes up to 80 times its bytes in memory, so who may write nothing sends less.
        """
        limits = self.limits
        is_reader = session.access == "read"
        return min(limits.reader_frame_bytes, limits.frame_bytes) if is_reader else limits.frame_bytes

    def operations(self, session: Session) -> Operations:
        """Return what runs operations of the catalogue for a session."""
        from strata.server.operations import Operations  # the catalogue, which guests do not need

        if self._face is None:
            self._face = Database(self._store)
        return Operations(self._face, session)

    def note_error(self, code: str) -> None:
        self.errors[code] += 1

    def run(self, turns: Turns, who: Hashable, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Let a thread work when it is the turn of `who`; `done` gets what it made, in the loop."""
        turns.add(who, lambda: self.soon(done, work()))

    def wait(self, who: Hashable, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Let a thread wait, and hand what it made to `done` in the loop.

        Raises: LimitExceeded for one wait too many, which would wait for the others to end: of all, and of
            those of `who`, who leaves as many to others as it has.
        """
        free = self.limits.waiting - self._waits.total()
        if self._waits[who] >= free:
            raise LimitExceeded(what="calls that wait", limit=self._waits[who], actual=self._waits[who] + 1)
        self._waits[who] += 1

        def told(found: T) -> None:
            self._waits[who] -= 1
            if not self._waits[who]:
                del self._waits[who]
            done(found)

        future = self._waiting.submit(work)
        future.add_done_callback(lambda found: self.soon(told, found.result()))

    def soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call in the loop, from any thread."""
        try:
            self.loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            pass  # the loop has ended, and whoever would be told with it

    def _sweep(self) -> None:
        """Close connections that ask nothing, and roll back transactions that nobody goes on with."""
        if self.log is not None:
            self.log.tick()
        self._sweep_some(list(self.connections))

    def _sweep_some(self, left: list[Peer]) -> None:
        """Sweep these, a few at a time: nobody waits until ten thousand of them are looked at."""
        now = time.monotonic()
        for connection in left[-_SWEPT:]:
            connection.sweep(now)
        del left[-_SWEPT:]
        if left:
            self._sweeper = self.loop.call_later(0, self._sweep_some, left)
        else:
            self._sweeper = self.loop.call_later(self._sweep_s, self._sweep)

    # -- the end

    def close(self) -> None:
        """Stop listening, let calls that are under way end, and close all connections. Idempotent."""
        if self.is_draining:
            return
        self.is_draining = True
        if not self._thread.is_alive():
            return  # in a forked child there is no thread
        self._do(self._drain())
        self._executor.shutdown(wait=True)
        self._waiting.shutdown(wait=True)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _drain(self) -> None:
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.say_goodbye("the server ends")
            connection.stop_waiting()
        until = time.monotonic() + self.limits.drain_s
        while any(connection.is_busy for connection in self.connections) and time.monotonic() < until:
            await asyncio.sleep(0.002)
        self._sweeper.cancel()
        for connection in list(self.connections):
            connection.close()
        await asyncio.sleep(0)  # what is closed tells so in the loop
        for connection in list(self.connections):
            connection.abort()  # it does not read
        await asyncio.sleep(0)


def _backlog(loop: asyncio.AbstractEventLoop) -> int:
    """Return how many connections may wait to be accepted; asyncio accepts as many before it serves any."""
    return _BACKLOG if type(loop).__module__.startswith("uvloop") else _BACKLOG // 8


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, also one like 127.example.com


def _check_peer(connected: socket.socket) -> None:
    """Raise AccessDenied unless the other side of a local socket is run by us, or by root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return  # there the file's mode says who may connect
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if user not in (0, os.geteuid()) and os.geteuid() != 0:
        raise AccessDenied(
            f"user {user} is not who has the database open",
            needed="admin",
            given="nothing",
            hint="strata serve",
        )


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop; uvloop's where that is installed, which does more with less."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return made
