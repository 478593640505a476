"""Vectors: collections of them, each under a key and with metadata, found by nearness.

    0x00, collection            {dim, metric, quantization, embedder}
    collection, 0x00, key       [vector, metadata, text]: little-endian floats of 4 bytes; a map, or null;
                                what the collection's embedder made the vector of, or null

Invariants: a vector is as long as its collection says, and its numbers are finite. Nearness is found by an
index of the collection, which is declared with it and again where it is missing; see `declare_index`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, cast

import msgspec

from strata.core.atomic import atomically
from strata.core.clock import to_datetime
from strata.core.embedding import Embedder, check_embedder, embed, register, registered
from strata.core.errors import AlreadyExists, InvalidInput, NotFound
from strata.core.keys import check_int, check_key, check_name
from strata.core.protocols import Layout, Passes, Path, Txn
from strata.core.values import text_of
from strata.core.where import compile
from strata.primitives.base import Primitive
from strata.primitives.finding import plan
from strata.primitives.indexes import VECTOR, vector_options

Metric = Literal["cosine", "euclidean", "dot"]
Quantization = Literal["f32", "f16", "i8"]
_GROWTH: Final = 8  # when a filter takes out too many, how many times as many are asked for
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it was made."""

    name: str
    dim: int
    metric: str
    quantization: str
    embedder: str | None = None  # the name of what makes its vectors of texts


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """How many vectors a collection has, and the bytes of their numbers."""

    name: str
    vectors: int
    dim: int
    bytes: int


@dataclass(frozen=True, slots=True)
class VectorEntry:
    """A vector as one commit left it. In a history `deleted` marks a deletion, without vector."""

    key: str
    vector: memoryview[float] | None  # of floats of 4 bytes, read-only: `numpy.asarray` takes it as it is
    metadata: Any
    text: str | None
    version: int
    timestamp: datetime  # aware, UTC
    deleted: bool = False


# A Struct, as each query makes many: see `Event`.
class VectorHit(msgspec.Struct, frozen=True):
    """A vector that is near. `score` is higher for nearer."""

    key: str
    score: float
    metadata: Any
    version: int


Entries = list[VectorEntry]


