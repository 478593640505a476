"""Import of what rstmdb logged: it equals what the same operations give here, and nothing is taken twice."""

from __future__ import annotations

import json

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rstmdb_logs import (
    ORDER,
    PUT,
    WHEN,
    apply,
    archive,
    calls,
    create,
    directory,
    history,
    raw,
    records,
    seen,
)

from strata.api.rstmdb import importing, write_archive, write_segments
from strata.core.errors import Corrupt, InvalidInput, NotFound, StrataError
from strata.testing import FakeClock

DELETE = {"type": "delete_instance", "instance_id": "a"}
SNAPSHOT = {"type": "snapshot", "instance_id": "a", "snapshot_id": "s", "state": "paid", "ctx": {"n": 1}}


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param, FakeClock()) as db:
        yield db


# -- the same as here


def run(db, calls):
    """Run calls here; return what rstmdb would have logged of those that were done."""
    db.machines.define("order", 1, ORDER)
    entries = [PUT]
    for id, what, payload, event_id in calls:
        try:
            if what == "create":
                made = db.machines.create("order", id, payload)
                entries.append(create(id, initial_ctx=made.context))
            elif what == "delete":
                was_there = db.machines.exists(id)
                db.machines.delete(id)
                if was_there:
                    entries.append({**DELETE, "instance_id": id})
            else:
                done = db.machines.apply(id, what, payload, event_id=event_id)
                entry = apply(id, what, done.from_state, done.to_state, payload=payload, ctx=done.context)
                entries.append(entry if event_id is None else {**entry, "event_id": event_id})
        except StrataError:
            pass
    return entries


@settings(deadline=None)
@given(
    calls=st.lists(calls, max_size=30),
    batch=st.integers(1, 12),
    segment_bytes=st.integers(100, 2000),
    kind=st.sampled_from(databases.KINDS),
)
def test_an_import_equals_the_operations(tmp_path_factory, calls, batch, segment_bytes, kind):
    """However commits and segments are cut: each instance, its history, and where it is listed."""
    with databases.make(kind) as ours, databases.make(kind) as theirs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "_BATCH", batch)
        entries = run(ours, calls)
        path = directory(tmp_path_factory.mktemp("x"), *entries, segment_bytes=segment_bytes)
        done = theirs.import_rstmdb(path)
        assert seen(theirs) == seen(ours)
        counted = done.machines + done.instances + done.transitions + done.deletions
        assert (
            counted == len(entries) and done.is_whole and not (done.irregular or done.mended or done.orphans)
        )
        again = theirs.import_rstmdb(path)
        assert again.skipped == len(entries) and again.version == done.version and again.offset == done.offset


@settings(deadline=None, max_examples=50)
@given(calls=st.lists(calls, min_size=5, max_size=30), cut=st.integers(1, 30), batch=st.integers(1, 5),
       kind=st.sampled_from(databases.KINDS))  # fmt: skip
def test_an_import_goes_on_where_it_was(tmp_path_factory, calls, cut, batch, kind):
    """After a crash between two commits, and when the log has grown."""
    with databases.make(kind) as ours, databases.make(kind) as theirs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "_BATCH", batch)
        entries = run(ours, calls)
        tmp_path = tmp_path_factory.mktemp("x")
        older = directory(tmp_path, *entries[:cut], name="older", segment_bytes=700)
        newer = directory(tmp_path, *entries, name="newer", segment_bytes=700)

        def crash(done, whole):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            theirs.import_rstmdb(older, progress=crash)
        first = theirs.import_rstmdb(older)
        second = theirs.import_rstmdb(newer)
        assert (first.skipped, second.skipped) == (min(batch, first.skipped), len(entries[:cut]))
        assert seen(theirs) == seen(ours)


# -- what is not as it would be here


