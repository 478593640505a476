"""Words: 50,000 short documents, ranked by BM25; next to SQLite FTS5, bm25s and tantivy.

Words are drawn by Zipf's law from 20,000. The query has three of them, which about 200, 1,000 and 4,000
documents have, and all its rows are ranked. `build` begins with the documents in the database (for peers: in
memory) and ends with the first answer. A document is updated and visible when the query for a word that only
its new text has finds it. Ours goes the way that `db.search` goes inside; what the whole of `db.search`
takes, over all primitives and with keys and scores read, is a row of its own.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from itertools import accumulate
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
from strata.primitives import Json

WORDS = 20_000
LENGTH = 15
FOUND_IN = (200, 1000, 4000)
K = 10
KEEPERS = (OURS, "fts5")  # the others have no documents, only what finds them
NAMES = (
    "text: put",
    "text: build",
    "text: three words, ten best",
    "text: after a checkpoint",
    "text: db.search, the same",
    "text: update and visible",
)


def measure(bench: Bench) -> list[Line]:
    put, build = (Figures(name, "buffered", "documents/s", more=True) for name in NAMES[:2])
    fresh, rested, whole, update = (Figures(name, "buffered", "us") for name in NAMES[2:])
    documents = _documents(bench.size(50_000, 500))
    query = _query(documents)
    makers: dict[str, Any] = {"fts5": Fts5, "bm25s": Bm25s, "tantivy": Tantivy}
    if OURS in bench.systems:
        makers = {OURS: lambda: Ours(bench.place("ours"))} | makers
    found = made(makers, (put, build, fresh, rested, update))
    for name, system in found.items():
        bench.say(f"{len(documents):,} documents to search: {name}")
        spent = seconds(lambda: system.put(documents))  # noqa: B023
        if name in KEEPERS:
            put.rounds[name] = [len(documents) / spent]
        build.rounds[name] = [len(documents) / seconds(lambda: system.build(query))]  # noqa: B023
    askers = {name: system.ask for name, system in found.items()}
    queries = [query] * bench.size(200, 5)
    in_turns(askers, queries, bench.rounds, fresh)
    if OURS in found:
        found[OURS].db.checkpoint()
        in_turns(askers, queries, bench.rounds, rested)
        in_turns({OURS: found[OURS].search}, queries, bench.rounds, whole)
    changers = {name: system.change for name, system in found.items() if hasattr(system, "change")}
    in_turns(changers, range(bench.size(50, 5)), bench.rounds, update)
    for system in found.values():
        system.close()
    for line in (put, build, fresh, rested, whole, update):
        line.absent["stratadb"] = "has no search for words"
    if "bm25s" in found:
        update.absent["bm25s"] = "builds everything again"
    goals = (None, Goal(100_000), Goal(40), Goal(40), Goal(40), Goal(20))
    return list(zip((put, build, fresh, rested, whole, update), goals, strict=True))


def _documents(count: int) -> list[str]:
    chance = Random(SEED)
    words = [f"w{number}" for number in range(WORDS)]
    weights = list(accumulate(1 / (number + 1) for number in range(WORDS)))
    return [" ".join(chance.choices(words, cum_weights=weights, k=LENGTH)) for _ in range(count)]


def _query(documents: list[str]) -> str:
    """Three words that about as many documents have as FOUND_IN says, of 50,000."""
    having = Counter(word for text in documents for word in set(text.split()))
    wanted = [number * len(documents) / 50_000 for number in FOUND_IN]
    return " ".join(min(having, key=lambda word: abs(having[word] - number)) for number in wanted)


class Changing:
    """Updates of one document after the other; each time its new text has a word of its own."""

    serial = 0

    def news(self) -> tuple[int, str, str]:
        """A document, its text, and the word that only it has."""
        self.serial += 1
        return self.serial, f"some new words w1 w2 w3 w4 and fresh{self.serial}", f"fresh{self.serial}"


class Ours(Changing):
    def __init__(self, path: Path) -> None:
        self.db = strata.open(path / "text.strata", memory_budget=1 << 30)
        self.rows = self.db._store.branch("main").keyspace("default", Json.LAYOUT)

    def put(self, documents: list[str]) -> None:
        for first in range(0, len(documents), 1000):
            batch = enumerate(documents[first : first + 1000], first)
            self.rows.put_many([(_key(number), {"t": text}) for number, text in batch])

    def build(self, query: str) -> None:
        self.db.indexes.create("words", primitive="json", paths="$.t")
        self.ask(query)

    def ask(self, query: str) -> Any:
        return self.rows.by_text("words", query, K)["hits"]

    def search(self, query: str) -> Any:
        return [(hit.key, hit.score) for hit in self.db.search(query, k=K)]

    def change(self, _: int) -> None:
        number, text, word = self.news()
        self.rows.put(_key(number), {"t": text})
        assert [hit[0] for hit in self.ask(word)] == [_key(number)]

    def close(self) -> None:
        self.db.close()


def _key(number: int) -> str:
    return f"d{number:06}"


class Fts5(Changing):
    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.execute("CREATE TABLE kept(id INTEGER PRIMARY KEY, t TEXT)")

    def put(self, documents: list[str]) -> None:
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO kept VALUES(?, ?)", enumerate(documents))
        self.db.execute("COMMIT")

    def build(self, query: str) -> None:
        self.db.execute("CREATE VIRTUAL TABLE words USING fts5(t, content=kept, content_rowid=id)")
        self.db.execute("INSERT INTO words(words) VALUES('rebuild')")
        self.ask(query)

    def ask(self, query: str) -> Any:
        wanted = " OR ".join(query.split())
        chosen = "SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
        return self.db.execute(chosen, (wanted, K)).fetchall()

    def change(self, _: int) -> None:
        number, text, word = self.news()
        (old,) = self.db.execute("SELECT t FROM kept WHERE id = ?", (number,)).fetchone()
        self.db.execute("BEGIN")
        self.db.execute("INSERT INTO words(words, rowid, t) VALUES('delete', ?, ?)", (number, old))
        self.db.execute("UPDATE kept SET t = ? WHERE id = ?", (text, number))
        self.db.execute("INSERT INTO words(rowid, t) VALUES(?, ?)", (number, text))
        self.db.execute("COMMIT")
        assert [row[0] for row in self.ask(word)] == [number]

    def close(self) -> None:
        self.db.close()


class Bm25s:
    def __init__(self) -> None:
        import bm25s

        self.lib = bm25s

    def put(self, documents: list[str]) -> None:
        self.documents = list(documents)

    def build(self, query: str) -> None:
        self.index = self.lib.BM25()
        words = self.lib.tokenize(self.documents, stopwords=None, show_progress=False)
        self.index.index(words, show_progress=False)
        self.ask(query)

    def ask(self, query: str) -> Any:
        return self.index.retrieve([query.split()], k=K, show_progress=False)

    def close(self) -> None: ...


class Tantivy(Changing):
    def __init__(self) -> None:
        import tantivy

        self.lib = tantivy
        schema = tantivy.SchemaBuilder()
        schema.add_text_field("id", stored=True, tokenizer_name="raw")
        schema.add_text_field("t", stored=False)
        self.index = tantivy.Index(schema.build())
        self.writer = self.index.writer(64_000_000, 1)

    def put(self, documents: list[str]) -> None:
        self.documents = list(documents)

    def build(self, query: str) -> None:
        for number, text in enumerate(self.documents):
            self.writer.add_document(self.lib.Document(id=str(number), t=text))
        self._publish()
        self.ask(query)

    def ask(self, query: str) -> Any:
        return self.searcher.search(self.index.parse_query(query, ["t"]), K, count=False).hits

    def change(self, _: int) -> None:
        number, text, word = self.news()
        self.writer.delete_documents("id", str(number))
        self.writer.add_document(self.lib.Document(id=str(number), t=text))
        self._publish()
        assert len(self.ask(word)) == 1

    def _publish(self) -> None:
        self.writer.commit()
        self.index.reload()
        self.searcher = self.index.searcher()

    def close(self) -> None: ...
