"""The command line looks back: `strata replay`, on a terminal and off it, and `strata explain`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from test_cli import strata_

import strata
from strata.cli.history import walk


@pytest.fixture
def path(tmp_path):
    """A database with a run of three commits."""
    path = tmp_path / "test.strata"
    with strata.open(path) as db, db.runs.begin("plan", id="r1") as run:
        run.kv.put("a", 1)
        with run.transaction(message="second", actor="me") as tx:
            tx.json.set("doc", "$", {"b": b"\0"})
        run.kv.delete("a")
    return path


def test_replay_prints_all_steps_where_nobody_types(capsys, path):
    code, out, _ = strata_(capsys, "replay", path, "r1")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("  ")] == [
        "  kv a put 1", '  json doc set {"b": "1 bytes"}', "  kv a delete",
    ]  # fmt: skip
    assert strata_(capsys, "replay", path, "r1", "--all")[1] == out
    assert strata_(capsys, "replay", path, "runs/plan/r1")[1] == out
    assert "2. commit" in out and 'by me  "second"' in out


def test_replay_as_json_is_one_object_a_line(capsys, path):
    code, out, _ = strata_(capsys, "replay", path, "r1", "--json")
    steps = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(steps) == 3
    assert steps[1]["message"] == "second"
    assert steps[1]["changes"][0]["value"] == {"b": {"bytes": "AA=="}}


def test_replay_of_nothing_is_told(capsys, path):
    code, out, errors = strata_(capsys, "replay", path, "r2")
    assert (code, out) == (1, "") and "r2" in errors
    code, _, errors = strata_(capsys, "replay", path, "r1", "--branch", "other")
    assert code == 1 and "other" in errors


def test_watch_prints_what_there_is_and_ends_when_nothing_comes(capsys, path):
    options = ("--branch", "runs/plan/r1", "--from", "0", "--timeout", "0")
    code, out, _ = strata_(capsys, "watch", path, *options)
    assert code == 0 and [json.loads(line)["changes"][0]["action"] for line in out.splitlines()] == [
        "put", "set", "delete",
    ]  # fmt: skip
    _, out, _ = strata_(capsys, "watch", path, *options, "--primitive", "kv", "--prefix", "a", "--limit", "1")
    assert [json.loads(line)["changes"][0]["key"] for line in out.splitlines()] == ["a"]
    assert strata_(capsys, "watch", path, "--timeout", "0")[:2] == (0, "")
    code, out, errors = strata_(capsys, "watch", path, "--from", "99")
    assert (code, out) == (1, "") and "99" in errors
    assert strata_(capsys, "watch", path, "--type", "t", "--primitive", "kv")[0] == 1


def test_ctrl_c_ends_watch(path):
    command = [sys.executable, "-m", "strata.cli", "watch", str(path), "--from", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for status in ("active", "completed"):  # what there is comes at once, though there is no end to it
            assert json.loads(process.stdout.readline())["changes"][0]["value"]["status"] == status
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_watch_of_a_run_that_is_over_ends(capsys, path):
    code, out, _ = strata_(capsys, "watch", path, "--branch", "runs/plan/r1", "--from", "0")
    assert (code, len(out.splitlines())) == (0, 3)


def test_one_goes_from_step_to_step_and_back(capsys):
    def go(*answers):
        left = iter(answers)

        def ask(_):
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        walk(iter(["one", "two", "three"]), 3, ask)
        return [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines() if line]

    assert go("", "", "") == ["one", "two", "three", "all"]
    assert go("b", "", "b", "", "q") == ["one", "one", "two", "one", "two"]
    assert go("Q") == ["one"]
    assert go() == ["one"]


def test_a_terminal_is_asked(path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "strata.cli", "replay", str(path), "r1"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"\nb\nq\n")
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # as Linux says that nobody is left at the other end
    assert process.wait() == 0
    os.close(ours)
    assert [shown.count(f"{number} of 3.".encode()) for number in (1, 2, 3)] == [2, 1, 0]


def test_explain(capsys, path):
    code, out, _ = strata_(capsys, "explain", path, "strata://runs%2Fplan%2Fr1/default/json/doc")
    assert code == 0
    assert out.splitlines()[0].endswith(' = {"b": "1 bytes"}') and '"second"' in out
    code, out, _ = strata_(capsys, "explain", path, "strata://main/default/runs/r1", "--json", "--depth", "1")
    assert code == 0 and json.loads(out)["value"]["status"] == "completed"
    for wrong in ("strata://main/default/kv/none", "none", "strata://none/default/kv/a"):
        code, out, errors = strata_(capsys, "explain", path, wrong)
        assert (code, out) == (1, "") and errors.startswith("error: ")
    assert strata_(capsys, "explain", path, "strata://main/default/runs/r1", "--limit", "0")[0] == 1
