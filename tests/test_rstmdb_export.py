"""Backups for rstmdb: what is exported and imported again is as it was; and both on the command line."""

from __future__ import annotations

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rstmdb_logs import ORDER, PUT, apply, calls, create, directory, history, seen
from test_cli import strata_

import strata
from strata.core.errors import AlreadyExists, InvalidInput, NotFound, StrataError
from strata.history import replay
from strata.testing import FakeClock

KINDS = pytest.mark.parametrize("kind", databases.KINDS)


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param, FakeClock()) as db:
        yield db


@settings(deadline=None)
@given(calls=st.lists(calls, max_size=30), is_grouped=st.lists(st.booleans(), min_size=30, max_size=30),
       kind=st.sampled_from(databases.KINDS), history=st.booleans())  # fmt: skip
def test_an_export_is_imported_as_it_was(tmp_path_factory, calls, is_grouped, kind, history):
    """Also what several calls did in one transaction."""
    file = tmp_path_factory.mktemp("x") / "x.rstmbak"
    with databases.make(kind) as ours, databases.make(kind) as theirs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "_FIRST_PAGE", 1)
        patch.setattr(replay, "_ROWS", 5)
        ours.machines.define("order", 1, ORDER)
        tx = None
        for (id, what, payload, event_id), inside in zip(calls, is_grouped, strict=False):
            if inside and tx is None:
                tx = ours.transaction()
            elif not inside and tx is not None:
                tx.commit()
                tx = None
            call((ours if tx is None else tx).machines, id, what, payload, event_id)
        if tx is not None:
            tx.commit()
        made = ours.export_rstmdb(file, history=history)
        assert made.rewritten == 0 and made.machines == 1 and made.instances == len(ours.machines)
        done = theirs.import_rstmdb(file)
        assert done.is_whole and (history is False or not done.irregular)
        mine, other = without_remakings(seen(ours)), without_remakings(seen(theirs))
        if not history:
            other["history"] = mine["history"] = None
            for found in (mine, other):
                found["instances"] = {id: row[:4] for id, row in found["instances"].items()}
        assert other == mine


def without_remakings(found):
    """Leave out deletions right before creations: within one transaction ours has no room for them."""
    for id, steps in found["history"].items():
        is_made = [step[:2] == (None, None) for step in steps]
        found["history"][id] = [
            step
            for number, step in enumerate(steps)
            if step[2] is not None or not any(is_made[number - 1 : number])
        ]
    return found


def call(machines, id, what, payload, event_id):
    try:
        if what == "create":
            machines.create("order", id, payload)
        elif what == "delete":
            machines.delete(id)
        else:
            machines.apply(id, what, payload, event_id=event_id)
    except StrataError:
        pass


TIMED = {**ORDER, "timers": [{"state": "created", "after": 60, "event": "PAY"}]}


def copy(db, tmp_path, kind, history=True, clock=None):
    """The import of an export."""
    made = db.export_rstmdb(tmp_path / "copy.rstmbak", history=history)
    other = databases.make(kind, clock)
    done = other.import_rstmdb(tmp_path / "copy.rstmbak")
    (tmp_path / "copy.rstmbak").unlink()
    return made, other, done


@KINDS
def test_timers_and_actions_come_back(tmp_path, kind):
    """rstmdb keeps definitions as they were sent, with what it does not know; the hash says it is ours."""
    clock = FakeClock()
    with databases.make(kind, clock) as db:
        acting = {**TIMED, "actions": [{"on": "enter", "state": "paid", "do": "kv.incr", "key": "paid"}]}
        db.machines.define("order", 1, acting)
        db.machines.create("order", "a")
        clock.advance(61_000_000)
        db.machines.fire_due()
        _, other, done = copy(db, tmp_path, kind, clock=clock)
        assert done.irregular == 0 and other.machines.machine("order") == db.machines.machine("order")
        assert seen(other)["history"] == seen(db)["history"]
        assert not other.kv.exists("paid")  # it happened there
        other.machines.create("order", "b")
        assert other.machines.next_due() is not None


