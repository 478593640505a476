"""Embedders: what makes vectors of texts. They are plugged in, and none is needed to search text.

An embedder is an object with a name, a dimension and `embed(texts)`, which returns a vector for each text.
It is somebody else's code, often on another machine: it raises, returns the wrong shape, or never returns.
So whoever needs a vector calls `embed` below, which gives vectors that can be stored or a typed error, and
that in time.

A collection remembers the name of its embedder, not the embedder: `register` says what a name stands for in
this process. Ours (`core/hashing`) are there under "hashing-256" and "hashing-512".
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from strata.core.errors import InvalidInput, NotFound, RemoteError, StrataError
from strata.core.hashing import HashingEmbedder
from strata.core.keys import check_int, check_name

R = TypeVar("R")
Vector = list[float]

TIMEOUT_S: Final = 30.0
MAX_DIM: Final = 65_535


class Embedder(Protocol):
    """Makes vectors of texts."""

    @property
    def name(self) -> str:
        """What a collection remembers it by; the model, if it is one."""

    @property
    def dim(self) -> int:
        """The length of its vectors."""

    @property
    def timeout_s(self) -> float | None:
        """How long a call may take; None: it cannot hang, and is called without a watch on it."""

    def embed(self, texts: Sequence[str], /) -> Any:
        """Return a vector for each text: a list of lists of floats, or a matrix of NumPy."""


def embed(embedder: Embedder, texts: Sequence[str]) -> list[Vector]:
    """Return a vector of finite floats for each of `texts`, as long as the embedder says.

    Raises: RemoteError when the embedder raises, or takes longer than its `timeout_s`; InvalidInput when what
        it returns is not that.
    """
    for text in texts:
        if type(text) is not str:
            raise InvalidInput(f"a text to embed is a str, not {type(text).__name__}")
    if not texts:
        return []
    what = f"embedder {embedder.name!r}"
    found = in_time(what, patience(embedder), lambda: embedder.embed(texts))
    return _checked(found, what, len(texts), embedder.dim)


def in_time(what: str, timeout_s: float | None, call: Callable[[], R]) -> R:
    """Return what `call` returns, within `timeout_s` seconds; None is no limit.

    What hangs goes on hanging in a thread that does not keep the process alive.
    Raises: RemoteError when it raises or takes longer. Errors of ours pass through.
    """
    if timeout_s is None:
        return _called(what, call)
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((_called(what, call), None))
        except BaseException as error:  # it belongs to the caller's thread
            outcome.append((None, error))

    thread = threading.Thread(target=run, name=f"strata: {what}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise RemoteError(
            f"{what} took longer than {timeout_s:g} s", hint="raise its timeout_s, or try again"
        )
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]  # what `call` returned


def check_embedder(embedder: Any) -> Embedder:
    """Return `embedder` if it looks like one.

    Raises: InvalidInput.
    """
    if not callable(getattr(embedder, "embed", None)):
        raise InvalidInput(
            f"an embedder has embed(texts), {type(embedder).__name__} has not",
            hint="strata.search.CallableEmbedder makes one of a function",
        )
    check_name(getattr(embedder, "name", None), "name of an embedder")
    if check_int(getattr(embedder, "dim", None), "the dim of an embedder", 1) > MAX_DIM:
        raise InvalidInput(f"the dim of an embedder is at most {MAX_DIM}, not {embedder.dim}")
    check_timeout(patience(embedder))
    return embedder  # type: ignore[no-any-return]  # that is what was checked


def patience(model: Any) -> float | None:
    """Return how long a call of an embedder or reranker may take."""
    return getattr(model, "timeout_s", TIMEOUT_S)


def check_timeout(timeout_s: Any) -> float | None:
    """Return `timeout_s` if it is a number of seconds above 0, or None."""
    if timeout_s is None:
        return None
    if type(timeout_s) not in (int, float) or not 0 < timeout_s < threading.TIMEOUT_MAX:
        raise InvalidInput(f"timeout_s is a number of seconds above 0, not {timeout_s!r}")
    return float(timeout_s)


_registered: Final[dict[str, Embedder]] = {}


def register(embedder: Embedder) -> None:
    """Let collections of this process that name this embedder use it. The last of a name counts."""
    _registered[check_embedder(embedder).name] = embedder


def registered(name: str) -> Embedder:
    """Return what was registered under a name.

    Raises: NotFound.
    """
    found = _registered.get(name)
    if found is None:
        raise NotFound(
            f"no embedder {name!r} is registered in this process",
            what="embedder",
            name=name,
            hint="strata.search.register(embedder) does that, once in a process",
        )
    return found


for _dim in (256, 512):
    register(HashingEmbedder(_dim))


def _called(what: str, call: Callable[[], R]) -> R:
    try:
        return call()
    except StrataError:
        raise
    except Exception as error:
        raise RemoteError(f"{what} failed: {type(error).__name__}: {error}") from error


def _checked(found: Any, what: str, count: int, dim: int) -> list[Vector]:
    if hasattr(found, "tolist"):
        found = found.tolist()  # of NumPy and its like: one call in C
    if not isinstance(found, list | tuple) or len(found) != count:
        got = f"{len(found)} of them" if isinstance(found, list | tuple) else type(found).__name__
        raise InvalidInput(f"{what} is to return a vector for each of {count} texts, not {got}")
    return [_vector(row, what, dim) for row in found]


def _vector(row: Any, what: str, dim: int) -> Vector:
    if hasattr(row, "tolist"):
        row = row.tolist()
    if not isinstance(row, list | tuple) or len(row) != dim:
        got = f"{len(row)} numbers" if isinstance(row, list | tuple) else type(row).__name__
        raise InvalidInput(f"{what} is to return vectors of {dim} numbers, not {got}")
    return [finite(number, what) for number in row]


def pack_vector(vector: Sequence[float]) -> bytes:
    """Return a vector as the kernel takes it: floats of 4 bytes, little-endian.

    Raises: InvalidInput for a number that does not fit.
    """
    try:
        return struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError:
        largest = max(vector, key=abs)
        raise InvalidInput(f"{largest!r} in a vector does not fit in a float of 4 bytes") from None


def finite(number: Any, what: str) -> float:
    """Return a number that `what` returned, as a float.

    Raises: InvalidInput when it is none, NaN or infinite.
    """
    try:
        found = math.nan if isinstance(number, bool | str | bytes) else float(number)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InvalidInput(f"{what} returned {number!r}, which is no finite number")
    return found
