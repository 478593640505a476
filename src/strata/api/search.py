"""`db.search`: one question to all indexes of a place, a view or a transaction.

What becomes of the answers of the indexes is in `strata.search`; here is which indexes are asked, in which
state, and what stands in for one that is not declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final

from msgspec import Struct, structs

from strata.api.face import Face, Source
from strata.api.instants import Instant
from strata.core.embedding import embed, pack_vector, registered
from strata.core.errors import InvalidInput, NotFound, NotIndexed
from strata.core.protocols import Branch, IndexRow, Key, Layout, Passes, Path, Txn
from strata.primitives import PRIMITIVES, Collection, Vectors
from strata.primitives.base import PAGE_ROWS, Primitive, row_pages
from strata.primitives.indexes import TEXT, VECTOR, text_spec
from strata.search import Context, Importance, Over, Recency, Request, Results, Term, engine
from strata.search.models import Reranker

# What is looked through when no primitive is named: runs are about work, not about what was learned.
_USUAL: Final = tuple(sorted(PRIMITIVES.keys() - {"runs"}))
Scored = Sequence[tuple[Key, int, float]]
_SCAN: Final = Layout("scan", text_keys=False)


class State(Struct, frozen=True):
    """What is searched."""

    source: Source  # of keyspaces
    version: int
    ref_version: int | None  # for refs of hits: None where they mean what is there now
    branch: Branch
    is_committed: bool = True  # all of it


class Searchable(Face):
    """What can be searched: a place, a view, a transaction."""

    __slots__ = ()

    def _searched(self, at: Instant | None) -> State:
        """Return the state to search, as of `at`."""
        raise NotImplementedError

    def search(
        self,
        text: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        primitives: Iterable[str] | None = None,
        indexes: Iterable[str] | None = None,
        spaces: Iterable[str] | None = None,
        prefix: str | None = None,
        where: Mapping[str, Any] | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        k: int = 10,
        offset: int = 0,
        at: Instant | None = None,
        over: tuple[Instant, Instant] | None = None,
        context: int | Context = 0,
        weights: Mapping[str, float] | None = None,
        recency: Recency | None = None,
        importance: Importance | None = None,
        rerank: Reranker | Callable[[str, list[str]], Any] | None = None,
        budget_ms: float | None = None,
        candidates: int | None = None,
        scan: bool = False,
        explain: bool = False,
        log_recall: bool = False,
    ) -> Results:
        """Return what fits best, best first, of all primitives that have an index.

        Args:
            text: words; `"a phrase"`, `+must`, `-not`, `field:word` and `pre*` mean what they look like, and
                what makes no sense is words.
            vector: for collections of vectors of its length; those with an embedder take the text where it is
                left out. What words and vectors find is put together by rank.
            primitives, indexes, spaces: only these, by name; left out, all primitives of this space.
            prefix: only keys that begin so.
            where: only values that pass this filter, as `{"$.status": "open"}`; see `json.find`.
            start, end: only what was written at start <= time < end.
            k, offset: how many hits, and how many better ones to leave out.
            at: a version, tag or instant: the state that is searched, as it was then.
            over: two of these: search the second, and compare with the first; `results.over` has what entered
                and what left.
            context: how many turns before and after count for one in a conversation; see `Context`.
            weights: by index or kind ("text", "vector"), what each counts when several are put together.
            recency, importance: let what is newer, or has a higher number at a path, count for more.
            rerank: a model, or a function of the text and a list of texts, that orders the best anew.
            budget_ms, candidates: stop after so long, or so many of an index; `truncated` says so.
            scan: where there is no index, read everything instead.
            explain: also say what each word gave, and what was nearly found.
            log_recall: keep question, hits and scores as a trace of kind "query".
        Raises: NotIndexed where no index answers and `scan` is not given; NotFound for an index that does
            not exist; HistoryTrimmed; InvalidInput, and LimitExceeded, for what can never be answered;
            RemoteError from a model.
        Cost: that of the indexes, and some 20 us; with `context` or filters that no index answers, of what
            matches; with `scan`, of all there is.
        """
        request = Request.of(
            text=text, vector=vector, primitives=primitives, indexes=indexes, spaces=spaces, prefix=prefix,
            where=where, start=start, end=end, k=k, offset=offset, budget_ms=budget_ms, candidates=candidates,
            weights={} if weights is None else weights, context=context, recency=recency,
            importance=importance, rerank=rerank, explain=explain, scan=scan,
        )  # fmt: skip
        before, after = _points(at, over)
        found = _search(self._searched(after), request, self._space)
        if over is not None:
            earlier = _search(self._searched(before), request, self._space)
            found = replace(found, over=Over(earlier, found))
        if log_recall:
            _log(self, request, found)
        return found


def _points(at: Instant | None, over: Any) -> tuple[Instant | None, Instant | None]:
    """Return the state to compare with, and the one to search."""
    if over is None:
        return None, at
    if at is not None or not isinstance(over, tuple | list) or len(over) != 2:
        raise InvalidInput("over is two points in history", hint="as in over=(3, 8), without at")
    return over[0], over[1]


def _search(state: State, request: Request, space: str) -> Results:
    if not request.scan:
        return _answer(state, request, _sources(state, request, space, None))
    with ExitStack() as stack:
        return _answer(state, request, _sources(state, request, space, stack))


def _answer(state: State, request: Request, sources: list[engine.Source]) -> Results:
    return engine.search(
        request,
        sources,
        version=state.version,
        ref_version=state.ref_version,
        now_us=_newest(state) if request.recency is not None else 0,
        written=partial(_written, state, request),
    )


def _written(state: State, request: Request) -> tuple[int, int] | None:
    """Return the first and the last version of what was written within the times of a request."""
    if not state.is_committed:
        return None  # what a transaction wrote has no version yet
    branch, first, last = state.branch, 0, state.version
    if request.start_us is not None:
        first = branch.version_at(request.start_us - 1) + 1
    if request.end_us is not None:
        last = min(branch.version_at(request.end_us - 1), last)
    # Before the first commit that is kept nothing is known of times.
    return (first, last) if last > 0 else None


def _newest(state: State) -> int:
    """Return the time of the newest commit of a state."""
    found = state.branch.commits(None, state.version + 1, True, 1)
    return found[0].time if found else 0


def _sources(state: State, request: Request, space: str, stack: ExitStack | None) -> list[engine.Source]:
    """Return what answers a request; what is made for that alone is left to `stack`.

    Raises: NotIndexed when something that was named has no index, or nothing has; NotFound; InvalidInput
        where all vectors are of another length.
    """
    sources: list[engine.Source] = []
    missing: list[tuple[str, str]] = []
    lengths: set[int] = set()
    for name in sorted(request.spaces) if request.spaces else (space,):
        for kind in sorted(request.primitives) if request.primitives else _USUAL:
            txn = state.source.keyspace(name, PRIMITIVES[kind].LAYOUT)
            before = len(sources)
            if declared := txn.indexes():
                sources += _declared(declared, kind, txn, request, lengths)
            if kind == Vectors.LAYOUT.kind:
                sources += _collections(txn, request, lengths)
            if len(sources) > before:
                continue
            if stack is not None and request.text is not None and request.indexes is None:
                sources.append(_by_scan(PRIMITIVES[kind], txn, request, stack))
            else:
                missing.append((name, kind))
    _check_asked(request, sources, missing, lengths)
    return sources


def _check_asked(
    request: Request, sources: list[engine.Source], missing: list[tuple[str, str]], lengths: set[int]
) -> None:
    """Raise what `_sources` does, for the sources there are and where there is none."""
    if request.vector is not None and lengths and len(request.vector) not in lengths:
        there = ", ".join(map(str, sorted(lengths)))
        raise InvalidInput(
            f"there are vectors of {there} numbers here, and the one given has {len(request.vector)}"
        )
    unknown = sorted((request.indexes or set()) - {source.index for source in sources})
    if unknown:
        raise NotFound(
            f"no index {unknown[0]!r} can be asked that",
            what="index",
            name=unknown[0],
            hint="db.indexes.list() and db.vectors.collections() list what there is",
        )
    if missing and not request.scan and (not sources or (request.primitives and request.indexes is None)):
        raise _not_indexed(*missing[0], request)


def _declared(
    rows: list[IndexRow], kind: str, txn: Txn, request: Request, lengths: set[int]
) -> Iterator[engine.Source]:
    """Yield those of a keyspace's indexes that answer a request; note the lengths of vectors in `lengths`."""
    wanted = engine.key_prefix(kind, request.prefix)
    for row in rows:
        name, _, _, prefix, spec = row
        if request.indexes is not None and name not in request.indexes:
            continue
        if not (prefix.startswith(wanted) or wanted.startswith(prefix)):
            continue
        if spec["type"] == TEXT and request.text is not None:
            yield _by_text(row, txn, txn, request)
        # The indexes of collections go by the names of these.
        if spec["type"] == VECTOR and kind != Vectors.LAYOUT.kind:
            lengths.add(spec["dim"])
            if request.vector is not None and len(request.vector) == spec["dim"]:
                yield _by_vector(name, txn, partial(txn.by_vector, name, pack_vector(request.vector)))