def test_what_the_definition_would_not_have_done(db, tmp_path):
    """The log is the truth: rstmdb reads some guards otherwise, and once had other definitions."""
    log = [
        PUT,
        create("a", initial_state="paid", initial_ctx={"total": 0}),
        apply(
            "a", "SHIP", "paid", "shipped", payload={"x": 1}, ctx={"total": 0, "x": 1}
        ),  # the guard says no
        apply("a", "LOSE", "shipped", "created", ctx={"y": 2}),  # there is no such way
        apply("a", "PAY", "created", "paid", payload={"z": 1}, ctx={"y": 2, "z": 1}),
    ]
    done = db.import_rstmdb(directory(tmp_path, *log))
    assert (done.instances, done.transitions, done.irregular, done.is_whole) == (1, 3, 3, True)
    assert history(db.machines, "a")[::-1] == [
        (None, None, "paid", {"total": 0}, None, None),
        ("SHIP", "paid", "shipped", {"total": 0, "x": 1}, {"x": 1}, None),
        ("LOSE", "shipped", "created", {"y": 2}, None, None),
        ("PAY", "created", "paid", {"y": 2, "z": 1}, {"z": 1}, None),
    ]
    assert [found.id for found in db.machines.list("order", "paid")] == ["a"]
    db.machines.apply("a", "NOTE")  # and it goes on from there


def test_contexts_that_are_no_maps(db, tmp_path):
    """Without a context rstmdb keeps null, and every payload is lost; ours is empty."""
    log = [
        PUT,
        create("a", initial_ctx=None),
        apply("a", payload={"n": 1}, ctx=None),
        create("b", initial_ctx=[1]),
        apply("b", payload="text", ctx=[1], event_id=""),
    ]
    done = db.import_rstmdb(directory(tmp_path, *log))
    assert done.mended == 4 and done.is_whole
    assert db.machines.get("a").context == {} and db.machines.get("b").context == {"value": [1]}
    assert [step[4] for step in history(db.machines, "a")] == [{}, None]
    assert db.machines.get("b").event_id is None


@pytest.mark.parametrize(
    ("guard", "kept"),
    [("ctx.n == 1 and more", "ctx.n == 1"), ("ctx.n = 1", "ctx.n"), ("ctx.n == 1 ", "ctx.n == 1 ")],
)
def test_guards_with_text_behind_them(db, tmp_path, guard, kept):
    """rstmdb stops reading where its grammar ends."""
    definition = {**ORDER, "transitions": [{"from": "created", "event": "PAY", "to": "paid", "guard": guard}]}
    done = db.import_rstmdb(directory(tmp_path, {**PUT, "definition": definition}))
    assert db.machines.machine("order").definition["transitions"][0]["guard"] == kept
    assert done.mended == (guard != kept)


def test_what_rstmdb_drops_of_a_definition_means_nothing_here(db, tmp_path):
    """Somebody's notes under names that are ours: they never did anything."""
    notes = {"timers": [{"state": "created", "after": 60, "event": "PAY"}], "actions": "see the wiki", "x": 1}
    log = [{**PUT, "definition": {**ORDER, **notes}}, create("a")]
    assert db.import_rstmdb(directory(tmp_path, *log)).mended == 0
    assert not db.machines.machine("order").definition.keys() & notes.keys()
    assert db.machines.next_due() is None


def test_entries_that_say_nothing(db, tmp_path):
    log = [{"type": "noop"}, {"type": "checkpoint", "timestamp": 1}, PUT]
    log += [SNAPSHOT, create("a", initial_state="paid", initial_ctx={"n": 1}), SNAPSHOT]
    done = db.import_rstmdb(directory(tmp_path, *log))
    assert (done.machines, done.orphans, done.instances, done.transitions) == (1, 1, 1, 0)


