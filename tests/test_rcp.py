"""The official client of rstmdb for Python drives our listener through every one of its methods.

Without TLS and token, with a token, with TLS, and with a certificate of its own. What it has no method for
goes through the layer below, which is public too.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from machine_cases import ORDER as MORE
from rcp_client import ALL, TOKEN, serving
from served import certificates

import strata
from strata.server.access import hash_of, tokens_of
from strata.server.tls import ServerTls

rstmdb = pytest.importorskip("rstmdb")
from rstmdb import Client, ServerError  # noqa: E402
from rstmdb.connection import Connection  # noqa: E402
from rstmdb.errors import ConnectionError, ProtocolError  # noqa: E402
from rstmdb.models import Operation  # noqa: E402

ORDER = {
    "states": ["created", "paid", "shipped"],
    "initial": "created",
    "transitions": [
        {"from": "created", "event": "PAY", "to": "paid"},
        {"from": "paid", "event": "SHIP", "to": "shipped"},
    ],
}
WAYS = ("plain", "token", "tls", "mtls")


class Way:
    """A server, and how its clients reach it."""

    def __init__(self, rcp, **options):
        self.rcp, self.options = rcp, options

    def client(self, **more):
        # The certificate is that of localhost.
        host = "localhost" if "ca_cert" in self.options else self.rcp.host
        return Client(host, self.rcp.port, request_timeout=20, **(self.options | more))


@pytest.fixture(params=WAYS)
def way(request):
    options, tokens, tls = {}, None, None
    if request.param == "token":
        options, tokens = {"token": TOKEN}, tokens_of([hash_of(TOKEN)])
    elif request.param in ("tls", "mtls"):
        files = certificates()
        options = {"tls": True, "ca_cert": str(files / "ca.pem")}
        authority = None
        if request.param == "mtls":
            authority = files / "ca.pem"
            options |= {"client_cert": str(files / "client.pem"), "client_key": str(files / "client.key")}
        tls = ServerTls(files / "server.pem", files / "server.key", authority)
    with ExitStack() as stack:
        db = stack.enter_context(strata.open())
        yield Way(stack.enter_context(serving(db, tokens=tokens, tls=tls)), **options)


def run(work):
    return asyncio.run(asyncio.wait_for(work, 60))


async def code_of(asked):
    with pytest.raises(ServerError) as raised:
        await asked
    return raised.value.code.value


async def events_of(client, count):
    found = []
    async for event in client.events():
        found.append(event)
        if len(found) == count:
            return found


def driven(work):
    """A test that runs with a client which has the machine `order`."""

    def test(way):
        async def driving():
            async with way.client() as client:
                await client.put_machine("order", 1, ORDER)
                await work(client)

        run(driving())

    test.__name__, test.__doc__ = work.__name__, work.__doc__
    return test


def test_connecting(way):
    async def work():
        client = way.client()
        assert not client.is_connected
        await client.connect()
        assert client.is_connected and await client.ping()
        info = await client.info()
        assert (info["protocol_version"], info["max_batch_ops"], info["max_frame_bytes"]) == (1, 100, 1 << 24)
        assert info["features"] == ["idempotency", "batch", "wal_read"]
        await client.reconnect()
        assert await client.ping()
        await client.close()
        assert not client.is_connected
        async with way.client(auto_reconnect=True, reconnect_base_delay=0.01) as other:
            assert await other.ping()

    run(work())


@driven
async def test_machines(client):
    made = await client.put_machine("order", 1, ORDER)
    assert (made.machine, made.version, made.stored_checksum, made.created) == ("order", 1, "b27ab97f", False)
    assert await code_of(client.put_machine("order", 1, MORE)) == "MACHINE_VERSION_EXISTS"
    assert (await client.put_machine("order", 2, MORE)).created
    await client.put_machine("invoice", 1, ORDER)
    found = await client.get_machine("order", 1)
    assert found.checksum == "b27ab97f" and found.definition["transitions"][0]["from"] == ["created"]
    assert await client.list_machines() == [
        {"machine": "invoice", "versions": [1]},
        {"machine": "order", "versions": [1, 2]},
    ]
    assert await code_of(client.get_machine("order", 3)) == "MACHINE_NOT_FOUND"


@driven
async def test_instances(client):
    bare = await client.create_instance("order", 1, "o-1")
    assert (bare.instance_id, bare.state) == ("o-1", "created")
    assert (await client.get_instance("o-1")).ctx == {}
    named = await client.create_instance("order", 1, initial_ctx={"total": 5}, idempotency_key="c")
    again = await client.create_instance("order", 1, initial_ctx={"total": 5}, idempotency_key="c")
    assert again == named and named.wal_offset > bare.wal_offset
    got = await client.get_instance(named.instance_id)
    assert (got.machine, got.version, got.state, got.ctx) == ("order", 1, "created", {"total": 5})
    assert (got.last_event_id, got.last_wal_offset) == (None, named.wal_offset)
    page = await client.list_instances("order", limit=1)
    rest = await client.list_instances("order", limit=1, offset=1)
    assert (page.total, page.has_more, rest.total, rest.has_more) == (2, True, 2, False)
    assert {page.instances[0].id, rest.instances[0].id} == {"o-1", named.instance_id}
    await client.apply_event("o-1", "PAY")
    assert [one.id for one in (await client.list_instances("order", "paid")).instances] == ["o-1"]
    assert [one.id for one in (await client.list_instances(state="paid")).instances] == ["o-1"]
    assert (await client.list_instances("invoice")).instances == []
    gone = await client.delete_instance("o-1", idempotency_key="d")
    assert gone == {"instance_id": "o-1", "deleted": True, "wal_offset": gone["wal_offset"]}
    assert await client.delete_instance("o-1") == gone
    assert await code_of(client.get_instance("o-1")) == "INSTANCE_NOT_FOUND"


@driven
async def test_events_and_watches(client):
    bare = await client.create_instance("order", 1, "o-1")
    one = await client.watch_instance("o-1")
    assert (one.current_state, one.current_wal_offset) == ("created", bare.wal_offset)
    all_ = await client.watch_all(["order"], ["created"], ["paid"], ["PAY"], include_ctx=False)
    paid = await client.apply_event("o-1", "PAY", {"by": "card"}, "created", idempotency_key="p")
    assert (paid.from_state, paid.to_state, paid.ctx) == ("created", "paid", {"by": "card"})
    assert (paid.applied, paid.event_id) == (True, None)
    twice = await client.apply_event("o-1", "PAY", {"by": "card"}, idempotency_key="p")
    assert (twice.applied, twice.wal_offset, twice.ctx) == (False, paid.wal_offset, paid.ctx)
    shipped = await client.apply_event("o-1", "SHIP")
    found = {(one.subscription_id, one.event): one for one in await events_of(client, 3)}
    assert set(found) == {
        (one.subscription_id, "PAY"),
        (one.subscription_id, "SHIP"),
        (all_.subscription_id, "PAY"),
    }
    for (subscription, event), said in found.items():
        wanted = (paid.wal_offset, {"by": "card"}) if event == "PAY" else (shipped.wal_offset, None)
        assert (said.wal_offset, said.payload) == wanted
        assert said.ctx == (None if subscription == all_.subscription_id else {"by": "card"})
    assert [event for _, event in found if _ == one.subscription_id] == ["PAY", "SHIP"]
    assert (await client.unwatch(one.subscription_id)).removed
    assert not (await client.unwatch(one.subscription_id)).removed


@driven
async def test_the_log_and_the_files(client):
    await client.create_instance("order", 1, "o-1")
    await client.apply_event("o-1", "PAY")
    await client.delete_instance("o-1")
    log = await client.wal_read(0, 2)
    entries = log["records"]
    while log["next_offset"] is not None:
        log = await client.wal_read(log["next_offset"], 2)
        entries += log["records"]
    offsets = [entry["offset"] for entry in entries]
    assert offsets == sorted(set(offsets))
    kinds = ["put_machine", "create_instance", "apply_event", "delete_instance"]
    assert [entry["entry"]["type"] for entry in entries] == kinds
    stats = await client.wal_stats()
    assert stats.latest_offset > offsets[-1] and stats.io_stats.writes > 0
    assert {"snapshots_created", "segments_deleted", "bytes_reclaimed"} <= set(await client.compact(True))
    flushed = await client.flush_all()
    assert (flushed.flushed, flushed.instances_removed, flushed.machines_removed) == (True, 0, 1)
    assert await client.list_machines() == []


def test_this_file_calls_every_method():
    """When a version of the client has another method, it is to be driven too."""
    source = Path(__file__).read_text("utf-8")
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert {name for name in public if f"client.{name}" not in source} == set()


def test_what_it_has_no_method_for(way):
    async def work():
        async with way.client() as client:
            await client.put_machine("order", 1, ORDER)
            ask = client._conn.request
            items = [
                {"op": "CREATE_INSTANCE", "params": {"machine": "order", "version": 1, "instance_id": id}}
                for id in "ab"
            ]
            items.append({"op": "APPLY_EVENT", "params": {"instance_id": "a", "event": "SHIP"}})
            answer = await ask(Operation.BATCH, {"mode": "atomic", "ops": items})
            assert answer.status == "error" and answer.error.code.value == "BAD_REQUEST"
            assert "atomic batch failed" in answer.error.message
            assert answer.error.details["index"] == 2
            assert answer.error.details["code"] == "INVALID_TRANSITION"
            assert (await client.list_instances()).total == 0
            answer = await ask(Operation.BATCH, {"ops": items})
            assert [one["status"] for one in answer.result["results"]] == ["ok", "ok", "error"]
            taken = await ask(Operation.SNAPSHOT_INSTANCE, {"instance_id": "a"})
            assert taken.result["snapshot_id"].startswith("snap-")
            assert (await ask(Operation.BYE, {})).result == {"goodbye": True}

    run(work())


def test_a_hundred_requests_at_once(way):
    async def work():
        async with way.client() as client:
            await client.put_machine("order", 1, ORDER)
            made = await asyncio.gather(
                *(client.create_instance("order", 1, f"o-{number}") for number in range(100))
            )
            assert [one.instance_id for one in made] == [f"o-{number}" for number in range(100)]
            assert len({one.wal_offset for one in made}) == 100

    run(work())


def test_tokens():
    with strata.open() as db, serving(db, tokens=tokens_of([hash_of(TOKEN)])) as rcp:

        async def work():
            with pytest.raises(ServerError) as raised:
                await Client(rcp.host, rcp.port, token="wrong").connect()
            assert raised.value.code.value == "AUTH_FAILED"
            async with Client(rcp.host, rcp.port) as client:
                assert await client.ping()
                for asked in (client.info(), client.watch_all(), client.list_machines(), client.wal_read(0)):
                    assert await code_of(asked) == "UNAUTHORIZED"
            low = Connection(rcp.host, rcp.port)
            await low.connect(auth_token=TOKEN)
            assert (await low.request(Operation.INFO, {})).status == "ok"
            await low.close()

        run(work())


def test_a_certificate_is_asked_for(tmp_path):
    files = certificates()
    tls = ServerTls(files / "server.pem", files / "server.key", files / "ca.pem")
    with strata.open() as db, serving(db, tls=tls) as rcp:

        async def work():
            with pytest.raises((ConnectionError, OSError)):
                client = Client("localhost", rcp.port, ca_cert=str(files / "ca.pem"))
                await client.connect()
                await client.ping()

        run(work())
        assert rcp.listener.active == 0 and not rcp.server.connections


def test_a_server_that_only_reads():
    with strata.open() as db:
        db.machines.define("order", 1, ORDER)
        db.machines.create("order", "a")
        with serving(db, read_only=True) as rcp:

            async def work():
                async with Client(rcp.host, rcp.port) as client:
                    assert (await client.get_instance("a")).state == "created"
                    await client.watch_all()
                    # This client has no member for the code, and says so; the connection goes on.
                    for asked in (
                        client.put_machine("x", 1, ORDER),
                        client.create_instance("order", 1),
                        client.apply_event("a", "PAY"),
                        client.delete_instance("a"),
                        client.flush_all(),
                        client.compact(),
                    ):
                        with pytest.raises(ProtocolError, match="READ_ONLY_MODE"):
                            await asked
                    assert await client.ping()

            run(work())
            assert ALL.allow_flush_all
