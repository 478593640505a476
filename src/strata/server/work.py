"""A call that a thread works on, for one connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from strata.core.brief import brief
from strata.core.errors import Closed, InvalidInput, StrataError
from strata.server.logs import OK
from strata.wire.frames import Kind, encode_body, frame

Send = Callable[[list[Any]], None]  # of a page of items; waits until the client takes it
CREDIT_MAX: Final = 1 << 16
_TELL_S: Final = 0.1
_LOOK_S: Final = 0.1  # after which who waits sees whether anybody wants the answer


class Cancelled(Closed):
    """The client no longer wants the answer."""

    def __init__(self) -> None:
        super().__init__("the call was cancelled")


class Work:
    """What is known of a call while a thread works on it."""

    __slots__ = (
        "_at_cancel", "_credit", "_send", "_told", "_why", "begun", "code", "id", "is_cancelled",
        "is_endless", "is_stream", "name", "where",
    )  # fmt: skip

    def __init__(self, id: int, send: Callable[[bytes], None]) -> None:
        self.id = id
        # For the log: what it is, since when, and what came of it.
        self.name, self.begun, self.code = "", 0.0, OK
        self.where: dict[str, Any] = {}
        self.is_cancelled = False
        self.is_endless = False  # it waits for what others do, so an end of the server does not wait for it
        self.is_stream = False  # it sends pages, as there is credit
        self._send = send  # a frame, from any thread
        self._told = 0.0
        self._credit = threading.Semaphore(0)  # pages that the client has room for
        self._at_cancel: Callable[[], None] | None = None
        self._why: StrataError | None = None  # it was cancelled, if not since the client said so

    def cancel(self, why: StrataError | None = None) -> None:
        self._why = why
        self.is_cancelled = True
        self._credit.release()  # whoever waits for it looks up
        if self._at_cancel is not None:
            self._at_cancel()

    def at_cancel(self, call: Callable[[], None]) -> None:
        """Let something be called, once or twice, when the client does not want the answer."""
        self._at_cancel = call
        if self.is_cancelled:
            call()

    def check(self) -> None:
        """Raise Cancelled when the client does not want the answer, or what it said wrong."""
        if self.is_cancelled:
            raise self._why or Cancelled()

    def give_credit(self, pages: object) -> None:
        """Let so many more pages go. What is no credit ends the call, since the error that says so does."""
        if type(pages) is not int or not 0 <= pages <= CREDIT_MAX:
            self.cancel(InvalidInput(f"credit is a number of pages up to {CREDIT_MAX}, not {brief(pages)}"))
        elif pages:
            self._credit.release(pages)

    def take_credit(self) -> None:
        """Return when the client has room for a page. Raises Cancelled."""
        self._credit.acquire()
        self.check()

    def wait_for(self, event: threading.Event) -> None:
        """Return when something happened. Raises Cancelled."""
        while not event.wait(_LOOK_S):
            self.check()
        self.check()

    def progress(self, done: int, all: int) -> None:
        """Tell the client, at most ten times a second. Raises Cancelled."""
        self.check()
        now = time.monotonic()
        if now - self._told >= _TELL_S or done == all:
            self._told = now
            self._send(frame(Kind.PROGRESS, self.id, encode_body((done, all))))
