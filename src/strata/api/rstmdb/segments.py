"""Writing rstmdb's log: records become segments, each a file, and none larger than it may be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec

from strata.api.rstmdb.records import SEGMENT_BYTES, Record, encode, offset_of, segment_name
from strata.core.errors import StorageError


class File(msgspec.Struct, frozen=True):
    """A file of a data directory."""

    path: str  # in it, with "/"
    size: int
    sha256: str


class Written(msgspec.Struct, frozen=True):
    """A log that was written."""

    files: tuple[File, ...]
    records: int
    head_offset: int  # where the next record would begin
    head_sequence: int  # the highest; 0 where there is no record


def write_segments(
    records: Iterable[Record], directory: Path, *, segment_bytes: int = SEGMENT_BYTES
) -> Written:
    """Write a log into `wal/` of a directory, from segment 1 on; return what was written.

    Offsets follow from where records come to lie, so those that they have are not looked at.

    Raises: what `encode` raises; StorageError.
    """
    writer = _Writer(directory, segment_bytes)
    try:
        (directory / "wal").mkdir(parents=True)
        writer.begin()
        for record in records:
            writer.append(record)
        return writer.end()
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        message = f"{directory} cannot be written: {error.strerror or error}"
        raise StorageError(message, operation="write", path=str(directory), errno=error.errno) from error
    finally:
        writer.close()


class _Writer:
    """The segment that is written, and those that are full."""

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._files: list[File] = []
        self._file: IO[bytes] | None = None
        self._records = self._sequence = 0

    @property
    def _id(self) -> int:
        return len(self._files) + 1

    def begin(self) -> None:
        self._path = f"wal/{segment_name(self._id)}"
        self._size, self._sum = 0, hashlib.sha256()
        self._file = (self._directory / self._path).open("xb")

    def append(self, record: Record) -> None:
        data = encode(record.sequence, record.entry)
        if self._size and self._size + len(data) > self._segment_bytes:
            self._finish()
            self.begin()
        assert self._file is not None
        self._file.write(data)
        self._sum.update(data)
        self._size += len(data)
        self._records += 1
        self._sequence = max(self._sequence, record.sequence)

    def end(self) -> Written:
        head = offset_of(self._id, self._size)
        self._finish()
        return Written(tuple(self._files), self._records, head, self._sequence)

    def _finish(self) -> None:
        self.close()
        self._files.append(File(self._path, self._size, self._sum.hexdigest()))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
