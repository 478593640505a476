"""Paths and refs as text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from strata.core.errors import InvalidInput, LimitExceeded
from strata.core.paths import overlap, parse, pointer_tokens, render
from strata.core.refs import EntityRef, readable

steps = st.text(max_size=6) | st.integers(-(10**6), 10**6) | st.none()
paths = st.lists(steps, max_size=6).map(tuple)
names = st.text(min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$", ()), ("", ()),
        ("$.a", ("a",)), ("$.a.b[0]", ("a", "b", 0)), ("$[0][1]", (0, 1)),
        ("$['odd key']", ("odd key",)), ('$["odd key"]', ("odd key",)), ("$['']", ("",)),
        (r"$['it\'s']", ("it's",)), (r"$['a\\b']", ("a\\b",)), ("$['[0]']", ("[0]",)), ("$['a']b", None),
        ("$[-1]", (-1,)), ("$[-]", (None,)), ("$.a[-].b", ("a", None, "b")),
        ("$.ünï-codé_1", ("ünï-codé_1",)), ("$.0", ("0",)),
        ("/a/b/0", ("a", "b", 0)), ("/", ("",)), ("/a~1b/~0c", ("a/b", "~c")), ("/-", (None,)),
        ("/01", ("01",)),
        ("/ ", (" ",)), ("//", ("", "")),
        ("a", None), (".a", None), ("$a", None), ("$.", None), ("$..a", None), ("$[", None), ("$[a]", None),
        ("$[01]", None), ("$['a", None), ("$.a b", None), ("$[1.5]", None), ("$[*]", None), (" $.a", None),
        ("/a~2", None), ("/~", None), ("$.a.", None), ("$[0]]", None), ("#/a", None),
    ],
)  # fmt: skip
def test_syntax(text, path):
    if path is None:
        with pytest.raises(InvalidInput) as caught:
            parse(text)
        assert repr(text) in str(caught.value)
    else:
        assert parse(text) == path


@pytest.mark.parametrize("path", [None, 1, b"$", ["a"], ("a",), {"a": 1}])
def test_a_path_is_text(path):
    with pytest.raises(InvalidInput):
        parse(path)


def test_long_paths():
    assert len(parse("$" + ".a" * 128)) == 128
    with pytest.raises(LimitExceeded) as caught:
        parse("$" + ".a" * 129)
    assert (caught.value.limit, caught.value.actual) == (128, 129)


@given(paths)
@example(("it's", "a\\", '"', "\n", ""))
def test_paths_survive_being_written(path):
    assert parse(render(path)) == path


def test_tokens_of_a_pointer():
    assert pointer_tokens("") == ()
    assert pointer_tokens("/a/0/-") == ("a", "0", "-")
    for bad in ("a", "$.a", None, 1):
        with pytest.raises(InvalidInput):
            pointer_tokens(bad)


@given(paths, paths)
def test_two_paths_overlap_when_one_begins_with_the_other(one, other):
    assert overlap(one, one + other)
    assert overlap(one, other) == overlap(other, one)
    assert overlap((*one, "a", *other), (*one, "b")) is False


@given(names, names, names, names, st.none() | paths, st.none() | st.integers(0, 2**63))
@example("a/b", "c#d", "e@f", "g%h/i#j@1", ("k@2", "#", 0), 3)
@example("..", ".", "~", "é ?", None, None)
def test_refs_survive_being_written(branch, space, primitive, key, path, version):
    ref = EntityRef(branch, space, primitive, key, path, version)
    assert EntityRef.parse(str(ref)) == ref
    assert str(ref).isascii()


def test_refs_are_readable():
    ref = EntityRef("main", "default", "json", "user/1", ("a", 0), 12)
    assert str(ref) == "strata://main/default/json/user/1#$.a[0]@12"


@pytest.mark.parametrize(
    "text",
    [
        "", "strata://", "strata://main/default/kv", "strata://main/default/kv/", "strata:///a/b/c",
        "http://main/default/kv/a", "strata://main/default/kv/a@x", "strata://main/default/kv/a@",
        "strata://main/default/kv/a#b", "strata://main/default/kv/%ff", None, 7,
    ],
)  # fmt: skip
def test_what_is_no_ref(text):
    with pytest.raises(InvalidInput):
        EntityRef.parse(text)


def test_keys_of_bytes_are_written_readably():
    assert readable("user/1") == "user/1"
    assert readable(b"log\0" + (7).to_bytes(8)) == "log/7"
    assert readable(b"docs\0abcdefgh") == "docs/abcdefgh"
    assert readable(b"\xff\0x") == "~ff0078"
