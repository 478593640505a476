"""What a server says of itself: a line of JSON each, on standard error.

{"time": "2026-01-31T12:00:00.000Z", "level": "info", "event": "begun", ...}
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

Level = Literal["info", "warning", "error"]
_lock: Final = threading.Lock()


def say(event: str, *, level: Level = "info", to: TextIO | None = None, **fields: Any) -> None:
    """Write one line. What fields hold is data: a line break in it is no end of the line."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json.dumps({"time": now, "level": level, "event": event, **fields}, default=str)
    with _lock:
        print(line, file=to or sys.stderr, flush=True)
