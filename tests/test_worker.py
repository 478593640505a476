"""The worker: timers that fire by themselves, several workers on one database, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import databases
import pytest
from receivers import SECRET, URL, Remembers, failing, receiving

import strata
from strata.api.webhooks_rows import HOME, LAYOUT, LEASE, SPACE, home_of
from strata.errors import AccessDenied, InvalidInput, NotFound, StorageError
from strata.server.access import hash_of, new_token, tokens_of
from strata.server.server import Server
from strata.testing import FakeClock
from strata.worker import Allowed, HttpTransport, Worker
from strata.worker.leases import LEASE_US

SECOND = 1_000_000
OFFER = {
    "states": ["open", "expired"],
    "initial": "open",
    "transitions": [{"from": "open", "event": "EXPIRE", "to": "expired"}],
    "timers": [{"state": "open", "after": 60, "event": "EXPIRE"}],
}
NOWHERE = {"log": lambda *_, **__: None}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=databases.KINDS)
def db(request, clock):
    with databases.make(request.param, clock) as database:
        yield database


def until(condition):
    """Wait for what threads do."""
    pause = threading.Event()
    for _ in range(30_000):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it did not come to that")


# -- timers


def test_timers_fire_in_all_spaces_of_the_branches_that_are_given(db, clock):
    places = [db, db.space("notes"), db.branches.create("draft"), db.branch("draft").space("notes")]
    others = db.branches.create("other")
    for place in (*places, others):
        place.machines.define("offer", 1, OFFER)
        place.machines.create("offer", "a")
    worker = Worker(db, branches=["main", "draft"])
    assert worker.step() == 0
    clock.advance(60 * SECOND)
    assert worker.step() == 4
    assert [place.machines.get("a").state for place in places] == ["expired"] * 4
    assert others.machines.get("a").state == "open"
    assert worker.step() == 0
    assert Worker(db, branches=["other"]).step() == 1


def test_the_branch_of_timers_has_to_be_there(db):
    with pytest.raises(NotFound):
        Worker(db, branches=["draft"])
    with pytest.raises(InvalidInput):
        Worker(db, senders=0)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_due_timers_fire_once_each_in_order_after_a_restart(tmp_path, count):
    """By the threads of a worker, under a clock that jumps from before all of them to behind."""
    clock, path = FakeClock(), tmp_path / "a.strata"
    with strata.open(path, clock=clock) as db:
        db.machines.define("offer", 1, OFFER)
        for start in range(0, count, 100):
            ids = [f"{number * 7919 % count:05}" for number in range(start, start + 100)]
            db.machines.batch([{"op": "create", "machine": "offer", "id": id} for id in ids])
            clock.advance(1000)
    clock.advance(3600 * SECOND)
    with strata.open(path, clock=clock) as db:
        due = {found.id: found.created_us for found in db.machines.list(limit=None)}
        begun = db.version
        with Worker(db):
            until(lambda: db.machines.count("offer", "expired") == count)
            until(lambda: db.machines.next_due() is None)
        with db.watch("machines", from_version=begun, timeout_s=0) as watch:
            fired = [change.key for step in watch for change in step.changes]
        assert len(fired) == len({*fired}) == count
        order = [(due[id], id) for id in fired]
        assert order == sorted(order)


def test_a_timer_that_is_set_while_the_worker_waits_fires(tmp_path):
    with strata.open(tmp_path / "a.strata") as db, Worker(db):
        db.machines.define("offer", 1, OFFER | {"timers": [{**OFFER["timers"][0], "after": 0.02}]})
        db.machines.create("offer", "a")
        until(lambda: db.machines.get("a").state == "expired")


def test_a_timer_that_cannot_be_is_not_in_the_way_of_others(db, clock):
    """An action that fails, fails again: so its timer goes without effect, and is told."""
    counting = OFFER | {"actions": [{"on": "enter", "state": "expired", "do": "kv.incr", "key": "n-{id}"}]}
    db.machines.define("offer", 1, counting)
    for id in "abc":
        db.machines.create("offer", id)
        clock.advance(1)
    db.kv.put("n-b", "no number")
    clock.advance(60 * SECOND)
    fired = [(one.instance, one.refused) for one in db.machines.fire_due()]
    assert fired == [("a", None), ("b", "invalid_input"), ("c", None)]
    assert [db.machines.get(id).state for id in "abc"] == ["expired", "open", "expired"]
    assert db.machines.fire_due() == [] and db.machines.next_due() is None


def test_a_timer_that_a_unique_index_refuses_is_not_in_the_way(clock):
    with databases.make("kernel", clock) as db:
        db.indexes.create(
            "one", primitive="machines", kind="ordered", paths=["$.state", "$.context.n"], unique=True
        )
        db.machines.define("offer", 1, OFFER)
        for number, id in enumerate("abc"):
            db.machines.create("offer", id, {"n": number})
        db.machines.define("taken", 1, {"states": ["expired"], "initial": "expired", "transitions": []})
        db.machines.create("taken", "x", {"n": 1})
        clock.advance(60 * SECOND)
        fired = [(one.instance, one.refused) for one in db.machines.fire_due()]
        assert fired == [("a", None), ("b", "already_exists"), ("c", None)]
        assert db.machines.next_due() is None


def test_what_goes_wrong_is_logged_and_tried_again(tmp_path, monkeypatch):
    said, broken = [], [True]
    with strata.open(tmp_path / "a.strata") as db:
        db.machines.define("offer", 1, OFFER | {"timers": [{**OFFER["timers"][0], "after": 0.001}]})
        db.machines.create("offer", "a")
        worker = Worker(db, log=lambda event, **fields: said.append((event, fields)))
        fire = worker._timers[0].fire

        def failing_once():
            if broken and broken.pop():
                raise StorageError("the disk is full")
            return fire()

        monkeypatch.setattr(worker._timers[0], "fire", failing_once)
        with worker:
            until(lambda: db.machines.get("a").state == "expired")
    (event, fields), *_ = said
    assert event == "failed" and fields["error"] == "StorageError" and "disk" in fields["why"]


def test_a_sealed_branch_waits(db, clock):
    db.machines.define("offer", 1, OFFER)
    db.machines.create("offer", "a")
    db.branches.protect("main")
    clock.advance(60 * SECOND)
    worker = Worker(db)
    assert worker.step() == 0
    db.branches.unprotect("main")
    assert worker.step() == 1


def test_a_worker_begins_once(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        worker = Worker(db)
        assert "not begun" in repr(worker)
        with worker:
            assert "running" in repr(worker)
            for use in (worker.start, worker.step):
                with pytest.raises(InvalidInput):
                    use()
        assert "stopped" in repr(worker) and worker.stop()
        with pytest.raises(InvalidInput):
            worker.start()


def test_the_end_of_the_database_ends_the_worker(tmp_path):
    db = strata.open(tmp_path / "a.strata")
    db.webhooks.add("a", URL)
    worker = Worker(db, transport=Remembers()).start()
    db.close()
    until(lambda: not any(thread.is_alive() for thread in worker._threads))
    assert worker.stop()


# -- several workers


def test_one_worker_delivers(db, clock):
    db.webhooks.add("a", URL)
    transports = [Remembers(), Remembers()]
    first, second = (Worker(db, transport=transport) for transport in transports)
    for number in range(3):
        db.kv.put("k", number)
        first.step()
        second.step()
    assert len(transports[0].got) == 3 and transports[1].got == []
    first.stop()
    db.kv.put("k", 3)
    second.step()
    assert len(transports[1].got) == 1


def test_another_worker_goes_on_when_the_lease_has_run_out(db, clock):
    db.webhooks.add("a", URL)
    transports = [Remembers(), Remembers()]
    first, second = (Worker(db, transport=transport) for transport in transports)
    first.step()
    db.kv.put("k", 1)
    clock.advance(LEASE_US + 1)
    second.step()
    db.kv.put("k", 2)
    first.step()  # it finds out that it has the lease no more
    assert transports[0].got == []
    assert len(transports[1].got) == 1
    second.step()
    assert len(transports[1].got) == 2


def test_who_lost_the_lease_while_sending_writes_nothing_down(db, clock):
    """A worker sleeps in a request, another one takes over: the first must not move the position."""
    db.webhooks.add("a", URL)
    transports = [Remembers(), Remembers()]
    first, second = (Worker(db, transport=transport, senders=1) for transport in transports)

    def sleeping():
        clock.advance(LEASE_US + 1)
        second.step()
        return failing()

    transports[0].answers["*"] = sleeping
    db.kv.put("k", 1)
    first.step()
    status = db.webhooks.status("a")
    assert (status.delivered, status.failed, status.waiting) == (1, 0, 0)
    assert [key for key, _ in transports[1].got] == ["k"]


def test_a_lease_that_was_lost_and_had_again_is_another_one(db, clock):
    """What was sent before it was lost is not written down after: somebody else has done so meanwhile."""
    db.webhooks.add("a", URL)
    transports = [Remembers(), Remembers()]
    first, second = (Worker(db, transport=transport, senders=1) for transport in transports)

    def sleeping():
        clock.advance(LEASE_US + 1)
        second.step()
        second.stop()
        assert first._lead(home_of(db._store).keyspace(SPACE, LAYOUT)) == 0  # as its other thread does
        return failing()

    transports[0].answers["k"] = sleeping
    db.kv.put("k", 1)
    first.step()
    status = db.webhooks.status("a")
    assert (status.delivered, status.failed, status.waiting) == (1, 0, 0)
    transports[0].answers.clear()
    db.kv.put("l", 1)
    first.step()
    assert [key for key, _ in transports[0].got] == ["l"]


def test_a_lease_of_a_process_that_is_gone_is_taken_at_once(db):
    db.webhooks.add("a", URL)
    Worker(db, transport=Remembers()).step()
    rows = home_of(db._store).keyspace(SPACE, LAYOUT)
    lease = rows.get(LEASE)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    transport = Remembers()
    db.kv.put("k", 1)
    for changes, delivers in (
        ({"process": os.getppid(), "holder": "other/1"}, False),  # it lives
        ({"process": gone.pid, "holder": "other/1", "machine": "elsewhere"}, False),  # who knows
        ({"process": os.getpid(), "holder": "other/1"}, True),  # ours, and an earlier one's
        ({"process": gone.pid, "holder": "other/1"}, True),
    ):
        rows.put(LEASE, lease | changes)
        before = len(transport.got)
        worker = Worker(db, transport=transport)
        worker.step()
        assert (len(transport.got) > before) is delivers
        db.kv.put("k", 1)


def test_a_guest_may_be_the_worker(tmp_path):
    """`strata worker PATH` beside the process that has the database open."""
    with receiving() as receiver, strata.open(tmp_path / "a.strata") as db:
        db.webhooks.add("a", receiver.url, secret=SECRET, primitive="machines")
        db.machines.define("offer", 1, OFFER | {"timers": [{**OFFER["timers"][0], "after": 0.01}]})
        command = [sys.executable, "-m", "strata.cli", "worker", str(tmp_path / "a.strata")]
        with subprocess.Popen(
            [*command, "--webhooks-allow-private"], stderr=subprocess.PIPE, text=True
        ) as process:
            assert json.loads(process.stderr.readline())["event"] == "working"
            db.machines.create("offer", "o")
            receiver.wait(3)
            process.send_signal(signal.SIGTERM)
            said = [json.loads(line)["event"] for line in process.stderr]
            assert said == ["draining", "ended"] and process.wait() == 0
        assert db.machines.get("o").state == "expired"
        assert home_of(db._store).keyspace(SPACE, LAYOUT).get(LEASE) is None
        assert len(receiver.ids) == len(set(receiver.ids)) == 3


# -- who may see what


def test_only_an_admin_may_see_secrets(tmp_path):
    tokens = {access: new_token() for access in ("read", "write", "admin")}
    with strata.open(tmp_path / "a.strata") as db:
        made = db.webhooks.add("a", URL)
        server = Server(db._store, tokens=tokens_of([f"{hash_of(token)} {a}" for a, token in tokens.items()]))
        host, port = server.listen_tcp("127.0.0.1", 0)
        for access, token in tokens.items():
            with strata.connect(f"strata://{host}:{port}", token=token) as other:
                id = next(info.id for info in other._store.branches() if info.name == HOME)
                ways = (
                    lambda other=other: other.webhooks.list(),
                    lambda other=other: other._store.branch(HOME).keyspace(SPACE, LAYOUT).get("hook/a"),
                    lambda other=other, id=id: (
                        other._store.snapshot(id, 1 << 40).keyspace(SPACE, LAYOUT).get("hook/a")
                    ),
                )
                for way in ways:
                    if access == "admin":
                        assert way()
                    else:
                        with pytest.raises(AccessDenied):
                            way()
        server.close()
        assert made.secret


def test_a_worker_over_a_url_needs_an_admin(tmp_path):
    with receiving() as receiver, strata.open(tmp_path / "a.strata") as db:
        token = new_token()
        server = Server(db._store, tokens=tokens_of([f"{hash_of(token)} admin"]))
        host, port = server.listen_tcp("127.0.0.1", 0)
        db.webhooks.add("a", receiver.url, secret=SECRET)
        transport = HttpTransport(Allowed(private=True))
        with (
            strata.connect(f"strata://{host}:{port}", token=token) as other,
            Worker(other, transport=transport),
        ):
            db.kv.put("k", 1)
            receiver.wait(1)
        server.close()
