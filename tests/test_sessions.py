"""The store's side of a connection, without sockets: handles, who may what, bad calls, writes that happen
once. Over the oracle and the kernel."""

from __future__ import annotations

import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st

from strata.core.errors import (
    AccessDenied,
    Closed,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Protected,
    ReadOnly,
    StrataError,
    TransactionLost,
)
from strata.primitives import Kv
from strata.store import open_store
from strata.wire import session as sessions
from strata.wire.asks import ASKS
from strata.wire.errors import to_wire
from strata.wire.frames import ABSENT, decode_body, encode_body
from strata.wire.session import Session

KV = ("default", "kv", True, False)
EVENTS = ("default", "events", False, False)


def opened(store, **options):
    """A session with a branch (1), keyspaces of it (2: kv, 3: events), a transaction (4) and its kv (5)."""
    session = Session(store, **options)
    session.open(1, 0, "branch", ["main"])
    session.open(2, 1, "keyspace", list(KV))
    session.open(3, 1, "keyspace", list(EVENTS))
    session.open(4, 1, "begin", ["serializable", False, None])
    session.open(5, 4, "keyspace", list(KV))
    return session


def call(session, handle, method, *arguments, once=None):
    """What a client would see: plain data of what the method returns."""
    return decode_body(encode_body(session.call(session.bound(handle, method), list(arguments), once)))


@pytest.fixture
def session(store):
    session = opened(store)
    yield session
    session.close()


def test_a_session_reads_and_writes(session):
    assert call(session, 2, "put", "a", {"n": 1}) == 1
    assert call(session, 2, "get", "a") == {"n": 1}
    assert call(session, 2, "get", "b") is ABSENT
    assert call(session, 2, "get_many", ["a", "b"]) == [{"n": 1}, ABSENT]
    assert call(session, 2, "get_path", "a", ["n"]) == 1
    assert call(session, 0, "durable_version") >= 0


def test_what_went_wrong_at_opening_is_said_at_use(session):
    session.open(10, 0, "branch", ["mian"])
    session.open(11, 10, "keyspace", list(KV))
    for handle in (10, 11):
        with pytest.raises(NotFound):
            session.bound(handle, "head")
    for new, *rest in (
        (12, 1, "keyspace", [1]),
        (13, 0, "branch", None),
        (14, 0, "branch", [["main"]]),
        (15, 0, "info", []),
        (16, 99, "keyspace", list(KV)),
        (17, 0, ["branch"], ["main"]),
        (18, 1, "keyspace", ["default", 5, True, False]),
        (19, 0, "secrets", []),
    ):
        session.open(new, *rest)
        with pytest.raises((InvalidInput, Closed, NotFound)):
            session.bound(new, "name")
    assert call(session, 2, "get", "a") is ABSENT


@pytest.mark.parametrize("new", [0, -1, 1, None, "7", 1.0, True, [7]])
def test_a_number_that_is_taken_or_none_is_no_new_handle(session, new):
    with pytest.raises(InvalidInput):
        session.open(new, 0, "branch", ["main"])
    assert call(session, 1, "name") == "main"


@pytest.mark.parametrize("handle", [None, "2", 2.0, True, [2], {}, -1, 2**70, ABSENT])
def test_a_handle_that_is_none_is_refused(session, handle):
    with pytest.raises((InvalidInput, Closed)):
        session.bound(handle, "get")


@pytest.mark.parametrize("method", ["close", "__class__", "_it", "begin", "pinned", "", None, 5, ["get"]])
def test_what_may_not_be_asked_is_refused(session, method):
    with pytest.raises(InvalidInput):
        session.bound(2, method)


def test_released_handles_are_gone_and_their_numbers_free(session):
    session.release([2, 99, "2", None, [2], 0])
    with pytest.raises(Closed):
        session.bound(2, "get")
    session.open(2, 1, "keyspace", list(EVENTS))
    assert call(session, 2, "names") == ["main", "default", "events"]
    assert session.bound(0, "info")
    with pytest.raises(InvalidInput):
        session.release(5)


