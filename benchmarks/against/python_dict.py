"""A dict: no durability, no versions, no order. The floor, not a rival."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from benchmarks.system import Rows, System, get_in, set_in


class PythonDict(System):
    name: ClassVar[str] = "dict"
    modes: ClassVar[dict[str, str]] = {"memory": "a dict"}

    def __init__(self, mode: str, path: Path, **settings: Any) -> None:
        super().__init__(mode, path, **settings)
        self.data: dict[str, bytes] = {}
        self.documents: dict[str, Any] = {}
        self.events: list[Any] = []
        self.forks: dict[str, dict[str, bytes]] = {}

    def get(self, keys: list[str]) -> Any:
        get = self.data.get
        for key in keys:
            value = get(key)
        return value

    def put(self, rows: Rows) -> None:
        data = self.data
        for key, value in rows:
            data[key] = value

    def put_many(self, rows: Rows) -> None:
        self.data.update(rows)

    def get_many(self, keys: list[str]) -> Any:
        return list(map(self.data.get, keys))

    def append(self, kind: str, payloads: list[Any]) -> None:
        append = self.events.append
        for payload in payloads:
            append((kind, payload))

    def json_load(self, documents: list[tuple[str, Any]]) -> None:
        self.documents.update(documents)

    def json_set(self, keys: list[str], path: tuple[str, ...], value: Any) -> None:
        for key in keys:
            set_in(self.documents[key], path, value)

    def json_get(self, keys: list[str], path: tuple[str, ...]) -> Any:
        for key in keys:
            value = get_in(self.documents[key], path)
        return value

    def transaction(self, quads: list[tuple[str, str, str, str]], value: bytes) -> None:
        data = self.data
        for a, b, c, d in quads:
            data[a], data[b]
            data[c] = value
            data[d] = value

    def fork(self, names: list[str]) -> None:
        self.forks.clear()  # the copies would fill the memory
        for name in names:
            self.forks[name] = dict(self.data)
