"""The verbs of the command line: every operation has one, with help, and does what the catalogue says."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import test_catalogue
from served import certificates
from test_cli import strata_

import strata
from strata.api.dispatch import dispatch
from strata.api.operations import OPERATIONS
from strata.api.plain import decode_json, encode_json, plain
from strata.api.requests import read
from strata.cli import COMMANDS, SHARED, main
from strata.cli.fields import KEY_EXAMPLE, arguments_of
from strata.cli.verbs import VERBS, Verb, find, groups
from strata.server.access import hash_of, new_token, tokens_of
from strata.server.server import Server
from strata.server.tls import ServerTls
from strata.testing import FakeClock

EACH = pytest.mark.parametrize("verb", VERBS.values(), ids=[verb.name for verb in VERBS.values()])
PATH = "example.strata"


# What differs with the clock, which is a real one for commands.
def is_time(name: str) -> bool:
    return name in ("time", "created") or name.endswith("_us")


def set_up(verb: Verb) -> dict[str, Any]:
    """Make the database of an example in files; return its names, and the arguments."""
    names: dict[str, Any] = {"strata": strata, "db": strata.open(PATH, clock=FakeClock())}
    for line in verb.operation.example.setting:
        exec(line, names)
    arguments = test_catalogue.arguments(verb.operation, names)
    with open(KEY_EXAMPLE, "wb") as file:
        file.write(bytes(range(32)))
    return {**names, "arguments": arguments}


def without_chance(data: Any) -> Any:
    data = test_catalogue.without_chance(data)
    if isinstance(data, dict):
        return {key: without_chance(value) for key, value in data.items() if not is_time(key)}
    return [without_chance(item) for item in data] if isinstance(data, list) else data


def test_every_operation_has_a_verb():
    assert {verb.operation.name for verb in VERBS.values()} == OPERATIONS.keys()
    assert len(VERBS) == len(OPERATIONS)
    for group, members in groups().items():
        for verb in members:
            assert find([*verb.words]) is find([group, verb.operation.method]) is verb


def test_commands_that_share_a_name_with_a_group_are_known():
    assert COMMANDS.keys() & groups().keys() == SHARED


@EACH
def test_help(verb, capsys):
    code, out, _ = strata_(capsys, *verb.words, "--help")
    assert code == 0 and out.startswith(f"usage: strata {verb.name}")
    assert verb.operation.docs.split(".")[0] in out
    for argument in arguments_of(verb.operation):
        assert (argument.metavar if argument.is_needed else argument.option) in out


@EACH
def test_the_example_runs(verb, capsys, tmp_path, monkeypatch):
    """As a command line it prints what dispatch returns, given what the example is made for."""
    operation = verb.operation
    for way in ("expected", "cli"):
        (tmp_path / way).mkdir()
        monkeypatch.chdir(tmp_path / way)
        names = set_up(verb)
        arguments = names["arguments"]
        names["db"].close()
        if way == "expected":
            data = decode_json(encode_json(plain(arguments)))
            with strata.open(PATH, read_only=operation.access == "read") as db:
                expected = dispatch(db, operation.name, {}, data)
                expected = encode_json(expected["items"] if operation.pages else expected)
    yes = ["--yes"] if operation.name == "forget" else []
    code, out, errors = strata_(capsys, *verb.words, PATH, *verb.words_for(arguments), *yes)
    assert (code, errors) == (0, "")
    assert without_chance(decode_json(out)) == without_chance(decode_json(expected))


@EACH
def test_words_are_read_as_they_were_said(verb):
    arguments = verb.operation.example.arguments
    if verb.operation.name in ("events.adopt", "rotate_key"):
        return
    yes = ["--yes"] if verb.operation.name == "forget" else []
    given = verb.parser().parse_args([PATH, *verb.words_for(arguments), *yes])
    assert verb.request(given) == read(verb.operation, decode_json(encode_json(plain(arguments))))


@EACH
def test_missing_words_are_a_usage_error(verb, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    code, out, errors = strata_(capsys, *verb.words)
    assert (code, out) == (2, "") and errors.startswith("usage: strata")


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "db")
    with strata.open(path) as db:
        db.kv.put_many({"a": 1, "b": {"x": [1, "ä"]}, "c": 'say "hi", you', "d": None, "raw": b"hi"})
        db.kv.put("nan", float("nan"))
        db.space("s").kv.put("a", "s")
        db.branches.fork("main", "draft").kv.put("a", 2)
        db.branches.tag("v1")
        db.kv.put("a", "later")
    return path


def test_branch_space_and_at(capsys, path):
    def get(*options):
        code, out, _ = strata_(capsys, "kv", "get", path, "a", *options)
        assert code == 0
        return json.loads(out)

    assert get() == "later" and get("--branch", "draft") == 2 and get("--space", "s") == "s"
    assert get("--at", "tag:v1") == get("--at", '{"tag": "v1"}') == get("--at", "1") == 1
    assert get("--at", "9999-01-01T00:00Z") == "later"
    assert strata_(capsys, "kv", "get", path, "a", "--branch", "")[0] == 1
    for wrong in ("tag:none", "yesterday", "{", '{"tga": "v1"}'):
        code, out, errors = strata_(capsys, "kv", "get", path, "a", "--at", wrong)
        assert (code, out) == (1, "") and errors.startswith("error: ")


def test_commits_say_what_they_are_about(capsys, path):
    options = ("--message", "why", "--actor", "me", "--idempotency-key", "once")
    first = strata_(capsys, "kv", "incr", path, "n", *options)
    assert first[0] == 0 and strata_(capsys, "kv", "incr", path, "n", *options) == first
    with strata.open(path) as db:
        assert db.kv.get("n") == 1
        assert (db.log(limit=1)[0].message, db.log(limit=1)[0].actor) == ("why", "me")
    assert strata_(capsys, "kv", "get", path, "n", "--message", "x")[0] == 2


def test_rows_in_each_format(capsys, path):
    def scan(*options):
        return strata_(capsys, "kv", "scan", path, *options)[1]

    rows = [
        ["a", "later"], ["b", {"x": [1, "ä"]}], ["c", 'say "hi", you'], ["d", None],
        ["nan", {"$float": "nan"}], ["raw", {"$bytes": "aGk="}],
    ]  # fmt: skip
    assert json.loads(scan()) == rows and scan().count("\n") == len(rows)
    assert [json.loads(line) for line in scan("--nl").splitlines()] == rows
    cells = [*csv.reader(io.StringIO(scan("--csv")))]
    assert cells[0] == ["key", "value"] and cells[1] == ["a", "later"] and cells[3] == ["c", rows[2][1]]
    assert json.loads(cells[2][1]) == rows[1][1] and cells[4] == ["d", ""]
    assert scan("--table").splitlines()[:2] == ["key  value", "a    later"]
    assert json.loads(scan("--prefix", "none")) == [] and scan("--prefix", "none", "--nl") == ""
    assert scan("--prefix", "none", "--csv") == "value\n"
    assert strata_(capsys, "kv", "scan", path, "--nl", "--csv")[0] == 2


def test_records_and_single_values_in_each_format(capsys, path):
    def printed(*words):
        code, out, _ = strata_(capsys, *words)
        assert code == 0
        return out

    table = printed("branches", "list", path, "--table").splitlines()
    assert table[0].split()[:2] == ["id", "name"] and len(table) == 3
    rows = csv.DictReader(io.StringIO(printed("branches", "list", path, "--csv")))
    assert [row["name"] for row in rows] == ["draft", "main"]
    assert "name " in printed("branches", "get", path, "draft", "--table")
    assert printed("kv", "get", path, "a", "--table").split() == ["name", "value", "later"]
    assert printed("kv", "get", path, "a", "--csv") == "value\nlater\n"
    assert printed("kv", "get", path, "a", "--nl") == '"later"\n'
    assert json.loads(printed("kv", "get-many", path, "a", "d", "none", "--default", "0")) == [
        "later",
        None,
        0,
    ]
    assert strata_(capsys, "events", "streams", path, "--csv")[1] == "value\n"


def test_what_is_stored_cannot_steer_the_terminal(capsys, path):
    with strata.open(path) as db:
        db.kv.put("bell", "\x1b[2J\x07")
    for options in ((), ("--table",), ("--nl",)):
        assert "\x1b" not in strata_(capsys, "kv", "scan", path, *options)[1]


def test_long_lists_come_whole_unless_a_limit_says_otherwise(capsys, path):
    with strata.open(path) as db:
        db.space("many").kv.put_many({f"{number:05}": number for number in range(2_500)})
    for limit, expected in (
        ("", 2_500),
        ("0", 0),
        ("7", 7),
        ("1000", 1_000),
        ("1001", 1_001),
        ("9999", 2_500),
    ):
        options = ("--limit", limit) if limit else ()
        out = strata_(capsys, "kv", "keys", path, "--space", "many", "--nl", *options)[1]
        assert len(out.splitlines()) == expected, limit


def piped(monkeypatch, data: bytes):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_values_come_from_standard_input(capsys, path, monkeypatch):
    for words in (("k", "-"), ("k",)):
        piped(monkeypatch, b'{"$bytes": "aGk="}\n')
        assert strata_(capsys, "kv", "put", path, *words)[0] == 0
        with strata.open(path) as db:
            assert db.kv.get("k") == b"hi"
            db.kv.delete("k")
    piped(monkeypatch, b"[1,\n 2]")
    assert strata_(capsys, "put", path, "k")[0] == 0
    piped(monkeypatch, b" \n")
    code, _, errors = strata_(capsys, "kv", "put", path, "k")
    assert code == 1 and "value" in errors
    with strata.open(path) as db:
        assert db.kv.get("k") == [1, 2]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'["x", 1]\n', {"x": 1}),
        (b'["x", 1]\n\n["y", [2]]\n', {"x": 1, "y": [2]}),
        (b'{"x": 1, "y": 2}', {"x": 1, "y": 2}),
        (b'{\n"x": 1,\n"y": 2\n}', {"x": 1, "y": 2}),
        (b'[["x", 1], ["y", null]]', {"x": 1, "y": None}),
    ],
)
def test_many_items_come_as_json_or_json_lines(capsys, tmp_path, monkeypatch, data, expected):
    path = str(tmp_path / "db")
    piped(monkeypatch, data)
    assert strata_(capsys, "kv", "put-many", path, "-")[0] == 0
    with strata.open(path) as db:
        assert dict(db.kv.scan()) == expected
    piped(monkeypatch, b'"x"\n"none"\n')
    assert strata_(capsys, "kv", "get-many", path, "-")[1] == "[1,\n null]\n"
    piped(monkeypatch, b'["x"]')
    assert strata_(capsys, "kv", "delete-many", path)[1] == "1\n"


def test_a_pipe_from_one_verb_to_another(capsys, path, tmp_path, monkeypatch):
    out = strata_(capsys, "kv", "scan", path, "--nl")[1]
    piped(monkeypatch, out.encode())
    assert strata_(capsys, "kv", "put-many", tmp_path / "copy")[0] == 0
    assert strata_(capsys, "kv", "scan", tmp_path / "copy", "--nl")[1] == out


def test_a_bad_line_is_named_and_nothing_is_written(capsys, path, monkeypatch):
    piped(monkeypatch, b'["x", 1]\n["y", 2\n')
    code, out, errors = strata_(capsys, "kv", "put-many", path)
    assert (code, out) == (1, "") and "line 2" in errors
    assert strata_(capsys, "kv", "exists", path, "x")[1] == "false\n"


@pytest.mark.parametrize(
    "words",
    [
        ["kv", "get", "NONE", "a"], ["version", "NONE"], ["branches", "create", "NONE", "b"],
        ["kv", "put", "NONE", "k", "{"], ["db", "forget", "PATH", "kv", "--key", "a"],
        ["kv", "put", "PATH", "k", "1", "--ttl", "soon"], ["events", "get", "PATH", "one"],
        ["kv", "get", "strata://none:1", "k", "--key-file", "x"],
        ["kv", "get", "PATH", "k", "--token-file", "x"],
        ["indexes", "create", "PATH", "n", "kv", "--options", '{"uniq": 1}'],
        ["kv", "scan", "PATH", "--limit", "-1"],
        ["db", "rotate-key", "PATH", "no-such-file"], ["events", "append", "PATH", "t", "[]"],
    ],
)  # fmt: skip
def test_errors_are_lines_on_standard_error(capsys, path, words):
    names = {"PATH": path, "NONE": os.path.join(os.path.dirname(path), "NONE")}
    code, out, errors = strata_(capsys, *(names.get(word, word) for word in words))
    assert (code, out) == (1, "") and errors.startswith("error: ")
    assert not os.path.exists(names["NONE"])


def test_none_as_a_word(capsys, path):
    out = strata_(capsys, "events", "between", path, "null", "2030-01-01T00:00Z")[1]
    assert json.loads(out) == []


def test_groups_and_near_misses(capsys):
    code, out, _ = strata_(capsys, "branches", "--help")
    assert code == 0 and "cherry-pick" in out and "list the branches" in out
    code, out, errors = strata_(capsys, "kv", "gett", "x")
    assert (code, out) == (2, "") and "get-many" in errors
    assert "'explain'" in strata_(capsys, "expalin")[2]
    assert strata_(capsys)[0] == 2


def test_urls_are_connected_to_with_a_token(capsys, monkeypatch, tmp_path):
    asked = []

    def connect(url, *, token, read_only):
        asked.append((url, token, read_only))
        return strata.open()

    monkeypatch.setattr(strata, "connect", connect)
    (tmp_path / "token").write_text("t1\n")
    monkeypatch.setenv("STRATA_TOKEN", "t2")
    assert strata_(capsys, "version", "strata://h:1", "--token-file", tmp_path / "token")[:2] == (0, "0\n")
    assert strata_(capsys, "version", "unix:/x")[0] == 0
    assert strata_(capsys, "kv", "put", "strata+tls://h:1", "k", "1")[0] == 0
    assert asked == [
        ("strata://h:1", "t1", True), ("unix:/x", "t2", True), ("strata+tls://h:1", "t2", False),
    ]  # fmt: skip
    assert strata_(capsys, "version", "strata://h:1", "--token-file", tmp_path / "none")[0] == 1
    assert main(["version", "strata://h:1"]) == 0


@pytest.fixture(scope="module")
def over_tls():
    """The URL of a server that asks for certificates and tokens, a token, and the files of both sides."""
    files, token = certificates(), new_token()
    with strata.open() as db:
        db.kv.put("a", 1)
        server = Server(db._store, tokens=tokens_of([f"{hash_of(token)} admin"]))
        tls = ServerTls(files / "server.pem", files / "server.key", files / "ca.pem")
        host, port = server.listen_tcp("127.0.0.1", 0, tls.context)
        yield f"strata+tls://{host}:{port}", token, files
        server.close()


def test_tls_by_options(capsys, over_tls, tmp_path):
    url, token, files = over_tls
    (tmp_path / "token").write_text(token)
    ca = ["--ca", files / "ca.pem", "--token-file", tmp_path / "token"]
    own = ["--certificate", files / "client.pem", "--certificate-key", files / "client.key"]
    assert strata_(capsys, "kv", "get", url, "a", *ca, *own)[:2] == (0, "1\n")
    assert strata_(capsys, "get", url, "a", *ca, *own)[:2] == (0, "1\n")
    (tmp_path / "both").write_text((files / "client.pem").read_text() + (files / "client.key").read_text())
    assert strata_(capsys, "kv", "get", url, "a", *ca, "--certificate", tmp_path / "both")[:2] == (0, "1\n")
    code, _, errors = strata_(capsys, "kv", "get", url, "a", "--token-file", tmp_path / "token", *own)
    assert code == 1 and "--ca FILE" in errors
    for wrong in (
        [*ca, "--certificate-key", files / "client.key"],
        [*ca, "--certificate", files / "none"],
        ["--ca", files / "ca.key"],
        ["--ca", tmp_path / "none"],
    ):
        code, out, errors = strata_(capsys, "kv", "get", url, "a", *wrong)
        assert (code, out) == (1, "") and "Traceback" not in errors


def test_tls_by_the_environment(capsys, over_tls, monkeypatch, url, tmp_path):
    at, token, files = over_tls
    monkeypatch.setenv("STRATA_TOKEN", token)
    monkeypatch.setenv("STRATA_CA", str(files / "ca.pem"))
    monkeypatch.setenv("STRATA_CERTIFICATE", str(files / "client.pem"))
    monkeypatch.setenv("STRATA_CERTIFICATE_KEY", str(files / "client.key"))
    assert strata_(capsys, "kv", "get", at, "a")[:2] == (0, "1\n")
    assert strata_(capsys, "kv", "get", url, "a")[0] == 0  # for which they do not count
    assert strata_(capsys, "kv", "put", tmp_path / "own", "a", "1")[0] == 0
    monkeypatch.setenv("STRATA_CA", str(files / "none"))
    assert strata_(capsys, "kv", "get", at, "a")[0] == 1
    assert strata_(capsys, "kv", "get", at, "a", "--ca", files / "ca.pem")[:2] == (0, "1\n")


def test_certificates_are_for_tls(capsys, url, path):
    for place in (url, path, "strata://127.0.0.1:1"):
        for option in ("--ca", "--certificate"):
            code, _, errors = strata_(capsys, "kv", "get", place, "a", option, "x")
            assert code == 1 and "strata+tls" in errors


def test_a_simple_verb_loads_little(path):
    """Start-up is most of what a command costs: help, schemas and completion must not be paid by all."""
    code = (
        "import sys; from strata.cli import main; main(sys.argv[1:]);"
        "print(*(name for name in sys.modules if name.split('.')[0] in"
        " ('strata', 'asyncio', 'prompt_toolkit', 'csv', 'sqlite3', 'subprocess', 'email', 'pyarrow')))"
    )
    command = [sys.executable, "-c", code, "kv", "get", path, "a"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    loaded = set(out[-1].split())
    assert out[0] == '"later"' and "strata.cli.verbs" in loaded
    assert not {"asyncio", "prompt_toolkit", "csv", "sqlite3", "subprocess", "email", "pyarrow"} & loaded
    heavy = ("api.examples", "api.schema", "api.revive", "api.info", "cli.data", "cli.shell", "agents")
    assert not {f"strata.{name}" for name in heavy} & loaded


@pytest.fixture
def url(tmp_path):
    """The address of a server, which holds a database in memory."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    listening.setblocking(False)
    with strata.open() as db:
        server = Server(db._store)
        server.listen_on(listening)
        yield f"unix:{tmp_path / 's'}"
        server.close()