def test_a_release_of_a_transaction_rolls_it_back(session, store):
    call(session, 5, "put", "a", 1)
    session.release([4])
    with pytest.raises(Closed):
        call(session, 5, "get", "a")
    assert not session.has_transactions
    assert store.branch("main").head == 0


def test_the_end_of_a_session_rolls_back_and_lets_others_go_on(session, store):
    call(session, 2, "put", "a", 0)
    call(session, 5, "put", "a", 1)
    transaction = session._things[4].it
    session.close()
    session.close()
    with pytest.raises(Closed):
        transaction.commit()
    assert store.branch("main").head == 1
    with pytest.raises(Closed):
        session.bound(4, "commit")
    other = opened(store)
    assert call(other, 2, "put", "a", 2) == 2
    other.close()


def test_a_transaction_that_was_left_alone_is_lost_and_so_is_what_is_inside(session, store):
    call(session, 5, "put", "a", 1)
    assert session.has_transactions
    session.end_transactions()
    assert not session.has_transactions
    for handle, method, *arguments in ((5, "put", "b", 2), (5, "get", "a"), (4, "commit"), (4, "snapshot")):
        with pytest.raises(TransactionLost):
            call(session, handle, method, *arguments)
    session.open(6, 4, "keyspace", list(KV))
    with pytest.raises(TransactionLost):
        call(session, 6, "get", "a")
    session.release([4, 5, 6])
    session.open(4, 1, "begin", ["serializable", False, None])
    assert call(session, 4, "commit") == 0
    assert call(session, 2, "put", "a", 1) == 1


def test_there_is_room_for_so_many_handles_and_no_more(store, monkeypatch):
    monkeypatch.setattr(sessions, "HANDLES_MAX", 20)
    session = opened(store)
    for new in range(6, 21):
        session.open(new, 0, "branch", ["main"])
    with pytest.raises(LimitExceeded):
        session.open(21, 0, "branch", ["main"])
    with pytest.raises(LimitExceeded):
        session.bound(21, "name")
    session.release([20])
    session.open(21, 0, "branch", ["main"])
    assert call(session, 21, "name") == "main"
    session.close()


@pytest.mark.parametrize("access", ["read", "write", "admin"])
def test_who_may_less_is_refused_before_anything_is_done(store, access):
    store.branch("main").keyspace("default", Kv.LAYOUT).put("a", 1)
    before = stores.Place(store).everything
    session = opened(store, access=access)
    assert call(session, 2, "get", "a") == 1
    assert call(session, 5, "get", "a") == 1
    assert call(session, 4, "commit", None, None, None, once="k") == 1
    level = ("read", "write", "admin").index(access)
    handles = {"store": 0, "branch": 1, "txn": 2}
    for kind, handle in handles.items():
        for name, ask in ASKS[kind].items():
            if ("read", "write", "admin").index(ask.access) > level:
                with pytest.raises(AccessDenied) as caught:
                    session.bound(handle, name)
                assert (caught.value.needed, caught.value.given) == (ask.access, access)
            else:
                session.bound(handle, name)
    session.close()
    assert stores.Place(store).everything == before


def test_a_read_only_session_refuses_writes_as_a_read_only_database_does(store):
    session = opened(store, read_only=True)
    assert session.access == "read"
    for handle, method in ((2, "put"), (5, "put"), (0, "create"), (0, "backup")):
        with pytest.raises(ReadOnly):
            session.bound(handle, method)
    assert call(session, 4, "commit") == 0
    session.close()


def test_places_in_files_are_for_who_is_near(store):
    far = Session(store, files=False)
    for method in ("backup", "export"):
        with pytest.raises(AccessDenied):
            far.bound(0, method)
        assert Session(store).bound(0, method)


