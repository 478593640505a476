"""Bundles: what goes out comes in again, whatever it is called, and what is no bundle is refused."""

from __future__ import annotations

import os
import shutil
import threading

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strata
from strata.cli import main
from strata.errors import AlreadyExists, Corrupt, InvalidInput, NotFound, ReadOnly, StorageError

# Names that lead elsewhere where somebody takes them for paths.
NAMES = [
    "..", "../..", "../../../../etc/passwd", "/etc/passwd", "//host/share", "a/../../b",
    "./x", "x/.", "~root", "~",
    "C:\\Windows", "..\\..\\x", "\\\\?\\C:\\x", "CON", "NUL", "/dev/null", "/dev/stdin", "/proc/self/mem",
    "LOCK", "MANIFEST",
    "WAL/wal-000001.seg", "DATA/run-000001.run", "-rf", "--", "$(touch x)", "`x`", "a;b", "a|b",
    "%2e%2e%2f", "..%00",
    "\u202e..", "ö/ä", "e\u0301", "\ufeff", " ", ". ", "a" * 255, "\u2028", "file:///etc", "*", "?", "'", '"',
]  # fmt: skip


def filled(path=None):
    db = strata.open(path)
    for name in NAMES:
        db.kv.put(name, name)
        db.space(name).json.set(name, "$", {"n": name})
        db.events.append("step", {"n": name}, stream=name)
    for name in NAMES:
        db.branches.fork("main", name).state.set(name, name)
    db.kv.put("gone", 1)
    db.kv.delete("gone")
    return db


def content(db):
    """What every branch holds now, without versions."""
    return {
        info.name: {
            space: (
                list(db.branch(info.name).space(space).kv.scan()),
                [(key, at.space(space).json.get(key)) for key in at.space(space).json.list()],
                [(e.stream, e.sequence, e.payload, e.hash) for s in at.space(space).events.streams()
                 for e in at.space(space).events.range(stream=s)],
                list(at.space(space).state.list()),
            )
            for at in [db.branch(info.name)]
            for space in at.spaces
        }
        for info in db.branches.list()
    }  # fmt: skip


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("history", [False, True])
def test_names_are_content_and_never_paths(tmp_path, on_disk, history):
    home = tmp_path / "home"
    home.mkdir()
    db = filled(home / "db" if on_disk else None)
    made = db.export(home / "out", history=history)
    assert made.history is history and made.branches == tuple(sorted(["main", *NAMES]))
    assert strata.verify_bundle(home / "out") == made
    assert strata.import_(home / "out", home / "again") == made
    with strata.open(home / "again") as again:
        assert content(again) == content(db)
        assert again.verify().ok
        assert again.export(home / "more", history=history).sha256 == made.sha256
        if history:
            assert again.log() == db.log()
    assert sorted(os.listdir(home)) == sorted(["again", "out", "more", *(["db"] if on_disk else [])])
    assert os.listdir(tmp_path) == ["home"]


def test_one_branch(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.kv.put("a", 1)
        draft = db.branches.fork("main", "draft")
        db.kv.put("a", 2)
        draft.kv.put("b", 3)
        for history in (False, True):
            out, again = tmp_path / f"out{history}", tmp_path / f"again{history}"
            assert db.export(out, branch="draft", history=history).branches == ("draft",)
            strata.import_(out, again)
            with strata.open(again) as other:
                assert [info.name for info in other.branches.list()] == ["draft", "main"]
                assert other.kv.count() == 0
                assert list(other.branch("draft").kv.scan()) == [("a", 1), ("b", 3)]
                if history:
                    assert other.branch("draft").log() != []
                    assert list(other.branch("draft").kv.history("a")) == list(draft.kv.history("a"))
                other.branch("draft").kv.put("c", 4)
            with strata.open(again) as other:
                assert other.verify().ok and other.branch("draft").kv.count() == 3
        with pytest.raises(NotFound):
            db.export(tmp_path / "none", branch="none")


def test_a_read_only_database_is_exported_with_its_log(tmp_path):
    with strata.open(tmp_path / "db") as db:
        db.kv.put("a", 1)
        db.checkpoint()
        db.kv.put("a", 2)
        shutil.copytree(tmp_path / "db", tmp_path / "copy")
        here = [db.export(tmp_path / f"here{history}", history=history) for history in (False, True)]
    before = databases.tree(tmp_path / "copy")
    with strata.open(tmp_path / "copy", read_only=True) as copy:
        there = [copy.export(tmp_path / f"there{history}", history=history) for history in (False, True)]
    assert there == here
    assert databases.tree(tmp_path / "copy").keys() == before.keys()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 3)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_the_same_content_gives_the_same_bytes(tmp_path_factory, puts, chance):
    home = tmp_path_factory.mktemp("same")
    db = strata.open()
    for space, key, value in puts:
        db.space(space).kv.put(key, value)
    newest = list({(space, key): (space, key, value) for space, key, value in puts}.values())
    chance.shuffle(newest)
    with strata.open(home / "other") as other:
        for space, key, value in newest:
            other.space(space).kv.put(key, "before")
            other.space(space).kv.delete(key)
            other.space(space).kv.put(key, value)
            if chance.random() < 0.2:
                other.checkpoint()
        assert db.export(home / "a").sha256 == other.export(home / "b").sha256
    assert (home / "a").read_bytes() == (home / "b").read_bytes()


