"""Writing a backup of rstmdb: a log becomes segments beside the file, and these one archive."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from strata.api.rstmdb.archives import COMPRESSIONS, FORMAT, MAGIC, MANIFEST, Compression, Manifest, digest_of
from strata.api.rstmdb.records import SEGMENT_BYTES, Record
from strata.api.rstmdb.segments import write_segments
from strata.core.errors import AlreadyExists, InvalidInput, StorageError


def write_archive(
    records: Iterable[Record],
    path: Path,
    *,
    created: datetime,
    writer: str,
    compression: Compression = "gzip",
    counts: Callable[[], tuple[int, int]] | None = None,
    source: Any = None,
    segment_bytes: int = SEGMENT_BYTES,
) -> Manifest:
    """Write a log as an archive, which appears once all of it is on disk; return its manifest.

    Args:
        created: when; aware.
        writer: the program and its version.
        counts: gives how many machines and instances there are, and is asked once all records were taken.
        source: anything about where they come from.
    Raises: AlreadyExists where there is something; what `write_segments` raises; StorageError.
    Cost: a record at a time in memory; for a while the log on disk as well, beside the archive.
    """
    if compression not in COMPRESSIONS:
        raise InvalidInput(
            f"compression {compression!r} is unknown", hint=f"one of {', '.join(COMPRESSIONS)}"
        )
    if path.exists():
        raise AlreadyExists(what="file", name=str(path), hint="remove it first, or choose another name")
    with _writing(path):
        stage = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        written = write_segments(records, stage, segment_bytes=segment_bytes)
        machines, instances = (None, None) if counts is None else counts()
        manifest = Manifest(
            format_version=FORMAT,
            rstmdb_version=writer,
            created_at=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            compression=compression,
            wal_head_offset=written.head_offset,
            wal_head_sequence=written.head_sequence,
            segment_count=len(written.files),
            machine_count=machines,
            instance_count=instances,
            payload_sha256=digest_of(written.files),
            files=list(written.files),
            source=source,
        )
        with _writing(path):
            _pack(stage, manifest, compression)
            (stage / "archive").replace(path)
        return manifest
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _pack(stage: Path, manifest: Manifest, compression: Compression) -> None:
    """Make the archive of what was written to a directory, in that directory."""
    with (stage / "archive").open("xb") as file:
        file.write(MAGIC + bytes([COMPRESSIONS.index(compression)]))
        if compression == "none":
            _pack_files(file, stage, manifest)
        else:
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                _pack_files(packed, stage, manifest)
        file.flush()
        os.fsync(file.fileno())


def _pack_files(out: Any, stage: Path, manifest: Manifest) -> None:
    # rstmdb wants all fields but those that may be left out, and takes no null for them.
    said = {name: value for name, value in msgspec.to_builtins(manifest).items() if value is not None}
    (stage / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=2))
    with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in (MANIFEST, *(file.path for file in manifest.files)):
            member = tarfile.TarInfo(name)
            member.size = (stage / name).stat().st_size
            with (stage / name).open("rb") as content:
                tar.addfile(member, content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        message = f"{path} cannot be written: {error.strerror or error}"
        raise StorageError(message, operation="write", path=str(path), errno=error.errno) from error
