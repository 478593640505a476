"""Remember and recall: memories are json documents, indexed as they are written.

    key     memory/<key>; of a text without a key the first half of its SHA-256, so that it is kept once;
            with an idempotency key that of this, so that a retry names the same memory
    value   {"text", "tags", "metadata", "vector"}, of which only the text must be there

The index over words is declared with the first memory of a space, the one over vectors with the first that
has a vector: its length is then that of all. Vectors come from whoever calls, or from the door's embedder.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from typing import Any, Final

from strata.api.place import Space
from strata.api.plain import from_json
from strata.api.transaction import Transaction
from strata.api.view import View
from strata.core.embedding import embed
from strata.core.errors import AlreadyExists, InvalidInput, NotIndexed
from strata.core.refs import EntityRef
from strata.core.values import same
from strata.search import Hit as Found
from strata.search import Results
from strata.server.mcp.answers import Hit, NearMiss, Recalled, Remembered, Term, Why
from strata.server.mcp.requests import Recall, Remember
from strata.server.mcp.scope import DEFAULT, Door
from strata.server.mcp.shown import Budget, clean, said, shown_time

PREFIX: Final = "memory/"
HIT_CHARS: Final = 4_000  # of one hit; `read` has the rest
_PATHS: Final = {"$.text": 1.0, "$.tags": 0.5}  # and what words there count
_NAME_BYTES: Final = 200  # of a space, in the name of its index
_MISSES, _SIGNALS, _TERMS = 10, 10, 10  # that are shown, of each search, hit and signal
# Something is always nearest, however far: a word that is there counts for a little more.
_WORDS_FIRST: Final = {"vector": 0.9}
_BUDGET_MS: Final = 5_000.0  # for a search; an agent waits for it


def remember(door: Door, request: Remember, actor: str | None) -> Remembered:
    """Keep a text, and return the memory that is there now.

    Raises: InvalidInput for an empty text and a vector of another length than others; Conflict.
    """
    if not request.text.strip():
        raise InvalidInput("the text of a memory is empty", hint="say what is to be remembered")
    place = door.place(request.branch, request.space)
    space = door.space(request.space)
    vector = _embedded(door, request.vector, request.text)
    declare(door, space, vector)
    key = PREFIX + (_key(request) or _digest(request.idempotency_key or request.text))
    outcome, written = "", 0

    def body(tx: Transaction) -> Transaction:
        nonlocal outcome, written
        entry, new = tx.json.entry(key), _document(request, vector)
        if entry is not None and not _key(request):
            new = _joined(entry.value, new)
        outcome = "created" if entry is None else "replaced"
        if entry is not None and same(entry.value, new) and request.expires_in_s is None:
            outcome, written = "unchanged", entry.version
        else:
            tx.json.set(key, "$", new, request.expires_in_s)
        return tx

    tx = place.transact(body, actor=actor, message="remember", idempotency_key=request.idempotency_key)
    assert tx.version is not None  # it was committed
    version = tx.version
    if tx.version <= tx.snapshot:  # nothing was written: it was there, or this is a retry
        outcome, version = "unchanged", written or tx.version
    ref = EntityRef(door.branch(request.branch), space, "json", key)
    return Remembered(ref=str(ref), key=clean(key), version=version, outcome=outcome)  # type: ignore[arg-type]


def _key(request: Remember) -> str:
    """Return the key that is given, also where it is given as answers have it."""
    return (request.key or "").removeprefix(PREFIX)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _embedded(door: Door, given: list[float] | None, text: str | None) -> list[float] | None:
    """Return the vector that is given, or else that of a text, where there is an embedder.

    Raises: RemoteError when that fails, or does not answer in time.
    """
    if given is not None or door.embedder is None or not text:
        return given
    return embed(door.embedder, [text])[0]


def _document(request: Remember, vector: list[float] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"text": request.text}
    if request.tags:
        found["tags"] = list(dict.fromkeys(request.tags))
    if request.metadata:
        found["metadata"] = from_json(request.metadata)
    if vector is not None:
        found["vector"] = [float(number) for number in vector]
    return found


def _joined(old: Any, new: dict[str, Any]) -> dict[str, Any]:
    """Return a memory that is remembered again, with what either says beside the text."""
    if not isinstance(old, dict):
        return new
    tags = list(dict.fromkeys([*_listed(old.get("tags")), *new.get("tags", [])]))
    metadata = {**_mapped(old.get("metadata")), **new.get("metadata", {})}
    return {**old, **new, **({"tags": tags} if tags else {}), **({"metadata": metadata} if metadata else {})}


def _listed(value: Any) -> list[Any]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _mapped(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def declare(door: Door, space: str, vector: list[float] | None) -> None:
    """Declare the indexes over memories of a space that are not there yet.

    Raises: InvalidInput for a vector that is not as long as those that are there.
    """
    there = {index.name: index for index in door.database.indexes.list()}
    words, near = index_names(space)
    where: dict[str, Any] = {"primitive": "json", "space": space, "prefix": PREFIX}
    try:
        if words not in there:
            door.database.indexes.create(words, **where, paths=_PATHS)
        if vector is not None and near not in there:
            door.database.indexes.create(near, **where, kind="vector", paths="$.vector", dim=len(vector))
    except AlreadyExists:  # another host was first
        there = {index.name: index for index in door.database.indexes.list()}
    if vector is not None and near in there:
        dim = there[near].options.get("dim")
        if dim != len(vector):
            raise InvalidInput(f"vectors of memories have {dim} numbers here, and this one {len(vector)}")


def index_names(space: str) -> tuple[str, str]:
    """Return the names of the indexes over memories of a space: of words, and of vectors."""
    if space == DEFAULT:
        return "memories", "memories by vector"
    name = space if len(space.encode()) <= _NAME_BYTES else _digest(space)
    return f"memories of {name}", f"memories of {name} by vector"


def recall(door: Door, request: Recall, actor: str | None) -> Recalled:
    """Return what fits best: memories, and whatever else has an index.

    Raises: InvalidInput for neither words nor a vector, and for a filter that is none; HistoryTrimmed.
    """
    if request.query is None and request.vector is None:
        raise InvalidInput("what is looked for? give a query, a vector, or both")
    place = door.place(request.branch, request.space)
    vector, hint = _asked(door, request)
    try:
        found = place.search(
            request.query,
            vector=vector,
            where=_filter(request),
            start=request.since,
            end=request.until,
            k=request.k,
            offset=request.offset,
            at=None if request.at is None else door.instant(request.at),
            scan=request.everything,
            explain=request.why,
            weights=None if request.vector is not None or vector is None else _WORDS_FIRST,
            budget_ms=_BUDGET_MS,
        )
    except NotIndexed:
        return Recalled(hits=[], version=place.version, hint=_nothing(request))
    state = place if request.at is None else place.at(found.version)
    return _recalled(found, state, request.why, hint)


def _asked(door: Door, request: Recall) -> tuple[list[float] | None, str | None]:
    """Return the vector to look near, and a hint where the embedder's cannot be."""
    if request.vector is not None or door.embedder is None:
        return request.vector, None
    near = index_names(door.space(request.space))[1]
    dims = [index.options.get("dim") for index in door.database.indexes.list() if index.name == near]
    if not dims:
        return None, None  # no memory has a vector yet
    if dims[0] != door.embedder.dim:
        lengths = f"memories have vectors of {dims[0]} numbers, and this server's of {door.embedder.dim}"
        return None, f"only words were looked for: {lengths}"
    return _embedded(door, None, request.query), None


