"""Export: machines and instances become a backup of rstmdb, which it restores, and which can be imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from strata.api.rstmdb.history import MachineLog
from strata.api.rstmdb.packing import write_archive
from strata.api.rstmdb.records import Entry, Record
from strata.core.clock import to_datetime
from strata.core.errors import InvalidInput

if TYPE_CHECKING:
    from strata.api.place import Place


@dataclass(frozen=True, slots=True)
class RstmdbExport:
    """What a backup for rstmdb holds."""

    machines: int
    """Versions of machines."""
    instances: int
    """That are there in the end."""
    entries: int
    """Of the log."""
    rewritten: int
    """Changes that rstmdb cannot say, such as migrations: each is a deletion and a creation there."""
    expiring: int
    """Of the instances, those that expire here, and will not there."""
    version: int
    """Everything up to this version is in it."""
    bytes: int
    """The length of the file."""


def export_log(place: Place, path: Path, history: bool) -> RstmdbExport:
    """Write the machines of a place to a backup for rstmdb."""
    from strata.store import __version__

    if type(history) is not bool:
        raise InvalidInput(f"history is True or False, not {history!r}")
    place.machines.exists("-")  # NotFound for a space that there is not
    version, now = place.version, place.machines._txn.now
    log = MachineLog(place._branch, place._space, version)
    if history:
        begin = log.beginning()
        entries: Iterator[Entry] = chain(log.state(begin), log.steps(begin))
    else:
        entries = log.state(version, now)
    made = write_archive(
        (Record(0, number, entry) for number, entry in enumerate(entries, 1)),
        path,
        created=to_datetime(now),
        writer=f"strata {__version__}",
        counts=lambda: (log.machines, log.instances),
        source={"branch": place._branch.name, "space": place._space, "version": version},
    )
    return RstmdbExport(
        log.machines,
        log.instances,
        made.wal_head_sequence,
        log.rewritten,
        log.expiring,
        version,
        path.stat().st_size,
    )
