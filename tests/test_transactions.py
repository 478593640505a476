"""Transactions: isolation, outcomes, retries (semantics.md §5), through the public API."""

from __future__ import annotations

import asyncio
import inspect
import threading

import databases
import pytest

import strata
from strata.api.retry import retrying
from strata.errors import Closed, Conflict, InvalidInput


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


# -- one commit or nothing -------------------------------------------------------------------------


def test_one_commit_across_primitives_and_spaces(db):
    before = db.version
    with db.transaction(message="all at once") as tx:
        assert tx.kv.put("k", 1) is None
        tx.space("other").kv.put("k", 2)
        tx.events.append("seen", {"what": "k"})
        tx.state.set("s", "open")
        tx.json.set("d", "$.a.b", 1)
        assert tx.version is None
    assert tx.version == db.version > before
    assert [commit.message for commit in db.log(after=before)] == ["all at once"]
    assert db.kv.entry("k").version == db.space("other").kv.entry("k").version == tx.version
    assert db.events.get(0).version == db.state.entry("s").version == tx.version
    assert db.json.get("d") == {"a": {"b": 1}}


def test_nothing_of_it_is_seen_before_the_commit(db):
    with db.transaction() as tx:
        tx.kv.put("k", 1)
        tx.space("new").kv.put("k", 1)
        assert db.kv.get("k") is None
        assert "new" not in db.spaces
    assert db.kv.get("k") == 1


def test_reads_see_the_snapshot_and_own_writes(db):
    db.kv.put_many({"a": 1, "b": 1, "c": 1})
    with db.transaction() as tx:
        tx.kv.put("a", 2)
        tx.kv.delete("b")
        tx.kv.put("bb", 2)
        db.kv.put("outside", 1)
        assert (tx.kv.get("a"), tx.kv.get("b"), tx.kv.get("c"), tx.kv.get("outside")) == (2, None, 1, None)
        assert list(tx.kv.scan(limit=10)) == [("a", 2), ("bb", 2), ("c", 1)]
        assert tx.snapshot < db.version
        tx.rollback()


