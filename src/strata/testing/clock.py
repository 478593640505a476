"""A clock that only moves when told to."""

from __future__ import annotations


class FakeClock:
    """Microseconds since 1970 that stand still: `clock()` reads, `advance` moves, `set` jumps."""

    def __init__(self, micros: int = 1_767_225_600_000_000) -> None:  # 2026-01-01T00:00Z
        self._micros = micros

    def __call__(self) -> int:
        return self._micros

    def advance(self, micros: int) -> None:
        self._micros += micros

    def set(self, micros: int) -> None:
        self._micros = micros