class Vectors(Primitive):
    """The vector collections of one branch and space."""

    LAYOUT: ClassVar[Layout] = Layout("vectors", text_keys=False, finite=True)
    _VALUE: ClassVar[Path] = (1,)
    _TEXTS: ClassVar[dict[str, Path]] = {"text": (2,), "metadata": (1,)}

    __slots__ = ()

    @classmethod
    def _erasure(cls, name: str, is_prefix: bool) -> tuple[bytes, bool]:
        collection, slash, key = name.partition("/")
        stem = _check_collection(collection).encode() + b"\0"
        return (stem + key.encode(), is_prefix or not key) if slash or not is_prefix else (stem[:-1], True)

    @classmethod
    def _name(cls, key: bytes) -> str:
        collection, _, rest = key.partition(b"\0")
        return f"{collection.decode()}/{rest.decode()}" if collection else rest.decode()

    @classmethod
    def _place(cls, name: str) -> bytes:
        collection, slash, key = name.partition("/")
        _check_collection(collection)
        return _row(collection, check_key(key)) if slash else _head(collection)

    @classmethod
    def _shown(cls, key: bytes, value: Any, version: int, time: int, expires: int | None) -> Any:
        collection, _, name = key.partition(b"\0")
        if not collection:
            return Collection(name.decode(), **value)
        return _entry(name.decode(), value, version, time)

    @classmethod
    def _line(cls, shown: Any) -> str:
        if isinstance(shown, Collection):
            return f"{shown.dim} dimensions, {shown.metric}"
        if shown.vector is None:
            return "deleted"
        numbers = ", ".join(f"{number:.3g}" for number in shown.vector[:4])
        more = ", ..." if len(shown.vector) > 4 else ""
        return f"[{numbers}{more}]" + (f" {text_of(shown.metadata)}" if shown.metadata else "")

    # -- collections

    def create_collection(
        self,
        name: str,
        dim: int | None = None,
        *,
        metric: Metric = "cosine",
        quantization: Quantization = "f32",
        embedder: Embedder | str | None = None,
    ) -> Collection:
        """Make a collection of vectors of `dim` numbers, and return it.

        Args:
            metric: what nearness is: "cosine" (score from -1 to 1; 0 for a vector of zeros), "euclidean"
                (1 / (1 + distance)), "dot" (the product).
            quantization: how the index keeps each number: "f32", or "f16" or "i8" for a half or a quarter of
                the memory. Scores are those of what it keeps; `get` returns what was stored, to the bit.
            embedder: what makes vectors of texts, or the name it was registered by; `dim` is its own then.
                The collection remembers the name: see `strata.search.register`.
        Raises: AlreadyExists for the name; InvalidInput.
        """
        made = _collection(name, dim, metric, quantization, embedder)

        def make(txn: Txn) -> None:
            if txn.contains(_head(name)):
                raise AlreadyExists(what="collection", name=name)
            txn.put(_head(name), _settings(made))

        atomically(self._txn, make)
        self._declare(made)
        return made

    def collection(self, name: str) -> Collection:
        """Return the collection `name`.

        Raises: NotFound.
        """
        found = self._txn.get(_head(name))
        if found is None:
            raise NotFound(what="collection", name=name, hint="make it with create_collection")
        return Collection(name, **found)

    def collections(self) -> list[Collection]:
        """Return the collections, by name."""
        rows = self._txn.scan(b"\0", None, None, False, None)
        return [Collection(cast(bytes, key)[1:].decode(), **value) for key, value in rows]

    def drop(self, name: str) -> bool:
        """Remove a collection and all its vectors, as one commit; return whether there was one."""

        def remove(txn: Txn) -> bool:
            if not txn.contains(_head(name)):
                return False
            keys = txn.scan_keys(_prefix(name), None, None, False, None)
            txn.delete_many([*keys, _head(name)])
            return True

        return atomically(self._txn, remove)[0]

    def stats(self, name: str) -> CollectionStats:
        """Return how many vectors a collection has and what their numbers take.

        Raises: NotFound. Cost: looks at each key.
        """
        made = self.collection(name)
        count = self.count(name)
        return CollectionStats(name, count, made.dim, count * made.dim * _FLOAT_BYTES)

    # -- writing

    def upsert(
        self,
        collection: str,
        key: str,
        vector: Any = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
    ) -> int | None:
        """Store a vector under `key`, in the place of what is there; return the version of the commit.

        Args:
            vector: a list of numbers, or anything that shows floats of 4 or 8 bytes as a buffer, as arrays of
                NumPy do.
            metadata: a map that `query` can filter by.
            text: instead of the vector, if the collection has an embedder; it is kept beside it.
        Raises: NotFound for the collection; InvalidInput for another dimension, NaN and infinity, naming the
            key; RemoteError when the embedder fails or takes too long: nothing is stored then.
        """
        return self.upsert_many(
            collection,
            [key],
            None if vector is None else [vector],
            None if metadata is None else [metadata],
            texts=None if text is None else [text],
        )

    def upsert_many(
        self,
        collection: str,
        keys: Sequence[str],
        vectors: Any = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        texts: Sequence[str] | None = None,
    ) -> int | None:
        """Store many vectors as one commit; return its version. Of a key given twice the last wins.

        Args:
            vectors: a matrix with a row for each key, as NumPy's, or a sequence of what `upsert` takes.
            metadata: a map or None for each key.
            texts: instead of the vectors, if the collection has an embedder.
        Raises: as `upsert`; nothing is stored then.
        """
        made = self.collection(collection)
        if (vectors is None) == (texts is None):
            raise InvalidInput("either vectors or texts have to be given", hint="texts need an embedder")
        if texts is not None:
            vectors = embed(self._embedder(made), list(texts))
        rows = list(_packed(vectors, made.dim, keys))
        given = metadata if metadata is not None else [None] * len(rows)
        read = texts if texts is not None else [None] * len(rows)
        if not len(keys) == len(rows) == len(given) == len(read):
            raise InvalidInput(
                f"there are {len(keys)} keys, {len(rows)} vectors and {len(given)} metadata, not equally many"
            )
        for one in given:
            if one is not None and not isinstance(one, Mapping):
                raise InvalidInput(f"metadata is a map, not {type(one).__name__}")
        stored = [
            (_row(collection, check_key(key)), [row, one, text])
            for key, row, one, text in zip(keys, rows, given, read, strict=True)
        ]
        return self._txn.put_many(stored)

    def delete(self, collection: str, key: str) -> bool | None:
        """Remove a vector; return whether it existed (None inside a transaction)."""
        return self._txn.delete(_row(collection, check_key(key)))

    def delete_where(self, collection: str, where: Mapping[str, Any]) -> int | None:
        """Remove the vectors whose metadata passes `where`, as one commit; return how many (None inside).

        Raises: InvalidInput for an unknown operator. Cost: reads the collection.
        """
        passes = compile(where)
        self.collection(collection)

        def remove(txn: Txn) -> int:
            rows = txn.scan(_prefix(collection), None, None, False, None)
            keys = [key for key, value in rows if passes(value[1])]
            txn.delete_many(keys)
            return len(keys)

        count, version = atomically(self._txn, remove)
        return count if version is not None else None

    # -- reading

    def get(self, collection: str, key: str) -> VectorEntry | None:
        """Return the vector under `key`, with metadata and version; or None."""
        found = self._txn.entry(_row(collection, check_key(key)))
        return None if found is None else _entry(key, *found[:3])

    def exists(self, collection: str, key: str) -> bool:
        """Return whether there is a vector under `key`."""
        return self._txn.contains(_row(collection, check_key(key)))

    def keys(self, collection: str, prefix: str = "") -> Iterator[str]:
        """Return the keys of a collection in byte order: those that begin with `prefix`."""
        stem = _prefix(collection)
        found = self._keys(stem + prefix.encode(), None, None, False, None)
        return (key[len(stem) :].decode() for key in found)

    def count(self, collection: str) -> int:
        """Return how many vectors a collection has.

        Raises: NotFound. Cost: looks at each key.
        """
        self.collection(collection)
        return self._txn.count(_prefix(collection), None, None)

    def history(
        self, collection: str, key: str, *, before: int | None = None, limit: int | None = None
    ) -> Entries:
        """Return the versions of a vector, newest first, deletions too.

        Args:
            before: only versions below it.
        """
        rows = self._history(_row(collection, check_key(key)), before, limit)
        return [_entry(key, value, version, time) for value, version, time, *_ in rows]

    def query(
        self,
        collection: str,
        vector: Any = None,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
        recall: float = 0.99,
    ) -> list[VectorHit]:
        """Return the `k` nearest vectors, best first, equal ones by key; all, if there are no more.

        Args:
            vector: a list of numbers or an array, as long as the collection says.
            where: what metadata has to be, as `{"$.lang": "en", "year": {"gte": 2020}}`; see `core.where`. An
                ordered index over these paths (`primitive="vectors"`) makes it fast.
            text: instead of the vector, if the collection has an embedder.
            recall: which part of the nearest is likely to be found, in a collection of more than some 10,000
                vectors; below that all are. 1.0 looks at every vector, and is exact.
        Raises: NotFound for the collection; InvalidInput.
        """
        made = self.collection(collection)
        if check_int(k, "k") == 0:
            return []
        if (vector is None) == (text is None):
            raise InvalidInput("either a vector or a text is asked for", hint="a text needs an embedder")
        if text is not None:
            vector = embed(self._embedder(made), [text])[0]
        asked = next(_packed([vector], made.dim, ["the query"]))
        _check_recall(recall)
        if where is None:
            return self._hits(made, self._nearest(made, asked, k, None, recall))
        return self._filtered(made, asked, k, where, recall)

    def _filtered(
        self, made: Collection, asked: bytes, k: int, where: Mapping[str, Any], recall: float
    ) -> list[VectorHit]:
        passes = compile(where)
        how = plan(where, self._txn.indexes(), self._VALUE, f"{made.name}\0", None)
        filters: Passes | None = None
        if how.index is not None:
            filters = {"values": [(how.index, list(how.ranges))]}
            if how.exact:
                return self._hits(made, self._nearest(made, asked, k, filters, recall))
        wanted = 4 * k
        while True:
            found = self._hits(made, self._nearest(made, asked, wanted, filters, recall))
            hits = [hit for hit in found if passes(hit.metadata)]
            if len(hits) >= k or len(found) < wanted:
                return hits[:k]
            wanted *= _GROWTH

    def _nearest(
        self, made: Collection, asked: bytes, k: int, filters: Passes | None, recall: float
    ) -> list[tuple[Any, int, float]]:
        index = index_name(self._txn.names[1], made)
        try:
            return self._txn.by_vector(index, asked, k, filters, recall)
        except NotFound:
            self._declare(made)
            return self._txn.by_vector(index, asked, k, filters, recall)

    def _hits(self, made: Collection, rows: list[tuple[Any, int, float]]) -> list[VectorHit]:
        stem, get, path = len(_prefix(made.name)), self._txn.get_path, self._VALUE
        return [
            VectorHit(key[stem:].decode(), score, get(key, path), version) for key, version, score in rows
        ]

    def _declare(self, made: Collection) -> None:
        self._txn.declare_index(
            index_name(self._txn.names[1], made),
            _prefix(made.name),
            {"type": VECTOR, "path": [0], **vector_options(made.dim, made.metric, made.quantization)},
        )

    def _embedder(self, made: Collection) -> Embedder:
        if made.embedder is None:
            raise InvalidInput(
                f"collection {made.name!r} has no embedder", hint="give vectors, or make it with embedder="
            )
        return registered(made.embedder)