def test_what_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello" * 100)
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    strata.open().export(tmp_path / "good")
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    cases = {
        "text": Corrupt, "empty": Corrupt, "directory": InvalidInput, "pipe": InvalidInput,
        "link": InvalidInput,
        "dangling": InvalidInput, "nowhere": NotFound, "text/in": InvalidInput,
        "..": InvalidInput, "": InvalidInput,
    }  # fmt: skip
    for name, error in cases.items():
        for call in (strata.verify_bundle, lambda path: strata.import_(path, tmp_path / "new")):
            with pytest.raises(error):
                call(tmp_path / name if name else "")
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(InvalidInput):
            strata.verify_bundle(device)
    newer = bytearray((tmp_path / "good").read_bytes())
    newer[8] = 2
    (tmp_path / "damaged").write_bytes(newer)
    with pytest.raises(Corrupt) as caught:
        strata.verify_bundle(tmp_path / "damaged")
    assert caught.value.offset == 0 and caught.value.file == str(tmp_path / "damaged")
    assert not (tmp_path / "new").exists()


def test_what_is_there_stays(tmp_path):
    db = strata.open()
    db.export(tmp_path / "good")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(os.listdir(tmp_path))
    for name in ("file", "directory", "link", "good"):
        with pytest.raises(AlreadyExists):
            db.export(tmp_path / name)
        with pytest.raises(AlreadyExists):
            strata.import_(tmp_path / "good", tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "mine" and os.listdir(tmp_path / "directory") == []


def test_a_disk_that_says_no_leaves_nothing(tmp_path):
    with pytest.raises(StorageError):
        strata.open().export(tmp_path / "none" / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("history", [False, True])
def test_others_write_meanwhile(tmp_path, history):
    """Each export holds the state of one moment: the two keys that change together are the same in it."""
    for number, db in enumerate((strata.open(), strata.open(tmp_path / "db"))):
        done = threading.Event()
        with db:
            db.kv.put_many({"a": 0, "b": 0})

            def write(db=db, done=done):
                value = 0
                while not done.is_set():
                    value += 1
                    db.kv.put_many({"a": value, "b": value})

            writer = threading.Thread(target=write)
            writer.start()
            try:
                for turn in range(5):
                    out = tmp_path / f"out{number}{turn}"
                    db.export(out, history=history)
                    strata.import_(out, out.with_suffix(".strata"))
            finally:
                done.set()
                writer.join()
            for turn in range(5):
                with strata.open(tmp_path / f"out{number}{turn}.strata") as again:
                    assert again.kv.get("a") == again.kv.get("b") and again.verify().ok


def test_arguments(tmp_path):
    db = strata.open()
    for call in (
        lambda: db.export(1),
        lambda: db.export(""),
        lambda: db.export("a\0b"),
        lambda: db.export(tmp_path / "x", history=1),
        lambda: db.export(tmp_path / "x", branch="\n"),
        lambda: db.export(tmp_path / ".."),
        lambda: db.export("/"),
        lambda: strata.import_(b"x", "y"),
        lambda: strata.verify_bundle(None),
    ):
        with pytest.raises(InvalidInput):
            call()
    assert os.listdir(tmp_path) == []
    with pytest.raises(ReadOnly), strata.open(tmp_path / "none", read_only=True):
        pass


def test_the_commands(tmp_path, capsys):
    path, out = str(tmp_path / "db"), str(tmp_path / "out")
    with strata.open(path) as db:
        db.kv.put("a", 1)
        db.branches.fork("main", "draft")
    assert main(["export", path, out, "--history"]) == 0
    said = capsys.readouterr().out
    assert "all history of draft, main: " in said
    assert main(["import", out, "--check"]) == 0
    assert capsys.readouterr().out == said
    assert main(["import", out, str(tmp_path / "again")]) == 0
    assert main(["get", str(tmp_path / "again"), "a", "--branch", "draft"]) == 0
    assert main(["import", out, str(tmp_path / "again")]) == 1
    assert main(["import", out]) == 1
    assert main(["export", path, str(tmp_path / "draft"), "--branch", "draft"]) == 0
    assert "the newest of draft: 1 rows" in capsys.readouterr().out
