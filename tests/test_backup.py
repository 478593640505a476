"""Backups, restores and plain copies of directories."""

from __future__ import annotations

import os
import shutil
import threading
from datetime import timedelta

import databases
import pytest

import strata
from strata.cli import main
from strata.errors import AlreadyExists, Closed, HistoryTrimmed, InvalidInput, Locked, NotFound, ReadOnly


def test_it_is_incremental_and_linked(tmp_path):
    with strata.open(tmp_path / "db") as db:
        told = []
        for number in range(3):
            db.kv.put_many({f"k{number}{key}": "x" * 100 for key in range(100)})
            made = db.backup(tmp_path / "backup", progress=lambda *sizes: told.append(sizes))
            assert (made.runs, made.new_runs) == (number + 1, 1)
            assert made.linked_runs == 1 and made.copied_bytes == 0
            assert made.version == db.version and made.timestamp is not None
            assert told[-1] == (made.bytes, made.bytes)
        for name in os.listdir(tmp_path / "backup" / "DATA"):
            here, there = (tmp_path / place / "DATA" / name for place in ("db", "backup"))
            assert os.path.samefile(here, there)
        assert db.backup(tmp_path / "backup").new_runs == 0
    before = databases.tree(tmp_path / "backup")
    with strata.open(tmp_path / "backup", read_only=True) as backup:
        assert backup.kv.count() == 300 and backup.verify().ok
    after = databases.tree(tmp_path / "backup")
    assert {**after, "LOCK": b""} == {**before, "LOCK": b""}


def test_others_write_and_compact_meanwhile(tmp_path):
    """Each backup holds one moment: keys that change together are the same in it."""
    done = threading.Event()
    with strata.open(tmp_path / "db", memory_budget=1 << 20) as db:

        def write():
            value = 0
            while not done.is_set():
                value += 1
                db.kv.put_many({"a": value, "b": value, f"c{value % 500}": "x" * 1000})

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for turn in range(8):
                acknowledged = db.kv.get("a", 0)
                db.backup(tmp_path / "backup")
                with strata.open(tmp_path / "backup", read_only=True) as backup:
                    assert backup.kv.get("a", 0) == backup.kv.get("b", 0) >= acknowledged
                    assert backup.verify().ok
                if turn % 3 == 2:
                    db._store.compact()
        finally:
            done.set()
            writer.join()


