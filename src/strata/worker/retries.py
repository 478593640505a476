"""Retries: when a delivery that failed is tried again, and when it is given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_SECOND: Final = 1_000_000
_JITTER: Final = 0.25  # so that what failed together is not tried together
_EXPONENT_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Retries:
    """After 5 s, 15 s, 45 s and so on, up to 6 hours between two; given up after 16 attempts or 3 days."""

    first_s: float = 5.0
    factor: float = 3.0
    longest_s: float = 6 * 3600.0
    attempts: int = 16
    age_s: float = 3 * 24 * 3600.0
    asked_s: float = 3600.0  # how long the other side may ask us to wait, by Retry-After

    def due(self, now: int, attempts: int, chance: Callable[[], float] = random.random) -> int:
        """Return when to try again what has failed so many times."""
        wait_s = self.first_s * self.factor ** min(attempts - 1, _EXPONENT_MAX)
        wait_s = min(self.longest_s, wait_s) * (1 + _JITTER * (2 * chance() - 1))
        return now + round(wait_s * _SECOND)

    def is_over(self, now: int, attempts: int, since: int) -> bool:
        """Return whether to give up."""
        return attempts >= self.attempts or now - since >= self.age_s * _SECOND

    def not_before(self, now: int, asked_s: float | None) -> int:
        """Return when the other side wants to hear from us again, within limits."""
        return 0 if asked_s is None else now + round(min(asked_s, self.asked_s) * _SECOND)
