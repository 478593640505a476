"""Each limit and each kind of wrong value: a typed error before anything is written, and all is as before."""

from __future__ import annotations

import datetime
import math
import uuid

import pytest

from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.values import MAX_SIZE_BYTES


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"a": value}
    return value


BAD_KEYS = ["", "a\0b", "\ud800", b"k", 1, None, ["k"], ("k",), {}]
BAD_VALUES = [
    {1}, object(), datetime.datetime.now(datetime.UTC), uuid.UUID(int=1), 2**63, -(2**63) - 1, "\ud800",
    {"\ud800": 1}, {1: 2}, {None: 1}, [1, {"a": bytearray(b"x")}], 1j, range(3), iter([]), type,
]  # fmt: skip
WRITES = {
    "kv.put": lambda face, key, value: face.kv.put(key, value),
    "kv.put_many": lambda face, key, value: face.kv.put_many([("good", 1), (key, value)]),
    "kv.cas": lambda face, key, value: face.kv.cas(key, value, expected_version=0),
    "state.init": lambda face, key, value: face.state.init(key, value),
    "state.set": lambda face, key, value: face.state.set(key, value),
    "state.transition": lambda face, key, value: face.state.transition(key, lambda _: value),
    "json.create": lambda face, key, value: face.json.create(key, value),
    "json.set": lambda face, key, value: face.json.set(key, "$.a", value),
    "json.merge": lambda face, key, value: face.json.merge(key, {"a": value}),
}
READS = {
    "kv.get": lambda face, key: face.kv.get(key),
    "kv[]": lambda face, key: face.kv[key],
    "kv.entry": lambda face, key: face.kv.entry(key),
    "kv.exists": lambda face, key: face.kv.exists(key),
    "kv.get_many": lambda face, key: face.kv.get_many(["good", key]),
    "kv.delete": lambda face, key: face.kv.delete(key),
    "kv.delete_many": lambda face, key: face.kv.delete_many(["good", key]),
    "kv.incr": lambda face, key: face.kv.incr(key),
    "kv.history": lambda face, key: face.kv.history(key),
    "state.get": lambda face, key: face.state.get(key),
    "state.entry": lambda face, key: face.state.entry(key),
    "state.delete": lambda face, key: face.state.delete(key),
    "state.cas": lambda face, key: face.state.cas(key, 0, 1),
    "json.get": lambda face, key: face.json.get(key, "$.a"),
    "json.delete": lambda face, key: face.json.delete(key, "$.a"),
    "json.destroy": lambda face, key: face.json.destroy(key),
    "json.patch": lambda face, key: face.json.patch(key, [{"op": "replace", "path": "/a", "value": 1}]),
}


@pytest.fixture
def full(db):
    db.kv.put("good", 1)
    db.state.set("good", 1)
    db.json.set("good", "$.a", 1)
    db.events.append("good", {})
    return db


def nothing_happens(db, act, error):
    """`act` raises `error`; the database is as before, and so is an open transaction, which can go on."""
    before = db.everything
    with pytest.raises(error) as caught:
        act(db)
    assert type(caught.value) is error
    assert db.everything == before
    tx = db.begin()
    tx.kv.put("kept", 1)
    with pytest.raises(error):
        act(tx)
    assert list(tx.kv.scan()) == [("good", 1), ("kept", 1)]
    assert [list(names) for names in (tx.state.list(), tx.json.list())] == [["good"], ["good"]]
    assert tx.commit() == db.branch.head
    assert list(db.kv) == ["good", "kept"]
    return caught.value


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_keys(full, key):
    for name, act in (READS | WRITES).items():
        if name in READS:
            nothing_happens(full, lambda face, act=act: act(face, key), InvalidInput)
        else:
            nothing_happens(full, lambda face, act=act: act(face, key, 1), InvalidInput)
        full.kv.delete("kept")


@pytest.mark.parametrize("key", ["x" * 1025, "é" * 513], ids=["ascii", "two bytes each"])
def test_long_keys(full, key):
    for name, act in (READS | WRITES).items():
        args = (key,) if name in READS else (key, 1)
        error = nothing_happens(full, lambda face, act=act, args=args: act(face, *args), LimitExceeded)
        assert (error.limit, error.actual, error.code) == (1024, len(key.encode()), "limit_exceeded")
        full.kv.delete("kept")
    full.kv.put(key[: 1024 // len(key[0].encode())], 1)


@pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("write", WRITES)
def test_values(full, write, value):
    error = nothing_happens(full, lambda face: WRITES[write](face, "k", [{"deep": (value,)}]), InvalidInput)
    assert error.code == "invalid_input"
    assert "[0].deep[0]" in str(error)


@pytest.mark.parametrize("write", WRITES)
def test_depth(full, write):
    error = nothing_happens(full, lambda face: WRITES[write](face, "k", nested(129)), LimitExceeded)
    assert (error.limit, error.actual) == (128, error.actual)


@pytest.mark.parametrize("write", ["kv.put", "kv.put_many", "state.set", "json.create", "json.set"])
def test_size(full, write):
    value = b"x" * (MAX_SIZE_BYTES + 1)
    error = nothing_happens(full, lambda face: WRITES[write](face, "k", value), LimitExceeded)
    assert error.limit == MAX_SIZE_BYTES < error.actual


def test_the_largest_of_everything(full):
    full.kv.put("x" * 1024, b"x" * (MAX_SIZE_BYTES - 5))
    full.kv.put("deep", nested(128))
    assert full.kv.get("deep") == nested(128)
    full.events.append("x" * 255, {}, stream="y" * 255)
    assert full.events.len("y" * 255) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_where_it_may_be_and_where_not(full, value):
    full.kv.put("k", value)
    full.kv.delete("k")
    full.state.set("k", value)
    full.state.delete("k")
    for act in (
        lambda face: face.json.set("k", "$.a", [value]),
        lambda face: face.json.create("k", value),
        lambda face: face.json.append("good", "$", value),
        lambda face: face.events.append("t", {"a": value}),
    ):
        nothing_happens(full, act, InvalidInput)
        full.kv.delete("kept")


def test_a_transaction_has_a_limit(full):
    tx = full.begin()
    for n in range(8):
        tx.kv.put(f"k{n}", b"x" * (MAX_SIZE_BYTES - 2000))
    with pytest.raises(LimitExceeded) as caught:
        tx.kv.put("one more", b"x" * 20_000)
    assert caught.value.limit == 256 << 20
    tx.kv.put("small", 1)
    tx.rollback()
