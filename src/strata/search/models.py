"""Plugging in models: embedders for vectors, rerankers for a second look at the best.

register(CallableEmbedder(model.encode, name="minilm", dim=384))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from strata.core.embedding import TIMEOUT_S, check_embedder, check_timeout, finite, in_time, patience
from strata.core.errors import InvalidInput
from strata.core.keys import check_name


class CallableEmbedder:
    """An embedder that calls a function.

    Args:
        fn: takes a list of texts and returns a vector for each: lists, or a matrix of NumPy.
        name: what collections remember it by.
        dim: the length of its vectors.
        timeout_s: how long a call may take; None calls it in this thread, without a limit.
    """

    def __init__(
        self, fn: Callable[[list[str]], Any], *, name: str, dim: int, timeout_s: float | None = TIMEOUT_S
    ) -> None:
        if not callable(fn):
            raise InvalidInput(f"a CallableEmbedder takes a function, not {type(fn).__name__}")
        self._fn = fn
        self.name, self.dim, self.timeout_s = name, dim, check_timeout(timeout_s)
        check_embedder(self)

    def embed(self, texts: Sequence[str], /) -> Any:
        """Return what the function returns."""
        return self._fn(list(texts))

    def __repr__(self) -> str:
        return f"CallableEmbedder({self.name!r}, dim={self.dim})"


class Reranker(Protocol):
    """Scores the best hits anew, by looking at query and text together."""

    @property
    def name(self) -> str:
        """The model, if it is one."""

    @property
    def timeout_s(self) -> float | None:
        """How long a call may take; None: it cannot hang."""

    def rerank(self, query: str, texts: Sequence[str], /) -> Any:
        """Return a score for each text; higher is better."""


class CallableReranker:
    """A reranker that calls a function of the query and a list of texts, which returns a score for each."""

    def __init__(
        self,
        fn: Callable[[str, list[str]], Any],
        *,
        name: str = "reranker",
        timeout_s: float | None = TIMEOUT_S,
    ) -> None:
        if not callable(fn):
            raise InvalidInput(f"a CallableReranker takes a function, not {type(fn).__name__}")
        self._fn = fn
        self.name, self.timeout_s = check_name(name, "name of a reranker"), check_timeout(timeout_s)

    def rerank(self, query: str, texts: Sequence[str], /) -> Any:
        """Return what the function returns."""
        return self._fn(query, list(texts))

    def __repr__(self) -> str:
        return f"CallableReranker({self.name!r})"


def as_reranker(given: Any) -> Reranker:
    """Return a reranker, of one or of a function.

    Raises: InvalidInput for anything else.
    """
    if callable(getattr(given, "rerank", None)):
        check_name(getattr(given, "name", None), "name of a reranker")
        check_timeout(patience(given))
        return given  # type: ignore[no-any-return]  # that is what was checked
    if callable(given):
        return CallableReranker(given)
    raise InvalidInput(f"a reranker has rerank(query, texts), {type(given).__name__} has not")


def rerank(reranker: Reranker, query: str, texts: Sequence[str]) -> list[float]:
    """Return a finite score for each of `texts`.

    Raises: RemoteError when the reranker raises, or takes longer than its `timeout_s`; InvalidInput when what
        it returns is not that.
    """
    what = f"reranker {reranker.name!r}"
    found = in_time(what, patience(reranker), lambda: reranker.rerank(query, texts)) if texts else []
    if hasattr(found, "tolist"):
        found = found.tolist()
    if not isinstance(found, list | tuple) or len(found) != len(texts):
        raise InvalidInput(f"{what} is to return a score for each of {len(texts)} texts")
    return [finite(score, what) for score in found]
