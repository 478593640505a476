"""Machine definitions and guards: what is one, what it means, and its checksum."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.api import checksum
from strata.core.crc32c import crc32c
from strata.core.errors import AlreadyExists, InvalidInput, LimitExceeded, NotFound, StrataError
from strata.primitives import MachineVersions
from strata.primitives.machines_definition import canonical, checked, normal
from strata.primitives.machines_guards import MAX_DEPTH, compile_guard

ORDER = {
    "states": ["created", "paid", "shipped"],
    "initial": "created",
    "transitions": [
        {"from": "created", "event": "PAY", "to": "paid"},
        {"from": "paid", "event": "SHIP", "to": "shipped"},
    ],
}
BARE = {"states": ["a"], "initial": "a", "transitions": []}


def one_step(**transition):
    step = {"from": "a", "event": "GO", "to": "b"} | transition
    return {"states": ["a", "b"], "initial": "a", "transitions": [step]}


# -- checksums


def test_crc32c_is_castagnoli():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@given(st.binary(max_size=300), st.integers(0, 300))
def test_the_kernel_sums_alike_also_piece_by_piece(data, cut):
    assert checksum.crc32c(data) == crc32c(data)
    assert checksum.crc32c(data[cut:], checksum.crc32c(data[:cut])) == crc32c(data)


@pytest.mark.parametrize(
    ("definition", "checksum", "size"),
    [
        (ORDER, "b27ab97f", 170),
        (BARE, "6b16bc3e", None),
        (
            one_step(**{"from": ["a", "b"], "guard": "ctx.ok == true"})
            | {"meta": {"z": 1, "a": {"y": None, "b": "é"}}},
            "c4a8ff16",
            155,
        ),
    ],
)
def test_checksums_are_those_of_rstmdb(db, definition, checksum, size):
    assert db.machines.define("m", 1, definition).checksum == checksum
    assert size in (None, len(canonical(checked(definition))))


def test_a_checksum_that_is_given_must_be_right(db):
    right = hashlib.sha256(canonical(checked(ORDER))).hexdigest()
    assert db.machines.define("m", 1, ORDER, checksum="b27ab97f").is_new
    assert not db.machines.define("m", 1, ORDER, checksum=right).is_new
    for wrong in ("b27ab97e", "0" * 64, "", "b27ab97", 7, b"b27ab97f"):
        with pytest.raises(InvalidInput):
            db.machines.define("m", 2, ORDER, checksum=wrong)
    assert db.machines.definitions() == [MachineVersions("m", (1,))]


# -- versions


def test_a_version_never_changes(db):
    assert db.machines.define("order", 1, ORDER).is_new
    before = db.everything
    again = db.machines.define("order", 1, json.dumps(ORDER))
    assert not again.is_new
    with pytest.raises(AlreadyExists):
        db.machines.define("order", 1, BARE)
    assert db.everything == before
    assert db.machines.define("order", 7, BARE).is_new
    assert db.machines.machine("order") == db.machines.machine("order", 7)
    assert db.machines.machine("order", 1).definition == again.definition == normal(ORDER)


def test_machines_are_listed_by_name_and_number(db):
    assert db.machines.definitions() == []
    for name, version in (("b", 300), ("b", 2), ("a", 1), ("b", 2**32 - 1), ("b/1", 1)):
        db.machines.define(name, version, BARE)
    assert [(found.name, found.versions) for found in db.machines.definitions()] == [
        ("a", (1,)),
        ("b", (2, 300, 2**32 - 1)),
        ("b/1", (1,)),
    ]
    with pytest.raises(NotFound):
        db.machines.machine("c")
    with pytest.raises(NotFound):
        db.machines.machine("b", 3)


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", None, True, 2**32])
def test_versions_are_numbers_from_one_on(db, version):
    with pytest.raises(InvalidInput):
        db.machines.define("m", version, BARE)


def test_there_may_be_a_limit_to_versions(db):
    for version in (1, 2):
        db.machines.define("m", version, BARE, max_versions=2)
    with pytest.raises(LimitExceeded) as caught:
        db.machines.define("m", 3, BARE, max_versions=2)
    assert (caught.value.limit, caught.value.actual) == (2, 3)
    assert not db.machines.define("m", 2, BARE, max_versions=2).is_new


# -- what is a definition


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        (None, "INVALID_TYPE"),
        ([], "INVALID_TYPE"),
        ("{", "INVALID_TYPE"),
        ('{"states": NaN}', "INVALID_TYPE"),
        ("[" * 100_000, "INVALID_TYPE"),
        ({}, "MISSING_FIELD"),
        (BARE | {"states": "a"}, "INVALID_TYPE"),
        (BARE | {"states": []}, "INVALID_INITIAL_STATE"),
        (BARE | {"states": [1]}, "INVALID_TYPE"),
        (BARE | {"states": ["a", ""]}, "INVALID_TYPE"),
        (BARE | {"states": ["a", "x\0"]}, "INVALID_TYPE"),
        (BARE | {"initial": None}, "INVALID_TYPE"),
        (BARE | {"initial": "b"}, "INVALID_INITIAL_STATE"),
        (BARE | {"transitions": {}}, "INVALID_TYPE"),
        (BARE | {"transitions": ["GO"]}, "INVALID_TYPE"),
        (BARE | {"transitions": [{"from": "a", "event": "GO"}]}, "MISSING_FIELD"),
        (BARE | {"meta": {"x": b""}}, "INVALID_TYPE"),
        (BARE | {"meta": math.nan}, "INVALID_TYPE"),
        (BARE | {"meta": object()}, "INVALID_TYPE"),
        (one_step(to="c"), "INVALID_STATE"),
        (one_step(**{"from": "c"}), "INVALID_STATE"),
        (one_step(**{"from": ["a", "c"]}), "INVALID_STATE"),
        (one_step(**{"from": 1}), "INVALID_TYPE"),
        (one_step(event=""), "INVALID_TYPE"),
        (one_step(event=7), "INVALID_TYPE"),
        (one_step(guard=7), "INVALID_TYPE"),
        (one_step(guard="ctx."), "INVALID_GUARD"),
        (one_step(guard="ctx.é == 'x'"), "INVALID_GUARD"),
    ],
)
def test_what_is_no_definition_is_refused_and_says_where(db, definition, code):
    found = db.machines.validate(definition)
    assert not found.valid
    assert found.errors[0].code == code
    assert found.errors[0].path.startswith("$")
    before = db.everything
    with pytest.raises((InvalidInput, LimitExceeded)):
        db.machines.define("m", 1, definition)
    assert db.everything == before


def test_an_alternative_that_could_never_be_taken_is_refused(db):
    steps = [
        {"from": "a", "event": "GO", "to": "b", "guard": "ctx.x"},
        {"from": ["b", "a"], "event": "GO", "to": "a"},
        {"from": "a", "event": "GO", "to": "b", "guard": "ctx.y"},
    ]
    definition = {"states": ["a", "b"], "initial": "a", "transitions": steps}
    assert [found.path for found in db.machines.validate(definition).errors] == ["$.transitions[2]"]
    with pytest.raises(InvalidInput):
        db.machines.define("m", 1, definition)
    assert db.machines.define("m", 1, definition | {"transitions": steps[:2]}).is_new


def test_what_is_only_strange_is_a_warning(db):
    steps = [{"from": [], "event": "GO", "to": "b"}, {"from": ["a", "a"], "event": "GO", "to": "a"}]
    definition = {"states": ["a", "b", "a"], "initial": "a", "transitions": steps, "extra": 1}
    found = db.machines.validate(definition)
    assert found.valid
    assert {(warning.code, warning.path) for warning in found.warnings} == {
        ("UNREACHABLE_STATE", "$.states[1]"),
        ("DEAD_END_STATE", "$.states[1]"),
        ("DUPLICATE_STATE", "$.states[2]"),
    }
    machine = db.machines.define("m", 1, definition)
    assert machine.warnings == found.warnings
    assert set(machine.definition) == {"states", "initial", "transitions"}


def test_meta_makes_the_round_trip(db):
    for version, meta in enumerate([{"z": [1.5, None, {"b": 1, "a": 2}]}, [1], "text", 0, False], 1):
        db.machines.define("m", version, BARE | {"meta": meta})
        assert db.machines.machine("m", version).meta == meta
    assert db.machines.define("n", 1, BARE | {"meta": None}).checksum == "6b16bc3e"


def test_a_definition_with_a_thousand_states(db):
    states = [f"s{number}" for number in range(1000)]
    steps = [{"from": one, "event": "NEXT", "to": two} for one, two in itertools.pairwise(states)]
    machine = db.machines.define("m", 1, {"states": states, "initial": "s0", "transitions": steps})
    assert [warning.path for warning in machine.warnings] == ["$.states[999]"]
    db.machines.create("m", "i")
    assert [db.machines.apply("i", "NEXT").to_state for _ in range(5)] == states[1:6]


# -- guards

CONTEXT = {
    "yes": True,
    "no": False,
    "null": None,
    "zero": 0,
    "zero_f": 0.0,
    "one": 1,
    "half": 0.5,
    "less": -3,
    "empty": "",
    "text": "open",
    "list": [],
    "items": [1],
    "map": {},
    "user": {"name": "Ada", "age": 36, "flags": {"vip": True}},
    "größe": 10,
    "naïve": "é",
    "cafe\u0301": 1,
    "मूल्य": 5,
    "می\u200cخواهم": True,
    "big": 2**62,
}


@pytest.mark.parametrize(
    ("guard", "holds"),
    [
        *[(f"ctx.{name}", True) for name in ("yes", "one", "half", "less", "text", "items", "user")],
        *[
            (f"ctx.{name}", False)
            for name in ("no", "null", "zero", "zero_f", "empty", "list", "map", "missing")
        ],
        ("ctx.yes == true", True),
        ("ctx.yes != true", False),
        ("ctx.no == false", True),
        ("ctx.one == true", False),
        ("ctx.yes == 1", False),
        ("ctx.zero == false", False),
        ("ctx.null == null", True),
        ("ctx.missing == null", True),
        ("ctx.missing != null", False),
        ("ctx.zero == null", False),
        ("ctx.one == 1", True),
        ("ctx.one == 1.0", True),
        ("ctx.one == 1.0000000000000002", False),
        ("ctx.half == .5", True),
        ("ctx.half == 0.5000", True),
        ("ctx.less == -3", True),
        ("ctx.less == -3.", True),
        ("ctx.text == 1", False),
        ('ctx.one == "1"', False),
        ('ctx.text == "open"', True),
        ('ctx.text != "open"', False),
        ('ctx.text == "Open"', False),
        ('ctx.missing != "x"', True),
        ('ctx.empty == ""', True),
        ("ctx.items != 1", True),
        ("ctx.list == null", False),
        ("ctx.big > 4000000000000000000", True),
        ("ctx.one > 0", True),
        ("ctx.one > 1", False),
        ("ctx.one >= 1", True),
        ("ctx.one <= 1", True),
        ("ctx.one < 1", False),
        ("ctx.half < 1", True),
        ("ctx.text > 0", False),
        ("ctx.yes >= 0", False),
        ("ctx.missing < 1", False),
        ("!(ctx.missing > 1)", True),
        ("!ctx.missing", True),
        ("!!ctx.one", True),
        ("!!ctx.zero", False),
        ("!ctx.one == 1", False),
        ("!ctx.one == 2", True),
        ('ctx.user.name == "Ada"', True),
        ("ctx.user.flags.vip", True),
        ("ctx.user.flags.vip.more == null", True),
        ("ctx.user.age >= 18 && ctx.user.flags.vip", True),
        ("ctx.items.length == null", True),
        ("ctx.items.0 == null", True),
        ("ctx.no || ctx.yes", True),
        ("ctx.no && ctx.yes", False),
        ("ctx.yes || ctx.no && ctx.no", True),
        ("(ctx.yes || ctx.no) && ctx.no", False),
        ("ctx.no && ctx.no || ctx.yes", True),
        ("! ( ctx.no && ctx.yes )", True),
        ("((ctx.yes))", True),
        ("  ctx.one\n==\t1  ", True),
        ("ctx.one==1&&ctx.half<1||ctx.no", True),
        ("ctx.größe >= 10", True),
        ("ctx.cafe\u0301 == 1", True),
        ("ctx.मूल्य >= 5", True),
        ("ctx.می\u200cخواهم", True),
        ('ctx.naïve == "é"', True),
        (r'ctx.naïve == "\u00e9"', True),
        (r'ctx.text == "\u006fpen"', True),
        (r'ctx.text == "a\"b"', False),
    ],
)
def test_what_guards_mean(guard, holds):
    assert compile_guard(guard)(CONTEXT) is holds


@pytest.mark.parametrize(
    "guard",
    [
        "",
        "   ",
        "ctx",
        "ctx.",
        "context.a",
        "payload.a",
        "true",
        "1 == 1",
        "(ctx.a",
        "ctx.a)",
        "()",
        "!",
        "ctx.a &&",
        "ctx.a || ",
        "&& ctx.a",
        "ctx.a & ctx.b",
        "ctx.a ctx.b",
        "ctx.a == 1 junk",
        "ctx.a == truex",
        "ctx.a == nul",
        "ctx.a = 1",
        "ctx.a === 1",
        "ctx.a == ctx.b",
        "ctx.a + 1 > 2",
        'ctx.a > "x"',
        "ctx.a >= true",
        "ctx.a == 'x'",
        'ctx.a == "x',
        r'ctx.a == "\x"',
        r'ctx.a == "\ud800"',
        "ctx.a == -",
        "ctx.a == .",
        "ctx.a == 1.2.3",
        "ctx.a == 1e5",
        "ctx.a == 0x10",
        f"ctx.a == {'9' * 400}",
        f"ctx.a > -{'9' * 400}",
        "ctx.a-b",
        "ctx.a≥5",
        "ctx.a == “x”",
        "ctx.a[0]",
    ],
)
def test_what_is_no_guard_is_refused(guard):
    with pytest.raises(InvalidInput):
        compile_guard(guard)


@pytest.mark.parametrize("opening", ["(", "!", "!("])
def test_guards_are_not_nested_without_end(opening):
    for depth, error in ((MAX_DEPTH // len(opening), None), (100_000, LimitExceeded)):
        text = opening * depth + "ctx.a" + ")" * (depth if "(" in opening else 0)
        if error is None:
            assert isinstance(compile_guard(text)({}), bool)
        else:
            with pytest.raises(error):
                compile_guard(text)


@given(st.text(max_size=40) | st.text('ctx.ab()!&|=<>"1-. \\', max_size=30))
def test_any_text_is_a_guard_or_refused(text):
    try:
        guard = compile_guard(text)
    except (InvalidInput, LimitExceeded):
        return
    assert isinstance(guard({"a": 1, "b": "x"}), bool)


names = st.sampled_from(["a", "b", "c.d", "c.e"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "x", 'q"\\é']))


@st.composite
def guards(draw, depth=3):
    """Texts of guards, with Python functions that mean the same."""
    if depth and draw(st.booleans()):
        kind = draw(st.sampled_from(["&&", "||", "!"]))
        text, holds = draw(guards(depth - 1))
        if kind == "!":
            return f"!({text})", lambda ctx: not holds(ctx)
        text2, holds2 = draw(guards(depth - 1))
        joined = f"({text}) {kind} ({text2})"
        if kind == "&&":
            return joined, lambda ctx: holds(ctx) and holds2(ctx)
        return joined, lambda ctx: holds(ctx) or holds2(ctx)
    name = draw(names)
    read = _read(name)
    if draw(st.booleans()):
        return f"ctx.{name}", lambda ctx: bool(read(ctx))
    if draw(st.booleans()):
        bound, op = draw(st.integers(-3, 3)), draw(st.sampled_from([">", ">=", "<", "<="]))
        order = {">": lambda x: x > bound, ">=": lambda x: x >= bound, "<": lambda x: x < bound}
        test = order.get(op, lambda x: x <= bound)
        return f"ctx.{name} {op} {bound}", lambda ctx: type(read(ctx)) is int and test(read(ctx))
    value, op = draw(scalars), draw(st.sampled_from(["==", "!="]))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    return (
        f"ctx.{name} {op} {text}",
        lambda ctx: (type(read(ctx)) is type(value) and read(ctx) == value) is (op == "=="),
    )


def _read(name):
    first, _, rest = name.partition(".")
    if not rest:
        return lambda ctx: ctx.get(first)
    return lambda ctx: ctx[first].get(rest) if isinstance(ctx.get(first), dict) else None


@given(
    guards(),
    st.fixed_dictionaries(
        {},
        optional={"a": scalars, "b": scalars, "c": scalars | st.dictionaries(st.sampled_from("de"), scalars)},
    ),
)
def test_guards_mean_what_python_means(guard, context):
    text, holds = guard
    assert compile_guard(text)(context) is bool(holds(context))


def test_numbers_are_equal_when_doubles_are():
    guard = compile_guard("ctx.a == 0.3")
    assert guard({"a": 0.1 + 0.2})
    assert not guard({"a": 0.3 + 4 * sys.float_info.epsilon})
    with pytest.raises(StrataError):
        compile_guard("ctx.a == 1 1")