@KINDS
def test_what_expires(tmp_path, kind):
    """What is gone is deleted, and what will be is there for good."""
    clock = FakeClock()
    with databases.make(kind, clock) as db:
        db.machines.define("order", 1, ORDER)
        db.machines.create("order", "a", ttl=10)
        db.machines.create("order", "b", ttl=100)
        db.machines.create("order", "c", ttl=10)
        clock.advance(20_000_000)
        db.machines.create("order", "c")
        for history in (True, False):
            made, other, _ = copy(db, tmp_path, kind, history)
            assert (made.instances, made.expiring) == (2, 1)
            assert [found.id for found in other.machines] == ["b", "c"]
            assert other.machines.get("b").expires is None


@KINDS
def test_what_rstmdb_has_no_entry_for(tmp_path, kind):
    """A migration, a merge, a revert: the instance is deleted and made anew, as it is then."""
    with databases.make(kind, FakeClock()) as db:
        db.machines.define("order", 1, ORDER)
        db.machines.create("order", "a", {"n": 1})
        db.machines.define("order", 2, {**ORDER, "meta": 2})
        db.machines.migrate("order", 2, context={"set": {"m": 2}})
        draft = db.branches.fork("main", "draft")
        draft.machines.apply("a", "PAY")
        draft.machines.apply("a", "NOTE")
        at = db.branches.merge("draft").version
        made, other, done = copy(db, tmp_path, kind)
        assert made.rewritten == 2 and done.is_whole
        found, theirs = db.machines.get("a"), other.machines.get("a")
        assert (theirs.state, theirs.context, theirs.machine_version) == ("created", {"n": 1, "m": 2}, 2)
        assert (found.state, found.context, found.machine_version) == ("created", {"n": 1, "m": 2}, 2)
        db.branches.revert(at)
        assert copy(db, tmp_path, kind)[2].is_whole
        db.machines.apply("a", "PAY")
        made, other, done = copy(db, tmp_path, kind)
        assert other.machines.get("a").state == "paid" and done.is_whole


@KINDS
def test_a_merge_that_goes_on_from_another_state(tmp_path, kind):
    """Both sides made one step, and the source another: its step does not begin where the target is."""
    with databases.make(kind, FakeClock()) as db:
        db.machines.define("order", 1, ORDER)
        db.machines.create("order", "a", {"total": 1})
        draft = db.branches.fork("main", "draft")
        draft.machines.apply("a", "PAY")
        draft.machines.apply("a", "SHIP")
        db.machines.apply("a", "NOTE")
        db.branches.merge("draft", strategy="source")
        made, other, done = copy(db, tmp_path, kind)
        assert made.rewritten == 1 and done.is_whole and not other.machines.possible("a")
        assert other.machines.get("a").state == db.machines.get("a").state == "shipped"


@KINDS
def test_history_begins_where_it_can_be_told(tmp_path, kind):
    """rstmdb never lets go of a definition, so what was before that is left out."""
    with databases.make(kind, FakeClock()) as db:
        db.machines.define("order", 1, ORDER)
        db.machines.create("order", "a")
        db.machines.clear()
        db.machines.define("order", 1, {**ORDER, "initial": "paid"})
        db.machines.create("order", "b")
        db.machines.apply("b", "NOTE")
        made, other, _ = copy(db, tmp_path, kind)
        assert made.entries == 3 and seen(other) == {**seen(db), "history": {**seen(db)["history"], "a": []}}


