"""TLS of a server: its certificate, which may be renewed while it runs, and whose clients it takes."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from strata.core.errors import InvalidInput

File = str | os.PathLike[str]


class ServerTls:
    """What a listener needs for TLS."""

    def __init__(self, certificate: File, key: File, client_authority: File | None = None) -> None:
        """Show `certificate`; with `client_authority` only take clients with a certificate that it signed.

        Raises: InvalidInput for files that are none, or do not belong together.
        """
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.renew()
        if client_authority is not None:
            _check_file(client_authority)
            try:
                self.context.load_verify_locations(client_authority)
            except ssl.SSLError as error:
                name = os.fspath(client_authority)
                raise InvalidInput(f"{name!r} is no certificate: {error.reason}") from None
            self.context.verify_mode = ssl.CERT_REQUIRED

    def renew(self) -> None:
        """Read the certificate again, for connections that come from now on.

        Raises: InvalidInput, and the one before stays.
        """
        for path in (self._certificate, self._key):
            _check_file(path)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            self.context.load_cert_chain(self._certificate, self._key)
        except ssl.SSLError as error:
            raise InvalidInput(f"certificate and key cannot be used: {error.reason}") from None


def _check_file(path: File) -> None:
    if not Path(path).is_file():
        raise InvalidInput(f"there is no file {os.fspath(path)!r}")
