"""Retention policies: which versions of a key are kept when it has newer ones.

    KeepAll()                       all of them, which is so where nothing is said
    KeepLast(3)                     the last three
    KeepFor(timedelta(days=30))     what was current within the last 30 days
    KeepLast(3) | KeepFor(3600)     what either keeps
    KeepLast(3) & KeepFor(3600)     what both keep

Whatever a policy says, the newest version stays, and what a fork, an open view or a transaction sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from strata.core.clock import Duration, duration_micros
from strata.core.errors import InvalidInput
from strata.core.keys import check_int

_HINT: Final = "as in KeepFor(3600) or KeepFor(timedelta(days=30))"

Bounds = tuple[int | None, int | None, bool]  # versions, microseconds, whether both must keep one


class _Combines:
    """Gives the policies `|` and `&`."""

    __slots__ = ()

    def __or__(self, other: object) -> Combined:
        return _combine(self, other, needs_both=False)

    def __and__(self, other: object) -> Combined:
        return _combine(self, other, needs_both=True)


@dataclass(frozen=True, slots=True)
class KeepAll(_Combines):
    """Keep every version."""


@dataclass(frozen=True, slots=True)
class KeepLast(_Combines):
    """Keep the last `n` versions of each key, at least one."""

    n: int

    def __post_init__(self) -> None:
        check_int(self.n, "n", 1)

    def __repr__(self) -> str:
        return f"KeepLast({self.n})"


@dataclass(frozen=True, slots=True)
class KeepFor(_Combines):
    """Keep what was the newest version at some time within `duration`, counted back from the last commit.

    `duration` is given in seconds or as a timedelta, and is a timedelta from then on.
    """

    duration: Duration

    def __post_init__(self) -> None:
        micros = duration_micros(self.duration, "how long to keep versions", _HINT)
        object.__setattr__(self, "duration", timedelta(microseconds=micros))

    @property
    def micros(self) -> int:
        """The duration in microseconds."""
        return duration_micros(self.duration, "how long to keep versions", _HINT)

    def __repr__(self) -> str:
        return f"KeepFor({self.duration!r})".replace("datetime.", "")


@dataclass(frozen=True, slots=True)
class Combined(_Combines):
    """What either of two policies keeps, or what both do. Made by `|` and `&`."""

    last: KeepLast
    time: KeepFor
    needs_both: bool

    def __repr__(self) -> str:
        return f"{self.last} {'&' if self.needs_both else '|'} {self.time}"


Policy = KeepAll | KeepLast | KeepFor | Combined


def bounds_of(policy: Any) -> Bounds:
    """Return a policy as the store takes it.

    Raises: InvalidInput for what is none.
    """
    match policy:
        case KeepAll():
            return None, None, False
        case KeepLast():
            return policy.n, None, False
        case KeepFor():
            return None, policy.micros, False
        case Combined():
            return policy.last.n, policy.time.micros, policy.needs_both
    raise InvalidInput(
        f"a retention policy is KeepAll(), KeepLast(n), KeepFor(duration) or two of them, not {policy!r}",
        hint="as in strata.KeepLast(3) | strata.KeepFor(3600)",
    )


def policy_of(last: int | None, for_us: int | None, needs_both: bool) -> Policy:
    """Return the policy that the store has these bounds of."""
    if last is None and for_us is None:
        return KeepAll()
    if for_us is None:
        return KeepLast(last or 1)
    time = KeepFor(timedelta(microseconds=for_us))
    return time if last is None else Combined(KeepLast(last), time, needs_both)


def _combine(one: object, other: object, *, needs_both: bool) -> Combined:
    match one, other:
        case (KeepLast() as last, KeepFor() as time) | (KeepFor() as time, KeepLast() as last):
            return Combined(last, time, needs_both)
    raise InvalidInput(
        f"{one!r} and {other!r} do not combine", hint="a KeepLast and a KeepFor do; KeepAll() stands alone"
    )
