"""Bytes of no good will, into the decoder and from there into a session: what may come out is an answer or a
typed error, never a bug of ours.

An input says by its first byte what it is: below 80 a stream of frames, below C0 a program of calls, and else
one of operations, which is changed part by part, by what it means (fuzz_operations.py).

`python tests/fuzz_wire.py SECONDS [CORPUS]` fuzzes guided by coverage where atheris is installed (the extra
`fuzz`), and else by mutation of good conversations from a seed. test_wire.py runs it for STRATA_FUZZ_S.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fuzz_operations
from fuzz_operations import Runner

from strata.core.errors import StrataError
from strata.store import open_store
from strata.wire.asks import ASKS
from strata.wire.errors import from_wire, to_wire
from strata.wire.frames import (
    ABSENT,
    GREETING_BYTES_MAX,
    HEADER,
    Frame,
    Kind,
    Reader,
    decode_body,
    encode_body,
    frame,
)
from strata.wire.session import Session

METHODS = sorted({method for asks in ASKS.values() for method in asks})
RUNS_PER_STORE = 2_000
# What makes handles, so that a program has something of every kind to ask.
HANDLES: tuple[tuple[int, int, str, Any], ...] = (
    (1, 0, "branch", ["main"]),
    (2, 1, "keyspace", ["default", "kv", True, False]),
    (3, 1, "keyspace", ["default", "events", False, False]),
    (4, 1, "begin", ["serializable", False, None]),
    (5, 4, "keyspace", ["default", "kv", True, False]),
    (6, 1, "view", [None, None]),
    (7, 6, "keyspace", ["default", "kv", True, False]),
    (8, 1, "view", [0, None]),
    (9, 8, "diff", [6]),
    (10, 1, "keyspace", ["default", "json", True, True]),
)
SEEDS: tuple[tuple[int, str, Any, Any], ...] = (
    (2, "put", ["a", {"n": [1, 2.5, None, b"x"]}, None], {"once": "k1"}),
    (2, "add", ["n", 3], {}),
    (2, "patch", ["a", [["set", ["n", 0], 7]]], {"once": "k2"}),
    (2, "delete_many", [["a", "n"]], {"once": "k3"}),
    (2, "put_many", [[["a", 1], ["b", 2]], 5], {}),
    (2, "scan", [None, "a", None, True, 5], {}),
    (2, "by_value", ["i", [[1], True], None, False, 3], {}),
    (
        2,
        "by_text",
        ["i", "words", 3, {"values": [["i", [[None, [[1], False]]]]], "written": [0, 9]}, True],
        {},
    ),
    (2, "by_vector", ["i", b"\0" * 16, 3, None, 0.99], {}),
    (3, "append", [b"main\0", "said", {"text": "x"}, None], {"once": "k4"}),
    (4, "commit", [None, None, None], {"once": "k5"}),
    (5, "expect", ["a", 3, ABSENT, False], {}),
    (4, "finish", [[[5, "put", ["a", 1, None]], [5, "delete", ["b"]]], None, None, None], {"once": "k6"}),
    (6, "how", [8, "default", "kv", b"a"], {}),
    (9, "page", [10], {}),
    (10, "get_path", ["a", ["n", -1, None]], {}),
    (0, "branch", ["main", 0], {}),
    (1, "identity", [], {}),
    (0, "create", ["b"], {}),
    (0, "fork", ["main", "c", 1], {}),
    (0, "set_policy", ["main", None, "kv", 3, None, False], {}),
    (0, "create_index", ["i", "default", "kv", b"", {"type": "ordered", "path": [[]]}], {}),
    (0, "forget", [[[None, "kv", b"a", True]]], {}),
    (0, "info", [], {}),
)


class Target:
    """A store, and what is done with bytes on it."""

    def __init__(self) -> None:
        self._runs = RUNS_PER_STORE
        self._store: Any = None

    def __call__(self, data: bytes) -> None:
        """Take bytes as a stream of frames, or as a program of calls. Raises what is a bug."""
        if self._runs == RUNS_PER_STORE:
            self._begin_anew()
        self._runs += 1
        if data[:1] >= b"\xc0":
            self._runner.run(data[1:])
            return
        session = Session(self._store, files=False)
        for handle in HANDLES:
            session.open(*handle)
        try:
            if data[:1] < b"\x80":
                self._stream(session, data[1:])
            else:
                self._program(session, data[1:])
        finally:
            session.close()
            assert not session.has_transactions

    def _begin_anew(self) -> None:
        if self._store is not None:
            self._store.close()
            self._runner.close()
        self._runs, self._store, self._runner = 0, open_store(None), Runner(self._check)

    def _stream(self, session: Session, data: bytes) -> None:
        """Read frames out of pieces."""
        reader = Reader(GREETING_BYTES_MAX)
        step = 1 + (data[0] if data else 0)
        with contextlib.suppress(StrataError):
            for at in range(0, len(data), step):
                for found in reader.feed(data[at : at + step]):
                    assert len(found.body) <= GREETING_BYTES_MAX
                    self._take(session, found)

    def _take(self, session: Session, found: Frame) -> None:
        try:
            body = decode_body(found.body)
            if found.kind == Kind.OPEN and isinstance(body, list) and len(body) == 4:
                session.open(*body)
            elif found.kind == Kind.RELEASE:
                session.release(body)
            elif found.kind == Kind.CALL and isinstance(body, list) and len(body) == 3:
                self._call(session, body[0], body[1], body[2], {})
            elif found.kind == Kind.OPERATION:
                self._runner.run(encode_body([body]))
        except Exception as error:
            self._check(error)

    def _program(self, session: Session, data: bytes) -> None:
        """Two bytes say which handle and method, one how long the arguments are, and so on."""
        at = 0
        while at + 3 <= len(data):
            handle, method, size = data[at] % 16, METHODS[data[at + 1] % len(METHODS)], data[at + 2]
            at += 3
            try:
                arguments = decode_body(data[at : at + size])
            except StrataError:
                arguments = []
            at += size
            options = {"once": f"k{handle}"} if size % 3 == 0 else {}
            if isinstance(arguments, list):
                self._call(session, handle, method, arguments, options)

    def _call(self, session: Session, handle: Any, method: Any, arguments: Any, options: Any) -> None:
        try:
            encode_body(session.call(session.bound(handle, method), arguments, options.get("once")))
        except Exception as error:
            self._check(error)

    def _check(self, error: Exception) -> None:
        said = decode_body(encode_body(to_wire(error)))
        if said["code"] == "internal_error":
            raise error
        again = from_wire(said)
        assert to_wire(again)["code"] in (said["code"], "remote_error")


def seeds() -> list[bytes]:
    """Good inputs: each call as a program, as a frame, and all frames as one stream."""
    frames = [
        frame(Kind.CALL, number, encode_body([handle, method, arguments]))
        for number, (handle, method, arguments, _) in enumerate(SEEDS, 1)
    ]
    programs = []
    for handle, method, arguments, options in SEEDS:
        body = encode_body(arguments)
        size = len(body) + (-len(body) % 3 if options else 0)
        programs.append(bytes([0x80, handle, METHODS.index(method), size]) + body)
    frames += [
        frame(Kind.OPERATION, number, encode_body(message))
        for number, message in enumerate(fuzz_operations.seeds(), len(frames) + 1)
    ]
    opens = [frame(Kind.OPEN, 0, encode_body((10 + new, *rest))) for new, *rest in HANDLES]
    programs += [b"\xc0" + fuzz_operations.program([message]) for message in fuzz_operations.seeds()]
    stream = b"".join(opens + frames[: len(SEEDS) + len(opens)])
    return [b"\0\xff" + found for found in (*frames, *opens, stream)] + programs


def mutate(data: bytes, chance: random.Random, pool: list[bytes]) -> bytes:
    """Return `data` with a few things wrong."""
    if data[:1] >= b"\xc0" and chance.random() < 0.8:
        return data[:1] + fuzz_operations.mutate(data[1:], chance)
    made = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(made) + 1)
        what = chance.randrange(6)
        if what == 0 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif what == 1 and at < len(made):
            made[at] = chance.choice((0x80, 0x90, 0xC0, 0xC1, 0xC7, 0xCB, 0xCF, 0xDD, 0xDF, 0xFF, 0))
        elif what == 2:
            del made[at : at + chance.randint(1, 8)]
        elif what == 3:
            made[at:at] = chance.randbytes(chance.randint(1, 8))
        elif what == 4:
            made[at:at] = chance.choice(pool)[1:]
        elif len(made) >= HEADER.size:
            made[2:6] = (chance.randrange(len(made) + 9)).to_bytes(4)
    return bytes(made[:4096])


def fuzz(seconds: float, seed: int = 0) -> int:
    """Return how many inputs, mutated from good ones, were tried. Raises the first bug."""
    chance, target, pool = random.Random(seed), Target(), seeds()
    for data in pool:
        target(data)
    count, until = len(pool), time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutate(chance.choice(pool), chance, pool)
        try:
            target(data)
        except BaseException as error:
            error.add_note(f"seed {seed}, input {data!r}")
            raise
        count += 1
    return count


def main(seconds: int, corpus: str | None = None) -> None:
    """Fuzz guided by coverage, and exit."""
    try:
        import atheris
    except ImportError:
        print(f"Done {fuzz(seconds, seed=os.getpid())} runs without atheris")
        return
    target, pool = Target(), seeds()
    for data in pool:  # what is imported by then is watched
        target(data)
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as made:
        where = Path(corpus or made)
        for number, data in enumerate(pool):
            (where / f"seed-{number}").write_bytes(data)
        options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=30", f"-artifact_prefix={made}/"]
        atheris.Setup([sys.argv[0], *options, str(where)], target, custom_mutator=_mutator(atheris))
        atheris.Fuzz()


def _mutator(atheris: Any) -> Any:
    """Return what changes an input: operations by what they mean as a rule, all else byte by byte."""

    def mutated(data: bytes, size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if data[:1] >= b"\xc0" and chance.random() < 0.8:
            return data[:1] + fuzz_operations.mutate(data[1:], chance, size - 1)
        return bytes(atheris.Mutate(data, size))

    return mutated


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:3])
