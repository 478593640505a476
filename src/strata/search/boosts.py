"""Signals that are asked for: what is newer, or marked as important, counts for more.

    score of a hit = what the indexes say * factor of recency * factor of importance

    recency      1 - weight + weight * 0.5 ** (age / half_life)
    importance   1 - weight + weight * the number at a path of the value, from 0 to 1

Both are 1 at best, so they only ever take away: something older needs a better match to stand beside
something new. Age is counted back from the state that is searched: the time of its commit, or now. So a
view of last Tuesday gives last Tuesday's order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from strata.core.clock import Duration, duration_micros
from strata.core.errors import InvalidInput
from strata.core.patches import ABSENT, get_path
from strata.core.paths import parse
from strata.core.protocols import Path

_WEIGHT: Final = 0.3


@dataclass(frozen=True, slots=True)
class Recency:
    """What is older counts for less.

    Args:
        half_life: after so long (seconds, or a timedelta) half of the weight is gone; twice so long, three
            quarters.
        weight: what is lost at most, of 1.
    """

    half_life: Duration
    weight: float = _WEIGHT
    _us: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        half_life = duration_micros(self.half_life, "a half-life", "as in timedelta(days=7)")
        object.__setattr__(self, "_us", half_life)

    def factor(self, age_us: int) -> float:
        """Return what a score is multiplied with."""
        return 1 - self.weight + self.weight * math.pow(0.5, max(age_us, 0) / self._us)


@dataclass(frozen=True, slots=True)
class Importance:
    """What has a higher number at a path counts for more.

    Args:
        path: of the number in the value, as in "$.importance".
        weight: what is lost at most, of 1.
        default: for what has no number there. Numbers below 0 count as 0, above 1 as 1.
    """

    path: str
    weight: float = _WEIGHT
    default: float = 0.5
    _steps: Path = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        if type(self.default) not in (int, float) or not 0 <= self.default <= 1:
            raise InvalidInput(f"the default importance is a number from 0 to 1, not {self.default!r}")
        object.__setattr__(self, "_steps", parse(self.path))

    def factor(self, value: Any) -> float:
        """Return what a score is multiplied with."""
        found = get_path(value, self._steps, ABSENT)
        number = found if type(found) in (int, float) and found == found else self.default
        return 1 - self.weight + self.weight * min(max(float(number), 0.0), 1.0)


def _check_weight(weight: Any) -> None:
    if type(weight) not in (int, float) or not 0 < weight <= 1:
        raise InvalidInput(f"a weight is a number above 0 and up to 1, not {weight!r}")
