"""Machines: an event, a page of those in a state, and what an instance takes, with 100,000 instances.

SQLite does the same by hand: reads state and context, checks, writes both and a row of history, in one
transaction; its page goes by an index over machine, state and id. Both answer the same pages. What an
instance takes is what the tables of ours hold more for each, right after it was made.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import strata
from benchmarks.measure import Figures
from benchmarks.processes import Bench
from benchmarks.registry import OURS
from benchmarks.report import Line
from benchmarks.rows import SEED, Goal
from benchmarks.searchers import in_turns

PAGE = 100
NAMES = ("machine: apply an event", f"machine: page of {PAGE} by state", "machine: an instance")
EVENT = "NEXT"
STEPS = {"created": "paid", "paid": "shipped", "shipped": "created"}
ORDER = {
    "states": list(STEPS),
    "initial": "created",
    "transitions": [
        {"from": state, "event": EVENT, "to": to, "guard": "ctx.total >= 1"} for state, to in STEPS.items()
    ],
}


def measure(bench: Bench) -> list[Line]:
    count = bench.size(100_000, 500)
    apply, page = Figures(NAMES[0], "buffered", "us"), Figures(NAMES[1], "buffered", "us")
    size = Figures(f"{NAMES[2]}, {count // 1000}k", "memory", "bytes")
    makers = {OURS: Ours, "sqlite": Sqlite}
    found = {name: make(bench.place(name)) for name, make in makers.items() if name in bench.systems}
    for name, system in found.items():
        bench.say(f"{count:,} instances: {name}")
        system.fill(count)
        if isinstance(system, Ours):
            size.rounds[name] = [system.bytes_each]
    chance = Random(SEED)
    ids = [_id(chance.randrange(count)) for _ in range(bench.size(3_000, 50))]
    in_turns({name: system.apply for name, system in found.items()}, ids, bench.rounds, apply)
    starts = [_id(chance.randrange(count // 4)) for _ in range(bench.size(200, 5))]
    pages = [[system.page(start) for start in starts[:5]] for system in found.values()]
    assert all(found == pages[0] for found in pages), "the systems find different pages"
    in_turns({name: system.page for name, system in found.items()}, starts, bench.rounds, page)
    for system in found.values():
        system.close()
    return [(apply, Goal(8)), (page, Goal(300)), (size, Goal(1024))]


def _id(number: int) -> str:
    return f"order-{number:07}"


def _context(number: int) -> dict[str, Any]:
    return {"total": number % 900 + 1, "customer": f"c-{number % 5000}", "note": "leave it at the door"}


class Ours:
    def __init__(self, path: Path) -> None:
        self.db = strata.open(path / "machines.strata", memory_budget=4 << 30)
        self.machines = self.db.machines
        self.machines.define("order", 1, ORDER)
        self.bytes_each = 0.0

    def fill(self, count: int) -> None:
        before = self.db.info().memory.tables
        for number in range(count):
            self.machines.create("order", _id(number), _context(number))
        self.bytes_each = (self.db.info().memory.tables - before) / count

    def apply(self, id: str) -> None:
        self.machines.apply(id, EVENT)

    def page(self, after: str) -> list[str]:
        return [found.id for found in self.machines.list("order", "created", after=after, limit=PAGE)]

    def close(self) -> None:
        self.db.close()


class Sqlite:
    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path / "machines.db", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            "CREATE TABLE instances (id TEXT PRIMARY KEY, machine TEXT, state TEXT, context TEXT)",
            "CREATE INDEX by_state ON instances (machine, state, id)",
            "CREATE TABLE history (id TEXT, event TEXT, before TEXT, after TEXT, payload TEXT)",
        ):
            self.db.execute(statement)

    def fill(self, count: int) -> None:
        rows = ((_id(number), "order", "created", json.dumps(_context(number))) for number in range(count))
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO instances VALUES (?, ?, ?, ?)", rows)
        self.db.execute("COMMIT")

    def apply(self, id: str) -> None:
        run = self.db.execute
        run("BEGIN IMMEDIATE")
        state, context = run("SELECT state, context FROM instances WHERE id = ?", (id,)).fetchone()
        to = STEPS[state]
        assert json.loads(context)["total"] >= 1
        run("UPDATE instances SET state = ? WHERE id = ?", (to, id))
        run("INSERT INTO history VALUES (?, ?, ?, ?, NULL)", (id, EVENT, state, to))
        run("COMMIT")

    def page(self, after: str) -> list[str]:
        rows = self.db.execute(
            "SELECT id, machine, state, context FROM instances "
            "WHERE machine = 'order' AND state = 'created' AND id > ? ORDER BY id LIMIT ?",
            (after, PAGE),
        )
        return [(id, json.loads(context))[0] for id, _, _, context in rows]

    def close(self) -> None:
        self.db.close()
