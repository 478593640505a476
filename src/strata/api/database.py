"""The database: the handle on everything. `opening.py` has what opening one takes."""

from __future__ import annotations

import atexit
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol

from strata.api.branches import Branches
from strata.api.encryption import OneKey, key_bytes
from strata.api.face import make_primitive
from strata.api.forget import ForgetInfo, Where, erasure_of, forget
from strata.api.indexes import Indexes
from strata.api.place import Place
from strata.api.portable import BackupInfo, BundleInfo, backup, export
from strata.api.retention import Retention
from strata.api.upkeep import CheckpointInfo, CompactInfo, Mode, RowProgress, checkpoint, compact
from strata.api.verify import Progress, VerifyReport, verify
from strata.api.webhooks import Webhooks
from strata.core.keys import check_name
from strata.core.protocols import Store
from strata.core.refs import EntityRef
from strata.primitives import PRIMITIVES

if TYPE_CHECKING:
    from strata.api.info import DatabaseInfo


class Closes(Protocol):
    """What a database closes at its end."""

    def close(self) -> None: ...


class Database(Place):
    """One database: the face of its default branch and space, and the way to all others.

    Use it in a `with` block or call `close`. Sharing it between threads is safe; in a forked child it raises.
    """

    __slots__ = ("_closes", "_process", "branches", "indexes", "path", "retention", "webhooks", *PRIMITIVES)

    def __init__(
        self,
        store: Store,
        *,
        branch: str = "main",
        space: str = "default",
        path: Path | None = None,
        closes: Closes | None = None,
    ) -> None:
        super().__init__(store, store.branch(check_name(branch, "branch")), check_name(space, "space"))
        for primitive in PRIMITIVES:
            setattr(self, primitive, make_primitive(self, primitive))
        self.branches = Branches(store, space)
        self.indexes = Indexes(store, space)
        self.retention = Retention(store)
        self.webhooks = Webhooks(store, branch)
        self.path = path  # None in memory
        self._closes = closes or store  # the store, or what has to end together with it
        self._process = os.getpid()
        _opened.add(self)

    @property
    def name(self) -> str:
        """The directory's name without ".strata"; "memory" when there is none."""
        return self.path.name.removesuffix(".strata") if self.path else "memory"

    @property
    def durable_version(self) -> int:
        """Everything up to this version survives a power cut."""
        return self._store.durable_version

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._store.closed

    def flush(self) -> int:
        """Wait until everything committed so far survives a power cut, and return its version."""
        return self._store.flush()

    def outcome(self, transaction: str) -> Literal["committed", "lost"]:
        """Return what became of a commit that raised OutcomeUnknown, by its `.transaction`."""
        return self._store.outcome(transaction)

    def checkpoint(self) -> CheckpointInfo:
        """Write what is only in the log to a run, and let go of the log before it.

        Happens by itself (after 64 MiB of log, when memory is short, after five minutes, at close); nobody
        waits for it. A copy of the directory made after it returned is a whole database, up to its version.

        Cost: writes what was committed since the last one, sorted and packed.
        """
        return checkpoint(self._store)

    def compact(self, mode: Mode = "full", *, progress: RowProgress | None = None) -> CompactInfo:
        """Make one sorted run of everything, without what nobody can read any more; return what came back.

        Let go of are versions that `retention` does not keep and what only deleted branches saw. No read
        answers otherwise than before, but for `HistoryTrimmed` below what is kept. It happens by itself, in
        the background; call it when space is wanted now.

        Args:
            mode: "full", or "log": a checkpoint alone, which only lets go of the log.
            progress: called now and then with the rows that are done and those there are. What it raises ends
                the compaction, changes nothing, and comes out of it.
        Cost: reads and writes all runs. Others read and write meanwhile.
        """
        return compact(self._store, mode, progress)

    def forget(
        self,
        primitive: str | EntityRef,
        key: str | None = None,
        *,
        prefix: str | None = None,
        space: Where = ...,
    ) -> ForgetInfo:
        """Remove a key from all versions, branches, views, log and files; return what was removed.

        When it returns no file in the directory holds any of its values; there is no undo. It does not
        reach copies: backups, exports, what programs have read.

        Args:
            primitive: the name of one ("kv", "events", ...), or an EntityRef, which names space and key too.
                Its branch does not matter: what is forgotten is so on all of them.
            key: a key, the name of a cell or document, or of an event stream, which goes as a whole and
                begins anew at 0.
            prefix: instead of `key`: all that begin with it.
            space: left out, the space of this handle; None is all spaces.
        Raises: InvalidInput, and LimitExceeded, when that cannot be a key.
        Cost: that of `compact`.
        """
        return forget(self._store, erasure_of(primitive, key, prefix, space, self._space))

    def info(self) -> DatabaseInfo:
        """Return what the database is, holds and takes: files, memory, cache, and what was written.

        Cost: reads counters and asks for the size of each file; nothing waits for it.
        """
        from strata.api.info import info  # many records, which few programs ask for

        return info(self._store, None if self.path is None else str(self.path))

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Read all files and all chains of events again; return what was wrong.

        Checks the MANIFEST, each record of the log (checksum, order, values), each branch's chain of state
        hashes against what is in memory, every part of every run, and each event stream. Damage in one file
        keeps no other from being read. Others may go on writing meanwhile.

        Args:
            progress: called now and then with the bytes that were read and those there are. What it raises
                ends the verification, and comes out of it.

        Cost: reads all files from the disk, and every event.
        """
        return verify(self._store, progress)

    def backup(self, to: str | os.PathLike[str], *, progress: Progress | None = None) -> BackupInfo:
        """Make directory `to` a backup of what is committed, and return what it holds and took.

        It is a database that opens. Made again into the same directory, it takes only what is new. Others may
        go on writing meanwhile; a crash leaves the older backup or the newer one.

        Args:
            to: a directory that is empty, does not exist, or is a backup of this database.
            progress: called now and then with the bytes of files that are done and those there are. What it
                raises ends the backup, and the older one stays.
        Raises: InvalidInput for another directory, for a backup that was written to since, and in memory.
        Cost: a checkpoint, and the new runs: links where it is the same file system, else copies.
        """
        return backup(self._store, to, progress)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        branch: str | None = None,
        history: bool = False,
        key: OneKey | None = None,
    ) -> BundleInfo:
        """Write what is committed to one portable file, a bundle, and return what it holds.

        Without `history` it holds the newest value of each key on each branch, and the same content gives the
        same bytes. With it, all versions, commits and forks. Others may go on writing meanwhile.

        Args:
            path: a file that does not exist yet. It appears when it is whole.
            branch: one branch instead of all; with `history`, with what it shows of its ancestors.
            key: encrypt the bundle with it. Left out, the bundle is not encrypted, even if the database is.
        Raises: AlreadyExists when there is something at `path`; NotFound for an unknown branch.
        Cost: reads all rows it writes; a branch without `history` is written in full, also what it shares.
        """
        return export(self._store, path, branch, history, key)

    def rotate_key(self, key: OneKey | None, *, progress: Progress | None = None) -> None:
        """Encrypt all files with `key` instead of the present one, or for the first time; with None, no more.

        Others go on reading and writing meanwhile. When it returns, all files are so. A crash in between
        loses nothing: open with `key=[new, old]`, or with the old one where the new one is None, and call it
        again.

        Args:
            key: 32 random bytes, or a Path to a file with them or with 64 hex digits; None: not encrypted.
            progress: called now and then with the rows that were written and those there are. What it raises
                ends it in between, and comes out of it.
        Raises: InvalidInput for no key, and in memory.
        Cost: writes all runs again.
        """
        self._store.rotate_key(None if key is None else key_bytes(key), progress)

    def close(self) -> None:
        """Write out what is pending and release the files. Idempotent.

        All handles raise Closed from then on.
        """
        _opened.discard(self)
        self._closes.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"branch={self._branch.name!r} version={self.version}"
        return f"<Database {self.name!r} {state}>"


# Databases still open when the interpreter ends are closed then. Nothing acknowledged depends on it: it saves
# the next opening the replay. A handle that is dropped earlier closes when the last of its faces is gone.
_opened: weakref.WeakSet[Database] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for database in list(_opened):
        if database._process == os.getpid():  # else we are a forked child, and the files are the parent's
            database.close()
