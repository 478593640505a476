"""Backups of rstmdb, `.rstmbak`: the files of a data directory in one file.

    archive    "RSTMBAK" 0x01 | compression u8 (0 none, 1 gzip) | tar, compressed or not
    tar        manifest.json, then snapshots/* and wal/*, by name
    manifest   what follows, with the length and SHA-256 of each file; see `Manifest`

Nothing is unpacked: segments are read as they come. What others made is not trusted: each file must be named
by the manifest, lie in one of the two directories and be as long as said, and nothing is read into memory
because a header says so.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec

from strata.api.rstmdb.records import Reader, Report, Segments, segment_id
from strata.api.rstmdb.segments import File
from strata.api.rstmdb.streams import UNPACKED_BYTES_MAX, Content, Finds, Stream, too_large
from strata.core.errors import InvalidInput, LimitExceeded, StorageError

Compression = Literal["gzip", "none"]

MAGIC: Final = b"RSTMBAK\x01"
FORMAT: Final = 1
COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "gzip")  # by their byte
MANIFEST: Final = "manifest.json"

FILES_MAX: Final = 100_000
_MANIFEST_BYTES_MAX: Final = 32 << 20
_PATH: Final = re.compile(r"(wal|snapshots)/(?!\.\.?$)[^/\\\x00-\x1f]+")


class Manifest(msgspec.Struct, frozen=True):
    """What an archive says of itself."""

    format_version: int
    payload_sha256: str  # of the digests of all files, in hex, one behind the other
    files: list[File]
    kind: str = "physical"
    rstmdb_version: str = ""
    created_at: str = ""
    compression: str = ""
    wal_head_offset: int = 0
    wal_head_sequence: int = 0
    segment_count: int = 0
    snapshot_count: int = 0
    machine_count: int | None = None
    instance_count: int | None = None
    source: Any = None


def digest_of(files: Iterable[File]) -> str:
    """Return the digest of the digests of files."""
    return hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()


class Archive:
    """The log in an archive. Whoever reads all of its segments has checked every file."""

    def __init__(self, path: Path, *, salvage: bool = False, report: Report | None = None) -> None:
        """Read the manifest.

        Args:
            salvage: report what is damaged, and go on; else it is refused.
        Raises: InvalidInput for what is no archive; Corrupt; LimitExceeded.
        """
        self.path = path
        self._damage = Finds(path.name, salvage, report or (lambda damage: None))
        with self._opened() as stream:
            self.manifest = self._manifest(stream)
        self._check()

    @property
    def sizes(self) -> dict[int, int]:
        """The lengths of the segments."""
        found = ((_segment(file), file.size) for file in self.manifest.files)
        return {id: size for id, size in found if id is not None}

    def check(self) -> None:
        """Read all of it.

        Raises: what reading the segments raises.
        """
        for _ in self._members():
            pass

    def segments(self) -> Segments:
        """Yield each segment, to be read before the next is taken.

        Raises: Corrupt for a file that is not as the manifest says, once it was read, and where some are
            missing; InvalidInput for one that the manifest does not name, or not so.
        """
        for file, stream in self._members():
            id = _segment(file)
            if id is not None:
                yield id, stream

    def _members(self) -> Iterator[tuple[File, Reader]]:
        """Yield each file, and check it when it was read."""
        left = {file.path: file for file in self.manifest.files}
        with self._opened() as stream:
            stream.skip(self._header(stream).size)
            while (header := stream.header()) is not None:
                file = self._known(left, header)
                content = Content(stream, file.size)
                yield file, content
                content.skip()
                if content.sha256 != file.sha256.lower() and not self._damage.is_end:
                    self._damage.at(0, f"the SHA-256 of {file.path} is not that in the manifest", file.path)
            stream.finish()
        if left and not self._damage.is_end:
            self._damage.at(0, f"{min(left)} is missing", min(left))

    def _known(self, left: dict[str, File], header: tarfile.TarInfo) -> File:
        file = left.pop(header.name, None)
        if file is None:
            _check_path(self.path.name, header.name)
            is_twice = any(known.path == header.name for known in self.manifest.files)
            self._refuse(f"{header.name!r} is {'there twice' if is_twice else 'not in its manifest'}")
        if header.size != file.size:
            self._refuse(f"{file.path} has {header.size:,} bytes, and not {file.size:,} as its manifest says")
        return file

    def _header(self, stream: Stream) -> tarfile.TarInfo:
        header = stream.header()
        if header is None or header.name != MANIFEST:
            self._refuse(f"it does not begin with {MANIFEST}")
        if header.size > _MANIFEST_BYTES_MAX:
            what = f"size of the manifest of {self.path.name} in bytes"
            raise LimitExceeded(what=what, limit=_MANIFEST_BYTES_MAX, actual=header.size)
        return header

    def _manifest(self, stream: Stream) -> Manifest:
        content = stream.exactly(self._header(stream).size)
        try:
            return msgspec.json.decode(content, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._refuse(f"its manifest is none: {error}")

    def _check(self) -> None:
        """Check the manifest by itself."""
        manifest, files = self.manifest, self.manifest.files
        if manifest.format_version > FORMAT:
            self._refuse(f"its format is {manifest.format_version}, and only {FORMAT} is known")
        if len(files) > FILES_MAX:
            raise LimitExceeded(
                what=f"number of files in {self.path.name}", limit=FILES_MAX, actual=len(files)
            )
        for file in files:
            _check_path(self.path.name, file.path)
        if len({file.path for file in files}) < len(files) or any(file.size < 0 for file in files):
            self._refuse("its manifest names a file twice, or with less than no bytes")
        total = sum(file.size for file in files)
        if total > UNPACKED_BYTES_MAX:
            raise too_large(self.path.name, total)
        if digest_of(files) != manifest.payload_sha256.lower():
            self._damage.at(0, "the digest in the manifest is not that of its files", MANIFEST)

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidInput(f"{self.path.name} is no backup of rstmdb: {why}")

    @contextmanager
    def _opened(self) -> Iterator[Stream]:
        try:
            with self.path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    self._refuse("it does not begin as one")
                byte = file.read(1)
                if byte not in (b"\0", b"\1"):
                    self._refuse(f"its compression is {byte!r}, which is unknown")
                packed: Any = gzip.GzipFile(fileobj=file) if byte == b"\1" else file
                yield Stream(packed, self._damage)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            message = f"{self.path} cannot be read: {error.strerror or error}"
            raise StorageError(message, operation="read", path=str(self.path), errno=error.errno) from error


def _segment(file: File) -> int | None:
    directory, _, name = file.path.partition("/")
    return segment_id(name) if directory == "wal" else None


def _check_path(archive: str, path: str) -> None:
    if not _PATH.fullmatch(path):
        raise InvalidInput(
            f"{archive} is no backup of rstmdb: a file in it is called {path!r}",
            hint="there are wal/NAME and snapshots/NAME",
        )
