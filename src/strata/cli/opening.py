"""Open the database that a command names, with the key, token or certificates that were given for it.

A path is opened, whoever has it open, and a URL (strata://host:port, strata+tls://, unix:path) connected to.
"""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

import strata
from strata.cli.parsing import CERTIFICATES, KEY_FILE, TOKEN
from strata.core.errors import InvalidInput, Locked

_TLS: Final = "strata+tls://"
_SCHEMES: Final = ("strata://", _TLS, "unix:")


def keys_of(given: Namespace) -> list[Path] | None:
    """Return the files of the keys that were given, the current one first; None for none."""
    files = given.key_file or [file for file in os.environ.get(KEY_FILE, "").split(os.pathsep) if file]
    return [Path(file) for file in files] or None


def is_url(path: str) -> bool:
    """Return whether a path is the address of a server."""
    return path.startswith(_SCHEMES)


def open_database(given: Namespace, **settings: Any) -> strata.Database:
    """Open or connect to `given.path`; `settings` are those of `strata.open`.

    Raises: InvalidInput for a token that cannot be read, or for what only a path has; what opening raises.
    """
    if is_url(given.path):
        return _connect(given, settings.get("read_only", False))
    if given.token_file is not None:
        raise InvalidInput("a token is for a URL", hint="the key of files is --key-file")
    if any(getattr(given, name) is not None for name in CERTIFICATES):
        raise InvalidInput("certificates are for strata+tls:// URLs")
    return strata.open(given.path, key=keys_of(given), **settings)


def open_whole(given: Namespace) -> strata.Database:
    """Open what is there to read all of it: as only reader, or by asking who has it open.

    A guest that says it only reads is not let at what concerns the whole database, as verify does.
    """
    if is_url(given.path):
        return open_database(given)
    try:
        return open_database(given, create=False, read_only=True, shared=False)
    except Locked:
        return open_database(given, create=False)


def _connect(given: Namespace, read_only: bool) -> strata.Database:
    if given.key_file is not None:
        raise InvalidInput("a server has the key of its files", hint="for a URL there is --token-file")
    certificates = _certificates(given)
    if "certificate_key" in certificates and "certificate" not in certificates:
        raise InvalidInput(
            "a key is of a certificate", hint="--certificate FILE, which may hold the key, too"
        )
    return strata.connect(given.path, token=_token(given), read_only=read_only, **certificates)


def _certificates(given: Namespace) -> dict[str, Any]:
    """Return the files for TLS that were given; those of the environment only where there is TLS."""
    found = {name: getattr(given, name) for name in CERTIFICATES}
    if given.path.startswith(_TLS):
        found = {name: found[name] or os.environ.get(CERTIFICATES[name][0]) for name in found}
    return {name: file for name, file in found.items() if file}


def _token(given: Namespace) -> str | None:
    if given.token_file is None:
        return os.environ.get(TOKEN)
    try:
        return Path(given.token_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the token file {given.token_file!r} cannot be read: {error}") from None
