"""Operations of no good will: messages of the wire in the shape of good ones, of the catalogue's examples,
with other things in the places of what is there.

A program is an array of messages, `[name, place, arguments]` or with options, done one after the other on a
database in which there is something of everything.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from typing import Any

import strata
from strata.api.examples import EXAMPLES
from strata.api.operations import OPERATIONS
from strata.api.plain import plain
from strata.core.errors import StrataError
from strata.server import watching
from strata.server.operations import Operations
from strata.server.work import Cancelled, Work
from strata.store import open_store
from strata.wire.frames import ABSENT, decode_body, encode_body
from strata.wire.session import Session

BYTES_MAX = 4096
MESSAGES_MAX = 16
LOOKS_MAX = 8  # of a client, after which it wants no more
DEPTH_MAX = 200  # of what mutation makes
NAMES = sorted({*OPERATIONS, "watch"})
PLACES: tuple[dict[str, Any], ...] = (
    {}, {"branch": "draft"}, {"branch": "free"}, {"space": "notes"}, {"branch": "free", "space": "notes"},
    {"at": 3},
    {"at": "2026-01-01T00:00Z"}, {"at": {"tag": "v1"}}, {"transaction": 4},
    {"transaction": 4, "space": "notes"},
)  # fmt: skip
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"credit": 2}, {"commit": {"message": "m", "actor": "a", "cause": "c", "idempotency_key": "k"}},
    {"commit": {}}, {"credit": 0, "commit": {}},
)  # fmt: skip
# What is likely to be where somebody forgot to look.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 127, 255, 1 << 31, 1 << 32, 2**63 - 1, -(2**63), 2**64 - 1,
    0.0, -0.0, 1.5, 1e308, float("nan"), float("inf"), b"", b"\0" * 8, b"\xff", [], {}, [[]], {"": 0}, ABSENT,
    "", "a", "k", "main", "draft", "notes", "default", "goal", "user", "t1", "facts", "words", "ticket", "\0",
    "é", "$", "$.name", "$.a[0]", "$..", "$[-1]", "x" * 300, "2026-01-01T00:00Z", {"tag": "v1"},
    "strata://main/default/kv/goal", "strata://main/default/json/user@3#$.name",
    {"time": "2026-01-01T00:00:00Z"}, {"last": 1, "for_s": 0.0, "both": True},
)  # fmt: skip


_EVENT: dict[str, Any] = plain(strata.open().events.append("ask", {"text": "why?"}, stream="other"))


def prepare(store: Any) -> strata.Database:
    """Put something of everything into a store: what the examples need, as far as it goes together."""
    db = strata.Database(store)
    lines = {line: None for example in EXAMPLES.values() if not example.on_disk for line in example.setting}
    for line in lines:
        with contextlib.suppress(StrataError, NameError):
            exec(line, {"strata": strata, "db": db})
    db.branches.fork("main", "free")  # which takes writes
    return db


def seeds() -> list[list[Any]]:
    """Good messages: the example of each operation, and its parts under other names, in other company."""
    examples = [("watch", {"from_version": 0, "timeout_s": 0.0, "primitive": "kv", "limit": 3})]
    examples += [(name, plain(example.arguments)) for name, example in EXAMPLES.items()]
    examples.append(("events.adopt", {"event": _EVENT, "branch": "draft"}))
    made: list[list[Any]] = []
    for number, (name, arguments) in enumerate(examples):
        made.append([name, {}, arguments])
        if name == "watch":
            made.append([name, {}, arguments, {"credit": 2}])
            continue
        place, options = PLACES[number % len(PLACES)], OPTIONS[number % len(OPTIONS)]
        made.append([name, place, _renamed(arguments), options])
    return made


_OTHERS = {"draft": "fresh", "user": "other", "t1": "t9", "r1": "r9", "names": "more", "v1": "v9"}


def _renamed(value: Any) -> Any:
    """Return what names what is there as what names something else."""
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return _OTHERS.get(value, value) if isinstance(value, str) else value


def program(messages: list[Any]) -> bytes:
    """Return messages as the bytes of a program."""
    return encode_body(messages)


class Runner:
    """Does operations on a database of its own: rows that clients wrote as rows may mean nothing."""

    def __init__(self, check: Callable[[Exception], None]) -> None:
        """What goes wrong is looked at by `check`, which raises bugs."""
        self._check = check
        self._store: Any = open_store(None)
        self._database = prepare(self._store)
        watching._QUIET_S = 0.0  # nobody waits here

    def close(self) -> None:
        self._store.close()

    def run(self, data: bytes) -> None:
        """Do a program, as far as it is one, on a connection of its own."""
        try:
            messages = decode_body(data)
        except StrataError:
            return
        session = Session(self._store, files=False)
        session.open(1, 0, "branch", ["main"])
        session.open(4, 1, "begin", [])
        operations = Operations(self._database, session)
        for message in messages[:MESSAGES_MAX] if isinstance(messages, list) else ():
            self.one(operations, message)
        session.close()
        assert not session.has_transactions

    def one(self, operations: Operations, message: Any) -> None:
        """Do one operation, and encode what it gives."""
        try:
            asked = operations.asked(message)
            if asked.credit is None:
                encode_body(operations.run(asked))
            else:
                work = _Impatient(1, lambda data: None)
                encode_body(operations.streaming(asked)(work, work.take))
        except Exception as error:
            self._check(error)


class _Impatient(Work):
    """Work whose client wants no more after a while."""

    looks = 0

    def take(self, items: list[Any]) -> None:
        encode_body(items)
        self.check()

    def check(self) -> None:
        self.looks += 1
        if self.looks > LOOKS_MAX:
            raise Cancelled


# -- mutation ------------------------------------------------------------------------------------------


def mutate(data: bytes, chance: random.Random, size: int = BYTES_MAX) -> bytes:
    """Return a program with a few things in the places of others; of what is none, a good one."""
    try:
        messages = decode_body(data)
        assert isinstance(messages, list)
    except (StrataError, AssertionError):
        messages = [chance.choice(_SEEDS)]
    for _ in range(chance.randint(1, 4)):
        messages = _mutated(messages, chance)
    for _ in range(8):
        with contextlib.suppress(TypeError, ValueError, OverflowError, RecursionError, struct.error):
            made = encode_body(messages[:MESSAGES_MAX])
            if len(made) <= size:
                return made
        messages = messages[: len(messages) // 2] or [chance.choice(_SEEDS)]
    return data[:size]


_SEEDS = seeds()


def _mutated(messages: list[Any], chance: random.Random) -> list[Any]:
    match chance.randrange(6):
        case 0:
            return [*messages, chance.choice(_SEEDS)]
        case 1:
            return [message for message in messages if chance.random() < 0.7]
        case 2:
            return [_crossed(message, chance) for message in messages]
    return [_inside(message, chance, 0) for message in messages]


def _crossed(message: Any, chance: random.Random) -> Any:
    """Return a message with a part of another."""
    if not isinstance(message, list) or len(message) < 3:
        return chance.choice(_SEEDS)
    other, at = chance.choice(_SEEDS), chance.randrange(5)
    if at == 0:
        return [chance.choice(NAMES), *message[1:]]
    if at == 1:
        return [message[0], chance.choice(PLACES), *message[2:]]
    if at == 2 and isinstance(message[2], dict):
        return [*message[:2], {**message[2], **other[2]}, *message[3:]]
    return [*message[:3], chance.choice(OPTIONS)] if at == 3 else [message[0], *other[1:]]


def _inside(value: Any, chance: random.Random, depth: int) -> Any:
    """Return a value with one thing somewhere in it changed."""
    if isinstance(value, list | dict) and value and chance.random() < 0.8:
        return _child(value, chance, depth)
    what = chance.randrange(8)
    if what == 0 and depth < DEPTH_MAX:
        return [value] * chance.randint(1, 3)
    if what == 1 and depth < DEPTH_MAX:
        return {str(chance.choice(VALUES))[:20]: value}
    if isinstance(value, str | bytes) and what < 5:
        return _text(value, chance)
    if isinstance(value, int | float) and what < 5:
        return value + chance.choice((-1, 1, 1 << 16, -(1 << 31)))
    return chance.choice(VALUES)


def _child(value: Any, chance: random.Random, depth: int) -> Any:
    """Return a list or a map with one of its things changed, gone, twice, or under another name."""
    is_map, what = isinstance(value, dict), chance.randrange(7)
    pairs = list(value.items()) if is_map else list(enumerate(value))
    at = chance.randrange(len(pairs))
    key, item = pairs[at]
    if what == 0:
        del pairs[at]
    elif what == 1:
        pairs.append((chance.choice(("", "limit", "skip", "at", "more")), chance.choice(VALUES)))
    elif what == 2:
        pairs[at] = key, pairs[chance.randrange(len(pairs))][1]
    else:
        pairs[at] = key, _inside(item, chance, depth + 1)
    return dict(pairs) if is_map else [item for _, item in pairs]


def _text(value: Any, chance: random.Random) -> Any:
    at = chance.randrange(len(value) + 1)
    more = chance.choice(("\0", "/", "..", "$", "é", "\U0001f600", "[0]", " ", "x" * 200))
    put = more.encode() if isinstance(value, bytes) else more
    return value[:at] + put + value[at:] if chance.random() < 0.7 else value[:at]
