"""Guard: what no honest client sends, refused before anything is read or looked up.

Paths are taken as they came on the line and decoded once: an escaped slash is a slash, `..` is two dots, and
a key with either is a key like any other, since no path here is one of a file.

Where no token is asked for, whoever can make a browser on this machine send a request could write. So pages
of other origins are refused, and hosts that are not this machine by name (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from strata.core.errors import AccessDenied
from strata.server.http.statuses import Refused, bad_request
from strata.server.http.web import Headers


def path_of(scope: Any) -> str:
    """Return the decoded path of a request.

    Raises: Refused for one that is not UTF-8.
    """
    raw = scope.get("raw_path")
    try:
        path = str(scope["path"]) if raw is None else unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise bad_request("the path is not UTF-8") from None
    return path.removeprefix(scope.get("root_path", ""))  # of an application that this one is a part of


def check_framing(headers: Headers) -> None:
    """Refuse a request that says twice how long it is: two that read it could see two requests.

    Raises: Refused.
    """
    lengths = headers.getlist("content-length")
    if len(lengths) > 1 or (lengths and not (lengths[0].isascii() and lengths[0].isdigit())):
        raise bad_request("Content-Length is not one number", Connection="close")
    if lengths and "transfer-encoding" in headers:
        raise bad_request("both Content-Length and Transfer-Encoding are there", Connection="close")


def check_origin(headers: Headers, origins: frozenset[str], *, is_open: bool) -> None:
    """Refuse what a page of somebody else makes a browser send.

    Raises: Refused.
    """
    hosts = headers.getlist("host")
    if len(hosts) > 1:
        raise bad_request("Host is there twice", Connection="close")
    host = hosts[0] if hosts else ""
    if is_open and hosts and not _is_here(host):
        raise _denied(f"without tokens this answers to localhost, not to {host[:100]!r}")
    origin = headers.get("origin")
    if origin is not None and origin not in origins and _host_of(origin) != host.lower():
        raise _denied(f"pages of {origin[:100]!r} may not send requests here")


def _host_of(origin: str) -> str | None:
    """Return host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _is_here(host: str) -> bool:
    """Return whether a Host header names this machine: by number or as localhost, which no other site can."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _denied(message: str) -> Refused:
    return Refused(403, AccessDenied(message, needed="write", given="another origin"))
