"""Strata, the SQLite of agent memory: embedded, versioned, branchable, transactional.

    import strata

    db = strata.open("memory.strata")
    db.kv.put("name", "Ada")

The layers, each importing only those to its right:

    cli -> api -> primitives -> core        what you call, what the data means, what all share
           api -> store -> _kernel          the one way to the Rust kernel, which knows no primitive
    agents -> api                           many plans side by side (`from strata import agents`)
    aio -> strata, api, remote              the same handles in an event loop (`import strata.aio`)
    remote -> server -> wire                databases that another process has open, over the same protocols

Read them from the left: `remote/shared.py` opens, `api/face.py` gives `db.kv` and its like,
`primitives/kv.py` says what a key-value store is, over a `Txn` (`core/protocols.py`), of which there are two:
the kernel's, and the oracle's in `testing/`.
"""

from __future__ import annotations

from typing import Any

from strata.api import (
    Branch,
    Branches,
    Database,
    Retention,
    Run,
    Runs,
    Space,
    Spaces,
    Transaction,
    View,
    import_,
    restore,
    salvage,
    verify_bundle,
)
from strata.core import errors
from strata.core.patches import ABSENT
from strata.core.refs import EntityRef
from strata.core.retention import KeepAll, KeepFor, KeepLast
from strata.remote import connect, open

__all__ = [
    "ABSENT",
    "Branch",
    "Branches",
    "Database",
    "EntityRef",
    "KeepAll",
    "KeepFor",
    "KeepLast",
    "Retention",
    "Run",
    "Runs",
    "Space",
    "Spaces",
    "Transaction",
    "View",
    "__version__",
    "connect",
    "errors",
    "import_",
    "open",
    "restore",
    "salvage",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # asked for rarely, and only the kernel knows it
        from strata.store import __version__

        return __version__
    raise AttributeError(f"module 'strata' has no attribute {name!r}")
