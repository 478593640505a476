"""Search over time: what came into the results between two states, and what left them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from strata.core.refs import EntityRef
from strata.search.results import Hit, Results


@dataclass(frozen=True, slots=True)
class Moved:
    """A thing that is found in both states."""

    before: Hit
    after: Hit

    @property
    def ref(self) -> EntityRef:
        """The thing, as it is in the later state."""
        return self.after.ref


@dataclass(frozen=True, slots=True, repr=False)
class Over:
    """The results of one search in two states."""

    before: Results
    after: Results

    @property
    def entered(self) -> list[Hit]:
        """What only the later results have, best first."""
        return _without(self.after, self.before)

    @property
    def left(self) -> list[Hit]:
        """What only the earlier results have, best first."""
        return _without(self.before, self.after)

    @property
    def stayed(self) -> list[Moved]:
        """What both have, in the order of the later ones."""
        earlier = {_thing(hit): hit for hit in self.before}
        return [Moved(earlier[_thing(hit)], hit) for hit in self.after if _thing(hit) in earlier]

    @property
    def truncated(self) -> bool:
        """Whether a budget ended one of the searches."""
        return self.before.truncated or self.after.truncated

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "versions": [self.before.version, self.after.version],
            "entered": [hit.to_dict() for hit in self.entered],
            "left": [hit.to_dict() for hit in self.left],
            "stayed": [
                {"ref": str(one.ref), "ranks": [one.before.rank, one.after.rank]} for one in self.stayed
            ],
        }

    def __str__(self) -> str:
        lines = [f"+ {hit.rank:3}  {hit.key}  {hit.snippet}" for hit in self.entered]
        lines += [f"- {hit.rank:3}  {hit.key}  {hit.snippet}" for hit in self.left]
        moved = [one for one in self.stayed if one.before.rank != one.after.rank]
        lines += [f"  {one.before.rank} -> {one.after.rank}  {one.after.key}" for one in moved]
        return "\n".join(lines or ["(the same)"])

    def __repr__(self) -> str:
        versions = f"{self.before.version} to {self.after.version}"
        return f"<Over {versions}: {len(self.entered)} entered, {len(self.left)} left>"


def _thing(hit: Hit) -> EntityRef:
    return replace(hit.ref, version=None)


def _without(hits: Iterable[Hit], others: Iterable[Hit]) -> list[Hit]:
    known = {_thing(hit) for hit in others}
    return [hit for hit in hits if _thing(hit) not in known]
