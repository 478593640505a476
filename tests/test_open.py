"""Opening and closing directories: what is refused, with which error, and that nothing in them changes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import databases
import pytest

import strata
from strata.errors import Closed, Corrupt, InvalidInput, Locked, NotFound, ReadOnly, StrataError

in_memory = pytest.mark.parametrize("durability", ["buffered", "strict"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.strata"


def filled(path: Path, durability: str = "buffered") -> Path:
    """Make a database with something of everything in it."""
    with strata.open(path, durability=durability) as db:
        db.kv.put_many({f"k{number}": number for number in range(100)})
        db.events.append("made", {"by": "test"})
        db.state.init("s", "new")
        db.json.create("d", {"a": [1, 2, {"b": None}]})
        db.branches.fork("main", "draft").kv.put("k0", "draft")
    return path


def refused(path: Path, error: type[StrataError], **options) -> StrataError:
    """Check that opening raises `error` and leaves every byte as it was."""
    before = databases.tree(path)
    with pytest.raises(error) as caught:
        strata.open(path, **options)
    assert type(caught.value) is error
    after = databases.tree(path)
    after.pop("LOCK", None)
    before.pop("LOCK", None)
    assert after == before
    return caught.value


@in_memory
def test_what_was_written_is_there_again(path, durability):
    filled(path, durability)
    with strata.open(path, durability=durability) as db:
        assert db.kv.count() == 100 and db.kv.get("k99") == 99
        assert db.events.verify().ok and db.events.len() == 1
        assert db.state.get("s") == "new"
        assert db.json.get("d", "$.a[2]") == {"b": None}
        assert db.branch("draft").kv.get("k0") == "draft" and db.kv.get("k0") == 0
        assert (db.name, db.path) == ("test", path)


def test_versions_and_times_survive(path):
    with strata.open(path) as db:
        versions = [db.kv.put("k", number) for number in range(5)]
        log = list(db.log())
        history = db.kv.history("k")
    with strata.open(path) as db:
        assert list(db.log()) == log and db.kv.history("k") == history
        assert [db.at(version).kv.get("k") for version in versions] == list(range(5))
        assert db.at(history[2].timestamp).kv.get("k") is not None
        assert db.kv.put("k", 5) > versions[-1]


def test_idempotency_keys_survive(path):
    for _ in range(3):
        with strata.open(path) as db, db.transaction(idempotency_key="once") as tx:
            tx.kv.incr("n")
    with strata.open(path) as db:
        assert db.kv.get("n") == 1


def test_durability_can_change_between_openings(path):
    for number, durability in enumerate(["buffered", "strict", "buffered"]):
        with strata.open(path, durability=durability) as db:
            assert db.kv.count() == number
            db.kv.put(f"k{number}", number)


def test_strict_commits_are_durable_at_once(path):
    with strata.open(path, durability="strict") as db:
        version = db.kv.put("k", 1)
        assert db.durable_version >= version


def test_flush_makes_all_durable(path):
    with strata.open(path, flush_interval_ms=3_600_000) as db:
        version = db.kv.put("k", 1)
        assert db.flush() >= version
        assert db.durable_version >= version


def test_in_memory_nothing_is_durable():
    with strata.open() as db:
        db.kv.put("k", 1)
        assert db.flush() == db.durable_version == 0


def test_a_closed_directory_can_be_copied(path, tmp_path):
    shutil.copytree(filled(path), tmp_path / "copy.strata")
    with strata.open(tmp_path / "copy.strata") as copy, strata.open(path) as db:
        assert dict(copy.kv.scan()) == dict(db.kv.scan())


def test_paths_of_all_kinds(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    for given in (str(path), path, "relative.strata", Path("with space ä.strata")):
        with strata.open(given) as db:
            db.kv.put("k", 1)
        with strata.open(given, create=False) as db:
            assert db.kv.get("k") == 1


def test_create_false(path):
    with pytest.raises(NotFound) as error:
        strata.open(path, create=False)
    assert error.value.hint
    assert not path.exists()
    path.mkdir()
    with pytest.raises(NotFound):
        strata.open(path, create=False)
    assert list(path.iterdir()) == []


def test_read_only(path):
    filled(path)
    with strata.open(path, read_only=True) as db:
        assert db.kv.get("k1") == 1
        for write in (
            lambda: db.kv.put("k", 1), lambda: db.branches.create("b"), lambda: db.branches.fork("main", "b"),
            lambda: db.events.append("t", {}),
        ):  # fmt: skip
            with pytest.raises(ReadOnly):
                write()
    with pytest.raises(StrataError):
        strata.open(path.parent / "none.strata", read_only=True)
    assert not (path.parent / "none.strata").exists()


def test_readers_stand_side_by_side_and_change_nothing(path, tmp_path):
    with strata.open(path, shared=False) as db:
        db.kv.put("k", 1)
        with pytest.raises(Locked):
            strata.open(path, read_only=True)
        # What a killed process would leave: an open log with reserved room behind its end.
        shutil.copytree(path, tmp_path / "left.strata")
    for place in (path, tmp_path / "left.strata"):
        before = databases.tree(place)
        with strata.open(place, read_only=True) as one, strata.open(place, read_only=True) as other:
            assert one.kv.get("k") == other.kv.get("k") == 1
            assert one.durable_version == one.version == 1
            with pytest.raises(Locked):
                strata.open(place)
        assert databases.tree(place) == before
        with strata.open(place) as db:
            assert db.kv.put("k", 2) == 2


def test_an_unknown_branch_does_not_leave_the_directory_locked(path):
    filled(path)
    with pytest.raises(NotFound, match="mian"):
        strata.open(path, branch="mian")
    with strata.open(path, branch="draft", space="default") as db:
        assert db.kv.get("k0") == "draft"


@pytest.mark.parametrize(
    "options",
    [
        {"durability": "memory"}, {"durability": "fast"}, {"durability": 1}, {"branch": "_x"},
        {"space": "_x"}, {"space": ""}, {"memory_budget": 0}, {"memory_budget": "1G"},
        {"memory_budget": 1000}, {"flush_interval_ms": 0}, {"flush_interval_ms": -5},
        {"flush_interval_ms": float("nan")}, {"flush_interval_ms": "soon"},
    ],
)  # fmt: skip
def test_wrong_options_are_refused_before_anything_is_made(path, options):
    with pytest.raises(InvalidInput):
        strata.open(path, **options)
    assert not path.exists()


@in_memory
def test_durable_modes_need_a_path(durability):
    with pytest.raises(InvalidInput):
        strata.open(durability=durability)


def test_paths_that_cannot_be():
    for path in (7, b"bytes", object()):
        with pytest.raises(InvalidInput):
            strata.open(path)


# -- directories that are refused ------------------------------------------------------------------


def test_not_ours(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    error = refused(path, InvalidInput)
    assert "notes.txt" in str(error) and str(path) in str(error)


def test_a_file_instead_of_a_directory(path):
    path.write_text("mine")
    with pytest.raises(StrataError):
        strata.open(path)
    assert path.read_text() == "mine"


def test_locked_by_this_process(path):
    with strata.open(filled(path), shared=False) as db:
        before = db.version
        error = refused(path, Locked)
        assert str(path) in str(error)
        assert db.kv.put("k", 1) > before  # the first handle goes on
    strata.open(path).close()


def test_locked_by_another_process(path):
    program = """if True:
        import strata, sys
        db = strata.open(sys.argv[1], shared=False)
        print('open', flush=True)
        sys.stdin.read()"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program, str(filled(path))], **pipes) as other:
        assert other.stdout.readline() == "open\n"
        assert str(other.pid) in str(refused(path, Locked))
        other.stdin.close()
    with strata.open(path) as db:
        assert db.kv.count() == 100


