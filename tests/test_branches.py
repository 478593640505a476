"""Branches: make, find, rename, delete (semantics.md §6), and what each of them sees."""

from __future__ import annotations

import shutil

import databases
import pytest

import strata
from strata.core.errors import run_over
from strata.errors import AlreadyExists, HistoryTrimmed, InvalidInput, NotFound, Protected, RunClosed
from strata.testing import Model


@pytest.fixture(params=databases.KINDS)
def db(request):
    with databases.make(request.param) as database:
        yield database


def test_a_new_database_has_main(db):
    assert list(db.branches) == ["main"] and len(db.branches) == 1
    assert "main" in db.branches and "other" not in db.branches and 7 not in db.branches
    info = db.branches.get("main")
    assert (info.name, info.parent, info.fork_version) == ("main", None, None)


def test_create_makes_an_empty_branch(db):
    db.kv.put("k", 1)
    empty = db.branches.create("empty")
    assert (empty.name, list(empty.kv)) == ("empty", [])
    assert db.branches.get("empty").parent is None
    empty.kv.put("k", 2)
    assert db.kv.get("k") == 1


def test_what_differs_between_two_versions_from_before_a_fork_is_seen_on_it(db):
    """It was nothing: only commits of the fork itself were looked at, and it had made none by then."""
    first = db.kv.put("a", 1)
    second = db.json.set("doc", "$.a", 1)
    store = db.branches.fork("main", "draft")._store
    store.fork("draft", "deep")
    for name in ("draft", "deep"):
        views = [store.branch(name).view(version) for version in (0, first, second)]
        assert [row[2] for row in views[0].diff(views[1]).page(9)] == [b"a"]
        assert [row[2] for row in views[1].diff(views[2]).page(9)] == [b"doc"]
        assert [row[2] for row in views[2].diff(views[0]).page(9)] == [b"doc", b"a"]
        assert views[2].how(views[1], "default", "json", b"doc")[1] == [("a",)]


def test_a_fork_sees_what_was_and_nothing_that_comes(db):
    db.kv.put_many({"a": 1, "b": 1})
    draft = db.branches.fork("main", "draft")
    db.kv.put("a", 2)
    draft.kv.put("b", 2)
    draft.kv.delete("a")
    draft.kv.put("c", 2)
    assert dict(db.kv.scan(limit=9)) == {"a": 2, "b": 1}
    assert dict(draft.kv.scan(limit=9)) == {"b": 2, "c": 2}


def test_a_fork_of_the_past(db):
    versions = [db.kv.put("k", number) for number in range(4)]
    assert db.branches.fork("main", "by-version", at=versions[1]).kv.get("k") == 1
    instant = db.kv.history("k")[1].timestamp
    expected = db.at(instant).kv.get("k")
    assert db.branches.fork("main", "by-instant", at=instant).kv.get("k") == expected
    assert db.branches.fork("main", "by-text", at=instant.isoformat()).kv.get("k") == expected
    assert list(db.branches.fork("main", "nothing", at=0).kv) == []
    assert db.branches.get("by-version").fork_version == versions[1]
    assert db.branches.get("by-version").parent == "main"


def test_a_protected_branch_takes_no_writes_and_stays(db):
    db.kv.put("k", 1)
    kept = db.branches.fork("main", "kept")
    open_since_before = kept.transaction()
    open_since_before.kv.put("k", 2)
    db.branches.protect("kept", "released")
    info = db.branches.get("kept")
    assert (info.sealed, info.protected) == ("released", True)
    writes = (
        open_since_before.commit,
        lambda: kept.kv.put("k", 2),
        lambda: kept.kv.delete("nothing"),
        lambda: kept.kv.incr("n"),
        lambda: kept.kv.put_many({"a": 1}),
        lambda: kept.events.append("e", {}),
        lambda: kept.json.set("d", "$.a", 1),
        lambda: kept.state.set("s", 1),
        lambda: db.branches.delete("kept"),
        lambda: db.branches.rename("kept", "other"),
    )
    for write in writes:
        with pytest.raises(Protected, match="released") as caught:
            write()
        assert (caught.value.branch, caught.value.reason) == ("kept", "released")
    assert dict(kept.kv.scan()) == {"k": 1}
    kept.transaction().commit()  # which wrote nothing
    db.branches.fork("kept", "free").kv.put("k", 3)
    db.branches.unprotect("kept")
    kept.kv.put("k", 4)
    assert db.branches.get("kept").sealed is None
    with pytest.raises(NotFound):
        db.branches.protect("nobody")


def test_the_branch_of_a_run_that_is_over_stays_closed(db):
    db.branches.fork("main", "work")
    db._store.seal("work", run_over("r 1 is not this", "failed"))
    with pytest.raises(RunClosed) as caught:
        db.branch("work").kv.put("k", 1)
    assert (caught.value.run, caught.value.status) == ("r 1 is not this", "failed")
    with pytest.raises(RunClosed):
        db.branches.unprotect("work")
    db.branches.rename("work", "done")
    db.branches.delete("done")


def test_a_tag_names_a_version_that_stays(db):
    first = db.kv.put("k", 1)
    tag = db.branches.tag("v1", note="good")
    assert (tag.name, tag.branch, tag.version, tag.note) == ("v1", "main", first, "good")
    second = db.kv.put("k", 2)
    assert db.branches.tag("v2", at=second - 1).version in (first, second - 1)
    assert db.at(db.branches.tags["v1"]).kv.get("k") == 1
    assert db.branches.fork("main", "from-tag", at=tag).kv.get("k") == 1
    assert list(db.branches.tags) == ["v1", "v2"]
    with pytest.raises(AlreadyExists):
        db.branches.tag("v1")
    with pytest.raises(InvalidInput, match="of branch 'main'"):
        db.branch("from-tag").at(tag)
    for name in ("", "_v", "a\nb", 7):
        with pytest.raises(InvalidInput):
            db.branches.tag(name)
    db.branches.untag("v1")
    with pytest.raises(NotFound):
        db.branches.untag("v1")
    db.branches.tag("gone", "from-tag")
    db.branches.delete("from-tag")
    assert list(db.branches.tags) == ["v2"]


