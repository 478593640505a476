"""Stores at the other end of a connection: the kernel's, served in this process, asked through
`strata.remote`."""

from __future__ import annotations

import atexit
import functools
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strata.remote.channel import Channel, greet
from strata.remote.connect import Dialer, address_of
from strata.remote.link import Link
from strata.remote.store import RemoteStore
from strata.remote.tls import Tls
from strata.server.access import hash_of, new_token, tokens_of
from strata.server.server import Server
from strata.server.tls import ServerTls
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


def over_tls(served: Any) -> ServedStore:
    """Return `served`, as it is seen over TCP with TLS and a token."""
    files = certificates()
    token = new_token()
    server = Server(served, tokens=tokens_of([f"{hash_of(token)} admin"]), name="served")
    tls = ServerTls(files / "server.pem", files / "server.key")
    host, port = server.listen_tcp("127.0.0.1", 0, tls.context)
    address = address_of(f"strata+tls://{host}:{port}")
    hello = {"token": token, "packs": True}
    return ServedStore(served, server, Dialer(address, hello, Tls(files / "ca.pem", None, None), 20))


@functools.cache
def certificates() -> Path:
    """Return a directory with an authority, and a server and a client whose certificates it signed.

    Skips the test where there is no openssl to make them.
    """
    if shutil.which("openssl") is None:
        pytest.skip("SKIPPED TLS needs=openssl")
    place = Path(tempfile.mkdtemp(prefix="strata-tls-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    made = ("-newkey", "rsa:2048", "-nodes", "-keyout")
    run("req", "-x509", *made, "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    (place / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        run("req", *made, f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return place
