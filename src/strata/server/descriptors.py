"""File descriptors: each connection takes one, and a process has only so many. None is kept for nobody."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

try:
    import resource
except ImportError:  # there is no such limit to look at
    _HAS_LIMIT = False
else:
    _HAS_LIMIT = True

_SPARE_MAX: Final = 256  # for files of the database, and for what else the process opens
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_limit(connections: int) -> int | None:
    """Let this process have descriptors for so many connections, and return how many it may have in all.

    None where that cannot be said. Where less is allowed it has all that is.
    """
    if not _HAS_LIMIT:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _open_now() + _SPARE_MAX
    if resource.RLIM_INFINITY in (soft, hard) or soft >= wanted:
        return soft if soft != resource.RLIM_INFINITY else None
    for limit in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        except (OSError, ValueError):
            continue  # who may not raise the hard limit has the soft one
        return limit[0]
    return soft


def room(connections: int) -> int:
    """Return how many of so many connections there are descriptors for, with some to spare for the rest."""
    if not _HAS_LIMIT:
        return connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, soft - _open_now() - min(_SPARE_MAX, soft // 4)))


def keep_alive(connected: Any) -> None:
    """Let the system close a TCP connection whose other side is gone without a word, after two minutes.

    It would hold a descriptor, and what it opened, for ever.
    """
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_none_left(context: dict[str, Any]) -> bool:
    """Return whether an event loop tells of a connection that it cannot accept for want of descriptors.

    It tries again in a second, and some tell of it for each that it might have accepted.
    """
    return is_lack(context.get("exception"))


def is_lack(error: object) -> bool:
    """Return whether an error says that there is no descriptor, or no memory for one."""
    return isinstance(error, OSError) and error.errno in _NONE_LEFT


def _open_now() -> int:
    for place in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(place))
        except OSError:
            continue
    return _SPARE_MAX
