"""Ids that are given to what has no name of its own: 30 hex digits that sort by time.

    14 digits   microseconds since 1970
    16 digits   chance; within one microsecond of one process, one more than the last

So ids of one process rise in the order in which they were made, and those of two hardly ever meet.
"""

from __future__ import annotations

import os
import threading
from typing import Final

_CHANCE_BYTES: Final = 8
_TIME_MAX: Final = (1 << 56) - 1

_lock: Final = threading.Lock()
_last = (-1, 0)


def new_id(now: int) -> str:
    """Return an id for something made at `now`, in microseconds since 1970."""
    global _last
    time = min(max(now, 0), _TIME_MAX)
    with _lock:
        before, chance = _last
        # One bit less than there is room for, so that counting up never overflows.
        chance = chance + 1 if time == before else int.from_bytes(os.urandom(_CHANCE_BYTES)) >> 1
        _last = time, chance
    return f"{time:014x}{chance:016x}"
