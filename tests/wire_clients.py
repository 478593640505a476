"""A client that says byte by byte what it is told to, good or not, and stores to serve it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from strata.server.limits import Limits
from strata.server.server import Server
from strata.store import open_store
from strata.wire.frames import FRAME_BYTES_MAX, Frame, Kind, Reader, decode_body, encode_body, frame

HELLO = {"magic": "strata", "protocols": [1]}
GREETING = frame(Kind.HELLO, 0, encode_body(HELLO))


def hello(**more: Any) -> bytes:
    """The frame that greets, with more fields."""
    return frame(Kind.HELLO, 0, encode_body({**HELLO, **more}))


PATIENCE_S = 20  # of a test on a busy machine; nothing waits so long when all is well


def call(id: int, handle: Any, method: Any, *arguments: Any, **options: Any) -> bytes:
    """The frame of a call."""
    body = [handle, method, list(arguments), *([options] if options else [])]
    return frame(Kind.CALL, id, encode_body(body))


def opens(new: Any, handle: Any, method: Any, *arguments: Any) -> bytes:
    """The frame that opens a handle."""
    return frame(Kind.OPEN, 0, encode_body([new, handle, method, list(arguments)]))


# Handle 1 is main, 2 its kv; 3 a transaction and 4 its kv.
SETUP = opens(1, 0, "branch", "main") + opens(2, 1, "keyspace", "default", "kv", True, False)
BEGIN = opens(3, 1, "begin", "serializable", False, None) + opens(
    4, 3, "keyspace", "default", "kv", True, False
)


class Client:
    """One connection."""

    def __init__(self, server: Server, *, hello: bytes = GREETING + SETUP, port: int | None = None) -> None:
        """Connect, over a socket pair or to a port, and say `hello`."""
        if port is None:
            self.socket, theirs = socket.socketpair()
            theirs.setblocking(False)
            server.adopt(theirs)
        else:
            self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(PATIENCE_S)
        self._frames: Iterator[Frame] = iter(())
        self._reader = Reader(FRAME_BYTES_MAX)
        self.said: list[bytes] = []  # by the server
        if hello:
            self.send(hello)
            self.welcome = self.next()[2] if GREETING in hello else None

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it then reads says why
            self.socket.sendall(data)

    def next(self) -> tuple[int, int, Any]:
        """The next frame: kind, id and body. EOFError at the end."""
        while True:
            found = next(self._frames, None)
            if found is not None:
                return found.kind, found.id, decode_body(found.body)
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self.said.append(data)
            self._frames = self._reader.feed(data)

    def rest(self) -> list[tuple[int, int, Any]]:
        """All frames until the server closes."""
        found = []
        with contextlib.suppress(EOFError):
            while True:
                found.append(self.next())
        return found

    def ask(self, id: int, handle: Any, method: Any, *arguments: Any, **options: Any) -> Any:
        """The answer to one call, or the code of its error."""
        self.send(call(id, handle, method, *arguments, **options))
        kind, answered, body = self.next()
        assert answered == id
        return body if kind == Kind.RESULT else body["code"]

    def close(self) -> None:
        self.socket.close()


class Gate:
    """A store whose `flush` waits, as for a slow disk, until it is let go."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.begun = 0
        self.free = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def flush(self) -> int:
        self.begun += 1
        assert self.free.wait(PATIENCE_S)
        return int(self._store.flush())

    def verify(self, progress: Callable[[int, int], object] | None = None) -> Any:
        """Tell of progress until somebody minds."""
        self.begun += 1
        for done in range(10**9):
            if progress is not None:
                progress(done, 10**9)
            if self.free.wait(0.001):
                break
        return self._store.verify()


@contextlib.contextmanager
def serving(store: Any = None, **options: Any) -> Iterator[Server]:
    """A server that must be as good at the end as it was at the beginning."""
    limits = {name: options.pop(name) for name in list(options) if name in Limits.__slots__}
    served = store or Gate(open_store(None))
    server = Server(served, limits=Limits(**limits), **options)
    try:
        yield server
        if not server.is_draining:
            until(lambda: not server.connections)
            still_serves(server)
    finally:
        if isinstance(served, Gate):
            served.free.set()
        server.close()
        served.close()
    assert not server.connections


def still_serves(server: Server) -> None:
    """Whether a good client gets good answers, and leaves nothing behind."""
    before = len(server.connections)
    good = Client(server, hello=b"")
    good.send(GREETING + SETUP + call(1, 2, "get", "nothing is here") + call(2, 1, "name"))
    assert [good.next()[0] for _ in range(3)] == [Kind.WELCOME, Kind.RESULT, Kind.RESULT]
    good.close()
    until(lambda: len(server.connections) == before)


def until(happens: Callable[[], object]) -> None:
    """Wait for what is about to happen."""
    end = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)
