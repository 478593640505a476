"""Several operations as one step: in a transaction of their own, or as part of the one that is open."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from strata.core.errors import Conflict, TransactionLost
from strata.core.protocols import Layout, Txn

T = TypeVar("T")


class Source(Protocol):
    """What gives keyspaces: a transaction, or what stands for one."""

    def keyspace(self, space: str, layout: Layout, /) -> Txn: ...


MAX_TRIES: Final = 1000
_AT_ONCE: Final = 3  # most conflicts are gone at the first retry, where a pause would only cost
_PAUSE_MIN_S: Final = 50e-6
_PAUSE_MAX_S: Final = 0.02


def atomically(
    txn: Txn,
    step: Callable[..., T],
    *,
    tries: int = MAX_TRIES,
    pause: Callable[[int], None] | None = None,
    beside: Source | None = None,
) -> tuple[T, int | None]:
    """Return what `step` returned, and the version of its commit (None inside a transaction).

    Automatic: `step` runs in a transaction of its own. When the commit finds a Conflict it runs again on the
    newest state, up to `tries` times with growing random pauses; then the Conflict comes out. So it does
    when the process that holds the store went away in between. A Conflict that `step` itself raises is its
    answer and comes out at once.

    Args:
        step: takes the keyspace; with `beside` also what gives the others of the same transaction.
        beside: what gives them where `txn` is part of a transaction that is open.
    """
    if txn.mode != "automatic":
        return step(txn) if beside is None else step(txn, beside), None
    attempt = 0
    while True:
        transaction, inside = txn.begin()
        try:
            result = step(inside) if beside is None else step(inside, transaction)
        except TransactionLost:
            attempt += 1
            if attempt >= tries:
                raise
            continue
        except BaseException:
            transaction.rollback()
            raise
        try:
            return result, transaction.commit()
        except Conflict:
            attempt += 1
            if attempt >= tries:
                raise
        (pause or back_off)(attempt)


def back_off(attempt: int) -> None:
    """Sleep a random while that doubles with each attempt, at most 20 ms; the first attempts do not wait."""
    pause_s = pause_after(attempt)
    if pause_s:
        time.sleep(pause_s)


def pause_after(attempt: int) -> float:
    """Return how many seconds `back_off` sleeps, for those who sleep otherwise."""
    if attempt <= _AT_ONCE:
        return 0
    return random.uniform(0, min(_PAUSE_MAX_S, _PAUSE_MIN_S * 2 ** min(attempt - _AT_ONCE, 16)))
