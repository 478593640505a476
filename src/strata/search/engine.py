"""Answering a request: from what indexes say to hits.

    take       the best of each index that pass the filters, more of them as long as filters take some out
    context    a turn with what stands around it
    fuse       one order of all lists
    boost      recency, importance
    rerank     the best, by a model

Nothing here knows what an index is: a `Source` is asked for so many of its best, and gives keys and scores.
With one source and nothing else asked for, its order is taken as it is, so the result is exact. Where lists
are put together or scores changed, that is done among the best 200 of each list (more, for deep pages), the
same for every page.

Budgets end the taking, never what follows: with `truncated` the hits are the best of what was looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from msgspec import Struct, structs

from strata.core.patches import ABSENT, get_path
from strata.core.protocols import Key, Passes, Step, Txn
from strata.core.refs import EntityRef
from strata.primitives import PRIMITIVES
from strata.primitives.base import Primitive
from strata.primitives.finding import plan
from strata.search.context import in_context
from strata.search.fusion import RANK_CONSTANT, Candidate, Place, RankedList, Signal, Term, fuse, in_order
from strata.search.models import rerank
from strata.search.request import Request
from strata.search.results import Hit, ListStatistics, NearMiss, Results, Statistics
from strata.search.snippets import Snippet, Span, cut, texts_in

WINDOW: Final = 200
_CONTEXT_ROWS: Final = 10_000  # of a list, to score in context: a year of talk that matches
_RERANKED: Final = 50
_RERANK_CHARACTERS: Final = 8_000  # of one text: what models read
_SNIPPET_CHARACTERS: Final = 65_536  # of a value that are looked through for the best place to cut
_BETWEEN: Final = " · "  # texts of one value, in a snippet
_MISSES: Final = 5  # of each kind
_GROWTH: Final = 4  # when filters took out too many, how many times as many are asked for


class Answer(Struct, frozen=True):
    """What an index says: keys by score, best first, and equal ones by key."""

    rows: Sequence[tuple[bytes, float]]
    matched: int | None  # how many there are in all, those that were filtered out aside; None: not counted
    terms: Sequence[tuple[Term, ...]] = ()  # of each row, where that was asked for


class Source(Struct, frozen=True):
    """One index over one keyspace, asked one question."""

    index: str
    kind: str  # "text" or "vector"
    txn: Txn  # the keyspace, in the state that is searched
    top: Callable[[int, Passes], Answer]  # the best so many, of those that pass
    spans: Callable[[str], Sequence[Span]] = lambda text: ()  # of a text, where what was asked for stands
    fields: Sequence[Sequence[Step]] = ()  # the paths of stored values that are indexed


def search(
    request: Request,
    sources: Sequence[Source],
    *,
    version: int,
    ref_version: int | None = None,
    now_us: int = 0,
    written: Callable[[], tuple[int, int] | None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Results:
    """Return the hits of `sources` for a request.

    Args:
        version: of the state that is searched.
        ref_version: the version that refs of hits get; None where they mean what is there now.
        now_us: from when ages are counted back.
        written: what the times of the request are as versions, the first and the last; None where they are
            not known as such.
    """
    return _Search(request, sources, version, ref_version, now_us, written, clock).results()


class _Search:
    def __init__(
        self,
        request: Request,
        sources: Sequence[Source],
        version: int,
        ref_version: int | None,
        now_us: int,
        written: Callable[[], tuple[int, int] | None],
        clock: Callable[[], float],
    ) -> None:
        self.request, self.sources = request, sources
        self.version, self.ref_version, self.now_us, self.written = version, ref_version, now_us, written
        self.clock, self.began = clock, clock()
        self.branch = sources[0].txn.names[0] if sources else ""
        self.truncated = False
        self.statistics: list[ListStatistics] = []
        self.rejected: dict[Place, tuple[float, str, str]] = {}  # score, index, which filter
        self.fates: dict[Place, str | None] = {}
        self.terms: dict[tuple[str, Place], tuple[Term, ...]] = {}

    def results(self) -> Results:
        request = self.request
        lists: list[RankedList] = []
        for source in self.sources:
            if lists and self._is_late():
                self.truncated = True
                break
            rows = self._rows(source)
            weight = request.weights.get(source.index, request.weights.get(source.kind, 1.0))
            lists.append(RankedList(source.index, rows, weight))
        ordered = self._reranked(self._boosted(fuse(lists)))
        hits = ordered[request.offset : request.depth]
        beyond = ordered[request.depth :]
        return Results(
            tuple(
                [Hit(found.score, rank, self, found) for rank, found in enumerate(hits, request.offset + 1)]
            ),
            self.version,
            self.truncated,
            Statistics(
                tuple(self.statistics),
                len(ordered),
                len(self.rejected),
                (self.clock() - self.began) * 1000,
            ),
            self._near_misses(hits, beyond) if request.explain else (),
            beyond[0].score if request.explain and beyond else None,
        )

    @cached_property
    def txns(self) -> dict[tuple[str, str], Txn]:
        """By space and kind, the keyspaces that are searched."""
        return {source.txn.names[1:]: source.txn for source in self.sources}

    # -- taking

    def _rows(self, source: Source) -> list[tuple[Place, float]]:
        """Return the rows of one list that may become hits."""
        wanted = self._wanted()
        if not self.request.context:
            if not self.request.is_filtered:
                return self._taken(source, wanted, Passes(), None)
            if self.request.explain:
                self._note_rejected(source, wanted)
            return self._taken(source, wanted, self._pushed(source), self._passes)
        # Filters are for what is found, not for what stands around it.
        found = self._taken(source, _CONTEXT_ROWS, Passes(), None)
        self.truncated |= not self.statistics[-1].exhausted
        kept: list[tuple[Place, float]] = []
        for place, score in in_context(found, source.txn, self.request.context):
            if len(kept) == wanted:
                break
            if self._passes(place, score, source.index):
                kept.append((place, score))
        return kept

    def _wanted(self) -> int:
        """How many rows of each list are put together."""
        request = self.request
        if len(self.sources) == 1 and not (request.recency or request.importance or request.rerank):
            return request.depth + (_MISSES if request.explain else 0)
        wanted = WINDOW
        while wanted < request.depth:
            wanted *= 2
        return wanted

    def _pushed(self, source: Source) -> Passes:
        """Return what the index itself can hold rows against. All filters are checked once more, above it."""
        request, passes = self.request, Passes()
        primitive = PRIMITIVES[source.txn.names[2]]
        prefix = key_prefix(primitive.LAYOUT.kind, request.prefix)
        if prefix:
            passes["prefix"] = self._as_key(primitive, prefix)
        if request.where is not None:
            how = plan(request.where, source.txn.indexes(), primitive._VALUE, prefix.decode(), None)
            if how.index is not None:
                passes["values"] = [(how.index, list(how.ranges))]
        return passes

    def _taken(
        self, source: Source, wanted: int, pushed: Passes, passes: Callable[[Place, float, str], bool] | None
    ) -> list[tuple[Place, float]]:
        _, space, kind = source.txn.names
        most = self.request.candidates
        kept: list[tuple[Place, float]] = []
        seen, limit = 0, wanted * 2 if self.request.is_filtered else wanted
        while True:
            asked = limit if most is None else min(limit, most)
            answer = source.top(asked, pushed)
            rows = [((space, kind, key), score) for key, score in answer.rows[seen:]]
            kept += rows if passes is None else [row for row in rows if passes(*row, source.index)]
            seen, exhausted = len(answer.rows), len(answer.rows) < asked
            if exhausted or len(kept) >= wanted:
                break
            if asked == most or self._is_late():
                self.truncated = True
                break
            if passes is not None and "written" not in pushed and self._has_times():
                # Only now: where most pass, to hold all rows against it costs more than to look at a few.
                span = self.written()
                if span is not None:
                    pushed, kept, seen = {**pushed, "written": span}, [], 0
            limit *= _GROWTH
        for (key, _), terms in zip(answer.rows, answer.terms, strict=False):
            self.terms[source.index, (space, kind, key)] = terms
        self.statistics.append(
            ListStatistics(source.index, space, kind, source.kind, answer.matched, seen, exhausted)
        )
        return kept[:wanted]

    def _note_rejected(self, source: Source, wanted: int) -> None:
        """Remember what would be found without the filters."""
        _, space, kind = source.txn.names
        for key, score in source.top(wanted, Passes()).rows:
            self._passes((space, kind, key), score, source.index)

    def _passes(self, place: Place, score: float, index: str) -> bool:
        if not self.request.is_filtered:
            return True
        if place not in self.fates:
            self.fates[place] = self._fate(place)
        why = self.fates[place]
        if why is not None:
            self.rejected.setdefault(place, (score, index, why))
        return why is None

    def _fate(self, place: Place) -> str | None:
        """Return which filter takes a place out, if one does."""
        request, (space, kind, key) = self.request, place
        primitive, txn = PRIMITIVES[kind], self.txns[space, kind]
        if primitive._name(key) is None or not key.startswith(key_prefix(kind, request.prefix)):
            return "prefix"
        if self._has_times():
            entry = txn.entry(self._key(place))
            if entry is None or not _is_within(entry[2], request.start_us, request.end_us):
                return "time"
        if request.test is not None:
            content = txn.get_path(self._key(place), primitive._VALUE, ABSENT)
            if content is ABSENT or not request.test(content):
                return "where"
        return None

    def _has_times(self) -> bool:
        return self.request.start_us is not None or self.request.end_us is not None

    def _is_late(self) -> bool:
        budget = self.request.budget_ms
        return budget is not None and (self.clock() - self.began) * 1000 >= budget

    # -- ordering

    def _boosted(self, candidates: list[Candidate]) -> list[Candidate]:
        request = self.request
        if request.recency is None and request.importance is None:
            return candidates
        if any(candidate.score < 0 for candidate in candidates):
            # A part of something negative is more: so ranks count, as between lists.
            for rank, found in enumerate(candidates, 1):
                found.score = 1 / (RANK_CONSTANT + rank)
        for found in candidates:
            entry = self.txns[found.place[:2]].entry(self._key(found.place))
            if entry is None:
                continue
            if request.recency is not None:
                self._multiply(found, "recency", request.recency.factor(self.now_us - entry[2]))
            if request.importance is not None:
                content = get_path(entry[0], PRIMITIVES[found.place[1]]._VALUE)
                self._multiply(found, "importance", request.importance.factor(content))
        return in_order(candidates)

    @staticmethod
    def _multiply(found: Candidate, name: str, factor: float) -> None:
        lost = found.score * (factor - 1)
        found.score *= factor
        found.signals = {**found.signals, name: Signal(factor, None, lost)}

    def _reranked(self, candidates: list[Candidate]) -> list[Candidate]:
        request = self.request
        if request.rerank is None or request.text is None:
            return candidates
        chosen = candidates[: max(_RERANKED, request.depth)]
        texts = [" ".join(self._texts(found))[:_RERANK_CHARACTERS] for found in chosen]
        for found, score in zip(chosen, rerank(request.rerank, request.text, texts), strict=True):
            found.score = score
            found.signals = {**found.signals, request.rerank.name: Signal(score)}
        return in_order(chosen)

    # -- showing

    def signals(self, found: Candidate) -> dict[str, Signal]:
        """Return its signals, with the words that each index found."""
        if not self.terms:
            return found.signals
        return {
            name: structs.replace(signal, terms=self.terms.get((name, found.place), ()))
            for name, signal in found.signals.items()
        }

    def _near_misses(self, hits: list[Candidate], beyond: list[Candidate]) -> tuple[NearMiss, ...]:
        least = hits[-1].score if hits else 0.0
        misses = [
            NearMiss(
                self.ref(found.place),
                found.score,
                self.signals(found),
                f"below the cut by {least - found.score:.4g}",
            )
            for found in beyond[:_MISSES]
        ]
        rejected = sorted(self.rejected.items(), key=lambda item: (-item[1][0], item[0]))
        for place, (score, index, why) in rejected[:_MISSES]:
            signals = {index: Signal(score)}
            misses.append(NearMiss(self.ref(place), score, signals, f"taken out by the filter: {why}"))
        return tuple(misses)

    def ref(self, place: Place) -> EntityRef:
        """Return what a place is called, in the state that was searched."""
        space, kind, _ = place
        return EntityRef(self.branch, space, kind, self.name(place), version=self.ref_version)

    @staticmethod
    def name(place: Place) -> str:
        """Return the key of a place, as refs write it."""
        return PRIMITIVES[place[1]]._name(place[2]) or ""

    def _key(self, place: Place) -> Key:
        return self._as_key(PRIMITIVES[place[1]], place[2])

    @staticmethod
    def _as_key(primitive: type[Primitive], key: bytes) -> Key:
        return key.decode() if primitive.LAYOUT.text_keys else key

    def value(self, found: Candidate) -> Any:
        """Return what a hit is, as its primitive shows it."""
        place = found.place
        entry = self.txns[place[:2]].entry(self._key(place))
        return None if entry is None else PRIMITIVES[place[1]]._shown(place[2], *entry)

    def _sources_of(self, found: Candidate) -> list[Source]:
        """Return the sources that have it, those of texts first; all of its keyspace where none has."""
        there = [source for source in self.sources if source.txn.names[1:] == found.place[:2]]
        named = [source for source in there if source.index in found.signals]
        return sorted(named or there, key=lambda source: source.kind != "text")

    def _texts(self, found: Candidate) -> list[str]:
        """Return the texts of a value that are indexed; all of them where that is not said."""
        place = found.place
        primitive = PRIMITIVES[place[1]]
        value = self.txns[place[:2]].get(self._key(place))
        for source in self._sources_of(found):
            parts = [get_path(value, tuple(path)) for path in source.fields or (primitive._VALUE,)]
            texts = [text for part in parts for text in texts_in(part) if text.strip()]
            if texts:
                return texts
        return []

    def snippet(self, found: Candidate) -> Snippet:
        """Return its texts, cut around where most of what was asked for stands."""
        text = _BETWEEN.join(self._texts(found))[:_SNIPPET_CHARACTERS]
        return cut(text, self._sources_of(found)[0].spans(text))


def key_prefix(kind: str, prefix: str | None) -> bytes:
    """Return how keys of a primitive begin whose refs begin so; those of events by the name of the stream."""
    if kind == "vectors" and prefix is not None:
        collection, slash, rest = prefix.partition("/")
        return f"{collection}\0{rest}".encode() if slash else collection.encode()
    return (prefix or "").encode()


def _is_within(time_us: int, start_us: int | None, end_us: int | None) -> bool:
    return (start_us is None or start_us <= time_us) and (end_us is None or time_us < end_us)
