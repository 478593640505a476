"""Backups that clients take away in pieces: the log of machines as a file of rstmdb's, `.rstmbak`.

It is made on this machine, in a file that has no name any more by the time its first piece is asked for. So
it goes with whoever it was for: at BACKUP_END, with the connection, when nobody asks for long, with this
process. What it holds is what `db.export_rstmdb(history=True)` writes.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from base64 import b64encode
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from uuid import uuid4

import msgspec

from strata.api import rstmdb
from strata.api.opening import version
from strata.api.rstmdb.history import MachineLog
from strata.server.rcp import params
from strata.server.rcp.errors import Refused, bad_request
from strata.server.rcp.operation import Operation, Result

if TYPE_CHECKING:
    from strata.server.rcp.listener import Listener
    from strata.server.rcp.session import Session

CHUNK_BYTES: Final = 4 << 20
_CHUNK_BYTES_MAX: Final = 8 << 20  # in base64 it must go into a frame
IDLE_S: Final = 600.0


class Staged:
    """A backup that a session takes away."""

    def __init__(self, file: IO[bytes], size: int, manifest: rstmdb.Manifest) -> None:
        self.id = f"backup-{uuid4()}"
        self.size = size
        self.manifest = manifest
        self.used = time.monotonic()
        self._file = file

    def read(self, offset: int, size: int) -> bytes:
        """Return a piece."""
        self.used = time.monotonic()
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


class Backups:
    """Where backups are made."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        # Of this directory there is one owner, us: what is there was left by one that was killed.
        place = str(listener.database.path and listener.database.path.resolve())
        self._prefix = f"strata-rcp-{hashlib.sha256(place.encode()).hexdigest()[:16]}-"
        if listener.database.path is not None:
            for old in Path(tempfile.gettempdir()).glob(f"{self._prefix}*"):
                shutil.rmtree(old, ignore_errors=True)

    def make(self, compression: rstmdb.Compression) -> Staged:
        """Return the backup of what is committed."""
        database = self._listener.database
        log = MachineLog(database._branch, database._space, database.version)
        begin = log.beginning()
        entries = chain(log.state(begin), log.steps(begin))
        with tempfile.TemporaryDirectory(prefix=self._prefix) as place:
            path = Path(place) / "backup"
            manifest = rstmdb.write_archive(
                # Bytes as base64, as in responses.
                (rstmdb.Record(0, n, msgspec.to_builtins(entry)) for n, entry in enumerate(entries, 1)),
                path,
                created=datetime.now(UTC),
                writer=f"strata {version()}",
                compression=compression,
                counts=lambda: (log.machines, log.instances),
            )
            return Staged(path.open("rb"), path.stat().st_size, manifest)

    def sweep(self, session: Session, now: float) -> None:
        """Drop the backup of a session that has not asked for a piece in a long time."""
        if session.backup is not None and now - session.backup.used > IDLE_S:
            self.drop(session)

    def drop(self, session: Session) -> None:
        """Drop the backup of a session."""
        staged, session.backup = session.backup, None
        if staged is not None:
            staged.close()


def begin(session: Session, asked: params.BackupBegin) -> Result:
    if asked.compression not in (None, "gzip", "none"):
        raise bad_request(f"{asked.compression!r} is no compression: gzip or none")
    if session.backup is not None:
        raise bad_request(f"this connection has begun {session.backup.id}: end it first")
    made = session.listener.backups.make("none" if asked.compression == "none" else "gzip")
    session.backup = made
    return {
        "backup_id": made.id,
        "manifest": made.manifest,
        "total_bytes": made.size,
        "chunk_size": CHUNK_BYTES,
    }


def chunk(session: Session, asked: params.BackupChunk) -> Result:
    staged = _staged(session, asked.backup_id)
    size = CHUNK_BYTES if asked.len is None else asked.len
    if asked.offset > staged.size or not 0 < size <= _CHUNK_BYTES_MAX:
        raise bad_request(
            f"no piece of it: at {asked.offset} of {staged.size} bytes, {size} of them",
            total_bytes=staged.size,
            chunk_size_max=_CHUNK_BYTES_MAX,
        )
    data = staged.read(asked.offset, size)
    said: dict[str, Any] = {"bytes": b64encode(data).decode(), "eof": asked.offset + len(data) >= staged.size}
    return said


def end(session: Session, asked: params.BackupEnd) -> Result:
    _staged(session, asked.backup_id)
    session.listener.backups.drop(session)
    return {"ok": True}


def _staged(session: Session, id: str) -> Staged:
    if session.backup is None or session.backup.id != id:
        raise Refused("NOT_FOUND", f"this connection has begun no backup {id[:100]!r}")
    return session.backup


TABLE: Final = (
    Operation("BACKUP_BEGIN", "admin", params.BackupBegin, begin, slow=True),
    Operation("BACKUP_CHUNK", "admin", params.BackupChunk, chunk, slow=True),
    Operation("BACKUP_END", "admin", params.BackupEnd, end),
)
