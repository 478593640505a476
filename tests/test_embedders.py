"""Embedders and rerankers: ours is the same everywhere, and those of others cannot hang or spoil anything."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.embedding import embed, register, registered
from strata.core.errors import InvalidInput, NotFound, RemoteError
from strata.search import (
    CallableEmbedder,
    CallableReranker,
    HashingEmbedder,
    HttpEmbedder,
    HttpReranker,
)
from strata.search.models import as_reranker, rerank

GOLDEN = {
    1: 0.131306,
    5: -0.131306,
    6: 0.262613,
    12: -0.131306,
    13: 0.131306,
    16: 0.131306,
    17: 0.131306,
    22: -0.131306,
    26: 0.393919,
    28: -0.131306,
    29: 0.131306,
    32: 0.262613,
    41: -0.131306,
    42: -0.131306,
    43: 0.131306,
    44: -0.393919,
    46: 0.262613,
    54: 0.131306,
    55: 0.262613,
    56: -0.393919,
    59: 0.131306,
    62: -0.131306,
}


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


# -- ours


def test_the_hashing_embedder_gives_these_very_numbers():
    """Vectors are stored, so a change of the features would part them from those of new texts."""
    (vector,) = HashingEmbedder(64).embed(["Green tea, grown in Uji"])
    assert {place: round(number, 6) for place, number in enumerate(vector) if number} == GOLDEN


@given(st.text())
def test_vectors_have_length_one_or_are_zero(text: str):
    (vector,) = HashingEmbedder(64).embed([text])
    length = math.sqrt(cosine(vector, vector))
    assert len(vector) == 64
    assert length == pytest.approx(1) or not any(vector)


def test_texts_with_words_or_stems_in_common_are_alike():
    tea, teas, rain = HashingEmbedder().embed(
        ["brewing green tea", "she brewed several green teas", "rain over the harbour"]
    )
    assert cosine(tea, teas) > 0.4 > 0.2 > cosine(tea, rain)


def test_order_and_case_do_not_count_and_common_words_say_nothing():
    one, other, nothing = HashingEmbedder().embed(["The Harbour at Night", "night harbour", "what is the"])
    assert one == other
    assert not any(nothing)


@pytest.mark.parametrize("dim", [0, 63, 4097, True, 256.0, "256"])
def test_a_dim_that_is_none_is_refused(dim: Any):
    with pytest.raises(InvalidInput):
        HashingEmbedder(dim)


def test_ours_are_registered_and_others_can_be():
    assert registered("hashing-256").dim == 256
    register(CallableEmbedder(lambda texts: [[1.0]] * len(texts), name="ones", dim=1))
    assert embed(registered("ones"), ["a", "b"]) == [[1.0], [1.0]]
    with pytest.raises(NotFound) as caught:
        registered("unheard-of")
    assert (caught.value.what, caught.value.name) == ("embedder", "unheard-of")


# -- those of others


def two(fn: Callable[[list[str]], Any], **options: Any) -> CallableEmbedder:
    return CallableEmbedder(fn, name="theirs", dim=2, **options)


class Matrix:
    """What NumPy returns, as far as it matters here."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def tolist(self) -> list[Any]:
        return self._rows


@pytest.mark.parametrize("rows", [[[1, 2]], ((1.0, 2.0),), Matrix([[1.0, 2.0]]), [Matrix([1.0, 2.0])]])
def test_vectors_may_come_in_several_forms(rows: Any):
    assert embed(two(lambda texts: rows), ["a"]) == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "returned",
    [None, 7, "ab", [], [[1.0]], [[1.0, 2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]], [None], [[1.0, None]],
     [[1.0, math.nan]], [[math.inf, 0.0]], [[True, 1.0]], [["1", "2"]], [1.0, 2.0], [[10**400, 0]]],
)  # fmt: skip
def test_what_is_no_vector_for_each_text_is_refused(returned: Any):
    with pytest.raises(InvalidInput, match="theirs"):
        embed(two(lambda texts: returned), ["a"])


def test_an_embedder_that_raises_says_so_with_its_message():
    def fail(texts: list[str]) -> Any:
        raise ValueError("the model is not loaded")

    for timeout_s in (None, 10.0):
        with pytest.raises(RemoteError, match="the model is not loaded") as caught:
            embed(two(fail, timeout_s=timeout_s), ["a"])
        assert isinstance(caught.value.__cause__, ValueError)


def test_an_embedder_that_hangs_is_left_in_time():
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(RemoteError, match="longer than"):
        embed(two(lambda texts: release.wait(60), timeout_s=0.05), ["a"])
    assert time.monotonic() - began < 2
    release.set()


def test_errors_of_ours_pass_through_as_they_are():
    def refuse(texts: list[str]) -> Any:
        raise InvalidInput("too long for the model")

    with pytest.raises(InvalidInput, match="too long"):
        embed(two(refuse), ["a"])