BAD_CALLS = [
    (2, "get", []),
    (2, "get", ["a", "b", "c"]),
    (2, "get", [[]]),
    (2, "put", ["a", ABSENT]),
    (2, "put", ["a", {1: 2}]),
    (2, "put", [ABSENT, 1]),
    (2, "put", ["a", 2**63]),
    (2, "put", ["a", 1, "soon"]),
    (2, "put_many", [5]),
    (2, "put_many", [[5]]),
    (2, "put_many", [[["a"]]]),
    (2, "put_many", ["ab"]),
    (2, "patch", ["a", [[]]]),
    (2, "patch", ["a", [["set"]]]),
    (2, "patch", ["a", [5]]),
    (2, "patch", ["a", {"set": 1}]),
    (2, "patch", ["a", [["set", 5, 1]]]),
    (2, "patch", ["a", [["burn", [], 1]]]),
    (2, "get_path", ["a", 5]),
    (2, "scan", [None, None, None, False, -1]),
    (2, "scan", [None, None, None, False, "x"]),
    (2, "by_value", ["i", 5, None, False, None]),
    (2, "by_value", ["i", [], None, False, None]),
    (2, "by_text", ["i", "q", 3, 5]),
    (2, "by_text", ["i", "q", 3, {"values": 5}]),
    (2, "by_text", ["i", "q", 3, {"values": [["i", [5]]]}]),
    (2, "by_vector", ["i", "q", 3, {"written": 5}]),
    (2, "add", ["a", "x"]),
    (2, "delete_many", [5]),
    (3, "append", []),
    (3, "append", ["text", "t", {}]),
    (5, "expect", ["a"]),
    (4, "commit", [1, 2, 3, 4, 5]),
    (0, "forget", [5]),
    (0, "forget", [[5]]),
    (0, "fork", [None, None]),
    (0, "set_policy", [1, 2, 3, 4, 5, 6]),
]


@pytest.mark.parametrize(("handle", "method", "arguments"), BAD_CALLS, ids=repr)
def test_arguments_that_are_none_are_typed_errors_and_change_nothing(
    session, store, handle, method, arguments
):
    before = stores.Place(store).everything
    with pytest.raises((StrataError, TypeError, ValueError, OverflowError)) as caught:
        call(session, handle, method, *arguments)
    assert to_wire(caught.value)["code"] != "internal_error"
    assert stores.Place(store).everything == before


def test_what_differs_and_how_take_a_snapshot_and_nothing_else(session):
    session.open(6, 1, "view", [None, None])
    session.open(7, 6, "diff", [6])
    assert call(session, 7, "page", 5) == []
    assert call(session, 6, "how", 6, "default", "kv", b"a") == [0, []]
    for wrong in (2, 0, 99, None, "6"):
        session.open(8, 6, "diff", [wrong])
        with pytest.raises((InvalidInput, Closed)):
            call(session, 8, "page", 5)
        session.release([8])
        with pytest.raises((InvalidInput, Closed)):
            call(session, 6, "how", wrong, "default", "kv", b"a")


# -- writes that happen at most once

keys = st.sampled_from(["a", "b", "c"])
numbers = st.integers(-5, 5)
ops = st.lists(
    st.tuples(st.just("set"), st.lists(keys, max_size=2), numbers)
    | st.tuples(st.just("merge"), st.just([]), st.dictionaries(keys, numbers, max_size=2)),
    min_size=1,
    max_size=2,
)
writes = st.one_of(
    st.tuples(st.just(2), st.just("put"), st.tuples(keys, numbers)),
    st.tuples(st.just(2), st.just("put_until"), st.tuples(keys, numbers, st.none())),
    st.tuples(st.just(2), st.just("put_many"), st.tuples(st.lists(st.tuples(keys, numbers), max_size=3))),
    st.tuples(st.just(2), st.just("delete"), st.tuples(keys)),
    st.tuples(st.just(2), st.just("delete_many"), st.tuples(st.lists(keys, max_size=4))),
    st.tuples(st.just(2), st.just("add"), st.tuples(keys, numbers)),
    st.tuples(st.just(2), st.just("patch"), st.tuples(keys, ops)),
    st.tuples(st.just(3), st.just("append"), st.tuples(st.sampled_from([b"x\0", b"y\0"]), keys, numbers)),
)


def tried(session, write, once=None):
    """The answer to a write, or the code of what it raised."""
    handle, method, arguments = write
    try:
        return call(session, handle, method, *arguments, once=once)
    except StrataError as error:
        return error.code


