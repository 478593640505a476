"""Branches from the command line: fork, say what differs, merge."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import strata
from strata.api.table import text_table
from strata.cli.opening import open_database
from strata.core.changes import Change
from strata.core.errors import MergeConflict
from strata.core.values import text_of
from strata.history.plain import plain

_WIDTH = 40
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def fork(arguments: Namespace) -> int:
    """Make a branch; print the version that it begins at."""
    with open_database(arguments, create=False) as db:
        at = None if arguments.at is None else _when(arguments.at)
        db.branches.fork(arguments.source, arguments.name, at=at)
        print(db.branches.get(arguments.name).fork_version)
    return 0


def diff(arguments: Namespace) -> int:
    """Print what differs between two branches or versions."""
    with open_database(arguments, create=False, read_only=True) as db:
        sides = [_side(db, text) for text in (arguments.old, arguments.new)]
        changes = db.diff(*sides, **_limits(arguments))
        if arguments.json:
            for change in changes:
                print(json.dumps(plain(change), ensure_ascii=False))
            return 0
        print(text_table(("", "primitive", "space", "what", "from", "to"), map(_row, changes)))
    return 0


def merge(arguments: Namespace) -> int:
    """Merge a branch into another; print what changed there."""
    limits = _limits(arguments)
    with open_database(arguments, create=False) as db:
        if arguments.preview:
            made = db.branches.preview(arguments.source, arguments.target, **limits)
        else:
            try:
                made = db.branches.merge(
                    arguments.source,
                    arguments.target,
                    arguments.strategy,
                    message=arguments.message,
                    **limits,
                )
            except MergeConflict as conflict:
                print(_conflicts(conflict.conflicts))
                raise
    print(text_table(("", "primitive", "space", "what", "from", "to"), map(_row, made.changes)))
    if made.conflicts:
        print(_conflicts(made.conflicts))
    if not arguments.preview:
        print("nothing to merge" if made.version is None else f"version {made.version}")
    return 0


def _limits(arguments: Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("space", "primitive", "prefix")}


def _side(db: strata.Database, text: str | None) -> Any:
    """Return the state that NAME, NAME@VERSION or a version alone means."""
    if text is None:
        return None
    if text.isdigit() and text not in db.branches:
        return int(text)
    name, at, version = text.rpartition("@")
    return db.branch(name).at(int(version)) if at and version.isdigit() and text not in db.branches else text


def _when(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _row(change: Change) -> tuple[str, ...]:
    what = change.key if change.path is None else f"{change.key} {change.path}"
    if change.start is not None:
        events = change.new or change.old
        what = f"{change.key} {change.start} to {change.start + len(events) - 1}"
        sides = ("", "") if change.what == "added" else (f"{len(events)} events", "")
        return _SIGNS[change.what], change.primitive, change.space, what, *sides
    old, new = ("" if value is None else text_of(plain(value), _WIDTH) for value in (change.old, change.new))
    return _SIGNS[change.what], change.primitive, change.space, what, old, new


def _conflicts(conflicts: Iterable[Any]) -> str:
    rows = [
        (
            found.primitive,
            found.space,
            found.key if found.path is None else f"{found.key} {found.path}",
            *(
                "(nothing)" if value is strata.ABSENT else text_of(plain(value), _WIDTH)
                for value in (found.base, found.source, found.target)
            ),
        )
        for found in conflicts
    ]
    return text_table(("conflict", "space", "what", "base", "source", "target"), rows)