def test_an_exception_rolls_back_and_passes(db):
    before = db.version

    class Mine(Exception):
        pass

    for raised in (Mine("x"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(raised)) as caught, db.transaction() as tx:
            tx.kv.put("k", 1)
            raise raised
        assert caught.value is raised
        assert tx.version is None
    assert db.version == before
    assert db.kv.get("k") is None


def test_an_error_of_one_operation_leaves_the_transaction_usable(db):
    with db.transaction() as tx:
        tx.kv.put("k", 1)
        with pytest.raises(InvalidInput):
            tx.kv.put("k", object())
        with pytest.raises(InvalidInput):
            tx.kv.put("", 1)
        assert tx.kv.get("k") == 1
    assert db.kv.get("k") == 1


def test_a_transaction_that_writes_nothing_makes_no_commit(db):
    db.kv.put("k", 1)
    before = db.version
    with db.transaction() as tx:
        tx.kv.get("k")
    assert tx.version == tx.snapshot == before == db.version


def test_rollback_inside_the_block(db):
    with db.transaction() as tx:
        tx.kv.put("k", 1)
        tx.rollback()
        tx.rollback()
    assert tx.version is None
    assert db.kv.get("k") is None


def test_commit_inside_the_block(db):
    with db.transaction() as tx:
        tx.kv.put("k", 1)
        version = tx.commit()
    assert tx.version == version == db.version


def test_without_a_with_block(db):
    tx = db.transaction()
    tx.kv.put("k", 1)
    assert tx.commit() == tx.version == db.version
    tx = db.transaction()
    tx.kv.put("k", 2)
    del tx
    assert db.kv.get("k") == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_after_its_end_everything_raises(db, end):
    tx = db.transaction()
    kv, space = tx.kv, tx.space("s")
    kv.put("k", 1)
    getattr(tx, end)()
    for use in (
        lambda: kv.get("k"), lambda: kv.put("k", 1), lambda: tx.json.get("d"), lambda: space.kv.put("k", 1),
        tx.commit, tx.__enter__,
    ):  # fmt: skip
        with pytest.raises(Closed):
            use()
    assert "open" not in repr(tx)


def test_what_a_commit_says_about_itself_can_be_set_late(db):
    with db.transaction(message="first idea") as tx:
        tx.kv.put("k", 1)
        tx.message, tx.actor, tx.cause = "better idea", "agent-7", "strata://main/default/events/main/3"
    commit = db.log(limit=1)[0]
    assert (commit.version, commit.message, commit.actor) == (tx.version, "better idea", "agent-7")
    assert commit.cause == "strata://main/default/events/main/3"


def test_a_cause_may_be_a_commit(db):
    db.kv.put("k", 1)
    first = db.log(limit=1)[0]
    with db.transaction(cause=first) as tx:
        tx.kv.put("k", 2)
    assert db.log(limit=1)[0].cause == f"commit:{first.version}"


# -- nesting ---------------------------------------------------------------------------------------


def test_nested_blocks_raise_and_the_outer_one_goes_on(db):
    with db.transaction() as outer:
        outer.kv.put("k", 1)
        with pytest.raises(InvalidInput) as error, db.transaction() as inner:
            inner.kv.put("k", 2)  # never reached
        assert error.value.hint
        with pytest.raises(InvalidInput), outer:
            pass
        outer.kv.put("l", 1)
    assert db.kv.get_many(["k", "l"]) == [1, 1]


def test_nested_blocks_raise_on_other_branches_and_through_transact(db):
    db.branches.fork("main", "b")
    with db.transaction() as outer:
        outer.kv.put("k", 1)
        with pytest.raises(InvalidInput), db.branch("b").transaction():
            pass
        with pytest.raises(InvalidInput):
            db.transact(lambda tx: tx.kv.put("k", 2))
    assert db.kv.get("k") == 1


def test_blocks_of_two_databases_nest(db):
    with databases.make("model") as other:
        with db.transaction() as tx, other.transaction() as ty, pytest.raises(InvalidInput):
            tx.kv.put("k", 1)
            ty.kv.put("k", 2)
            with db.transaction():
                pass
        assert (db.kv.get("k"), other.kv.get("k")) == (1, 2)


def test_after_a_nested_block_was_refused_the_thread_is_free(db):
    with pytest.raises(InvalidInput), db.transaction(), db.transaction():
        pass
    with db.transaction() as tx:
        tx.kv.put("k", 1)
    assert db.kv.get("k") == 1


def test_each_thread_has_its_own_block(db):
    versions = []

    def other():
        with db.transaction() as tx:
            tx.kv.put("other", 1)
        versions.append(tx.version)

    with db.transaction() as tx:
        tx.kv.put("mine", 1)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert versions and db.kv.get_many(["mine", "other"]) == [1, 1]


def test_each_task_has_its_own_block(db):
    async def work(name, mine, theirs):
        with db.transaction() as tx:
            tx.kv.put(name, 1)
            mine.set()
            await theirs.wait()

    async def both():
        one, two = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("one", one, two), work("two", two, one))

    asyncio.run(both())
    assert db.kv.get_many(["one", "two"]) == [1, 1]


# -- isolation -------------------------------------------------------------------------------------


def test_blind_writes_both_commit(db):
    one, two = db.transaction(), db.transaction()
    one.kv.put("k", 1)
    two.kv.put("k", 2)
    assert one.commit() < two.commit()
    assert db.kv.get("k") == 2


def test_a_changed_read_is_a_conflict_that_names_the_key(db):
    db.kv.put("k", 1)
    tx = db.transaction()
    tx.kv.put("sum", tx.kv.get("k") + 1)
    db.kv.put("k", 10)
    with pytest.raises(Conflict) as error:
        tx.commit()
    (key,) = error.value.keys
    assert (key.ref.branch, key.ref.space, key.ref.primitive, key.ref.key) == ("main", "default", "kv", "k")
    assert "strata://main/default/kv/k" in str(error.value)
    assert db.kv.get("sum") is None and tx.version is None


def test_the_conflict_comes_out_of_the_with_block(db):
    db.kv.put("k", 1)
    with pytest.raises(Conflict), db.transaction() as tx:
        tx.kv.put("k", tx.kv.get("k") + 1)
        db.kv.put("k", 10)
    assert db.kv.get("k") == 10
    with db.transaction() as tx:
        tx.kv.put("k", 11)
    assert db.kv.get("k") == 11


def test_a_key_that_was_missing_when_read_conflicts_when_it_appears(db):
    tx = db.transaction()
    assert tx.kv.get("k") is None
    tx.kv.put("other", 1)
    db.kv.put("k", 1)
    with pytest.raises(Conflict):
        tx.commit()


def _both_off_call(db, isolation):
    """Two doctors, of whom one must stay: each sees the other on call, and goes."""
    db.kv.put_many({"alice": "on", "bob": "on"})
    one, two = db.transaction(isolation=isolation), db.transaction(isolation=isolation)
    assert one.kv.get("bob") == two.kv.get("alice") == "on"
    one.kv.put("alice", "off")
    two.kv.put("bob", "off")
    one.commit()
    two.commit()


