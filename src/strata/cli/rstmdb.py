"""What rstmdb has on disk: take it in, check it, and write a backup that it restores."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from strata.api.rstmdb import Archive, Damage, open_log, read_log
from strata.cli.formats import STDIO
from strata.cli.opening import open_database
from strata.core.errors import InvalidInput

if TYPE_CHECKING:
    from strata.api.rstmdb.importing import RstmdbImport

_LARGE: Final = 8 << 20  # bytes: what is smaller is done before anybody looks
_NOTES: Final = (
    ("skipped", "entries were taken before"),
    ("irregular", "of these are not as the definition would have it; they are taken as logged"),
    ("mended", "entries are read otherwise than they stand there, such as null contexts as empty ones"),
    ("orphans", "entries of instances that the log does not make are left out"),
)


def import_(given: Namespace) -> int:
    """Take a log in; print how much, and what is not as it was. Exit code 1 when something is left out."""
    _check_path(given.file)
    with open_database(given) as database:
        place = database.branch(given.branch or "main").space(given.space or "default")
        shown = _shown if sys.stderr.isatty() else None
        done = place.import_rstmdb(given.file, salvage=given.salvage, progress=shown)
    _say(done)
    return 0 if done.is_whole else 1


def check(file: str, *, salvage: bool) -> int:
    """Read a log; print what is in it. Exit code 1 when it is damaged."""
    _check_path(file)
    damage: list[Damage] = []
    log = open_log(Path(file), salvage=salvage, report=damage.append)
    counts: Counter[str] = Counter()
    last = None
    for record in read_log(log.segments(), salvage=salvage, report=damage.append):
        counts[record.entry["type"]] += 1
        last = record
    said = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "nothing"
    print(f"{len(log.sizes)} segments, {sum(log.sizes.values()):,} bytes: {said}")
    if isinstance(log, Archive):
        print(f"backup by {log.manifest.rstmdb_version or '?'}, {log.manifest.created_at or '?'}")
    if last is not None:
        print(f"up to offset {last.offset}, sequence {last.sequence}")
    _list("damage", damage)
    return 0 if all(found.is_tail for found in damage) else 1


def export(given: Namespace) -> int:
    """Write a backup; print what is in it."""
    _check_path(given.file)
    with open_database(given, create=False, read_only=True) as database:
        place = database.branch(given.branch or "main").space(given.space or "default")
        made = place.export_rstmdb(given.file, history=given.history)
    print(
        f"{made.machines:,} versions of machines, {made.instances:,} instances, {made.entries:,} entries,"
        f" {made.bytes:,} bytes"
    )
    if made.rewritten:
        print(f"{made.rewritten:,} changes are a deletion and a creation there: rstmdb cannot say them")
    if made.expiring:
        print(f"{made.expiring:,} of the instances expire here, and will not there")
    return 0


def _say(done: RstmdbImport) -> None:
    print(
        f"version {done.version:,}: {done.machines:,} versions of machines, {done.instances:,} instances,"
        f" {done.transitions:,} transitions, {done.deletions:,} deletions"
    )
    for name, what in _NOTES:
        if getattr(done, name):
            print(f"{getattr(done, name):,} {what}")
    _list("damage", done.damage)
    _list("left out", done.first_refused, done.refused)


def _list(what: str, found: Any, count: int | None = None) -> None:
    for item in found:
        print(f"{what}: {item}")
    if count is not None and count > len(found):
        print(f"{what}: {count - len(found):,} more")


def _check_path(file: str) -> None:
    if file == STDIO:
        raise InvalidInput("rstmdb has files, which standard input and output are not")


def _shown(done: int, all_: int) -> None:
    if all_ >= _LARGE:
        print(
            f"\r{100 * done // all_:3} % of {all_:,} bytes", end="\n" if done >= all_ else "", file=sys.stderr
        )
