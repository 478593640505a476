"""A listener for TLS: a connection counts from when it is there, not from when it has shown who it is.

Else whoever connects and says nothing would take descriptors that no limit knows of.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from strata.core.errors import LimitExceeded
from strata.server.descriptors import is_lack

if TYPE_CHECKING:
    from strata.server.server import Server

_AGAIN_S: Final = 0.5  # when there is no descriptor for who waits


class TlsListener:
    """Accepts connections, and serves them once they speak TLS. Lives in the server's loop."""

    def __init__(
        self,
        server: Server,
        listening: list[socket.socket],
        context: ssl.SSLContext,
        make: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        """Accept connections; `make` gives the server's side of one."""
        self.sockets = listening
        self._make = make
        self._server = server
        self._context = context
        create = server.loop.create_task
        self._tasks = [create(self._accept(one)) for one in listening]

    async def _accept(self, listening: socket.socket) -> None:
        server = self._server
        while True:
            try:
                accepted, _ = await server.loop.sock_accept(listening)
            except OSError as error:
                if not is_lack(error):
                    continue  # who it was is gone already
                self._refuse("too many open files")
                await asyncio.sleep(_AGAIN_S)
                continue
            if not server.has_room:
                self._refuse(LimitExceeded.code, accepted)
                accepted.close()
                continue
            task = server.loop.create_task(self._shake(accepted))
            server.handshakes.add(task)
            task.add_done_callback(server.handshakes.discard)

    async def _shake(self, accepted: socket.socket) -> None:
        server = self._server
        try:
            await server.loop.connect_accepted_socket(
                self._make,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=server.limits.greeting_s,
            )
        except (OSError, TimeoutError):  # it says no TLS, or nothing, or has no certificate that counts
            self._refuse("no TLS")
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()
            raise

    def _refuse(self, code: str, accepted: socket.socket | None = None) -> None:
        if self._server.log is None:
            return
        try:
            peer = "" if accepted is None else "{} {}".format(*accepted.getpeername()[:2])
        except OSError:
            peer = ""
        self._server.log.refused("", code, over="tls", peer=peer)

    def close(self) -> None:
        """Accept nobody any more. Who has not come in yet is sent away."""
        for task in (*self._tasks, *self._server.handshakes):
            task.cancel()
        for listening in self.sockets:
            listening.close()
