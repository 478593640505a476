"""What needs a process of its own: memory a key, being killed, opening again. Prints one JSON object.

python -m benchmarks.child SYSTEM ACTION PATH KEYS

    memory   fill a database in memory mode; how much the process grew, a key
    fill     fill one on disk, a commit a key, then die by SIGKILL without closing
    open     open it and read the last key: how long; then close it properly
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from benchmarks.registry import find
from benchmarks.rows import key_text, value_bytes


def resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak, which is close after a fill
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory(name: str, path: Path, keys: int) -> dict[str, float]:
    system = find(name)("memory", path)
    before = resident_bytes()
    system.load((key_text(index), value_bytes(index)) for index in range(keys))
    return {"bytes_per_key": (resident_bytes() - before) / keys}


def fill(name: str, path: Path, keys: int) -> dict[str, float]:
    system = find(name)("buffered", path)
    for first in range(0, keys, 10_000):
        last = min(first + 10_000, keys)
        rows = [(system.key(key_text(i)), system.value(value_bytes(i))) for i in range(first, last)]
        getattr(system, "put")(rows)  # noqa: B009
    print(json.dumps({"filled": keys}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def reopen(name: str, path: Path, keys: int) -> dict[str, float]:
    adapter = find(name)
    start = time.perf_counter()
    system = adapter("buffered", path)
    value = getattr(system, "get")([system.key(key_text(keys - 1))])  # noqa: B009
    took = time.perf_counter() - start
    system.close()
    return {"ms": took * 1000, "lost": value is None or bytes(value) != value_bytes(keys - 1)}


if __name__ == "__main__":
    action = {"memory": memory, "fill": fill, "open": reopen}[sys.argv[2]]
    print(json.dumps(action(sys.argv[1], Path(sys.argv[3]), int(sys.argv[4]))))
    sys.stdout.flush()
    os._exit(0)  # taking a million objects apart again would only cost time
