"""What a greedy client does to the others: a good one's p50 and p99, alone and beside it, in one run.

    python -m benchmarks.fair [--seconds 3]

The good client reads one key, waits for the answer, and rests for a moment, over a local socket. The greedy
ones each have a process of their own, and the server has one. All of them share the machine's cores, so what
counts is the ratio to the time beside the greedy client that only burns a core: `busy`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import strata
from benchmarks.served import end
from strata.wire.frames import FRAME_BYTES_MAX, MAGIC, PROTOCOL, Kind, Reader, encode_body, frame

ROWS = 200_000
PAUSE_S = 0.0005


def busy(url: str) -> None:
    while True:
        sum(range(10_000))


def scan(url: str) -> None:
    with strata.connect(url) as db:
        while True:
            assert len(db.kv._txn.scan(None, None, None, False, None)) == ROWS


def count(url: str) -> None:
    with strata.connect(url) as db:
        while True:
            assert db.kv.count() >= ROWS


def put_many(url: str) -> None:
    with strata.connect(url) as db:
        rows = {f"many/{number:06}": number for number in range(50_000)}
        while True:
            db.space("other").kv.put_many(rows)


def pipelined(url: str) -> None:
    """Gets, as many as a connection takes, and no pause."""
    talk = b"".join(
        (
            frame(Kind.OPEN, 0, encode_body((1, 0, "branch", ("main",)))),
            frame(Kind.OPEN, 0, encode_body((2, 1, "keyspace", ("default", "kv", True, False)))),
        )
    )
    made = _connected(url, talk)
    request = frame(Kind.CALL, 7, encode_body((2, "get", ("k000001",))))
    _flood(made, request * 10_000)


def operations(url: str) -> None:
    """Pages of an operation, 256 of them under way."""
    made = _connected(url, b"")
    body = encode_body(("kv.scan", {}, {"limit": 10_000}))
    reader = Reader(FRAME_BYTES_MAX)
    made.sendall(b"".join(frame(Kind.OPERATION, id, body) for id in range(1, 256)))
    while data := made.recv(1 << 20):
        for found in reader.feed(data):
            made.sendall(frame(Kind.OPERATION, found.id, body))


def _connected(url: str, talk: bytes) -> Any:
    import socket

    made = socket.socket(socket.AF_UNIX)
    made.connect(url.removeprefix("unix:"))
    made.sendall(frame(Kind.HELLO, 0, encode_body({"magic": MAGIC, "protocols": [PROTOCOL]})) + talk)
    made.recv(1 << 16)
    return made


def _flood(made: Any, data: bytes) -> None:
    import threading

    def read() -> None:
        while made.recv(1 << 20):
            pass

    threading.Thread(target=read, daemon=True).start()
    while True:
        made.sendall(data)


GREEDY: dict[str, Callable[[str], None]] = {
    one.__name__: one for one in (busy, scan, count, put_many, pipelined, operations)
}


def good(db: strata.Database, seconds: float) -> tuple[float, float, float]:
    """Microseconds of the middle round trip, of the slowest of a hundred, and of the slowest."""
    took, clock = [], time.perf_counter_ns
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = clock()
        db.kv.get("k000001")
        took.append((clock() - begun) / 1000)
        time.sleep(PAUSE_S)
    return statistics.median(took), statistics.quantiles(took, n=100)[98], max(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--greedy", choices=GREEDY, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.greedy:
        GREEDY[options.greedy](options.url)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"unix:{place / 's'}"
        command = [sys.executable, "-m", "strata.cli", "serve", str(place / "a.strata"), "--create"]
        server = subprocess.Popen([*command, "--socket", str(place / "s")], stderr=subprocess.PIPE, text=True)
        stack.callback(end, server)
        assert server.stderr is not None and "serving" in server.stderr.readline()
        db = stack.enter_context(strata.connect(url))
        for start in range(0, ROWS, 10_000):
            db.kv.put_many({f"k{number:06}": number for number in range(start, start + 10_000)})
        print(f"{os.cpu_count()} cores; microseconds of a good client's kv.get")
        print(f"{'beside':12} {'p50':>8} {'p99':>8} {'max':>8}  p99 to beside busy")
        base = 0.0
        for name in ("nobody", *GREEDY):
            beside = None
            if name != "nobody":
                asked = [sys.executable, "-m", "benchmarks.fair", "--greedy", name, "--url", url]
                beside = subprocess.Popen(asked, text=True)
                time.sleep(1.5)
            middle, slow, slowest = good(db, options.seconds)
            if beside is not None:
                end(beside)
            base = slow if name == "busy" else base
            ratio = f"{slow / base:8.1f} x" if base else ""
            print(f"{name:12} {middle:8.0f} {slow:8.0f} {slowest:8.0f}  {ratio}", flush=True)


if __name__ == "__main__":
    main()
