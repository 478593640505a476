"""`connect`: the database that a server holds.

strata://host:port                plain, for this machine and for tunnels
strata+tls://host:port            TLS; the server's certificate is checked
unix:path                         a local socket of `strata serve --socket`
"""

from __future__ import annotations

import os
import random
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from strata.api.database import Database
from strata.core.errors import InvalidInput, RemoteError
from strata.core.keys import check_name
from strata.remote.channel import Channel, Lost, greet
from strata.remote.link import Link
from strata.remote.store import RemoteStore
from strata.wire.frames import FRAME_BYTES_MAX, MAGIC, PROTOCOL

if TYPE_CHECKING:
    from strata.remote.tls import Tls

PORT: Final = 6380
_PAUSE_MIN_S: Final = 0.005
_PAUSE_MAX_S: Final = 0.5
_TRIES: Final = 3  # in the time that there is, where nobody answers
_WORDS: Final = 3  # of a server that works on something, in the time in which it may not be silent


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is."""

    url: str
    path: str | None  # of a local socket
    host: str
    port: int
    is_tls: bool


def address_of(url: object) -> Address:
    """Return what a URL says.

    Raises: InvalidInput.
    """
    hint = "as in strata://127.0.0.1:6380, strata+tls://db.example:6380 or unix:/run/strata.sock"
    if not isinstance(url, str):
        raise InvalidInput(f"a URL is a str, not {type(url).__name__}", hint=hint)
    if url.startswith("unix:") and len(url) > len("unix:"):
        return Address(url, url.removeprefix("unix:"), "", 0, False)
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError as error:
        raise InvalidInput(f"{url!r} is no URL: {error}", hint=hint) from None
    if parts.scheme not in ("strata", "strata+tls") or not parts.hostname:
        raise InvalidInput(f"{url!r} is no URL of a server", hint=hint)
    if parts.username or parts.password or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidInput(f"{url!r} has more than a host and a port", hint="give the token as token=")
    return Address(url, None, parts.hostname, port, parts.scheme == "strata+tls")


class Dialer:
    """Makes channels to one address, again and again until a time is over."""

    def __init__(
        self,
        address: Address,
        hello: dict[str, Any],
        tls: Tls | None,
        timeout_s: float,
        silence_s: float | None = None,
    ) -> None:
        self._address = address
        self._silence_s = silence_s
        self._hello = {"magic": MAGIC, "protocols": [PROTOCOL], "link": os.urandom(16).hex(), **hello}
        self._tls = tls
        self._timeout_s = timeout_s
        self._try_s = timeout_s / _TRIES  # of one, so that a network that swallows it leaves time for others

    def __call__(self, number: int) -> Channel:
        """Return a new channel.

        Raises: RemoteError when there is none in time; AccessDenied.
        """
        until = time.monotonic() + self._timeout_s
        pause_s = _PAUSE_MIN_S
        while True:
            try:
                return self._dial(number)
            except (OSError, Lost) as error:
                is_final = self._tls is not None and self._tls.is_final(error)
                if is_final:
                    raise RemoteError(
                        f"the certificate of {self._address.url} is not trusted: {error}",
                        hint="say which authority signed it: ca=, or --ca FILE",
                    ) from None
                if time.monotonic() + pause_s > until:
                    raise RemoteError(
                        f"no server answers at {self._address.url}: {error}", hint="strata serve begins one"
                    ) from None
            time.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _dial(self, number: int) -> Channel:
        address = self._address
        if address.path is not None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            made = socket.create_connection((address.host, address.port), timeout=self._try_s)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            if address.path is not None:
                made.settimeout(self._try_s)
                made.connect(address.path)
            used: Any = made
            if self._tls is not None:
                used = self._tls.wrap(made, address.host)
            channel, welcome = greet(used, number, self._hello, FRAME_BYTES_MAX)
            # A server that does not say so may be silent for as long as it works.
            used.settimeout(self._silence_s if welcome.get("alive_s") else None)
            return channel
        except BaseException:
            made.close()
            raise


def connect(
    url: str,
    *,
    token: str | None = None,
    branch: str = "main",
    space: str = "default",
    read_only: bool = False,
    strict: bool = False,
    timeout_s: float = 10,
    silence_s: float = 30,
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    certificate_key: str | os.PathLike[str] | None = None,
) -> Database:
    """Return the database that a server holds, with the same handles as `strata.open` gives.

    A connection that breaks is made again by itself. What was asked is then asked again where that cannot do
    it
    twice: every read, and every write outside of a transaction, which carries a key for this. A transaction
    that was open is lost, and says so.

    Args:
        url: strata://host:port, strata+tls://host:port or unix:path, as `strata serve` prints it.
        token: what the server's list of tokens has a hash of. Not needed at a local socket.
        branch, space: what `db.kv` and the others work on.
        read_only: refuse every write.
        strict: each commit waits until it survives a power cut, whatever the server's durability.
        timeout_s: how long to try to get a connection, at first and after one broke, and for how long a call
            is asked again on connections of which each breaks.
        silence_s: how long a call waits without a word from the server before its connection counts as
            broken. A server that works on something says three times as often that it is there.
        ca: a file with the certificate that signed the server's; left out, those the system trusts.
        certificate, certificate_key: files with our own, where the server asks for one.
    Raises: InvalidInput for what is no URL; RemoteError when no server answers in time; AccessDenied for a
    token
        that is missing, wrong, or allows less.
    """
    address = address_of(url)
    check_name(branch, "branch")
    check_name(space, "space")
    for name, given in (("timeout_s", timeout_s), ("silence_s", silence_s)):
        if type(given) not in (int, float) or not given > 0:
            raise InvalidInput(f"{name} is a number above 0, not {given!r}")
    if not address.is_tls and (ca or certificate or certificate_key):
        raise InvalidInput("certificates are for strata+tls:// URLs")
    is_near = address.path is not None or address.host in ("localhost", "127.0.0.1", "::1")
    hello = {
        "token": token,
        "read_only": read_only,
        "strict": strict,
        "packs": not is_near,
        "alive_s": silence_s / _WORDS,
    }
    tls = None
    if address.is_tls:
        from strata.remote.tls import Tls  # which loads OpenSSL

        tls = Tls(ca, certificate, certificate_key)
    dial = Dialer(address, hello, tls, timeout_s, silence_s)
    store = RemoteStore(Link(dial, dial(1), timeout_s))
    try:
        return Database(store, branch=branch, space=space)
    except BaseException:
        store.close()
        raise
