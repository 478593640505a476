"""What a search gives back: hits, and how they were found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Final, Protocol, overload

from strata.core.refs import EntityRef
from strata.search.fusion import Candidate, Signal
from strata.search.snippets import Snippet

if TYPE_CHECKING:
    from strata.search.over import Over

_SHOWN: Final = 50  # rows of a notebook's table


class Reader(Protocol):
    """Reads what was found, in the state that was searched."""

    def value(self, found: Candidate) -> Any: ...
    def snippet(self, found: Candidate) -> Snippet: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that was found. Its value and snippet are read when they are asked for, as it was then."""

    ref: EntityRef
    score: float  # higher is better; comparable within one search only
    rank: int  # from 1, pages before it counted
    signals: Mapping[str, Signal]  # by the name of the index or rule
    _reader: Reader = field(repr=False, compare=False)
    _found: Candidate = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        """The key of the thing, as refs write it."""
        return self.ref.key

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


@dataclass(frozen=True, slots=True)
class ListStatistics:
    """What one index did for a search."""

    index: str
    space: str
    primitive: str
    kind: str  # "text" or "vector"
    matched: int | None  # how many things match, filters aside; None: not counted
    taken: int  # how many of the best were looked at
    exhausted: bool  # whether that was all


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a search did."""

    lists: tuple[ListStatistics, ...]
    considered: int  # things that were put in order
    filtered_out: int  # that matched, and did not pass the filters
    took_ms: float = field(compare=False)


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
