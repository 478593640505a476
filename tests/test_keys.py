"""Keys, names and instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.clock import to_datetime, to_micros
from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.keys import check_int, check_key, check_name


@pytest.mark.parametrize("key", ["a", "x" * 1024, "é" * 512, "a b", "\n", "_x", "\U0001f600"])
def test_keys(key):
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", b"a", 1, None, ["a"], type("T", (str,), {})("a")])
def test_what_is_no_key(key):
    with pytest.raises(InvalidInput) as caught:
        check_key(key)
    assert caught.value.code == "invalid_input"


@pytest.mark.parametrize(("key", "actual"), [("x" * 1025, 1025), ("é" * 513, 1026)])
def test_keys_that_are_too_long(key, actual):
    with pytest.raises(LimitExceeded) as caught:
        check_key(key)
    assert (caught.value.limit, caught.value.actual) == (1024, actual)


@pytest.mark.parametrize("name", ["a", "x" * 255, "a b", "ü/ß", "a_"])
def test_names(name):
    assert check_name(name, "space") == name


@pytest.mark.parametrize("name", ["", "_a", "a\nb", "a\0", "\x7f", "\x85", "\ud800", b"a", 1, None])
def test_what_is_no_name(name):
    with pytest.raises(InvalidInput):
        check_name(name, "space")


def test_names_that_are_too_long_and_names_of_our_own():
    with pytest.raises(LimitExceeded) as caught:
        check_name("x" * 256, "space")
    assert (caught.value.limit, caught.value.actual) == (255, 256)
    assert check_name("_runs", "space", reserved=True) == "_runs"


@pytest.mark.parametrize("number", [-1, True, 1.0, "1", None, 2**63])
def test_what_is_no_count(number):
    with pytest.raises(InvalidInput):
        check_int(number, "limit")


@given(st.integers(-(10**15), 10**17))
def test_instants_survive_to_the_microsecond(micros):
    assert to_micros(to_datetime(micros)) == micros
    assert to_datetime(micros).tzinfo is UTC


def test_instants():
    noon = 1_769_860_800_000_000
    assert to_micros("2026-01-31T12:00Z") == noon
    assert to_micros("2026-01-31T13:00+01:00") == noon
    assert to_micros(datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))) == noon


@pytest.mark.parametrize(
    "instant", [datetime(2026, 1, 31), "2026-01-31T12:00", "2026-01-31", "soon", 12, None]
)
def test_what_is_no_instant(instant):
    with pytest.raises(InvalidInput):
        to_micros(instant)