def segments(path: Path) -> list[Path]:
    return sorted((path / "WAL").iterdir())


def flip(file: Path, offset: int) -> None:
    """Flip one bit of the byte at `offset`."""
    content = bytearray(file.read_bytes())
    content[offset] ^= 0x10
    file.write_bytes(content)


def test_a_damaged_log_is_refused_with_file_and_offset(path, tmp_path):
    with strata.open(tmp_path / "busy") as db:
        db.kv.put_many({f"k{number}": number for number in range(100)})
        db.flush()
        db.kv.put("k0", "and a record that knows of it")
        shutil.copytree(tmp_path / "busy", path)  # what a process leaves that is killed
    strata.open(path, read_only=True).close()
    log = segments(path)[0]
    flip(log, 200)
    error = refused(path, Corrupt)
    assert log.name in error.file and error.offset <= 200
    assert log.name in str(error)
    flip(log, 200)
    with strata.open(path) as db:
        assert db.kv.count() == 100


def test_a_damaged_manifest_is_refused(path):
    filled(path)
    flip(path / "MANIFEST", 12)
    assert "MANIFEST" in refused(path, Corrupt).file


def test_a_missing_manifest_is_refused(path):
    filled(path)
    (path / "MANIFEST").unlink()
    assert "MANIFEST" in str(refused(path, Corrupt))


def test_a_missing_log_is_refused(path):
    filled(path)
    for log in segments(path):
        log.unlink()
    refused(path, Corrupt)


