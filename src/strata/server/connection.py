"""One client: frames in, calls, frames out.

What takes microseconds is done at once, in the loop; what may wait for a disk or work for long is done by a
thread, and answered when it is ready. Nothing is read from a client that does not read what it asked for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from strata.core.errors import InvalidInput, RemoteError, StrataError
from strata.wire.errors import to_wire
from strata.wire.frames import (
    AFTER_LENGTH,
    GREETING_BYTES_MAX,
    HEADER,
    MAGIC,
    PACK_FROM_BYTES,
    PROTOCOL,
    Frame,
    Kind,
    Reader,
    answer,
    decode_body,
    encode_body,
    frame,
)
from strata.wire.session import Bound, Session

if TYPE_CHECKING:
    from strata.server.access import Tokens
    from strata.server.operations import Operations
    from strata.server.server import Server

# As plain numbers: to look one up in the enumeration costs as much as to read a key.
_CALL, _RESULT, _OPERATION, _OPEN, _RELEASE = (
    int(kind) for kind in (Kind.CALL, Kind.RESULT, Kind.OPERATION, Kind.OPEN, Kind.RELEASE)
)
_CREDIT_MAX: Final = 1 << 16
_NO_OPTIONS: Final[dict[str, Any]] = {}
_FLUSH_BYTES: Final = 1 << 18  # of answers that wait for others of the same read


class Cancelled(Exception):
    """The client no longer wants the answer."""


class Work:
    """A call that a thread works on."""

    __slots__ = ("_connection", "_credit", "_told", "id", "is_cancelled", "is_endless")

    def __init__(self, connection: Connection, id: int) -> None:
        self.id = id
        self.is_cancelled = False
        self.is_endless = False  # it waits for what others do, so an end of the server does not wait for it
        self._connection = connection
        self._told = 0.0
        self._credit = threading.Semaphore(0)  # pages that the client has room for

    def cancel(self) -> None:
        self.is_cancelled = True
        self._credit.release()  # whoever waits for it looks up

    def give_credit(self, pages: object) -> None:
        """Let so many more pages go."""
        if type(pages) is not int or not 0 <= pages <= _CREDIT_MAX:
            raise InvalidInput(f"credit is a number of pages up to {_CREDIT_MAX}, not {pages!r}")
        if pages:
            self._credit.release(pages)

    def send_page(self, items: list[Any]) -> None:
        """Send a page, once the client has room for it. Ends the call when the client does not want it."""
        self._credit.acquire()
        if self.is_cancelled:
            raise Cancelled
        self._connection.send_soon(self._connection.pages(self.id, items))

    def progress(self, done: int, all: int) -> None:
        """Tell the client, at most ten times a second. Ends the call when the client does not want it."""
        if self.is_cancelled:
            raise Cancelled
        now = time.monotonic()
        if now - self._told >= 0.1 or done == all:
            self._told = now
            self._connection.send_soon(frame(Kind.PROGRESS, self.id, encode_body((done, all))))


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, server: Server, *, is_local: bool) -> None:
        self._server = server
        self._is_local = is_local
        self._reader = Reader(GREETING_BYTES_MAX)
        self._frames: deque[Frame] = deque()
        self._session: Session | None = None
        self._operations: Operations | None = None
        self._packs = False
        self._token: object = None
        self._working: dict[int, Work] = {}
        self._is_choked = False  # the client does not read
        self._is_over = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.last_heard = time.monotonic()
        self._transport: asyncio.Transport

    # -- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=4 * _FLUSH_BYTES)
        try:
            self._server.add(self)
        except StrataError as error:
            self._refuse(error)
            return
        wait_s = self._server.limits.greeting_s
        self._greeting = self._server.loop.call_later(wait_s, self._end, "it did not say who it is in time")

    def data_received(self, data: bytes) -> None:
        self.last_heard = time.monotonic()
        session = self._session
        if session is not None and not self._frames and not self._is_choked:
            found = self._reader.only(data)
            if found is not None and found.kind == _CALL and not self._working:
                # Who asks one thing at a time waits for this: no list, no loop.
                try:
                    self._call(session, found)
                except Exception as error:
                    self._say(self._error(found.id, error))
                self._flush()
                return
        try:
            self._frames.extend(self._reader.feed(data))
        except StrataError as error:
            self._refuse(error)
            return
        self._run()

    def pause_writing(self) -> None:
        self._is_choked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_choked = False
        self._run()
        self._read_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over = True
        self._greeting.cancel() if hasattr(self, "_greeting") else None
        for work in self._working.values():
            work.cancel()
        self._server.remove(self)
        if self._session is not None and not self._working:
            self._session.close()

    # -- frames

    def _run(self) -> None:
        """Do what was asked, as far as the client takes the answers."""
        frames, working, most = self._frames, self._working, self._server.limits.in_flight
        while frames and not self._is_choked and not self._is_over:
            if len(working) >= most:
                self._transport.pause_reading()
                break
            found = frames.popleft()
            try:
                self._take(found)
            except Exception as error:
                if self._session is None:
                    self._refuse(error)
                    return
                self._say(self._error(found.id, error))
        self._flush()

    def _read_on(self) -> None:
        if not self._is_over and not self._is_choked and len(self._working) < self._server.limits.in_flight:
            self._transport.resume_reading()

    def _take(self, found: Frame) -> None:
        session = self._session
        if session is None:
            self._greet(found)
        elif found.kind == _CALL:
            self._call(session, found)
        elif found.kind == _OPERATION:
            self._operate(session, found)
        elif found.kind == _OPEN:
            session.open(*decode_body(found.body))
        elif found.kind == _RELEASE:
            session.release(decode_body(found.body))
        elif found.kind == Kind.CANCEL:
            work = self._working.get(found.id)
            if work is not None:
                work.cancel()
        elif found.kind == Kind.CREDIT:
            work = self._working.get(found.id)
            if work is not None:
                work.give_credit(decode_body(found.body))
        else:
            raise InvalidInput(f"a frame of kind {found.kind} is nothing that a client sends")

    def _greet(self, found: Frame) -> None:
        hello = decode_body(found.body)
        if found.kind != Kind.HELLO or not isinstance(hello, dict) or hello.get("magic") != MAGIC:
            raise InvalidInput("the first frame says who speaks")
        if PROTOCOL not in hello.get("protocols", ()):
            raise InvalidInput(
                f"the client speaks protocols {hello.get('protocols')!r}, and here it is {PROTOCOL}",
                hint="use versions of Strata that are nearer to each other",
            )
        self._greeting.cancel()
        server = self._server
        self._session = server.session(self._is_local, self._transport, hello)
        self._token = hello.get("token")
        self._packs = bool(hello.get("packs"))
        self._reader.limit = server.limits.frame_bytes
        welcome = server.welcome(self._session) | {"packs": self._packs}
        self._say(frame(Kind.WELCOME, 0, encode_body(welcome)))

    def _call(self, session: Session, found: Frame) -> None:
        request = decode_body(found.body)
        try:
            handle, method, arguments, *rest = request
            options: dict[str, Any] = rest[0] if rest else _NO_OPTIONS
        except (TypeError, ValueError):
            raise InvalidInput("a call is a handle, a method and arguments") from None
        if type(arguments) is not list or type(options) is not dict:
            raise InvalidInput("arguments are an array, and options a map")
        bound = session.bound(handle, method)
        server = self._server
        server.counts[method] += 1
        if bound.is_plain and not options and not (server.is_strict and bound.ask.access != "read"):
            self._say(self._result(found.id, bound.run(*arguments)))
        elif bound.ask.slow or (bound.ask.access != "read" and (session.strict or server.is_strict)):
            self._hand_over(session, bound, arguments, options, found.id)
        else:
            self._say(self._result(found.id, session.call(bound, arguments, options.get("once"))))

    def _hand_over(
        self, session: Session, bound: Bound, arguments: list[Any], options: dict[str, Any], id: int
    ) -> None:
        work = self._work(id)
        progress = work.progress if options.get("progress") else None
        once, is_over = options.get("once"), (lambda: work.is_cancelled) if bound.ask.waits else None
        call = partial(session.call, bound, arguments, once, progress, is_over)
        self._begin(work, call, waits=bound.ask.waits)

    def _operate(self, session: Session, found: Frame) -> None:
        if self._operations is None:
            self._operations = self._server.operations(session)
        operations = self._operations
        asked = operations.asked(decode_body(found.body))
        self._server.counts[asked.operation.name] += 1
        if asked.credit is not None:
            work = self._work(found.id)
            work.give_credit(asked.credit)
            work.is_endless = True
            self._begin(work, lambda: operations.stream(asked, work.send_page))
        elif asked.is_slow or (
            asked.operation.access != "read" and (session.strict or self._server.is_strict)
        ):
            self._begin(self._work(found.id), lambda: operations.run(asked))
        else:
            self._say(self._result(found.id, operations.run(asked)))

    def _work(self, id: int) -> Work:
        if id in self._working:
            raise InvalidInput(f"request {id} is under way already")
        work = self._working[id] = Work(self, id)
        return work

    def _begin(self, work: Work, call: Callable[[], Any], *, waits: bool = False) -> None:
        """Let a thread do a call, and answer with what it returns.

        Args:
            waits: it does nothing but wait, so it must not hold up those that work.
        """
        work.is_endless = work.is_endless or waits

        def run() -> bytes:
            try:
                return self._result(work.id, call())
            except Cancelled:
                return self._error(work.id, RemoteError("the call was cancelled"))
            except Exception as error:
                return self._error(work.id, error)

        self._server.run(run, lambda said: self._worked(work, said), waits=waits)

    def pages(self, id: int, items: list[Any]) -> bytes:
        """Return the frame of a page."""
        limit = self._server.limits.frame_bytes
        return answer(id, encode_body(items), limit, packs=self._packs, kind=Kind.ITEMS)

    def _worked(self, work: Work, said: bytes) -> None:
        del self._working[work.id]
        if self._is_over:
            if not self._working and self._session is not None:
                self._session.close()
            return
        self._say(said)
        self._run()
        self._read_on()

    def _result(self, id: int, result: Any) -> bytes:
        body = encode_body(result)
        if len(body) < PACK_FROM_BYTES:  # as most are
            return HEADER.pack(len(body) + AFTER_LENGTH, _RESULT, id) + body
        return answer(id, body, self._server.limits.frame_bytes, packs=self._packs)

    def _error(self, id: int, error: BaseException) -> bytes:
        self._server.note_error(error)
        return frame(Kind.ERROR, id, encode_body(to_wire(error)))

    # -- out

    def _say(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        out = self._out
        if out:
            if not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            self._out_bytes = 0

    def send_soon(self, data: bytes) -> None:
        """Send a frame, from any thread."""
        self._server.soon(self._send, data)

    def _send(self, data: bytes) -> None:
        if not self._is_over:
            self._say(data)
            self._flush()

    # -- the end

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked for is not answered yet."""
        return bool(self._working or self._frames or self._transport.get_write_buffer_size())

    def sweep(self, now: float) -> None:
        """Do what is due when nothing was heard for long."""
        quiet_s, limits = now - self.last_heard, self._server.limits
        if self._session is None or self._working or self._frames:
            return
        if limits.idle_s and quiet_s > limits.idle_s:
            self.say_goodbye("it was idle for too long")
            self.close()
        elif quiet_s > limits.transaction_idle_s:
            self._session.end_transactions()

    def check_token(self, tokens: Tokens) -> None:
        """Close the connection when its token does not allow what it did."""
        session = self._session
        if session is None or self._is_local:
            return
        try:
            if tokens.access_of(self._token) == session.access or self._server.read_only:
                return
        except StrataError:
            pass
        self.say_goodbye("its token is no longer good")
        self.close()

    def stop_waiting(self) -> None:
        """End what only waits for something to happen, and what sends pages."""
        for work in list(self._working.values()):
            if work.is_endless:
                work.cancel()

    def say_goodbye(self, reason: str) -> None:
        """Tell the client that nothing more will be answered than what it has asked for."""
        self._send(frame(Kind.BYE, 0, encode_body({"reason": reason})))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _refuse(self, error: BaseException) -> None:
        """Say what is wrong with the client, and close."""
        self._say(self._error(0, error))
        self._end("refused")

    def _end(self, reason: str) -> None:
        self._is_over = True
        self._frames.clear()
        self._flush()
        self._transport.close()
