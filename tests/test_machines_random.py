"""Machines at random: against an interpreter of ten lines, and by many threads at once."""

from __future__ import annotations

import threading

import databases
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strata
from strata.core.errors import AlreadyExists, GuardFailed, InvalidTransition, NotFound
from strata.testing import FakeClock


def test_concurrent_appliers_lose_nothing():
    """Each accepted transition is legal from the state it saw, and all are in the history, in a line."""
    ring = {
        "states": ["0", "1", "2"],
        "initial": "0",
        "transitions": [{"from": str(n), "event": f"from-{n}", "to": str((n + 1) % 3)} for n in range(3)],
        "actions": [{"on": "exit", "state": ["0", "1", "2"], "do": "kv.incr", "key": "steps"}],
    }
    db = strata.open()
    db.machines.define("ring", 1, ring)
    db.machines.create("ring", "r")
    accepted, errors = [[] for _ in range(4)], []

    def work(mine, number):
        for turn in range(60):
            try:
                event = f"from-{(turn + number) % 3}"
                mine.append(db.machines.apply("r", event, {f"t{number}": turn}))
            except InvalidTransition as error:
                assert error.from_ != event.removeprefix("from-")
            except BaseException as error:
                errors.append(error)
                raise

    threads = [threading.Thread(target=work, args=(mine, number)) for number, mine in enumerate(accepted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    history = db.machines.history("r")[-2::-1]
    assert len(history) == sum(map(len, accepted)) == db.machines.get("r").steps == db.kv.get("steps")
    assert sorted((step.version, step.event) for mine in accepted for step in mine) == [
        (step.version, step.event) for step in history
    ]
    state = "0"
    for step in history:
        assert (step.from_state, step.event) == (state, f"from-{state}")
        state = step.to_state
    db.close()


# -- random machines


@st.composite
def definitions(draw):
    states = [f"s{n}" for n in range(draw(st.integers(1, 4)))]
    steps, closed = [], set()
    for _ in range(draw(st.integers(0, 8))):
        sources = draw(st.lists(st.sampled_from(states), unique=True, max_size=3))
        event, to = draw(st.sampled_from("EFG")), draw(st.sampled_from(states))
        bound = draw(st.none() | st.integers(0, 3))
        if any((source, event) in closed for source in sources):
            continue
        step = {"from": sources, "event": event, "to": to}
        if bound is None:
            closed |= {(source, event) for source in sources}
        else:
            step["guard"] = f"ctx.n >= {bound}"
        steps.append(step)
    return {"states": states, "initial": states[0], "transitions": steps}


def interpret(definition, state, context, event):
    """Return where an event leads, None for nowhere, False where guards say no."""
    ways = [step for step in definition["transitions"] if state in step["from"] and step["event"] == event]
    for step in ways:
        bound = step.get("guard", "").rpartition(" ")[2]
        if not bound or ("n" in context and context["n"] >= int(bound)):
            return step["to"]
    return False if ways else None


calls = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from(["create", "delete", "reopen", *"EFGEFGEFG"]),
    st.none() | st.dictionaries(st.sampled_from("nm"), st.integers(0, 3)),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(definitions(), st.lists(calls, max_size=25), st.sampled_from(databases.KINDS))
def test_random_machines_do_what_an_interpreter_says(definition, calls, kind):
    db = databases.make(kind, FakeClock())
    db.machines.define("m", 1, definition)
    known, histories = {}, {"a": [], "b": []}
    tx = None
    for id, what, payload, is_inside in calls:
        if is_inside and tx is None:
            tx = db.transaction()
        elif not is_inside and tx is not None:
            tx.commit()
            tx = None
        machines = db.machines if tx is None else tx.machines
        before = known.get(id)
        if what == "create":
            if before is None:
                machines.create("m", id, payload)
                known[id] = definition["initial"], payload or {}
                histories[id].append((None, *known[id]))
            else:
                with pytest.raises(AlreadyExists):
                    machines.create("m", id, payload)
        elif what == "delete" and before is not None and tx is None:
            machines.delete(id)
            known.pop(id)
            histories[id].append((None, None, before[1]))
        elif what in "EFG" and before is None:
            with pytest.raises(NotFound):
                machines.apply(id, what, payload)
        elif what in "EFG":
            to = interpret(definition, *before, what)
            if to:
                done = machines.apply(id, what, payload)
                known[id] = to, {**before[1], **(payload or {})}
                assert (done.to_state, done.context) == known[id]
                histories[id].append((what, *known[id]))
            else:
                with pytest.raises(InvalidTransition if to is None else GuardFailed):
                    machines.apply(id, what, payload)
        assert {found.id: (found.state, found.context) for found in machines.list()} == known
        for state in definition["states"]:
            listed = [found.id for found in machines.list("m", state)]
            assert listed == sorted(id for id, now in known.items() if now[0] == state)
    if tx is not None:
        tx.commit()
    for id, steps in histories.items():
        found = [(step.event, step.to_state, step.context) for step in db.machines.history(id)]
        assert found == steps[::-1]
    db.close()