def crc32c(content: bytes) -> int:
    """The Castagnoli checksum, bit by bit: a second opinion on what the kernel computes."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_a_newer_format_is_refused_with_both_versions(path):
    """Magic, version and checksum keep their places in every format, so newer is told from damaged."""
    filled(path)
    content = bytearray((path / "MANIFEST").read_bytes())
    assert crc32c(content[:12] + content[16:]) == int.from_bytes(content[12:16], "little")
    known = int.from_bytes(content[8:12], "little")
    content[8:12] = (known + 41).to_bytes(4, "little")
    content[12:16] = crc32c(content[:12] + content[16:]).to_bytes(4, "little")
    (path / "MANIFEST").write_bytes(content)
    error = refused(path, ReadOnly)
    assert str(known) in str(error) and str(known + 41) in str(error) and error.hint


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_manifest_cut_short_is_refused(path, length):
    filled(path)
    content = (path / "MANIFEST").read_bytes()
    (path / "MANIFEST").write_bytes(content[: len(content) * length // 4])
    refused(path, Corrupt)


def test_a_directory_that_cannot_be_read(path):
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        pytest.skip("SKIPPED: permissions do not bind the superuser")
    filled(path).chmod(0)
    try:
        with pytest.raises(StrataError):
            strata.open(path)
    finally:
        path.chmod(0o700)


# -- simulated disks, and what became of a commit --------------------------------------------------


def test_a_strict_commit_survives_a_power_cut_and_a_buffered_one_a_kill():
    from strata.store import SimDisk

    for durability, end in (("strict", lambda disk: disk.crash(7)), ("buffered", lambda disk: disk.killed())):
        disk = SimDisk(1)
        db = strata.open(disk=disk, durability=durability)
        versions = [db.kv.put("k", number) for number in range(10)]
        with strata.open(disk=end(disk), durability=durability, create=False) as again:
            assert again.kv.get("k") == 9 and again.version == versions[-1]
            assert (again.path, again.name) == (None, "memory")


def test_outcomes_of_transactions_that_never_were():
    with strata.open() as db:
        assert db.outcome("12345-1") == "lost"
        with pytest.raises(InvalidInput):
            db.outcome("nonsense")


# -- the life of a handle --------------------------------------------------------------------------


def run(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_an_unclosed_database_loses_nothing_at_the_end_of_the_process(path):
    program = "import strata, sys; db = strata.open(sys.argv[1]); [db.kv.put(f'k{n}', n) for n in range(100)]"
    run(program, path)
    with strata.open(path) as db:
        assert db.kv.count() == 100


def test_a_dropped_database_frees_its_directory(path):
    import gc

    db = strata.open(path)
    db.kv.put("k", 1)
    del db
    gc.collect()
    with strata.open(path) as db:
        assert db.kv.get("k") == 1


def test_a_face_that_is_held_keeps_the_database_open(path):
    kv = strata.open(path, shared=False).kv
    kv.put("k", 1)
    refused(path, Locked)
    del kv
    strata.open(path).close()


FORKED = """
import os, sys, strata
db = strata.open(sys.argv[1])
db.kv.put("k", 1)
tx, view = db.transaction(), db.at(db.version)
tx.kv.put("k", 2)
pid = os.fork()
if pid == 0:
    raised = []
    for use in (lambda: db.kv.get("k"), lambda: db.kv.put("k", 3), tx.commit, db.transaction,
                lambda: view.kv.get("k"), lambda: db.version, db.flush, lambda: db.branches.create("b"),
                lambda: db.branch("main")):
        try:
            use()
        except strata.errors.Closed:
            raised.append(1)
    {exit}
_, status = os.waitpid(pid, 0)
tx.commit()
print(os.waitstatus_to_exitcode(status), db.kv.get("k"), list(db.branches))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SKIPPED: this system has no fork()")
@pytest.mark.parametrize("leave", ["os._exit(len(raised))", "sys.exit(len(raised))"])
def test_a_forked_child_raises_and_harms_nothing(path, leave):
    assert run(FORKED.replace("{exit}", leave), path).split("\n")[0] == "9 2 ['main']"
    with strata.open(path) as db:
        assert db.kv.get("k") == 2


def test_who_connects_while_the_program_ends_is_sent_away(path, monkeypatch):
    """Who looks for dead sockets came when no thread could begin any more, and a trace was printed."""

    def none(_):
        raise RuntimeError("can't register atexit after shutdown")

    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setattr("strata.server.host._server_of", none)
    with strata.open(path) as db:
        address = (path / "LOCK").read_text().rpartition("shared at ")[2]
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(address)
            assert asking.recv(1) == b""
        db.kv.put("k", 1)
    assert not raised


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SKIPPED: this system has no fork()")
def test_a_forked_child_may_open_its_own(path):
    program = """
import os, sys, strata
db = strata.open(sys.argv[1])
pid = os.fork()
if pid == 0:
    with strata.open(sys.argv[1] + "2") as own:
        own.kv.put("k", 1)
        os._exit(own.kv.get("k"))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run(program, path) == "1\n"


def test_close_during_use_raises_closed_and_nothing_else(path):
    import threading

    db = strata.open(path)
    ended = []

    def work():
        try:
            while True:
                db.kv.incr("n")
        except Closed:
            ended.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not db.kv.get("n"):
        pass
    db.close()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 4
    strata.open(path).close()
