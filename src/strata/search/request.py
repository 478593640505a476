"""What is asked for: one request for text, vectors and both, over all primitives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import force_setattr

from strata.core import where as filters
from strata.core.clock import to_micros
from strata.core.embedding import finite
from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.keys import check_int, check_name
from strata.primitives import PRIMITIVES
from strata.search.boosts import Importance, Recency
from strata.search.context import NO_CONTEXT, Context, as_context
from strata.search.models import Reranker, as_reranker

K_MAX: Final = 10_000  # more is a scan, and has a primitive's scan for it
TEXT_MAX: Final = 65_536  # characters of a query


# A Struct, as all that every search makes: of one of 20 fields a frozen dataclass takes 2 us.
class Request(Struct, frozen=True, eq=False):
    """One search. What is left out does not limit it; `db.search` says what each field means.

    Raises: InvalidInput, and LimitExceeded, for what can never be answered.
    """

    text: str | None = None
    vector: tuple[float, ...] | None = None
    primitives: frozenset[str] | None = None
    indexes: frozenset[str] | None = None
    spaces: frozenset[str] | None = None
    prefix: str | None = None
    where: Mapping[str, Any] | None = None
    start: datetime | str | None = None
    end: datetime | str | None = None
    k: int = 10
    offset: int = 0
    budget_ms: float | None = None
    candidates: int | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    context: Context = NO_CONTEXT
    recency: Recency | None = None
    importance: Importance | None = None
    rerank: Reranker | None = None
    explain: bool = False
    scan: bool = False
    # What the fields above come down to; nobody gives these.
    test: Callable[[Any], bool] | None = None
    start_us: int | None = None
    end_us: int | None = None

    @classmethod
    def of(cls, **asked: Any) -> Request:
        """Return the request with these fields, in any form that they may be given in."""
        return cls(**asked)

    def __post_init__(self) -> None:
        if self.text is not None:
            _check_text(self.text)
        elif self.vector is None:
            raise InvalidInput("a search is for a text, a vector, or both", hint="as in db.search('tea')")
        if self.vector is not None:
            force_setattr(self, "vector", _vector(self.vector))
        self._check_numbers()
        self._take_names()
        self._take_filters()
        self._take_scoring()

    def _take_names(self) -> None:
        if self.primitives is not None:
            force_setattr(self, "primitives", _names(self.primitives, "primitives", PRIMITIVES))
        if self.indexes is not None:
            force_setattr(self, "indexes", _names(self.indexes, "indexes", None))
        if self.spaces is not None:
            force_setattr(self, "spaces", _names(self.spaces, "spaces", None))

    def _take_filters(self) -> None:
        if self.prefix is not None:
            _check_unicode(self.prefix, "a prefix")
        force_setattr(self, "test", None if self.where is None else filters.compile(self.where))
        force_setattr(self, "start_us", None if self.start is None else to_micros(self.start))
        force_setattr(self, "end_us", None if self.end is None else to_micros(self.end))

    def _take_scoring(self) -> None:
        if type(self.weights) is not dict or self.weights:
            force_setattr(self, "weights", _weights(self.weights))
        if self.context is not NO_CONTEXT:
            force_setattr(self, "context", as_context(self.context))
        for name, given, kind in (
            ("recency", self.recency, Recency),
            ("importance", self.importance, Importance),
        ):
            if given is not None and not isinstance(given, kind):
                raise InvalidInput(f"{name} is a {kind.__name__}, not {type(given).__name__}")
        if self.rerank is not None:
            force_setattr(self, "rerank", as_reranker(self.rerank))
            if self.text is None:
                raise InvalidInput("a reranker compares texts with the query, and there is no text in it")

    def _check_numbers(self) -> None:
        for name, number in (("k", self.k), ("offset", self.offset)):
            if check_int(number, name) > K_MAX:
                raise LimitExceeded(what=name, limit=K_MAX, actual=number)
        if self.candidates is not None:
            check_int(self.candidates, "candidates", 1)
        if self.budget_ms is not None and (
            type(self.budget_ms) not in (int, float) or not 0 < self.budget_ms < math.inf
        ):
            raise InvalidInput(f"budget_ms is a number of milliseconds above 0, not {self.budget_ms!r}")
        for name, flag in (("explain", self.explain), ("scan", self.scan)):
            if type(flag) is not bool:
                raise InvalidInput(f"{name} is True or False, not {flag!r}")

    @property
    def depth(self) -> int:
        """How many of the best are looked at."""
        return self.k + self.offset

    @property
    def is_filtered(self) -> bool:
        """Whether some things are no hits however well they match."""
        is_open = self.start_us is None and self.end_us is None
        return not (is_open and self.test is None and self.prefix is None)

    def plain(self) -> dict[str, Any]:
        """Return what was asked for as values that can be stored, without what was left out."""
        found: dict[str, Any] = {}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                found[name] = _plain(value)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool) else repr(value)


def _check_text(text: Any) -> None:
    _check_unicode(text, "the text of a search")
    if not text.strip():
        raise InvalidInput("the text of a search is empty", hint="a scan or find lists all there is")
    if len(text) > TEXT_MAX:
        raise LimitExceeded(what="characters of a query", limit=TEXT_MAX, actual=len(text))


def _check_unicode(text: Any, what: str) -> None:
    if type(text) is not str:
        raise InvalidInput(f"{what} is a str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} has a lone surrogate and is no Unicode text") from None


def _vector(vector: Any) -> tuple[float, ...]:
    if hasattr(vector, "tolist"):
        vector = vector.tolist()
    if not isinstance(vector, list | tuple) or not vector:
        raise InvalidInput("the vector of a search is a list of numbers, or an array of one dimension")
    return tuple(finite(number, "whoever asks") for number in vector)


def _names(given: Any, what: str, known: Mapping[str, Any] | None) -> frozenset[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidInput(f"{what} are a list of names, not {given!r}", hint=f"as in {what}=['kv']")
    names = frozenset(check_name(name, what, reserved=True) for name in given)
    unknown = sorted(names - known.keys()) if known is not None else []
    if unknown:
        raise InvalidInput(f"there is no primitive {unknown[0]!r}", hint=f"one of {', '.join(known or ())}")
    if not names:
        raise InvalidInput(f"{what} has no name in it", hint="leave it out for all")
    return names


def _weights(given: Any) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise InvalidInput(f"weights are a dict by name of index, not {given!r}", hint="{'text': 2.0}")
    for name, weight in given.items():
        if type(weight) not in (int, float) or not 0 <= weight < math.inf:
            raise InvalidInput(f"the weight of {name!r} is a number from 0 on, not {weight!r}")
    return {check_name(name, "index", reserved=True): float(weight) for name, weight in given.items()}


_DEFAULTS: Final = {name: getattr(Request(text="-"), name) for name in Request.__struct_fields__[:-3]} | {
    "text": None
}
