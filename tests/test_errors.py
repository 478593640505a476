"""Errors: the tree, its stable codes, and the way from the kernel."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path

import pytest

from strata.core import errors
from strata.core.errors import Conflict, ConflictKey, ConflictPath, ConflictRange, StrataError, from_kernel
from strata.core.refs import EntityRef

LIST = json.loads((Path(__file__).parent.parent / "conformance/errors.json").read_text())


def test_the_list_for_all_languages_is_the_tree():
    classes = errors.all_errors()
    assert {
        name: {
            "code": cls.code,
            "parent": next((base.__name__ for base in cls.__bases__ if base.__name__ in classes), None),
            "fields": list(cls.names),
            "meaning": cls.__doc__.partition("\n")[0],
        }
        for name, cls in classes.items()
    } == LIST


def test_codes_are_distinct_and_the_tree_at_the_top_names_every_class():
    classes = errors.all_errors()
    assert len({cls.code for cls in classes.values()}) == len(classes)
    for name in classes:
        assert re.search(rf"\b{name}\b", errors.__doc__)


def test_builtin_bases_let_plain_python_catch_them():
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.NotFound, KeyError)
    assert issubclass(errors.StorageError, OSError)


@pytest.mark.parametrize("name", errors.all_errors())
def test_an_error_shows_its_message_and_survives_pickle_and_copy(name):
    cls = errors.all_errors()[name]
    error = cls("it broke", hint="mend it")
    error.add_note("seen on Monday")
    for twin in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert str(twin) == "it broke" == twin.message
        assert twin.hint == "mend it"
        assert twin.fields() == error.fields()
        assert twin.__notes__ == ["seen on Monday"]


@pytest.mark.parametrize("name", errors.all_errors())
def test_the_kernel_builds_any_error_by_name(name):
    error = from_kernel(name, "it broke", {})
    assert type(error).__name__ in (name, "Conflict")
    assert set(error.fields()) == set(type(error).names)


def test_fields_from_the_kernel():
    error = from_kernel("HistoryTrimmed", "gone", {"requested": 3, "oldest": 7, "unheard": 1})
    assert (error.requested, error.oldest) == (3, 7)
    error = from_kernel("Corrupt", "bad", {"file": "wal", "offset": 12})
    assert (error.file, error.offset) == ("wal", 12)
    error = from_kernel("StorageError", "no", {"errno": 28})
    assert error.errno == 28
    assert pickle.loads(pickle.dumps(error)).errno == 28


def test_a_name_that_is_unknown_is_our_bug_and_keeps_the_message():
    error = from_kernel("Novel", "what now", {"x": 1})
    assert type(error) is errors.InternalError
    assert "what now" in str(error)


def test_a_conflict_carries_refs():
    error = from_kernel(
        "Conflict",
        "x",
        {
            "keys": [("main", "default", "kv", "a"), ("main", "s", "events", b"log\0" + (7).to_bytes(8))],
            "paths": [("main", "default", "json", "doc", "$.a", "$.a.b")],
            "ranges": [("main", "default", "kv", "a", None)],
        },
    )
    assert error.keys == (
        ConflictKey(EntityRef("main", "default", "kv", "a")),
        ConflictKey(EntityRef("main", "s", "events", "log/7")),
    )
    assert error.paths == (ConflictPath(EntityRef("main", "default", "json", "doc"), "$.a", "$.a.b"),)
    assert error.ranges == (ConflictRange("main", "default", "kv", "a", None),)
    assert "strata://main/default/kv/a" in str(error)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.keys, twin.paths, twin.ranges) == (error.keys, error.paths, error.ranges)


def test_a_merge_conflict_is_a_conflict():
    error = errors.MergeConflict(conflicts=[1, 2])
    assert isinstance(error, Conflict)
    assert error.conflicts == (1, 2)
    assert error.keys == ()


def test_messages_of_key_errors_are_not_quoted():
    assert str(errors.NotFound(what="branch", name="mian")) == "branch 'mian' does not exist"
    assert issubclass(errors.NotIndexed, errors.NotFound)
    assert isinstance(errors.Closed(), StrataError)