def _collections(txn: Txn, request: Request, lengths: set[int]) -> Iterator[engine.Source]:
    """Yield the collections that there is a vector for: the one given, or that of the text."""
    vectors = Vectors(txn)
    for made in vectors.collections():
        if request.indexes is not None and made.name not in request.indexes:
            continue
        lengths.add(made.dim)
        vector: Sequence[float] | None = request.vector
        if vector is None and made.embedder is not None and request.text is not None:
            (vector,) = embed(registered(made.embedder), [request.text])
        if vector is not None and len(vector) == made.dim:
            nearest = partial(_nearest, vectors, made, pack_vector(vector))
            yield _by_vector(made.name, txn, nearest, tuple(Vectors._TEXTS.values()))


def _nearest(vectors: Vectors, made: Collection, packed: bytes, limit: int, passes: Passes) -> Scored:
    return vectors._nearest(made, packed, limit, passes, 1.0)


def _by_text(row: IndexRow, asked: Txn, txn: Txn, request: Request) -> engine.Source:
    """Return an index as a source. It is one of the keyspace `asked`, whose keys are those of `txn`."""
    name, spec, text, explain = row[0], row[4], request.text or "", request.explain

    def top(limit: int, passes: Passes) -> engine.Answer:
        found = asked.by_text(name, text, limit, passes, explain)
        rows = _rows(found["hits"])
        terms = [tuple(Term(*term) for term in terms) for terms in found.get("terms", ())]
        return engine.Answer(rows, found["matched"], terms)

    return engine.Source(name, TEXT, txn, top, _spans(spec, text), [part["path"] for part in spec["fields"]])


