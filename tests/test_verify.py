"""Verify: what is good is said to be, and damage is named with its place."""

from __future__ import annotations

import threading

import databases
import pytest

import strata
from strata.cli import main
from strata.primitives import Events


def filled(path, **options):
    db = strata.open(path, **options)
    db.kv.put_many({f"k{number}": {"n": number} for number in range(50)})
    for number in range(20):
        db.events.append("step", {"n": number})
        db.space("notes").events.append("note", {"n": number}, stream="log")
    draft = db.branches.fork("main", "draft")
    draft.json.set("d", "$.a.b", [1, 2])
    draft.events.append("step", {"n": -1})
    return db


@pytest.mark.parametrize("kind", databases.KINDS)
def test_in_memory_the_chains_are_read(kind):
    db = databases.make(kind)
    db.events.append("a", {})
    report = db.verify()
    assert report.ok and (report.records, report.events, report.streams) == (0, 1, 1)


@pytest.mark.parametrize("durability", ["buffered", "strict"])
def test_what_is_good_is_said_to_be(tmp_path, durability):
    with filled(tmp_path / "db", durability=durability) as db:
        report = db.verify()
        assert report.ok and report.problems == ()
        assert report.version == db.branch("draft").version == report.records
        assert (report.runs, report.rows) == (0, 0)
        made = db.checkpoint()
        again = db.verify()
        assert (again.records, again.runs, again.rows) == (0, 1, made.rows) and made.rows > report.events
        assert (again.version, again.events) == (report.version, report.events)
        assert (report.streams, report.events) == (4, 20 + 20 + 21 + 20)  # a fork shows its parent's events
    with strata.open(tmp_path / "db", read_only=True) as db:
        assert db.verify() == again


def test_branches_come_and_go_meanwhile(tmp_path):
    """A branch that went between the list of all and the look at it once made verify raise NotFound."""
    with filled(tmp_path / "db") as db:
        done = threading.Event()

        def fork_and_delete():
            while not done.is_set():
                db.branches.fork("draft", "gone")
                db.branches.rename("gone", "going")
                db.branches.delete("going")

        changer = threading.Thread(target=fork_and_delete)
        changer.start()
        try:
            reports = [db.verify() for _ in range(5)]
        finally:
            done.set()
            changer.join()
        assert all(report.ok for report in reports)


def test_others_write_meanwhile(tmp_path):
    with filled(tmp_path / "db") as db:

        def write():
            for number in range(20_000):
                db.kv.incr("n")
                if number % 100 == 0:
                    db.events.append("more", {})

        writer = threading.Thread(target=write)
        writer.start()
        reports = [db.verify() for _ in range(5)]
        writer.join()
        reports.append(db.verify())
        assert all(report.ok for report in reports)
        assert reports[-1].version == db.version


def test_a_byte_that_changed_under_an_open_database_is_named(tmp_path):
    with filled(tmp_path / "db", durability="strict") as db:
        segment = tmp_path / "db" / "WAL" / "wal-000001.seg"
        whole = segment.read_bytes()
        used = len(whole.rstrip(b"\0"))
        for at in range(70, used, 997):
            segment.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            [problem] = db.verify().problems
            assert problem.place == "WAL/wal-000001.seg" and 0 <= problem.at <= at
            assert db.kv.get("k1") == {"n": 1}  # memory still answers
        # A whole log that is not the one in memory: damage no checksum sees.
        segment.write_bytes(whole[:64] + bytes(len(whole) - 64))
        [problem] = db.verify().problems
        assert "not on disk" in problem.reason
        segment.write_bytes(whole)
        assert db.verify().ok


def test_a_chain_that_does_not_hold_is_named(tmp_path):
    with filled(tmp_path / "db") as db:
        keyspace = db._source.keyspace("notes", Events.LAYOUT)
        key = b"log\0" + (3).to_bytes(8)
        kind, time, _, hash = keyspace.get(key)
        keyspace.put(key, [kind, time, {"n": "forged"}, hash])
        problems = db.verify().problems
        assert [(problem.place, problem.at) for problem in problems] == [
            ("strata://main/notes/events/log", 3)
        ]


def test_every_damaged_file_is_named(tmp_path):
    path = tmp_path / "db"
    with filled(path, durability="strict") as db:
        for number in range(3):
            db.kv.put("n", number)
            db.checkpoint()
        db.kv.put("late", 1)
        db.kv.put("later", 1)  # it knows that the one before was durable
        runs = sorted((path / "DATA").iterdir())
        log = max((path / "WAL").glob("*.seg"))
        good = db.verify()
        for file, at in ((runs[0], 90), (runs[2], 90), (log, 70), (path / "MANIFEST", 20)):
            whole = file.read_bytes()
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        report = db.verify()
        places = {problem.place for problem in report.problems}
        assert places == {f"DATA/{runs[0].name}", f"DATA/{runs[2].name}", f"WAL/{log.name}", "MANIFEST"}
        assert (report.runs, good.runs) == (3, 3) and 0 < report.rows < good.rows


def test_it_tells_how_far_it_is(tmp_path):
    with filled(tmp_path / "db") as db:
        for number in range(300):
            db.kv.put(f"large {number}", number.to_bytes(4) * 8000)
        db.checkpoint()
        told = []
        assert db.verify(progress=lambda read, all_: told.append((read, all_))).ok
        assert told == sorted(told) and len(told) >= 2
        assert told[-1][0] == told[-1][1] and len({all_ for _, all_ in told}) == 1

        def stop(read, all_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            db.verify(progress=stop)
        # It may use the database, and write to it.
        db.verify(progress=lambda read, all_: (db.kv.incr("told"), db.checkpoint()))
        assert db.kv.get("told") >= 2 and db.verify().ok


def test_the_command(tmp_path, capsys):
    path = tmp_path / "db"
    filled(path).close()
    assert main(["verify", str(path)]) == 0
    assert capsys.readouterr().out.startswith("good: ")
    [run] = (path / "DATA").iterdir()
    whole = run.read_bytes()
    run.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    before = databases.tree(path)
    assert main(["verify", str(path)]) == 1
    assert "run-000001.run at 64: " in capsys.readouterr().out
    assert databases.tree(path) == before
