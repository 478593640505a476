"""A network of no good will between a client and a server: a proxy, whose seed says what it does.

Of each connection it is decided when it comes what is to become of it. After so many bad ones all are good,
so that it can be seen what came of everything.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass

_PIECE = 1 << 14
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: the connection ends by RST


@dataclass(frozen=True)
class Fate:
    """What becomes of a connection: where a number is None, that does not happen."""

    delay_s: float = 0.0  # of each piece, in both directions
    bytes_s: float | None = None  # no more than that in a second
    cut_up: int | None = None  # the connection ends after so many bytes of the client
    cut_down: int | None = None  # or of the server
    hole_up: int | None = (
        None  # what the client sends behind so many bytes comes to nobody, and nobody is told
    )
    hole_down: int | None = None
    resets: bool = False  # and ends by RST where it is cut


GOOD = Fate()


def fates(seed: int, count: int, most: int = 4000) -> list[Fate]:
    """Return what becomes of the first connections."""
    chance = random.Random(seed)

    def fate() -> Fate:
        at = chance.choice((chance.randint(0, 200), chance.randint(0, most)))
        delay_s = chance.choice((0.0, 0.0, 0.002, 0.01))
        bytes_s = chance.choice((None, None, None, 12_500.0))  # 100 kbit/s
        what = chance.choice(("cut_up", "cut_down", "cut_down", "hole_up", "hole_down", "none"))
        resets = chance.random() < 0.5
        named = {} if what == "none" else {what: at}
        return Fate(delay_s=delay_s, bytes_s=bytes_s, resets=resets, **named)

    return [fate() for _ in range(count)]


class Proxy:
    """Listens, and passes on to a port what the fates allow."""

    def __init__(self, port: int, fates: list[Fate]) -> None:
        self._port = port
        self._fates = list(fates)
        self.used = 0
        self._is_closed = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def heal(self) -> None:
        """Let all connections that come from now on be good."""
        self._fates = []

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            fate = self._fates.pop(0) if self._fates else GOOD
            self.used += 1
            thread = threading.Thread(target=self._pass_on, args=(client, fate), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket, fate: Fate) -> None:
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._port)) as server,
        ):
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            up = _Way(client, server, fate, fate.cut_up, fate.hole_up)
            down = _Way(server, client, fate, fate.cut_down, fate.hole_down)
            ways = {client: up, server: down}
            while not self._is_closed:
                for one in select.select([client, server], [], [], 0.05)[0]:
                    if not ways[one].pass_on():
                        self._end(client, server, fate)
                        return

    def _end(self, client: socket.socket, server: socket.socket, fate: Fate) -> None:
        if fate.resets:
            for one in (client, server):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def close(self) -> None:
        self._is_closed = True
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(20)


class _Way:
    """One direction."""

    def __init__(
        self, source: socket.socket, sink: socket.socket, fate: Fate, cut: int | None, hole: int | None
    ) -> None:
        self._source, self._sink, self._fate, self._cut, self._hole = source, sink, fate, cut, hole
        self._passed = 0

    def pass_on(self) -> bool:
        """Pass on what is there; return whether the connection goes on."""
        piece = self._source.recv(_PIECE)
        if not piece:
            return False
        if self._fate.delay_s:
            time.sleep(self._fate.delay_s)
        if self._fate.bytes_s is not None:
            time.sleep(len(piece) / self._fate.bytes_s)
        end = self._passed + len(piece)
        limits = [limit for limit in (self._cut, self._hole) if limit is not None]
        most = min([end, *limits])
        if most > self._passed:
            self._sink.sendall(piece[: most - self._passed])
        self._passed = end
        return self._cut is None or end < self._cut
