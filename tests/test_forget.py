"""Forget: gone from all versions, branches, views and files, and nothing else with it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import databases
import pytest

import strata
from strata import KeepLast
from strata.core.refs import EntityRef
from strata.errors import Closed, InvalidInput, LimitExceeded

CANARY = "cAnArY#7"


@pytest.fixture(params=[*databases.KINDS, "directory"])
def db(request, tmp_path):
    on_disk = request.param == "directory"
    with strata.open(tmp_path / "a.strata") if on_disk else databases.make(request.param) as opened:
        yield opened


def fill(place, value=1):
    for key in ("a", "a/b", "b"):
        for version in range(3):
            place.kv.put(key, [value, version])
            place.state.set(key, value)
            place.json.set(key, "$.x", value)
            place.events.append("t", {"v": value}, stream=key)


def keys(face):
    return list(face.kv), list(face.state.list()), list(face.json.list()), face.events.streams()


ALL = ["a", "a/b", "b"]


def test_a_key_goes_from_all_versions_branches_and_views(db):
    fill(db)
    db.branches.fork("main", "before")
    db.kv.put("a", 2)
    db.branches.fork("main", "after")
    db.branch("after").kv.put("a", 3)
    old, older, tx = db.at(db.version), db.at(1), db.transaction()
    before = db.version
    assert older.kv.get("a") == [1, 0]
    db.forget("kv", "a")
    for face in (db, db.branch("before"), db.branch("after"), old, older, tx, db.at(1), db.at(before)):
        assert face.kv.get("a", "gone") == "gone" and not face.kv.exists("a") and "a" not in list(face.kv)
    for place in (db, db.branch("before"), db.branch("after")):
        assert place.kv.history("a") == []
        assert keys(place) == (["a/b", "b"], ALL, ALL, ALL)
        assert place.kv.get("a/b") == [1, 2] and len(place.kv.history("a/b")) == 3
    assert db.version == before and db.verify().ok


def test_each_primitive_forgets_its_own(db):
    fill(db)
    db.forget("state", "a/b")
    assert keys(db) == (ALL, ["a", "b"], ALL, ALL)
    db.forget("json", "b")
    assert keys(db) == (ALL, ["a", "b"], ["a", "a/b"], ALL)
    db.forget("events", "a")
    assert keys(db) == (ALL, ["a", "b"], ["a", "a/b"], ["a/b", "b"])
    db.forget("kv", prefix="a")
    assert keys(db) == (["b"], ["a", "b"], ["a", "a/b"], ["a/b", "b"])
    db.forget("events", prefix="a")
    assert db.events.streams() == ["b"] and db.events.len("b") == 3 and db.verify().ok


def test_a_trace_goes_with_the_rows_by_which_it_is_found(db):
    """Its tags are part of keys, where they would stay."""
    for id in ("t1", "t1-a", "u"):
        db.traces.record("thought", id=id, tags=[CANARY, "kept"] if id == "t1" else ["kept"], started=1)
    db.traces.record("thought", id="below", parent="t1")
    db.branches.fork("main", "f")
    db.branch("f").traces.record("query", id="t2", tags=["kept"])
    db.traces.record("query", id="t2", tags=[CANARY])
    db.forget("traces", "t1")
    assert [trace.id for trace in db.traces.by_tag("kept")] == ["t1-a", "u"]
    assert db.traces.count(tag=CANARY) == 1 and db.traces.count() == 4 and not db.traces.exists("t1")
    db.forget("traces", prefix="t")
    for place in (db, db.branch("f")):
        assert [trace.id for trace in place.traces.list()] == ["u", "below"]
        assert place.traces.count(tag=CANARY) == 0 and place.traces.count(kind="query") == 0
    if db.path is not None:
        assert not any(CANARY.encode() in file.read_bytes() for file in db.path.rglob("*") if file.is_file())


def test_spaces(db):
    for space in ("default", "x", "y"):
        fill(db.space(space))
    db.forget("kv", "a")
    db.forget("kv", "b", space="x")
    assert [list(db.space(space).kv) for space in ("default", "x", "y")] == [["a/b", "b"], ["a", "a/b"], ALL]
    db.forget("kv", "a", space=None)
    assert [list(db.space(space).kv) for space in ("default", "x", "y")] == [
        ["a/b", "b"],
        ["a/b"],
        ["a/b", "b"],
    ]


def test_refs(db):
    fill(db)
    fill(db.space("x"))
    db.forget(EntityRef("main", "x", "kv", "a/b"))
    db.forget(EntityRef.parse("strata://any/default/events/a"))
    assert keys(db) == (ALL, ALL, ALL, ["a/b", "b"])
    assert keys(db.space("x")) == (["a", "b"], ALL, ALL, ALL)


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (("kv",), {}), (("kv", "a"), {"prefix": "a"}), (("kv", ""), {}), (("kv",), {"prefix": ""}),
        (("kv", b"a"), {}), (("kv", 3), {}), (("kv", "a\0"), {}), (("kw", "a"), {}), ((None, "a"), {}),
        (([], "a"), {}), (("events", "_x"), {}), (("events", "a\0"), {}), (("kv", "a"), {"space": "_x"}),
        (("kv", "a"), {"space": 3}), ((EntityRef("main", "default", "kv", "a", ("x",)),), {}),
        ((EntityRef("main", "default", "kv", "a", None, 3),), {}),
        ((EntityRef("main", "default", "kv", "a"), "a"), {}),
        ((EntityRef("main", "default", "kv", "a"),), {"space": "x"}),
        ((EntityRef("main", "default", "kw", "a"),), {}),
        ((EntityRef("main", "default", "events", "a/7"),), {}),
    ],
    ids=repr,
)  # fmt: skip
def test_what_cannot_be_forgotten(db, args, options):
    fill(db)
    with pytest.raises(InvalidInput):
        db.forget(*args, **options)
    assert keys(db) == (ALL, ALL, ALL, ALL)


def test_limits_and_closing(db):
    with pytest.raises(LimitExceeded):
        db.forget("kv", "x" * 1025)
    done = db.forget("kv", "never there")
    assert done.versions_removed == 0
    db.close()
    with pytest.raises(Closed):
        db.forget("kv", "a")


def test_what_is_written_later_begins_anew(db):
    fill(db)
    db.forget("kv", "a")
    db.forget("state", "a")
    db.forget("events", "a")
    db.kv.incr("a")
    assert db.kv.get("a") == 1 and len(db.kv.history("a")) == 1
    db.state.init("a", "x")
    assert db.state.entry("a").counter == 1
    assert db.events.len("b") == 3
    assert [db.events.append("t", {"n": n}, stream="a").sequence for n in range(2)] == [0, 1]
    assert db.events.verify("a").ok and db.verify().ok
    db.compact()
    assert db.kv.get("a") == 1 and db.events.len("a") == 2


def test_a_transaction_goes_on(db):
    fill(db)
    tx = db.transaction()
    assert tx.kv.get("a") == [1, 2]
    tx.kv.put("c", 1)
    db.forget("kv", "a")
    assert tx.kv.get("a") is None and tx.kv.get("c") == 1
    tx.kv.put("a", "new")
    assert tx.kv.get("a") == "new"
    tx.commit()
    assert db.kv.get("a") == "new" and db.kv.get("c") == 1


def test_the_commits_stay(db):
    fill(db)
    db.forget("kv", "a")
    versions = {old.version for old in db.kv.history("b")}
    assert versions <= {commit.version for commit in db.log()}


# -- files -------------------------------------------------------------------------------------------


def holders(path: Path, what: bytes) -> list[str]:
    """The files below `path` that have these bytes. One that goes meanwhile has none any more."""
    found = []
    for file in sorted(path.rglob("*")):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found += [file.name] if what in file.read_bytes() else []
    return found


@pytest.mark.parametrize("durability", ["buffered", "strict"])
@pytest.mark.parametrize("kept", ["in the log", "in runs", "in both"])
def test_no_file_has_a_byte_of_it(tmp_path, durability, kept):
    path = tmp_path / "a.strata"
    with strata.open(path, durability=durability) as db:
        faces = []

        def write(number):
            for name in ("main", "b"):
                for space in ("default", "x"):
                    place = db.branch(name).space(space)
                    place.kv.put("k", {"v": CANARY, "n": number})
                    place.kv.put(f"other{number}", "stays")
                    place.json.set("k", f"$.v{number}", CANARY)
                    place.state.set("k", CANARY)
                    place.events.append("t", {"v": CANARY}, stream="k")
            faces.append(db.at(db.version))

        db.branches.create("b")
        for number in range(6):
            write(number)
            if number == 3 and kept != "in the log":
                db.checkpoint()
        db.branches.fork("b", "c")
        if kept == "in runs":
            db.checkpoint()
        assert holders(path, CANARY.encode())
        for primitive in ("kv", "json", "state", "events"):
            assert db.forget(primitive, "k", space=None).versions_removed > 0
        assert holders(path, CANARY.encode()) == []
        for face in (db, db.branch("b"), db.branch("c"), *faces):
            for space in ("default", "x"):
                assert face.space(space).kv.get("k") is None and face.space(space).kv.get("other0") == "stays"
        assert db.verify().ok
    assert holders(path, CANARY.encode()) == []
    with strata.open(path) as db:
        assert db.kv.get("k") is None and db.kv.count() == 6 and db.verify().ok
        assert holders(path, CANARY.encode()) == []


def test_a_large_value_goes_too(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        value = CANARY.encode() + bytes(range(256)) * 4096
        db.kv.put("k", value)
        db.checkpoint()
        db.kv.put("k", value[::-1] + CANARY.encode())
        db.forget("kv", "k")
        assert holders(path, CANARY.encode()) == []


def test_under_a_policy_and_after_other_compactions(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        db.retention.set(KeepLast(2))
        for number in range(20):
            db.kv.put("k", f"{CANARY}{number}")
            db.kv.put("o", number)
            if number % 7 == 0:
                db.compact()
        view = db.at(db.version)
        db.forget("kv", "k")
        assert holders(path, CANARY.encode()) == [] and view.kv.get("k") is None
        assert [old.value for old in db.kv.history("o")][:2] == [19, 18]


def test_several_at_once(tmp_path):
    path = tmp_path / "a.strata"
    with strata.open(path) as db:
        for number in range(8):
            db.kv.put(f"k{number}", f"{CANARY}{number};")
        errors = []

        def one(number):
            try:
                db.forget("kv", f"k{number}")
                if holders(path, f"{CANARY}{number};".encode()) or db.kv.exists(f"k{number}"):
                    errors.append(number)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == [] and holders(path, CANARY.encode()) == []


def test_readers_do_not_bring_it_back(tmp_path):
    """A row that is read from a run is kept in memory; one read during the erasure must not stay there."""
    names = [f"k{number:04}" for number in range(3000)]
    with strata.open(tmp_path / "a.strata") as db:
        db.kv.put_many(dict.fromkeys(names, 1))
    with strata.open(tmp_path / "a.strata") as db:
        over = threading.Event()

        def read():
            while not over.is_set():
                for name in names[::50]:
                    db.kv.get(name)

        thread = threading.Thread(target=read)
        thread.start()
        db.forget("kv", prefix="k")
        seen = [name for name in names if db.kv.exists(name)]
        over.set()
        thread.join()
        assert seen == [] and db.kv.count() == 0


def test_a_crash_after_it_brings_nothing_back():
    """And what is put under the key later stays."""
    for seed in range(12):
        disk = strata.testing.SimDisk(seed)
        db = strata.open(disk=disk, durability="strict")
        db.kv.put("k", CANARY)
        db.kv.put("other", 1)
        db.forget("kv", "k")
        for left in (disk.killed(), disk.crash(seed)):
            with strata.open(disk=left) as again:
                assert (
                    again.kv.get("k") is None and again.kv.history("k") == [] and again.kv.get("other") == 1
                )
                again.kv.put("k", "new")
            with strata.open(disk=left) as again:
                assert again.kv.get("k") == "new"
        db.close()
