"""One client of RCP: messages in, operations, messages out, in the order in which they were asked for.

What takes microseconds is done at once, in the loop, as long as it is the connection's turn, and a turn is
answered in one write. What may wait for a disk or work for long is done by a thread, and what comes behind it
waits. Nothing is read from a client that does not read what it asked for.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from strata.core.errors import LimitExceeded, StrataError
from strata.server.descriptors import keep_alive
from strata.server.logs import OK, where_of
from strata.server.rcp.envelopes import NoRequest, NotAsked, Request, failure, request_of, response
from strata.server.rcp.errors import Refused, refused
from strata.server.rcp.frames import PAYLOAD_BYTES_MAX, Reader, Unreadable, frame
from strata.server.rcp.operation import Operation
from strata.server.rcp.operations import OPERATIONS
from strata.server.rcp.session import Session

if TYPE_CHECKING:
    from strata.server.access import Tokens
    from strata.server.rcp.listener import Listener
    from strata.server.rcp.subscriptions import Subscription

_FLUSH_BYTES: Final = 1 << 18  # of answers that wait for others of the same read
_LARGE_BYTES: Final = 1 << 18  # of a request: to read and store it takes longer than others should wait
_TURN_S: Final = 0.002  # of what one connection asked, before others have theirs
_INTERNAL: Final = "INTERNAL_ERROR"


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._server = listener.server
        self.name = listener.server.next_name()  # in the log
        self._log = listener.server.log
        self._code, self._where = OK, ""  # of the newest answer, for the log
        self._reason: str | None = None  # why we end it
        self._begun = time.monotonic()
        self._session = Session(listener, self)
        self._reader = Reader()
        self._subscriptions: dict[str, Subscription] = {}
        self._new: list[Subscription] = []  # whose answers are not out yet
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._is_choked = False  # the client does not read
        self._is_working = False  # a thread does
        self._is_over_turn = False  # others have theirs before this one goes on
        self._is_over = False
        self._has_ended = False  # the client sends no more, and may still read
        self._has_written = False
        self.last_heard = time.monotonic()
        self._unread = 0, self.last_heard  # so many bytes wait for the client to read, and since when
        self._aborting: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    # -- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=4 * _FLUSH_BYTES)
        keep_alive(transport.get_extra_info("socket"))  # who watches may be silent, and has to be there
        try:
            self._server.add(self)
        except StrataError as error:
            self._listener.stats.rejected += 1
            if self._log is not None:
                self._log.refused(self.name, LimitExceeded.code, **self._peer())
            self._reject("", Refused("RATE_LIMITED", str(error)), is_line=False)
            return
        self._listener.stats.connections += 1
        if self._log is not None:
            self._log.opened(self.name, **self._peer())

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._run()

    def eof_received(self) -> bool:
        """Stay open until what was asked is answered; under TLS that cannot be."""
        self._has_ended = True
        is_busy = self._is_working or self._is_choked or self._is_over_turn
        return is_busy and self._transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        self._is_choked = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_choked = False
        self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over = True
        if self._aborting is not None:
            self._aborting.cancel()
        for id in [*self._subscriptions]:
            self.unsubscribe(id)
        self._session.end()
        if self._log is not None:
            lost = "the client closed it" if error is None else f"it broke: {type(error).__name__}"
            lasted_s = round(time.monotonic() - self._begun, 3)
            self._log.closed(self.name, self._reason or lost, lasted_s=lasted_s)
        self._server.remove(self)

    def _peer(self) -> dict[str, str]:
        """Return where the client is, and what it is connected over."""
        address = self._transport.get_extra_info("peername") or ("", 0)
        is_tls = self._transport.get_extra_info("sslcontext") is not None
        return {"over": "rcp+tls" if is_tls else "rcp", "peer": f"{address[0]} {address[1]}"}

    # -- messages

    def _run(self) -> None:
        """Do what was asked, as far as the client takes the answers."""
        take, clock = self._reader.take, self._server.clock
        until = clock() + _TURN_S
        while not (self._is_choked or self._is_working or self._is_over or self._is_over_turn):
            try:
                message = take()
            except Unreadable:
                self._listener.note_error("BAD_REQUEST")
                self.close("it sent what is no message")
                return
            if message is None:
                break
            self.last_heard = time.monotonic()
            self._take(*message)
            if clock() >= until and not self._reader.is_empty:
                self._is_over_turn = True
                self._transport.pause_reading()
                self._server.loop.call_soon(self._take_next_turn)
        self.flush()

    def _take_next_turn(self) -> None:
        self._is_over_turn = False
        self._go_on()

    def _take(self, is_line: bool, payload: bytes) -> None:
        try:
            request = request_of(payload)
        except NotAsked as error:
            self._say(self._failed(error.id, error), is_line)
            return
        except NoRequest as error:
            self._reject("", Refused("BAD_REQUEST", str(error)), is_line)
            return
        begun, asked = self._server.clock(), None
        self._code = OK
        session, operation = self._session, OPERATIONS.get(request.op)
        try:
            if operation is None:
                raise self._unknown(request)
            session.check(operation)
            is_large = self._server.is_strict or len(payload) > _LARGE_BYTES
            if operation.slow or (operation.writes and is_large):
                self._hand_over(request, operation, is_line, begun)
                return
            asked = operation.read(request.params)
            session.is_line = is_line
            said = self._answer(request.id, operation, asked)
        except Exception as error:
            said = self._failed(request.id, error, asked)
        self._note(request, "unknown" if operation is None else operation.name, begun)
        self._say(said, is_line)
        if session.is_over:
            self.close("it said BYE")

    def _note(self, request: Request, name: str, begun: float) -> None:
        """Count an operation, and let the log know of it."""
        took_s, log = self._server.clock() - begun, self._log
        self._listener.stats.note(name, took_s)
        if log is not None and (log.requests or took_s >= log.slow_s or self._where):
            where: dict[str, Any] = {"error": self._where} if self._where else {}
            log.request(self.name, request.id, name, took_s, self._code, **where)
            self._where = ""

    def _unknown(self, request: Request) -> Refused:
        if self._session.access is None:
            return Refused("UNAUTHORIZED", "say AUTH first")
        return Refused("BAD_REQUEST", f"there is no operation {request.op[:100]!r}")

    def _answer(self, id: str, operation: Operation, asked: Any) -> bytes:
        result: Any = operation.run(self._session, asked)
        if operation.writes:
            self._has_written = True
            self._listener.writes += 1
        if self._session.omits_nulls:
            result = _without_nulls(msgspec.to_builtins(result))
        said = response(id, result)
        if len(said) <= PAYLOAD_BYTES_MAX:
            return said
        done = "it was done, but what it answers" if operation.writes else "what it answers"
        sizes = {"limit": PAYLOAD_BYTES_MAX, "actual": len(said)}
        raise Refused("BAD_REQUEST", f"{operation.name}: {done} is larger than a frame may be", sizes)

    def _failed(self, id: str, error: BaseException, asked: Any = None) -> bytes:
        made = refused(error, asked)
        self._code = made.code.lower()
        if made.code == _INTERNAL:
            self._where = where_of(error)
        self._listener.note_error(made.code)
        return failure(id, made)

    def _hand_over(self, request: Request, operation: Operation, is_line: bool, begun: float) -> None:
        """Let a thread do it. What comes behind it waits, and so do events, which its answer precedes."""

        def work() -> bytes:
            asked = None
            try:
                asked = operation.read(request.params)
                return self._answer(request.id, operation, asked)
            except Exception as error:
                return self._failed(request.id, error, asked)

        def done(said: bytes) -> None:
            self._is_working = False
            self._note(request, operation.name, begun)
            if self._is_over:
                self._session.end()  # once more, of what the thread may have begun
                return
            self._say(said, is_line)
            self._go_on()

        self._is_working = True
        self._transport.pause_reading()
        self._server.run(self._server.working, self, work, done)

    def _go_on(self) -> None:
        """Do what has waited: requests, and then events."""
        self._run()
        if self._is_over or self._is_choked or self._is_working or self._is_over_turn:
            return
        if self._has_ended:
            self.close("the client closed it")
            return
        self._transport.resume_reading()
        for one in [*self._subscriptions.values()]:
            self._listener.watches.go_on(one)

    # -- subscriptions

    @property
    def has_room(self) -> bool:
        """Whether events may be sent: the client reads, and no answer is still to come."""
        return not (self._is_choked or self._is_working or self._is_over)

    def subscribe(self, made: Subscription) -> None:
        """Take a subscription in. Its events begin some time after the answer."""
        self._subscriptions[made.id] = made
        self._new.append(made)
        self._listener.watches.add(made)

    def unsubscribe(self, id: str) -> bool:
        """Let go of a subscription; return whether there was one."""
        self._listener.watches.remove(id)
        return self._subscriptions.pop(id, None) is not None

    def forget(self, one: Subscription) -> None:
        """Note that a subscription has ended."""
        self._subscriptions.pop(one.id, None)

    def push(self, said: bytes, is_line: bool) -> None:
        """Say something that was not asked for; `flush` sends it."""
        if not self._is_over:
            self._say(said, is_line)

    # -- out

    def _say(self, payload: bytes, is_line: bool) -> None:
        data = payload + b"\n" if is_line else frame(payload)
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes >= _FLUSH_BYTES:
            self._write()

    def _write(self) -> None:
        out = self._out
        if out:
            if not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            self._out_bytes = 0

    def flush(self) -> None:
        """Send what was said."""
        self._write()
        if self._new:
            for made in self._new:
                self._listener.watches.begin(made)
            self._new.clear()
        if self._has_written:
            self._has_written = False
            self._listener.watches.moved()

    # -- the end, and what the server asks

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked for is not answered yet."""
        return self._is_working or self._is_over_turn or bool(self._transport.get_write_buffer_size())

    def sweep(self, now: float) -> None:
        """Do what is due when nothing was heard for long. Who watches may be silent."""
        limits = self._server.limits
        if self._stalled_s(now) > limits.stalled_s:
            self._transport.abort()
        self._session.sweep(now)
        is_idle = not (self._is_working or self._subscriptions)
        if limits.idle_s and is_idle and now - self.last_heard > limits.idle_s:
            self.close("it was idle for too long")

    def _stalled_s(self, now: float) -> float:
        """Return for how long the client has not read what waits for it, nor sent the rest of a message."""
        size = self._transport.get_write_buffer_size()
        if size == 0 or size != self._unread[0]:
            self._unread = size, now
        is_ours = (
            self._is_working or self._is_choked or self._is_over_turn
        )  # then we do not read on ourselves
        halfway_s = 0.0 if self._reader.is_empty or is_ours else now - self.last_heard
        return max(now - self._unread[1], halfway_s)

    def check_token(self, tokens: Tokens) -> None:
        """Close the connection when its token does not allow what it did."""
        session = self._session
        if session.token is None:
            return
        try:
            if tokens.access_of(session.token) == session.access:
                return
        except StrataError:
            pass
        self.say_goodbye("its token is no longer good")
        self.close("its token is no longer good")

    def stop_waiting(self) -> None:
        """Do nothing: what is under way here ends by itself."""

    def say_goodbye(self, reason: str) -> None:
        """Tell those who watch that nothing more comes."""
        for one in [*self._subscriptions.values()]:
            self._listener.watches.end(one, reason)
        self.flush()

    def _reject(self, id: str, error: Refused, is_line: bool) -> None:
        """Say what is wrong with the client, and close."""
        self._say(self._failed(id, error), is_line)
        self.close(f"refused: {self._code}")

    def close(self, reason: str = "the server ends") -> None:
        """Close once the client has read what was said, or does not do so in time."""
        self._reason = self._reason or reason
        self.flush()
        self._is_over = True
        self._transport.close()
        if self._aborting is None and self._transport.get_write_buffer_size():
            self._aborting = self._server.loop.call_later(self._server.limits.drain_s, self.abort)

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()


def _without_nulls(value: Any) -> Any:
    """Return a result without what is null in it; values of users stay as they are."""
    if isinstance(value, dict):
        return {
            name: item if name in _USERS else _without_nulls(item)
            for name, item in value.items()
            if item is not None
        }
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


_USERS: Final = frozenset({"ctx", "definition", "entry", "data"})