def test_write_skew_is_refused(db):
    with pytest.raises(Conflict) as error:
        _both_off_call(db, "serializable")
    assert [key.ref.key for key in error.value.keys] == ["alice"]
    assert db.kv.get_many(["alice", "bob"]) == ["off", "on"]


def test_write_skew_passes_under_snapshot(db):
    _both_off_call(db, "snapshot")
    assert db.kv.get_many(["alice", "bob"]) == ["off", "off"]


def _count_then_insert(db, isolation):
    """At most one seat: each counts none, and takes one."""
    db.kv.put("other", 0)
    one, two = db.transaction(isolation=isolation), db.transaction(isolation=isolation)
    for tx, name in ((one, "seat:1"), (two, "seat:2")):
        assert list(tx.kv.scan(prefix="seat:", limit=10)) == []
        tx.kv.put(name, 1)
    one.commit()
    two.commit()


def test_a_phantom_is_refused_and_the_range_named(db):
    with pytest.raises(Conflict) as error:
        _count_then_insert(db, "serializable")
    (found,) = error.value.ranges
    assert (found.space, found.primitive, found.start) == ("default", "kv", "seat:")
    assert db.kv.count(prefix="seat:") == 1


def test_a_phantom_passes_under_snapshot(db):
    _count_then_insert(db, "snapshot")
    assert db.kv.count(prefix="seat:") == 2


def test_snapshot_isolation_still_refuses_lost_updates(db):
    db.kv.put("k", 1)
    one, two = db.transaction(isolation="snapshot"), db.transaction(isolation="snapshot")
    for tx in (one, two):
        tx.kv.put("k", tx.kv.get("k") + 1)
    one.commit()
    with pytest.raises(Conflict):
        two.commit()
    assert db.kv.get("k") == 2


def test_sibling_paths_both_commit(db):
    db.json.set("d", "$", {"a": 1, "b": 1})
    one, two = db.transaction(), db.transaction()
    one.json.set("d", "$.a", 2)
    two.json.set("d", "$.b", 2)
    one.commit()
    two.commit()
    assert db.json.get("d") == {"a": 2, "b": 2}


def test_ancestor_and_descendant_conflict_and_both_are_named(db):
    db.json.set("d", "$", {"a": {"b": 1}})
    one, two = db.transaction(), db.transaction()
    one.json.set("d", "$.a", {"b": 2})
    two.json.set("d", "$.a.b", 3)
    one.commit()
    with pytest.raises(Conflict) as error:
        two.commit()
    (path,) = error.value.paths
    assert (path.ref.key, path.ours, path.theirs) == ("d", "$.a.b", "$.a")
    assert db.json.get("d") == {"a": {"b": 2}}


def test_appends_and_adds_of_open_transactions_do_not_conflict(db):
    one, two = db.transaction(), db.transaction()
    for tx in (one, two):
        tx.events.append("t", {"n": 1})
        tx.kv.incr("n")
    one.commit()
    two.commit()
    assert db.kv.get("n") == 2
    assert [event.sequence for event in db.events.range()] == [0, 1]


def test_transactions_that_only_read_never_fail(db):
    db.kv.put("k", 1)
    with db.transaction() as tx:
        assert tx.kv.get("k") == 1
        db.kv.put("k", 2)
        assert tx.kv.get("k") == 1
        assert list(tx.kv.scan(limit=5)) == [("k", 1)]


def test_branches_do_not_conflict(db):
    db.kv.put("k", 1)
    other = db.branches.fork("main", "b")
    tx = db.transaction()
    tx.kv.put("k", tx.kv.get("k") + 1)
    other.kv.put("k", 10)
    tx.commit()
    assert (db.kv.get("k"), other.kv.get("k")) == (2, 10)


@pytest.mark.parametrize(
    "options",
    [{"isolation": "repeatable"}, {"isolation": None}, {"idempotency_key": 7}, {"idempotency_key": ""}],
)
def test_wrong_options_are_refused(db, options):
    with pytest.raises(InvalidInput):
        db.transaction(**options)


@pytest.mark.parametrize("field", ["message", "actor", "cause"])
def test_what_a_commit_says_about_itself_is_text(db, field):
    before = db.version
    tx = db.transaction(**{field: 7 if field != "cause" else None})
    if field == "cause":
        tx.cause = b"bytes"
    tx.kv.put("k", 1)
    with pytest.raises(InvalidInput):
        tx.commit()
    assert db.version == before and db.kv.get("k") is None


# -- idempotency -----------------------------------------------------------------------------------


