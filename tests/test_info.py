"""Info: the figures are those of the files, and they can be printed, shown and written as JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict

import databases
import pytest

import strata
from strata.cli import main


def size(path):
    return sum(len(data) for name, data in databases.tree(path).items() if name != "LOCK")


@pytest.mark.parametrize("kind", databases.KINDS)
def test_in_memory_there_are_no_files(kind):
    db = databases.make(kind)
    db.kv.put("a", 1)
    found = db.info()
    assert (found.path, found.durability, found.encrypted, found.created) == (None, "memory", False, None)
    assert (found.version, [branch.name for branch in found.branches]) == (1, ["main"])
    assert (found.files.bytes, found.files.log.segments, found.files.runs.count) == (0, 0, 0)
    assert found.files.checkpoint.time is None and found.written.amplification is None
    assert "in memory" in str(found) and "<td>" in found._repr_html_()


def test_the_figures_are_those_of_the_files(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path, memory_budget=8 << 20) as db:
        for number in range(100):
            db.kv.put(f"k{number}", "x" * 100)
        found = db.info()
        assert found.path == str(path) and found.version == db.version == 100
        assert found.files.bytes == size(path)
        log = found.files.log
        assert log.segments == 1 and log.since_checkpoint == log.bytes == log.position > 100 * 100
        assert log.durable_position <= log.position
        assert (found.files.runs.each, found.written.runs, found.recovery.records) == ((), 0, 0)
        assert found.memory.budget == 8 << 20 and found.memory.tables > 100 * 100
        assert 100 * 100 < found.written.payloads < found.written.log
        assert found.written.amplification > 1
        made = db.checkpoint()
        after = db.info()
        [run] = after.files.runs.each
        assert (run.number, run.bytes, run.rows) == (made.snapshot_id, made.bytes, made.rows)
        assert run.raw_bytes > 100 * 100 and run.branches == 1
        assert run.bytes == len((path / "DATA" / "run-000001.run").read_bytes())
        assert after.files.checkpoint.version == made.version and after.files.checkpoint.time > 0
        assert (after.written.runs, after.files.log.since_checkpoint) == (run.bytes, 0)
        assert after.written.payloads == found.written.payloads
        assert after.files.bytes == size(path)
        assert after.id == found.id != "0" * 32
    with strata.open(path, memory_budget=8 << 20) as db:
        reads = db.info().memory.cache
        assert (reads.hits, reads.misses, reads.ratio) == (0, 0, None)
        assert db.kv.get("k50") == "x" * 100
        reads = db.info().memory.cache
        assert reads.misses > 0 and 0 < reads.bytes <= reads.budget == 2 << 20
        assert db.info().written.payloads == 0 and db.info().id == after.id
        assert db.info().created == after.created


def test_it_says_what_opening_had_to_do(tmp_path):
    disk = strata.testing.SimDisk(1)
    db = strata.open(disk=disk, durability="strict")
    for number in range(7):
        db.kv.put("n", number)
    again = strata.open(disk=disk.killed())
    assert again.info().recovery.records == 7
    db.close()
    again.close()


def test_a_reader_gets_it_and_changes_nothing(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.kv.put("a", 1)
    before = databases.tree(path)
    with strata.open(path, read_only=True) as db:
        found = db.info()
        assert found.files.bytes == size(path) and found.files.runs.rows > 0
        assert found.durable_version == found.version == 1
    assert databases.tree(path) == before


def test_it_is_frozen_short_and_ready_for_json(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.kv.put("a", 1)
        db.checkpoint()
        found = db.info()
        assert json.loads(json.dumps(asdict(found)))["files"]["runs"]["each"][0]["number"] == 1
        assert len(repr(found)) < 200 and "version=1" in repr(found)
        with pytest.raises(FrozenInstanceError):
            found.version = 2
    with pytest.raises(strata.errors.Closed):
        db.info()


def test_the_command(tmp_path, capsys):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.kv.put("a", 1)
        db.events.append("b", {})
    assert main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == 2 and found["spaces"]["default"]["events"] == 1
    assert main(["info", str(path)]) == 0
    assert "\ncheckpoint       version 2 of 20" in capsys.readouterr().out


def test_the_checkpoint_command(tmp_path, capsys):
    path = tmp_path / "a.strata"
    assert main(["checkpoint", str(path)]) == 1  # makes no directory
    assert "hint:" in capsys.readouterr().err and not path.exists()
    disk = strata.open(path)
    disk.kv.put("a", 1)
    assert main(["checkpoint", str(path)]) == 0  # the process that has it open does it
    assert capsys.readouterr().out.startswith("version 1: ")
    disk.close()
    assert main(["checkpoint", str(path)]) == 0
    assert capsys.readouterr().out == "version 1: nothing to write\n"


def hashes(db):
    return {branch.name: branch.state_hash for branch in db.info().branches}


def test_the_state_hash_compares_copies(tmp_path):
    """Equal histories have equal hashes, whatever became of the files; one other commit, and they differ."""
    with strata.open(tmp_path / "a") as db:
        assert hashes(db) == {"main": None}
        db.kv.put("a", 1)
        db.branches.fork("main", "draft")
        first = hashes(db)
        assert first["draft"] is None and len(first["main"]) == 32
        db.branch("draft").kv.put("b", 1)
        found = hashes(db)
        assert found["main"] == first["main"] != found["draft"]
        db.backup(tmp_path / "b")
        db.checkpoint()
        db.compact()
        assert hashes(db) == found
        assert f"{found['main']} at version 1" in str(db.info())
    for name in ("a", "b"):
        with strata.open(tmp_path / name) as db:
            assert hashes(db) == found
            db.kv.put("a", name)
            assert hashes(db)["main"] != found["main"] and hashes(db)["draft"] == found["draft"]
    both = []
    for name in ("a", "b"):
        with strata.open(tmp_path / name) as db:
            both.append(hashes(db)["main"])
    assert both[0] != both[1]


@pytest.mark.parametrize("path", [None, "a"])
def test_the_oldest_version_is_where_retention_begins(tmp_path, path):
    with strata.open(path and tmp_path / path) as db:
        for number in range(20):
            db.kv.put("k", number)
            db.state.set("c", number)
        assert db.info().oldest_version == 0
        db.retention.set(strata.KeepLast(3), primitive="kv")
        db.compact()
        oldest = db.info().oldest_version
        assert 0 < oldest < db.version
        assert db.at(oldest).kv.get("k") == 17
        with pytest.raises(strata.errors.HistoryTrimmed) as caught:
            db.at(oldest - 1).kv.get("k")
        assert caught.value.oldest == oldest
    if path:
        with strata.open(tmp_path / path) as db:
            assert db.info().oldest_version == oldest


def test_what_indexes_hold_is_told(tmp_path):
    """Of the branches where they were asked, in runs and in memory; what is not asked takes nothing."""
    with strata.open(tmp_path / "d") as db:
        db.indexes.create("words", primitive="json", paths="$.t")
        db.indexes.create("by_n", primitive="json", kind="ordered", paths="$.n")
        for number in range(300):
            db.json.set(f"d{number}", "$", {"t": f"some words and number {number}", "n": number})
        assert db.info().memory.indexes == 0 and "beside the budget" not in str(db.info())
        db.search("words")
        in_memory = db.info().memory.indexes
        assert 300 * 40 < in_memory < 300 * 4000
        db.checkpoint()
        db.search("words")
        in_runs = db.info().memory.indexes
        assert 300 * 40 < in_runs < in_memory and f"{in_runs:,} bytes, beside" in str(db.info())