def test_what_it_cannot_be(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.kv.put("a", 1)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "letter.txt").write_text("mine")
        strata.open(tmp_path / "other").close()
        (tmp_path / "file").touch()
        db.backup(tmp_path / "written")
        with strata.open(tmp_path / "written") as written:
            written.kv.put("a", 2)
        for name in ("full", "other", "written"):
            before = databases.tree(tmp_path / name)
            with pytest.raises(InvalidInput):
                db.backup(tmp_path / name)
            after = databases.tree(tmp_path / name)
            assert {**after, "LOCK": b""} == {**before, "LOCK": b""}
        with pytest.raises(OSError):
            db.backup(tmp_path / "file")
        with pytest.raises(Locked):
            db.backup(tmp_path / "db")
        for path in ("", 1, "a\0b"):
            with pytest.raises(InvalidInput):
                db.backup(path)
        with pytest.raises(ZeroDivisionError):
            db.backup(tmp_path / "raised", progress=lambda done, all: done // 0)
        db.backup(tmp_path / "raised")
    with pytest.raises(Closed):
        db.backup(tmp_path / "closed")
    with pytest.raises(InvalidInput):
        strata.open().backup(tmp_path / "memory")
    with strata.open(tmp_path / "db", read_only=True) as db, pytest.raises(ReadOnly):
        db.backup(tmp_path / "read")
    assert not (tmp_path / "read").exists() and not (tmp_path / "memory").exists()


def test_restore_at_any_point(tmp_path):
    with strata.open(tmp_path / "db") as db:
        versions = [db.kv.put("n", number) for number in range(5)]
        draft = db.branches.fork("main", "draft")
        last = draft.kv.put("n", "draft")
        db.backup(tmp_path / "backup")
        times = [commit.time for commit in db.log(reverse=False)]
        later = db.kv.put("n", "later")
    for number, version in enumerate(versions):
        info = strata.restore(tmp_path / "backup", tmp_path / f"v{number}", at=version)
        assert (info.version, info.branches) == (version, ("main",))
        with strata.open(tmp_path / f"v{number}") as then:
            assert then.kv.get("n") == number and then.version == version
            assert [entry.version for entry in then.kv.history("n")] == versions[number::-1]
            assert then.kv.put("n", "on") > version and then.verify().ok
    assert len(times) == 5
    info = strata.restore(tmp_path / "backup", tmp_path / "newest")
    assert info.version == last and info.branches == ("draft", "main")
    with (
        strata.open(tmp_path / "newest") as newest,
        strata.open(tmp_path / "backup", read_only=True) as backup,
    ):
        assert newest.branch("draft").log() == backup.branch("draft").log()
        assert newest._store.database_id != backup._store.database_id
    # Of the database itself, while nobody has it open; and by an instant.
    assert strata.restore(tmp_path / "db", tmp_path / "all").version == later
    info = strata.restore(tmp_path / "backup", tmp_path / "long ago", at="2001-01-01T00:00Z")
    assert (info.version, info.rows, info.timestamp) == (0, 0, None)
    with strata.open(tmp_path / "all") as db:
        when = db.log(limit=1)[0].time
    at = strata.restore(tmp_path / "backup", tmp_path / "at", at="9999-01-01T00:00Z").timestamp
    assert at is not None and at.timestamp() * 1e6 < when
    earlier = strata.restore(tmp_path / "backup", tmp_path / "just before", at=at - timedelta(microseconds=1))
    assert earlier.version < last


def test_restore_refuses(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.kv.put("a", 1)
        with pytest.raises(Locked):
            strata.restore(tmp_path / "db", tmp_path / "new")
    (tmp_path / "there").mkdir()
    with pytest.raises(AlreadyExists):
        strata.restore(tmp_path / "db", tmp_path / "there")
    with pytest.raises(NotFound):
        strata.restore(tmp_path / "none", tmp_path / "new")
    for at in (-1, 1.5, "yesterday", True, "2026-01-31T12:00"):
        with pytest.raises(InvalidInput):
            strata.restore(tmp_path / "db", tmp_path / "new", at=at)
    assert not (tmp_path / "new").exists() and not (tmp_path / "none").exists()


def test_what_retention_let_go_of_is_not_restored(tmp_path):
    with strata.open(tmp_path / "db") as db:
        versions = [db.kv.put("n", number) for number in range(10)]
        db._store.set_policy(None, None, None, 3, None, False)
        db._store.compact()
        db.backup(tmp_path / "backup")
    with pytest.raises(HistoryTrimmed) as caught:
        strata.restore(tmp_path / "backup", tmp_path / "old", at=versions[2])
    assert caught.value.requested == versions[2]
    oldest = caught.value.oldest
    assert strata.restore(tmp_path / "backup", tmp_path / "oldest", at=oldest).version == oldest
    with strata.open(tmp_path / "oldest") as then:
        assert then.kv.get("n") == versions.index(oldest)
        with pytest.raises(HistoryTrimmed):
            then.at(versions[2]).kv.get("n")


def test_copies_are_databases(tmp_path):
    """Of a closed one, of one after a checkpoint, and of what a kill would leave."""
    with strata.open(tmp_path / "db") as db:
        db.kv.put("a", 1)
        version = db.checkpoint().version
        shutil.copytree(tmp_path / "db", tmp_path / "checkpointed")
        db.kv.put("a", 2)
        shutil.copytree(tmp_path / "db", tmp_path / "open")
        said = db.log()
    shutil.copytree(tmp_path / "db", tmp_path / "closed")
    for name, expected in (("checkpointed", 1), ("open", 2), ("closed", 2)):
        with strata.open(tmp_path / name) as copy:
            assert copy.kv.get("a") == expected and copy.verify().ok
            assert copy.at(version).kv.get("a") == 1
            assert copy.log() == said[-expected:]
            copy.kv.put("a", 3)


def test_the_commands(tmp_path, capsys):
    path, to, again = (str(tmp_path / name) for name in ("db", "backup", "again"))
    with strata.open(path) as db:
        version = db.kv.put("a", 1)
        db.kv.put("a", 2)
    assert main(["backup", path, to]) == 0
    assert "1 of them new" in capsys.readouterr().out
    assert main(["restore", to, again, "--at", str(version)]) == 0
    assert f"version {version} of main: " in capsys.readouterr().out
    assert main(["get", again, "a"]) == 0
    assert capsys.readouterr().out == "1\n"
    assert main(["restore", to, again]) == 1
    assert main(["backup", str(tmp_path / "none"), to]) == 1
