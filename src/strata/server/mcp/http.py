"""Streamable HTTP: several hosts on one port, each with the same scope.

On a loopback address anybody of this machine may connect, as with a local file that they may read; requests
that a web page sends there are refused by their Host and Origin. Any other address needs a token.
"""

from __future__ import annotations

import hashlib
import socket
from typing import Any, Final

from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel.server import Server
from pydantic import AnyHttpUrl
from starlette.applications import Starlette

from strata.core.errors import AccessDenied, InvalidInput
from strata.server.access import NOBODY, Tokens

PATH: Final = "/mcp"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
SESSIONS_MAX: Final = 1_000
GRACE_S: Final = 3  # for streams that hosts hold open


class Verifier:
    """Tells the SDK of tokens: what they allow becomes their scope, which `host` asks for."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return what the SDK wants to know of a token, or None for a wrong one."""
        try:
            access = self._tokens.access_of(token)
        except AccessDenied:
            return None
        holder = hashlib.sha256(token.encode()).hexdigest()[:16]  # whose sessions are nobody else's
        return AccessToken(token=token, client_id=holder, scopes=[access])


def check_exposure(host: str, tokens: Tokens) -> None:
    """Raise InvalidInput for an address that others may reach, without a token."""
    if host not in LOOPBACK and not tokens:
        raise InvalidInput(
            f"{host} can be reached by others, so it needs a token", hint="--tokens, or 127.0.0.1"
        )


def make_app(server: Server[Any], host: str, port: int, tokens: Tokens = NOBODY) -> Starlette:
    """Return the application that serves at `/mcp`.

    Raises: InvalidInput for an address that others may reach, without a token.
    """
    check_exposure(host, tokens)
    auth = None
    if tokens:
        issuer = AnyHttpUrl(f"http://{host if ':' not in host else f'[{host}]'}:{port}")
        auth = AuthSettings(issuer_url=issuer, resource_server_url=None)
    return server.streamable_http_app(
        streamable_http_path=PATH,
        host=host,
        max_sessions=SESSIONS_MAX,
        auth=auth,
        token_verifier=Verifier(tokens) if tokens else None,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any that is free.

    Raises: InvalidInput for an address that cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidInput(f"there is no listening on {host} port {port}: {error}") from None


async def serve_http(server: Server[Any], listening: socket.socket, tokens: Tokens = NOBODY) -> None:
    """Serve until SIGTERM or SIGINT, which let what is in flight end."""
    import uvicorn

    host, port = listening.getsockname()[:2]
    app = make_app(server, host, port, tokens)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_S)
    await uvicorn.Server(config).serve(sockets=[listening])
