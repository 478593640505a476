"""The door to the kernel: the one module that imports `strata._kernel`.

The native classes are the protocols of `strata.core.protocols` themselves, so there is nothing to wrap: a
call from a primitive goes straight into the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from strata._kernel import (
    SimDisk,
    TextReader,
    __version__,
    after_fork_in_child,
    check_keys,
    crc32c,
    import_bundle,
    inspect,
    restore,
    salvage,
    sealed_with,
    sealed_with_any,
    verify_bundle,
)
from strata._kernel import Store as KernelStore

__all__ = [
    "KernelStore",
    "SimDisk",
    "TextReader",
    "__version__",
    "check_keys",
    "crc32c",
    "import_bundle",
    "inspect",
    "open_store",
    "restore",
    "salvage",
    "sealed_with",
    "sealed_with_any",
    "verify_bundle",
]

# Every handle that a forked child inherits raises Closed there: the files and the threads are its parent's.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)


# Where a machine does not say how much memory it has.
_MEMORY_UNKNOWN = 4 << 30
_LEAST_MEMORY = 256 << 20


def machine_memory() -> int:
    """Return the bytes of memory this process may use: the machine's, or a control group's."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = _MEMORY_UNKNOWN
    try:
        with open("/sys/fs/cgroup/memory.max") as limit:
            memory = min(memory, int(limit.read()))
    except (OSError, ValueError):
        pass  # no control group, or no limit in it
    return max(memory, _LEAST_MEMORY)


def open_store(
    path: str | None = None,
    *,
    durability: str = "memory",
    create: bool = True,
    read_only: bool = False,
    memory_budget: int | None = None,
    flush_interval_ms: float = 100,
    segment_bytes: int | None = None,
    shared_at: str | None = None,
    keys: list[bytes] | None = None,
    disk: SimDisk | None = None,
    clock: Callable[[], int] | None = None,
) -> KernelStore:
    """Open the store in directory `path`, on `disk` when one is given, or in memory.

    `segment_bytes` is for tests that want many small log segments; `shared_at` tells other processes where
    they will be served. Raises: see `strata.open`.
    """
    options: dict[str, int | str | list[bytes]] = {"flush_interval_us": round(flush_interval_ms * 1000)}
    options["memory_budget"] = memory_budget or machine_memory() // 4
    if segment_bytes is not None:
        options["segment_bytes"] = segment_bytes
    if shared_at is not None:
        options["shared_at"] = shared_at
    if keys:
        options["keys"] = keys
    return KernelStore.open(path, durability, create, read_only, options, disk, clock)
