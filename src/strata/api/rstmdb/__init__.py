"""What rstmdb leaves on disk: its log, its data directories, its backups; read, written, taken in.

Bytes, which know no database; the names of this package:

    records.py      one record in bytes; a segment as records and damage
    segments.py     records become segments
    directories.py  the log in a data directory
    archives.py     the log in a backup, `.rstmbak`; over streams.py, which unpacks
    packing.py      a log becomes a backup

Machines, imported by whoever needs them:

    reading.py      entries of a log as our machines can have them
    importing.py    a log becomes machines and instances
    history.py      the history of machines as entries of a log
    exporting.py    machines and instances become a backup

The format is as the reference of rstmdb has it (sections 8, 11 and 12), and as version 0.3 writes it where
that says nothing.
"""

from __future__ import annotations

from pathlib import Path

from strata.api.rstmdb.archives import Archive, Compression, Manifest
from strata.api.rstmdb.directories import Directory
from strata.api.rstmdb.packing import write_archive
from strata.api.rstmdb.records import Damage, Entry, Record, Report, read_log
from strata.api.rstmdb.segments import Written, write_segments
from strata.core.errors import NotFound

__all__ = [
    "Archive",
    "Compression",
    "Damage",
    "Directory",
    "Entry",
    "Manifest",
    "Record",
    "Report",
    "Written",
    "open_log",
    "read_log",
    "write_archive",
    "write_segments",
]


def open_log(path: Path, *, salvage: bool = False, report: Report | None = None) -> Archive | Directory:
    """Return the log that is at a path: that of a data directory, or of a backup.

    Raises: NotFound where there is nothing; InvalidInput where there is no log; what `Archive` raises.
    """
    if not path.exists():
        raise NotFound(f"there is no file {str(path)!r}", what="file", name=str(path))
    return Directory(path) if path.is_dir() else Archive(path, salvage=salvage, report=report)
