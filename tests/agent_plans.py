"""Plans for processes of their own, which must be functions of a module."""

from __future__ import annotations

import os
import signal
import time


def plan(run):
    """Do something else for each number: see `test_agents.py`."""
    number = run.info.metadata["plan"]
    with run.transaction(message="guess") as tx:
        tx.kv.put("guess", number)
        tx.events.append("guessed", {"number": tx.kv.get("guess")})
    return DEEDS[number](run)


def answer(run):
    run.space("notes").kv.put("seen", run.kv.keys())
    return [run.kv.get("goal"), len(run.kv), "guess" in run.kv, list(run.kv), run.name]


def fail(run):
    raise ValueError("no idea")


def leave(run):
    os._exit(3)


def die(run):
    os.kill(os.getpid(), signal.SIGKILL)


def die_inside(run):
    with run.transaction() as tx:
        tx.kv.put("half", True)
        os._exit(4)


def hang(run):
    time.sleep(1000)


def watch(run):
    return next(run.watch(from_version=0))


def flood(run):
    while True:
        run.kv.incr("flood")


def return_no_value(run):
    return object()


def return_what_cannot_be_sent(run):
    return lambda: 0


def pass_a_function(run):
    run.transact(lambda tx: tx.kv.put("never", 1))


def set_an_attribute(run):
    with run.transaction() as tx:
        tx.message = "lost"


DEEDS = (
    answer,
    fail,
    leave,
    die,
    die_inside,
    flood,
    return_no_value,
    return_what_cannot_be_sent,
    pass_a_function,
    set_an_attribute,
    answer,
)