def _filter(request: Recall) -> dict[str, Any] | None:
    parts: list[dict[str, Any]] = [{"$.tags": {"contains": tag}} for tag in request.tags or ()]
    if request.where is not None:
        parts.append(from_json(request.where))
    return {"and": parts} if parts else None


def _nothing(request: Recall) -> str:
    if request.query is None:
        return "there are no vectors here; search for words"
    return "nothing is indexed here: nothing was remembered yet; everything=true reads all there is"


def _recalled(found: Results, state: Space | View, why: bool, hint: str | None) -> Recalled:
    budget = Budget()
    hits = []
    for hit in found:
        if budget.over:
            break
        budget.named(str(hit.ref), clean(hit.key))
        stored, cut = budget.fit(_shown(hit), HIT_CHARS)
        snippet, _ = budget.fit(hit.snippet.marked(), HIT_CHARS)
        hits.append(
            Hit(
                ref=str(hit.ref), key=clean(hit.key), score=hit.score, rank=hit.rank, snippet=snippet,
                stored=stored, time=_time(hit, state), truncated=cut, why=_why(hit.signals) if why else [],
            )
        )  # fmt: skip
    misses = [
        NearMiss(ref=str(miss.ref), score=miss.score, reason=said(miss.reason) or "")
        for miss in found.near_misses[:_MISSES]
    ]
    return Recalled(
        hits=hits,
        version=found.version,
        near_misses=misses,
        hint=hint,
        truncated=found.truncated or budget.cut,
    )


def _time(hit: Found, state: Space | View) -> str | None:
    """Return when what was found was written, where that is another time than its value says."""
    if hit.ref.primitive not in ("kv", "json", "state"):
        return None
    entry = getattr(state, hit.ref.primitive).entry(hit.key)
    return None if entry is None else shown_time(entry.timestamp)


def _shown(hit: Found) -> Any:
    """Return what was found; a memory without its vector, whose numbers say nothing to a model."""
    value = hit.value
    if hit.ref.primitive == "json" and hit.key.startswith(PREFIX) and isinstance(value, dict):
        return {name: item for name, item in value.items() if name != "vector"}
    return value


def _why(signals: Any) -> list[Why]:
    """Return what gave the most to the score of a hit."""
    return [
        Why(index=clean(name), score=signal.score, rank=signal.rank, terms=_terms(signal.terms))
        for name, signal in islice(signals.items(), _SIGNALS)
    ]


def _terms(terms: Any) -> list[Term]:
    best = sorted(terms, key=lambda term: -term.contribution)[:_TERMS]
    return [
        Term(text=clean(term.text[:100]), contribution=term.contribution, documents=term.documents)
        for term in best
    ]
