"""strata.aio: the same handles under the same names, over a database in this process and a served one."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tasks import KINDS, listed, make, over_both, run

import strata
import strata.aio
from strata.aio.adapter import ADAPTERS, AT_HAND, BLOCKING, Handle, public_names
from strata.api.operations import HANDLES, OPERATIONS
from strata.errors import (
    Closed,
    Conflict,
    InvalidInput,
    MergeConflict,
    NotFound,
    ReadOnly,
    StrataError,
    TransactionLost,
)
from strata.primitives import PRIMITIVES
from strata.server.server import Server
from strata.store import open_store

# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", BLOCKING, ids=lambda cls: cls.__name__)
def test_every_public_name_is_there(blocking: type) -> None:
    adapted = ADAPTERS[blocking]
    missing = [name for name in public_names(blocking) if not hasattr(adapted, name)]
    assert not missing, f"aio.{blocking.__name__} lacks {missing}"
    more = [name for name in dir(adapted) if not name.startswith("_") and name not in public_names(blocking)]
    assert not more, f"aio.{blocking.__name__} has {more}, which the blocking class has not"


def test_every_operation_is_there() -> None:
    for operation in OPERATIONS.values():
        for blocking in [cls for cls in BLOCKING if issubclass(cls, operation.owner)]:
            found = getattr(ADAPTERS[blocking], operation.method)
            assert isinstance(found, property) is operation.is_property
    names = {"branch", "run", "space", "at", "transaction", "transact", "transactional", "watch", "close"}
    assert names <= set(dir(strata.aio.Database)) and names <= {*itertools.chain(*HANDLES.values())}


@pytest.mark.parametrize("blocking", BLOCKING, ids=lambda cls: cls.__name__)
def test_arguments_and_docs_are_those_of_the_blocking_method(blocking: type) -> None:
    own = {"transact", "transactional", "recorded", "next", "close", "commit", "rollback"}
    for name in public_names(blocking):
        theirs, ours = inspect.getattr_static(blocking, name, None), getattr(ADAPTERS[blocking], name)
        if inspect.isfunction(theirs) and name not in own:
            assert inspect.signature(ours) == inspect.signature(theirs)
            assert inspect.getdoc(ours) == inspect.getdoc(theirs)
        elif inspect.isfunction(theirs) and name != "transactional":
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
            assert inspect.getdoc(ours)


def test_what_makes_a_handle_of_its_own_class_is_known() -> None:
    """A class that a blocking handle gives, and that is not adapted, would be used in the loop."""
    for blocking, at_hand in AT_HAND.items():
        assert all(hasattr(ADAPTERS[blocking], name) for name in at_hand)
    assert set(PRIMITIVES.values()) <= set(BLOCKING)
    for name in strata.api.__all__:
        found = getattr(strata.api, name)
        assert not inspect.isclass(found) or found in ADAPTERS


def test_asyncio_comes_with_aio_alone() -> None:
    program = (
        "import strata, sys; db = strata.open(); db.kv.put('k', 1); print('asyncio' in sys.modules);"
        "import strata.aio; print('asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


# -- each primitive --------------------------------------------------------------------------------


@over_both
async def test_kv(db: Any) -> None:
    version = await db.kv.put("a", 1)
    assert await db.version == version
    assert (await db.kv.get("a"), await db.kv.get("b", 7), await db.kv["a"]) == (1, 7, 1)
    await db.kv.incr("a", 2)
    await db.kv.put_many({"b": 1, "c": 2})
    assert await listed(db.kv.scan()) == [("a", 3), ("b", 1), ("c", 2)]
    assert await listed(db.kv.keys(reverse=True)) == ["c", "b", "a"]
    assert await listed(db.kv) == ["a", "b", "c"]
    assert [row.value for row in await db.kv.history("a")] == [3, 1]
    with pytest.raises(Conflict):
        await db.kv.cas("a", 9, expected_version=version)
    assert (await db.kv.delete("a"), await db.kv.exists("a"), await db.kv.count()) == (True, False, 2)
    with pytest.raises(KeyError):
        await db.kv["a"]
    with pytest.raises(InvalidInput):
        await db.kv.put("a", object())


@over_both
async def test_events(db: Any) -> None:
    event = await db.events.append("asked", {"by": "Ada"})
    await db.events.append_many([("asked", {"by": "Bob"}), ("left", {})], stream="other")
    assert await db.events.get(event.sequence) == event
    assert [event.type async for event in db.events.range(stream="other")] == ["asked", "left"]
    assert (await db.events.len(), sorted(await db.events.streams())) == (1, ["main", "other"])
    assert (await db.events.verify()).ok


@over_both
async def test_state(db: Any) -> None:
    await db.state.init("light", "red")
    await db.state.transition("light", lambda old: {"red": "green"}[old])
    cell = await db.state.entry("light")
    assert (cell.value, cell.counter) == ("green", 2)
    with pytest.raises(Conflict):
        await db.state.cas("light", 1, "blue")
    await db.state.set("other", 1)
    assert await listed(db.state.list()) == ["light", "other"]


@over_both
async def test_json(db: Any) -> None:
    await db.json.create("doc", {"a": [1]})
    await db.json.append("doc", "$.a", 2)
    await db.json.set("doc", "$.b", "x")
    assert await db.json.get("doc") == {"a": [1, 2], "b": "x"}
    assert await listed(db.json.list()) == ["doc"]
    await db.indexes.create("by b", primitive="json", kind="ordered", paths="$.b")
    assert [name async for name, _ in db.json.find({"$.b": "x"})] == ["doc"]
    assert (await db.indexes.get("by b")).name == "by b"


@over_both
async def test_vectors_and_search(db: Any) -> None:
    await db.vectors.create_collection("v", 2)
    await db.vectors.upsert("v", "east", [1, 0])
    await db.vectors.upsert("v", "north", [0, 1])
    assert [hit.key for hit in await db.vectors.query("v", [1, 0.1], k=1)] == ["east"]
    await db.kv.put("note", "the flat in Turin")
    await db.indexes.create("words", primitive="kv", kind="text")
    found = await db.search("turin")
    assert [(hit.key, hit.value, hit.snippet.marked()) for hit in found] == [
        ("note", "the flat in Turin", "the flat in **Turin**")
    ]


@over_both
async def test_traces_and_retention(db: Any) -> None:
    await db.traces.record("thought", "plan", id="t")
    await db.traces.record("tool_call", "ask", id="u", parent="t")
    assert [trace.id for trace in await db.traces.children("t")] == ["u"]
    assert len(await db.traces.tree("t")) == 2
    assert {trace.id async for trace in db.traces.list()} == {"t", "u"}
    await db.retention.set(strata.KeepLast(2))
    assert await db.retention.get() == strata.KeepLast(2)


@over_both
async def test_machines(db: Any) -> None:
    way = {"from": "created", "event": "PAY", "to": "paid"}
    await db.machines.define(
        "order", 1, {"states": ["created", "paid"], "initial": "created", "transitions": [way]}
    )
    await db.machines.create("order", "o-1", {"total": 25})
    async with db.transaction() as tx:
        done = await tx.machines.apply("o-1", "PAY", {"method": "card"})
        await tx.kv.put("paid", "o-1")
    assert (done.to_state, (await db.machines.get("o-1")).state) == ("paid", "paid")
    assert [found.id for found in await db.machines.list()] == ["o-1"]
    assert len([step async for step in db.machines]) == 1


@over_both
async def test_runs(db: Any) -> None:
    async with await db.runs.begin("answer") as active:
        await active.kv.put("plan", "ask")
        assert await active.status == "active"
        child = await active.runs.begin("part")
        assert [run.id for run in await active.children()] == [child.id]
        await child.cancel()
    assert await active.status == "completed"
    assert (await db.runs.get(active.id)).status == "completed"
    with pytest.raises(RuntimeError, match="mine"):
        async with await db.runs.begin("worse") as worse:
            raise RuntimeError("mine")
    assert (await db.run(worse.id).info).error == "RuntimeError: mine"
    steps = await listed(db.replay(active))
    assert steps and await db.replay(active.id).view.kv.get("plan") == "ask"
    assert await db.replay(active.id).branch == await active.name
    with pytest.raises(NotFound):
        await db.run("nobody")


@over_both
async def test_recorded_calls(db: Any) -> None:
    calls = []

    async def slow(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0)
        if number < 0:
            raise ValueError(number)
        return number + 1

    def plain(number: int) -> int:
        calls.append(number)
        return number * 2

    async def program(active: Any) -> list[Any]:
        ask, double = active.recorded(slow), active.recorded(plain)
        found = [await ask(1), await double(2)]
        with pytest.raises(ValueError):
            await ask(-1)
        with active.lane("side"):
            found.append(await ask(5))
        return found

    active = await db.runs.begin("work")
    assert await program(active) == [2, 4, 6]
    assert await program(await db.run(active.id)) == [2, 4, 6]
    assert calls == [1, 2, -1, 5]
    assert sorted(call.name for call in await active.calls()) == ["plain", "slow", "slow", "slow"]

    @active.recorded(transaction=True)
    def kept(tx: strata.Transaction, value: int) -> int:
        tx.kv.put("kept", value)
        return value

    assert (await kept(3), await active.kv.get("kept")) == (3, 3)


@over_both
async def test_what_a_recorded_call_raises_is_what_was_raised(db: Any) -> None:
    """Also a TimeoutError, for which asyncio puts an equal one when it comes out of a thread."""
    active = await db.runs.begin()
    for raised in (TimeoutError("late"), KeyError("k")):

        def fail(raised: Exception = raised) -> None:
            raise raised

        with pytest.raises(type(raised)) as found:
            await active.recorded(fail)()
        assert found.value is raised


@over_both
async def test_a_stop_iteration_is_the_cause_of_what_is_raised(db: Any) -> None:
    """Python lets no coroutine raise it, so there is an error around it, here and in a replay."""
    stop = StopIteration(3)

    def plain() -> None:
        raise stop

    async def waits() -> None:
        raise stop

    for tool in (plain, waits):
        active = await db.runs.begin()
        with pytest.raises(RuntimeError) as first:
            await active.recorded(tool)()
        assert first.value.__cause__ is stop
        with pytest.raises(RuntimeError):
            await (await db.run(active.id)).recorded(tool)()


@over_both
async def test_recorded_calls_in_each_other(db: Any) -> None:
    """As deep as blocking ones go."""
    active = await db.runs.begin()

    @active.recorded
    async def down(left: int) -> int:
        return 1 + await down(left - 1) if left else 0

    assert await down(300) == 300


@over_both
async def test_branches_diff_log_explain(db: Any) -> None:
    first = await db.kv.put("k", 1)
    draft = await db.branches.fork("main", "draft")
    await draft.space("notes").kv.put("n", "x")
    await db.branch("draft").kv.put("k", 2)
    assert (await db.kv.get("k"), await db.at(first).kv.get("k"), await draft.name) == (1, 1, "draft")
    assert {change.key async for change in db.diff("main", draft)} == {"k", "n"}
    assert len(await db.diff(db.branch("main"), db.branch("draft")).to_list()) == 2
    assert await listed(db.branches) == ["draft", "main"]
    await db.kv.put("k", 3)
    with pytest.raises(MergeConflict):
        await db.branches.merge("draft")
    merged = await db.branches.merge("draft", strategy=lambda conflict: conflict.take_source())
    assert merged.version == await db.version and await db.kv.get("k") == 2
    assert [commit.version for commit in await db.log(limit=1)] == [merged.version]
    assert (await db.explain("strata://main/default/kv/k")).ref.key == "k"
    assert await db.branch("draft").spaces.list() == ["default", "notes"]
    assert await db.at(first).digest() == await db.at(first).digest()
    with pytest.raises(ReadOnly):
        await db.at(first).kv.put("k", 0)
    with pytest.raises(NotFound):
        await db.branch("nowhere")
    with pytest.raises(NotFound):
        await db.branch("nowhere").kv.get("k")
    with pytest.raises(TypeError):
        bool(db.diff("main", "draft"))


@over_both
async def test_the_database_itself(db: Any) -> None:
    await db.kv.put("k", 1)
    assert (await db.verify()).ok
    assert (await db.info()).version == await db.version
    assert await db.flush() == await db.durable_version
    assert (db.path, db.closed) == (None, False)
    assert "Database" in repr(db) and "Branch" in repr(db.branch("main"))


# -- transactions ----------------------------------------------------------------------------------


@over_both
async def test_a_transaction_is_one_commit_or_none(db: Any) -> None:
    async with db.transaction(message="why") as tx:
        await tx.kv.put("a", 1)
        await tx.space("s").events.append("t", {})
        tx.actor = "Ada"
        assert await db.kv.get("a") is None
        assert [row async for row in tx.kv.scan()] == [("a", 1)]
    assert tx.version == await db.version
    (commit,) = await db.log(limit=1)
    assert (commit.message, commit.actor) == ("why", "Ada")
    with pytest.raises(RuntimeError, match="mine"):
        async with db.transaction() as tx:
            await tx.kv.put("a", 2)
            raise RuntimeError("mine")
    assert (await db.kv.get("a"), tx.version) == (1, None)
    tx = await db.transaction()
    await tx.kv.put("a", 3)
    assert await tx.commit() == await db.version
    with pytest.raises(Closed):
        await tx.commit()


@over_both
async def test_a_transaction_sees_its_snapshot(db: Any) -> None:
    await db.kv.put("a", 1)
    async with db.transaction() as tx:
        await db.kv.put("a", 2)
        assert (await tx.kv.get("a"), tx.snapshot) == (1, 1)


@over_both
async def test_blocks_do_not_nest_in_one_task(db: Any) -> None:
    async with db.transaction() as tx:
        await tx.kv.put("a", 1)
        with pytest.raises(InvalidInput):
            async with db.transaction():
                pass
        with pytest.raises(InvalidInput):
            await db.transact(lambda tx: tx.kv.put("a", 2))
        with pytest.raises(InvalidInput):  # it makes a transaction of its own, in a thread
            await db.ingest_transcript([{"role": "user", "content": "hello"}])
    async with db.transaction() as tx:
        await tx.kv.put("b", 1)
    assert await listed(db.kv.scan()) == [("a", 1), ("b", 1)]


@over_both
async def test_tasks_have_transactions_of_their_own(db: Any) -> None:
    begun = asyncio.Barrier(3) if sys.version_info >= (3, 11) else None

    async def write(key: str) -> None:
        async with db.transaction() as tx:
            await begun.wait()
            await tx.kv.put(key, key)

    async with db.transaction() as tx:  # also those that were made inside of the block of another
        others = [asyncio.create_task(write(key)) for key in ("b", "c")]
        await begun.wait()
        await tx.kv.put("a", "a")
        await asyncio.gather(*others)
    assert await listed(db.kv.keys()) == ["a", "b", "c"]


@over_both
async def test_transact_tries_again(db: Any) -> None:
    await db.kv.put("n", 0)

    async def count(tx: Any) -> int:
        number = await tx.kv.get("n")
        await asyncio.sleep(0)
        await tx.kv.put("n", number + 1)
        return number

    found = await asyncio.gather(*(db.transact(count) for _ in range(8)))
    assert (sorted(found), await db.kv.get("n")) == (list(range(8)), 8)

    async def hopeless(tx: Any) -> None:
        await tx.kv.put("n", await tx.kv.get("n"))
        await db.kv.put("n", 0)

    with pytest.raises(Conflict):
        await db.transact(hopeless, retries=2)

    @db.transactional(actor="Ada")
    async def add(tx: Any, by: int) -> int:
        return await tx.kv.incr("n", by) or by

    assert await add(4) == 4
    assert await db.kv.get("n") == 4 and (await db.log(limit=1))[0].actor == "Ada"


@over_both
async def test_calls_in_a_transaction_come_one_after_the_other(db: Any) -> None:
    async with db.transaction() as tx:
        await asyncio.gather(*(tx.kv.put(f"k{number:02}", number) for number in range(40)))
        scans = await asyncio.gather(*(listed(tx.kv.scan()) for _ in range(4)))
        assert all(scan == scans[0] and len(scan) == 40 for scan in scans)
    assert await db.kv.count() == 40


# -- opening and closing ---------------------------------------------------------------------------


@over_both
async def test_closing(db: Any) -> None:
    await db.kv.put("k", 1)
    handles = [db, db.branch("main"), await db.at(1), db.space("s")]
    rows = await db.kv.scan()
    await db.close()
    await db.close()
    assert db.closed
    for handle in handles:
        with pytest.raises(Closed):
            await handle.kv.get("k")
    with pytest.raises(Closed):
        await db.version
    with pytest.raises(Closed):
        await db.transaction()
    with suppress(Closed):
        await listed(rows)


def test_opening_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "a.strata"

    async def main() -> None:
        db = await strata.aio.open(path, durability="buffered")
        assert (db.path, db.name) == (path, "a")
        await db.kv.put("k", 1)
        async with strata.aio.open(path) as guest:  # the same process is a guest of itself
            assert await guest.kv.get("k") == 1
        await db.close()
        async with strata.aio.open(path, read_only=True) as db:
            assert await db.kv.get("k") == 1
            with pytest.raises(ReadOnly):
                await db.kv.put("k", 2)
        with pytest.raises(NotFound):
            await strata.aio.open(tmp_path / "none.strata", create=False)
        with pytest.raises(StrataError):
            async with strata.aio.connect(f"unix:{tmp_path}/none", timeout_s=0.01):
                pass
        lazy = strata.aio.open(tmp_path / "b.strata")
        await asyncio.gather(*(lazy.kv.incr("n") for _ in range(10)))  # opened once, by the first of them
        assert await lazy.kv.get("n") == 10
        await lazy.close()

    run(main())


def test_connecting_to_a_server() -> None:
    store = open_store(None)
    server = Server(store, name="served")
    host, port = server.listen_tcp("127.0.0.1", 0)

    async def main() -> None:
        async with strata.aio.connect(f"strata://{host}:{port}") as db:
            await asyncio.gather(*(db.kv.incr("n") for _ in range(10)))
            db._found._store._link.channel._socket.close()  # it breaks, and is made again
            assert await db.kv.get("n") == 10
            async with db.transaction() as tx:
                await tx.kv.put("k", 1)
            assert await db.kv.count() == 2
            with pytest.raises(TransactionLost):
                async with db.transaction() as tx:
                    await tx.kv.put("k", 2)
                    tx._found._source._channel._socket.close()
                    await tx.kv.get("k")
            assert await db.kv.get("k") == 1

    try:
        run(main())
    finally:
        server.close()
        store.close()


def test_a_database_that_is_open_already() -> None:
    with strata.open() as database:
        database.kv.put("k", 1)

        async def main() -> None:
            db = strata.aio.over(database)
            await db.kv.incr("k")

        run(main())
        run(main())  # in another loop
        assert database.kv.get("k") == 3


def test_a_handle_says_what_is_not_known_yet() -> None:
    async def main() -> None:
        async with make("embedded") as db:
            watch = db.watch()
            with pytest.raises(InvalidInput):
                watch.version
            assert (await watch).version == 0
            with pytest.raises(AttributeError):
                db.kv.gte
            assert isinstance(db.kv, Handle)

    run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_is_told(kind: str) -> None:
    program = (
        "import asyncio, os, sys; sys.path.insert(0, sys.argv[2])\n"
        "import tasks; from strata.errors import StrataError\n"
        "db = tasks.make(sys.argv[1])\n"
        "async def use():\n"
        "    await db.state.set('k', 1)\n"
        "asyncio.run(use())\n"
        "if os.fork() == 0:\n"
        "    try: asyncio.run(use())\n"
        "    except StrataError as error: print(type(error).__name__, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait(); asyncio.run(use()); os._exit(0)"
    )
    command = [sys.executable, "-c", program, kind, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "Closed", done.stderr
