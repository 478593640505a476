"""What users can see is what we mean them to see: public names, what they print, and no reserved names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import strata

# The modules that users import from; everything else is reached through these.
PUBLIC = [
    "strata",
    "strata.agents",
    "strata.aio",
    "strata.api",
    "strata.errors",
    "strata.primitives",
    "strata.search",
    "strata.server.http",
    "strata.testing",
]


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def db() -> Iterator[strata.Database]:
    with strata.open() as opened:
        yield opened


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_say_what_they_export(name: str) -> None:
    exported = getattr(module(name), "__all__", None)
    assert exported is not None, f"{name} has no __all__; list there what users may import"
    assert len(set(exported)) == len(exported), f"{name}.__all__ names something twice"
    reserved = [found for found in exported if found.startswith("_") and found != "__version__"]
    assert not reserved, f"{name}.__all__ exports {reserved}; rename them or leave them out"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_exported_exists(name: str) -> None:
    found = module(name)
    missing = []
    for exported in found.__all__:
        try:
            getattr(found, exported)
        except ModuleNotFoundError as error:  # __version__ asks the kernel
            assert error.name == "strata._kernel"
        except AttributeError:
            missing.append(exported)
    assert not missing, f"{name}.__all__ names {missing}, which it does not have"


def test_every_error_is_exported() -> None:
    errors = module("strata.errors")
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.StrataError)
    }
    assert classes <= set(errors.__all__), (
        f"add {sorted(classes - set(errors.__all__))} to core/errors.py __all__"
    )


def test_no_class_of_ours_calls_itself_native() -> None:
    shown = [getattr(strata, name) for name in strata.__all__ if name != "__version__"]
    native = [value for value in shown if "_kernel" in repr(value)]
    assert not native, f"wrap these, or do not export them: {native}"


def things(db: strata.Database) -> Iterator[Any]:
    """One of everything that a user may print."""
    version = db.kv.put("key", {"a": [1, 2.5, "x"]})
    yield from (db, db.branches, db.space("notes"), db.branch("main"), db.at(version), db.log())
    yield from (db.kv, db.events, db.state, db.json, db.traces, db.runs, db.spaces)
    yield db.kv.entry("key")
    yield from db.kv.history("key")
    yield db.events.append("tool_call", {"tool": "search"})
    yield db.events.verify()
    yield db.traces.record("thought", id="first", output={"text": "…"})
    yield db.traces.tree("first")
    yield (run := db.runs.begin("plan"))
    run.recorded(len)([])
    yield from (run.runs, *run.calls(), db.runs.stats(), *db.runs.steps(run.id))
    yield from (replay := db.replay(run.id))
    yield from (replay, replay.view, db.explain("strata://main/default/kv/key"))
    db.state.init("mood", "calm")
    yield db.state.entry("mood")
    yield db.branches.fork("main", "draft")
    yield from db.branches.list()
    with db.transaction() as tx:
        yield tx
        yield tx.kv
        yield tx.space("notes")
        yield tx.events.append("thought", {"text": "…"})


def test_what_is_printed_is_short_and_ours(db: strata.Database) -> None:
    for thing in things(db):
        text = repr(thing)
        assert "_kernel" not in text, f"{type(thing).__name__} prints a native type: {text}"
        assert not re.search(r" object at 0x", text), f"give {type(thing).__name__} a __repr__: {text}"
        assert len(text) < 400, f"the repr of {type(thing).__name__} is {len(text)} characters; shorten it"


def test_reserved_names_are_refused_and_never_listed(db: strata.Database) -> None:
    list(things(db))
    with pytest.raises(strata.errors.InvalidInput):
        db.branches.create("_mine")
    with pytest.raises(strata.errors.InvalidInput):
        db.space("_mine").kv.put("a", 1)
    with pytest.raises(strata.errors.InvalidInput):
        db.events.append("x", {}, stream="_mine")
    listed = [
        *db.branches,
        *db.spaces,
        *db.events.streams(),
        *db.kv.keys(),
        *db.state.list(),
        *db.json.list(),
    ]
    reserved = [name for name in map(str, listed) if name.startswith("_")]
    assert not reserved, f"names starting with _ are ours and must not be listed: {reserved}"
