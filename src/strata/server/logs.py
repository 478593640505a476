"""What a server says of itself: a line of JSON each, on standard error.

{"time": "2026-01-31T12:00:00.000Z", "level": "info", "event": "begun", ...}

Of its clients it says, where it was asked to, when each came and went, and what was asked. A line names the
connection, and the request by the id that its frame has (over HTTP, that its answer has in X-Request-Id).
No line has a token, a key, a value, or the text of an error, which may quote these.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from strata.core.errors import InternalError

Level = Literal["info", "warning", "error"]
_lock: Final = threading.Lock()
_WINDOW_S: Final = 1.0
LINES_MAX: Final = 500  # of one event in a window; what is more is counted
_KEPT_MAX: Final = 5_000  # lines that were not written yet: whoever reads them is slow
_END_S: Final = 2.0
OK: Final = "ok"


def say(event: str, *, level: Level = "info", to: TextIO | None = None, **fields: Any) -> None:
    """Write one line. What fields hold is data: a line break in it is no end of the line."""
    _write(_line(event, level, fields), to)


def _line(event: str, level: Level, fields: dict[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "level": level, "event": event, **fields}, default=str)


def _write(lines: str, to: TextIO | None) -> None:
    with _lock:
        print(lines, file=to or sys.stderr, flush=True)


class Log:
    """Lines about clients. Nobody who asks for something waits for them to be written."""

    def __init__(
        self,
        *,
        requests: bool = False,
        slow_s: float = 0,
        to: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Say who was refused and what failed; with `requests` all that was asked, and who came and went.

        Args:
            slow_s: requests that took as long are said in any case; 0: none is.
        """
        self.requests = requests
        self.slow_s = slow_s or float("inf")
        self.from_s = 0.0 if requests else self.slow_s  # what takes less and goes well is never said
        self._to = to
        self._clock = clock
        self._counts: Counter[str] = Counter()  # of the window
        self._suppressed: Counter[str] = Counter()
        self._since = clock()
        self._lines: deque[str] = deque()
        self._has_some = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._write_out, name="strata-log", daemon=True)
        self._thread.start()

    def opened(self, connection: str, **fields: Any) -> None:
        if self.requests:
            self._say("opened", "info", {"connection": connection, **fields})

    def closed(self, connection: str, reason: str, **fields: Any) -> None:
        if self.requests:
            self._say("closed", "info", {"connection": connection, "reason": reason, **fields})

    def refused(self, connection: str, code: str, **fields: Any) -> None:
        """Say that a client was sent away before it could ask: for its token, or since there are too many."""
        self._say("refused", "warning", {"connection": connection, "code": code, **fields})

    def request(
        self,
        connection: str,
        request: int | str,
        name: str,
        took_s: float,
        code: str = OK,
        *,
        waits: bool = False,
        **fields: Any,
    ) -> None:
        """Say what was asked and what came of it: `ok`, or the code of an error.

        Args:
            waits: for what others do, so that it is not slow, however long it takes.
        """
        is_slow, is_ours = took_s >= self.slow_s and not waits, code == InternalError.code
        if not (self.requests or is_slow or is_ours):
            return
        said = {"connection": connection, "request": request, "name": name, "code": code}
        event = "slow request" if is_slow else "request"
        level: Level = "error" if is_ours else "warning" if is_slow else "info"
        self._say(event, level, {**said, "ms": round(took_s * 1000, 3), **fields})

    def tick(self) -> None:
        """Say how many lines were left out, when it is time to."""
        with self._has_some:
            self._begin_window()

    def close(self) -> None:
        """Write what is left, unless nobody takes it. Idempotent."""
        with self._has_some:
            self._tell_suppressed()
            self._is_closed = True
            self._has_some.notify()
        self._thread.join(_END_S)

    def _say(self, event: str, level: Level, fields: dict[str, Any]) -> None:
        with self._has_some:
            self._begin_window()
            self._counts[event] += 1
            if self._counts[event] > LINES_MAX or len(self._lines) >= _KEPT_MAX or self._is_closed:
                self._suppressed[event] += 1
                return
            self._lines.append(_line(event, level, fields))
            self._has_some.notify()

    def _begin_window(self) -> None:
        now = self._clock()
        if now - self._since >= _WINDOW_S:
            self._since = now
            self._counts.clear()
            self._tell_suppressed()

    def _tell_suppressed(self) -> None:
        if self._suppressed:
            self._lines.append(_line("suppressed", "warning", {"lines": dict(self._suppressed)}))
            self._suppressed.clear()
            self._has_some.notify()

    def _write_out(self) -> None:
        while True:
            with self._has_some:
                while not self._lines and not self._is_closed:
                    self._has_some.wait()
                lines = list(self._lines)
                self._lines.clear()
            if not lines:
                return
            try:
                _write("\n".join(lines), self._to)
            except (OSError, ValueError):
                return  # nobody reads any more


def where_of(error: BaseException) -> str:
    """Return the kind of an error and the line that raised it, without what it says."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    name = trace.tb_frame.f_code.co_filename.rpartition("strata/")[2]
    return f"{type(error).__name__} at {name}:{trace.tb_lineno}"
