"""Tests that are async functions of a database, in this process or served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import served

import strata
import strata.aio
from strata.store import open_store

KINDS = ("embedded", "served")
Body = Callable[[strata.aio.Database], Awaitable[None]]


def make(kind: str) -> strata.aio.Database:
    """Return an empty database in memory."""
    store = open_store(None)
    return strata.aio.over(strata.Database(store if kind == "embedded" else served.over_socket(store)))


def run(awaitable: Awaitable[Any]) -> Any:
    async def within() -> Any:
        return await asyncio.wait_for(awaitable, 60)

    return asyncio.run(within())


def over(*kinds: str) -> Callable[[Body], Callable[[str], None]]:
    """Make an async function of a database into a test."""

    def decorate(body: Body) -> Callable[[str], None]:
        @pytest.mark.parametrize("kind", kinds)
        def test(kind: str) -> None:
            async def main() -> None:
                async with make(kind) as db:
                    await body(db)

            run(main())

        test.__doc__ = body.__doc__
        return test

    return decorate


over_both = over(*KINDS)


async def listed(rows: AsyncIterator[Any]) -> list[Any]:
    return [row async for row in rows]