def test_a_snapshot_of_what_is_not_so(db, tmp_path):
    """So our listener says that an instance was migrated, which rstmdb has no entry for."""
    newer = {**PUT, "version": 2, "definition": {**ORDER, "states": [*ORDER["states"], "lost"]}}
    log = [PUT, newer, create("a", initial_ctx={"n": 1}), SNAPSHOT]
    done = db.import_rstmdb(directory(tmp_path, *log, segment_bytes=1))
    assert (done.transitions, done.irregular, done.is_whole) == (1, 1, True)
    assert db.machines.get("a").state == "paid"
    log.append({**SNAPSHOT, "state": "lost", "ctx": {}, "version": 2})
    db.import_rstmdb(directory(tmp_path, *log, name="later", segment_bytes=1))
    found = db.machines.get("a")
    assert (found.state, found.context, found.machine_version, found.steps) == ("lost", {}, 2, 2)
    assert [step.from_state for step in db.machines.history("a")] == ["paid", "created", None]
    assert [found.id for found in db.machines.list("order", "lost")] == ["a"]
    log.append({**SNAPSHOT, "version": 7})
    with pytest.raises(InvalidInput):
        db.import_rstmdb(directory(tmp_path, *log, name="wrong", segment_bytes=1))


def test_what_compaction_has_removed(db, tmp_path):
    """The first segments are gone, and with them what made instances: rstmdb ignores the rest of these."""
    path = directory(tmp_path, PUT, create("a"), PUT, apply("a"), DELETE, create("b"), segment_bytes=1)
    for number in (1, 2):
        (path / "wal" / f"{number:016x}.wal").unlink()
    done = db.import_rstmdb(path)
    assert (done.machines, done.orphans, done.instances, done.is_whole) == (1, 2, 1, True)
    assert [found.id for found in db.machines] == ["b"]


REFUSED = [
    {**PUT, "version": 0},
    {**PUT, "version": 2, "definition": None},
    {**PUT, "version": 2, "definition": {"states": []}},
    {**PUT, "version": 2, "definition": {**ORDER, "transitions": [{"from": "created"}]}},
    {**PUT, "version": 2, "definition": {**ORDER, "transitions": 5}},
    {**PUT, "definition": {**ORDER, "initial": "paid"}},  # another one under the same version
    {**PUT, "machine": "x" * 300},
    {**PUT, "machine": 5},
    create("a"),  # it is there
    create("b", machine="nobody"),
    create("b", version=7),
    create("b", initial_state="lost"),
    create("\n"),
    create("x" * 300),
    create("b", initial_ctx={"n": 2**63}),
    create("b", initial_ctx=json.loads("[" * 200 + "]" * 200)),
    create("b", initial_state=None),
    apply("a", from_="shipped"),  # it is not there
    apply("a", to="lost"),
    apply("a", ctx={"n": 2**64 - 1}),
    apply("a", payload={"n": 2**63}),
    apply(["a"]),
]


@pytest.mark.parametrize("entry", REFUSED)
def test_what_cannot_be_kept(db, tmp_path, entry):
    """It ends the import, and says where; or it is left out and listed, and all else is there."""
    log = [PUT, create("a"), entry, apply("a")]
    path = directory(tmp_path, *log)
    with pytest.raises(InvalidInput) as caught:
        db.import_rstmdb(path)
    offset = (1 << 40) + len(raw(PUT, payload=_text(PUT))) + len(raw(log[1], payload=_text(log[1])))
    assert f"offset {offset}" in str(caught.value) and caught.value.hint
    done = db.import_rstmdb(path, salvage=True)
    if entry["type"] == "apply_event" and entry.get("from_state") == "shipped":
        assert done.transitions == 2 and done.irregular == 2 and done.is_whole  # taken as it is
        return
    assert (done.refused, done.transitions, done.is_whole) == (1, 1, False)
    (refused,) = done.first_refused
    assert refused.offset == offset and refused.type == entry["type"] and refused.reason and str(refused)
    assert db.machines.get("a").state == "paid"


