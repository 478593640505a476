"""Brief: what a message quotes of a value that somebody sent. No more is made of it than is shown."""

from __future__ import annotations

import reprlib
from typing import Any, Final

_SHOWN: Final = 100


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = _SHOWN

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}..."


_brief: Final = _Brief()


def brief(value: Any) -> str:
    """Return a value as a message shows it, at most 100 characters of it."""
    shown = _brief.repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
