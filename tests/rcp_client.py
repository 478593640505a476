"""A server of RCP in this process, and a client of our own: a socket, frames and lines."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import strata
from strata.server.access import Tokens
from strata.server.limits import Limits
from strata.server.logs import Log
from strata.server.rcp import Listener, Settings
from strata.server.rcp.frames import Reader, frame
from strata.server.server import Server
from strata.server.tls import ServerTls

TOKEN = "my-secret-token"  # as in rstmdb's examples
ALL = Settings(allow_flush_all=True)


class Rcp:
    """A listener, and how to reach it."""

    def __init__(self, db: strata.Database, server: Server, listener: Listener, at: tuple[str, int]) -> None:
        self.db, self.server, self.listener = db, server, listener
        self.host, self.port = at

    def client(self, context: ssl.SSLContext | None = None, *, is_line: bool = False) -> Client:
        """Return a connection."""
        made = socket.create_connection((self.host, self.port), timeout=20)
        if context is not None:
            made = context.wrap_socket(made, server_hostname="localhost")
        return Client(made, is_line)


@contextmanager
def serving(
    db: strata.Database,
    *,
    settings: Settings = ALL,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    read_only: bool = False,
    tls: ServerTls | None = None,
    log: Log | None = None,
) -> Iterator[Rcp]:
    """A server of a database."""
    server = Server(db._store, tokens=tokens, limits=limits, read_only=read_only, log=log)
    try:
        listener = Listener(server, db, settings)
        context = None if tls is None else tls.context
        yield Rcp(db, server, listener, server.listen_tcp("127.0.0.1", 0, context, listener.connection))
    finally:
        server.close()


class Client:
    """A connection, which asks and reads in the order in which it is told to."""

    def __init__(self, made: socket.socket, is_line: bool) -> None:
        self.socket = made
        self.is_line = is_line
        self.forms: list[bool] = []  # whether a line, of each message that came
        self.aside: list[dict[str, Any]] = []  # events that came while an answer was waited for
        self._reader = Reader()
        self._number = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, op: str, /, **params: Any) -> str:
        """Ask, and return the id."""
        self._number += 1
        id = str(self._number)
        self.raw(self.packed({"type": "request", "id": id, "op": op, "params": params}))
        return id

    def packed(self, message: Any) -> bytes:
        """Return a message in the form of this client."""
        data = json.dumps(message).encode()
        return data + b"\n" if self.is_line else frame(data)

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def message(self) -> dict[str, Any] | None:
        """Return the next message; None where the server has closed the connection."""
        while (found := self._reader.take()) is None:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._reader.feed(data)
        self.forms.append(found.is_line)
        return json.loads(found.payload)

    def ask(self, op: str, /, **params: Any) -> dict[str, Any]:
        """Return the answer to a request."""
        id = self.send(op, **params)
        while True:
            found = self.message()
            assert found is not None, f"closed instead of an answer to {op}"
            if found["type"] == "response":
                assert found["id"] == id
                return found
            self.aside.append(found)

    def get(self, op: str, /, **params: Any) -> dict[str, Any]:
        """Return the result of what must go well."""
        found = self.ask(op, **params)
        assert found["status"] == "ok", found
        return found["result"]

    def code(self, op: str, /, **params: Any) -> str:
        """Return the code of what must go wrong."""
        return self.error(op, **params)["code"]

    def error(self, op: str, /, **params: Any) -> dict[str, Any]:
        """Return the error of what must go wrong."""
        found = self.ask(op, **params)
        assert found["status"] == "error", found
        return found["error"]

    def event(self) -> dict[str, Any] | None:
        """Return the next message that was not asked for."""
        return self.aside.pop(0) if self.aside else self.message()
