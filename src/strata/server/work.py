"""A call that a thread works on, for one connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from strata.core.errors import Closed, InvalidInput
from strata.wire.frames import Kind, encode_body, frame

_CREDIT_MAX: Final = 1 << 16
_TELL_S: Final = 0.1


class Cancelled(Closed):
    """The client no longer wants the answer."""

    def __init__(self) -> None:
        super().__init__("the call was cancelled")


class Work:
    """What is known of a call while a thread works on it."""

    __slots__ = ("_credit", "_send", "_told", "id", "is_cancelled", "is_endless")

    def __init__(self, id: int, send: Callable[[bytes], None]) -> None:
        self.id = id
        self.is_cancelled = False
        self.is_endless = False  # it waits for what others do, so an end of the server does not wait for it
        self._send = send  # a frame, from any thread
        self._told = 0.0
        self._credit = threading.Semaphore(0)  # pages that the client has room for

    def cancel(self) -> None:
        self.is_cancelled = True
        self._credit.release()  # whoever waits for it looks up

    def check(self) -> None:
        """Raise Cancelled when the client does not want the answer."""
        if self.is_cancelled:
            raise Cancelled

    def give_credit(self, pages: object) -> None:
        """Let so many more pages go."""
        if type(pages) is not int or not 0 <= pages <= _CREDIT_MAX:
            raise InvalidInput(f"credit is a number of pages up to {_CREDIT_MAX}, not {pages!r:.100}")
        if pages:
            self._credit.release(pages)

    def send_page(self, made: Callable[[], bytes]) -> None:
        """Send the frame of a page, once the client has room for it. Raises Cancelled."""
        self._credit.acquire()
        self.check()
        self._send(made())

    def progress(self, done: int, all: int) -> None:
        """Tell the client, at most ten times a second. Raises Cancelled."""
        self.check()
        now = time.monotonic()
        if now - self._told >= _TELL_S or done == all:
            self._told = now
            self._send(frame(Kind.PROGRESS, self.id, encode_body((done, all))))
