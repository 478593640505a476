"""TLS of a client: whom it trusts, and a connection that several threads may use."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from pathlib import Path

from strata.core.errors import InvalidInput

File = str | os.PathLike[str] | None


class Tls:
    """What a client needs for TLS."""

    def __init__(self, ca: File, certificate: File, key: File) -> None:
        """Trust what `ca` signed, or what the system trusts; show our own certificate where one is given.

        Raises: InvalidInput for files that are none, or no certificates.
        """
        for name, path in (("ca", ca), ("certificate", certificate), ("certificate_key", key)):
            if path is not None and not Path(path).is_file():
                raise InvalidInput(f"{name} is no file: {os.fspath(path)!r}")
        try:
            self._context = ssl.create_default_context(cafile=ca)
            if certificate is not None:
                self._context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise InvalidInput(f"these certificates cannot be used: {error.reason}") from None
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def wrap(self, connected: socket.socket, host: str) -> TlsSocket:
        """Return the connection, once the other side has shown who it is."""
        return TlsSocket(self._context.wrap_socket(connected, server_hostname=host))

    @staticmethod
    def is_final(error: BaseException) -> bool:
        """Whether another try would end the same way."""
        return isinstance(error, ssl.SSLCertVerificationError)


class TlsSocket:
    """A TLS connection that one thread may read while another one writes, which OpenSSL by itself does not
    bear."""

    def __init__(self, wrapped: ssl.SSLSocket) -> None:
        self._wrapped = wrapped
        self._timeout_s = wrapped.gettimeout()
        wrapped.setblocking(False)
        self._lock = threading.Lock()

    def sendall(self, data: bytes, /) -> None:
        left = memoryview(data)
        while left:
            with self._lock:
                try:
                    left = left[self._wrapped.send(left) :]
                    continue
                except ssl.SSLWantReadError:
                    wants_write = False
                except ssl.SSLWantWriteError:
                    wants_write = True
            self._wait(writes=wants_write)

    def recv(self, size: int, /) -> bytes:
        while True:
            with self._lock:
                try:
                    return self._wrapped.recv(size)
                except ssl.SSLWantReadError:
                    wants_write = False
                except ssl.SSLWantWriteError:
                    wants_write = True
            self._wait(writes=wants_write)

    def _wait(self, *, writes: bool) -> None:
        poll = select.poll()
        poll.register(self._wrapped, select.POLLOUT if writes else select.POLLIN)
        if not poll.poll(None if self._timeout_s is None else self._timeout_s * 1000):
            raise TimeoutError("the other side does not answer")

    def settimeout(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s

    def close(self) -> None:
        self._wrapped.close()
