"""The log of machines as clients of RCP read it, and backups of it: made of what commits wrote."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import tempfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from machine_cases import ORDER
from rcp_client import Client, serving

import strata
from strata.api import rstmdb
from strata.server.access import hash_of, tokens_of
from strata.server.rcp.frames import PAYLOAD_BYTES_MAX
from strata.server.rcp.offsets import end_of, offset_of, version_of


@pytest.fixture
def db():
    with strata.open() as db:
        db.machines.define("order", 1, ORDER)
        db.machines.define("order", 2, ORDER | {"meta": 2})
        yield db


@pytest.fixture
def rcp(db):
    with serving(db) as rcp:
        yield rcp


def entries(client, begin=0, **more):
    """The whole log, page by page."""
    found = []
    while begin is not None:
        page = client.get("WAL_READ", from_offset=begin, **more)
        found += page["records"]
        begin = page["next_offset"]
    return found


def replayed(entries):
    """What there is, as the entries alone say it: machine, version, state and context by id."""
    found, machines = {}, set()
    for entry in entries:
        kind, id = entry["type"], entry.get("instance_id")
        if kind == "put_machine":
            machines.add((entry["machine"], entry["version"]))
        elif kind == "create_instance":
            assert (entry["machine"], entry["version"]) in machines
            found[id] = (entry["machine"], entry["initial_state"], entry["initial_ctx"])
        elif kind == "apply_event":
            machine, state, context = found[id]
            assert state == entry["from_state"]
            assert context | (entry["payload"] or {}) == entry["ctx"]
            found[id] = machine, entry["to_state"], entry["ctx"]
        elif kind == "snapshot":
            found[id] = found[id][0], entry["state"], entry["ctx"]
        else:
            assert kind == "delete_instance"
            del found[id]
    return found


def there(db):
    return {one.id: (one.machine, one.state, one.context) for one in db.machines}


def test_entries_say_what_was_done(rcp, db):
    with rcp.client() as client:
        client.get("CREATE_INSTANCE", machine="order", version=1, instance_id="o", idempotency_key="c")
        client.get(
            "APPLY_EVENT", instance_id="o", event="PAY", payload={"a": 1}, event_id="e", idempotency_key="p"
        )
        client.get("APPLY_EVENT", instance_id="o", event="PAY", idempotency_key="p")
        db.machines.migrate("order", 2)
        client.get("DELETE_INSTANCE", instance_id="o", idempotency_key="d")
        client.get("DELETE_INSTANCE", instance_id="o", idempotency_key="d")
        db.kv.put("k", 1)
        found = entries(client)
        assert [one["offset"] for one in found] == [offset_of(version) for version in range(1, 7)]
        assert all(one["sequence"] == one["offset"] for one in found)
        put, _, made, paid, moved, gone = (one["entry"] for one in found)
        assert put == {
            "type": "put_machine", "machine": "order", "version": 1,
            "definition_hash": db.machines.machine("order", 1).checksum,
            "definition": db.machines.machine("order", 1).definition,
        }  # fmt: skip
        assert made == {
            "type": "create_instance", "instance_id": "o", "machine": "order", "version": 1,
            "initial_state": "created", "initial_ctx": {}, "idempotency_key": "c",
        }  # fmt: skip
        assert paid == {
            "type": "apply_event", "instance_id": "o", "event": "PAY", "from_state": "created",
            "to_state": "paid", "payload": {"a": 1}, "ctx": {"a": 1}, "event_id": "e", "idempotency_key": "p",
        }  # fmt: skip
        assert (moved["type"], moved["state"], moved["ctx"]) == ("snapshot", "paid", {"a": 1})
        assert gone == {"type": "delete_instance", "instance_id": "o", "idempotency_key": "d"}


steps = st.tuples(
    st.sampled_from([*["create", "PAY", "SHIP", "TOUCH", "delete"] * 4, "flush"]),
    st.sampled_from("ijk"),
    st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2),
    st.none() | st.sampled_from(["k1", "k2"]),
)


def item(step):
    what, id, payload, key = step
    if what == "flush":
        return {"op": "FLUSH_ALL", "params": {}}
    if what == "create":
        params = {"machine": "order", "version": 1, "instance_id": id, "initial_ctx": payload}
        return {"op": "CREATE_INSTANCE", "params": params | {"idempotency_key": key}}
    if what == "delete":
        return {"op": "DELETE_INSTANCE", "params": {"instance_id": id, "idempotency_key": key}}
    params = {"instance_id": id, "event": what, "payload": payload, "idempotency_key": key}
    return {"op": "APPLY_EVENT", "params": params}


def one(what, id, key=None):
    return what, id, None, key


# A removal of all takes the rows away too that say what a batch deleted, and by which key.
@example(
    [[one("create", "i")], [one("delete", "i", "k1"), one("create", "j", "k1")], [one("flush", "i")]], False
)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(steps, min_size=1, max_size=6), max_size=8), st.booleans())
def test_the_log_gives_what_there_is_and_offsets_are_those_of_answers(batches, atomic):
    with strata.open() as db, serving(db) as rcp, rcp.client() as client:
        db.machines.define("order", 1, ORDER)
        answered = {offset_of(1)}
        for batch in batches:
            items = [item(step) for step in batch]
            if len(items) == 1:
                found = client.ask(items[0]["op"], **items[0]["params"])
                results = [found["result"]] if found["status"] == "ok" else []
                if items[0]["op"] == "FLUSH_ALL":
                    answered |= {offset_of(db.version), offset_of(db.version + 1)}
                    results = []
                    db.machines.define("order", 1, ORDER)
            else:
                found = client.ask("BATCH", mode="atomic" if atomic else "best_effort", ops=items)
                results = [one["result"] for one in found["result"]["results"]] if "result" in found else []
            answered |= {one["wal_offset"] for one in results if one is not None}
            for one in db.machines:
                assert client.get("GET_INSTANCE", instance_id=one.id)["last_wal_offset"] == offset_of(
                    one.version, one.ordinal
                )
        log = entries(client)
        offsets = [one["offset"] for one in log]
        assert offsets == sorted(offsets) and set(offsets) <= answered
        assert replayed(one["entry"] for one in log) == there(db)
        for begin in offsets:
            page = client.get("WAL_READ", from_offset=begin, limit=2)
            at = offsets.index(begin)
            end = at + 2
            while end < len(offsets) and offsets[end] == offsets[end - 1]:
                end += 1  # as a removal of all has one offset
            assert [one["offset"] for one in page["records"]] == offsets[at:end]
            assert page.get("has_more", False) is (end < len(offsets))


def test_what_one_commit_did_without_ordinals_stays_together(rcp, db):
    with db.transaction() as tx:
        for number in range(5):
            tx.machines.create("order", f"o{number}")
    db.machines.create("order", "p")
    with rcp.client() as client:
        page = client.get("WAL_READ", from_offset=offset_of(3), limit=2)
        assert len(page["records"]) == 5 and {one["offset"] for one in page["records"]} == {offset_of(3)}
        assert [one["entry"]["instance_id"] for one in entries(client, page["next_offset"])] == ["p"]


def test_a_page_is_cut_where_a_frame_ends(rcp, db):
    big = {"text": "x" * 3_000_000}
    for number in range(12):
        db.machines.create("order", f"o{number}", big)
    with rcp.client() as client:
        page = client.get("WAL_READ", from_offset=0)
        assert page["has_more"] and 0 < len(page["records"]) < 12
        assert len(entries(client)) == 14
        with db.transaction() as tx:  # more than a frame, at one offset
            for number in range(12):
                tx.machines.apply(f"o{number}", "TOUCH")
        error = client.error("WAL_READ", from_offset=offset_of(db.version))
        assert error["code"] == "BAD_REQUEST"
        assert client.get("WAL_READ", from_offset=error["details"]["next_offset"])["records"] == []
        assert PAYLOAD_BYTES_MAX == 16 << 20


def test_what_javascript_reads_is_beside_ours(rcp, db):
    with rcp.client() as client:
        found = client.get("WAL_READ", fromOffset=str(offset_of(2)), limit=1)
        (record,), (entry,) = found["records"], found["entries"]
        assert (entry["offset"], entry["type"]) == (str(record["offset"]), "put_machine")
        assert entry["data"] == record["entry"] and entry["timestamp"] > 0
        assert (found["hasMore"], found["nextOffset"]) == (False, str(found["next_offset"]))
        for wrong in ("x", "", "-1", "²"):
            assert client.code("WAL_READ", fromOffset=wrong) == "BAD_REQUEST"


def test_an_empty_page_and_statistics(rcp, db):
    with rcp.client() as client:
        assert client.get("WAL_READ", from_offset=2**52) == {"records": [], "next_offset": None}
        stats = client.get("WAL_STATS")
        assert stats["latest_offset"] == end_of(db.version) and stats["entry_count"] == db.version
        assert client.get("WAL_READ", from_offset=stats["latest_offset"])["records"] == []
        assert client.get("FLUSH_ALL")["machines_removed"] == 2


def test_offsets():
    assert version_of(offset_of(7, 5000)) == 7 and offset_of(7, 5000) < end_of(7) == offset_of(8)
    assert offset_of(2**43 - 1, 1023) < 2**53


# -- the same key after a kill


CHILD = """
import json, os, sys, threading
import strata
from strata.server.server import Server
from strata.server.rcp import Listener

