"""What is in an archive, unpacked as it is read: from its front to its back, and never more than a piece.

`tarfile` would follow chains of headers however long, so it only takes headers apart.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from typing import Any, Final

from strata.api.rstmdb.records import Damage, Report
from strata.core.errors import InvalidInput, LimitExceeded

UNPACKED_BYTES_MAX: Final = 64 << 30  # gzip makes a thousand zeros of a byte
_CHUNK_BYTES: Final = 256 << 10
_BLOCK: Final = tarfile.BLOCKSIZE
_END_BYTES_MAX: Final = 1 << 20  # of zeros behind the last file


def too_large(archive: str, actual: int) -> LimitExceeded:
    """Return that an archive is too large to be read."""
    return LimitExceeded(
        what=f"unpacked size of {archive} in bytes",
        limit=UNPACKED_BYTES_MAX,
        actual=actual,
        hint="unpack it elsewhere, and read the directory",
    )


class Finds:
    """What is to be done with damage: refuse it, or report it."""

    def __init__(self, archive: str, salvage: bool, report: Report) -> None:
        self.archive, self._salvage, self._report = archive, salvage, report
        self.is_end = False  # whether nothing can be read behind it

    def at(self, offset: int, reason: str, file: str = "", *, is_end: bool = False) -> None:
        damage = Damage(offset, 0, reason, file=f"{self.archive}:{file}" if file else self.archive)
        if not self._salvage:
            raise damage.error()
        self._report(damage)
        self.is_end |= is_end


class Stream:
    """What is in an archive, unpacked, from its front to its back and in pieces."""

    def __init__(self, packed: Any, damage: Finds) -> None:
        self._packed = packed
        self._damage = damage
        self._at = 0
        damage.is_end = False

    def read(self, size: int) -> bytes:
        """Return up to so many bytes; none at the end."""
        if self._damage.is_end:
            return b""
        try:
            found: bytes = self._packed.read(min(size, _CHUNK_BYTES))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._damage.at(self._at, f"it cannot be unpacked: {error}", is_end=True)
            return b""
        self._at += len(found)
        if self._at > UNPACKED_BYTES_MAX:
            raise too_large(self._damage.archive, self._at)
        return found

    def exactly(self, size: int) -> bytes:
        """Return so many bytes, or fewer where it ends too early and that is let pass."""
        pieces = []
        while size and (piece := self.read(size)):
            pieces.append(piece)
            size -= len(piece)
        if size and not self._damage.is_end:
            self._damage.at(self._at, "it ends too early", is_end=True)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        """Go behind so many bytes, and what fills up their last block."""
        size += -size % _BLOCK
        while size and (piece := self.exactly(min(size, _CHUNK_BYTES))):
            size -= len(piece)

    def header(self) -> tarfile.TarInfo | None:
        """Return the header of the next file; None at the end."""
        block = self.exactly(_BLOCK)
        if len(block) < _BLOCK or not block.strip(b"\0"):
            return None
        at = self._at - _BLOCK
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except tarfile.HeaderError as error:
            self._damage.at(at, f"there is no header of a file: {error}", is_end=True)
            return None
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.size < 0:
            raise InvalidInput(
                f"{self._damage.archive} is no backup of rstmdb: {found.name!r} is no plain file",
                hint="links, directories and extended headers are not followed",
            )
        return found

    def finish(self) -> None:
        """Check that nothing but zeros comes now, and the sum of what was unpacked."""
        left = _END_BYTES_MAX
        while piece := self.read(_CHUNK_BYTES):
            left -= len(piece)
            if piece.strip(b"\0") or left < 0:
                self._damage.at(self._at, "there is something behind its end", is_end=True)


class Content:
    """One file of an archive, as it is read."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self._left = size
        self._fill = -size % _BLOCK
        self._sum = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()

    def read(self, size: int) -> bytes:
        found = self._stream.exactly(min(size, self._left, _CHUNK_BYTES))
        self._left -= len(found)
        self._sum.update(found)
        return found

    def skip(self) -> None:
        """Read what was not read, and go behind it."""
        while self._left and self.read(self._left):
            pass
        self._stream.exactly(self._fill)
