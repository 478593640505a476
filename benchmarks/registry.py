"""Which systems there are. To add one: an adapter in `against/`, and a line here."""

from __future__ import annotations

import importlib
from importlib import metadata

from benchmarks.system import Absent, System

OURS = "strata"
# name: module, class, and the distribution that it comes from
SYSTEMS = {
    OURS: ("benchmarks.ours.adapter", "Strata", "strata-embedded"),
    "dict": ("benchmarks.against.python_dict", "PythonDict", None),
    "lmdb": ("benchmarks.against.lightning", "Lmdb", "lmdb"),
    "rocksdb": ("benchmarks.against.rocks", "Rocks", "rocksdict"),
    "sqlite": ("benchmarks.against.sqlite", "Sqlite", None),
    "stratadb": ("benchmarks.against.strata_db", "StrataDb", "stratadb"),
    "file": ("benchmarks.against.file", "File", None),
}
# What only the cases on search ask, and the distribution that it comes from.
SEARCHERS = {
    "fts5": None,
    "bm25s": "bm25s",
    "tantivy": "tantivy",
    "usearch": "usearch",
    "hnswlib": "hnswlib",
    "faiss": "faiss-cpu",
    "numpy": "numpy",
}


def find(name: str) -> type[System]:
    """The adapter of `name`. Raises Absent when what it needs is not installed."""
    module, attribute, _ = SYSTEMS[name]
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise Absent(missing(error)) from error
    assert issubclass(found, System)
    return found


def missing(error: ImportError) -> str:
    return f"not installed ({error})"


def version(name: str) -> str:
    """What was measured, for the report."""
    if name in ("sqlite", "fts5"):
        import sqlite3

        return sqlite3.sqlite_version
    distribution = SEARCHERS[name] if name in SEARCHERS else SYSTEMS[name][2]
    try:
        return metadata.version(distribution) if distribution else ""
    except metadata.PackageNotFoundError:
        return "from the checkout"
