"""More connections than there is room for: by the limit, or by the file descriptors of the process.

Each server is a process of its own, whose descriptors and memory can be looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time

import pytest
from wire_clients import GREETING, until

import strata
from strata.server import descriptors
from strata.wire.frames import FRAME_BYTES_MAX, Kind, Reader, decode_body

PROGRAM = """
import resource, sys
import strata.server.descriptors as descriptors
if {few}:  # who runs the tests may be root, who could have more
    resource.setrlimit(resource.RLIMIT_NOFILE, ({few}, {few}))
    descriptors.raise_limit = lambda connections: {few}
if {plain}:
    sys.modules["uvloop"] = None
from strata.cli import main
main()
"""


@contextlib.contextmanager
def served(path, *options, few=0, plain=False):
    """A server, its port, and what it said before."""
    program = PROGRAM.format(few=few, plain=plain)
    command = [sys.executable, "-c", program, "serve", str(path), "--create", "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, *map(str, options)], stderr=subprocess.PIPE, text=True) as process:
        said = [json.loads(process.stderr.readline())]
        if said[0]["event"] != "serving":
            said.append(json.loads(process.stderr.readline()))
        rest = threading.Thread(target=process.stderr.read, daemon=True)
        rest.start()  # it never waits for us to read what it says
        try:
            yield process, int(said[-1]["at"]["clients"].rpartition(":")[2]), said
        finally:
            process.terminate()
            process.wait()
            rest.join()


def fds(process) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def rss(process) -> int:
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 20)
    made.sendall(GREETING)
    return made


def answer(client: socket.socket) -> str:
    """What a client is told first: "welcome", or the code of an error; "closed" where nothing is."""
    reader, found = Reader(FRAME_BYTES_MAX), []
    try:
        while not found:
            data = client.recv(1 << 16)
            if not data:
                return "closed"
            found = list(reader.feed(data))
    except ConnectionResetError:
        return "closed"
    return "welcome" if found[0].kind == Kind.WELCOME else decode_body(found[0].body)["code"]


linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="SKIPPED F12 needs=/proc")


@linux
@pytest.mark.parametrize(
    "plain", [pytest.param(False, id="uvloop"), pytest.param(True, id="asyncio", marks=pytest.mark.slow)]
)
def test_few_descriptors(tmp_path, plain):
    """The story: asyncio tells of each connection that it cannot accept, a thousand times a second, with a
    trace each; when nobody reads these the server stops. Now there is room kept, and it tells once."""
    with served(tmp_path / "a", few=64, plain=plain) as (process, port, said):
        assert said[0]["event"] == "few descriptors" and said[0]["connections"] < 64
        with strata.connect(f"strata://127.0.0.1:{port}") as good:
            good.kv.put("k", 0)
            before = fds(process)
            clients = [connected(port) for _ in range(150)]
            for number in range(1, 50):
                assert good.kv.put("k", number)
            told = [answer(client) for client in clients]
            assert told.count("welcome") >= 16
            assert set(told) <= {"welcome", "limit_exceeded", "closed"}
            for client in clients:
                client.close()
            until(lambda: fds(process) <= before)
            assert good.kv.get("k") == 49
            with strata.connect(f"strata://127.0.0.1:{port}") as again:
                assert again.kv.get("k") == 49


@linux
def test_room_is_what_the_descriptors_leave(monkeypatch):
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])

    def setrlimit(_, limit):
        if limit[1] > 4096:
            raise ValueError("not allowed")
        limits["now"] = limit

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert 500 < descriptors.room(10_000) < 1024
    assert descriptors.room(10) == 10
    assert descriptors.raise_limit(100) == 1024  # there is room
    assert descriptors.raise_limit(10_000) == 4096  # as many as are allowed
    assert 3500 < descriptors.room(10_000) < 4096
    limits["now"] = (8, 8)
    assert descriptors.room(10_000) == 1
    limits["now"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert descriptors.room(10_000) == 10_000 and descriptors.raise_limit(10_000) is None


class Good:
    """A client that asks all the time, in a thread, and how long it waited."""

    def __init__(self, port: int) -> None:
        self.db = strata.connect(f"strata://127.0.0.1:{port}")
        self.took: list[float] = []
        self.failed: list[Exception] = []
        self.is_over = False
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        number = 0
        while not self.is_over:
            begun = time.perf_counter()
            try:
                number += 1
                self.db.kv.put("good", number)
                assert self.db.kv.get("good") == number
            except Exception as error:
                self.failed.append(error)
            self.took.append(time.perf_counter() - begun)
            time.sleep(0.001)

    def p99_ms(self) -> float:
        """Of what was asked since the last time."""
        took, self.took = self.took, []
        return statistics.quantiles(took, n=100)[98] * 1000


@linux
@pytest.mark.slow
@pytest.mark.parametrize("limit", [10_000, 20_000])
def test_ten_thousand_connections(tmp_path, limit, capsys):
    count, over = 10_000, 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + over + 100:
        pytest.skip(f"SKIPPED N3 needs=RLIMIT_NOFILE of {count + over + 100}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with served(tmp_path / "a", "--max-connections", limit) as (process, port, said):
        good = Good(port)
        before = fds(process), rss(process)
        good.thread.start()
        time.sleep(2)
        quiet_ms = good.p99_ms()
        clients = [connected(port) for _ in range(count + over)]
        told = [answer(client) for client in clients]
        coming_ms, full = good.p99_ms(), rss(process)
        time.sleep(2)
        idle_ms = good.p99_ms()
        room = min(limit, said[0].get("connections", limit)) - 1  # one is the good client's
        assert told.count("welcome") == min(count + over, room)
        assert told.count("limit_exceeded") == max(0, count + over - room)
        assert {
            answer(client) for client, first in zip(clients, told, strict=True) if first != "welcome"
        } <= {"closed"}
        for client in clients:
            client.close()
        until(lambda: fds(process) <= before[0])
        good.is_over = True
        good.thread.join()
        good.db.close()
        assert not good.failed
    each = (full - before[1]) / told.count("welcome")
    with capsys.disabled():
        print(
            f"\nlimit {limit}: {told.count('welcome')} connections, {told.count('limit_exceeded')} refused, "
            f"{each / 1024:.1f} KiB each; good p99 {quiet_ms:.1f} ms alone, {coming_ms:.1f} while they come "
            f"({coming_ms / quiet_ms:.1f} x), {idle_ms:.1f} beside them ({idle_ms / quiet_ms:.1f} x)"
        )
