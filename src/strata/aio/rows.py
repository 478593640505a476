"""Rows: what comes one by one, fetched by the batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from itertools import islice
from typing import Any, Final

from strata.aio.threads import Lane, Threads

_FIRST_ROWS: Final = 64
_ROWS_MAX: Final = 1024


class Rows(AsyncIterator[Any]):
    """Iterate with `async for`. Awaiting it asks for what a blocking call would ask for, and gives it back.

    One task at a time. A task that is cancelled while it waits loses no row: the next one gets it.
    """

    def __init__(self, threads: Threads, find: Callable[[], Iterator[Any]], lane: Lane | None) -> None:
        self._threads = threads
        self._find = find
        self._lane = lane
        self._iterator: Iterator[Any] | None = None
        self._ready: deque[Any] = deque()
        self._size = _FIRST_ROWS
        self._coming: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_over = False

    def __await__(self) -> Generator[Any, None, Rows]:
        return self._begun().__await__()

    async def _begun(self) -> Rows:
        if self._iterator is None:
            await self._threads.run(self._begin, self._lane)
        return self

    def _begin(self) -> Iterator[Any]:
        if self._iterator is None:
            self._iterator = self._find()
        return self._iterator

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._error is not None:
                self._is_over, error, self._error = True, self._error, None
                raise error
            if self._is_over:
                raise StopAsyncIteration
            await self._fetch()
        return self._ready.popleft()

    async def _fetch(self) -> None:
        if self._coming is None:
            self._coming = self._threads.start(self._take, self._lane)
        await asyncio.shield(self._coming)
        self._coming = None

    def _take(self) -> None:
        """Fetch a batch, in a thread. Rows in front of an error come before it."""
        found: list[Any] = []
        try:
            iterator = self._begin()
            for row in islice(iterator, self._size):
                found.append(row)  # noqa: PERF402  # `extend` would lose those in front of an error
            self._is_over = len(found) < self._size
        except Exception as error:
            self._error = error
        self._size = min(2 * self._size, _ROWS_MAX)
        self._ready.extend(found)

    async def aclose(self) -> None:
        """Leave out what was not asked for yet."""
        self._is_over = True
        self._ready.clear()