def test_verbs_and_the_shell_at_a_server(capsys, url, monkeypatch):
    """What a path takes, a URL takes: reads, writes, pages, streams from a pipe, transactions."""
    assert (
        strata_(capsys, "kv", "put", url, "a", "1", "--message", "why", "--idempotency-key", "x")[1] == "1\n"
    )
    piped(monkeypatch, b"".join(b'["%05d", 1]\n' % number for number in range(1_500)))
    assert strata_(capsys, "kv", "put-many", url, "-")[0] == 0
    assert strata_(capsys, "kv", "keys", url, "--nl")[1].count("\n") == 1_501
    assert json.loads(strata_(capsys, "db", "log", url, "--after", "1")[1])[0]["version"] == 2
    assert strata_(capsys, "get", url, "a", "--at", "1")[1] == "1\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("begin\nput a 2\nget a\ncommit both\nget a\n"))
    assert strata_(capsys, "shell", url)[1] == "2\n3\n2\n"
    assert strata_(capsys, "export", url, "-", "--format", "jsonl", "--prefix", "a")[1] == (
        '{"key": "a", "value": 2}\n'
    )
    assert strata_(capsys, "doctor", url)[0] == 0
    assert strata_(capsys, "kv", "get", url, "a", "--branch", "none")[0] == 1


def test_a_path_that_another_process_has_open(capsys, path, tmp_path):
    code = "import strata, sys; db = strata.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, path], **pipes) as owner:
        assert owner.stdout.readline() == b"open\n"
        assert strata_(capsys, "kv", "put", path, "a", '"shared"')[0] == 0
        assert strata_(capsys, "kv", "get", path, "a")[1] == '"shared"\n'
        for words in (("verify",), ("doctor",), ("info",), ("log",), ("db", "verify"), ("version",)):
            assert strata_(capsys, *words, path)[0] == 0, words
        assert strata_(capsys, "export", path, tmp_path / "all.bundle")[0] == 0
        assert strata_(capsys, "export", path, tmp_path / "kv.csv")[0] == 0
        owner.stdin.close()
