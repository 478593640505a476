"""Take a database elsewhere: export, import, backup, restore."""

from __future__ import annotations

from argparse import Namespace

import strata
from strata.api.portable import BundleInfo
from strata.core.errors import InvalidInput


def export(arguments: Namespace) -> int:
    """Write a bundle; print what is in it."""
    with strata.open(arguments.path, create=False, read_only=True) as db:
        _say(db.export(arguments.bundle, branch=arguments.branch, history=arguments.history))
    return 0


def import_(arguments: Namespace) -> int:
    """Make a database of a bundle, or only check it; print what is in it."""
    if arguments.check:
        _say(strata.verify_bundle(arguments.bundle))
        return 0
    if arguments.path is None:
        raise InvalidInput("say which directory to make", hint="or --check to make none")
    _say(strata.import_(arguments.bundle, arguments.path))
    return 0


def backup(arguments: Namespace) -> int:
    """Make or renew a backup; print what it holds and took."""
    with strata.open(arguments.path, create=False) as db:
        made = db.backup(arguments.to)
    print(
        f"version {made.version:,}: {made.bytes:,} bytes in {made.runs} runs,"
        f" {made.new_runs} of them new ({made.linked_runs} linked, {made.copied_bytes:,} bytes copied)"
    )
    return 0


def restore(arguments: Namespace) -> int:
    """Make a database of a backup; print what is in it."""
    at = arguments.at
    made = strata.restore(arguments.backup, arguments.path, at=int(at) if at and at.isdecimal() else at)
    print(f"version {made.version:,} of {', '.join(made.branches)}: {made.rows:,} rows")
    return 0


def _say(info: BundleInfo) -> None:
    kind = "all history" if info.history else "the newest"
    print(f"{kind} of {', '.join(info.branches)}: {info.rows:,} rows, {info.bytes:,} bytes")
    print(f"sha256 {info.sha256}")
