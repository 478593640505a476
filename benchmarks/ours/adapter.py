"""Strata, through its public face, as a user calls it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import strata
import strata.store  # the kernel, which is otherwise loaded by the first opening: the peers' are here too
from benchmarks.system import Rows, System
from strata.api.opening import Durability


class Strata(System):
    name: ClassVar[str] = "strata"
    modes: ClassVar[dict[str, str]] = {
        "memory": "strata.open()",
        "buffered": "the default with a path",
        "strict": 'durability="strict"',
    }
    fork_limit: ClassVar[int] = 10_000_000
    has_budget: ClassVar[bool] = True
    has_encryption: ClassVar[bool] = True

    def __init__(self, mode: str, path: Path, **settings: Any) -> None:
        super().__init__(mode, path, **settings)
        self.db = strata.open() if mode == "memory" else self._open(path / "ours.strata", **settings)

    def _open(self, path: Path, budget: int | None = None, secret: bytes | None = None) -> strata.Database:
        durability = cast(Durability, self.mode)
        return strata.open(path, durability=durability, memory_budget=budget, key=secret)

    def close(self) -> None:
        self.db.close()

    def checkpoint(self) -> None:
        self.db.checkpoint()

    def compact(self) -> None:
        self.db.compact()

    def keep_last(self, versions: int) -> None:
        self.db.retention.set(strata.KeepLast(versions))

    def record_run(self, rows: Rows) -> None:
        with self.db.runs.begin(id="run") as run:
            for key, value in rows:
                run.kv.put(key, value)

    def replay_run(self) -> int:
        return sum(1 for _ in self.db.replay("run"))

    def listen(self, branch: str, primitive: str, hear: Callable[[], object]) -> Callable[[], None]:
        """Call `hear` for each commit to a primitive, in a thread; returns what ends that."""
        watch = self.db.branch(branch).watch(primitive)

        def run() -> None:
            for _ in watch:
                hear()

        thread = threading.Thread(target=run)
        thread.start()

        def end() -> None:
            watch.close()
            thread.join()

        return end

    def reproduces_run(self) -> bool:
        replay = self.db.replay("run")
        return replay.digest() == replay.view.digest()

    def get(self, keys: list[str]) -> Any:
        get = self.db.kv.get
        for key in keys:
            value = get(key)
        return value

    def get_in_view(self, keys: list[str]) -> Any:
        get = self.db.at(self.db.version).kv.get
        for key in keys:
            value = get(key)
        return value

    def put(self, rows: Rows) -> None:
        put = self.db.kv.put
        for key, value in rows:
            put(key, value)

    def put_many(self, rows: Rows) -> None:
        self.db.kv.put_many(rows)

    def get_many(self, keys: list[str]) -> Any:
        return self.db.kv.get_many(keys)

    def scan(self, prefixes: list[str]) -> Any:
        scan = self.db.kv.scan
        for prefix in prefixes:
            rows = list(scan(prefix))
        return rows

    def append(self, kind: str, payloads: list[Any]) -> None:
        append = self.db.events.append
        for payload in payloads:
            append(kind, payload)

    def json_load(self, documents: list[tuple[str, Any]]) -> None:
        with self.db.transaction() as tx:
            for key, body in documents:
                tx.json.set(key, "$", body)

    def json_set(self, keys: list[str], path: tuple[str, ...], value: Any) -> None:
        spelled = "$." + ".".join(path)
        for key in keys:
            self.db.json.set(key, spelled, value)

    def json_get(self, keys: list[str], path: tuple[str, ...]) -> Any:
        spelled = "$." + ".".join(path)
        for key in keys:
            value = self.db.json.get(key, spelled)
        return value

    def transaction(self, quads: list[tuple[str, str, str, str]], value: bytes) -> None:
        for a, b, c, d in quads:
            with self.db.transaction() as tx:
                tx.kv.get(a)
                tx.kv.get(b)
                tx.kv.put(c, value)
                tx.kv.put(d, value)

    def view(self, number: int) -> None:
        db = self.db
        version = db.version
        for _ in range(number):
            db.at(version)

    def fork(self, names: list[str]) -> None:
        for name in names:
            self.db.branches.fork("main", name)

    def fork_from(self, source: str, name: str, rows: Rows) -> None:
        branch = self.db.branches.fork(source, name)
        if rows:
            branch.kv.put_many(rows)

    def live_branch(self, name: str, key: str, value: bytes) -> Any:
        branch = self.db.branches.fork("main", name)
        branch.kv.put(key, value)
        return branch

    def put_many_on(self, branch: str, rows: Rows) -> None:
        self.db.branch(branch).kv.put_many(rows)

    def get_on(self, branch: str, keys: list[str]) -> Any:
        get = self.db.branch(branch).kv.get
        for key in keys:
            value = get(key)
        return value

    def diff(self, old: str, new: str) -> int:
        return len(self.db.diff(old, new).to_list())

    def merge(self, target: str, source: str) -> int:
        return len(self.db.branches.merge(source, target).changes)
