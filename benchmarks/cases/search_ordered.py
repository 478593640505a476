"""Ordered indexes: a range of a million documents; and what an index costs where none is asked.

`json.find` for the hundred documents of a range, through an ordered index; SQLite has an index on
json_extract. The answers of both are compared. Then puts and gets of keys in two databases, in the same
rounds: one declares no index, the other has one over documents; nobody may pay for what others declare.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import strata
from benchmarks.measure import Figures, together
from benchmarks.ours.adapter import Strata
from benchmarks.processes import Bench
from benchmarks.registry import OURS
from benchmarks.report import Line
from benchmarks.rows import ROWS, SEED, Goal, Workload
from benchmarks.searchers import in_turns, seconds
from strata.primitives import Json

WANTED = 100
WITHIN = 1.03
PUT = next(row for row in ROWS if row.name == "put")
GET = next(row for row in ROWS if row.name == "get")
NAMES = (
    "find: build the index",
    f"find: {WANTED} of a range",
    "find: put of one",
    *(f"{row.name}, {how}" for row in (GET, PUT) for how in ("no index", "an index elsewhere")),
)


def measure(bench: Bench) -> list[Line]:
    lines = _ranges(bench)
    if OURS in bench.systems:
        lines += _elsewhere(bench)
    return lines


def _ranges(bench: Bench) -> list[Line]:
    count = bench.size(1_000_000, 2_000)
    build, find = Figures(NAMES[0], "buffered", "s"), Figures(NAMES[1], "buffered", "us")
    put = Figures(NAMES[2], "buffered", "us")
    ages = list(range(count))
    Random(SEED).shuffle(ages)
    makers = {OURS: Ours, "sqlite": Sqlite}
    found = {name: make(bench.place(name)) for name, make in makers.items() if name in bench.systems}
    for name, system in found.items():
        bench.say(f"{count:,} documents to find: {name}")
        system.put(ages)
        build.rounds[name] = [seconds(system.build)]
    chance = Random(SEED)
    starts = [chance.randrange(count - WANTED) for _ in range(bench.size(200, 5))]
    for start in starts[:5]:
        expected = {f"d{ages.index(age):07}" for age in range(start, start + WANTED)}
        for system in found.values():
            assert {name for name, _ in system.find(start)} == expected
    in_turns({name: system.find for name, system in found.items()}, starts, bench.rounds, find)
    in_turns({name: system.change for name, system in found.items()}, starts, bench.rounds, put)
    for system in found.values():
        system.close()
    for line in (build, find, put):
        line.absent["stratadb"] = "finds no documents by their values"
    return [(build, None), (find, Goal(200)), (put, None)]


class Ours:
    def __init__(self, path: Path) -> None:
        self.db = strata.open(path / "ordered.strata", memory_budget=4 << 30)
        self.rows = self.db._store.branch("main").keyspace("default", Json.LAYOUT)

    def put(self, ages: list[int]) -> None:
        for first in range(0, len(ages), 10_000):
            batch = enumerate(ages[first : first + 10_000], first)
            self.rows.put_many([(f"d{number:07}", _document(age)) for number, age in batch])
        self.db.checkpoint()

    def build(self) -> None:
        self.db.indexes.create("by_age", primitive="json", kind="ordered", paths="$.age")
        self.find(0)

    def find(self, start: int) -> Any:
        return list(self.db.json.find({"$.age": {"gte": start, "lt": start + WANTED}}))

    def change(self, number: int) -> None:
        self.db.json.set(f"d{number:07}", "$", _document(-number))

    def close(self) -> None:
        self.db.close()


def _document(age: int) -> dict[str, Any]:
    return {"age": age, "name": f"someone {age}"}


class Sqlite:
    AGE = "json_extract(document, '$.age')"

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path / "ordered.db", isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute("CREATE TABLE kept(name TEXT PRIMARY KEY, document TEXT) WITHOUT ROWID")

    def put(self, ages: list[int]) -> None:
        self.db.execute("BEGIN")
        rows = ((f"d{number:07}", json.dumps(_document(age))) for number, age in enumerate(ages))
        self.db.executemany("INSERT INTO kept VALUES(?, ?)", rows)
        self.db.execute("COMMIT")

    def build(self) -> None:
        self.db.execute(f"CREATE INDEX by_age ON kept({self.AGE})")
        self.find(0)

    def find(self, start: int) -> Any:
        asked = (
            f"SELECT name, document FROM kept WHERE {self.AGE} >= ? AND {self.AGE} < ? ORDER BY {self.AGE}"
        )
        rows = self.db.execute(asked, (start, start + WANTED))
        return [(name, json.loads(document)) for name, document in rows]

    def change(self, number: int) -> None:
        document = json.dumps(_document(-number))
        self.db.execute("INSERT OR REPLACE INTO kept VALUES(?, ?)", (f"d{number:07}", document))

    def close(self) -> None:
        self.db.close()


def _elsewhere(bench: Bench) -> list[Line]:
    """The same keys with and without, in many short turns, since so little is to be told apart."""
    work = Workload(bench.size(10_000, 200))
    found = {name: Figures(name, "buffered", "us") for name in NAMES[3:]}
    cells: list[Any] = []
    opened = []
    for how in ("no index", "an index elsewhere"):
        system = Strata("buffered", bench.place(how))
        opened.append(system)
        if how != "no index":
            system.db.indexes.create("by_age", primitive="json", kind="ordered", paths="$.age")
            system.db.indexes.create("words", primitive="events", paths="$.text")
        work.load(system)
        cells += [(found[f"{row.name}, {how}"], row, system, work) for row in (GET, PUT)]
    together(cells, bench.rounds * bench.size(20, 1), 0.002)
    for system in opened:
        system.close()
    goals = {
        f"{row.name}, an index elsewhere": Goal(within=(found[f"{row.name}, no index"], WITHIN))
        for row in (GET, PUT)
    }
    return [(figures, goals.get(name)) for name, figures in found.items()]