def _text(entry):
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["a", "order", "created", "PAY", "", "\n", "_machine/a", "x" * 300]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["n", "states", ""]), inner),
    max_leaves=4,
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from([PUT, create("a"), apply("a"), DELETE, SNAPSHOT]),
    st.dictionaries(st.sampled_from(["machine", "version", "definition", "definition_hash", "instance_id",
        "initial_state", "initial_ctx", "event", "from_state", "to_state", "payload", "ctx", "event_id",
        "state"]),
        anything, max_size=2),
), max_size=6))  # fmt: skip
def test_whatever_an_entry_says(tmp_path_factory, drawn):
    """It is taken or refused, and then the entry is named; with salvage all others are there."""
    path = directory(tmp_path_factory.mktemp("x"), PUT, *[entry | wrong for entry, wrong in drawn])
    with databases.make("kernel") as db:
        done = db.import_rstmdb(path, salvage=True)
        taken = done.instances + done.transitions + done.deletions + done.orphans
        told = [entry for entry, _ in drawn if entry not in (PUT, SNAPSHOT)]  # these may be so already
        assert taken + done.refused >= len(told)
        assert len(done.first_refused) == done.refused
        for found in db.machines:
            assert found.state in db.machines.machine(found.machine, found.machine_version).states
        with databases.make("kernel") as other:
            try:
                assert other.import_rstmdb(path).refused == done.refused == 0
            except InvalidInput as error:
                assert "offset" in str(error)


def test_only_the_first_refusals_are_listed(db, tmp_path):
    done = db.import_rstmdb(directory(tmp_path, PUT, *[create("\n")] * 250), salvage=True)
    assert done.refused == 250 and len(done.first_refused) == 100


# -- damage


def test_a_torn_tail(db, tmp_path):
    path = directory(tmp_path, PUT, create("a"))
    file = path / "wal" / "0000000000000001.wal"
    whole = file.read_bytes()
    file.write_bytes(whole + raw(apply("a"), 3)[:40])
    done = db.import_rstmdb(path)
    (damage,) = done.damage
    assert damage.is_tail and done.is_whole and (damage.at, damage.length) == (len(whole), 40)
    assert "torn tail" in str(damage)
    file.write_bytes(whole + raw(apply("a"), 3))  # the server was only about to write it
    assert db.import_rstmdb(path).transitions == 1


def test_damage_in_the_middle(db, tmp_path):
    path = directory(tmp_path, PUT, create("a"), apply("a"), apply("a", "NOTE", "paid", "created"))
    file = path / "wal" / "0000000000000001.wal"
    content = bytearray(file.read_bytes())
    content[content.index(b"PAY", content.index(b"apply_event"))] ^= 1
    file.write_bytes(content)
    with pytest.raises(Corrupt):
        db.import_rstmdb(path)
    assert not db.machines.exists("a") or db.machines.get("a").state == "created"
    done = db.import_rstmdb(path, salvage=True)
    assert not done.is_whole and len(done.damage) == 1 and done.transitions == 1
    assert db.machines.get("a").state == "created" and db.machines.get("a").steps == 1


def test_a_damaged_backup_changes_nothing(db, tmp_path):
    """All of it is checked first, the last byte too."""
    file = tmp_path / "x.rstmbak"
    write_archive(records([PUT, create("a")]), file, **WHEN)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Corrupt):
        db.import_rstmdb(file)
    assert db.version == 0
    assert db.import_rstmdb(file, salvage=True).instances == 1


def test_backups(db, tmp_path):
    file = tmp_path / "x.rstmbak"
    log = [PUT, create("a"), apply("a"), DELETE]
    file.write_bytes(archive({"wal/0000000000000001.wal": b"".join(map(raw, log))}))
    calls = []
    done = db.import_rstmdb(file, progress=lambda *said: calls.append(said))
    assert (done.machines, done.instances, done.transitions, done.deletions) == (1, 1, 1, 1)
    assert len(calls) == 3 and calls == sorted(calls)  # the deletion has a commit of its own
    assert all(0 <= at <= whole for at, whole in calls) and calls[-1][0] == calls[-1][1]
    assert [commit.actor for commit in db.log(limit=2)] == ["rstmdb import"] * 2


# -- where it was


