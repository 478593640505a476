"""The handles: how places compose, what they cost, how they show themselves."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from datetime import UTC, datetime, timedelta

import databases
import pytest

import strata
from strata.api.operations import HANDLES, OPERATIONS
from strata.core.clock import to_datetime
from strata.errors import AlreadyExists, Closed, InvalidInput, LimitExceeded, NotFound, ReadOnly
from strata.primitives import PRIMITIVES
from strata.testing import FakeClock


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


def test_every_place_has_the_same_face(db):
    db.kv.put("k", 1)
    places = [db, db.branch("main"), db.space("default"), db.at(db.version), db.transaction()]
    for place in places:
        assert all(isinstance(getattr(place, name), cls) for name, cls in PRIMITIVES.items())
        assert place.kv.get("k") == 1


def test_branch_space_and_view_compose_in_any_order(db):
    db.kv.put("where", "main/default")
    db.space("s").kv.put("where", "main/s")
    db.branches.fork("main", "b")
    db.branch("b").space("s").kv.put("where", "b/s")
    then = db.version, db.branch("b").version
    db.branch("b").space("s").kv.put("where", "later")

    assert db.branch("b").space("s").at(then[1]).kv.get("where") == "b/s"
    assert db.space("s").branch("b").at(then[1]).kv.get("where") == "b/s"
    assert db.branch("b").at(then[1]).space("s").kv.get("where") == "b/s"
    assert db.branch("b").at(then[0]).space("s").kv.get("where") == "main/s"
    assert db.branch("b").kv.get("where") == "main/default"
    assert db.space("s").kv.get("where") == "main/s"
    assert db.kv.get("where") == "main/default"


def test_a_space_begins_with_its_first_write(db):
    notes = db.space("notes")
    assert "notes" not in db.spaces
    with pytest.raises(NotFound):
        notes.kv.get("k")
    notes.kv.put("k", 1)
    assert db.spaces.list() == list(db.spaces) == ["default", "notes"]
    assert len(db.spaces) == 2
    assert "notes" in db.spaces


def test_spaces_are_seen_from_where_one_stands(db):
    db.kv.put("k", 1)
    before = db.version
    with db.transaction() as tx:
        tx.space("new").kv.put("k", 2)
        assert "new" in tx.spaces
        assert "new" not in db.spaces
    assert "new" in db.spaces
    assert "new" not in db.at(before).spaces


@pytest.mark.parametrize("name", ["_x", "", "a\nb", "a\0b", 7, None, b"x", "\ud800"])
def test_names_that_cannot_be(db, name):
    before = db.version
    for use in (db.space, db.branch, db.branches.create, lambda n: db.branches.fork("main", n)):
        with pytest.raises(InvalidInput):
            use(name)
    for use in (db.at(before).space, db.transaction().space, lambda n: db.branches.rename("main", n)):
        with pytest.raises(InvalidInput):
            use(name)
    assert db.version == before


def test_names_have_255_bytes_at_most(db):
    db.space("ä" * 127).kv.put("k", 1)
    with pytest.raises(LimitExceeded) as error:
        db.space("ä" * 128)
    assert (error.value.limit, error.value.actual) == (255, 256)


def test_closing(db):
    db.kv.put("k", 1)
    handles = [db, db.branch("main"), db.space("default"), db.at(db.version)]
    assert not db.closed
    db.close()
    db.close()
    assert db.closed
    for handle in handles:
        with pytest.raises(Closed):
            handle.kv.get("k")
    for use in (
        lambda: db.kv.put("k", 2), lambda: db.version, lambda: db.at(1), db.transaction, db.log, db.flush,
        lambda: db.durable_version, db.branches.list, lambda: db.branch("main"), lambda: db.spaces.list(),
        lambda: db.branches.create("b"),
    ):  # fmt: skip
        with pytest.raises(Closed):
            use()
    assert "closed" in repr(db)


def test_the_with_block_closes_also_after_an_error():
    with pytest.raises(RuntimeError, match="mine"), databases.make("model") as db:
        raise RuntimeError("mine")
    assert db.closed


def test_a_face_outlives_the_handle_it_came_from(db):
    """`strata.open().kv` must go on working when nobody holds the database any more."""
    kv = databases.make("model").branch("main").kv
    gc.collect()
    kv.put("k", 1)
    assert kv.get("k") == 1


def test_handles_do_not_hold_each_other_in_cycles(db):
    handle = db.branch("main")
    gone = weakref.ref(handle)
    gc.disable()
    try:
        del handle
        assert gone() is None
    finally:
        gc.enable()


def test_unknown_attributes_are_named(db):
    for place in (db, db.at(0), db.transaction()):
        with pytest.raises(AttributeError, match="vectros"):
            place.vectros
    with pytest.raises(AttributeError):
        db.vectros = 1  # it has slots: a typing error must not be kept in silence


def test_reprs_are_short(db):
    db.kv.put("k", 1)
    db.branches.fork("main", "draft")
    tx = db.transaction()
    handles = [db, db.branch("draft"), db.space("s"), db.at(1), tx, tx.space("s"), db.branches, db.spaces]
    for handle in handles:
        assert repr(handle).startswith(f"<{handle.__class__.__name__}")
        assert len(repr(handle)) < 80
    assert "draft" in repr(db.branch("draft"))


def test_log_lists_commits_newest_first(db):
    versions = [db.kv.put("k", number) for number in range(5)]
    with db.transaction(message="why", actor="me", cause="strata://main/default/kv/k") as tx:
        tx.kv.put("k", "last")
    log = db.log(limit=6)
    assert [commit.version for commit in log] == [tx.version, *reversed(versions)]
    assert (log[0].message, log[0].actor, log[0].cause) == ("why", "me", "strata://main/default/kv/k")
    assert (log[1].message, log[1].actor, log[1].cause) == (None, None, None)
    assert [commit.version for commit in db.log(limit=2, reverse=True, after=versions[1])] == versions[2:4]
    assert [commit.version for commit in db.log(after=versions[0], before=versions[2])] == [versions[1]]
    assert {commit.branch for commit in log} == {"main"}


def test_log_of_a_fork_goes_on_into_its_parent(db):
    first = db.kv.put("k", 1)
    db.branches.fork("main", "b")
    on_main = db.kv.put("k", 2)
    on_b = db.branch("b").kv.put("k", 3)
    versions = [commit.version for commit in db.branch("b").log()]
    assert on_b in versions and first in versions and on_main not in versions
    assert versions == sorted(versions, reverse=True)


def test_tables_show_themselves(db):
    db.kv.put("<k>", 1)
    with db.transaction(message="a <b> & c") as tx:
        tx.kv.put("k", 2)
    text = str(db.log())
    assert text.splitlines()[0].split() == ["version", "branch", "time", "message", "actor", "cause"]
    assert len(text.splitlines()) == 1 + len(db.log())
    html = db.log()._repr_html_()
    assert html.startswith("<table>") and "a &lt;b&gt; &amp; c" in html
    assert "<td>main</td>" in db.branches._repr_html_()
    assert "(none)" in str(db.log(limit=0))


def test_long_tables_say_what_they_leave_out(db):
    for number in range(60):
        db.kv.put("k", number)
    log = db.log(limit=60)
    assert str(log).endswith("... and 10 more") and "and 10 more" in log._repr_html_()
    assert len(log) == 60


def test_times_in_tables_are_what_at_reads(db):
    version = db.kv.put("k", 1)
    shown = str(db.log(limit=1)).splitlines()[1].split()[2]
    assert db.at(shown).version == version


def test_handles_are_shared_between_threads(db):
    threads = [threading.Thread(target=lambda n=n: db.kv.put(f"k{n}", n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.kv.count() == 8


# -- the catalogue ---------------------------------------------------------------------------------


def _public(cls):
    return {
        name for name in vars(cls) if not name.startswith("_") and name not in PRIMITIVES and name != "LAYOUT"
    }


def test_every_public_method_is_in_the_catalogue():
    owners = {operation.owner for operation in OPERATIONS.values()} | set(PRIMITIVES.values())
    for owner in owners:
        slots = {slot for slot in vars(owner).get("__slots__", ()) if not slot.startswith("_")}
        listed = {operation.method for operation in OPERATIONS.values() if operation.owner is owner}
        missing = _public(owner) - slots - listed - HANDLES.get(owner, frozenset())
        assert not missing, f"api/operations.py lacks {sorted(missing)} of {owner.__name__}"
        assert listed <= _public(owner), f"api/operations.py names what {owner.__name__} does not have"


def test_every_operation_says_what_it_does():
    for name, operation in OPERATIONS.items():
        assert operation.name == name
        assert operation.summary.endswith((".", ";", "`")), f"{name} has no summary"
        assert operation.access in ("read", "write", "admin")
        assert operation.result is not inspect.Signature.empty
        for parameter in operation.request.values():
            assert parameter.annotation is not inspect.Parameter.empty, (
                f"{name}({parameter.name}) has no type"
            )


def test_operations_are_typed():
    put = OPERATIONS["kv.put"]
    assert (put.access, put.idempotent, list(put.request)) == ("write", True, ["key", "value", "ttl"])
    assert put.request["key"].annotation is str
    assert not OPERATIONS["kv.incr"].idempotent


# -- views -----------------------------------------------------------------------------------------


def test_views_by_version_stay_as_they_were(db):
    versions = [db.kv.put("k", number) for number in range(3)]
    views = [db.at(version) for version in versions]
    db.kv.delete("k")
    assert [view.kv.get("k") for view in views] == [0, 1, 2]
    assert [view.version for view in views] == versions
    assert db.at(db.version).kv.get("k") is None


def test_views_refuse_writes(db):
    version = db.kv.put("k", 1)
    view = db.at(version)
    for write in (
        lambda: view.kv.put("k", 2), lambda: view.kv.delete("k"), lambda: view.kv.incr("k"),
        lambda: view.events.append("t", {}), lambda: view.state.set("s", 1),
        lambda: view.json.set("d", "$", {}),
        lambda: view.space("other").kv.put("k", 2),
    ):  # fmt: skip
        with pytest.raises(ReadOnly):
            write()
    assert db.version == version


def test_views_by_instant(db):
    first = db.kv.put("k", 1)
    instant = db.kv.entry("k").timestamp
    while True:  # commits of one microsecond have one time; the newest of them is meant
        second = db.kv.put("k", 2)
        if db.kv.entry("k").timestamp > instant:
            break
        first = second
    assert db.at(instant).version == first
    assert db.at(instant.isoformat()).version == first
    assert db.at(db.kv.entry("k").timestamp).version == second
    assert db.at(datetime(9999, 1, 1, tzinfo=UTC)).version == db.version
    assert db.at("9999-01-01T00:00Z").kv.get("k") == 2
    assert db.at("9999-01-01T00:00+02:00").kv.get("k") == 2


@pytest.mark.parametrize("kind", databases.KINDS)
def test_views_by_a_clock_that_obeys(kind):
    clock = FakeClock()
    start = to_datetime(clock())
    with databases.make(kind, clock) as db:
        for minute in range(1, 4):
            clock.advance(60_000_000)
            db.kv.put("minute", minute)
        at = [
            db.at(start + timedelta(seconds=seconds)).kv.get("minute")
            for seconds in (0, 59, 60, 61, 119, 120, 999)
        ]
        assert at == [None, None, 1, 1, 1, 2, 3]
        clock.set(0)  # a clock that goes backwards does not take commits with it
        version = db.kv.put("minute", 4)
        assert db.at(start + timedelta(seconds=181)).version == version


def test_before_the_first_commit_all_is_empty(db):
    db.kv.put("k", 1)
    for when in (0, "1970-01-01T00:00Z", datetime(2001, 1, 1, tzinfo=UTC)):
        assert db.at(when).kv.get("k") is None
        assert list(db.at(when).kv) == []


def test_after_the_newest_commit_is_the_newest_state(db):
    version = db.kv.put("k", 1)
    assert db.at(version + 1000).version == version
    assert db.at(version + 1000).kv.get("k") == 1


@pytest.mark.parametrize(
    "when",
    [
        -1,
        True,
        1.5,
        None,
        "yesterday",
        "",
        "2026-01-31",
        "2026-01-31T12:00",
        datetime(2026, 1, 31),
        b"x",
        2**64,
    ],
)
def test_what_is_no_point_in_history(db, when):
    db.kv.put("k", 1)
    with pytest.raises(InvalidInput) as error:
        db.at(when)
    assert error.value.hint or "Below" in str(error.value) or isinstance(when, int)


def test_importing_strata_does_not_load_the_kernel_or_the_command_line():
    import subprocess
    import sys

    heavy = {"strata._kernel", "argparse", "asyncio"}
    program = f"import strata, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names():
    assert set(strata.__all__) <= set(dir(strata)) | {"__version__"}
    with pytest.raises(AttributeError, match="opne"):
        strata.opne
    with pytest.raises(AlreadyExists):
        databases.make("model").branches.create("main")
