"""strata.aio where something waits: cancelled tasks, watches, and a loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tasks import listed, over, over_both, run

import strata
import strata.aio
from strata.aio.threads import THREADS, Threads
from strata.api.transaction import _innermost
from strata.errors import Closed


class Gate:
    """A function that waits in a thread until the loop opens it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()
        self.entered = asyncio.Event()
        self.inside = self.most = 0

    def __call__(self, old: Any) -> int:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self._open.wait(20)
        self.inside -= 1
        return 2

    def open(self) -> None:
        self._open.set()


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


# -- cancellation ----------------------------------------------------------------------------------


@over_both
async def test_a_cancelled_block_rolls_back(db: Any) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.kv.put("a", 1)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.kv.get("a", "nothing") in ("nothing",)
    async with db.transaction() as tx:
        await tx.kv.put("a", 2)
    assert await db.kv.get("a") == 2


@over_both
async def test_whoever_is_cancelled_leaves_the_handle_usable(db: Any) -> None:
    await db.kv.put_many({f"k{number:04}": number for number in range(2000)})
    rows = db.kv.scan()
    seen = []
    for wait in range(30):
        with suppress(asyncio.TimeoutError):
            async with asyncio.timeout(wait * 0.0002):
                async for row in rows:
                    seen.append(row)
    seen += await listed(rows)
    assert seen == [(f"k{number:04}", number) for number in range(2000)]
    tasks = [asyncio.create_task(listed(db.kv.scan())) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(done, asyncio.CancelledError)
        for done in await asyncio.gather(*tasks, return_exceptions=True)
    )
    assert len(await listed(db.kv.keys())) == 2000


@over_both
async def test_cancelling_at_any_moment_leaks_no_transaction(db: Any) -> None:
    """Writers that are cancelled anywhere leave all of a transaction, or nothing, and locks nobody out."""

    async def write(number: int) -> None:
        async with db.transaction() as tx:
            await tx.kv.put(f"{number}/a", number)
            assert await tx.kv.count(f"{number}/") == 1
            await tx.kv.put(f"{number}/b", number)

    for number in range(40):
        task = asyncio.create_task(write(number))
        for _ in range(number % 13):
            await asyncio.sleep(0)
        if number % 3 == 0:
            await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await write(99)
    sides: dict[str, set[str]] = {"a": set(), "b": set()}
    async for key in db.kv.keys():
        number, _, side = key.partition("/")
        sides[side].add(number)
    assert "99" in sides["a"] and len(sides["a"] ^ sides["b"]) == 0


# -- the loop goes on ------------------------------------------------------------------------------


@over_both
async def test_what_waits_does_not_hold_the_loop(db: Any) -> None:
    await db.kv.put("k", 1)
    gate = Gate()
    slow = asyncio.create_task(db.state.transition("cell", gate))
    await gate.entered.wait()
    assert await db.kv.get("k") == 1  # while the other one waits
    gate.open()
    await slow
    assert await db.state.get("cell") == 2


@over("embedded")
async def test_points_run_at_once_and_others_have_their_turn(db: Any) -> None:
    threads = threading.active_count()
    await db.kv.put("k", 1)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    for _ in range(2000):
        await db.kv.get("k")
    assert turns > 2
    task.cancel()
    assert threading.active_count() == threads  # none was needed


def test_strict_commits_wait_in_a_thread(tmp_path: Path) -> None:
    where = []

    async def main() -> None:
        async with strata.aio.open(tmp_path / "a.strata", durability="strict") as db:
            assert not db._threads.writes_at_once and db._threads.reads_at_once
            db._threads.start, start = (lambda *args: where.append(1) or start(*args)), db._threads.start
            await db.kv.put("k", 1)
            assert where == [1]
            assert await db.kv.get("k") == 1
            assert where == [1]

    run(main())


def test_what_a_call_gave_is_let_go_of_at_once():
    """The threads held it, and the call, a moment longer: a database that nobody had any more stayed open.
    Before, the future of the thread held it in a circle, until somebody collected garbage."""

    class Result:
        pass

    async def main() -> None:
        threads = Threads()
        for start in (threads.start, threads.start_apart):
            for _ in range(50):
                made, used = Result(), Result()
                refs = weakref.ref(made), weakref.ref(used)
                given = [made]
                del made

                def call(used: Result = used, given: list[Result] = given) -> Result:
                    return given.pop()

                del used
                future = start(call)
                del call
                found = await future
                del found, future
                await asyncio.sleep(0)  # the loop has the future in hand while it goes on with us
                assert [ref() for ref in refs] == [None, None]
        threads.end()

    gc.disable()
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the threads lag behind
    try:
        asyncio.run(main())
    finally:
        gc.enable()
        sys.setswitchinterval(switch_s)


