"""Served databases beside Redis: one client, many in flight, many clients, on local sockets in one run.

    python -m benchmarks.served [--quick]

One at a time    a client of the product asks, and waits for the answer: `strata.connect`; for Redis its RESP
                 spoken by twenty lines of Python over a socket, which costs less than its own client
Pipelined        one connection, 64 requests in one write, then all their answers; both sides speak raw frames
50 clients       50 connections, each with one request under way, driven by one process through epoll

Steps            `state.set`, which reads a counter and writes: its write goes with its commit, or alone

Turns of the two alternate. Where there is no redis-server its columns stay empty, and the report says so.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import strata
from strata.core.protocols import Transaction, Txn
from strata.remote.txn import AutomaticTxn
from strata.wire.frames import MAGIC, PROTOCOL, Kind, encode_body, frame

VALUE = b"x" * 100
PIPELINED, CLIENTS = 64, 50
GOALS = {
    "one at a time, get, p50": ("us", 60.0),
    "one at a time, put, p50": ("us", 60.0),
    "pipelined by 64, get": ("/s", 200_000.0),
    "pipelined by 64, put": ("/s", 200_000.0),
    "pipelined by 64, operation kv.get": ("/s", 200_000.0),
    "50 clients, get": ("/s", 100_000.0),
}


@dataclass
class Peer:
    """One server: how to reach it, and the bytes of a get and a put."""

    name: str
    path: str
    greeting: bytes
    get: bytes
    put: bytes
    operation: bytes | None
    one_get: Callable[[], object]
    one_put: Callable[[], object]
    steps: dict[str, Callable[[], object]] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)

    def connection(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.path)
        if self.greeting:
            made.sendall(self.greeting)
            made.recv(1 << 16)
        return made


def serve_strata(place: Path, stack: ExitStack) -> Peer:
    path = str(place / "strata")
    command = [
        sys.executable,
        "-m",
        "strata.cli",
        "serve",
        str(place / "a.strata"),
        "--create",
        "--socket",
        path,
    ]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    stack.callback(end, server)
    assert server.stderr is not None and "serving" in server.stderr.readline()
    db = strata.connect(f"unix:{path}")
    stack.callback(db.close)
    db.kv.put("k", VALUE)
    greeting = frame(Kind.HELLO, 0, encode_body({"magic": MAGIC, "protocols": [PROTOCOL]}))
    greeting += frame(Kind.OPEN, 0, encode_body((1, 0, "branch", ("main",))))
    greeting += frame(Kind.OPEN, 0, encode_body((2, 1, "keyspace", ("default", "kv", True, False))))
    return Peer(
        "strata",
        path,
        greeting,
        get=frame(Kind.CALL, 7, encode_body((2, "get", ("k",)))),
        put=frame(Kind.CALL, 7, encode_body((2, "put", ("k", VALUE)))),
        operation=frame(Kind.OPERATION, 7, encode_body(("kv.get", {}, {"key": "k"}))),
        one_get=lambda: db.kv.get("k"),
        one_put=lambda: db.kv.put("k", VALUE),
        steps={
            "one at a time, state.set, p50": lambda: db.state.set("s", VALUE),
            "the same, its write alone": lambda: alone(lambda: db.state.set("s", VALUE)),
        },
    )


def alone(call: Callable[[], object]) -> object:
    """Make a call whose writes do not go with their commit."""
    begin = AutomaticTxn.begin

    def begun(self: AutomaticTxn) -> tuple[Transaction, Txn]:
        transaction, inside = begin(self)
        transaction.gathers = False  # type: ignore[attr-defined]
        return transaction, inside

    AutomaticTxn.begin = begun  # type: ignore[method-assign]
    try:
        return call()
    finally:
        AutomaticTxn.begin = begin  # type: ignore[method-assign]


def serve_redis(place: Path, stack: ExitStack) -> Peer | None:
    program = shutil.which("redis-server")
    if program is None:
        return None
    path = str(place / "redis")
    options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", str(place)]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    stack.callback(end, server)
    for _ in range(500):
        if os.path.exists(path):
            break
        time.sleep(0.01)
    get, put = resp(b"GET", b"k"), resp(b"SET", b"k", VALUE)
    peer = Peer("redis", path, b"", get, put, None, one_get=lambda: None, one_put=lambda: None)
    client = peer.connection()
    stack.callback(client.close)

    def ask(request: bytes) -> object:
        client.sendall(request)
        answer = client.recv(1 << 16)
        return answer[answer.index(b"\r\n") + 2 : -2] if answer[:1] == b"$" else answer[1:-2]

    peer.one_get, peer.one_put = lambda: ask(get), lambda: ask(put)
    ask(put)
    return peer


def resp(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def end(server: subprocess.Popen[str]) -> None:
    server.terminate()
    server.wait()


def one_at_a_time(ask: Callable[[], object], count: int) -> float:
    """Microseconds of the middle one of `count` round trips."""
    took, clock = [], time.perf_counter_ns
    for _ in range(count):
        begun = clock()
        ask()
        took.append(clock() - begun)
    return statistics.median(took) / 1000


def pipelined(peer: Peer, request: bytes, batches: int) -> float:
    """Requests a second over one connection, 64 in one write."""
    with peer.connection() as made:
        made.sendall(request)
        size = len(made.recv(1 << 16)) * PIPELINED
        begun = time.perf_counter()
        for _ in range(batches):
            made.sendall(request * PIPELINED)
            left = size
            while left > 0:
                left -= len(made.recv(1 << 18))
        return batches * PIPELINED / (time.perf_counter() - begun)


def many_clients(peer: Peer, count: int) -> float:
    """Requests a second of 50 connections, each with one under way."""
    with ExitStack() as stack:
        sockets = {
            made.fileno(): made for made in (stack.enter_context(peer.connection()) for _ in range(CLIENTS))
        }
        poll = stack.enter_context(select.epoll())
        for number in sockets:
            poll.register(number, select.EPOLLIN)
        request, done = peer.get, 0
        begun = time.perf_counter()
        for made in sockets.values():
            made.sendall(request)
        while done < count:
            for number, _ in poll.poll():
                made = sockets[number]
                made.recv(1 << 12)
                made.send(request)
                done += 1
        return done / (time.perf_counter() - begun)


def measure(peer: Peer, scale: int) -> None:
    """One turn of all rows."""
    rows: dict[str, Callable[[], float]] = {
        "one at a time, get, p50": lambda: one_at_a_time(peer.one_get, 1000 * scale),
        "one at a time, put, p50": lambda: one_at_a_time(peer.one_put, 1000 * scale),
        "pipelined by 64, get": lambda: pipelined(peer, peer.get, 100 * scale),
        "pipelined by 64, put": lambda: pipelined(peer, peer.put, 50 * scale),
        "50 clients, get": lambda: many_clients(peer, 10_000 * scale),
    }
    if peer.operation is not None:
        operation = peer.operation
        rows["pipelined by 64, operation kv.get"] = lambda: pipelined(peer, operation, 50 * scale)
    for name, step in peer.steps.items():
        rows[name] = lambda step=step: one_at_a_time(step, 400 * scale)
    for name, row in rows.items():
        peer.took.setdefault(name, []).append(row())


def report(peers: list[Peer]) -> None:
    print(f"\n{'':36}{'goal':>12}" + "".join(f"{peer.name:>12}" for peer in peers))
    for name, (unit, goal) in GOALS.items():
        best = min if unit == "us" else max
        shown = "".join(
            f"{best(peer.took[name]):12,.0f}" if name in peer.took else f"{'':12}" for peer in peers
        )
        ours = best(peers[0].took[name])
        met = ours <= goal if unit == "us" else ours >= goal
        print(f"{name:34}{unit:>3}{goal:11,.0f}{shown}{'  met' if met else '  missed'}")
    for name in peers[0].steps:
        print(f"{name:34}{'us':>3}{'':11}{min(peers[0].took[name]):12,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.served")
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    scale, turns = (1, 2) if parser.parse_args().quick else (5, 5)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = [serve_strata(place, stack), serve_redis(place, stack)]
        peers = [peer for peer in found if peer is not None]
        if len(peers) < len(found):
            print("SKIPPED redis needs=redis-server (Debian: apt-get install redis-server)")
        for turn in range(turns):
            for peer in peers:
                print(f"turn {turn + 1} of {turns}: {peer.name}", flush=True)
                measure(peer, scale)
        report(peers)


if __name__ == "__main__":
    main()
