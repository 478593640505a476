"""SQLite by the standard library: one table of keys, one of events, one of JSON documents."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.system import Rows, System, dumps

PUT = "INSERT OR REPLACE INTO kv VALUES (?, ?)"
GET = "SELECT value FROM kv WHERE key = ?"


class Sqlite(System):
    name: ClassVar[str] = "sqlite"
    modes: ClassVar[dict[str, str]] = {
        "memory": ":memory:",
        "buffered": "WAL, synchronous=NORMAL (syncs at checkpoints only)",
        "strict": "WAL, synchronous=FULL",
    }
    has_budget: ClassVar[bool] = True  # cache_size

    def __init__(self, mode: str, path: Path, **settings: Any) -> None:
        super().__init__(mode, path, **settings)
        target = ":memory:" if mode == "memory" else str(path / "sqlite.db")
        self.db = sqlite3.connect(target, isolation_level=None, check_same_thread=False, timeout=60)
        if mode != "memory":
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute(f"PRAGMA synchronous={'FULL' if mode == 'strict' else 'NORMAL'}")
        if (budget := settings.get("budget")) is not None:
            self.db.execute(f"PRAGMA cache_size=-{budget // 1024}")
        self.db.execute("CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, kind TEXT, payload TEXT)"
        )
        self.db.execute("CREATE TABLE IF NOT EXISTS docs (key TEXT PRIMARY KEY, body TEXT)")

    def close(self) -> None:
        self.db.close()

    def compact(self) -> None:
        self.db.execute("VACUUM")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def thread_handle(self) -> Sqlite:
        return Sqlite(self.mode, self.path)

    def get(self, keys: list[str]) -> Any:
        execute = self.db.execute
        for key in keys:
            row = execute(GET, (key,)).fetchone()
        return row[0] if row else None

    def get_in_view(self, keys: list[str]) -> Any:
        self.db.execute("BEGIN")
        value = self.get(keys)
        self.db.execute("COMMIT")
        return value

    def view(self, number: int) -> None:
        execute = self.db.execute
        for _ in range(number):
            execute("BEGIN")
            execute("SELECT 1 FROM kv LIMIT 1").fetchone()  # SQLite takes its snapshot at the first read
            execute("COMMIT")

    def put(self, rows: Rows) -> None:
        execute = self.db.execute
        for row in rows:
            execute(PUT, row)

    def put_many(self, rows: Rows) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(PUT, rows)
        self.db.execute("COMMIT")

    def get_many(self, keys: list[str]) -> Any:
        marks = ",".join("?" * len(keys))
        found = dict(self.db.execute(f"SELECT key, value FROM kv WHERE key IN ({marks})", keys))
        return [found.get(key) for key in keys]

    def scan(self, prefixes: list[str]) -> Any:
        for prefix in prefixes:
            rows = self.db.execute(
                "SELECT key, value FROM kv WHERE key >= ? AND key < ? ORDER BY key",
                (prefix, prefix + "\U0010ffff"),
            ).fetchall()
        return rows

    def append(self, kind: str, payloads: list[Any]) -> None:
        for payload in payloads:
            self.db.execute("INSERT INTO events (kind, payload) VALUES (?, ?)", (kind, dumps(payload)))

    def json_load(self, documents: list[tuple[str, Any]]) -> None:
        self.db.executemany(
            "INSERT INTO docs VALUES (?, ?)", ((key, dumps(body).decode()) for key, body in documents)
        )

    def json_set(self, keys: list[str], path: tuple[str, ...], value: Any) -> None:
        spelled = "$." + ".".join(path)
        for key in keys:
            self.db.execute(
                "UPDATE docs SET body = json_set(body, ?, ?) WHERE key = ?", (spelled, value, key)
            )

    def json_get(self, keys: list[str], path: tuple[str, ...]) -> Any:
        spelled = "$." + ".".join(path)
        for key in keys:
            row = self.db.execute(
                "SELECT json_extract(body, ?) FROM docs WHERE key = ?", (spelled, key)
            ).fetchone()
        return row[0]

    def transaction(self, quads: list[tuple[str, str, str, str]], value: bytes) -> None:
        execute = self.db.execute
        for a, b, c, d in quads:
            execute("BEGIN IMMEDIATE")
            execute(GET, (a,)).fetchone()
            execute(GET, (b,)).fetchone()
            execute(PUT, (c, value))
            execute(PUT, (d, value))
            execute("COMMIT")

    def fork(self, names: list[str]) -> None:
        """The nearest there is: a copy of the whole database."""
        for _ in names:
            copy = sqlite3.connect(":memory:" if self.mode == "memory" else str(self.path / "fork.db"))
            self.db.backup(copy)
            copy.close()
