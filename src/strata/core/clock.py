"""Time: int microseconds since 1970 in UTC inside, aware datetimes outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from strata.core.errors import InvalidInput

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_datetime(micros: int) -> datetime:
    """Return the instant as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


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
