"""LMDB by py-lmdb: a memory-mapped B+ tree with one writer."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from benchmarks.system import Rows, System, dumps, get_in, loads, set_in


class Lmdb(System):
    name: ClassVar[str] = "lmdb"
    modes: ClassVar[dict[str, str]] = {
        "memory": "sync=False (LMDB has no memory mode)",
        "buffered": "sync=False",
        "strict": "sync=True",
    }
    has_budget: ClassVar[bool] = True  # which it needs none for: the operating system's cache is its own

    def __init__(self, mode: str, path: Path, **settings: Any) -> None:
        super().__init__(mode, path, **settings)
        self.env = lmdb.open(
            str(path / "lmdb"), map_size=1 << 34, sync=mode == "strict", max_dbs=2, max_readers=512
        )
        self.events = self.env.open_db(b"events")
        self.documents = self.env.open_db(b"documents")
        self.sequence = count()

    def close(self) -> None:
        self.env.close()

    def compact(self) -> None:
        """A compact copy in the place of the file."""
        target = self.path / "compacted"
        target.mkdir()
        self.env.copy(str(target), compact=True)
        self.env.close()
        shutil.rmtree(self.path / "lmdb")
        target.rename(self.path / "lmdb")

    def key(self, text: str) -> bytes:
        return text.encode()

    def get(self, keys: list[bytes]) -> Any:
        # A transaction a get, since a get is to see the newest state; `get_in_view` shares one.
        begin = self.env.begin
        for key in keys:
            with begin() as txn:
                value = txn.get(key)
        return value

    def get_in_view(self, keys: list[bytes]) -> Any:
        with self.env.begin() as txn:
            get = txn.get
            for key in keys:
                value = get(key)
        return value

    def put(self, rows: Rows) -> None:
        begin = self.env.begin
        for key, value in rows:
            with begin(write=True) as txn:
                txn.put(key, value)

    def put_many(self, rows: Rows) -> None:
        with self.env.begin(write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(rows)

    def get_many(self, keys: list[bytes]) -> Any:
        with self.env.begin() as txn:
            return list(map(txn.get, keys))

    def scan(self, prefixes: list[bytes]) -> Any:
        for prefix in prefixes:
            rows = []
            with self.env.begin() as txn, txn.cursor() as cursor:
                cursor.set_range(prefix)
                for key, value in cursor:
                    if not key.startswith(prefix):
                        break
                    rows.append((key, value))
        return rows

    def append(self, kind: str, payloads: list[Any]) -> None:
        for payload in payloads:
            with self.env.begin(write=True, db=self.events) as txn:
                txn.put(next(self.sequence).to_bytes(8, "big"), dumps([kind, payload]), append=True)

    def json_load(self, documents: list[tuple[str, Any]]) -> None:
        with self.env.begin(write=True, db=self.documents) as txn:
            for key, body in documents:
                txn.put(key.encode(), dumps(body))

    def json_set(self, keys: list[str], path: tuple[str, ...], value: Any) -> None:
        for key in keys:
            with self.env.begin(write=True, db=self.documents) as txn:
                body = loads(txn.get(key.encode()))
                set_in(body, path, value)
                txn.put(key.encode(), dumps(body))

    def json_get(self, keys: list[str], path: tuple[str, ...]) -> Any:
        for key in keys:
            with self.env.begin(db=self.documents) as txn:
                value = get_in(loads(txn.get(key.encode())), path)
        return value

    def transaction(self, quads: list[tuple[bytes, ...]], value: bytes) -> None:
        for a, b, c, d in quads:
            with self.env.begin(write=True) as txn:
                txn.get(a)
                txn.get(b)
                txn.put(c, value)
                txn.put(d, value)

    def view(self, number: int) -> None:
        for _ in range(number):
            self.env.begin().abort()

    def fork(self, names: list[str]) -> None:
        """The nearest there is: a copy of the whole file."""
        for name in names:
            target = self.path / name
            target.mkdir()
            self.env.copy(str(target))
            shutil.rmtree(target)
