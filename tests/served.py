"""Stores at the other end of a connection: the kernel's, served in this process, asked through
`strata.remote`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from strata.remote.channel import Channel, greet
from strata.remote.link import Link
from strata.remote.store import RemoteStore
from strata.server.server import Server
from strata.wire.frames import FRAME_BYTES_MAX, MAGIC, PROTOCOL

HELLO = {"magic": MAGIC, "protocols": [PROTOCOL]}


class ServedStore(RemoteStore):
    """A store that is closed together with its server and with what that serves."""

    __slots__ = ("_served", "_server")

    def __init__(self, served: Any, server: Server, connect: Callable[[int], Channel]) -> None:
        super().__init__(Link(connect, connect(1)))
        self._served, self._server = served, server

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._server.close()
            self._served.close()


def over_socket(served: Any) -> ServedStore:
    """Return `served`, as it is seen through a local socket."""
    server = Server(served, name="served")

    def connect(number: int) -> Channel:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        server.adopt(theirs)
        return greet(ours, number, HELLO, FRAME_BYTES_MAX)[0]

    return ServedStore(served, server, connect)
