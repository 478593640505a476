"""Several processes on one directory: one owns it, the others are served, and when it goes another takes
over."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import strata
from strata.errors import (
    AccessDenied,
    Closed,
    InvalidInput,
    Locked,
    NeedsKey,
    NotFound,
    ReadOnly,
    TransactionLost,
)
from strata.remote.channel import LocalChannel, SocketChannel

PROGRAM = Path(__file__).with_name("sharing_program.py")
OWNER = """if True:
    import strata, sys
    db = strata.open(sys.argv[1])
    db.kv.put("from", "owner")
    print("open", flush=True)
    sys.stdin.read()
    db.close()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.strata"


@pytest.fixture
def owner(path):
    """Another process that owns the database until it is told to end, or killed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OWNER, str(path)], **pipes) as process:
        assert process.stdout.readline() == "open\n"
        yield process
        if process.poll() is None:
            process.stdin.close()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def is_guest(db):
    return isinstance(db._store._link.channel, SocketChannel)


def test_a_second_process_works_on_what_the_first_has_open(path, owner):
    with strata.open(path) as db:
        assert is_guest(db)
        assert db.kv.get("from") == "owner"
        version = db.kv.put("k", {"a": [1, 2.5, None, b"x"]})
        assert db.kv.entry("k").version == version == db.version
        with db.transaction(message="both") as tx:
            tx.kv.put("a", 1)
            tx.events.append("e", {"n": 1})
        assert db.log()[0].message == "both"
        draft = db.branches.fork("main", "draft")
        draft.json.set("doc", "$.a", 1)
        assert [change.key for change in db.diff("main", "draft")] == ["doc"]
        db.branches.merge("draft")
        assert db.json.get("doc") == {"a": 1}


def test_when_the_owner_ends_or_is_killed_a_guest_takes_over_and_goes_on(path, owner):
    with strata.open(path) as db:
        draft = db.branches.fork("main", "draft")
        draft.kv.put("k", 1)
        view = db.at(db.version)
        before = db.version
        transaction = db.transaction()
        transaction.kv.put("lost", 1)
        kill(owner)
        assert draft.kv.put("k", 2) > before
        assert isinstance(db._store._link.channel, LocalChannel)
        assert (draft.kv.get("k"), view.version, view.kv.get("from")) == (2, before, "owner")
        with pytest.raises(TransactionLost):
            transaction.kv.get("lost")
        with pytest.raises(TransactionLost):
            transaction.commit()
        assert db.kv.get("lost") is None
    with strata.open(path, shared=False) as db:
        assert db.branch("draft").kv.get("k") == 2


def test_a_transaction_that_is_retried_needs_nothing_of_its_own(path, owner):
    with strata.open(path) as db:
        calls = []

        def body(tx):
            calls.append(tx.kv.get("n", 0))
            if len(calls) == 1:
                kill(owner)
            tx.kv.put("n", calls[-1] + 1)

        db.transact(body)
        assert (calls, db.kv.get("n")) == ([0, 0], 1)
        assert db.state.transition("cell", lambda value: (value or 0) + 1)


def test_who_took_over_serves_those_who_come(path, owner):
    with strata.open(path) as db:
        kill(owner)
        db.kv.put("k", 1)
        with strata.open(path) as guest:
            assert is_guest(guest)
            guest.kv.put("k", 2)
            assert db.kv.get("k") == 2


def test_an_owner_that_closes_sends_its_guests_away_and_loses_nothing(path):
    first = strata.open(path)
    second = strata.open(path)
    numbers = []

    def write():
        while not numbers or numbers[-1] < 300:
            number = len(numbers)
            second.events.append("e", {"n": number})
            numbers.append(number)

    thread = threading.Thread(target=write)
    thread.start()
    while len(numbers) < 50:
        time.sleep(0.001)
    first.close()
    thread.join()
    assert [event.payload["n"] for event in second.events.range()] == numbers
    assert second.events.verify().stream is None
    with pytest.raises(Closed):
        first.kv.get("k")
    second.close()


def test_a_guest_that_closes_leaves_the_owner_alone(path):
    with strata.open(path) as db:
        with strata.open(path) as guest:
            transaction = guest.transaction()
            transaction.kv.put("k", "guest")
        db.kv.put("k", "owner")
        with pytest.raises(Closed):
            guest.kv.get("k")
        assert db.kv.get("k") == "owner"


def test_many_threads_of_a_guest_ask_at_once(path, owner):
    with strata.open(path) as db:
        wrong = []

        def work(name):
            for number in range(50):
                db.kv.put(f"{name}/{number}", number)
                if db.kv.get(f"{name}/{number}") != number:
                    wrong.append((name, number))
                db.state.transition("sum", lambda value: (value or 0) + 1)

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (wrong, db.state.get("sum"), db.kv.count("t")) == ([], 400, 400)


def test_a_database_that_is_not_shared_is_locked(path):
    with strata.open(path, shared=False), pytest.raises(Locked) as caught:
        strata.open(path)
    assert str(os.getpid()) in caught.value.owner
    with strata.open(path), pytest.raises(Locked):
        strata.open(path, shared=False)


def test_who_only_reads_is_served_as_well_and_may_not_write(path, owner):
    with strata.open(path, read_only=True) as db:
        assert is_guest(db) and db.kv.get("from") == "owner"
        for write in (
            lambda: db.kv.put("k", 1),
            lambda: db.branches.create("b"),
            lambda: db.compact(),
        ):
            with pytest.raises((AccessDenied, ReadOnly)):
                write()
        kill(owner)
        assert db.kv.get("from") == "owner"
        with pytest.raises(ReadOnly):
            db.kv.put("k", 1)


def test_guests_of_an_encrypted_database_need_its_key(path):
    key = os.urandom(32)
    with strata.open(path, key=key) as db:
        db.kv.put("k", 1)
        with pytest.raises(NeedsKey):
            strata.open(path)
        with pytest.raises(NeedsKey):
            strata.open(path, key=os.urandom(32))
        with strata.open(path, key=key) as guest:
            assert guest.kv.get("k") == 1
            guest.kv.put("k", 2)
    with strata.open(path, key=key) as db:
        assert db.kv.get("k") == 2


def test_a_key_to_a_plain_database_is_refused_to_guests_too(path, owner):
    with pytest.raises(InvalidInput):
        strata.open(path, key=os.urandom(32))


def test_a_guest_that_asked_for_strict_waits_for_the_disk(path, owner):
    with strata.open(path, durability="strict") as db:
        assert db.kv.put("k", 1) <= db.durable_version
        with db.transaction() as tx:
            tx.kv.put("k", 2)
        assert tx.version <= db.durable_version


def test_an_unknown_branch_is_said_and_leaves_nothing_open(path, owner):
    with pytest.raises(NotFound, match="mian"):
        strata.open(path, branch="mian")
    with strata.open(path) as db:
        assert db.kv.get("from") == "owner"


def test_the_directory_of_an_open_database_can_be_copied(path, tmp_path):
    with strata.open(path) as db:
        db.kv.put("k", 1)
        with strata.open(path) as guest:
            guest.checkpoint()
            shutil.copytree(path, tmp_path / "copy.strata")
    with strata.open(tmp_path / "copy.strata") as db:
        assert db.kv.get("k") == 1


def test_what_a_guest_writes_to_files_is_written(path, owner, tmp_path):
    with strata.open(path) as db:
        db.kv.put("k", 1)
        told = []
        db.verify(progress=lambda done, all: told.append((done, all)))
        db.backup(tmp_path / "backup.strata")
        db.export(tmp_path / "bundle")
    assert told and told[-1][0] == told[-1][1]
    with strata.open(tmp_path / "backup.strata") as copy:
        assert copy.kv.get("k") == 1


def test_progress_that_raises_ends_the_work(path, owner):
    def stop(done, all):
        raise KeyboardInterrupt

    with strata.open(path) as db:
        for text in ("x", "y"):
            db.kv.put_many((f"k{number}", text * 100) for number in range(2000))
            db.checkpoint()
        with pytest.raises(KeyboardInterrupt):
            db.compact(progress=stop)
        assert db.kv.count("k") == 2000


def test_values_larger_than_a_frame_and_many_rows_at_once(path, owner):
    with strata.open(path) as db:
        big = b"x" * (20 << 20)
        db.kv.put("big/1", big)
        db.kv.put("big/2", big)
        db.kv.put("big/3", big)
        assert dict(db.kv.scan("big/")) == {f"big/{number}": big for number in (1, 2, 3)}
        rows = {f"k{number:05}": "x" * 1000 for number in range(9000)}
        version = db.kv.put_many(rows)
        assert db.version == version and dict(db.kv.scan("k")) == rows


def test_a_forked_child_does_not_use_its_parents_connection(path, owner):
    with strata.open(path) as db:
        pid = os.fork()
        if pid == 0:
            try:
                db.kv.get("from")
            except Closed:
                with strata.open(path) as own:
                    os._exit(own.kv.get("from") != "owner")
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert db.kv.get("from") == "owner"


def owner_of(path):
    """The process that owns a directory; None where nobody says so."""
    found = re.match(r"pid (\d+)", (path / "LOCK").read_text()) if (path / "LOCK").exists() else None
    return None if found is None else int(found[1])


def many_processes(tmp_path, *, workers, events, steps, kills, seed):
    """Run workers on one directory while owners are killed, and look at what is there at the end."""
    chance = random.Random(seed)
    arguments = [str(events), str(steps)]

    def begin(worker):
        command = [sys.executable, str(PROGRAM), str(tmp_path), worker, *arguments]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    running = {f"w{number}": begin(f"w{number}") for number in range(workers)}
    left, killed = kills, Counter()
    until = time.monotonic() + 600
    # So many notes are there before each kill, however fast this machine is.
    share = workers * (events + steps) / (kills + 1)
    due = [share * chance.uniform(number, number + 1) for number in range(kills)]
    while running:
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.005)
        for worker, process in list(running.items()):
            if process.poll() is None:
                continue
            if process.returncode == -signal.SIGKILL:
                killed[worker] += 1
                running[worker] = begin(worker)
                continue
            assert process.returncode == 0, process.stderr.read()
            del running[worker]
        if left and notes(tmp_path) >= due[-left]:
            found = owner_of(tmp_path / "shared.strata")
            pids = {process.pid: process for process in running.values()}
            if found in pids and pids[found].poll() is None:
                os.kill(found, signal.SIGKILL)
                left -= 1
    check_what_is_there(tmp_path, killed, workers=workers, events=events, steps=steps)
    return kills - left


def notes(tmp_path):
    """How many writes the workers have noted as acknowledged."""
    return sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("noted-*"))


def check_what_is_there(tmp_path, killed, *, workers, events, steps):
    """Each acknowledged write is there once; what was under way when a process was killed, at most once."""
    with strata.open(tmp_path / "shared.strata", shared=False) as db:
        found = Counter((event.payload["worker"], event.payload["number"]) for event in db.events.range())
        noted = {
            f"w{number}": (tmp_path / f"noted-w{number}").read_text().split("\n")[:-1]
            for number in range(workers)
        }
        acknowledged = {
            (worker, int(line.split()[1]))
            for worker, lines in noted.items()
            for line in lines
            if "event" in line
        }
        begun = {
            (f"w{number}", int(line.split()[1]))
            for number in range(workers)
            for line in (tmp_path / f"begun-w{number}").read_text().split("\n")[:-1]
        }
        assert len(acknowledged) == workers * events
        assert not [event for event, times in found.items() if times != 1], "an event is there twice"
        assert acknowledged <= set(found), "an acknowledged event is lost"
        assert set(found) <= begun
        steps_noted = sum("step" in line for lines in noted.values() for line in lines)
        assert steps_noted == workers * steps
        total = db.state.get("counter", 0)
        assert steps_noted <= total <= steps_noted + killed.total(), "a step is lost, or was done twice"
        assert db.events.verify().stream is None
        assert db.verify().problems == ()


def test_three_processes_while_owners_are_killed(tmp_path):
    many_processes(tmp_path, workers=3, events=40, steps=40, kills=3, seed=1)


@pytest.mark.slow
def test_eight_processes_while_owners_are_killed_20_times(tmp_path):
    assert many_processes(tmp_path, workers=8, events=1000, steps=1000, kills=20, seed=2) == 20
