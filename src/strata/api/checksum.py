"""CRC32C as the kernel sums it, for frames and files: primitives, who know no kernel, have `core/crc32c`."""

from __future__ import annotations

from strata.store import crc32c

__all__ = ["crc32c"]