def test_the_same_idempotency_key_writes_once(db):
    versions = []
    for amount in (5, 5, 7):
        with db.transaction(idempotency_key="payment-1") as tx:
            tx.kv.incr("balance", amount)
            tx.events.append("paid", {"amount": amount})
        versions.append(tx.version)
    assert len(set(versions)) == 1
    assert db.kv.get("balance") == 5
    assert db.events.len() == 1
    with db.transaction(idempotency_key="payment-2") as tx:
        tx.kv.incr("balance", 1)
    assert tx.version > versions[0] and db.kv.get("balance") == 6


def test_a_rolled_back_idempotency_key_is_not_used_up(db):
    with pytest.raises(RuntimeError), db.transaction(idempotency_key="once") as tx:
        tx.kv.put("k", 1)
        raise RuntimeError
    with db.transaction(idempotency_key="once") as tx:
        tx.kv.put("k", 2)
    assert db.kv.get("k") == 2


def test_of_two_open_transactions_with_one_key_one_writes(db):
    one, two = (db.transaction(idempotency_key="once") for _ in range(2))
    for tx in (one, two):
        tx.kv.incr("n")
    assert one.commit() == two.commit()
    assert db.kv.get("n") == 1


# -- retries ---------------------------------------------------------------------------------------


def _meddle(db, times):
    """A body that adds 1, and is interrupted `times` times before it commits."""
    calls = []

    def body(tx):
        calls.append(tx)
        value = tx.kv.get("n", 0)
        if len(calls) <= times:
            threading_put(db, "n", value + 10)
        tx.kv.put("n", value + 1)
        return len(calls)

    return body


def threading_put(db, key, value):
    thread = threading.Thread(target=db.kv.put, args=(key, value))
    thread.start()
    thread.join()


def test_transact_retries_and_returns_what_the_body_returns(db):
    db.kv.put("n", 0)
    assert db.transact(_meddle(db, 3)) == 4
    assert db.kv.get("n") == 31


def test_transact_gives_up_after_the_retries(db):
    db.kv.put("n", 0)
    with pytest.raises(Conflict):
        db.transact(_meddle(db, 3), retries=2)
    assert db.kv.get("n") == 30
    with pytest.raises(Conflict):
        db.transact(_meddle(db, 1), retries=0)


def test_transact_does_not_retry_other_errors(db):
    calls = []

    def body(tx):
        calls.append(1)
        tx.kv.put("k", 1)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        db.transact(body)
    assert len(calls) == 1 and db.kv.get("k") is None


@pytest.mark.parametrize("retries", [-1, 1.5, None, True, "3"])
def test_retries_are_a_number(db, retries):
    with pytest.raises(InvalidInput):
        db.transact(lambda tx: None, retries=retries)


def test_transact_passes_its_options_on(db):
    db.transact(lambda tx: tx.kv.put("k", 1), message="m", actor="a", idempotency_key="i")
    db.transact(lambda tx: tx.kv.put("k", 2), idempotency_key="i")
    assert db.kv.get("k") == 1
    assert (db.log(limit=1)[0].message, db.log(limit=1)[0].actor) == ("m", "a")
    with pytest.raises(TypeError):
        db.transact(lambda tx: None, isolatoin="snapshot")


def test_transactional_functions(db):
    @db.transactional
    def add(tx: strata.Transaction, key: str, by: int = 1) -> int:
        """Add."""
        tx.kv.put(key, tx.kv.get(key, 0) + by)
        return tx.kv.get(key)

    @db.space("s").transactional(message="elsewhere", retries=3)
    def elsewhere(tx, value):
        tx.kv.put("k", value)

    assert (add("n"), add("n", by=5)) == (1, 6)
    elsewhere(7)
    assert db.space("s").kv.get("k") == 7
    assert db.log(limit=1)[0].message == "elsewhere"
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert "tx" not in inspect.signature(add).parameters


def test_pauses_grow_between_attempts():
    pauses, calls = [], []

    def attempt():
        calls.append(1)
        if len(calls) < 4:
            raise Conflict
        return "done"

    assert retrying(attempt, 5, pauses.append) == "done"
    assert pauses == [1, 2, 3]


# -- places ----------------------------------------------------------------------------------------


def test_a_transaction_works_on_the_place_it_began_at(db):
    db.branches.fork("main", "b")
    place = db.branch("b").space("s")
    with place.transaction() as tx:
        tx.kv.put("k", 1)
        tx.space("default").kv.put("k", 2)
    assert place.kv.get("k") == 1
    assert db.branch("b").kv.get("k") == 2
    assert db.kv.get("k") is None
    assert db.version < tx.version == place.version
