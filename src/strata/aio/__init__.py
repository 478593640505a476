"""Strata in an event loop: the same handles under the same names, to be awaited.

    async with strata.aio.open("memory.strata") as db:
        await db.kv.put("name", "Ada")

    __init__   how to get a database
    handles    what differs from the blocking classes: transactions, watches, recorded calls
    adapter    an async class for each blocking one, made from it
    rows       what comes one by one
    threads    where calls run, so that the loop waits for nothing

The blocking code is the one written form; nothing is written twice.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec

import strata
from strata.aio.handles import Branch, Database, Run, Space, Transaction, View, Watch
from strata.aio.rows import Rows
from strata.aio.threads import Threads

P = ParamSpec("P")

__all__ = [
    "Branch",
    "Database",
    "Rows",
    "Run",
    "Space",
    "Transaction",
    "View",
    "Watch",
    "connect",
    "open",
    "over",
]


def over(database: strata.Database) -> Database:
    """Return a database that is open already, for the tasks of an event loop. It closes that one."""
    threads = Threads()
    threads.know(database._store)
    return Database(threads, lambda: database, found=database)


def _opening(blocking: Callable[P, strata.Database]) -> Callable[P, Database]:
    @functools.wraps(blocking)
    def begin(*args: P.args, **kwargs: P.kwargs) -> Database:
        threads, once, opened = Threads(), threading.Lock(), list[strata.Database]()

        def find() -> strata.Database:
            with once:  # several tasks may be the first to use it
                if not opened:
                    database = blocking(*args, **kwargs)
                    threads.know(database._store)
                    opened.append(database)
                return opened[0]

        return Database(threads, find)

    return begin


open = _opening(strata.open)
connect = _opening(strata.connect)
