"""Open the database that a command names, with the key that was given for it.

A key is in a file and never on the command line, where other users and the shell's history see it.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

import strata

VARIABLE: Final = "STRATA_KEY_FILE"


def add_key_file(command: ArgumentParser) -> None:
    """Let a command take keys."""
    command.add_argument(
        "--key-file",
        metavar="FILE",
        action="append",
        help=f"the key of what is encrypted: 32 bytes or 64 hex digits ({VARIABLE}); again for older keys",
    )


def keys_of(arguments: Namespace) -> list[Path] | None:
    """Return the files of the keys that were given, the current one first; None for none."""
    given = arguments.key_file or [file for file in os.environ.get(VARIABLE, "").split(os.pathsep) if file]
    return [Path(file) for file in given] or None


def open_database(arguments: Namespace, **settings: Any) -> strata.Database:
    """Open `arguments.path`."""
    return strata.open(arguments.path, key=keys_of(arguments), **settings)
