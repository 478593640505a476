"""Sending: one POST to where a hook says, within its time, to an address that was looked at.

`http.client` speaks; the socket below it is ours. It is connected to the address that was checked, while TLS
still asks for the name, and each wait on it ends at the deadline of the whole attempt, however many bytes
drip in. Proxies of the environment are not used, since they would connect in our stead.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

from strata.api.webhooks import check_url
from strata.core.errors import InvalidInput, StrataError
from strata.worker.addresses import Allowed

CONNECT_S: Final = 5.0
ANSWER_S: Final = 15.0  # for all of an attempt
_REDIRECTS_MAX: Final = 3
_KEPT: Final = frozenset({307, 308})  # redirects that keep the method; others would make a GET of it
_BODY_BYTES: Final = 4096  # of an answer, of which the beginning goes into an error
_BODY_S: Final = 1.0  # and no longer: its status has said what counts
_SAID: Final = 200
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt. `status` is 0 where there was no answer."""

    status: int
    error: str | None  # None: it was delivered
    retry_after_s: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it was delivered."""
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Whether nothing more is wanted there."""
        return self.status == http.HTTPStatus.GONE


class Transport(Protocol):
    """What sends messages."""

    def __call__(self, url: str, headers: dict[str, str], body: bytes, /) -> Answer: ...


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses that a name stands for."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


class HttpTransport:
    """Sends over HTTP to addresses that are allowed."""

    def __init__(
        self,
        allowed: Allowed | None = None,
        *,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        self._allowed = allowed or Allowed()
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._tls = ssl.create_default_context() if tls is None else tls
        self._tls.sslsocket_class = _TlsSocket
        self._resolve = resolve

    def __call__(self, url: str, headers: dict[str, str], body: bytes, /) -> Answer:
        """Return what became of a POST. What goes wrong is in the answer."""
        until = time.monotonic() + self._answer_s
        try:
            return self._follow(url, headers, body, until)
        except (OSError, http.client.HTTPException, StrataError) as error:
            return Answer(0, _why(error))
        except (ValueError, UnicodeError) as error:  # of a name or a header that is none
            return Answer(0, f"no answer: {error}")

    def _follow(self, url: str, headers: dict[str, str], body: bytes, until: float) -> Answer:
        for _ in range(_REDIRECTS_MAX + 1):
            status, answer_headers, said = self._post(urlsplit(check_url(url)), headers, body, until)
            to = answer_headers.get("location")
            if status not in _KEPT or to is None:
                return _answer(status, answer_headers, said)
            before, url = url, urljoin(url, to)
            if before.startswith("https:") and not url.startswith("https:"):
                return Answer(status, "it redirects from https to http")
        return Answer(status, "it redirects too often")

    def _post(
        self, parts: SplitResult, headers: dict[str, str], body: bytes, until: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
        connection = http.client.HTTPConnection(host, port)
        connection.sock = made = self._connected(parts.scheme, host, port, until)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, body, {**headers, "Host": parts.netloc, "Connection": "close"})
            with connection.getresponse() as answer:
                made.until = min(until, time.monotonic() + _BODY_S)
                return answer.status, answer.headers, _beginning(answer)
        finally:
            connection.close()

    def _connected(self, scheme: str, host: str, port: int, until: float) -> Any:
        """Return a socket that is connected to an allowed address of a name.

        Raises: InvalidInput where there is none; OSError.
        """
        failed: OSError | None = None
        for text in self._resolved(host, port, until):
            address = ipaddress.ip_address(text.partition("%")[0])
            if not self._allowed.is_open(address, scheme):
                failed = failed or _Refused(f"{text} may not be sent to by {scheme}")
                continue
            try:
                return self._connect(scheme, host, text, port, until)
            except OSError as error:
                failed = error
        raise failed or OSError(f"{host} has no address")

    def _resolved(self, host: str, port: int, until: float) -> list[str]:
        """Return the addresses of a name. A resolver takes no time-out, so it is asked in a thread."""
        found: list[list[str]] = []
        failed: list[OSError] = []

        def ask() -> None:
            try:
                found.append(self._resolve(host, port))
            except UnicodeError:
                failed.append(OSError("its name is none"))
            except OSError as error:
                failed.append(error)

        asking = threading.Thread(target=ask, name="strata-resolve", daemon=True)
        asking.start()
        asking.join(min(self._connect_s, _left(until)))
        if failed:
            raise failed[0]
        if not found:
            raise TimeoutError("no address in time")
        return found[0]

    def _connect(self, scheme: str, host: str, address: str, port: int, until: float) -> Any:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = _Socket(family, socket.SOCK_STREAM)
        try:
            made.settimeout(min(self._connect_s, _left(until)))
            made.connect((address, port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "http":
                made.until = until
                return made
            made.settimeout(min(self._connect_s, _left(until)))
            secure: Any = self._tls.wrap_socket(made, server_hostname=host)
            secure.until = until
            return secure
        except BaseException:
            made.close()
            raise


class _Refused(OSError):
    """An address that may not be connected to."""


class _Deadline:
    """A socket whose waits end together."""

    until: float | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        return int(super().recv_into(*args, **kwargs))  # type: ignore[misc]

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._limit()
        super().sendall(*args, **kwargs)  # type: ignore[misc]

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._limit()
        return int(super().send(*args, **kwargs))  # type: ignore[misc]

    def _limit(self) -> None:
        if self.until is not None:
            self.settimeout(_left(self.until))  # type: ignore[attr-defined]


class _Socket(_Deadline, socket.socket):
    pass


class _TlsSocket(_Deadline, ssl.SSLSocket):
    pass


def _left(until: float) -> float:
    """Return how long is left. Raises: TimeoutError."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _beginning(answer: http.client.HTTPResponse) -> bytes:
    """Return the first bytes of what an answer says; whether that ever ends is all the same."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return answer.read(_BODY_BYTES)
    return b""


def _answer(status: int, headers: http.client.HTTPMessage, said: bytes) -> Answer:
    if http.HTTPStatus.OK <= status < http.HTTPStatus.MULTIPLE_CHOICES:
        return Answer(status, None)
    text = said.decode(errors="replace")[:_SAID].strip()
    error = f"it answered {status}" + (f": {text}" if text.isprintable() and text else "")
    wait = headers.get("retry-after")
    return Answer(status, error, None if wait is None else _seconds(wait))


def _seconds(text: str) -> float | None:
    """Return how long Retry-After wants us to wait; None for what says nothing."""
    if text.strip().isascii() and text.strip().isdigit():
        return float(text[:10])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _why(error: Exception) -> str:
    """Return what went wrong, without what the other side could put in at length."""
    if isinstance(error, _Refused | InvalidInput):
        return f"refused: {error}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.HTTPException):
        return f"it answered with what is no HTTP: {type(error).__name__}"
    return f"no answer: {getattr(error, 'strerror', None) or error}"[:_SAID]
