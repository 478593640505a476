"""Values: the eight kinds, what is refused and how it says so, sizes, and the two encodings."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import math
import struct
import uuid

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.values import MAX_SIZE_BYTES, _walk, canonical, check, decode, encode, equal, same

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=8), inner, max_size=20),
    max_leaves=30,
)


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    A = "a"


@dataclasses.dataclass
class Point:
    x: int


class Text(str):
    __slots__ = ()


class Odd:
    pass


@given(values)
@example(-0.0)
@example(math.nan)
@example({"é": 1, "z": 2})
def test_what_is_stored_comes_back(value):
    check(value)
    assert same(decode(encode(value)), value)
    assert same(decode(canonical(value)), value)


@given(values)
@example(2**32 - 1)
@example(-(2**31) - 1)
@example([None] * 16)
@example("x" * 256)
@example(b"x" * 256)
def test_the_size_is_that_of_the_encoding(value):
    assert _walk(value, (), 0, False) == len(encode(value))


@given(values)
def test_equal_values_have_equal_canonical_bytes(value):
    def shuffled(value):
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in reversed(value)}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert canonical(shuffled(value)) == canonical(value)
    assert same(shuffled(value), value)


def test_canonical_sorts_keys_as_utf8_bytes_on_every_level():
    keys = ["z", "é", "\uffee", "\U0001f600", "aa", "b", ""]
    found = decode(canonical([{key: {"b": 1, "a": 2} for key in keys}]))[0]
    assert list(found) == sorted(keys, key=str.encode)
    assert all(list(inner) == ["a", "b"] for inner in found.values())


@pytest.mark.parametrize("bits", [0x8000000000000000, 0x7FF8000000000001, 0xFFF8000000000000, 1])
def test_the_bits_of_floats_survive(bits):
    (number,) = struct.unpack(">d", bits.to_bytes(8))
    assert encode(number)[1:] == bits.to_bytes(8)
    assert struct.pack(">d", decode(encode(number))) == bits.to_bytes(8)


@pytest.mark.parametrize(
    ("value", "place", "cure"),
    [
        (datetime.datetime.now(datetime.UTC), "$", "isoformat"),
        ({"a": [1, 2, 3, datetime.date(2026, 1, 1)]}, "$.a[3]", "isoformat"),
        ({"odd key": uuid.UUID(int=1)}, "$['odd key']", "str(value)"),
        ([decimal.Decimal("1.5")], "$[0]", "str(value)"),
        (Point(1), "$", "asdict"),
        ({1, 2}, "$", "sorted"),
        (bytearray(b"x"), "$", "bytes(value)"),
        (Number.ONE, "$", "value.value"),
        (Word.A, "$", "value.value"),
        (Text("x"), "$", "str(value)"),
        (collections.OrderedDict(a=1), "$", "dict(value)"),
        (collections.namedtuple("P", "x")(1), "$", "tuple(value)"),
        (Odd(), "$", "a value is"),
        (2**63, "$", "str(value)"),
        (-(2**63) - 1, "$", "str(value)"),
        ("\ud800", "$", "bytes"),
        ({"\ud800": 1}, "$", "bytes"),
        ({"a": {1: 2}}, "$.a", "str(key)"),
        ({Text("a"): 2}, "$", "str(key)"),
    ],
)
def test_what_is_refused_names_the_place_and_the_cure(value, place, cure):
    with pytest.raises(InvalidInput) as caught:
        check(value)
    assert place in str(caught.value)
    assert cure in caught.value.hint


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not(number):
    check({"a": [number]})
    with pytest.raises(InvalidInput, match=r"\$\.a\[0\]"):
        check({"a": [number]}, finite=True)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_depth():
    check(nested(128))
    with pytest.raises(LimitExceeded) as caught:
        check(nested(129))
    assert caught.value.limit == 128
    with pytest.raises(LimitExceeded):
        check(nested(100_000))


def test_size():
    check(b"x" * (MAX_SIZE_BYTES - 5))
    with pytest.raises(LimitExceeded) as caught:
        check(b"x" * (MAX_SIZE_BYTES - 4))
    assert (caught.value.limit, caught.value.actual) == (MAX_SIZE_BYTES, MAX_SIZE_BYTES + 1)


def test_a_small_object_that_would_be_huge_when_written_is_refused_soon():
    bomb = [0]
    for _ in range(60):
        bomb = [bomb] * 2
    with pytest.raises(LimitExceeded):
        check([bomb, "x" * (MAX_SIZE_BYTES - 10)][::-1])


DIFFERENT = [0, 0.0, -0.0, False, None, "", b"", [], {}, 1, 1.0, True, "1", b"1", [1], {"1": 1}, math.nan]


@pytest.mark.parametrize("one", DIFFERENT)
def test_kinds_differ(one):
    assert [same(one, other) for other in DIFFERENT] == [one is other for other in DIFFERENT]


def test_what_is_the_same():
    assert same((1, [2]), [1, (2,)])
    assert same({"a": 1, "b": math.nan}, {"b": -math.nan, "a": 1})
    assert not same({"a": 1}, {"a": 1, "b": 2})


def test_equality_of_filters():
    assert equal(1, 1.0)
    assert equal([1, {"a": 2.0}], [1.0, {"a": 2}])
    assert not equal(True, 1)
    assert not equal("1", 1)
    assert not equal(math.nan, math.nan)


def test_msgspec_writes_the_smallest_form():
    """We rely on it: hashes are made over these bytes, and other languages must make the same."""
    forms = {
        127: "7f", 128: "cc80", 256: "cd0100", 65536: "ce00010000", 2**32: "cf0000000100000000",
        -32: "e0", -33: "d0df", -129: "d1ff7f", -32769: "d2ffff7fff", -(2**31) - 1: "d3ffffffff7fffffff",
        2**63 - 1: "cf7fffffffffffffff",
    }  # fmt: skip
    assert {number: msgspec.msgpack.encode(number).hex() for number in forms} == forms
    assert encode(1.0).hex() == "cb3ff0000000000000"
    assert encode("x" * 31)[:1] == b"\xbf" and encode("x" * 32)[:2] == b"\xd9\x20"
    assert encode(b"")[:2] == b"\xc4\x00" and encode([0] * 16)[:3] == b"\xdc\x00\x10"