def test_history_that_retention_let_go_of(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.machines.define("order", 1, ORDER)
        db.machines.create("order", "a")
        db.machines.apply("a", "PAY", {"n": 1})
        db.retention.set(strata.KeepLast(1))
        for number in range(5):
            db.machines.apply("a", "NOTE", {"n": number})
            db.machines.apply("a", "PAY")
        db.compact()
        db.machines.apply("a", "NOTE", {"last": True})
        made, other, _ = copy(db, tmp_path, "kernel")
        assert made.entries < 10 and made.rewritten == 0
        assert other.machines.get("a").context == db.machines.get("a").context
        assert history(other.machines, "a")[0] == history(db.machines, "a")[0]


def test_what_cannot_be_exported(db, tmp_path):
    file = tmp_path / "x.rstmbak"
    db.machines.define("order", 1, ORDER)
    db.machines.create("order", "a", {"b": b"bytes"})
    with pytest.raises(InvalidInput) as caught:
        db.export_rstmdb(file)
    assert "'a'" in str(caught.value)
    db.machines.delete("a")
    with pytest.raises(InvalidInput):
        db.export_rstmdb(file, history=1)
    with pytest.raises(NotFound):
        db.space("nobody").export_rstmdb(file)
    assert not list(tmp_path.iterdir())
    db.export_rstmdb(file)
    with pytest.raises(AlreadyExists):
        db.export_rstmdb(file)


def test_exports_of_a_branch_and_space(db, tmp_path):
    space = db.space("shop")
    space.machines.define("order", 1, ORDER)
    space.machines.create("order", "a")
    draft = db.branches.fork("main", "draft").space("shop")
    draft.machines.apply("a", "PAY")
    assert draft.export_rstmdb(tmp_path / "x", history=True).entries == 3
    assert space.export_rstmdb(tmp_path / "y", history=True).entries == 2
    with strata.open() as other:
        other.import_rstmdb(tmp_path / "x")
        assert other.machines.get("a").state == "paid"


# -- on the command line


def test_there_and_back_on_the_command_line(capsys, tmp_path):
    data = directory(tmp_path, PUT, create("a", initial_ctx=None), apply("a"), segment_bytes=300)
    path, file, copy = tmp_path / "db", tmp_path / "x.rstmbak", tmp_path / "copy"
    code, out, errors = strata_(capsys, "import", path, data, "--format", "rstmdb")
    assert (code, errors) == (0, "")
    assert out.splitlines()[0] == "version 2: 1 versions of machines, 1 instances, 1 transitions, 0 deletions"
    assert "null contexts" in out
    assert "3 entries were taken before" in strata_(capsys, "import", path, data, "--format", "rstmdb")[1]
    assert strata_(capsys, "export", path, file, "--history")[1].startswith("1 versions of machines, 1 inst")
    assert strata_(capsys, "export", path, file)[0] == 1  # it is there
    code, out, _ = strata_(capsys, "import", file, "--check")
    assert (
        code == 0 and "1 apply_event, 1 create_instance, 1 put_machine" in out and "backup by strata" in out
    )
    assert (
        strata_(capsys, "import", file, copy, "--space", "shop", "--branch", "main")[0] == 0
    )  # either way round
    with strata.open(path) as ours, strata.open(copy) as theirs:
        assert seen(theirs.space("shop")) == seen(ours)
    code, out, _ = strata_(capsys, "export", copy, tmp_path / "y.rstmbak", "--space", "shop")
    assert code == 0 and "2 entries" in out


def test_damage_on_the_command_line(capsys, tmp_path):
    data = directory(tmp_path, PUT, create("a"), create("\n"), apply("a"))
    file = data / "wal" / "0000000000000001.wal"
    path, rstmdb = tmp_path / "db", ("--format", "rstmdb")
    assert strata_(capsys, "import", path, data, *rstmdb)[0] == 1
    code, out, _ = strata_(capsys, "import", path, data, *rstmdb, "--salvage")
    assert code == 1 and "left out: wal/0000000000000001.wal" in out
    content = bytearray(file.read_bytes())
    content[content.index(b"states")] ^= 1
    file.write_bytes(content + b"WLOG")
    assert strata_(capsys, "import", data, "--check", *rstmdb)[0] == 1
    code, out, _ = strata_(capsys, "import", data, "--check", *rstmdb, "--salvage")
    assert code == 1 and out.count("damage: ") == 2 and "torn tail of 4 bytes" in out


@pytest.mark.parametrize(
    "words",
    [
        ("import", "db", "x.rstmbak", "--table", "t"),
        ("import", "db", "x.rstmbak", "--text"),
        ("import", "db", "x.rstmbak", "--message", "m"),
        ("import", "db", "-", "--format", "rstmdb"),
        ("import", "db", "x.jsonl", "--salvage"),
        ("import", "db", "x.bundle", "--salvage"),
        ("export", "db", "x.rstmbak", "--at", "1"),
        ("export", "db", "x.rstmbak", "--key", "k"),
        ("export", "db", "x.rstmbak", "--bundle-key-file", "k"),
        ("export", "db", "-", "--format", "rstmdb"),
    ],
)
def test_options_that_mean_nothing_there(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    strata.open("db").close()
    code, out, errors = strata_(capsys, *words)
    assert code == 1 and not out and errors
