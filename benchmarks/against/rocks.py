"""RocksDB by rocksdict, with raw bytes. It has no transactions there: reads, then one atomic batch."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from rocksdict import BlockBasedOptions, Cache, Checkpoint, Options, Rdict, WriteBatch, WriteOptions

from benchmarks.system import Rows, System, dumps, get_in, loads, set_in


class Rocks(System):
    name: ClassVar[str] = "rocksdb"
    modes: ClassVar[dict[str, str]] = {
        "memory": "write-ahead log off",
        "buffered": "write-ahead log, sync=False",
        "strict": "write-ahead log, sync=True",
    }
    has_budget: ClassVar[bool] = True  # half of it for what is not flushed, half for blocks

    def __init__(self, mode: str, path: Path, **settings: Any) -> None:
        super().__init__(mode, path, **settings)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        if (budget := settings.get("budget")) is not None:
            options.set_db_write_buffer_size(budget // 2)
            blocks = BlockBasedOptions()
            blocks.set_block_cache(Cache(budget // 2))
            blocks.set_cache_index_and_filter_blocks(True)
            options.set_block_based_table_factory(blocks)
        self.db = Rdict(str(path / "rocks"), options)
        write = WriteOptions()
        write.disable_wal = mode == "memory"
        write.sync = mode == "strict"
        self.db.set_write_options(write)
        self.write = write
        self.sequence = count()

    def close(self) -> None:
        self.db.close()

    def checkpoint(self) -> None:
        self.db.flush()

    def compact(self) -> None:
        self.db.flush()
        self.db.compact_range(None, None)

    def key(self, text: str) -> bytes:
        return text.encode()

    def get(self, keys: list[bytes]) -> Any:
        get = self.db.get
        for key in keys:
            value = get(key)
        return value

    def get_in_view(self, keys: list[bytes]) -> Any:
        snapshot = self.db.snapshot()
        for key in keys:
            value = snapshot[key]
        return value

    def put(self, rows: Rows) -> None:
        db = self.db
        for key, value in rows:
            db[key] = value

    def put_many(self, rows: Rows) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in rows:
            batch.put(key, value)
        self.db.write(batch, self.write)

    def get_many(self, keys: list[bytes]) -> Any:
        return self.db.get(keys)

    def scan(self, prefixes: list[bytes]) -> Any:
        for prefix in prefixes:
            rows = []
            for key, value in self.db.items(from_key=prefix):
                if not key.startswith(prefix):
                    break
                rows.append((key, value))
        return rows

    def append(self, kind: str, payloads: list[Any]) -> None:
        for payload in payloads:
            self.db[b"event:" + next(self.sequence).to_bytes(8, "big")] = dumps([kind, payload])

    def json_load(self, documents: list[tuple[str, Any]]) -> None:
        for key, body in documents:
            self.db[key.encode()] = dumps(body)

    def json_set(self, keys: list[str], path: tuple[str, ...], value: Any) -> None:
        for key in keys:
            body = loads(self.db[key.encode()])
            set_in(body, path, value)
            self.db[key.encode()] = dumps(body)

    def json_get(self, keys: list[str], path: tuple[str, ...]) -> Any:
        for key in keys:
            value = get_in(loads(self.db[key.encode()]), path)
        return value

    def transaction(self, quads: list[tuple[bytes, ...]], value: bytes) -> None:
        for a, b, c, d in quads:
            self.db.get(a)
            self.db.get(b)
            self.put_many([(c, value), (d, value)])

    def view(self, number: int) -> None:
        for _ in range(number):
            self.db.snapshot()

    def fork(self, names: list[str]) -> None:
        """The nearest there is: a checkpoint, which flushes and makes hard links."""
        for name in names:
            Checkpoint(self.db).create_checkpoint(str(self.path / name))
            shutil.rmtree(self.path / name)
