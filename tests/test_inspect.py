"""`strata inspect`: every file readable, also while it is open, damaged or alone."""

from __future__ import annotations

import json
import shutil

import databases
import pytest

import strata
from strata.cli import main


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.kv.put_many({f"k{number}": {"n": number} for number in range(50)})
        db.branches.fork("main", "draft").json.set("d", "$.a", "x" * 10_000)
        db.checkpoint()
        with db.transaction(message="why", actor="me") as tx:
            tx.kv.put("late", [1, 2.5, None, b"\x00"])
            tx.events.append("seen", {"by": "us"})
        shutil.copytree(path, tmp_path / "copy.strata")
    return tmp_path / "copy.strata"


def inspect(capsys, *arguments):
    code = main(["inspect", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out


def lines(capsys, *arguments):
    code, out = inspect(capsys, *arguments, "--json")
    return code, [json.loads(line) for line in out.splitlines()]


def test_a_directory_is_shown_file_by_file(capsys, path):
    before = databases.tree(path)
    code, out = inspect(capsys, path)
    assert code == 0 and databases.tree(path) == before
    for said in ("/LOCK", "/MANIFEST", "/WAL/wal-000002.seg", "/DATA/run-000001.run", 'name="draft"'):
        assert said in out
    assert 'message="why" actor="me"' in out
    assert "does=put keyspace=1 key=\"late\" value=[1, 2.5, null, h'00'] bytes=" in out
    assert "zeros to the end of the file: reserved space" in out


def test_rows_are_shown_as_many_as_asked_for(capsys, path):
    run = path / "DATA" / "run-000001.run"
    for rows in (0, 3, 10_000):
        code, found = lines(capsys, run, "--rows", rows)
        shown = [line for line in found if line["kind"] == "row"]
        [footer] = [line for line in found if line["kind"] == "footer"]
        assert code == 0 and len(shown) == min(rows, footer["rows"])
    assert inspect(capsys, run, "--rows", "-1")[0] == 1


def test_while_it_is_open(capsys, tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.kv.put("a", 1)
        code, out = inspect(capsys, tmp_path / "db")
        assert code == 0 and 'key="a" value=1' in out and "owner=pid " in out
        db.kv.put("a", 2)


def test_a_file_alone_and_damaged(capsys, path, tmp_path):
    alone = tmp_path / "elsewhere.bin"
    whole = (path / "DATA" / "run-000001.run").read_bytes()
    at = next(
        line["at"] for line in lines(capsys, path / "DATA" / "run-000001.run")[1] if line["kind"] == "frame"
    )
    alone.write_bytes(whole[: at + 30] + bytes([whole[at + 30] ^ 1]) + whole[at + 31 :])
    code, found = lines(capsys, alone)
    assert code == 1
    assert [line["at"] for line in found if line["kind"] == "problem"] == [at]
    assert len([line for line in found if line["kind"] == "frame"]) > 3


def test_a_directory_with_a_damaged_manifest(capsys, path):
    manifest = path / "MANIFEST"
    manifest.write_bytes(manifest.read_bytes()[:-1])
    code, out = inspect(capsys, path)
    assert code == 1 and "PROBLEM it has another checksum" in out
    assert 'key="late"' in out  # the others are shown all the same


@pytest.mark.parametrize("what", ["nothing here", "an empty directory", "a file of others"])
def test_what_is_none_of_ours(capsys, tmp_path, what):
    place = tmp_path / "x"
    if what == "an empty directory":
        place.mkdir()
    elif what == "a file of others":
        place.write_text("holiday")
    assert main(["inspect", str(place)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") or "PROBLEM it is none of the files" in captured.out
