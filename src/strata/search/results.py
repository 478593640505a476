"""What a search gives back: hits, and how they were found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Final, Protocol, overload

import msgspec

from strata.core.refs import EntityRef
from strata.search.fusion import Candidate, Place, Signal
from strata.search.snippets import Snippet

if TYPE_CHECKING:
    from strata.search.over import Over

_SHOWN: Final = 50  # rows of a notebook's table


class Reader(Protocol):
    """Reads what was found, in the state that was searched."""

    def ref(self, place: Place) -> EntityRef: ...
    def name(self, place: Place) -> str: ...
    def signals(self, found: Candidate) -> Mapping[str, Signal]: ...
    def value(self, found: Candidate) -> Any: ...
    def snippet(self, found: Candidate) -> Snippet: ...


class Hit(msgspec.Struct, frozen=True, eq=False):
    """One thing that was found. What it is, its value and its snippet are read when they are asked for, as
    it was then."""

    score: float  # higher is better; comparable within one search only
    rank: int  # from 1, pages before it counted
    _reader: Reader
    _found: Candidate

    @property
    def ref(self) -> EntityRef:
        """The thing, in the state that was searched."""
        return self._reader.ref(self._found.place)

    @property
    def signals(self) -> Mapping[str, Signal]:
        """What made its score, by the name of the index or rule."""
        return self._reader.signals(self._found)

    @property
    def key(self) -> str:
        """The key of the thing, as refs write it."""
        return self._reader.name(self._found.place)

    @property
    def value(self) -> Any:
        """What was found: what its primitive's `get` gives, in the state that was searched."""
        return self._reader.value(self._found)

    @property
    def snippet(self) -> Snippet:
        """The part of its texts that shows why it was found."""
        return self._reader.snippet(self._found)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, with the snippet."""
        return {
            "ref": str(self.ref),
            "score": self.score,
            "rank": self.rank,
            "signals": {name: signal.score for name, signal in self.signals.items()},
            "snippet": str(self.snippet),
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hit):
            return NotImplemented
        mine = (self.score, self.rank, self.ref, self.signals)
        return mine == (other.score, other.rank, other.ref, other.signals)

    def __repr__(self) -> str:
        return f"Hit(ref={self.ref!r}, score={self.score}, rank={self.rank}, signals={self.signals!r})"


class ListStatistics(msgspec.Struct, frozen=True):
    """What one index did for a search."""

    index: str
    space: str
    primitive: str
    kind: str  # "text" or "vector"
    matched: int | None  # how many things match, filters aside; None: not counted
    taken: int  # how many of the best were looked at
    exhausted: bool  # whether that was all


class Statistics(msgspec.Struct, frozen=True, eq=False):
    """What a search did. How long it took makes no difference between two."""

    lists: tuple[ListStatistics, ...]
    considered: int  # things that were put in order
    filtered_out: int  # that matched, and did not pass the filters
    took_ms: float

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statistics):
            return NotImplemented
        mine = (self.lists, self.considered, self.filtered_out)
        return mine == (other.lists, other.considered, other.filtered_out)

    def __hash__(self) -> int:
        return hash((self.lists, self.considered, self.filtered_out))


@dataclass(frozen=True, slots=True)
class NearMiss:
    """What would have been a hit, but for a little."""

    ref: EntityRef
    score: float
    signals: Mapping[str, Signal]
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Results(Sequence[Hit]):
    """The hits of a search, best first."""

    hits: tuple[Hit, ...]
    version: int  # of the state that was searched
    truncated: bool  # a budget ended it: there may be better ones
    statistics: Statistics
    near_misses: tuple[NearMiss, ...] = ()  # with explain=True: what came next, and what filters took out
    cut: float | None = None  # the score of the best that is no hit any more
    over: Over | None = None  # where two states were compared: what entered the results, and what left them

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @property
    def refs(self) -> list[EntityRef]:
        """The refs of the hits, best first."""
        return [hit.ref for hit in self.hits]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {
            "version": self.version,
            "truncated": self.truncated,
            "hits": [hit.to_dict() for hit in self.hits],
            "near_misses": [
                {"ref": str(miss.ref), "score": miss.score, "reason": miss.reason}
                for miss in self.near_misses
            ],
        }

    def __str__(self) -> str:
        lines = [f"{hit.rank:3}  {hit.score:.4f}  {hit.key}  {hit.snippet}" for hit in self.hits]
        return "\n".join(lines or ["(nothing found)"]) + ("\n(cut short by its budget)" * self.truncated)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{hit.rank}</td><td>{hit.score:.4f}</td><td>{escape(hit.key)}</td>"
            f"<td>{hit.snippet._repr_html_()}</td></tr>"
            for hit in self.hits[:_SHOWN]
        )
        left_out = len(self.hits) - _SHOWN
        more = f"<p>… and {left_out} more</p>" if left_out > 0 else ""
        return f"<table><tr><th></th><th>score</th><th>key</th><th></th></tr>{rows}</table>{more}"

    def __repr__(self) -> str:
        truncated = ", truncated" if self.truncated else ""
        return f"<Results {len(self.hits)} hits at version {self.version}{truncated}>"
