"""Time: int microseconds since 1970 in UTC inside, aware datetimes outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from strata.core.errors import InvalidInput

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LONGEST_S: Final = 1000 * 365 * 24 * 3600  # a thousand years: beyond it, an instant may be no datetime

Ttl = float | timedelta
Duration = float | timedelta  # seconds, or a timedelta


def to_datetime(micros: int) -> datetime:
    """Return the instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def to_expiry(micros: int | None) -> datetime | None:
    """Return when something expires; None is never."""
    return None if micros is None else to_datetime(micros)


def ttl_micros(ttl: Any) -> int:
    """Return a time to live as microseconds.

    Args:
        ttl: seconds (int or float) or a timedelta, above 0 and up to a thousand years.
    Raises: InvalidInput for anything else.
    """
    hint = "as in ttl=60 or ttl=timedelta(days=1); leave it out for ever"
    return duration_micros(ttl, "a time to live", hint)


def duration_micros(duration: Any, what: str, hint: str) -> int:
    """Return how long a `what` is as microseconds.

    Args:
        duration: seconds (int or float) or a timedelta, above 0 and up to a thousand years.
    Raises: InvalidInput for anything else.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if type(seconds) not in (int, float) or not 0 < seconds <= _LONGEST_S:
        raise InvalidInput(f"{what} is above 0 and up to {_LONGEST_S} seconds, not {duration!r}", hint=hint)
    if isinstance(duration, timedelta):
        return duration // _MICROSECOND
    return max(1, round(seconds * 1_000_000))


def to_micros(instant: Any) -> int:
    """Return an instant as microseconds.

    Args:
        instant: an aware datetime, or ISO 8601 with an offset: `2026-01-31T12:00Z`.
    Raises: InvalidInput for a naive datetime, which could mean any of 24 instants, and for bad syntax.
    """
    if isinstance(instant, str):
        try:
            instant = datetime.fromisoformat(instant)
        except ValueError:
            raise InvalidInput(
                f"{instant!r} is no ISO 8601 instant", hint="as in '2026-01-31T12:00Z'"
            ) from None
    if not isinstance(instant, datetime):
        raise InvalidInput(f"an instant is a datetime or ISO 8601 text, not {type(instant).__name__}")
    if instant.utcoffset() is None:
        raise InvalidInput(
            f"{instant.isoformat()} has no time zone", hint="as in datetime.now(UTC), or add 'Z'"
        )
    return (instant - _EPOCH) // _MICROSECOND
