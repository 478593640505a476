"""Vectors: 100,000 of 128 numbers in 1,000 clusters; next to usearch, hnswlib, faiss and NumPy.

Vectors lie about their centres with a deviation of 0.6, as queries do; cosine, the ten nearest, with one
thread. Filters pass one in ten and one in a hundred, by metadata with an ordered index; peers get the allowed
numbers as they like them best. Recall is against exact search: NumPy's, or our own where there is none.
`build` is the checkpoint after the upserts, and the first answer. `exact` is another collection: 20,000 of
768 numbers, with `recall=1.0`. `few` is a small one, 10,000 of 128: StrataDB, which looks at all of them,
takes seconds for a query of 100,000 and minutes to store them.

NumPy multiplies with as many threads as there are processors, unless OPENBLAS_NUM_THREADS=1 is set.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import strata
from benchmarks.measure import Figures
from benchmarks.processes import Bench
from benchmarks.registry import OURS
from benchmarks.report import Line
from benchmarks.rows import SEED, Goal
from benchmarks.searchers import in_turns, made, seconds

DIM, EXACT_DIM = 128, 768
SPREAD = 0.6
K = 10
GROUPS = 100
FILTERS = {"10 %": GROUPS // 10, "1 %": 1}  # how many groups pass
WAYS = ("all", *FILTERS)
BATCH = 2000
NAMES = (
    "vectors: upsert",
    "vectors: build",
    *(f"vectors: of {way}, {what}" for way in WAYS for what in ("p50", "p95", "recall")),
    "vectors: exact",
    "vectors: few, upsert",
    "vectors: few, p50",
)
GOALS = {
    "vectors: build": Goal(6),
    "vectors: of all, p50": Goal(80),
    "vectors: of all, recall": Goal(0.95),
    "vectors: exact": Goal(1800),
} | {
    f"vectors: of {way}, {what}": Goal(limit)
    for way in FILTERS
    for what, limit in (("p50", 100), ("recall", 0.99))
}


class Corpus:
    """Vectors one after the other, as in a matrix; a vector's group is its number's last digits."""

    def __init__(self, count: int, dim: int, queries: int) -> None:
        chance = Random(SEED)
        self.count, self.dim = count, dim
        gauss = chance.gauss
        centres = [[gauss(0, 1) for _ in range(dim)] for _ in range(max(1, count // 100))]
        self.flat = array("f")
        for _ in range(count):
            self.flat.extend([gauss(middle, SPREAD) for middle in chance.choice(centres)])
        self.queries = [
            array("f", [gauss(middle, SPREAD) for middle in chance.choice(centres)]) for _ in range(queries)
        ]

    def part(self, first: int, last: int) -> memoryview:
        flat = memoryview(self.flat)[first * self.dim : last * self.dim]
        return flat.cast("B").cast("f", [last - first, self.dim])

    def matrix(self) -> Any:
        import numpy

        return numpy.frombuffer(self.flat, numpy.float32).reshape(self.count, self.dim)

    def allowed(self, way: str) -> range | list[int]:
        """The numbers that a filter passes."""
        groups = FILTERS.get(way, GROUPS)
        return [number for number in range(self.count) if number % GROUPS < groups]


def measure(bench: Bench) -> list[Line]:
    figures = {name: Figures(name, "buffered", _unit(name), more="recall" in name) for name in NAMES}
    bench.say("making vectors")
    corpus = Corpus(bench.size(100_000, 1_000), DIM, bench.size(200, 5))
    makers: dict[str, Any] = {"usearch": USearch, "hnswlib": HnswLib, "faiss": Faiss, "numpy": NumPy}
    if OURS in bench.systems:
        makers = {OURS: lambda: Ours(bench.place("ours"))} | makers
    found = made(makers, figures.values())
    for name, system in found.items():
        bench.say(f"{corpus.count:,} vectors: {name}")
        if name == OURS:
            figures["vectors: upsert"].rounds[name] = [seconds(lambda: system.put(corpus))]  # noqa: B023
        figures["vectors: build"].rounds[name] = [seconds(lambda: system.build(corpus))]  # noqa: B023
    for way in WAYS:
        bench.say(f"the nearest of {way}")
        _ask(bench, figures, found, corpus, way)
    for system in found.values():
        system.close()
    _exact(bench, figures["vectors: exact"])
    _few(bench, figures["vectors: few, upsert"], figures["vectors: few, p50"])
    return [(figures[name], GOALS.get(name)) for name in NAMES]


def _unit(name: str) -> str:
    if "recall" in name:
        return "of 1"
    return "s" if name.endswith(("upsert", "build")) else "us"


def _ask(bench: Bench, figures: dict[str, Figures], found: dict[str, Any], corpus: Corpus, way: str) -> None:
    half, most, recall = (figures[f"vectors: of {way}, {what}"] for what in ("p50", "p95", "recall"))
    askers = {name: system.asker(way) for name, system in found.items()}
    for name, ask in list(askers.items()):
        if ask is None:
            del askers[name]
            for line in (half, most, recall):
                line.absent[name] = "takes no filter"
    if not askers:
        return
    in_turns(askers, corpus.queries, bench.rounds, half, most)
    exact = askers["numpy"] if "numpy" in askers else found[OURS].asker(way, 1.0)
    true = [set(exact(query)) for query in corpus.queries]
    for name, ask in askers.items():
        hits = sum(
            len(nearest & set(ask(query))) for nearest, query in zip(true, corpus.queries, strict=True)
        )
        recall.rounds[name] = [hits / sum(map(len, true))]


def _exact(bench: Bench, figures: Figures) -> None:
    corpus = Corpus(bench.size(20_000, 200), EXACT_DIM, bench.size(20, 5))
    makers: dict[str, Any] = {"faiss": lambda: Faiss(exact=True), "numpy": NumPy}
    if OURS in bench.systems:
        makers = {OURS: lambda: Ours(bench.place("exact"))} | makers
    found = made(makers, [figures])
    for name, system in found.items():
        bench.say(f"{corpus.count:,} vectors of {EXACT_DIM} numbers: {name}")
        if name == OURS:
            system.put(corpus)
        system.build(corpus)
    askers = {
        name: system.asker("all", 1.0) if name == OURS else system.asker("all")
        for name, system in found.items()
    }
    in_turns(askers, corpus.queries, bench.rounds, figures)
    for system in found.values():
        system.close()


def _few(bench: Bench, upsert: Figures, half: Figures) -> None:
    corpus = Corpus(bench.size(10_000, 200), DIM, bench.size(10, 3))
    makers: dict[str, Any] = {"stratadb": lambda: StrataDb(bench.place("stratadb"))}
    if OURS in bench.systems:
        makers = {OURS: lambda: Ours(bench.place("few"))} | makers
    found = made(makers, [upsert, half])
    for name, system in found.items():
        bench.say(f"{corpus.count:,} vectors: {name}")
        upsert.rounds[name] = [seconds(lambda: system.put(corpus))]  # noqa: B023
        system.build(corpus)
    in_turns({name: system.asker("all") for name, system in found.items()}, corpus.queries, 1, half)
    for system in found.values():
        system.close()


Asker = Callable[[Any], list[int]]


class Ours:
    def __init__(self, path: Path) -> None:
        self.db = strata.open(path / "vectors.strata", memory_budget=4 << 30)

    def put(self, corpus: Corpus) -> None:
        self.db.vectors.create_collection("near", corpus.dim)
        self.db.indexes.create("by_g", primitive="vectors", kind="ordered", paths="$.g")
        for first in range(0, corpus.count, BATCH):
            numbers = range(first, min(first + BATCH, corpus.count))
            vectors = corpus.part(numbers.start, numbers.stop)
            metadata = [{"g": number % GROUPS} for number in numbers]
            self.db.vectors.upsert_many("near", [f"k{number:06}" for number in numbers], vectors, metadata)

    def build(self, corpus: Corpus) -> None:
        self.db.checkpoint()
        self.asker("all")(corpus.queries[0])

    def asker(self, way: str, recall: float = 0.99) -> Asker:
        query = self.db.vectors.query
        where = {"g": {"lt": FILTERS[way]}} if way in FILTERS else None
        return lambda asked: [int(hit.key[1:]) for hit in query("near", asked, K, where, recall=recall)]

    def close(self) -> None:
        self.db.close()


class StrataDb:
    def __init__(self, path: Path) -> None:
        import stratadb

        self.db = stratadb.open(path / "stratadb", durability="standard", ipc="off")

    def put(self, corpus: Corpus) -> None:
        self.db.vectors.create_collection("near", corpus.dim)
        for first in range(0, corpus.count, BATCH):
            last = min(first + BATCH, corpus.count)
            vectors = corpus.part(first, last).tolist()
            rows = [
                {"key": f"k{number:06}", "vector": vector, "metadata": {"g": number % GROUPS}}
                for number, vector in enumerate(vectors, first)
            ]
            self.db.vectors.upsert_many("near", rows)

    def build(self, corpus: Corpus) -> None:
        self.asker("all")(corpus.queries[0])

    def asker(self, way: str) -> Asker:
        assert way == "all"
        query = self.db.vectors.query
        return lambda asked: [int(hit.key[1:]) for hit in query("near", asked.tolist(), k=K)]

    def close(self) -> None:
        self.db.close()


class Peer:
    """One that holds numbers beside vectors of length 1."""

    def build(self, corpus: Corpus) -> None:
        import numpy

        self.np, self.corpus = numpy, corpus
        matrix = corpus.matrix()
        self.fill(matrix / numpy.linalg.norm(matrix, axis=1, keepdims=True))

    def fill(self, vectors: Any) -> None:
        raise NotImplementedError

    def one(self, asked: Any) -> Any:
        """A query as a matrix of one row, of length 1."""
        row = self.np.frombuffer(asked, self.np.float32).reshape(1, -1)
        return row / self.np.linalg.norm(row)

    def close(self) -> None: ...


class NumPy(Peer):
    def __init__(self) -> None:
        import numpy  # noqa: F401

    def fill(self, vectors: Any) -> None:
        self.vectors = vectors

    def asker(self, way: str) -> Asker:
        numbers = self.np.asarray(self.corpus.allowed(way))
        chosen = self.vectors if way == "all" else self.vectors[numbers]

        def ask(asked: Any) -> list[int]:
            near = chosen @ self.one(asked)[0]
            best = self.np.argpartition(-near, min(K, len(near) - 1))[:K]
            found: list[int] = numbers[best].tolist()
            return found

        return ask


class USearch(Peer):
    def __init__(self) -> None:
        import numpy  # noqa: F401
        import usearch.index

        self.lib = usearch.index

    def fill(self, vectors: Any) -> None:
        self.index = self.lib.Index(ndim=vectors.shape[1], metric="cos")
        self.index.add(self.np.arange(len(vectors)), vectors)

    def asker(self, way: str) -> Asker | None:
        if way != "all":
            return None
        return lambda asked: self.index.search(self.one(asked)[0], K, threads=1).keys.tolist()


class HnswLib(Peer):
    def __init__(self) -> None:
        import hnswlib
        import numpy  # noqa: F401

        self.lib = hnswlib

    def fill(self, vectors: Any) -> None:
        self.index = self.lib.Index("cosine", vectors.shape[1])
        self.index.init_index(len(vectors), M=16, ef_construction=200)
        self.index.add_items(vectors)
        self.index.set_ef(50)

    def asker(self, way: str) -> Asker:
        groups = FILTERS.get(way)
        given = {} if groups is None else {"filter": lambda number: number % GROUPS < groups}
        return lambda asked: self.index.knn_query(self.one(asked), K, num_threads=1, **given)[0][0].tolist()


class Faiss(Peer):
    def __init__(self, exact: bool = False) -> None:
        import faiss
        import numpy  # noqa: F401

        self.lib, self.exact = faiss, exact

    def fill(self, vectors: Any) -> None:
        flat = self.lib.IndexFlatIP(vectors.shape[1])
        if self.exact:
            self.index = flat
        else:
            lists = min(1024, len(vectors) // 40)
            self.index = self.lib.IndexIVFFlat(flat, vectors.shape[1], lists, self.lib.METRIC_INNER_PRODUCT)
            self.index.train(vectors)
        self.index.add(vectors)
        self.lib.omp_set_num_threads(1)  # from here on it only answers

    def asker(self, way: str) -> Asker:
        if self.exact:
            return lambda asked: self.index.search(self.one(asked), K)[1][0].tolist()
        given: dict[str, Any] = {"nprobe": 16 if way == "all" else 32}
        if way != "all":
            given["sel"] = self.lib.IDSelectorBatch(self.np.asarray(self.corpus.allowed(way)))
        params = self.lib.SearchParametersIVF(**given)
        return lambda asked: self.index.search(self.one(asked), K, params=params)[1][0].tolist()