@over("served")
async def test_many_gets_are_under_way_on_one_connection(db: Any) -> None:
    await db.kv.put_many({f"k{number}": number for number in range(64)})
    channel = db._found._store._link.channel
    most, sendall = 0, channel._send

    def send() -> None:
        nonlocal most
        most = max(most, len(channel._waiting))
        sendall()

    channel._send = send
    found = await asyncio.gather(*(db.kv.get(f"k{number}") for number in range(64)))
    assert found == list(range(64))
    assert 1 < most <= THREADS and db._found._store._link.channel is channel


@over_both
async def test_many_tasks_at_once(db: Any) -> None:
    async def work(task: int) -> None:
        for number in range(10):
            await db.events.append("did", {"task": task, "number": number})
            await db.kv.incr("sum")

    await asyncio.gather(*(work(task) for task in range(20)))
    assert (await db.events.len(), await db.kv.get("sum"), (await db.events.verify()).ok) == (200, 200, True)


# -- watch -----------------------------------------------------------------------------------------


@over_both
async def test_watch(db: Any) -> None:
    first = await db.kv.put("a", 1)
    watch = await db.watch()
    assert watch.version == first and await watch.next(timeout_s=0) is None
    waiting = asyncio.create_task(watch.next())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    version = await db.kv.put("b", 2)
    assert (await waiting).version == version == watch.version
    assert [step.version async for step in db.watch(from_version=0, timeout_s=0)] == [first, version]
    async with db.watch("kv", from_version=0, limit=1) as watch:
        assert [step.changes[0].key async for step in watch] == ["a"]
        assert watch.closed


@over_both
async def test_a_watch_loses_nothing_when_a_task_is_cancelled(db: Any) -> None:
    watch = await db.watch()
    seen = []
    for number in range(20):
        task = asyncio.create_task(watch.next())
        for _ in range(number % 4):
            await asyncio.sleep(0)
        await db.kv.put("k", number)
        if number % 2:
            await asyncio.sleep(0.002)
        task.cancel()
        with suppress(asyncio.CancelledError):
            seen.append((await task).version)
    while (step := await watch.next(timeout_s=0)) is not None:
        seen.append(step.version)
    assert seen == list(range(1, 21))


@over_both
async def test_a_watch_ends_with_close(db: Any) -> None:
    watch = await db.watch()
    waiting = asyncio.create_task(listed(watch))
    await asyncio.sleep(0.01)
    await watch.close()
    assert await waiting == []
    other = await db.watch()
    waiting = asyncio.create_task(other.next())
    await asyncio.sleep(0.01)
    await db.close()
    with pytest.raises(Closed):
        await waiting


@over_both
async def test_one_thread_at_a_time_is_in_a_transaction(db: Any) -> None:
    gate = Gate()
    async with db.transaction() as tx:
        await tx.kv.put("k", 1)
        slow = [asyncio.create_task(tx.state.transition(name, gate)) for name in "ab"]
        await gate.entered.wait()
        got = asyncio.create_task(tx.kv.get("k"))
        await asyncio.wait({got}, timeout=0.02)  # the loop goes on, and the others have to wait
        assert gate.most == 1 and not got.done()
        gate.open()
        await asyncio.gather(*slow)
        assert await got == 1 and gate.most == 1
    assert _innermost.get() is None
    assert await listed(db.state.list()) == ["a", "b"]


@over("served")
async def test_a_commit_that_was_asked_for_happens(db: Any) -> None:
    """Also where the task is cancelled before a thread had time for it."""
    db._threads._pool._max_workers = 1
    tx = await db.transaction()
    await tx.kv.put("k", 1)
    gate = Gate()
    slow = asyncio.create_task(db.state.transition("cell", gate))
    await gate.entered.wait()
    commit = asyncio.create_task(tx.commit())
    get = asyncio.create_task(db.kv.put("other", 1))
    await turns()
    commit.cancel()
    get.cancel()
    for task in (commit, get):
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.open()
    await slow
    assert await listed(db.kv.scan()) == [("k", 1)]
