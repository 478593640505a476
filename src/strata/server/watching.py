"""A watch as an operation of the wire: the commits of a branch, page after page, as they come.

    ["watch", {"branch"}, {"primitive", "space", "prefix", "type", "from_version", "timeout_s", "limit"},
        {"credit": n}]

An item is a step, as in `replay`; or {"version": n} alone, where for a while nothing was committed that is
watched: all up to there was looked at, and a client that comes again goes on from it. RESULT is
{"version": n} as well, when nothing more comes.

A page is what is there when the client has room for one. While it has none, nothing is read.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

import msgspec

from strata.api.plain import plain
from strata.core.errors import StrataError
from strata.history.replay import Step
from strata.history.watch import Watch
from strata.server.work import Send, Work
from strata.wire.frames import encode_body

_PAGE_BYTES: Final = 1 << 20  # after which a page is full
_QUIET_S: Final = 15.0  # after which a client is told how far the watch has come


def follow(watch: Watch, timeout_s: float | None, work: Work, send: Send) -> dict[str, int]:
    """Send what is committed until nothing more comes, and return where another watch would go on.

    Args:
        timeout_s: end when nothing came for so long.
        send: waits until the client takes a page.
    Raises: Cancelled; what the watch does.
    """
    work.at_cancel(watch.close)
    work.check()
    told, until = watch.version, _after(timeout_s)
    while True:
        step = watch.next(timeout_s=_QUIET_S if until is None else min(_QUIET_S, _left(until)))
        work.check()
        if step is not None:
            page, told = _page(watch, step)
            send(page)
            until = _after(timeout_s)
        elif watch.closed or (until is not None and not _left(until)):
            return {"version": watch.version}
        elif watch.version > told:
            told = watch.version
            send([{"version": told}])


def _after(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _page(watch: Watch, step: Step) -> tuple[list[msgspec.Raw], int]:
    """Return a step with those behind it that are there already, and the version of the last one."""
    found, size, last = [], 0, step
    with contextlib.suppress(StrataError):  # the next call says it again, behind what came before it
        more: Step | None = step
        while more is not None:
            last, data = more, encode_body(plain(more))
            found.append(msgspec.Raw(data))
            size += len(data)
            more = watch.next(timeout_s=0) if size < _PAGE_BYTES else None
    return found, last.version
