"""Rows that are more than calls of one method: each case is a story with its own processes and goals.

A case is a module with NAMES, the rows that it makes, `measure`, which makes them, and often ACTIONS, which
run in processes of their own (`benchmarks.child`). To add one, write the module and name it in CASES.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

CASES = (
    "opening",
    "memory",
    "hot",
    "background",
    "encryption",
    "retention",
    "replay",
    "watch",
    "branching",
    "variants",
    "search_text",
    "search_vectors",
    "search_ordered",
    "machines",
)
# Those that take many minutes run only when they are named.
LONG = ("search_million",)


def load(names: Iterable[str] = CASES) -> dict[str, ModuleType]:
    return {name: importlib.import_module(f"benchmarks.cases.{name}") for name in names}
