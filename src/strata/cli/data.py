"""Look into a database, and put single values; and look after it."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import asdict
from typing import Any

import strata
from strata.api.plain import decode_json
from strata.api.table import show_time, text_table
from strata.cli.opening import open_database, open_whole
from strata.cli.output import json_text
from strata.cli.parsing import stdin
from strata.core.errors import InvalidInput, NotFound
from strata.primitives import PRIMITIVES, Events, Vectors


def info(arguments: Namespace) -> int:
    """Print what the database is, takes and holds."""
    with _open(arguments) as db:
        found = db.info()
        newest = db.log(limit=1)
        spaces = {space: _sizes(db.space(space)) for space in db.spaces}
    if arguments.json:
        print(json.dumps({**asdict(found), "spaces": spaces}, indent=2))
        return 0
    rows = found.rows()
    rows.append(("newest commit", show_time(newest[0].time) if newest else "none"))
    for space, sizes in spaces.items():
        held = ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)
        rows.append((f"space {space}", held or "empty"))
    print("\n".join(f"{name:<16} {value}" for name, value in rows))
    return 0


def checkpoint(arguments: Namespace) -> int:
    """Write what is only in the log to a run; print what was written."""
    with open_database(arguments, create=False) as db:
        made = db.checkpoint()
    if made.snapshot_id is None:
        print(f"version {made.version:,}: nothing to write")
    else:
        print(f"version {made.version:,}: {made.rows:,} rows in {made.bytes:,} bytes, run {made.snapshot_id}")
    return 0


def branches(arguments: Namespace) -> int:
    """Print the branches as a table."""
    with _open(arguments) as db:
        print(db.branches.list())
    return 0


def log(arguments: Namespace) -> int:
    """Print the commits of a branch, newest first."""
    with _open(arguments) as db:
        commits = db.branch(arguments.branch).log(
            limit=arguments.limit, actor=arguments.actor, primitive=arguments.primitive
        )
    head = ("version", "branch", "time", "actor", "message")
    rows = (
        (str(commit.version), commit.branch, show_time(commit.time), commit.actor or "",
         commit.message or "")
        for commit in commits
    )  # fmt: skip
    print(text_table(head, rows))
    return 0


def get(arguments: Namespace) -> int:
    """Print the value of a key as JSON."""
    with _open(arguments) as db:
        place = db.branch(arguments.branch).space(arguments.space)
        face = place if arguments.at is None else place.at(_when(arguments.at))
        value = face.kv.get(arguments.key, _MISSING)
    if value is _MISSING:
        raise NotFound(f"key {arguments.key!r} does not exist")
    print(json_text(value))
    return 0


def put(arguments: Namespace) -> int:
    """Put a value, given as JSON, under a key; print the version of the commit."""
    value = _value(arguments.value)
    with open_database(arguments) as db:
        place = db.branch(arguments.branch).space(arguments.space)
        with place.transaction(message=arguments.message, actor="strata put") as tx:
            tx.kv.put(arguments.key, value)
    print(tx.version)
    return 0


def verify(arguments: Namespace) -> int:
    """Read everything; print what was read, or each place that is damaged. Exit code 1 when there is one."""
    with open_whole(arguments) as db:
        report = db.verify(progress=_shown if sys.stderr.isatty() else None)
    for problem in report.problems:
        print(f"{problem.place} at {problem.at}: {problem.reason}")
    print(
        f"{'good' if report.ok else 'DAMAGED'}: {report.records:,} records in {report.segments:,} segments,"
        f" {report.rows:,} rows in {report.runs:,} runs,"
        f" up to version {report.version:,}; {report.events:,} events in {report.streams:,} streams"
    )
    return 0 if report.ok else 1


def _shown(read: int, all_: int) -> None:
    if all_ >= _LARGE:
        print(
            f"\r{100 * read // all_:3} % of {all_:,} bytes", end="\n" if read >= all_ else "", file=sys.stderr
        )


_LARGE = 64 << 20  # smaller databases are read before anybody looks
_MISSING: Any = object()


def _sizes(place: strata.Space) -> dict[str, int]:
    return {name: _size(getattr(place, name)) for name in PRIMITIVES}


def _size(primitive: Any) -> int:
    if isinstance(primitive, Events):
        return sum(primitive.len(stream) for stream in primitive.streams())
    if isinstance(primitive, Vectors):
        return sum(primitive.count(collection.name) for collection in primitive.collections())
    return int(primitive.count())


def _open(arguments: Namespace) -> strata.Database:
    return open_database(arguments, create=False, read_only=True)


def _when(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _value(said: str | None) -> Any:
    """Return the value that a word, or without one standard input, says as JSON."""
    try:
        return decode_json(_read() if said is None or said == "-" else said)
    except InvalidInput as error:
        raise InvalidInput(error.message, hint=error.hint or "a text needs its quotes: '\"text\"'") from None


def _read() -> bytes:
    found = stdin()
    return b"" if found is None else found.read()
