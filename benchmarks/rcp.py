"""The RCP listener: events applied through one connection, many in one write, and one after the other.

    python -m benchmarks.rcp [--quick]

The client has its frames made before, and only writes and reads; the server is `strata serve --rcp` in a
process of its own. Beside each rate stands what one event took of the server's own CPU time, which says the
same on a machine that others use too.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.served import end
from strata.server.rcp.frames import HEADER, frame

PIPELINED, INSTANCES = 64, 1_000
STEPS = {"created": "paid", "paid": "shipped", "shipped": "created"}
ORDER = {
    "states": list(STEPS),
    "initial": "created",
    "transitions": [
        {"from": state, "event": "NEXT", "to": to, "guard": "ctx.total >= 1"} for state, to in STEPS.items()
    ],
}
GOAL = 50_000.0


def request(number: int, op: str, **params: object) -> bytes:
    """Return the frame of a request."""
    body = {"type": "request", "id": str(number), "op": op, "params": params}
    return frame(msgspec.json.encode(body))


class Client:
    """A socket, and as much of RCP as it takes to count answers."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def read(self, count: int) -> bytes:
        """Read so many answers; return the last."""
        buffer, payload = self.rest, b""
        while count:
            at = 0
            while count and len(buffer) - at >= HEADER.size:
                size = int.from_bytes(buffer[at + 10 : at + 14]) + HEADER.size
                if len(buffer) - at < size:
                    break
                payload, at, count = buffer[at + HEADER.size : at + size], at + size, count - 1
            buffer = buffer[at:]
            if count:
                buffer += self.socket.recv(1 << 18)
        self.rest = buffer
        return payload

    def ask(self, *frames: bytes) -> dict[str, object]:
        """Send frames, and return the last answer, which must be a good one."""
        self.socket.sendall(b"".join(frames))
        found: dict[str, object] = msgspec.json.decode(self.read(len(frames)))
        assert found["status"] == "ok", found
        return found


@contextmanager
def served(place: Path) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """A server, and a client of it with machines and instances."""
    command = [sys.executable, "-m", "strata.cli", "serve", str(place / "a.strata"), "--create"]
    addresses = ["--socket", str(place / "socket"), "--rcp", "127.0.0.1:0"]
    server = subprocess.Popen([*command, *addresses], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        host, _, port = msgspec.json.decode(server.stderr.readline())["at"]["rcp"].rpartition(":")
        client = Client(host, int(port))
        client.ask(request(0, "PUT_MACHINE", machine="order", version=1, definition=ORDER))
        for number in range(INSTANCES):
            name = f"order-{number:07}"
            params = {"machine": "order", "version": 1, "instance_id": name, "initial_ctx": {"total": 5}}
            client.ask(request(number, "CREATE_INSTANCE", **params))
        yield server, client
        client.socket.close()
    finally:
        end(server)


def cpu_s(server: subprocess.Popen[str]) -> float:
    """Seconds of CPU that a process has taken, as Linux says it."""
    words = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def pipelined(server: subprocess.Popen[str], client: Client, batches: int) -> tuple[float, float]:
    """Events a second, 64 in one write and two writes under way; microseconds of the server's CPU for one."""
    writes = [
        b"".join(
            request(number, "APPLY_EVENT", instance_id=f"order-{number % INSTANCES:07}", event="NEXT")
            for number in range(begin * PIPELINED, (begin + 1) * PIPELINED)
        )
        for begin in range(INSTANCES)
    ]
    before, begun = cpu_s(server), time.perf_counter()
    client.socket.sendall(writes[0])
    for turn in range(1, batches):
        client.socket.sendall(writes[turn % len(writes)])
        client.read(PIPELINED)
    found = msgspec.json.decode(client.read(PIPELINED))
    took_s = time.perf_counter() - begun
    assert found["status"] == "ok", found
    count = batches * PIPELINED
    return count / took_s, (cpu_s(server) - before) / count * 1e6


def one_at_a_time(client: Client, count: int) -> float:
    """Microseconds of the middle one of `count` round trips."""
    took, clock = [], time.perf_counter_ns
    for number in range(count):
        asked = request(number, "APPLY_EVENT", instance_id=f"order-{number % INSTANCES:07}", event="NEXT")
        begun = clock()
        client.socket.sendall(asked)
        client.read(1)
        took.append(clock() - begun)
    return statistics.median(took) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rcp")
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    scale, turns = (1, 2) if parser.parse_args().quick else (5, 5)
    rates, cpu, trips = [], [], []
    with tempfile.TemporaryDirectory() as place, served(Path(place)) as (server, client):
        for turn in range(turns):
            print(f"turn {turn + 1} of {turns}", flush=True)
            rate, took_us = pipelined(server, client, 200 * scale)
            rates.append(rate)
            cpu.append(took_us)
            trips.append(one_at_a_time(client, 500 * scale))
    met = "met" if max(rates) >= GOAL else "missed"
    print(f"\n{'apply event, pipelined by 64':34} /s{GOAL:11,.0f}{max(rates):12,.0f}  {met}")
    print(f"{'  of it, CPU of the server':34} us{'':11}{min(cpu):12.1f}")
    print(f"{'apply event, one at a time, p50':34} us{'':11}{min(trips):12.1f}")


if __name__ == "__main__":
    main()