db = strata.open(sys.argv[1])
server = Server(db._store)
listener = Listener(server, db)
print(server.listen_tcp("127.0.0.1", 0, None, listener.connection)[1], flush=True)
threading.Event().wait()
"""


def serve(path):
    import socket

    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    made = socket.create_connection(("127.0.0.1", int(child.stdout.readline())), timeout=30)
    return child, Client(made, is_line=False)


def test_a_key_gives_one_commit_and_one_event_also_after_a_kill(tmp_path):
    path = tmp_path / "db"
    asked = {"instance_id": "o", "event": "PAY", "payload": {"a": 1}, "idempotency_key": "k"}
    child, client = serve(path)
    with client:
        client.get("PUT_MACHINE", machine="order", version=1, definition=ORDER)
        made = client.get("CREATE_INSTANCE", machine="order", version=1, idempotency_key="c")
        client.get("CREATE_INSTANCE", machine="order", version=1, instance_id="o")
        first = client.get("APPLY_EVENT", **asked)
        child.kill()
        child.wait()
    child, client = serve(path)
    with client:
        client.get("WATCH_ALL", from_offset=0)
        again = client.get("APPLY_EVENT", **asked)
        assert again == first | {"applied": False}
        assert client.get("CREATE_INSTANCE", machine="order", version=1, idempotency_key="c") == made
        touched = client.get("APPLY_EVENT", instance_id=made["instance_id"], event="TOUCH")
        events = [client.event(), client.event()]
        assert [one["wal_offset"] for one in events] == [first["wal_offset"], touched["wal_offset"]]
        assert [one["entry"]["type"] for one in entries(client)] == [
            *("put_machine", "create_instance", "create_instance", "apply_event", "apply_event")
        ]
        os.kill(child.pid, signal.SIGTERM)
        child.wait()


# -- backups


def taken(client, compression=None, size=1000):
    """A backup, piece by piece."""
    made = client.get("BACKUP_BEGIN", compression=compression)
    id, data, is_end = made["backup_id"], b"", False
    while not is_end:
        piece = client.get("BACKUP_CHUNK", backup_id=id, offset=len(data), len=size)
        data, is_end = data + base64.b64decode(piece["bytes"]), piece["eof"]
    assert len(data) == made["total_bytes"]
    assert (
        client.get("BACKUP_CHUNK", backup_id=id, offset=0, len=7)["bytes"]
        == base64.b64encode(data[:7]).decode()
    )
    assert client.get("BACKUP_END", backup_id=id) == {"ok": True}
    return data, made["manifest"]


def read(data, path):
    path.write_bytes(data)
    log = rstmdb.open_log(path)
    log.check()
    return [record.entry for record in rstmdb.read_log(log.segments())]


@pytest.mark.parametrize("compression", [None, "gzip", "none"])
def test_a_backup_holds_the_log(rcp, db, tmp_path, compression):
    for number in range(20):
        db.machines.create("order", f"o{number}", {"n": number})
        db.machines.apply(f"o{number}", "PAY", {"é": [None]}, idempotency_key="k")
    db.machines.delete("o7")
    with rcp.client() as client:
        data, manifest = taken(client, compression)
        found = read(data, tmp_path / "a.rstmbak")
        log = [one["entry"] for one in entries(client)]
        assert found == [{name: entry[name] for name in entry if name != "idempotency_key"} for entry in log]
        assert replayed(found) == there(db)
        assert (manifest["machine_count"], manifest["instance_count"]) == (2, 19)
        assert manifest["kind"] == "physical" and manifest["wal_head_sequence"] == len(found)
        taken(client)  # another one, once the first is over


def test_a_backup_of_a_log_whose_beginning_is_gone_begins_with_what_there_was(rcp, db, tmp_path):
    for number in range(5):
        db.machines.create("order", f"o{number}", {"n": number})
        db.machines.apply(f"o{number}", "PAY")
    db.retention.set(strata.KeepLast(1))
    db.compact()
    db.machines.apply("o1", "SHIP")
    with rcp.client() as client:
        found = read(taken(client)[0], tmp_path / "a.rstmbak")
        assert replayed(found) == there(db)
        assert [entry["type"] for entry in found][:2] == ["put_machine", "put_machine"]


def test_a_backup_makes_the_same_instances_elsewhere(rcp, db, tmp_path):
    for id in "ab":
        db.machines.create("order", id, {"n": 1})
        db.machines.apply(id, "PAY", {"by": id}, event_id="e")
    db.machines.migrate("order", 2)
    db.machines.apply("a", "SHIP")
    db.machines.delete("b")
    with rcp.client() as client, strata.open() as other:
        (tmp_path / "a.rstmbak").write_bytes(taken(client)[0])
        other.import_rstmdb(tmp_path / "a.rstmbak")
        assert there(other) == there(db)
        assert other.machines.get("a").machine_version == 2
        with serving(other) as again, again.client() as reader:
            assert replayed(one["entry"] for one in entries(reader)) == there(db)


def test_what_was_imported_is_read_in_the_order_in_which_it_was_logged(rcp, db, tmp_path):
    """Many entries become a commit, and those of several instances were read by instance."""
    for id in "cab":
        db.machines.create("order", id)
    for id, event in (("b", "TOUCH"), ("a", "PAY"), ("c", "PAY"), ("b", "PAY"), ("a", "SHIP")):
        db.machines.apply(id, event, {id: 1})
    db.machines.delete("b")
    db.machines.apply("c", "SHIP")
    with rcp.client() as client, strata.open() as other:
        (tmp_path / "a.rstmbak").write_bytes(taken(client)[0])
        other.import_rstmdb(tmp_path / "a.rstmbak")
        with serving(other) as again, again.client() as reader:
            found, wanted = entries(reader), entries(client)
            assert [one["entry"] for one in found] == [one["entry"] for one in wanted]
            offsets = [one["offset"] for one in found if one["entry"]["type"] != "put_machine"]
            assert len(set(offsets)) == len(offsets)


def test_what_is_no_backup(rcp, db):
    with rcp.client() as client, rcp.client() as other:
        made = client.get("BACKUP_BEGIN")
        id, size = made["backup_id"], made["total_bytes"]
        assert client.code("BACKUP_BEGIN") == "BAD_REQUEST"
        assert client.code("BACKUP_CHUNK", backup_id=id, offset=size + 1) == "BAD_REQUEST"
        assert client.code("BACKUP_CHUNK", backup_id=id, offset=0, len=0) == "BAD_REQUEST"
        assert client.code("BACKUP_CHUNK", backup_id=id, offset=0, len=2**40) == "BAD_REQUEST"
        assert client.get("BACKUP_CHUNK", backup_id=id, offset=size) == {"bytes": "", "eof": True}
        for asking in (client, other):
            assert asking.code("BACKUP_CHUNK", backup_id="backup-x", offset=0) == "NOT_FOUND"
        assert other.code("BACKUP_CHUNK", backup_id=id, offset=0) == "NOT_FOUND"
        assert other.code("BACKUP_END", backup_id=id) == "NOT_FOUND"
        session = next(one._session for one in rcp.server.connections if one._session.backup)
        staged = session.backup
        staged.used -= 10_000
        session.sweep(staged.used + 10_000)
        assert client.code("BACKUP_CHUNK", backup_id=id, offset=0) == "NOT_FOUND"
        with pytest.raises(ValueError):
            staged.read(0, 1)


def test_a_backup_leaves_nothing_behind_and_clears_what_a_killed_one_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with strata.open(tmp_path / "db") as db:
        with serving(db) as rcp, rcp.client() as client:
            client.get("BACKUP_BEGIN")
            prefix = rcp.listener.backups._prefix
            assert not [*tmp_path.glob(f"{prefix}*")]
        left = tmp_path / f"{prefix}left"
        left.mkdir()
        with serving(db):
            assert not left.exists()


def test_a_backup_needs_an_administrator(db):
    with serving(db, tokens=tokens_of([f"{hash_of('w')} write"])) as rcp, rcp.client() as client:
        client.get("AUTH", token="w")
        assert client.code("BACKUP_BEGIN") == "UNAUTHORIZED"


def test_bytes_in_a_context_are_said_in_base64(db, tmp_path):
    """They can only come from Python, and are not JSON."""
    db.machines.create("order", "b", {"data": b"\x00\xff"})
    with serving(db) as rcp, rcp.client() as client:
        assert entries(client)[-1]["entry"]["initial_ctx"] == {"data": "AP8="}
        assert client.get("GET_INSTANCE", instance_id="b")["ctx"] == {"data": "AP8="}
        assert read(taken(client)[0], tmp_path / "a.rstmbak")[-1]["initial_ctx"] == {"data": "AP8="}