def declare_named(txn: Txn, name: str) -> bool:
    """Declare the index that goes by `name` if it is that of a collection; return whether it is.

    It says nothing that is not there already, so whoever may read may have it made.
    """
    space, kind = txn.names[1:]
    if kind != Vectors.LAYOUT.kind:
        return False
    vectors = Vectors(txn)
    made = next((made for made in vectors.collections() if index_name(space, made) == name), None)
    if made is not None:
        vectors._declare(made)
    return made is not None


def index_name(space: str, made: Collection) -> str:
    """Return the name of a collection's index. Branches may have other collections under one name."""
    return f"{VECTOR}s/{space}/{made.name}/{made.dim}/{made.metric}/{made.quantization}"


def _check_collection(name: Any) -> str:
    check_name(name, "collection")
    if "/" in name:
        raise InvalidInput(f"the name of collection {name!r} has a slash", hint="use a dot")
    return cast(str, name)


def _head(collection: str) -> bytes:
    return b"\0" + _check_collection(collection).encode()


def _prefix(collection: str) -> bytes:
    return _check_collection(collection).encode() + b"\0"


def _row(collection: str, key: str) -> bytes:
    return _prefix(collection) + key.encode()


def _settings(made: Collection) -> dict[str, Any]:
    return {
        "dim": made.dim,
        "metric": made.metric,
        "quantization": made.quantization,
        "embedder": made.embedder,
    }


