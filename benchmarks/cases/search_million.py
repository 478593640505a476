"""A million vectors of 128 numbers, in 1,000 clusters and in 10,000; next to faiss, through `db.vectors`.

As in `search_vectors`: normal about their centres with a deviation of 0.6, as queries are; cosine, the ten
nearest, one thread. It takes some ten minutes and 4 GB of memory, so it is no part of `make bench`: it runs
by name, `python -m benchmarks.run --cases search_million`. usearch and hnswlib would take twenty minutes
each to build; `search_vectors` has them, with a tenth of the rows.

`build` is the checkpoint after the upserts, compaction to one run, and the first answer: seconds, and seconds
of processor in all threads. Of each query the best of all rounds counts. Recall of 0.99 is the default; 0.95
is what the goal asks for. `memory` is what `db.info` says of the indexes, without the tables and blocks that
the database may keep beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.cases.search_vectors import DIM, SPREAD, Faiss, K, Ours
from benchmarks.measure import Figures, timed_singly
from benchmarks.processes import Bench, rotated
from benchmarks.registry import OURS
from benchmarks.report import Line
from benchmarks.rows import SEED, Goal
from benchmarks.searchers import Ask, made, seconds

CLUSTERS = (1_000, 10_000)
WANTED = {"": 0.99, ", recall=0.95": 0.95}
UNITS = {"upsert": "s", "build": "s", "build, CPU": "s", "memory": "MB"} | {
    f"{what}{wanted}": "of 1" if what == "recall" else "us"
    for wanted in WANTED
    for what in ("p50", "p95", "recall")
}
NAMES = tuple(f"million, {clusters:,} clusters: {what}" for clusters in CLUSTERS for what in UNITS)
GOALS = {"p95": Goal(1000), "recall": Goal(0.95)}


class Whole(Ours):
    """All rows in one run, as compaction leaves them after a while: each run has cells of its own."""

    def build(self, corpus: Any) -> None:
        self.db.checkpoint()
        self.db.compact()
        self.asker("all")(corpus.queries[0])


class Million:
    """Vectors in a matrix, and what `Ours` and `Faiss` ask of a corpus."""

    def __init__(self, count: int, clusters: int, queries: int) -> None:
        import numpy

        self.count, self.dim = count, DIM
        chance = numpy.random.default_rng(SEED)
        centres = chance.standard_normal((clusters, DIM), numpy.float32)

        def rows(count: int) -> Any:
            about = centres[chance.integers(clusters, size=count)]
            about += SPREAD * chance.standard_normal((count, DIM), numpy.float32)
            return about

        self.vectors, self.queries = rows(count), rows(queries)

    def part(self, first: int, last: int) -> Any:
        return self.vectors[first:last]

    def matrix(self) -> Any:
        return self.vectors

    def true(self) -> list[set[int]]:
        """The numbers of the nearest of each query, from all."""
        import numpy

        lengths = numpy.linalg.norm(self.vectors, axis=1)
        near = (self.vectors @ self.queries.T) / lengths[:, None]
        return [set(numpy.argpartition(-column, K)[:K].tolist()) for column in near.T]


def measure(bench: Bench) -> list[Line]:
    lines: list[Line] = []
    for clusters in CLUSTERS:
        lines += _measure(bench, clusters)
    return lines


def _measure(bench: Bench, clusters: int) -> list[Line]:
    names = {what: f"million, {clusters:,} clusters: {what}" for what in UNITS}
    figures = {what: Figures(names[what], "buffered", UNITS[what], more="recall" in what) for what in UNITS}
    bench.say(f"making vectors in {clusters:,} clusters")
    corpus = Million(bench.size(1_000_000, 20_000), bench.size(clusters, 200), bench.size(500, 5))
    makers: dict[str, Callable[[], Any]] = {"faiss": Faiss}
    if OURS in bench.systems:
        makers = {OURS: lambda: Whole(bench.place(f"ours-{clusters}"))} | makers
    found = made(makers, figures.values())
    for name, system in found.items():
        bench.say(f"{corpus.count:,} vectors: {name}")
        _build(name, system, corpus, figures)
    true = corpus.true()
    for wanted, recall in WANTED.items():
        askers = {name: system.asker("all") for name, system in found.items()}
        if OURS in found:
            askers[OURS] = found[OURS].asker("all", recall)
        for name, took in _best(askers, corpus.queries, bench.rounds).items():
            figures[f"p50{wanted}"].rounds[name] = [took[len(took) // 2]]
            figures[f"p95{wanted}"].rounds[name] = [took[len(took) * 95 // 100]]
        for name, ask in askers.items():
            near = sum(len(near & set(ask(query))) for near, query in zip(true, corpus.queries, strict=True))
            figures[f"recall{wanted}"].rounds[name] = [near / sum(map(len, true))]
    for system in found.values():
        system.close()
    return [(line, GOALS.get(what)) for what, line in figures.items()]


def _best(askers: dict[str, Ask], queries: Any, rounds: int) -> dict[str, list[float]]:
    """Of each, the least that each query took in any round, in us and in order: so others on the machine, who
    take their turns of some ms, do not count, and all other queries lie between two turns of one."""
    best = {name: [float("inf")] * len(queries) for name in askers}
    for number in range(rounds):
        for name in rotated(list(askers), number):
            took = timed_singly(askers[name], [(query,) for query in queries])
            best[name] = [min(pair) for pair in zip(best[name], [ns / 1000 for ns in took], strict=True)]
    return {name: sorted(took) for name, took in best.items()}


def _build(name: str, system: Any, corpus: Any, figures: dict[str, Figures]) -> None:
    if name == OURS:
        figures["upsert"].rounds[name] = [seconds(lambda: system.put(corpus))]
    started = time.process_time()
    figures["build"].rounds[name] = [seconds(lambda: system.build(corpus))]
    figures["build, CPU"].rounds[name] = [time.process_time() - started]
    if name == OURS:
        figures["memory"].rounds[name] = [system.db.info().memory.indexes / 1e6]
