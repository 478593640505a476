"""Webhooks and kill -9: of who delivers, at points that a seed chooses, and of who wrote."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys

import pytest
from receivers import SECRET, Receiver, receiving

import strata
from strata.worker import Allowed, HttpTransport, Worker

STATES = {
    "states": ["red", "green"],
    "initial": "red",
    "transitions": [
        {"from": "red", "event": "GO", "to": "green"},
        {"from": "green", "event": "STOP", "to": "red"},
    ],
}
INSTANCES = [f"i{number}" for number in range(6)]


def steps_of(receiver: Receiver) -> dict[str, list[int]]:
    """The steps of each instance in the order in which they first arrived."""
    found: dict[str, list[int]] = {}
    for message in receiver.messages:
        if message["type"] == "machines.apply":
            step = message["data"]["changes"][0]["value"]["steps"]
            found.setdefault(message["data"]["key"], []).append(step)
    return {key: list(dict.fromkeys(steps)) for key, steps in found.items()}


def begin(path) -> subprocess.Popen[str]:
    """`strata worker` in a process of its own, once it works."""
    command = [sys.executable, "-m", "strata.cli", "worker", str(path), "--webhooks-allow-private"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert json.loads(process.stderr.readline())["event"] == "working"
    return process


def end(process) -> None:
    process.stderr.close()
    process.wait()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_no_transition_is_lost_when_who_delivers_is_killed(tmp_path, seed):
    """Killed in the middle of requests, before or after the answer, again and again."""
    chance = random.Random(seed)
    path, kills, total = tmp_path / "a.strata", 4, 30
    with receiving() as receiver, strata.open(path) as db:
        db.webhooks.add("a", receiver.url, secret=SECRET, machine="lamp")
        db.machines.define("lamp", 1, STATES)
        for id in INSTANCES:
            db.machines.create("lamp", id)
        made = dict.fromkeys(INSTANCES, 0)

        def apply(count):
            for _ in range(count):
                id = chance.choice(INSTANCES)
                db.machines.apply(id, "STOP" if made[id] % 2 else "GO")
                made[id] += 1

        for _ in range(kills):
            apply(total)
            after = len(receiver.ids) + chance.randrange(1, total)
            process = begin(path)
            receiver.kill(process.pid, after, chance.choice(["before", "after"]))
            process.wait()
            end(process)
            assert process.returncode == -signal.SIGKILL
        apply(total)
        process = begin(path)
        receiver.until(lambda: db.webhooks.status("a").position >= db.version)
        process.terminate()
        end(process)
        status = db.webhooks.status("a")
        assert (status.waiting, status.dead, status.gaps) == (0, 0, 0)
    assert steps_of(receiver) == {id: [*range(1, count + 1)] for id, count in made.items() if count}
    repeats = len(receiver.ids) - len(set(receiver.ids))
    assert repeats <= kills * 64  # what was under way when it was killed, and no more


CHILD = """
import sys, time
import strata
from strata.worker import Allowed, HttpTransport, Worker

db = strata.open(sys.argv[1])
with Worker(db, transport=HttpTransport(Allowed(private=True))):
    done = db.machines.apply("i", "GO", {"by": "child"}, idempotency_key="once")
    print(done.version, done.to_state, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_same_key_after_a_kill_is_one_commit_one_watch_event_and_one_webhook(tmp_path, when):
    path = tmp_path / "a.strata"
    with receiving() as receiver:
        with strata.open(path) as db:
            db.machines.define("lamp", 1, STATES)
            db.machines.create("lamp", "i")
            db.webhooks.add("a", receiver.url, secret=SECRET)
            begun = db.version
        command = [sys.executable, "-c", CHILD, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            receiver.kill(process.pid, 1, when)
            version, state = process.stdout.read().split()
            assert process.wait() == -signal.SIGKILL
        with strata.open(path) as db, Worker(db, transport=HttpTransport(Allowed(private=True))):
            again = db.machines.apply("i", "GO", {"by": "parent"}, idempotency_key="once")
            assert (str(again.version), again.to_state, again.applied) == (version, state, False)
            assert again.context == {"by": "child"}
            assert [commit.version for commit in db.log(after=begun)] == [int(version)]
            with db.watch(from_version=begun, timeout_s=0) as watch:
                assert [(step.version, len(step.changes)) for step in watch] == [(int(version), 1)]
            receiver.until(lambda: db.webhooks.status("a").position >= int(version))
            # The one message may have been sent twice, as nobody knows what the receiver did with it; by its
            # id it is one.
            assert len(set(receiver.ids)) == 1 and len(receiver.ids) <= 2
            assert receiver.messages[0]["data"]["version"] == int(version)
            assert db.webhooks.status("a").delivered == 1


def test_two_workers_in_two_processes_deliver_each_message_once(tmp_path):
    path = tmp_path / "a.strata"
    with receiving() as receiver, strata.open(path) as db:
        db.webhooks.add("a", receiver.url, secret=SECRET)
        processes = [begin(path), begin(path)]
        versions = [db.kv.put(f"k{number % 7}", number) for number in range(100)]
        receiver.wait(100)
        first, second = processes
        os.kill(first.pid, signal.SIGTERM)  # whichever delivers: when it goes, the other goes on
        end(first)
        versions += [db.kv.put(f"k{number % 7}", number) for number in range(100)]
        receiver.wait(200)
        second.terminate()
        end(second)
    assert len(receiver.ids) == len(set(receiver.ids)) == 200
    assert sorted(message["data"]["version"] for message in receiver.messages) == versions
