"""Serve a database to agent hosts: `strata mcp`."""

from __future__ import annotations

import logging
import os
import signal
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from typing import Final

import strata
from strata.cli.opening import open_database
from strata.core.embedding import Embedder, check_embedder, registered
from strata.core.errors import Corrupt, InvalidInput, NotFound, StorageError
from strata.server.access import NOBODY, Tokens, read_tokens

_LOG_FORMAT: Final = "%(levelname)s %(name)s: %(message)s"


def run(arguments: Namespace) -> int:
    """Serve over standard input and output until the host closes them, or over HTTP until a signal."""
    try:
        import anyio

        from strata.server.mcp.host import make_server, serve_stdio
        from strata.server.mcp.http import PATH, check_exposure, listen, serve_http
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("strata"):
            raise
        raise NotFound(
            f"strata mcp needs the package {error.name}",
            what="package",
            name=error.name,
            hint="pip install 'strata-embedded[mcp]'",
        ) from None
    from strata.server.mcp.scope import Scope

    address = None if arguments.http is None else _address(arguments.http)
    tokens = _tokens(arguments)
    if address is not None:
        check_exposure(address[0], tokens)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=_LOG_FORMAT)
    embedder = None if arguments.embedder is None else _embedder(arguments.embedder)
    scope = Scope(arguments.branch, arguments.space, arguments.read_only)
    with _open(arguments) as db:
        server = make_server(db, scope, embedder)
        if address is None:
            _end_at_signals(db)
            anyio.run(serve_stdio, server)
            return 0
        with listen(*address) as listening:
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"strata mcp: http://{shown}:{port}{PATH}", file=sys.stderr, flush=True)
            anyio.run(serve_http, server, listening, tokens)
    return 0


def _tokens(arguments: Namespace) -> Tokens:
    """Return the tokens of the file that was given. One without any would let everybody in."""
    if arguments.tokens is None:
        return NOBODY
    if arguments.http is None:
        raise InvalidInput("over standard input and output there are no tokens", hint="--http")
    found = read_tokens(Path(arguments.tokens))
    if not found:
        raise InvalidInput(f"{arguments.tokens} has no token in it")
    return found


def _end_at_signals(db: strata.Database) -> None:
    """Close the database and end the process at a signal: nothing else ends a thread that waits for input."""

    def end(number: int, _: object) -> None:
        db.close()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def _open(arguments: Namespace) -> strata.Database:
    """Open the database. A host that only reads opens it like others, so that these may write meanwhile."""
    if not arguments.read_only:
        return open_database(arguments)
    try:
        return open_database(arguments, create=False)
    except Corrupt:
        raise
    except StorageError:  # files that we may not write to
        return open_database(arguments, create=False, read_only=True)


def _embedder(text: str) -> Embedder:
    """Return the embedder of a name that is registered, or what `module:name` is."""
    module, colon, name = text.partition(":")
    if not colon:
        return registered(text)
    try:
        return check_embedder(getattr(import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise NotFound(
            f"{text!r} cannot be had: {error}", what="embedder", name=text, hint="as in my_models:embedder"
        ) from None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise InvalidInput(f"{text!r} is no address", hint="as in 127.0.0.1:8765")
    return host.strip("[]"), int(port)
