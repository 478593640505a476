"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys

import databases
import pytest

import strata
from strata.cli import main


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "test.strata"
    with strata.open(path) as db:
        db.kv.put_many({"name": "Ada", "n": 1, "nothing": None, "raw": b"\x00"})
        with db.space("notes").transaction(message="first note", actor="me") as tx:
            tx.kv.put("k", {"ä": [1, 2.5]})
            tx.events.append("noted", {})
        db.branches.fork("main", "draft").kv.put("name", "Bob")
    return path


def strata_(capsys, *arguments):
    """Run a command; return its exit code, what it printed, and its errors."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit:
        code = exit.code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_version(capsys):
    assert strata_(capsys, "--version") == (0, f"strata {strata.__version__}\n", "")


def test_help_names_every_command(capsys):
    code, out, _ = strata_(capsys, "--help")
    assert code == 0
    for command in ("demo", "info", "branches", "log", "get", "put"):
        assert f"\n    {command} " in out
        code, text, _ = strata_(capsys, command, "--help")
        assert code == 0 and len(text) > 100


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["get"], ["get", "x"], ["log", "x", "--limit", "many"]]
)
def test_what_cannot_be_understood_exits_with_2(capsys, arguments):
    code, out, errors = strata_(capsys, *arguments)
    assert (code, out) == (2, "") and errors.startswith("usage: strata")


def test_put_and_get(capsys, path):
    code, out, _ = strata_(capsys, "put", path, "key", '{"a": [1, 2.5, null, "ä"]}', "--message", "why")
    assert code == 0 and int(out) > 0
    assert strata_(capsys, "get", path, "key") == (0, '{"a": [1, 2.5, null, "ä"]}\n', "")
    with strata.open(path) as db:
        assert db.log(limit=1)[0].message == "why"
        assert db.kv.entry("key").version == int(out)


def test_ingest(capsys, tmp_path, monkeypatch):
    spans, chat = tmp_path / "spans.json", tmp_path / "chat.jsonl"
    spans.write_text(
        json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [
            {"traceId": "a" * 32, "spanId": "b" * 16, "parentSpanId": "c" * 16, "name": "n",
             "startTimeUnixNano": "1544712660000000000"}
        ]}]}]})
    )  # fmt: skip
    chat.write_text('{"role": "user", "content": "hi"}\n{"role": "assistant", "content": "yes"}\n')
    path = tmp_path / "new.strata"
    code, _, errors = strata_(capsys, "ingest", path, spans, "--format", "otlp")
    assert code == 1 and "parentSpanId" in errors and "hint: " in errors
    command = ("ingest", path, spans, "--format", "otlp", "--roots", "--tag", "old", "--tag", "x")
    assert strata_(capsys, *command)[:2] == (0, "version 1: 1 traces, 0 events\n")
    assert strata_(capsys, *command)[:2] == (0, "version 1: 0 traces, 0 events; 1 there already\n")
    command = ("ingest", path, chat, "--format", "openai", "--stream", "chat", "--space", "s", "--id", "c1")
    assert strata_(capsys, *command)[:2] == (0, "version 2: 2 traces, 2 events\n")
    with chat.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert (
            strata_(capsys, "ingest", path, "-", "--format", "openai")[1] == "version 3: 2 traces, 2 events\n"
        )
    with strata.open(path) as db:
        assert db.traces.count(tag="old") == 1 and db.space("s").events.len("chat") == 2
        assert db.space("s").traces.exists("c1") and len(db.events) == 2
    assert strata_(capsys, "ingest", path, spans)[0] == 2
    assert strata_(capsys, "ingest", path, tmp_path / "none", "--format", "otlp")[0] == 1


def test_put_makes_the_database(capsys, tmp_path):
    assert strata_(capsys, "put", tmp_path / "new.strata", "k", "1")[0] == 0
    assert strata_(capsys, "get", tmp_path / "new.strata", "k") == (0, "1\n", "")


def test_get_elsewhere_and_earlier(capsys, path):
    assert strata_(capsys, "get", path, "name") == (0, '"Ada"\n', "")
    assert strata_(capsys, "get", path, "name", "--branch", "draft") == (0, '"Bob"\n', "")
    assert json.loads(strata_(capsys, "get", path, "k", "--space", "notes")[1]) == {"ä": [1, 2.5]}
    with strata.open(path) as db:
        version = db.version
        db.kv.put("name", "Eve")
    assert strata_(capsys, "get", path, "name", "--at", version) == (0, '"Ada"\n', "")
    assert strata_(capsys, "get", path, "name", "--at", "9999-01-01T00:00Z") == (0, '"Eve"\n', "")
    assert strata_(capsys, "get", path, "nothing") == (0, "null\n", "")
    assert strata_(capsys, "get", path, "raw") == (0, '{"$bytes": "AA=="}\n', "")


def test_info(capsys, path):
    code, out, _ = strata_(capsys, "info", path)
    assert code == 0
    assert "branches         2\n" in out
    assert "space default    kv 4\n" in out
    assert "space notes      kv 1, events 1\n" in out


def test_branches(capsys, path):
    code, out, _ = strata_(capsys, "branches", path)
    lines = out.splitlines()
    assert code == 0 and lines[0].split()[:2] == ["id", "name"]
    assert [line.split()[1] for line in lines[1:]] == ["draft", "main"]


def test_log(capsys, path):
    code, out, _ = strata_(capsys, "log", path)
    assert code == 0 and "first note" in out
    assert len(strata_(capsys, "log", path, "--limit", "1")[1].splitlines()) == 2
    assert "draft" in strata_(capsys, "log", path, "--branch", "draft")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "PATH", "missing"], "'missing'"),
        (["get", "PATH", "k", "--space", "nowhere"], "'nowhere'"),
        (["get", "PATH", "k", "--branch", "mian"], "main"),
        (["get", "PATH", "k", "--at", "yesterday"], "'yesterday'"),
        (["get", "PATH", "k", "--at", "2026-01-31T12:00"], "time zone"),
        (["get", "NONE", "k"], "NONE"),
        (["info", "NONE"], "NONE"),
        (["log", "NONE"], "NONE"),
        (["branches", "NONE"], "NONE"),
        (["put", "PATH", "k", "{"], "JSON"),
        (["put", "PATH", "", "1"], "key"),
        (["put", "PATH", "k", "123456789012345678901234567890"], "64"),
        (["put", "PATH", "k", "1", "--space", "_x"], "'_x'"),
        (["log", "PATH", "--limit", "-1"], "limit"),
    ],
)
def test_errors_are_a_line_and_a_hint(capsys, path, arguments, message):
    before = databases.tree(path)
    names = {"PATH": str(path), "NONE": str(path.parent / "NONE.strata")}
    code, out, errors = strata_(capsys, *(names.get(argument, argument) for argument in arguments))
    assert (code, out) == (1, "")
    assert errors.startswith("error: ") and message in errors
    assert len(errors.splitlines()) <= 2
    assert not (path.parent / "NONE.strata").exists()
    with strata.open(path) as db:
        assert db.kv.get("k") is None
    assert before.keys() == databases.tree(path).keys()


def test_compact_retention_and_forget(capsys, path):
    def strata(*arguments):
        code, out, errors = strata_(capsys, *arguments)
        return code, out + errors

    assert strata("retention", path) == (0, "everything is kept\n")
    assert strata("retention", path, "--set", "last=2 or for=30d", "--primitive", "kv")[0] == 0
    code, out = strata("retention", path, "--set", "last=1", "--branch", "main", "--space", "notes")
    assert code == 0 and "KeepLast(2) | KeepFor(timedelta(days=30))" in out and "KeepLast(1)" in out
    assert strata("retention", path, "--clear")[0] == 1
    code, out = strata("retention", path, "--clear", "--primitive", "kv")
    assert code == 0 and "KeepLast(2)" not in out and "KeepLast(1)" in out
    assert "versions" in strata("compact", path)[1] and strata("compact", path, "--log")[0] == 0
    code, out = strata("forget", path, "kv", "name")
    assert code == 1 and "--yes" in out and strata_(capsys, "get", path, "name")[0] == 0
    assert strata("forget", path, "kv", "name", "--yes")[0] == 0
    assert strata("get", path, "name")[0] == 1
    assert strata("forget", path, "kv", "na", "--prefix", "--all-spaces", "--yes")[0] == 0
    assert strata("forget", path, "kw", "name", "--yes")[0] == 1
    for policy in (
        "",
        "last",
        "last=0",
        "last=-1",
        "for=3",
        "for=0d",
        "all or last=3",
        "last=1 or last=2",
        "x",
    ):
        code, out = strata("retention", path, "--set", policy)
        assert code == 1 and out.startswith("error: "), policy


def test_every_command_takes_a_key_file(capsys, tmp_path, monkeypatch):
    def strata(*arguments):
        code, out, errors = strata_(capsys, *arguments)
        return code, out + errors

    key, newer, path = tmp_path / "key", tmp_path / "newer", tmp_path / "a.strata"
    key.write_bytes(bytes(range(32)))
    newer.write_text(bytes(range(7, 39)).hex() + "\n")
    given = ("--key-file", key)
    assert strata("put", path, "name", '"Ada"', *given)[0] == 0
    commands = [
        ("info", path), ("branches", path), ("log", path), ("get", path, "name"), ("put", path, "n", "1"),
        ("checkpoint", path), ("compact", path), ("retention", path), ("retention", path, "--set", "last=3"),
        ("forget", path, "kv", "n", "--yes"), ("verify", path), ("backup", path, tmp_path / "backup"),
        ("export", path, tmp_path / "plain.bundle"),
        ("export", path, tmp_path / "a.bundle", "--bundle-key-file", newer),
        ("restore", tmp_path / "backup", tmp_path / "b.strata"),
        ("import", tmp_path / "plain.bundle", tmp_path / "c.strata"),
        ("rotate-key", path, "--to", key),
    ]  # fmt: skip
    for command in commands:
        if "plain.bundle" not in str(command[1]):
            code, out = strata(*command)
            assert code == 1 and "is encrypted" in out, command
        assert strata(*command, *given)[0] == 0, command
    assert strata("import", tmp_path / "a.bundle", "--check", *given)[0] == 1
    code, out = strata("import", tmp_path / "a.bundle", "--check", "--key-file", newer)
    assert code == 0 and "encrypted with key" in out
    both = (*given, "--key-file", newer)
    assert strata("import", tmp_path / "a.bundle", tmp_path / "d.strata", *both)[0] == 0
    for copy in ("b", "c", "d"):
        assert strata("get", tmp_path / f"{copy}.strata", "name", *given) == (0, '"Ada"\n')
    for file in (path, tmp_path / "a.bundle"):
        assert "Ada" not in strata("inspect", file)[1]
        assert "Ada" in strata("inspect", file, *both)[1]
    assert "policy keeps_last=3" in strata("inspect", path / "MANIFEST", *given)[1]
    # The variable does the same, and what is given comes before it.
    monkeypatch.setenv("STRATA_KEY_FILE", str(key))
    assert strata("get", path, "name") == (0, '"Ada"\n')
    assert strata("rotate-key", path, "--to", newer)[0] == 0
    assert strata("get", path, "name")[0] == 1
    assert strata("get", path, "name", "--key-file", newer) == (0, '"Ada"\n')
    monkeypatch.setenv("STRATA_KEY_FILE", f"{key}:{newer}")
    assert strata("get", path, "name") == (0, '"Ada"\n')
    assert strata("rotate-key", path, "--to-plain") == (0, "not encrypted\n")
    assert strata("get", path, "name")[0] == 1
    monkeypatch.delenv("STRATA_KEY_FILE")
    assert strata("get", path, "name") == (0, '"Ada"\n')
    assert strata("rotate-key", path)[0] == 2
    assert strata("get", path, "name", "--key-file", tmp_path / "missing")[0] == 1


def test_reading_commands_write_nothing(capsys, path):
    before = databases.tree(path)
    for arguments in (["info"], ["branches"], ["log"], ["retention"]):
        assert strata_(capsys, *arguments, path)[0] == 0
    assert strata_(capsys, "get", path, "name")[0] == 0
    after = databases.tree(path)
    for found in (before, after):
        found.pop("LOCK", None)
    assert after == before


def test_a_reader_that_goes_away_is_no_error(path):
    with strata.open(path) as db:
        for number in range(3000):
            db.kv.put("n", number)
    command = [sys.executable, "-m", "strata.cli", "log", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_as_a_module():
    command = [sys.executable, "-m", "strata.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: strata")


def test_fork_diff_and_merge(capsys, tmp_path):
    path = str(tmp_path / "db")
    with strata.open(path) as db:
        first = db.kv.put("k", 1)
        db.json.set("d", "$", {"a": 1, "b": 1})
    code, out, _ = strata_(capsys, "fork", path, "draft")
    assert code == 0 and int(out) >= first
    assert strata_(capsys, "fork", path, "old", "--source", "draft", "--at", str(first))[0] == 0
    with strata.open(path) as db:
        db.branch("draft").kv.put("k", 2)
        db.branch("draft").json.set("d", "$.a", 2)
        db.branch("draft").events.append("t", {"n": 1})
        db.branch("draft").kv.put("raw", b"x")
        db.kv.put("k", 3)
    code, out, _ = strata_(capsys, "diff", path, "main", "draft")
    assert code == 0 and "d $.a" in out and "main 0 to 0" in out
    assert strata_(capsys, "diff", path, "main", "draft", "--primitive", "json")[1].count("\n") == 2
    lines = strata_(capsys, "diff", path, "main", "draft", "--json")[1].splitlines()
    assert {json.loads(line)["primitive"] for line in lines} == {"kv", "json", "events"}
    assert "draft@" not in strata_(capsys, "diff", path, f"draft@{first}", "old")[1]
    code, out, _ = strata_(capsys, "diff", path, str(first))
    assert code == 0 and "json" in out
    code, out, _ = strata_(capsys, "merge", path, "draft", "--preview")
    assert code == 0 and "conflict" in out and "version" not in out
    code, out, errors = strata_(capsys, "merge", path, "draft")
    assert code == 1 and "conflict" in out and "error:" in errors
    code, out, _ = strata_(capsys, "merge", path, "draft", "--strategy", "source", "--message", "taken")
    assert code == 0 and "version" in out
    assert "nothing to merge" in strata_(capsys, "merge", path, "draft")[1]
    assert "taken" in strata_(capsys, "log", path, "--primitive", "events")[1]
    with strata.open(path) as db:
        assert (db.kv.get("k"), db.json.get("d"), len(db.events)) == (2, {"a": 2, "b": 1}, 1)
    assert strata_(capsys, "merge", path, "nobody")[0] == 1
