"""Trying a transaction again after a Conflict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from strata.core.atomic import back_off
from strata.core.errors import Conflict
from strata.core.keys import check_int

R = TypeVar("R")

RETRIES: Final = 100  # about a second of pauses: a body that still conflicts then is better told so


def retrying(attempt: Callable[[], R], retries: int, pause: Callable[[int], None] = back_off) -> R:
    """Return what `attempt` returns, calling it again on Conflict at most `retries` times."""
    check_int(retries, "retries")
    for number in range(1, retries + 1):
        try:
            return attempt()
        except Conflict:
            pause(number)
    return attempt()
