"""Offsets: where in the log of machines something stands, as a number.

The upper bits are the version of the commit, the lower ten its ordinal among what the commit did. So an
offset costs nothing to keep, rises as commits do, and fits the 2**53 that JavaScript counts to.

What a transaction does other than by a batch has the ordinal 0, all of it, and what is behind the 1023rd
place has that of it. So offsets may be shared within a commit, and what shares one is never taken apart.
"""

from __future__ import annotations

from typing import Final

BITS: Final = 10
_LAST: Final = (1 << BITS) - 1


def offset_of(version: int, ordinal: int = 0) -> int:
    """Return the offset of what a commit did."""
    return version << BITS | min(ordinal, _LAST)


def version_of(offset: int) -> int:
    """Return the version of the commit that an offset stands for."""
    return offset >> BITS


def end_of(version: int) -> int:
    """Return the first offset behind a commit."""
    return version + 1 << BITS
