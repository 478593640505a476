"""A data directory of rstmdb, of which only `wal/` says anything: it reads no snapshot itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from strata.api.rstmdb.records import Reader, segment_id, segment_name
from strata.core.errors import InvalidInput, StorageError


class Directory:
    """The log in a data directory, or in its `wal/` itself. It may be that of a server that runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wal = path / "wal" if (path / "wal").is_dir() else path
        try:
            self.sizes = dict(sorted(self._found()))  # of the segments
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise _unreadable(self._wal, error) from error
        if not self.sizes:
            raise InvalidInput(
                f"{str(path)!r} has no log of rstmdb", hint="there should be wal/0000000000000001.wal"
            )

    def _found(self) -> Iterator[tuple[int, int]]:
        for file in self._wal.iterdir():
            id = segment_id(file.name)
            if id is not None and file.is_file():
                yield id, file.stat().st_size

    def segments(self) -> Iterator[tuple[int, Reader]]:
        """Yield each segment, to be read before the next is taken."""
        for id in self.sizes:
            file = self._wal / segment_name(id)
            try:
                opened = file.open("rb", buffering=0)
            except OSError as error:
                raise _unreadable(file, error) from error
            with opened:
                yield id, opened


def _unreadable(path: Path, error: OSError) -> StorageError:
    message = f"{path} cannot be read: {error.strerror or error}"
    return StorageError(message, operation="read", path=str(path), errno=error.errno)
