"""StrataDB 1.2 from PyPI. It has no transactions and no views; reads take `as_of=` instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import stratadb

from benchmarks.system import Rows, System

LEAST_BUDGET = 1 << 20  # it refuses less


class StrataDb(System):
    name: ClassVar[str] = "stratadb"
    modes: ClassVar[dict[str, str]] = {
        "memory": "cache=True",
        "buffered": 'durability="standard" (a killed process may lose the tail)',
        "strict": 'durability="always"',
    }
    fork_limit: ClassVar[int] = 100_000
    has_budget: ClassVar[bool] = True

    def __init__(self, mode: str, path: Path, **settings: Any) -> None:
        super().__init__(mode, path, **settings)
        if mode == "memory":
            self.db = stratadb.open(cache=True)
        else:
            durability = "always" if mode == "strict" else "standard"
            budget = settings.get("budget")
            self.db = stratadb.open(
                path / "stratadb",
                durability=durability,
                ipc="off",
                memory_budget=max(budget, LEAST_BUDGET) if budget is not None else None,
            )

    def close(self) -> None:
        self.db.close()

    def get(self, keys: list[str]) -> Any:
        get = self.db.kv.get
        for key in keys:
            value = get(key)
        return value

    def put(self, rows: Rows) -> None:
        put = self.db.kv.put
        for key, value in rows:
            put(key, value)

    def put_many(self, rows: Rows) -> None:
        self.db.kv.put_many(dict(rows))

    def get_many(self, keys: list[str]) -> Any:
        return self.db.kv.get_many(keys)

    def scan(self, prefixes: list[str]) -> Any:
        for prefix in prefixes:
            page = self.db.kv.scan(prefix, limit=100)
        return page.items

    def append(self, kind: str, payloads: list[Any]) -> None:
        append = self.db.events.append
        for payload in payloads:
            append(kind, payload)

    def json_load(self, documents: list[tuple[str, Any]]) -> None:
        self.db.json.set_many(dict(documents))

    def json_set(self, keys: list[str], path: tuple[str, ...], value: Any) -> None:
        spelled = "$." + ".".join(path)
        for key in keys:
            self.db.json.set(key, spelled, value)

    def json_get(self, keys: list[str], path: tuple[str, ...]) -> Any:
        spelled = "$." + ".".join(path)
        for key in keys:
            value = self.db.json.get(key, spelled)
        return value

    def fork(self, names: list[str]) -> None:
        for name in names:
            self.db.branches.fork("default", name)
