"""Models behind HTTP: embedders and rerankers that speak as OpenAI, Cohere, vLLM, Ollama and their like do.

    POST {url}/embeddings   {"model": ..., "input": [text, ...]}
                            {"data": [{"index": 0, "embedding": [...]}, ...]}
    POST {url}/rerank       {"model": ..., "query": ..., "documents": [text, ...]}
                            {"results": [{"index": 0, "relevance_score": ...}, ...]}

The standard library, and nothing is tried twice: whoever waits for a write is told, and may try again.
Redirects are refused, as they would take the key elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from strata.core.embedding import TIMEOUT_S, Vector, check_timeout
from strata.core.errors import InvalidInput, LimitExceeded, RemoteError
from strata.core.keys import check_int, check_name, check_text

BATCH: Final = 128  # texts of one request; services refuse more than some hundreds or thousands
_ANSWER_BYTES_MAX: Final = 256 << 20
_SAID: Final = 300  # characters of an answer that go into an error


class Service:
    """A model at an address. What embedders and rerankers over HTTP share."""

    def __init__(self, url: str, model: str, key: str | None, timeout_s: float | None) -> None:
        parts = urlsplit(url) if type(url) is str else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"a url begins with http:// or https://, not {url!r}")
        self.url = url.rstrip("/")
        self.model = check_text(model, "model")
        self.timeout_s = check_timeout(timeout_s)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            # On one line: a header must not be ended by what somebody pasted.
            self._headers["Authorization"] = f"Bearer {check_name(key.strip(), 'key', reserved=True)}"

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer, a map.

        Raises: RemoteError, saying what the other side said.
        """
        import urllib.error  # 20 ms, which nobody pays who asks no service
        import urllib.request

        url = f"{self.url}/{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), self._headers, method="POST")
        try:
            with _opener().open(request, timeout=self.timeout_s or TIMEOUT_S) as answer:
                content = answer.read(_ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            said = error.read(4 * _SAID).decode(errors="replace").strip()[:_SAID]
            raise RemoteError(f"{url} answered {error.code} {error.reason}: {said or '(nothing)'}") from error
        except OSError as error:  # URLError and time-outs are of this kind
            raise RemoteError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from error
        if len(content) > _ANSWER_BYTES_MAX:
            raise LimitExceeded(what="bytes of an answer", limit=_ANSWER_BYTES_MAX, actual=len(content))
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            said = content[:_SAID].decode(errors="replace")
            raise RemoteError(f"{url} answered with what is no JSON object: {said}")
        return found

    def _rows(self, answer: Mapping[str, Any], name: str, field: str, count: int) -> list[Any]:
        """Return `field` of each of the `count` rows of an answer, in the order of their indexes."""
        rows = answer.get(name)
        try:
            by_index = {row["index"]: row[field] for row in rows or ()}
            return [by_index[index] for index in range(count)]
        except (KeyError, TypeError):
            raise RemoteError(
                f"{self.url} did not answer with {count} rows of 'index' and {field!r} in {name!r}"
            ) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model={self.model!r})"


class HttpEmbedder(Service):
    """An embedder that asks a service which speaks as OpenAI's does.

    Args:
        url: as in `https://api.openai.com/v1` or `http://localhost:11434/v1`.
        model: its name there, which is the embedder's name too.
        dim: of its vectors; an answer with others is refused.
        key: sent as a bearer token.
        timeout_s: for all of a call.
    """

    def __init__(
        self, url: str, *, model: str, dim: int, key: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__(url, model, key, timeout_s)
        self.name = check_name(model, "model")
        self.dim = check_int(dim, "dim", 1)

    def embed(self, texts: Sequence[str], /) -> list[Vector]:
        """Return a vector for each text."""
        vectors: list[Vector] = []
        for at in range(0, len(texts), BATCH):
            batch = list(texts[at : at + BATCH])
            answer = self._post("embeddings", {"model": self.model, "input": batch})
            vectors += self._rows(answer, "data", "embedding", len(batch))
        return vectors


class HttpReranker(Service):
    """A reranker that asks a service which speaks as Cohere's, Jina's and vLLM's do.

    Args: as of `HttpEmbedder`, without `dim`.
    """

    def __init__(self, url: str, *, model: str, key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(url, model, key, timeout_s)
        self.name = check_name(model, "model")

    def rerank(self, query: str, texts: Sequence[str], /) -> list[float]:
        """Return a score for each text."""
        answer = self._post("rerank", {"model": self.model, "query": query, "documents": list(texts)})
        return self._rows(answer, "results", "relevance_score", len(texts))


@cache
def _opener() -> Any:
    import urllib.request

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any) -> None:
            return None  # so the answer stands as the error that it is

    return urllib.request.build_opener(NoRedirects)