def _collection(
    name: str, dim: int | None, metric: str, quantization: str, embedder: Embedder | str | None
) -> Collection:
    _check_collection(name)
    if embedder is not None:
        if not isinstance(embedder, str):
            register(check_embedder(embedder))
            embedder = embedder.name
        made = registered(embedder).dim
        if dim is not None and dim != made:
            raise InvalidInput(f"embedder {embedder!r} makes vectors of {made} numbers, not {dim}")
        dim = made
    return Collection(name, **vector_options(dim, metric, quantization), embedder=embedder)


def _entry(key: str, value: Any, version: int, time: int) -> VectorEntry:
    if value is None:
        return VectorEntry(key, None, None, None, version, to_datetime(time), True)
    vector, metadata, text = value
    return VectorEntry(key, memoryview(vector).cast("f"), metadata, text, version, to_datetime(time))


def _check_recall(recall: Any) -> None:
    if type(recall) not in (int, float) or not 0 < recall <= 1:
        raise InvalidInput(f"recall is a number above 0 and up to 1, not {recall!r}")


def _packed(vectors: Any, dim: int, keys: Sequence[str]) -> Iterator[bytes]:
    """Yield the bytes of each vector.

    Raises: InvalidInput for another dimension, and for what is no finite number; it names the key.
    """
    matrix = _matrix(vectors)
    if matrix is not None:
        rows, columns = cast(tuple[int, int], matrix.shape)
        if columns != dim:
            raise InvalidInput(f"a vector of this collection has {dim} numbers, not {columns}")
        flat = matrix.cast("B")
        width = dim * _FLOAT_BYTES
        for number in range(rows):
            row = flat[number * width : (number + 1) * width]
            yield _finite(row.cast("f"), bytes(row), keys, number)
        return
    if isinstance(vectors, (str, bytes)) or not isinstance(vectors, Iterable):
        raise InvalidInput(f"vectors are a matrix or a sequence of vectors, not {type(vectors).__name__}")
    for number, vector in enumerate(vectors):
        floats = _floats(vector, keys, number)
        if len(floats) != dim:
            raise InvalidInput(
                f"vector {_which(keys, number)} has {len(floats)} numbers, and the collection {dim}"
            )
        yield _finite(floats, floats.tobytes(), keys, number)


def _matrix(vectors: Any) -> memoryview | None:
    """Return a matrix of floats of 4 bytes that lie behind each other as it is; None for anything else."""
    try:
        view = memoryview(vectors)
    except TypeError:
        return None
    return view if view.ndim == 2 and view.format == "f" and view.c_contiguous else None


def _floats(vector: Any, keys: Sequence[str], number: int) -> array[float]:
    try:
        view = memoryview(vector)
    except TypeError:
        view = None
    try:
        if view is not None and view.ndim == 1 and view.format in ("f", "d"):
            return _of_bytes(view.tobytes()) if view.format == "f" else array("f", view.tolist())
        if isinstance(vector, (str, bytes, Mapping)) or any(isinstance(part, bool) for part in vector):
            raise TypeError
        return array("f", vector)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(
            f"vector {_which(keys, number)} is no sequence of numbers that 4 bytes hold"
        ) from None


def _of_bytes(packed: bytes) -> array[float]:
    floats = array("f")
    floats.frombytes(packed)
    return floats


def _finite(floats: Iterable[float], packed: bytes, keys: Sequence[str], number: int) -> bytes:
    if not all(map(math.isfinite, floats)):
        raise InvalidInput(f"vector {_which(keys, number)} has NaN, infinity, or a number beyond 4 bytes")
    return packed


def _which(keys: Sequence[str], number: int) -> str:
    return repr(keys[number]) if number < len(keys) else f"number {number}"
