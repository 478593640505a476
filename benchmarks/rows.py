"""What is measured: one `Row` a line of the table. To add one, add it here and a method to each adapter.

Sizes and goals are those of the design (architecture, section 9): values of 100 bytes, 100,000 keys, random
order from a fixed seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.system import System

if TYPE_CHECKING:
    from benchmarks.measure import Figures

VALUE_BYTES = 100
GROUP = 100  # keys under one prefix
PATH = ("profile", "settings", "theme")
DOCUMENTS = 1000
SEED = 20261120
SCATTER = 0x9E3779B97F4A7C15  # odd, so that no two numbers below 2**64 meet; their bits look random
_RANDOM = random.Random(SEED).randbytes(1 << 20)


def key_text(index: int) -> str:
    return f"key:{index // GROUP:08d}:{index % GROUP:02d}"


def value_bytes(index: int) -> bytes:
    """Unlike any other, and like random bytes: what can be compressed would flatter those who compress."""
    tail = VALUE_BYTES - 8
    start = index * tail % (len(_RANDOM) - tail)
    return (index * SCATTER % (1 << 64)).to_bytes(8, "big") + _RANDOM[start : start + tail]


def document(index: int) -> dict[str, Any]:
    """About 1 KB as JSON, with the path that the rows set in the middle."""
    return {
        "id": index,
        "name": f"person {index}",
        "notes": [f"note {number} of {index}: " + "n" * 20 for number in range(8)],
        "profile": {
            "email": f"person{index}@example.org",
            "settings": {"language": "en", "theme": "dark", "volume": 7},
            "history": [{"at": number, "what": "opened", "ok": True} for number in range(9)],
        },
        "tags": ["alpha", "beta", "gamma"],
    }


class Workload:
    """Inputs in an order that is random and always the same, made for each system before the clock starts."""

    def __init__(self, keys: int) -> None:
        self.keys = keys
        self.random = random.Random(SEED)
        self.serial = 0
        self._native: dict[System, list[Any]] = {}

    def load(self, system: System) -> None:
        """Put the keys, and the documents where the system has JSON, into `system`."""
        system.load((key_text(index), value_bytes(index)) for index in range(self.keys))
        if hasattr(system, "json_load"):
            system.json_load([(f"doc:{index}", document(index)) for index in range(DOCUMENTS)])
        self.know(system)

    def know(self, system: System) -> None:
        """Keys can be chosen for `system`, which has them already."""
        self._native[system] = [system.key(key_text(index)) for index in range(self.keys)]

    def some_keys(self, system: System, count: int) -> list[Any]:
        return self.random.choices(self._native[system], k=count)

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial


Inputs = Callable[[Workload, System, int], tuple[Any, ...]]


def _keys(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    return (work.some_keys(system, count),)


def _absent_keys(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    return ([system.key(f"key:{work.random.randrange(10**8):08d}:none") for _ in range(count)],)


def _rows(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    value = system.value(value_bytes(work.next_serial()))
    return ([(key, value) for key in work.some_keys(system, count)],)


def _prefixes(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    groups = work.keys // GROUP
    return ([system.key(f"key:{work.random.randrange(groups):08d}:") for _ in range(count)],)


def _events(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    return ("tool_call", [{"tool": "search", "step": work.next_serial(), "ok": True} for _ in range(count)])


def _documents(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    return ([f"doc:{work.random.randrange(DOCUMENTS)}" for _ in range(count)], PATH)


def _document_sets(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    return (*_documents(work, system, count), f"theme {work.next_serial()}")


def _pairs(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    value = system.value(value_bytes(work.next_serial()))
    return ([tuple(work.some_keys(system, 4)) for _ in range(count)], value)


def _count(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    return (count,)


def _fork_names(work: Workload, system: System, count: int) -> tuple[Any, ...]:
    return ([f"fork-{work.next_serial()}" for _ in range(count)],)


@dataclass(frozen=True)
class Goal:
    """What the design asks for; every part that is set must hold."""

    limit: float | None = None  # in the unit of the row
    beats: dict[str, float] = field(default_factory=dict)  # peer: at least so many times faster than it
    row: tuple[str, float] | None = None  # another row of ours in this mode: so many times faster than it
    within: tuple[Figures, float] | None = None  # other figures of ours: at most so many times them
    words: str = ""  # said instead of the numbers


@dataclass(frozen=True)
class Row:
    name: str
    method: str
    inputs: Inputs
    chunk: int  # operations in one call
    modes: dict[str, Goal | None]
    keys: int = 100_000
    threads: int = 1
    check: Callable[[Any], bool] = lambda result: True
    unit: str = "us"


def _is_value(result: Any) -> bool:
    return len(result) == VALUE_BYTES


ROWS = [
    Row("get", "get", _keys, 1000, {"memory": Goal(0.45, {"lmdb": 1.5}), "buffered": None}, check=_is_value),
    Row("get in one view", "get_in_view", _keys, 1000, {"memory": None}, check=_is_value),
    Row("miss", "get", _absent_keys, 1000, {"memory": None}, check=lambda result: result is None),
    Row(
        "put",
        "put",
        _rows,
        1000,
        {"memory": Goal(0.9), "buffered": Goal(1.6, {"lmdb": 1.0, "rocksdb": 1.0})},
    ),
    # No file system syncs at one speed; the plain file next to it shows what one sync costs here.
    Row("put", "put", _rows, 20, {"strict": Goal(beats={"file": 0.67}, words="one fsync")}),
    Row("put, 8 threads", "put", _rows, 20, {"strict": Goal(row=("put", 5.0))}, threads=8),
    Row("put of 1,000, a key", "put_many", _rows, 1000, {"memory": Goal(0.5), "buffered": None}),
    Row(
        "get of 1,000, a key",
        "get_many",
        _keys,
        1000,
        {"memory": Goal(0.3)},
        check=lambda result: len(result) == 1000,
    ),
    Row(
        "scan of 100", "scan", _prefixes, 20, {"memory": Goal(15)}, check=lambda result: len(result) == GROUP
    ),
    Row("event append", "append", _events, 500, {"memory": None, "buffered": Goal(2)}),
    Row("JSON path set", "json_set", _document_sets, 200, {"memory": Goal(1.5), "buffered": None}),
    Row(
        "JSON path get",
        "json_get",
        _documents,
        200,
        {"memory": Goal(0.6)},
        check=lambda result: isinstance(result, str),
    ),
    Row("transaction, 2 get 2 put", "transaction", _pairs, 200, {"memory": Goal(5), "buffered": None}),
    Row("view", "view", _count, 500, {"memory": Goal(0.5)}),
    Row("fork of 1k keys", "fork", _fork_names, 1, {"memory": Goal(10), "buffered": Goal(30)}, keys=1000),
    Row("fork of 100k keys", "fork", _fork_names, 1, {"memory": Goal(10), "buffered": Goal(30)}),
    Row("fork of 1M keys", "fork", _fork_names, 1, {"memory": Goal(10)}, keys=1_000_000),
]
