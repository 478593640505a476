"""Take a database elsewhere: export, import, backup, restore, salvage."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import strata
from strata.api.portable import BundleInfo
from strata.cli.formats import format_of
from strata.cli.opening import keys_of, open_database, open_whole
from strata.core.errors import InvalidInput


def export(given: Namespace) -> int:
    """Write a bundle, or the data of one primitive in another format; print what is in it."""
    name = format_of(given.file, given.format)
    if name == "rstmdb":
        _check(given, name, ("bundle_key_file", *_OF_DATA_ONLY), ())
        from strata.cli import rstmdb

        return rstmdb.export(given)
    _check(given, name, _OF_BUNDLES, _OF_DATA)
    if name is not None:
        from strata.cli import transfer

        return transfer.export(given, name)
    key = Path(given.bundle_key_file) if given.bundle_key_file else None
    with open_whole(given) as db:
        _say(db.export(given.file, branch=given.branch, history=given.history, key=key))
    return 0


def import_(given: Namespace) -> int:
    """Make a database of a bundle or only check it, or take in a file of another format; print what was."""
    if given.check:
        return _verify(given, given.file or given.path)
    if given.file is None:
        raise InvalidInput("say PATH and FILE", hint="or --check FILE, which makes nothing")
    if Path(given.path).is_file() and not Path(given.file).is_file():
        given.path, given.file = given.file, given.path  # a database is never a file
    name = format_of(given.file, given.format)
    if name == "rstmdb":
        _check(given, name, (*_OF_DATA_ONLY, "message", "text"), ())
        from strata.cli import rstmdb

        return rstmdb.import_(given)
    _check(given, name, ("check", "salvage"), (*_OF_DATA, "branch", "message", "text", "salvage"))
    if name is not None:
        from strata.cli import transfer

        return transfer.import_(given, name)
    _say(strata.import_(given.file, given.path, key=keys_of(given)))
    return 0


def _verify(given: Namespace, file: str) -> int:
    """Say what is in a file, and whether it is whole."""
    if given.format == "rstmdb" or (given.format is None and file.lower().endswith(".rstmbak")):
        from strata.cli import rstmdb

        return rstmdb.check(file, salvage=given.salvage)
    _say(strata.verify_bundle(file, key=keys_of(given)))
    return 0


_OF_BUNDLES: Final = ("history", "bundle_key_file")
_OF_DATA_ONLY: Final = ("at", "prefix", "stream", "collection", "table", "key", "primitive")
_OF_DATA: Final = ("space", *_OF_DATA_ONLY)


def _check(given: Namespace, name: str | None, of_bundles: Iterable[str], of_data: Iterable[str]) -> None:
    """Refuse options of bundles with other formats, and those of other formats with bundles."""
    wrong = of_data if name is None else of_bundles
    said = next((option for option in wrong if getattr(given, option, None)), None)
    if said is not None:
        what = f"{name or 'a bundle'} takes no --{said.replace('_', '-')}"
        raise InvalidInput(what, hint="the format is that of FILE's extension, or --format")


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
