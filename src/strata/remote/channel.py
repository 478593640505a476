"""Channels: how a call reaches a session.

SocketChannel   over a connection, for any number of threads at once
LocalChannel    in this process, once it has become the owner of what it was a client of

Of the threads that wait for answers one reads the connection for all: whoever finds it free. When its own
answer is there it wakes another one that waits. So a single thread pays for no other, and no thread of ours
is needed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from strata.core.errors import InvalidInput, RemoteError, StrataError
from strata.wire.errors import from_wire
from strata.wire.frames import HEADER, PROTOCOL, Frame, Kind, Reader, decode_body, encode_body, frame
from strata.wire.session import Session

_RECEIVED_BYTES: Final = 1 << 18
_IDS: Final = 0xFFFF_FFFF
Progress = Callable[[int, int], object]


class Lost(Exception):
    """The connection is gone. `sent`: whether the request may have reached the other side."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Socket(Protocol):
    """What a channel needs of a socket."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class Channel(Protocol):
    """A way to a session. Raises Lost where it is no more."""

    number: int  # no two channels of one link have the same
    can_be_lost: bool  # so that each write needs a key, in case that it is asked again

    def call(
        self, handle: int, method: str, arguments: Any, once: str | None, progress: Progress | None
    ) -> Any: ...
    def open(self, handle: int, method: str, arguments: Any) -> int:
        """Return the number of a new handle, without waiting: it is opened together with the next call."""

    def release(self, handle: int) -> None:
        """Let go of a handle, at the next occasion. Safe to call from a finalizer."""

    def close(self) -> None: ...


class _Waiting:
    """A call whose answer has not come."""

    __slots__ = ("_progress", "answer", "is_done", "lock", "parts", "told")

    def __init__(self, progress: Progress | None) -> None:
        self.answer: Any = None
        self.is_done = False
        self.parts: list[bytes] = []  # of the answer's body, in front of its last piece
        self.told: list[Any] = []  # of its progress, and not passed on yet
        self._progress = progress
        self.lock = threading.Lock()  # held but when there is something to look at
        self.lock.acquire()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake already
            self.lock.release()

    def pass_on(self) -> None:
        """Tell of the progress. In the thread that waits, since what is told may raise."""
        while self.told:
            done = self.told.pop(0)
            if self._progress is not None:
                self._progress(*done)


class SocketChannel:
    """One connection that was greeted."""

    can_be_lost = True

    def __init__(self, socket: Socket, number: int, *, frame_bytes_max: int, packs: bool) -> None:
        self.number = number
        self._socket = socket
        self._packs = packs
        self.frame_bytes_max = frame_bytes_max
        self._reader = Reader(frame_bytes_max)
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._id = 0
        self._handle = 0
        self._unsent: list[bytes] = []  # frames that go with the next call
        self._released: list[int] = []
        self._lost: str | None = None

    def open(self, handle: int, method: str, arguments: Any) -> int:
        with self._sending:
            self._handle += 1
            new = self._handle
            body = encoded((new, handle, method, arguments))
            self._unsent.append(frame(Kind.OPEN, 0, body))
            return new

    def release(self, handle: int) -> None:
        self._released.append(handle)  # no lock: a finalizer may run where this thread holds it

    def call(
        self, handle: int, method: str, arguments: Any, once: str | None, progress: Progress | None
    ) -> Any:
        options: dict[str, Any] = {}
        if once is not None:
            options["once"] = once
        if progress is not None:
            options["progress"] = True
        request = (handle, method, arguments, options) if options else (handle, method, arguments)
        return self.request(Kind.CALL, encoded(request), progress)

    def request(self, kind: Kind, body: bytes, progress: Progress | None = None) -> Any:
        """Return the answer to one request.

        Raises: what the answer says went wrong; Lost; RemoteError for a request that is too long.
        """
        if len(body) + HEADER.size > self.frame_bytes_max:
            raise RemoteError(
                f"a request of {len(body)} bytes is longer than the other side takes",
                hint=f"at most {self.frame_bytes_max} bytes: write less at once",
            )
        waiting = _Waiting(progress)
        with self._sending:
            if self._lost is not None:
                raise Lost(self._lost, sent=False)
            self._id = id = self._id % _IDS + 1
            self._waiting[id] = waiting
            self._unsent.append(frame(kind, id, body, packs=self._packs))
            self._send()
        try:
            self._wait(waiting)
        except BaseException:
            self._waiting.pop(id, None)
            if self._lost is None:
                self._cancel(id)
            raise
        kind_, data = waiting.answer
        if kind_ == Kind.RESULT:
            return data
        raise from_wire(data)

    def _send(self) -> None:
        """Send what is unsent, with the lock held."""
        if self._released:
            gone, self._released = self._released, []
            self._unsent.append(frame(Kind.RELEASE, 0, encode_body(gone)))
        data, self._unsent = b"".join(self._unsent), []
        try:
            self._socket.sendall(data)
        except OSError as error:
            self._end(f"the connection broke: {error}")

    def _cancel(self, id: int) -> None:
        with self._sending:
            self._unsent.append(frame(Kind.CANCEL, id, encode_body(None)))
            self._send()

    def _wait(self, waiting: _Waiting) -> None:
        while not waiting.is_done:
            if self._receiving.acquire(blocking=False):
                try:
                    while not waiting.is_done:
                        self._receive()
                        waiting.pass_on()
                finally:
                    self._receiving.release()
                    self._wake_another()
            else:
                waiting.lock.acquire()
                waiting.pass_on()
            if self._lost is not None and not waiting.is_done:
                raise Lost(self._lost, sent=True)

    def _wake_another(self) -> None:
        for other in list(self._waiting.values()):
            if not other.is_done:
                other.wake()
                return

    def _receive(self) -> None:
        """Read once, and hand out what came."""
        if self._lost is not None:
            raise Lost(self._lost, sent=True)
        try:
            data = self._socket.recv(_RECEIVED_BYTES)
        except OSError as error:
            data, why = b"", f"the connection broke: {error}"
        else:
            why = "the other side closed the connection"
        if not data:
            self._end(why)
            raise Lost(why, sent=True)
        try:
            for found in self._reader.feed(data):
                self._take(found)
        except StrataError as error:  # there is no telling where the next frame begins
            why = f"the other side sent what is no frame: {error}"
            self._end(why)
            raise RemoteError(why) from None

    def _take(self, found: Frame) -> None:
        if found.kind == Kind.BYE:
            return  # the end of the connection follows, once all is answered that can be
        waiting = self._waiting.get(found.id)
        if waiting is None:
            return  # whoever asked did not wait for the answer
        if found.kind == Kind.PART:
            waiting.parts.append(decode_body(found.body))
            return
        data = decode_body(b"".join([*waiting.parts, found.body]) if waiting.parts else found.body)
        if found.kind == Kind.PROGRESS:
            waiting.told.append(data)
            waiting.wake()
            return
        del self._waiting[found.id]
        waiting.answer = found.kind, data
        waiting.is_done = True
        waiting.wake()

    def _end(self, why: str) -> None:
        self._lost = self._lost or why
        self._socket.close()
        for waiting in list(self._waiting.values()):
            waiting.wake()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._end("the connection was closed")


def encoded(request: Any) -> bytes:
    """Return a request as bytes. Raises InvalidInput for what cannot be said."""
    try:
        return encode_body(request)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise InvalidInput(f"this cannot be asked of another process: {error}") from None


def greet(
    socket: Socket, number: int, hello: dict[str, Any], frame_bytes_max: int
) -> tuple[SocketChannel, dict[str, Any]]:
    """Say who we are, and return the channel and what the other side says of itself.

    Raises: AccessDenied, RemoteError, or whatever else the other side answers; Lost.
    """
    socket.sendall(frame(Kind.HELLO, 0, encode_body(hello)))
    reader = Reader(frame_bytes_max)
    found: list[Frame] = []
    while not found:
        data = socket.recv(_RECEIVED_BYTES)
        if not data:
            raise Lost("the other side closed the connection", sent=False)
        found = _first(reader, data)
    first = found[0]
    body = decode_body(first.body)
    if first.kind == Kind.ERROR:
        raise from_wire(body)
    if first.kind == Kind.BYE:  # it ends, and another one may begin
        raise Lost("the other side ends", sent=False)
    if first.kind != Kind.WELCOME or not isinstance(body, dict) or body.get("protocol") != PROTOCOL:
        raise RemoteError(
            "the other side does not speak our protocol", hint="is this the port of strata serve?"
        )
    most = body.get("frame_bytes_max")
    channel = SocketChannel(
        socket,
        number,
        frame_bytes_max=min(frame_bytes_max, most) if isinstance(most, int) else frame_bytes_max,
        packs=bool(body.get("packs")) and bool(hello.get("packs")),
    )
    return channel, body


def _first(reader: Reader, data: bytes) -> list[Frame]:
    try:
        return list(reader.feed(data))
    except StrataError:
        raise RemoteError(
            "the other side does not speak our protocol", hint="is this the port of strata serve?"
        ) from None


class LocalChannel:
    """A session in this process."""

    can_be_lost = False

    def __init__(self, session: Session, number: int) -> None:
        self.number = number
        self._session = session
        self._handle = 0
        self._lock = threading.Lock()
        self._released: list[int] = []

    def open(self, handle: int, method: str, arguments: Any) -> int:
        with self._lock:
            self._handle += 1
            if self._released:
                gone, self._released = self._released, []
                self._session.release(gone)
            self._session.open(self._handle, handle, method, arguments)
            return self._handle

    def call(
        self, handle: int, method: str, arguments: Any, once: str | None, progress: Progress | None
    ) -> Any:
        session = self._session
        if method == "finish":  # which has what is encoded already in it
            arguments = decode_body(encode_body(arguments))
        result = session.call(session.bound(handle, method), arguments, once, progress)
        # As it comes over a connection: rows of lists, and plain data for what is more than a value.
        return decode_body(encode_body(result))

    def release(self, handle: int) -> None:
        self._released.append(handle)

    def close(self) -> None:
        self._session.close()
