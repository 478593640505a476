"""The protocol without sockets: frames, errors, what may be asked, and the examples for other languages."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import fuzz_operations
import fuzz_wire
import pytest
import stores
import test_values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from strata.core import errors, protocols
from strata.core.errors import (
    Conflict,
    ConflictKey,
    ConflictPath,
    ConflictRange,
    ConflictSides,
    InvalidInput,
    LimitExceeded,
    RemoteError,
    StrataError,
    TransactionLost,
)
from strata.core.patches import ABSENT as ABSENT_VALUE
from strata.core.refs import EntityRef
from strata.core.values import same
from strata.wire.asks import ASKS, UNASKED
from strata.wire.errors import from_wire, to_wire
from strata.wire.frames import (
    ABSENT,
    HEADER,
    PACK_FROM_BYTES,
    PACKED,
    Kind,
    Reader,
    answer,
    decode_body,
    encode_body,
    frame,
)
from strata.wire.session import Session

ROOT = Path(__file__).parent.parent
VECTORS = json.loads((ROOT / "conformance/wire.json").read_text())
LIMIT = 1 << 16

bodies = st.binary(max_size=40) | st.integers(PACK_FROM_BYTES, 9000).map(lambda size: b"ab" * (size // 2))
frames = st.tuples(st.integers(0, 127), st.integers(0, 2**32 - 1), bodies, st.booleans())


# -- frames


def read(data: bytes, cuts: list[int], limit: int = LIMIT) -> list[tuple[int, int, bytes]]:
    """What a Reader makes of bytes that come in pieces."""
    reader, found = Reader(limit), []
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    start = 0
    for end in ends:
        found += [(kind, id, bytes(body)) for kind, id, body in reader.feed(data[start:end])]
        assert len(reader._kept) <= limit + 4
        start = end
    assert reader.is_empty
    return found


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10**6), max_size=12))
def test_frames_come_back_however_the_stream_is_cut(made, cuts):
    data = b"".join(frame(kind, id, body, packs=packs) for kind, id, body, packs in made)
    assert read(data, cuts) == [(kind, id, body) for kind, id, body, _ in made]


def test_a_byte_at_a_time_and_every_single_cut():
    data = frame(2, 7, b"x" * 20) + frame(3, 8, b"") + frame(4, 9, b"yy" * 4000, packs=True)
    whole = read(data, [])
    assert read(data, list(range(len(data)))) == whole
    assert all(read(data, [cut]) == whole for cut in range(60))


def test_what_is_large_is_packed_and_marked_so():
    small, large, noise = (
        frame(2, 1, b"a" * (PACK_FROM_BYTES - 1), packs=True),
        frame(2, 1, b"a" * PACK_FROM_BYTES, packs=True),
        frame(2, 1, os.urandom(PACK_FROM_BYTES), packs=True),
    )
    assert small[4] == noise[4] == 2
    assert large[4] == 2 | PACKED
    assert len(large) < 100


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (HEADER.pack(LIMIT + 1, 2, 1), LimitExceeded),
        (HEADER.pack(2**32 - 1, 2, 1), LimitExceeded),
        (HEADER.pack(4, 2, 1), InvalidInput),
        (HEADER.pack(0, 0, 0), InvalidInput),
        (frame(2 | PACKED, 1, b"no zlib"), InvalidInput),
        (frame(2 | PACKED, 1, b""), InvalidInput),
        (frame(2 | PACKED, 1, zlib.compress(b"cut")[:-2]), InvalidInput),
        (frame(2 | PACKED, 1, zlib.compress(b"more") + b"behind"), InvalidInput),
        (frame(2 | PACKED, 1, zlib.compress(bytes(LIMIT + 1))), LimitExceeded),
        (frame(2 | PACKED, 1, zlib.compress(bytes(50 << 20))), LimitExceeded),
    ],
)
def test_what_is_no_frame_is_refused_after_those_in_front_of_it(data, error):
    reader, found = Reader(LIMIT), []
    with pytest.raises(error):
        for good in reader.feed(frame(2, 1, b"good") + data):
            found.append(bytes(good.body))
    assert found == [b"good"]


def test_what_an_announced_length_or_a_bomb_makes_us_keep_is_bounded():
    bomb = frame(2 | PACKED, 1, zlib.compress(bytes(LIMIT)))
    large = frame(2 | PACKED, 1, zlib.compress(bytes(64 << 20)))
    tracemalloc.start()
    try:
        reader = Reader(LIMIT)
        for _ in range(100):
            assert [len(found.body) for found in reader.feed(bomb * 10)] == [LIMIT] * 10
        list(reader.feed(HEADER.pack(LIMIT, 2, 1)))
        with pytest.raises(LimitExceeded):
            list(Reader(2 * LIMIT).feed(large))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 20 * LIMIT


@settings(deadline=None)
@given(st.binary(max_size=5000), st.integers(1024, 2000), st.booleans())
@example(b"x" * 1019, 1024, False)
@example(b"x" * 1020, 1024, False)
@example(b"x" * 1024, 1024, False)
def test_a_long_answer_comes_in_parts_that_a_reader_with_its_limit_takes(body, limit, packs):
    found = list(Reader(limit).feed(answer(5, body, limit, packs=packs)))
    *parts, last = found
    assert all(part.kind == Kind.PART and part.id == 5 for part in parts)
    assert (last.kind, last.id) == (Kind.RESULT, 5)
    assert b"".join([*(decode_body(part.body) for part in parts), bytes(last.body)]) == body


@given(test_values.values)
def test_bodies_come_back(value):
    assert same(decode_body(encode_body(value)), value)


def test_nothing_is_something_else_than_none():
    assert decode_body(encode_body([None, ABSENT])) == [None, ABSENT]
    assert encode_body(ABSENT).hex() == "c70001"
    assert repr(ABSENT) == "<absent>"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x01\x02",
        b"\xa1\xff",  # no UTF-8
        b"\xa3\xed\xa0\x80",  # a surrogate
        b"\xdd\xff\xff\xff\xff",  # 2**32 elements
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdd\x04\x00\x00\x00" * 20,
        b"\x91" * 100_000,
        b"\x81\x80\x01",  # a map as key
        b"\xd4\x01\x00",  # what is absent, with a byte
        b"\xd4\x02\x00",  # an extension that nobody knows
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a time that is none
    ],
    ids=lambda body: body[:6].hex(),
)
def test_what_is_no_message_is_invalid_input(body):
    with pytest.raises(InvalidInput):
        decode_body(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_invalid_input(body):
    try:
        decode_body(body)
    except InvalidInput:
        pass


def test_what_no_message_can_hold_is_no_message():
    for value in (object(), {1, 2}.__iter__(), lambda: 1):
        with pytest.raises(TypeError):
            encode_body(value)


# -- errors


def test_every_error_comes_back_as_it_was():
    for cls in errors.all_errors().values():
        error = cls("it broke", hint="mend it")
        twin = from_wire(decode_body(encode_body(to_wire(error))))
        assert type(twin) is cls
        assert (twin.message, twin.hint) == ("it broke", "mend it")
        assert twin.fields() == error.fields()


FILLED = [
    errors.NotFound(what="branch", name="mian"),
    errors.NotIndexed(what="index", name="by_x"),
    errors.HistoryTrimmed(requested=3, oldest=9),
    errors.AlreadyExists(what="branch", name="b"),
    errors.Protected(branch="b", reason="sealed"),
    errors.UnexpectedState(what="state", expected="open", actual=3),
    errors.Locked(path="p", owner="pid 1"),
    errors.AccessDenied(needed="write", given="read"),
    errors.NeedsKey(needed="k1", given=["k2", "k3"]),
    errors.InvalidTransition(from_="a", to="b", event="e"),
    errors.GuardFailed(from_="a", to="b", event="e", guards=["paid", "open"]),
    errors.BatchFailed(index=3, reason="not_found"),
    errors.RunClosed(run="r", status="completed"),
    errors.ReplayMismatch(run="r", place="1", expected="a", asked="b"),
    errors.RecordedError("text", type="KeyError"),
    errors.LimitExceeded(what="size", limit=1, actual=2),
    errors.StorageError("no", operation="write", path="p", errno=28),
    errors.Corrupt(file="f", offset=7),
    errors.OutcomeUnknown(transaction="t"),
    *(
        cls(
            keys=[ConflictKey(EntityRef("main", "default", "kv", "a"))],
            paths=[ConflictPath(EntityRef("main", "default", "json", "d"), "$.a", "$")],
            ranges=[ConflictRange("main", "default", "kv", "a", None)],
        )
        for cls in (Conflict, TransactionLost)
    ),
    errors.MergeConflict(
        conflicts=[
            ConflictSides("default", "json", "d", "$.a", ABSENT_VALUE, {"x": [1, b"b", None]}, None),
            ConflictSides("notes", "kv", "k", None, 1.5, ABSENT_VALUE, "text"),
        ]
    ),
]
# Which say what happened in fields of their own, and not in those that they inherit.
NAMED_OTHERWISE = {errors.MergeConflict, errors.UnexpectedState}


def test_every_field_of_every_error_is_among_the_filled():
    """So a new field crosses, or this test says that it was not tried."""
    filled = {type(error): error for error in FILLED}
    for cls in errors.all_errors().values():
        names = set(cls.names) - (set(Conflict.names) if cls in NAMED_OTHERWISE else set())
        empty = {name for name in names if getattr(filled[cls], name) in ("", 0, None, ())}
        assert not empty, f"{cls.__name__} is not filled: {empty}"


@pytest.mark.parametrize("error", FILLED, ids=lambda error: type(error).__name__)
def test_fields_come_back(error):
    twin = from_wire(decode_body(encode_body(to_wire(error))))
    assert type(twin) is type(error)
    assert (twin.fields(), str(twin), twin.hint) == (error.fields(), str(error), error.hint)
    assert vars(twin) == vars(error)


SCALARS = st.characters(exclude_categories=["Cs"])  # what UTF-8 can say
names = st.text(SCALARS, min_size=1, max_size=12)
paths = st.none() | st.lists(names | st.integers(0, 2**31), max_size=3).map(tuple)
refs = st.builds(EntityRef, names, names, names, names, paths, st.none() | st.integers(0, 2**63))
edges = st.none() | names | st.binary(min_size=1, max_size=9)


@given(
    st.lists(st.builds(ConflictKey, refs), max_size=3),
    st.lists(st.builds(ConflictPath, refs, names, names), max_size=3),
    st.lists(st.builds(ConflictRange, names, names, names, edges, edges), max_size=3),
    st.sampled_from([Conflict, TransactionLost]),
)
def test_a_conflict_names_the_same_things_at_the_other_side(keys, paths, ranges, cls):
    error = cls(keys=keys, paths=paths, ranges=ranges)
    twin = from_wire(decode_body(encode_body(to_wire(error))))
    assert type(twin) is cls
    assert (twin.fields(), str(twin), twin.hint) == (error.fields(), str(error), error.hint)


values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(SCALARS) | st.binary()
sides = st.just(ABSENT_VALUE) | values | st.lists(values) | st.dictionaries(st.text(SCALARS), values)


@given(st.lists(st.builds(ConflictSides, names, names, names, st.none() | names, sides, sides, sides)))
def test_a_conflict_of_a_merge_has_the_same_sides_at_the_other_side(conflicts):
    error = errors.MergeConflict(conflicts=conflicts)
    twin = from_wire(decode_body(encode_body(to_wire(error))))
    assert twin.conflicts == error.conflicts and str(twin) == str(error)
    for found, was in zip(twin.conflicts, error.conflicts, strict=True):
        for side in ("base", "source", "target"):
            assert (getattr(found, side) is ABSENT_VALUE) == (getattr(was, side) is ABSENT_VALUE)


def test_of_many_conflicts_of_a_merge_the_first_ones_go():
    many = [ConflictSides("s", "kv", f"k{n}", None, ABSENT_VALUE, "x" * 99_000, n) for n in range(30)]
    twin = from_wire(decode_body(encode_body(to_wire(errors.MergeConflict(conflicts=many)))))
    assert list(twin.conflicts) == many[:10] and "30" in str(twin)


def test_what_python_raises_stays_what_it_is_and_what_is_none_of_ours_is_ours_to_mend():
    for error in (TypeError("t"), ValueError("v"), OverflowError("o")):
        twin = from_wire(to_wire(error))
        assert (type(twin), str(twin)) == (type(error), str(error))
    assert isinstance(from_wire(to_wire(ZeroDivisionError("z"))), errors.InternalError)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"code": "of_a_newer_version", "message": "m"},
        {"code": "conflict", "fields": {"keys": ["no ref"]}},
        {"code": "conflict", "fields": {"keys": 5}},
        {"code": "conflict", "fields": {"paths": [[1]]}},
        {"code": "conflict", "fields": {"ranges": [[1, 2, 3, 4, 5, 6]]}},
        {"code": "needs_key", "fields": {"given": 5}},
        {"code": "merge_conflict", "fields": {"conflicts": 5}},
        {"code": "merge_conflict", "fields": {"conflicts": [5]}},
        {"code": "merge_conflict", "fields": {"conflicts": [{"space": "s"}]}},
    ],
    ids=repr,
)
def test_an_error_that_is_none_is_a_remote_error(data):
    assert isinstance(from_wire(data), RemoteError)


def test_fields_that_this_side_does_not_know_are_left_out():
    twin = from_wire({"code": "locked", "message": "m", "fields": {"path": "p", "since": 5}})
    assert (type(twin), twin.fields()) == (errors.Locked, {"path": "p", "owner": ""})


# -- asks

PROTOCOLS = {
    "store": protocols.Store,
    "branch": protocols.Branch,
    "snapshot": protocols.Snapshot,
    "transaction": protocols.Transaction,
    "txn": protocols.Txn,
    "diff": protocols.Diff,
}
ADMIN = """create fork rename delete seal tag untag set_policy clear_policy create_index drop_index checkpoint
    forget compact rebuild_indexes verify rotate_key backup export"""
WRITE = "put put_until put_many delete delete_many append add patch expect declare_index"


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_what_may_be_asked_is_what_the_protocol_has(kind):
    members = {name for name in vars(PROTOCOLS[kind]) if not name.startswith("_")}
    extra = {"snapshot": {"moment"}, "branch": {"identity"}, "transaction": {"finish"}}.get(kind, set())
    assert ASKS.keys() == PROTOCOLS.keys()
    assert set(ASKS[kind]) == (members - UNASKED.get(kind, set())) | extra
    assert UNASKED.get(kind, set()) <= members


def test_who_may_ask_what():
    assert {name for name, ask in ASKS["store"].items() if ask.access == "admin"} == set(ADMIN.split())
    assert {name for name, ask in ASKS["txn"].items() if ask.access == "write"} == set(WRITE.split())
    for kind, asks in ASKS.items():
        for name, ask in asks.items():
            if kind not in ("store", "txn"):
                assert ask.access == "read", name
            assert not ask.once or kind == "txn" or name in ("commit", "finish")
    once = {name for name, ask in ASKS["txn"].items() if ask.once}
    assert once == set(WRITE.split()) - {"expect", "declare_index"}


def test_what_takes_progress_and_what_makes_handles_is_what_the_protocol_says():
    makes = {
        "Branch": "branch",
        "Snapshot": "snapshot",
        "Transaction": "transaction",
        "Txn": "txn",
        "Diff": "diff",
    }
    for kind, protocol in PROTOCOLS.items():
        for name, ask in ASKS[kind].items():
            member = vars(protocol).get(name)
            if member is None or isinstance(member, property):
                continue
            signature = inspect.signature(member)
            assert ask.progress == ("progress" in signature.parameters), name
            assert ask.makes == makes.get(signature.return_annotation), name


# -- for other languages


def test_the_golden_vectors_are_what_we_say_and_understand():
    for vector in VECTORS["frames"]:
        data = bytes.fromhex(vector["hex"])
        (found,) = Reader(VECTORS["limit"]).feed(data)
        assert (Kind(found.kind).name, found.id) == (vector["kind"], vector["id"]), vector["what"]
        if "piece" in vector:
            assert bytes(found.body).hex() == vector["piece"], vector["what"]
            continue
        body = plain(decode_body(found.body))
        assert body == vector["body"], vector["what"]
        if "packed" not in vector:
            made = frame(Kind[vector["kind"]], vector["id"], encode_body(unplain(vector["body"])))
            assert made.hex() == vector["hex"], vector["what"]
    assert {vector["kind"] for vector in VECTORS["frames"]} == {kind.name for kind in Kind}


def test_the_golden_bad_ones_are_refused_as_they_say():
    for vector in VECTORS["bad"]:
        with pytest.raises(StrataError) as caught:
            for found in Reader(VECTORS["limit"]).feed(bytes.fromhex(vector["hex"])):
                decode_body(found.body)
        assert caught.value.code == vector["code"], vector["what"]


def test_the_golden_conversation_is_what_a_server_says():
    store = stores.make("model", stores.FakeClock())
    session = Session(store)
    for step in VECTORS["conversation"]:
        (found,) = Reader(VECTORS["limit"]).feed(bytes.fromhex(step["hex"]))
        body = decode_body(found.body)
        if step["from"] == "client" and found.kind == Kind.OPEN:
            session.open(*body)
        elif step["from"] == "client" and found.kind == Kind.RELEASE:
            session.release(body)
        elif step["from"] == "client" and found.kind == Kind.CALL:
            handle, method, arguments, *rest = body
            try:
                result = session.call(session.bound(handle, method), arguments, *[o["once"] for o in rest])
                said = Kind.RESULT, found.id, decode_body(encode_body(result))
            except StrataError as error:
                said = Kind.ERROR, found.id, to_wire(error)
        elif step["from"] == "server" and found.kind != Kind.WELCOME:
            if found.kind == Kind.ERROR:  # whose text may become better
                body = {**body, "message": said[2]["message"], "hint": said[2]["hint"]}
            assert said == (found.kind, found.id, body), step["what"]
    session.close()
    store.close()


def plain(value):
    """A value as JSON can say it: bytes are {"bytes": hex}, and what is absent {"absent": true}."""
    if value is ABSENT:
        return {"absent": True}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {name: plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def unplain(value):
    if isinstance(value, dict):
        if value.keys() == {"absent"}:
            return ABSENT
        if value.keys() == {"bytes"}:
            return bytes.fromhex(value["bytes"])
        return {name: unplain(item) for name, item in value.items()}
    return [unplain(item) for item in value] if isinstance(value, list) else value


def test_the_page_lists_what_may_be_asked():
    page = (ROOT / "docs/design/wire.md").read_text("utf-8")
    listed = re.search(r"<!-- asks -->\n(.*?)<!-- end of asks -->", page, re.S)
    assert listed is not None
    assert listed[1].strip() == asks_table()
    for kind in Kind:
        assert re.search(rf"^\| {kind.value} \| {kind.name} \|", page, re.M), kind.name


def asks_table():
    """The list of asks for docs/design/wire.md."""
    lines = ["| of a | method | access | gives | |", "| --- | --- | --- | --- | --- |"]
    for kind, asks in ASKS.items():
        for name, ask in asks.items():
            notes = [note for note in ("slow", "progress", "files", "waits", "once") if getattr(ask, note)]
            lines.append(f"| {kind} | {name} | {ask.access} | {ask.makes or ''} | {', '.join(notes)} |")
    return "\n".join(lines)


# -- fuzzing


def test_a_moment_of_fuzzing():
    assert fuzz_wire.fuzz(0.05, seed=1) > len(fuzz_wire.seeds())


def test_the_fuzzer_gets_at_the_operations():
    """What it begins with is good, so that what is near to it is tried, and not refused at the door."""
    failed, done = [], set()
    runner = fuzz_operations.Runner(failed.append)
    for message in fuzz_operations.seeds():
        for _ in range(2):  # what came before it may have taken away what it needs
            failed.clear()
            runner.run(fuzz_operations.program([message]))
            if not failed or message[0] in done:
                break
            runner.close()
            runner = fuzz_operations.Runner(failed.append)
        done |= {message[0]} if not failed else set()
    runner.close()
    assert "watch" in done and len(done) > 0.8 * len(fuzz_operations.NAMES)


@given(st.binary(max_size=60) | st.sampled_from(fuzz_operations.seeds()).map(lambda s: encode_body([s])),
       st.randoms(use_true_random=False))  # fmt: skip
def test_a_mutated_program_is_one(data, chance):
    made = fuzz_operations.mutate(data, chance, 500)
    assert len(made) <= 500
    assert isinstance(decode_body(made), list) or made == data[:500]


@pytest.mark.slow
def test_fuzzing_finds_nothing():
    """STRATA_FUZZ_S: for how many seconds. In a process of its own, which the fuzzer ends."""
    seconds = int(os.environ.get("STRATA_FUZZ_S", "20"))
    done = subprocess.run(
        [sys.executable, fuzz_wire.__file__, str(seconds)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert re.search(r"Done \d+ (runs|in)", done.stderr + done.stdout)
