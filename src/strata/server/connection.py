"""One client: frames in, calls, frames out.

What takes microseconds is done at once, in the loop, as long as it is the connection's turn; what may wait
for a disk or work for long is done by a thread, and answered when it is ready. Nothing is read from a client
that does not read what it asked for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import Raw

from strata.core.brief import brief
from strata.core.errors import InternalError, InvalidInput, LimitExceeded, StrataError
from strata.server import heard
from strata.server.descriptors import keep_alive
from strata.server.logs import where_of
from strata.server.work import Work
from strata.wire.errors import to_wire
from strata.wire.frames import (
    AFTER_LENGTH,
    GREETING_BYTES_MAX,
    HEADER,
    MAGIC,
    PACK_FROM_BYTES,
    PACKED,
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
    from strata.server.operations import Asked, Operations
    from strata.server.server import Server

_FLUSH_BYTES: Final = 1 << 18  # of answers that wait for others of the same read
# As plain numbers: to look one up in the enumeration costs as much as to read a key.
_CALL, _RESULT, _OPERATION, _OPEN = (
    kind.value for kind in (Kind.CALL, Kind.RESULT, Kind.OPERATION, Kind.OPEN)
)
_MESSAGE_MAX: Final = 80  # characters of what goes wrong, where there is little room
_TURN_S: Final = 0.001  # of what one connection asked, before others have theirs
_LARGE_BYTES: Final = 1 << 16  # of a call: what it does takes longer than to hand it over
_UNASKED: Final = -1  # stands for an id where a frame is not answered


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    def __init__(self, server: Server, *, is_local: bool) -> None:
        self._server = server
        self._is_local = is_local
        self.name = server.next_name()  # in the log
        self._log = server.log
        self._noted_from_s = float("inf") if server.log is None else server.log.from_s
        self._asked = ""  # by the frame that is being taken, for the log
        self._reason: str | None = None  # why we end it
        self._begun = time.monotonic()
        self._reader = Reader(GREETING_BYTES_MAX)
        self._frames: Iterator[Frame] = iter(())  # that came and were not taken: made while they are taken
        self._unpacked: Frame | None = None  # comes before those
        self._has_frames = False  # whether there may be some
        self._session: Session | None = None
        self._operations: Operations | None = None
        self._packs = False
        self._frame_bytes = GREETING_BYTES_MAX
        self._token: object = None
        self._working: dict[int, Work] = {}
        self._streams = 0  # of these, those that send pages: to end them, or to go on, more has to be read
        self.is_choked = False  # the client does not read
        self._room = threading.Event()  # it does, for threads
        self._room.set()
        self._is_over = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self.last_heard = time.monotonic()  # a whole frame, not a byte of one
        self._unread = 0, self.last_heard  # so many bytes wait for the client to read, and since when
        self.link: str | None = None  # which client this is, when it connects again
        self._next: Connection | None = None  # of the same client: it waits for what is under way here
        self._is_waiting = False
        self._held: Work | None = None  # what comes first, and a thread does; all else in its order behind it
        self._is_over_turn = False  # others have theirs before this one goes on
        self._alive_s = 0.0  # how often it wants to hear from us while we work on something; 0: never
        self._alive: asyncio.TimerHandle | None = None
        self._greeting: asyncio.TimerHandle | None = None
        self._aborting: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    # -- what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=4 * _FLUSH_BYTES)
        if not self._is_local:
            keep_alive(self._transport.get_extra_info("socket"))
        try:
            self._server.add(self)
        except StrataError as error:
            self._refuse(error)
            return
        wait_s = self._server.limits.greeting_s
        self._greeting = self._server.loop.call_later(wait_s, self._end, "it did not say who it is in time")

    def data_received(self, data: bytes) -> None:
        session = self._session
        if session is not None and not self._has_frames and not self.is_choked and not self._working:
            found = self._reader.only(data)
            if found is not None and found.kind == _CALL:
                # Who asks one thing at a time waits for this: nothing is queued, nothing gathered.
                self.last_heard = time.monotonic()
                begun, self._asked = self._server.clock(), ""
                try:
                    self._call(session, found)
                except Exception as error:
                    self._fail(found, error, begun)
                self._note(found, self._server.clock() - begun)
                self._flush()
                return
        self._frames = chain(self._frames, self._reader.feed(data))
        self._run()

    def pause_writing(self) -> None:
        self.is_choked = True
        self._room.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.is_choked = False
        self._room.set()
        self._run()
        self._read_on()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over = True
        for timer in (self._greeting, self._aborting, self._alive):
            if timer is not None:
                timer.cancel()
        for work in self._working.values():
            work.cancel()
        if self._log is not None:
            lost = "the client closed it" if error is None else f"it broke: {type(error).__name__}"
            reason, lasted_s = self._reason or lost, round(time.monotonic() - self._begun, 3)
            self._log.closed(self.name, reason, lasted_s=lasted_s)
        self._server.remove(self)
        if not self._working:
            self._finish()

    # -- frames

    def _run(self) -> None:
        """Do what was asked, as far as the client takes the answers."""
        is_heard, self._has_frames = False, True
        frames, limit, clock = self._frames, self._server.limits.in_flight, self._server.clock
        begun = clock()
        until = begun + _TURN_S
        while not (self.is_choked or self._is_over or self._is_waiting or self._held or self._is_over_turn):
            if len(self._working) - self._streams >= limit:
                self._transport.pause_reading()
                break
            try:
                found = next(frames, None) if self._unpacked is None else self._unpacked
                self._unpacked = None
            except StrataError as error:
                self._refuse(error)
                return
            if found is None:
                self._has_frames = False
                break
            is_heard = True
            if found.kind & PACKED:
                self._unpack(found)
                continue
            self._asked = ""
            try:
                self._take(found)
            except Exception as error:
                if self._session is None:
                    self._refuse(error)
                    return
                self._fail(found, error, begun)
            now = clock()
            if now - begun >= self._noted_from_s:
                self._note(found, now - begun)
            begun = now
            if now >= until and self._session is not None:
                self._is_over_turn = True
                self._transport.pause_reading()
                self._server.loop.call_soon(self._take_next_turn)
        if is_heard:
            self.last_heard = time.monotonic()
        self._flush()

    def _take_next_turn(self) -> None:
        self._is_over_turn = False
        self._run()
        self._read_on()

    def _read_on(self) -> None:
        if self._is_over or self.is_choked or self._is_waiting or self._held or self._is_over_turn:
            return
        if len(self._working) - self._streams < self._server.limits.in_flight:
            self._transport.resume_reading()

    def _fail(self, found: Frame, error: Exception, begun: float) -> None:
        """Answer with an error, and let the log know."""
        if self._log is not None:
            asked = self._asked or f"frame of kind {found.kind}"
            code, where = self._code_of(error)
            self._log.request(self.name, found.id, asked, self._server.clock() - begun, code, **where)
        self._asked = ""  # nothing more is noted
        self._say(self._error(found.id, error))

    def _note(self, found: Frame, took_s: float) -> None:
        """Let the log know what was asked, unless a thread goes on with it."""
        if self._asked and took_s >= self._noted_from_s and found.id not in self._working:
            assert self._log is not None, "without it nothing takes as long"
            self._log.request(self.name, found.id, self._asked, took_s)

    @staticmethod
    def _code_of(error: BaseException) -> tuple[str, dict[str, Any]]:
        """Return the code of an error, and where it happened if it is one of ours to mend."""
        code = str(to_wire(error)["code"])
        return code, {"error": where_of(error)} if code == InternalError.code else {}

    def _take(self, found: Frame) -> None:
        session = self._session
        if session is None:
            self._greet(found)
        elif found.kind == _CALL:
            self._call(session, found)
        elif found.kind == _OPERATION:
            self._operate(session, found)
        elif found.kind == _OPEN:
            self._open(session, *decode_body(found.body))
        elif found.kind == Kind.RELEASE:
            session.release(decode_body(found.body))
        elif found.kind in (Kind.CANCEL, Kind.CREDIT):
            work = self._working.get(found.id)
            if work is not None and found.kind == Kind.CANCEL:
                work.cancel()
            elif work is not None:
                work.give_credit(heard.credit(found.body))
        else:
            raise InvalidInput(f"a frame of kind {found.kind} is nothing that a client sends")

    def _greet(self, found: Frame) -> None:
        hello = decode_body(found.body)
        if found.kind != Kind.HELLO or not isinstance(hello, dict) or hello.get("magic") != MAGIC:
            raise InvalidInput("the first frame says who speaks")
        protocols = hello.get("protocols")
        if not isinstance(protocols, list) or PROTOCOL not in protocols:
            raise InvalidInput(
                f"the client speaks protocols {brief(protocols)}, and here it is {PROTOCOL}",
                hint="use versions of Strata that are nearer to each other",
            )
        if self._greeting is not None:
            self._greeting.cancel()
        server = self._server
        self._alive_s = heard.alive_s(hello)
        self._session = server.session(self._is_local, self._transport, hello)
        self._token = hello.get("token")
        self._packs = bool(hello.get("packs"))
        self._frame_bytes = server.frame_bytes(self._session)
        self._reader.limit = self._frame_bytes
        self._reader.unpacks = False  # a thread does
        if self._log is not None:
            peer, over = self._peer()
            self._log.opened(self.name, over=over, peer=peer, access=self._session.access)
        self._succeed(hello.get("link"))
        welcome = server.welcome(self._session) | {"packs": self._packs}
        if self._alive_s:
            self._alive = server.loop.call_later(self._alive_s, self._say_alive)
            welcome["alive_s"] = self._alive_s
        self._say(frame(Kind.WELCOME, 0, encode_body(welcome)))

    def _say_alive(self) -> None:
        """Let the client know that its call is worked on, and that the network between us is whole."""
        is_read = not self.is_choked and not self._transport.get_write_buffer_size()
        if (self._working or self._is_waiting) and is_read:
            self._send(frame(Kind.PROGRESS, 0, encode_body((0, 0))))
        self._alive = self._server.loop.call_later(self._alive_s, self._say_alive)

    def _succeed(self, link: Any) -> None:
        """End the connection that this client had before, and wait until nothing of it is under way.

        So what the client sees from here on is all that will ever come of what it asked there: a commit that
        is not there is lost for good, and may be made again.
        """
        if not isinstance(link, str):
            return
        self.link = link
        older = self._server.succeed(link, self)
        if older is not None and older._give_way_to(self):
            self._is_waiting = True
            self._transport.pause_reading()

    def _give_way_to(self, newer: Connection) -> bool:
        """End; return whether something is under way still, after which the newer one is told to go on."""
        self._is_over = True
        self._reason = "its client has another one"
        self._frames, self._has_frames = iter(()), False
        self._transport.abort()
        for work in self._working.values():
            work.cancel()
        if not self._working and not self._is_waiting:
            return False
        self._next = newer
        return True

    def _go_on(self) -> None:
        self._is_waiting = False
        if self._is_over:
            self._finish()
            return
        self._run()
        self._read_on()

    def _finish(self) -> None:
        """Let go of what is here, once nothing is under way."""
        if self._session is not None:
            self._session.close()
        if self._is_waiting:
            return
        self._server.forget(self)
        newer, self._next = self._next, None
        if newer is not None:
            newer._go_on()

    def _call(self, session: Session, found: Frame) -> None:
        self._check_id(found.id)
        handle, method, arguments, options = heard.call(decode_body(found.body))
        bound = session.bound(handle, method)
        self._asked = bound.name
        server = self._server
        server.counts[method] += 1
        waits = server.is_strict and bound.ask.writes and bound.thing.inside is None
        is_large = len(found.body) > _LARGE_BYTES
        if bound.is_plain and not options and not waits and not is_large:
            self._answer(found.id, bound.run(*arguments))
        elif bound.ask.slow or waits or (session.strict and bound.ask.writes and bound.thing.inside is None):
            self._hand_over(session, bound, arguments, options, found.id)
        elif bound.ask.heavy or is_large:
            self._hold(found.id, partial(session.call, bound, arguments, options.get("once")))
        else:
            self._answer(found.id, session.call(bound, arguments, options.get("once")))

    def _open(self, session: Session, new: Any, handle: Any, method: Any, arguments: Any) -> None:
        self._asked = ""
        if method == "diff":  # looks for what both have in common
            self._hold(_UNASKED, partial(session.open, new, handle, method, arguments))
        else:
            session.open(new, handle, method, arguments)

    def _hold(self, id: int, call: Callable[[], Any]) -> None:
        """Let a thread do a call, and take nothing more from the client before it is done."""
        self._transport.pause_reading()
        self._held = self._work(id)
        self._begin(self._held, call)

    def _unpack(self, found: Frame) -> None:
        """Let a thread unpack a frame, which then comes next: a small one may be of many bytes."""
        self._transport.pause_reading()
        work = self._held = self._work(_UNASKED)
        work.name = ""
        made: list[Frame | StrataError] = []

        def run() -> bytes:
            try:
                made.append(self._reader.unpacked(found))
            except StrataError as error:
                made.append(error)
            return b""

        def done(_: bytes) -> None:
            (frame,) = made
            if isinstance(frame, StrataError) and not self._is_over:
                self._refuse(frame)
            elif isinstance(frame, Frame):
                self._unpacked = frame
            self._worked(work, b"")

        self._server.run(self._server.reading, self, run, done)

    def _check_id(self, id: int) -> None:
        # Two calls with one id could not be told apart by who asks, and 0 is of no call.
        if id == 0 or id in self._working:
            self._refuse(InvalidInput(f"{id} is no id for a new call"))
            raise InvalidInput("the connection is over")

    def _hand_over(
        self, session: Session, bound: Bound, arguments: list[Any], options: dict[str, Any], id: int
    ) -> None:
        work = self._work(id)
        work.is_endless = bound.ask.waits
        progress = work.progress if options.get("progress") else None
        is_over = (lambda: work.is_cancelled) if bound.ask.waits else None
        call = partial(session.call, bound, arguments, options.get("once"), progress, is_over)
        self._begin(work, call, reads=bound.ask.reads)

    def _operate(self, session: Session, found: Frame) -> None:
        self._check_id(found.id)
        if self._operations is None:
            self._operations = self._server.operations(session)
        operations = self._operations
        asked = operations.asked(decode_body(found.body))
        self._asked = asked.operation.name
        self._server.counts[asked.operation.name] += 1
        if asked.credit is not None:
            self._stream(operations, asked, found.id)
        elif asked.is_slow or (
            asked.operation.access != "read" and (session.strict or self._server.is_strict)
        ):
            reads = asked.operation.access == "read"
            self._begin(self._work(found.id), partial(operations.run, asked), reads=reads)
        elif len(found.body) > _LARGE_BYTES:
            self._hold(found.id, partial(operations.run, asked))
        else:
            self._answer(found.id, operations.run(asked))

    def _stream(self, operations: Operations, asked: Asked, id: int) -> None:
        limit = self._server.limits.in_flight
        if self._streams >= limit:
            raise LimitExceeded(what="streams", limit=limit, actual=self._streams + 1)
        stream = operations.streaming(asked)
        work = self._work(id)
        work.is_endless = work.is_stream = True
        work.give_credit(asked.credit)

        def send(items: list[Any]) -> None:
            work.take_credit()
            self._send_page(work, self._framed(id, encode_body(items), Kind.ITEMS))

        self._begin(work, lambda: stream(work, send))
        self._streams += 1

    def _send_page(self, work: Work, page: bytes) -> None:
        """Send a page from a thread, when the client has read enough of those before it."""
        work.wait_for(self._room)
        sent = threading.Event()
        self._server.soon(self._send, page, sent.set)
        work.wait_for(sent)

    def _work(self, id: int) -> Work:
        work = self._working[id] = Work(id, self.send_soon)
        work.name, work.begun = self._asked, self._server.clock()
        return work

    def _begin(self, work: Work, call: Callable[[], Any], *, reads: bool = False) -> None:
        """Let a thread do a call, and answer with what it returns.

        Args:
            reads: it makes rows into an answer and waits for nobody.
        """

        def run() -> bytes:
            try:
                if not work.is_endless:
                    work.check()
                result = call()
                return self._result(work.id, result) if work.id != _UNASKED else b""
            except Exception as error:
                work.code, work.where = self._code_of(error)
                return self._error(max(work.id, 0), error)

        server, done = self._server, lambda said: self._worked(work, said)
        try:
            if work.is_endless:
                server.wait(self, run, done)
            else:
                server.run(server.reading if reads else server.working, self, run, done)
        except StrataError:
            del self._working[work.id]
            raise

    def _worked(self, work: Work, said: bytes) -> None:
        del self._working[work.id]
        self._streams -= work.is_stream
        if work is self._held:
            self._held = None
        if self._log is not None and work.name:
            took_s = self._server.clock() - work.begun
            waits = work.is_endless
            self._log.request(self.name, work.id, work.name, took_s, work.code, waits=waits, **work.where)
        if self._is_over:
            if not self._working:
                self._finish()
            return
        self._say(said)
        self._run()
        self._read_on()

    def _answer(self, id: int, result: Any) -> None:
        """Say what a call returned that was done at once."""
        body = encode_body(result)
        if len(body) < PACK_FROM_BYTES:  # as most are
            self._say(HEADER.pack(len(body) + AFTER_LENGTH, _RESULT, id) + body)
        elif len(body) > _LARGE_BYTES and self._packs:  # which takes long
            self._hold(id, partial(Raw, body))
        else:
            self._say(self._framed(id, body, Kind.RESULT))

    def _result(self, id: int, result: Any) -> bytes:
        body = encode_body(result)
        if len(body) < PACK_FROM_BYTES:  # as most are
            return HEADER.pack(len(body) + AFTER_LENGTH, _RESULT, id) + body
        return self._framed(id, body, Kind.RESULT)

    def _framed(self, id: int, body: bytes, kind: Kind) -> bytes:
        return answer(id, body, self._frame_bytes, packs=self._packs, kind=kind)

    def _error(self, id: int, error: BaseException) -> bytes:
        said = to_wire(error)
        self._server.note_error(said["code"])
        try:
            body = encode_body(said)
        except (
            TypeError,
            ValueError,
            OverflowError,
        ):  # as for a path that is no Unicode: it is answered all the same
            body = encode_body({**said, "message": ascii(said["message"]), "hint": "", "fields": {}})
        if len(body) + AFTER_LENGTH > self._server.limits.frame_bytes:
            # A conflict may name more than a frame holds. It is answered all the same.
            body = encode_body({**said, "message": said["message"][:_MESSAGE_MAX], "hint": "", "fields": {}})
        return frame(Kind.ERROR, id, body)

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

    def _send(self, data: bytes, told: Callable[[], None] | None = None) -> None:
        if not self._is_over:
            self._say(data)
            self._flush()
        if told is not None:
            told()

    # -- the end

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked for is not answered yet."""
        return bool(self._working or self._has_frames or self._transport.get_write_buffer_size())

    def sweep(self, now: float) -> None:
        """Do what is due when nothing was heard for long."""
        quiet_s, limits = now - self.last_heard, self._server.limits
        if self._session is None:
            return
        if self._stalled_s(now) > limits.stalled_s:
            self._reason = self._reason or "it neither read nor sent the rest of a frame"
            self._transport.abort()
        if self._has_frames or len(self._working) > self._streams:
            return
        if limits.idle_s and quiet_s > limits.idle_s and not self._working:
            self.say_goodbye("it was idle for too long")
            self.close()
        elif quiet_s > limits.transaction_idle_s:
            self._session.end_transactions()

    def _stalled_s(self, now: float) -> float:
        """Return for how long the client has not read what waits for it, nor sent the rest of a frame."""
        size = self._transport.get_write_buffer_size()
        if size == 0 or size != self._unread[0]:
            self._unread = size, now
        in_flight = len(self._working) - self._streams
        is_ours = self._has_frames or in_flight > 0  # then we may not read on ourselves
        halfway_s = 0.0 if self._reader.is_empty or is_ours else now - self.last_heard
        return max(now - self._unread[1], halfway_s)

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
        self._reason = self._reason or reason
        self._send(frame(Kind.BYE, 0, encode_body({"reason": reason})))

    def close(self) -> None:
        """Close once the client has read what was said, or does not do so in time."""
        self._flush()
        self._transport.close()
        if self._aborting is None and self._transport.get_write_buffer_size():
            self._aborting = self._server.loop.call_later(self._server.limits.drain_s, self.abort)

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _refuse(self, error: BaseException) -> None:
        """Say what is wrong with the client, and close."""
        self._say(self._error(0, error))
        code, where = self._code_of(error)
        if self._log is not None and self._session is None:
            peer, over = self._peer()
            self._log.refused(self.name, code, over=over, peer=peer, **where)
        self._end(f"refused: {code}")

    def _peer(self) -> tuple[str, str]:
        """Return where the client is, and what it is connected over."""
        if self._is_local:
            return "", "socket"
        address = self._transport.get_extra_info("peername") or ("", 0)
        is_tls = self._transport.get_extra_info("sslcontext") is not None
        return f"{address[0]} {address[1]}", "tls" if is_tls else "tcp"

    def _end(self, reason: str) -> None:
        self._is_over = True
        self._reason = self._reason or reason
        self._frames, self._has_frames = iter(()), False
        self.close()
