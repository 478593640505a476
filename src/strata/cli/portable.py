"""Take a database elsewhere: export, import, backup, restore, salvage."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import strata
from strata.api.portable import BundleInfo
from strata.cli.opening import keys_of, open_database
from strata.core.errors import InvalidInput


def export(arguments: Namespace) -> int:
    """Write a bundle; print what is in it."""
    key = Path(arguments.bundle_key_file) if arguments.bundle_key_file else None
    with open_database(arguments, create=False, read_only=True) as db:
        _say(db.export(arguments.bundle, branch=arguments.branch, history=arguments.history, key=key))
    return 0


def import_(arguments: Namespace) -> int:
    """Make a database of a bundle, or only check it; print what is in it."""
    if arguments.check:
        _say(strata.verify_bundle(arguments.bundle, key=keys_of(arguments)))
        return 0
    if arguments.path is None:
        raise InvalidInput("say which directory to make", hint="or --check to make none")
    _say(strata.import_(arguments.bundle, arguments.path, key=keys_of(arguments)))
    return 0


def backup(arguments: Namespace) -> int:
    """Make or renew a backup; print what it holds and took."""
    with open_database(arguments, create=False) as db:
        made = db.backup(arguments.to)
    print(
        f"version {made.version:,}: {made.bytes:,} bytes in {made.runs} runs,"
        f" {made.new_runs} of them new ({made.linked_runs} linked, {made.copied_bytes:,} bytes copied)"
    )
    return 0


def restore(arguments: Namespace) -> int:
    """Make a database of a backup; print what is in it."""
    at = arguments.at
    when = int(at) if at and at.isdecimal() else at
    made = strata.restore(arguments.backup, arguments.path, at=when, key=keys_of(arguments))
    print(f"version {made.version:,} of {', '.join(made.branches)}: {made.rows:,} rows")
    return 0


def salvage(arguments: Namespace) -> int:
    """Make a database of what is whole of a damaged one; print what is lost."""
    made = strata.salvage(arguments.path, arguments.to, key=keys_of(arguments))
    print(f"version {made.version:,} of {', '.join(made.branches)}: {made.rows:,} rows")
    for loss in made.lost:
        print(f"lost: {loss}")
    print("nothing is lost" if made.is_whole else f"{len(made.lost)} losses")
    return 0 if made.is_whole else 1


def _say(info: BundleInfo) -> None:
    kind = "all history" if info.history else "the newest"
    print(f"{kind} of {', '.join(info.branches)}: {info.rows:,} rows, {info.bytes:,} bytes")
    print(f"sha256 {info.sha256}")
    print(f"encrypted with key {info.key_id}" if info.key_id else "not encrypted")