def test_seals_and_tags_outlive_the_process(tmp_path):
    for checkpointed in (False, True):
        path = tmp_path / f"{checkpointed}"
        with strata.open(path) as db:
            first = db.kv.put("k", 1)
            db.branches.tag("v1", note="ä")
            db.kv.put("k", 2)
            db.branches.fork("main", "kept")
            db.branches.protect("kept", "released")
            db.kv.put("k", 3)
            db.retention.set(strata.KeepLast(1))
            db.compact() if checkpointed else shutil.copytree(path, tmp_path / "killed")
        with strata.open(path if checkpointed else tmp_path / "killed") as db:
            tag = db.branches.tags["v1"]
            assert (tag.version, tag.note) == (first, "ä")
            assert db.at(tag).kv.get("k") == 1
            with pytest.raises(Protected, match="released"):
                db.branch("kept").kv.put("k", 3)
            if checkpointed:
                db.kv.put("k", 4)
                db.branches.untag("v1")
                db.compact()
                with pytest.raises(HistoryTrimmed):
                    db.at(tag.version).kv.get("k")


def test_forks_of_forks(db):
    db.kv.put("depth", 0)
    for depth in range(1, 20):
        fork = db.branches.fork(f"b{depth - 1}" if depth > 1 else "main", f"b{depth}")
        assert fork.kv.get("depth") == depth - 1
        fork.kv.put("depth", depth)
    assert [db.branch(f"b{depth}").kv.get("depth") for depth in range(1, 20)] == list(range(1, 20))
    assert db.kv.get("depth") == 0


def test_a_fork_continues_the_streams_of_its_parent(db):
    db.events.append("t", {"on": "main"})
    fork = db.branches.fork("main", "b")
    assert (
        fork.events.append("t", {"on": "b"}).sequence,
        db.events.append("t", {"on": "main"}).sequence,
    ) == (1, 1)
    assert fork.events.get(0).hash == db.events.get(0).hash
    assert fork.events.get(1).hash != db.events.get(1).hash
    assert fork.events.verify().ok


def test_list_is_sorted_and_says_what_is_known(db):
    db.branches.fork("main", "b")
    db.branches.create("a")
    version = db.branch("b").kv.put("k", 1)
    infos = db.branches.list()
    assert [info.name for info in infos] == list(db.branches) == ["a", "b", "main"]
    assert infos[1].head == version == db.branch("b").version
    assert len({info.id for info in infos}) == 3
    assert all(info.created > 0 for info in infos[:2])


def test_rename_keeps_content_and_handles(db):
    draft = db.branches.fork("main", "draft")
    draft.kv.put("k", 1)
    before = db.branches.get("draft").id
    assert isinstance(db.branches.rename("draft", "final"), int)
    assert db.branch("final").kv.get("k") == draft.kv.get("k") == 1
    assert "draft" not in db.branches and db.branches.get("final").id == before
    assert draft.name == "final"


def test_delete(db):
    draft = db.branches.fork("main", "draft")
    child = db.branches.fork("draft", "child")
    draft.kv.put("k", 1)
    assert isinstance(db.branches.delete("draft"), int)
    assert "draft" not in db.branches
    for use in (lambda: draft.kv.put("k", 2), lambda: draft.kv.get("k"), lambda: db.branch("draft")):
        with pytest.raises(NotFound):
            use()
    child.kv.put("k", 3)
    assert child.kv.get("k") == 3
    assert db.branches.get("child").parent is None


def test_a_deleted_branch_leaves_its_children_what_they_see(db):
    parent = db.branches.create("parent")
    parent.kv.put("k", 1)
    child = db.branches.fork("parent", "child")
    db.branches.delete("parent")
    assert child.kv.get("k") == 1
    again = db.branches.create("parent")
    assert list(again.kv) == []
    assert child.kv.get("k") == 1


def test_a_transaction_on_a_branch_that_goes_is_refused(db):
    tx = db.branches.create("b").transaction()
    tx.kv.put("k", 1)
    db.branches.delete("b")
    with pytest.raises(NotFound):
        tx.commit()


def test_names_are_unique(db):
    db.branches.create("b")
    before = db.branches.list()
    for use in (
        lambda: db.branches.create("b"), lambda: db.branches.fork("main", "b"),
        lambda: db.branches.rename("main", "b")
    ):  # fmt: skip
        with pytest.raises(AlreadyExists):
            use()
    assert db.branches.list() == before


def test_unknown_branches_are_named_with_what_was_probably_meant(db):
    for use in (
        lambda: db.branch("mian"), lambda: db.branches.get("mian"), lambda: db.branches.fork("mian", "b"),
        lambda: db.branches.delete("mian"), lambda: db.branches.rename("mian", "b"),
        lambda: db.branches.fork("mian", "b", at=0),
    ):  # fmt: skip
        with pytest.raises(NotFound) as error:
            use()
        assert "mian" in str(error.value)
    if isinstance(db._store, Model):
        return  # the oracle does not guess
    with pytest.raises(NotFound, match="did you mean 'main'"):
        db.branch("mian")


@pytest.mark.parametrize("at", [-1, "yesterday", 1.5])
def test_a_fork_at_what_is_no_point_in_history(db, at):
    db.kv.put("k", 1)
    with pytest.raises(InvalidInput):
        db.branches.fork("main", "b", at=at)
    assert "b" not in db.branches
