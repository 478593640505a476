"""From ranked lists to one: reciprocal rank fusion.

    score = sum over the lists that have it of  weight / (60 + rank)          rank 1 is the best of a list

Scores of different indexes (BM25, a cosine) cannot be added, but ranks can. 60 is from the paper: it keeps
the first places of one list from outweighing a thing that all lists agree on. One list alone keeps its own
scores.

Invariant: equal lists give an equal order; what has equal scores is ordered by place (space, primitive, key).
Source: Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

RANK_CONSTANT: Final = 60

# Space, primitive, and the key as bytes: what a hit is, within one branch
Place = tuple[str, str, bytes]


class Term(msgspec.Struct, frozen=True):
    """What one word, phrase or prefix of a query gave to the score of a hit."""

    text: str
    documents: int  # how many have it
    idf: float  # how much it counts, for being rare
    tf: float  # how often this one has it, by the weights of fields
    contribution: float


class Signal(msgspec.Struct, frozen=True):
    """What one list or rule said of a hit."""

    score: float  # its own: BM25, a similarity, a factor
    rank: int | None = None  # in its list, from 1
    contribution: float | None = None  # what it added to the score of the hit
    terms: tuple[Term, ...] = ()  # with explain=True, of an index of texts


class RankedList(msgspec.Struct, frozen=True):
    """What one index answered: places by score, best first."""

    name: str
    rows: Sequence[tuple[Place, float]]
    weight: float = 1.0


class Candidate(msgspec.Struct):
    """What may become a hit."""

    place: Place
    score: float
    signals: dict[str, Signal]


def fuse(lists: Sequence[RankedList]) -> list[Candidate]:
    """Return what is on the lists, best first."""
    if len(lists) == 1:
        name = lists[0].name
        return in_order(
            [
                Candidate(place, score, {name: Signal(score, rank, score)})
                for rank, (place, score) in enumerate(lists[0].rows, 1)
            ]
        )
    found: dict[Place, Candidate] = {}
    for ranked in lists:
        for rank, (place, score) in enumerate(ranked.rows, 1):
            added = ranked.weight / (RANK_CONSTANT + rank)
            candidate = found.get(place)
            if candidate is None:
                candidate = found[place] = Candidate(place, 0.0, {})
            candidate.score += added
            candidate.signals[ranked.name] = Signal(score, rank, added)
    return in_order(list(found.values()))


def in_order(candidates: list[Candidate]) -> list[Candidate]:
    """Return them by score, and equal ones by place."""
    return sorted(candidates, key=lambda candidate: (-candidate.score, candidate.place))