def test_no_text_calls_nobody_and_what_is_no_text_is_refused():
    assert embed(two(lambda texts: 1 / 0), []) == []
    with pytest.raises(InvalidInput):
        embed(two(lambda texts: 1 / 0), [b"bytes"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "options", [{"name": ""}, {"name": "_mine"}, {"dim": 0}, {"dim": 70_000}, {"timeout_s": 0}, {"fn": 3}]
)
def test_an_embedder_that_cannot_be_one_is_refused(options: dict[str, Any]):
    fine: dict[str, Any] = {"fn": len, "name": "a", "dim": 3}
    with pytest.raises(InvalidInput):
        CallableEmbedder(**{**fine, **options})


# -- rerankers


def test_a_reranker_gives_a_score_for_each_text():
    shorter = as_reranker(lambda query, texts: [-len(text) for text in texts])
    assert rerank(shorter, "tea", ["aaa", "b"]) == [-3.0, -1.0]
    assert rerank(shorter, "tea", []) == []


@pytest.mark.parametrize("scores", [None, [1.0], [1.0, math.nan], ["1", "2"], [1.0, 2.0, 3.0]])
def test_what_is_no_score_for_each_text_is_refused(scores: Any):
    with pytest.raises(InvalidInput):
        rerank(CallableReranker(lambda query, texts: scores), "tea", ["a", "b"])


def test_a_reranker_that_hangs_or_raises_is_an_error_in_time():
    release = threading.Event()
    with pytest.raises(RemoteError):
        rerank(CallableReranker(lambda query, texts: release.wait(60), timeout_s=0.05), "tea", ["a"])
    release.set()
    with pytest.raises(RemoteError, match="division"):
        rerank(CallableReranker(lambda query, texts: 1 / 0), "tea", ["a"])
    with pytest.raises(InvalidInput):
        as_reranker(7)


# -- over HTTP


class Answers(BaseHTTPRequestHandler):
    """A service that answers as `answer` says and remembers what it was asked."""

    asked: list[tuple[str, dict[str, str], Any]]
    answer: Callable[[Any], tuple[int, bytes]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append((self.path, dict(self.headers), body))
        status, content = type(self).answer(body)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://localhost:9/elsewhere")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[tuple[str, type[Answers]]]:
    handler = type("Handler", (Answers,), {"asked": [], "answer": None})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/", handler
        server.shutdown()


def say(content: Any, status: int = 200) -> staticmethod[..., Any]:
    return staticmethod(
        lambda body: (status, content if isinstance(content, bytes) else json.dumps(content).encode())
    )


def test_an_embedder_over_http_asks_as_openai_is_asked(service: Any):
    url, handler = service
    handler.answer = staticmethod(
        lambda body: (
            200,
            json.dumps(
                {"data": [{"index": i, "embedding": [i, 1]} for i in reversed(range(len(body["input"])))]}
            ).encode(),
        )
    )
    embedder = HttpEmbedder(url, model="small", dim=2, key=" secret\n")
    texts = [f"text {number}" for number in range(130)]
    vectors = embed(embedder, texts)
    assert [vector[0] for vector in vectors] == [*map(float, range(128)), 0.0, 1.0]
    (path, headers, body), _ = handler.asked
    assert path == "/v1/embeddings"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {"model": "small", "input": texts[:128]}
    assert "secret" not in repr(embedder)


def test_a_reranker_over_http(service: Any):
    url, handler = service
    handler.answer = say(
        {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
    )
    assert rerank(HttpReranker(url, model="judge"), "tea", ["a", "b"]) == [0.1, 0.9]
    assert handler.asked[0][2] == {"model": "judge", "query": "tea", "documents": ["a", "b"]}


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, b"out of memory"),
        (401, {"error": "no key"}),
        (302, b""),
        (200, b"<html>"),
        (200, []),
        (200, {}),
        (200, {"data": []}),
        (200, {"data": [{"index": 1, "embedding": [1, 2]}]}),
        (200, {"data": 7}),
    ],
)
def test_an_answer_that_is_none_is_a_remote_error(service: Any, status: int, content: Any):
    url, handler = service
    handler.answer = say(content, status)
    with pytest.raises(RemoteError) as caught:
        embed(HttpEmbedder(url, model="small", dim=2), ["a"])
    if status == 500:
        assert "out of memory" in str(caught.value)
    if status == 302:  # and the key went nowhere else
        assert "answered 302" in str(caught.value)


def test_a_vector_of_another_length_from_a_service_is_refused(service: Any):
    url, handler = service
    handler.answer = say({"data": [{"index": 0, "embedding": [1, 2, 3]}]})
    with pytest.raises(InvalidInput, match="2 numbers"):
        embed(HttpEmbedder(url, model="small", dim=2), ["a"])


def test_a_service_that_hangs_is_left_in_time(service: Any):
    url, handler = service
    release = threading.Event()
    handler.answer = staticmethod(lambda body: (release.wait(60), (200, b"{}"))[1])
    with pytest.raises(RemoteError):
        embed(HttpEmbedder(url, model="small", dim=2, timeout_s=0.1), ["a"])
    release.set()


def test_nobody_there_is_a_remote_error():
    with pytest.raises(RemoteError, match="cannot be reached"):
        embed(HttpEmbedder("http://127.0.0.1:9/v1", model="small", dim=2), ["a"])


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "ftp://host/x", "localhost:80", "http://", 7])
def test_what_is_no_address_of_a_service_is_refused(url: Any):
    with pytest.raises(InvalidInput):
        HttpEmbedder(url, model="small", dim=2)


def test_a_key_cannot_end_its_header():
    with pytest.raises(InvalidInput):
        HttpEmbedder("http://localhost/v1", model="small", dim=2, key="a\r\nX-Evil: 1")
