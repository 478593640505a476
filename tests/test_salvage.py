"""Salvage as a user meets it: bytes change in a real directory, and what is whole comes back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from databases import tree

import strata
from strata.cli import main
from strata.errors import AlreadyExists, Corrupt, InvalidInput, Locked, NeedsKey, NotFound


def filled(path: Path, **options: object) -> dict[str, list[tuple[int, object]]]:
    """Make a closed database with two runs and a branch; return the history of each kv key of main."""
    with strata.open(path, **options) as db:
        for number in range(400):
            db.kv.put(f"k{number:03}", f"value {number} " * 20)
        db.branches.fork("main", "draft")
        db.checkpoint()
        for number in range(0, 400, 7):
            db.kv.put(f"k{number:03}", number)
        db.branch("draft").kv.put("own", "draft's")
        db.events.append("noted", {"n": 1})
        return histories(db)


def histories(db: strata.Database) -> dict[str, list[tuple[int, object]]]:
    return {key: [(entry.version, entry.value) for entry in db.kv.history(key)] for key, _ in db.kv.scan()}


def killed(path: Path, to: Path) -> None:
    """Copy an open database as a kill would leave it."""
    shutil.copytree(path, to)


def is_damaged(path: Path) -> bool:
    try:
        with strata.open(path, read_only=True) as db:
            return not db.verify().ok
    except Corrupt:
        return True


def flip(file: Path, at: int, bit: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= bit
    file.write_bytes(content)


def test_of_a_whole_database_all_comes_back(tmp_path):
    said = filled(tmp_path / "db")
    before = tree(tmp_path / "db")
    told = []
    made = strata.salvage(tmp_path / "db", tmp_path / "new", progress=lambda *given: told.append(given))
    assert made.is_whole and made.lost == () and made.branches == ("draft", "main")
    assert tree(tmp_path / "db") == before
    assert told and all(done <= total for done, total in told)
    whole = strata.restore(tmp_path / "db", tmp_path / "restored")
    assert (made.version, made.timestamp, made.rows) == (whole.version, whole.timestamp, whole.rows)
    with strata.open(tmp_path / "new") as db, strata.open(tmp_path / "db") as old:
        assert histories(db) == said and db.verify().ok
        assert [(b.name, b.parent) for b in db.branches.list()] == [
            (b.name, b.parent) for b in old.branches.list()
        ]
        assert db.branch("draft").kv.get("own") == "draft's" and db.events.len() == 1
        assert list(db.log()) == list(old.log())


@pytest.mark.parametrize("seed", range(8))
def test_a_bit_in_a_run_costs_one_block(tmp_path, seed):
    said = filled(tmp_path / "db")
    run = sorted((tmp_path / "db" / "DATA").iterdir())[0]
    size = run.stat().st_size
    flip(run, 64 + (size - 64) * seed // 8)
    assert is_damaged(tmp_path / "db")
    made = strata.salvage(tmp_path / "db", tmp_path / "new")
    with strata.open(tmp_path / "new") as db:
        assert db.verify().ok
        found = histories(db)
        for key, rows in found.items():
            assert set(rows) <= set(said[key])  # nothing that never was
        missing = {
            (key, version) for key, rows in said.items() for version, _ in set(rows) - set(found.get(key, []))
        }
    assert bool(missing) <= (not made.is_whole)
    for key, _ in missing:
        [loss] = [loss for loss in made.lost if loss.what == "rows"]
        assert loss.file == f"DATA/{run.name}" and loss.length > 0
        assert loss.first is None or loss.first.space != "default" or loss.first.key < key.encode()
        assert loss.last is None or loss.last.space != "default" or key.encode() < loss.last.key


@pytest.mark.parametrize("file", ["MANIFEST", "MANIFEST.bak"])
@pytest.mark.parametrize("how", ["gone", "damaged", "empty"])
def test_without_manifest_all_comes_back(tmp_path, file, how):
    said = filled(tmp_path / "db")
    place = tmp_path / "db" / file
    if how == "gone":
        place.unlink()
    elif how == "damaged":
        flip(place, place.stat().st_size - 3)
    else:
        place.write_bytes(b"")
    if file == "MANIFEST":
        with pytest.raises(Corrupt):
            strata.open(tmp_path / "db")
    made = strata.salvage(tmp_path / "db", tmp_path / "new")
    assert made.is_whole and made.branches == ("draft", "main")
    with strata.open(tmp_path / "new") as db:
        assert histories(db) == said and db.branch("draft").kv.get("k001") == said["k001"][-1][1]


def test_without_manifest_and_copy_rows_come_back_under_other_names(tmp_path):
    said = filled(tmp_path / "db")
    for name in ("MANIFEST", "MANIFEST.bak"):
        (tmp_path / "db" / name).unlink()
    made = strata.salvage(tmp_path / "db", tmp_path / "new")
    assert [loss.what for loss in made.lost] == [
        "names and parents of branches, policies, and what is to be erased"
    ]
    with strata.open(tmp_path / "new") as db:
        assert histories(db) == said
        assert db.branch("recovered-1").kv.get("own") == "draft's"


def test_a_record_of_the_log_costs_what_rests_on_it(tmp_path):
    with strata.open(tmp_path / "db", durability="strict") as db:
        db.kv.put("n", 1)
        db.kv.put("m", 1)
        db.checkpoint()
        db.kv.put("n", 100)
        lost = db.version
        db.kv.incr("m")
        db.kv.incr("n")
        db.kv.put("whole", [1, 2])
        db.kv.put("n", 7)
        db.kv.incr("n")
        killed(tmp_path / "db", tmp_path / "killed")
    log = max((tmp_path / "killed" / "WAL").glob("*.seg"))
    flip(log, 64 + 64 + 3)
    with pytest.raises(Corrupt):
        strata.open(tmp_path / "killed")
    made = strata.salvage(tmp_path / "killed", tmp_path / "new")
    assert not made.is_whole
    assert any(loss.versions == (lost, lost) for loss in made.lost)
    changed = [loss for loss in made.lost if loss.first is not None]
    assert {loss.first.key for loss in changed} == {b"n", b"m"}  # nobody knows what the lost record did
    with strata.open(tmp_path / "new") as db:
        assert (db.kv.get("n"), db.kv.get("m"), db.kv.get("whole")) == (8, 1, [1, 2])
        assert db.verify().ok
        db.kv.incr("n")  # and it goes on


def test_what_was_forgotten_does_not_come_back(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.kv.put("secret", "canary")
        db.kv.put("other", 1)
        db.checkpoint()
        db.forget("kv", "secret")
        db.kv.put("brief", 1, ttl=0.000001)
    flip(max((tmp_path / "db" / "DATA").iterdir()), 70)
    strata.salvage(tmp_path / "db", tmp_path / "new")
    assert not any(b"canary" in content for content in tree(tmp_path / "new").values())
    with strata.open(tmp_path / "new") as db:
        assert db.kv.get("secret") is None and db.kv.get("brief") is None


def test_encrypted(tmp_path):
    key, older = os.urandom(32), os.urandom(32)
    said = filled(tmp_path / "db", key=key)
    flip(tmp_path / "db" / "MANIFEST", 130)
    with pytest.raises(NeedsKey):
        strata.salvage(tmp_path / "db", tmp_path / "new")
    with pytest.raises(NeedsKey):
        strata.salvage(tmp_path / "db", tmp_path / "new", key=older)
    assert not (tmp_path / "new").exists()
    asked = []
    made = strata.salvage(tmp_path / "db", tmp_path / "new", key=lambda id: asked.append(id) or key)
    assert made.is_whole and len(asked) == 1
    assert not any(b"value 1" in content for content in tree(tmp_path / "new").values())
    with strata.open(tmp_path / "new", key=key) as db:
        assert histories(db) == said
    run = sorted((tmp_path / "db" / "DATA").iterdir())[0]
    flip(run, 9)  # its header says no key any more, and a block is lost
    flip(run, 300)
    again = strata.salvage(tmp_path / "db", tmp_path / "again", key=[key, older])
    assert not again.is_whole
    with strata.open(tmp_path / "again", key=key) as db:
        assert histories(db) and db.verify().ok


def test_bad_input_writes_nothing(tmp_path):
    filled(tmp_path / "db")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    (tmp_path / "plain").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "db")
    before = tree(tmp_path)

    def refused(error: type[Exception], path: object, to: object) -> None:
        with pytest.raises(error):
            strata.salvage(path, to)  # type: ignore[arg-type]
        assert tree(tmp_path) == before

    refused(NotFound, tmp_path / "none", tmp_path / "new")
    refused(InvalidInput, tmp_path / "other", tmp_path / "new")
    refused(InvalidInput, tmp_path / "empty", tmp_path / "new")
    refused(AlreadyExists, tmp_path / "db", tmp_path / "other")
    refused(AlreadyExists, tmp_path / "db", tmp_path / "plain")
    refused(InvalidInput, tmp_path / "db", tmp_path / "db" / "new")
    refused(InvalidInput, tmp_path / "db", tmp_path / "link" / "new")
    refused(InvalidInput, tmp_path / "db", tmp_path / "db" / "no" / "new")
    for path in ("", 3, None, "a\0b"):
        refused(InvalidInput, path, tmp_path / "new")
        refused(InvalidInput, tmp_path / "db", path)
    with strata.open(tmp_path / "db"):
        before = {**before, **tree(tmp_path)}
        with pytest.raises(Locked):
            strata.salvage(tmp_path / "db", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert strata.salvage(tmp_path / "db", tmp_path / "empty").is_whole
    strata.open(tmp_path / "empty", create=False).close()


def test_progress_can_end_it(tmp_path):
    filled(tmp_path / "db")

    def stop(done: int, total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        strata.salvage(tmp_path / "db", tmp_path / "new", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db"]
    with pytest.raises(InvalidInput):
        strata.salvage(tmp_path / "db", tmp_path / "new", progress=3)


def test_from_the_command_line(tmp_path, capsys):
    said = filled(tmp_path / "db")
    assert main(["salvage", str(tmp_path / "db"), str(tmp_path / "new")]) == 0
    assert "nothing is lost" in capsys.readouterr().out
    run = sorted((tmp_path / "db" / "DATA").iterdir())[0]
    flip(run, 2000)
    assert main(["salvage", str(tmp_path / "db"), str(tmp_path / "less")]) == 1
    out = capsys.readouterr().out
    assert f"lost: DATA/{run.name} at byte " in out and "1 losses" in out
    with strata.open(tmp_path / "less") as db:
        assert len(histories(db)) < len(said)
    assert main(["salvage", str(tmp_path / "db"), str(tmp_path / "less")]) == 1
    assert "exists already" in capsys.readouterr().err