def test_another_log_is_refused(db, tmp_path):
    """Its records lie at the same offsets, and one of them is even the same."""
    db.import_rstmdb(directory(tmp_path, PUT, create("a"), create("b")))
    for number, log in enumerate(
        [(PUT, create("b"), create("b"), create("c")), (PUT,), (PUT, create("a"), PUT)]
    ):
        with pytest.raises(InvalidInput):
            db.import_rstmdb(directory(tmp_path, *log, name=str(number)))
    assert [found.id for found in db.machines] == ["a", "b"]
    assert db.space("other").import_rstmdb(directory(tmp_path, PUT, create("z"), name="z")).instances == 1


def test_a_log_that_has_lost_what_came_next(db, tmp_path):
    path = directory(tmp_path, PUT, create("a"), segment_bytes=1)
    db.import_rstmdb(path)
    write_segments(records([PUT, create("a"), create("b"), create("c")]), tmp_path / "later", segment_bytes=1)
    for number in (1, 2):
        (tmp_path / "later" / "wal" / f"{number:016x}.wal").unlink()
    with pytest.raises(InvalidInput):  # there may have been more in the second one
        db.import_rstmdb(tmp_path / "later")


def test_compaction_before_what_was_imported_is_no_matter(db, tmp_path):
    db.import_rstmdb(directory(tmp_path, PUT, create("a"), create("b"), segment_bytes=1))
    path = directory(tmp_path, PUT, create("a"), create("b"), create("c"), name="later", segment_bytes=1)
    (path / "wal" / f"{1:016x}.wal").unlink()
    done = db.import_rstmdb(path)
    assert (done.skipped, done.instances) == (3, 1)


def test_what_was_changed_here_is_not_overwritten(db, tmp_path):
    """Both went on with one instance: which is right, nobody but its owner knows."""
    log = [PUT, create("a"), create("b")]
    db.import_rstmdb(directory(tmp_path, *log))
    db.machines.apply("a", "PAY")
    db.machines.create("order", "c")
    for number, entry in enumerate([apply("a", "NOTE", "created", "created"), create("c")]):
        path = directory(tmp_path, *log, entry, name=str(number))
        with pytest.raises(InvalidInput):
            db.import_rstmdb(path)
    assert db.machines.get("a").state == "paid"
    assert db.import_rstmdb(path, salvage=True).refused == 1


def test_clearing_begins_anew(db, tmp_path):
    path = directory(tmp_path, PUT, create("a"))
    db.import_rstmdb(path)
    db.machines.clear()
    assert db.import_rstmdb(path).instances == 1


def test_the_cell_that_says_how_far(db, tmp_path):
    path = directory(tmp_path, PUT)
    done = db.import_rstmdb(path)
    assert db.state.get("rstmdb import")["offset"] == done.offset == 1 << 40
    db.state.set("rstmdb import", {"offset": "?"})
    with pytest.raises(InvalidInput):
        db.import_rstmdb(path)
    db.state.delete("rstmdb import")
    assert db.import_rstmdb(path).machines == 0  # it is defined already


def test_two_imports_at_once(db, tmp_path, monkeypatch):
    """The other one comes first in between: this one ends, rather than take anything twice."""
    monkeypatch.setattr(importing, "_BATCH", 1)
    path = directory(tmp_path, PUT, create("a"), create("b"))

    def other(done, whole):
        if not db.machines.exists("b"):
            db.import_rstmdb(path)

    with pytest.raises(InvalidInput):
        db.import_rstmdb(path, progress=other)
    assert [found.id for found in db.machines] == ["a", "b"]


def test_where_there_is_nothing(db, tmp_path):
    with pytest.raises(NotFound):
        db.import_rstmdb(tmp_path / "none")
    with pytest.raises(InvalidInput):
        db.import_rstmdb(tmp_path)
    (tmp_path / "x").write_bytes(b"no backup")
    for path in (tmp_path / "x", 5, ""):
        with pytest.raises(InvalidInput):
            db.import_rstmdb(path)