@pytest.mark.parametrize("kind", stores.KINDS)
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(writes, st.lists(writes, max_size=3)), min_size=1, max_size=5))
def test_a_write_with_a_key_happens_once_and_answers_the_same(kind, steps):
    clock = stores.FakeClock()
    with_keys, without = stores.make(kind, clock), stores.make(kind, clock)
    ours, theirs = opened(with_keys), opened(without)
    try:
        for number, (write, between) in enumerate(steps):
            first = tried(ours, write, f"key {number}")
            assert first == tried(theirs, write)
            assert tried(ours, write, f"key {number}") == first
            for other in between:
                assert tried(ours, other) == tried(theirs, other)
            # What wrote nothing has left no key, and is free to be something else by now.
            if with_keys.branch("main").result_of(f"key {number}") is not None:
                assert tried(ours, write, f"key {number}") == first
        assert stores.Place(with_keys).everything == stores.Place(without).everything
    finally:
        ours.close(), theirs.close(), with_keys.close(), without.close()


def test_a_commit_is_made_once_however_few_arguments_say_so(session, store):
    call(session, 5, "put", "a", 1)
    assert call(session, 4, "commit", once="k") == 1
    assert store.branch("main").result_of("k") == 1
    session.open(6, 1, "begin", ["serializable", False, None])
    session.open(7, 6, "keyspace", list(KV))
    call(session, 7, "put", "a", 2)
    assert call(session, 6, "commit", "why", once="k") == 1
    assert call(session, 2, "get", "a") == 1
    with pytest.raises(InvalidInput):
        call(session, 6, "commit", None, None, None, "k", once="k")


@pytest.mark.parametrize(
    ("handle", "method"), [(2, "get"), (5, "put"), (0, "info"), (1, "head"), (4, "spaces")]
)
def test_a_key_where_none_counts_is_refused(session, handle, method):
    with pytest.raises(InvalidInput):
        call(session, handle, method, once="k")


def test_a_key_that_was_another_writes_is_no_key_of_an_append(session):
    call(session, 2, "put", "a", 1, once="k")
    with pytest.raises(InvalidInput):
        call(session, 3, "append", b"x\0", "t", {}, once="k")
    call(session, 3, "append", b"x\0", "t", {}, once="x")
    with pytest.raises(InvalidInput):
        call(session, 3, "append", b"y\0", "t", {}, once="x")
    with pytest.raises(InvalidInput):
        call(session, 3, "append", once="k")


def test_a_write_is_not_repeated_after_its_rows_went_into_files_and_were_compacted(tmp_path):
    writes = [
        (2, "put_many", ([["a", 1], ["b", 2], ["c", 3]],)),
        (3, "append", (b"x\0", "t", {"n": 1})),
        (3, "append", (b"x\0", "t", {"n": 2})),
        (2, "delete", ("a",)),
        (2, "delete_many", (["b", "c", "nothing"],)),
        (2, "add", ("n", 1)),
    ]
    store = open_store(str(tmp_path / "db"), durability="buffered")
    store.set_policy(None, None, None, 1, None, False)
    session = opened(store)
    answers = [
        call(session, handle, method, *arguments, once=f"k{number}")
        for number, (handle, method, arguments) in enumerate(writes)
    ]
    session.release([4, 5])  # which holds on to what there was
    head = store.branch("main").head
    for step in (store.checkpoint, store.compact, store.compact):
        step()
        again = [
            call(session, handle, method, *arguments, once=f"k{number}")
            for number, (handle, method, arguments) in enumerate(writes)
        ]
        if step == store.compact:  # nobody knows any more how many there were
            assert again[4] == 1
            again[4] = answers[4]
        assert again == answers, step.__name__
    assert store.branch("main").head == head
    session.close()
    store.close()


def test_once_respects_a_branch_that_takes_no_writes(session, store):
    call(session, 2, "put", "a", 1)
    store.seal("main", "done")
    for method, arguments in (("put", ("a", 2)), ("delete", ("a",)), ("delete", ("b",))):
        with pytest.raises(Protected):
            call(session, 2, method, *arguments, once=method)
