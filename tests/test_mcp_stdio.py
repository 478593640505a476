"""`strata mcp` as hosts run it: a process of its own, over standard input and output, and over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import httpx2
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_client import Refused, Tools, connected

import strata
from strata.cli import main

SOURCE = str(Path(strata.__file__).parent.parent)
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE}
TOKENS = {access: f"{access}-token-that-nobody-guesses" for access in ("read", "write", "admin")}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "\x1b[31m", "version": "1"},
}
CALLS: dict[str, dict[str, Any]] = {
    "remember": {"text": "Likes green tea", "key": "drink"},
    "recall": {"query": "tea"},
    "write": {"primitive": "kv", "key": "goal", "value": {"what": "rest"}},
    "read": {"primitive": "kv", "key": "goal"},
    "history": {"primitive": "kv", "key": "goal"},
    "branch": {"action": "fork", "name": "try"},
    "merge": {"source": "try", "preview": True},
    "explain": {"primitive": "kv", "key": "goal"},
    "guide": {},
}


def command(path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "strata.cli", "mcp", str(path), *options]


@contextmanager
def host(path: Path, *options: str, mode: str = "auto") -> Iterator[Tools]:
    """A host of the database: the official client, which runs the command."""
    program, *arguments = command(path, *options)
    server = StdioServerParameters(command=program, args=arguments, env=ENVIRONMENT)
    with connected(server, mode=mode) as tools:
        yield tools


@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.slow)])
def test_every_tool_over_stdio(tmp_path: Path, mode: str) -> None:
    with host(tmp_path / "a.strata", mode=mode) as tools:
        assert tools.names() == CALLS.keys()
        answers = {name: tools.call(name, arguments) for name, arguments in CALLS.items()}
        assert tools.run(tools.client.list_resources).resources
    assert answers["recall"]["hits"][0]["stored"] == {"text": "Likes green tea"}
    assert answers["read"]["stored"] == {"what": "rest"}
    with strata.open(tmp_path / "a.strata", create=False) as db:
        assert db.json.get("memory/drink", "$.text") == "Likes green tea" and "try" in db.branches
        assert (db.log(limit=1)[0].actor or "").startswith("mcp")


def test_what_is_no_message_ends_nothing(tmp_path: Path) -> None:
    """A host that sends rubbish gets on; on standard output there is nothing but messages."""
    place = {"primitive": "kv", "key": "a"}
    lines = [
        b"rubbish",
        b'{"jsonrpc": "2.0"}',
        b"\xff\xfe\x00",
        b"[" * 10_000,
        message(1, "initialize", HELLO),
        b'{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        message(
            2, "tools/call", {"name": "write", "arguments": {"primitive": "kv", "key": "a", "value": "null"}}
        ),
        message(3, "tools/call", {"name": 5}),
        message(4, "no/such/method", {}),
        message(5, "tools/call", {"name": "read", "arguments": place}),
    ]
    with subprocess.Popen(
        command(tmp_path / "a.strata"), env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(b"\n".join(lines) + b"\n")
        server.stdin.flush()
        answers: dict[Any, Any] = {}
        while 5 not in answers:
            found = json.loads(server.stdout.readline())
            answers[found.get("id")] = found
        server.stdin.close()
        assert server.stdout.read() == b"" and server.wait(30) == 0
    assert answers[5]["result"]["structuredContent"]["stored"] == "null"
    assert "error" in answers[3] and "error" in answers[4]
    with strata.open(tmp_path / "a.strata") as db:
        assert db.log(limit=1)[0].actor == "mcp:\\u001b[31m"


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_it_and_loses_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """A thread waits for input that nobody sends; Ctrl-C had no effect until there was some."""
    call = {"name": "write", "arguments": {"primitive": "kv", "key": "a", "value": 1}}
    with subprocess.Popen(
        command(tmp_path / "a.strata"), env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        for line in (message(1, "initialize", HELLO), message(2, "tools/call", call)):
            server.stdin.write(line + b"\n")
            server.stdin.flush()
            server.stdout.readline()
        server.send_signal(number)
        assert server.wait(30) == 128 + number
    with strata.open(tmp_path / "a.strata", create=False) as db:
        assert db.kv.get("a") == 1


def message(id: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def test_several_hosts_at_once(tmp_path: Path) -> None:
    """Each host opens the path itself; the one that owned it goes, and the others go on."""
    path = tmp_path / "a.strata"
    with strata.open(path):
        looking = [*command(path)[:3], "branches", str(path)]
        looked = subprocess.run(looking, env=ENVIRONMENT, capture_output=True)
    if looked.returncode:
        assert b"is open elsewhere" in looked.stderr
        pytest.skip("a second process is not served by the first one yet")
    with ExitStack() as owner:
        one = owner.enter_context(host(path))
        assert one.remember(text="Likes green tea", key="drink")["outcome"] == "created"
        with host(path) as other, host(path, "--read-only") as reading:
            for name, arguments in CALLS.items():
                other.call(name, arguments)
            assert one.read(primitive="kv", key="goal")["stored"] == {"what": "rest"}
            assert reading.recall(query="tea")["hits"] and "remember" not in reading.names()
            owner.close()
            assert other.remember(text="Likes black tea")["outcome"] == "created"
            assert len(reading.recall(query="tea")["hits"]) == 2


# -- over HTTP


@contextmanager
def served(path: Path, *options: str) -> Iterator[str]:
    """The address of a server, which is told to end and does."""
    with subprocess.Popen(
        command(path, "--http", "127.0.0.1:0", *options), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            first = server.stderr.readline()
            assert first.startswith("strata mcp: http://127.0.0.1:"), first
            yield first.split()[-1]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def test_every_tool_over_http_with_a_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    hashes = {hashlib.sha256(token.encode()).hexdigest(): access for access, token in TOKENS.items()}
    tokens.write_text("# of the desk\n" + "".join(f"{each} {hashes[each]} desk\n" for each in hashes))
    with served(tmp_path / "a.strata", "--tokens", str(tokens)) as url:
        with over_http(url, "admin") as tools:
            assert tools.names() == CALLS.keys()
            answers = {name: tools.call(name, arguments) for name, arguments in CALLS.items()}
        assert answers["recall"]["hits"]
        with over_http(url, "write") as tools:
            assert tools.names() == CALLS.keys() and tools.remember(text="more")["outcome"] == "created"
            with pytest.raises(Refused, match="invalid_input"):
                tools.branch(action="delete", name="try")
        with over_http(url, "read") as tools:
            assert tools.names() == CALLS.keys() - {"remember", "write", "merge"}
            with pytest.raises(Refused, match="not_found"):
                tools.remember(text="even more")
            assert [each.name for each in tools.run(tools.client.list_prompts).prompts] == [
                "what-do-you-know"
            ]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKENS["admin"]}):
            assert posted(url, **headers).status_code == 401
        right = {"Authorization": f"Bearer {TOKENS['read']}"}
        assert posted(url, **right, Host="evil.example").status_code == 421
        assert posted(url, **right, Origin="http://evil.example").status_code == 403
        assert httpx2.post(url, headers=right, content=b"x" * 5_000_000).status_code == 413
        assert httpx2.get(url.replace("/mcp", "/../etc/passwd")).status_code == 404
    with strata.open(tmp_path / "a.strata", create=False) as db:
        assert "try" in db.branches


@contextmanager
def over_http(url: str, access: str) -> Iterator[Tools]:
    """A host with a token that allows so much."""
    client = httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKENS[access]}"})
    with connected(streamable_http_client(url, http_client=client)) as tools:
        yield tools


def posted(url: str, **headers: str) -> httpx2.Response:
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    return httpx2.post(url, headers={**accept, **headers}, content=message(1, "ping", {}))


# -- what the command refuses


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--http", "0.0.0.0:0"], "needs a token"),
        (["--http", "nowhere"], "is no address"),
        (["--http", "127.0.0.1:99999"], "is no address"),
        (["--http", "127.0.0.1:0", "--tokens", "nothing"], "does not exist"),
        (["--http", "0.0.0.0:0", "--tokens", "short"], "line 1"),
        (["--http", "0.0.0.0:0", "--tokens", "empty"], "has no token"),
        (["--http", "127.0.0.1:0", "--tokens", "empty"], "has no token"),
        (["--branch", "nope"], "does not exist"),
        (["--space", "_mine"], "reserved"),
        (["--tokens", "short"], "no tokens"),
        (["--embedder", "nope"], "no embedder"),
        (["--embedder", "nope:nope"], "cannot be had"),
        (["--embedder", "json:loads"], "embed"),
    ],
)
def test_what_cannot_be_served_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("short\n")
    Path("empty").write_text("\n# nothing\n")
    assert main(["mcp", "a.strata", *options]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and not printed.out


def test_read_only_makes_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", str(tmp_path / "none"), "--read-only"]) == 1
    assert "error:" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_read_only_serves_files_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strata.open(tmp_path / "a.strata").close()
    opened: list[dict[str, Any]] = []

    def refuses_to_write(arguments: Any, **settings: Any) -> strata.Database:
        opened.append(settings)
        if not settings.get("read_only"):
            raise strata.errors.StorageError("the files cannot be written")
        return strata.open(arguments.path, **settings)

    async def served(server: Any) -> None:
        assert server.name == "strata"

    monkeypatch.setattr("strata.cli.mcp.open_database", refuses_to_write)
    monkeypatch.setattr("strata.server.mcp.host.serve_stdio", served)
    monkeypatch.setattr("strata.cli.mcp._end_at_signals", lambda db: None)
    assert main(["mcp", str(tmp_path / "a.strata"), "--read-only"]) == 0
    assert opened == [{"create": False}, {"create": False, "read_only": True}]
    assert main(["mcp", str(tmp_path / "a.strata")]) == 1


def test_without_the_package_it_says_which_extra_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("host", "http"):
        monkeypatch.delitem(sys.modules, f"strata.server.mcp.{name}", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] in ("mcp", "mcp_types")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("mcp", "mcp_types"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["mcp", str(tmp_path / "a.strata")]) == 1
    assert "[mcp]" in capsys.readouterr().err and not (tmp_path / "a.strata").exists()