def _by_vector(
    name: str, txn: Txn, nearest: Callable[[int, Passes], Scored], fields: tuple[Path, ...] = ()
) -> engine.Source:
    """Return what answers with keys, versions and scores as a source."""

    def top(limit: int, passes: Passes) -> engine.Answer:
        return engine.Answer(_rows(nearest(limit, passes)), None)

    return engine.Source(name, VECTOR, txn, top, fields=fields)


def _rows(found: Scored) -> list[tuple[bytes, float]]:
    return [(key.encode() if isinstance(key, str) else key, score) for key, _, score in found]


def _bytes(key: Key) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _spans(spec: dict[str, Any], text: str) -> Callable[[str], Sequence[tuple[int, int]]]:
    """Return what finds the words of a query in a text."""

    readers: list[Any] = []

    def spans(shown: str) -> Sequence[tuple[int, int]]:
        if not readers:
            from strata.store import TextReader

            readers.append(TextReader(spec))
        found: Sequence[tuple[int, int]] = readers[0].spans(shown, text)
        return found

    return spans


def _by_scan(primitive: type[Primitive], txn: Txn, request: Request, stack: ExitStack) -> engine.Source:
    """Return what stands in for an index: one made on the spot, in memory, and gone after the search."""
    from strata.store import open_store

    kind = primitive.LAYOUT.kind
    store = open_store()
    stack.callback(store.close)
    copied = store.branch("main").keyspace("default", _SCAN)
    rows = row_pages(txn, None, None, None, False, None, lambda: None)
    while page := list(islice(rows, PAGE_ROWS)):
        found = [(_bytes(key), value) for key, value in page]
        copied.put_many([row for row in found if primitive._name(row[0]) is not None])
    spec = text_spec(primitive._VALUE, primitive._TEXTS, None, {})
    store.create_index(f"scan of {kind}", "default", _SCAN.kind, b"", spec)
    row = (f"scan of {kind}", txn.names[1], kind, b"", spec)

    def top(limit: int, passes: Passes) -> engine.Answer:
        return indexed.top(limit, Passes())  # there are no other indexes to hold rows against

    indexed = _by_text(row, copied.pinned(), txn, request)
    return structs.replace(indexed, top=top)


def _not_indexed(space: str, kind: str, request: Request) -> NotIndexed:
    hint = f"declare one with db.indexes.create({kind!r}, primitive={kind!r}), or read all with scan=True"
    if request.text is None:
        hint = "make a collection with db.vectors.create_collection, and put vectors into it"
    return NotIndexed(
        f"no index answers that for {kind} in space {space!r}", what="index", name=kind, hint=hint
    )


def _log(face: Searchable, request: Request, found: Results) -> None:
    """Keep what was asked and found as a trace."""
    hits = [
        {
            "ref": str(hit.ref),
            "score": hit.score,
            "rank": hit.rank,
            "signals": {name: signal.score for name, signal in hit.signals.items()},
        }
        for hit in found
    ]
    face.traces.record(
        "query",
        "search",
        input=request.plain(),
        output={"version": found.version, "truncated": found.truncated, "hits": hits},
        reads=[replace(ref, version=found.version) for ref in found.refs],
    )
