"""The catalogue, made executable: each example runs as Python and as data, and is what its schema says."""

from __future__ import annotations

import inspect
import runpy
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

import strata
from strata.api.dispatch import dispatch
from strata.api.examples import EXAMPLES
from strata.api.operations import OPERATIONS, Operation
from strata.api.plain import decode_json, encode_json, plain, to_json
from strata.api.replay import Replay
from strata.api.requests import fields_of, request_type
from strata.api.revive import revive
from strata.api.schema import Schemas
from strata.core.errors import all_errors
from strata.history.diff import Diff
from strata.history.explain import Explanation
from strata.primitives.traces import TraceTree
from strata.search.results import Results
from strata.testing import FakeClock

ROOT = Path(__file__).resolve().parent.parent
EACH = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)

# What differs each time: ids, what depends on them, sizes, and how long it took.
CHANCE = {"database", "session", "id", "hash", "state_hash", "took_ms", "files", "memory", "written"}


def without_chance(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: without_chance(value) for key, value in data.items() if key not in CHANCE}
    return [without_chance(item) for item in data] if isinstance(data, list) else data


def set_up(operation: Operation) -> dict[str, Any]:
    """Return the names that an example sees once its setting was run."""
    path = "example.strata" if operation.example.on_disk else None
    names = {"strata": strata, "db": strata.open(path, clock=FakeClock())}
    for line in operation.example.setting:
        exec(line, names)
    return names


def by_python(operation: Operation, names: dict[str, Any]) -> Any:
    """Return what the method gives, as plain data."""
    found = eval(operation.example.code(operation), names)
    if isinstance(found, strata.Run):
        return plain(found.info)
    return plain(names["db"].branches.get(found.name) if isinstance(found, strata.Branch) else found)


def arguments(operation: Operation, names: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an example; only an event has to be read first."""
    if operation.name == "events.adopt":
        return {"event": plain(names["event"]), "branch": "draft"}
    return operation.example.arguments


def by_json(operation: Operation, names: dict[str, Any]) -> Any:
    """Return what dispatch gives, its arguments and its result having been through JSON."""
    given = decode_json(encode_json(plain(arguments(operation, names))))
    return decode_json(encode_json(dispatch(names["db"], operation.name, {}, given)))


@EACH
def test_examples_run_as_python_and_as_data(operation, tmp_path, monkeypatch):
    results = []
    for way in (by_python, by_json):
        (tmp_path / way.__name__).mkdir()
        monkeypatch.chdir(tmp_path / way.__name__)
        names = set_up(operation)
        try:
            results.append(way(operation, names))
        finally:
            names["db"].close()
    schemas = Schemas()
    result = {**schemas.result(operation), "$defs": schemas.definitions}
    jsonschema.Draft202012Validator.check_schema(result)
    jsonschema.Draft202012Validator(result).validate(to_json(results[1]))
    items = results[1]["items"] if operation.pages else results[1]
    expected = results[0]
    if operation.name == "log":  # of two commits the example asks for one
        expected = expected[:1]
    assert without_chance(items) == without_chance(expected)


@EACH
def test_requests_are_what_the_schema_says(operation):
    schemas = Schemas()
    request = schemas.request(operation)
    schema = {**request, "$defs": schemas.definitions}
    jsonschema.Draft202012Validator.check_schema(schema)
    if operation.name != "events.adopt":
        jsonschema.Draft202012Validator(schema).validate(to_json(plain(operation.example.arguments)))
    struct = request_type(operation)
    assert list(struct.__struct_fields__) == list(request["properties"])
    assert struct.__struct_config__.forbid_unknown_fields
    needed = {field.name for field in msgspec.structs.fields(struct) if field.required}
    assert needed == set(request.get("required", ()))


@EACH
def test_nothing_of_a_method_is_lost_but_what_data_cannot_say(operation):
    left_out = operation.request.keys() - {field.name for field in fields_of(operation)}
    assert left_out <= {"progress", "rerank"}
    for name in left_out:
        assert operation.request[name].default is None


@EACH
def test_errors_exist_and_docs_are_whole(operation):
    assert set(operation.errors) <= all_errors().keys()
    assert operation.docs == inspect.getdoc(inspect.getattr_static(operation.owner, operation.method))
    assert "Raises:" not in operation.docs or operation.errors, operation.docs


def test_every_operation_has_an_example():
    assert EXAMPLES.keys() == OPERATIONS.keys()


def test_the_page_of_the_reference_is_what_the_catalogue_says():
    made = runpy.run_path(str(ROOT / "tools" / "operations_page.py"))["page"]()
    written = (ROOT / "docs" / "reference" / "operations.md").read_text("utf-8")
    assert made == written, "run: python tools/operations_page.py > docs/reference/operations.md"


def test_the_catalogue_loads_little_when_it_is_asked_for_names():
    """A simple verb of the command line must not pay for schemas, nor for the kernel."""
    import subprocess

    code = (
        "import sys; from strata.api.operations import OPERATIONS; OPERATIONS['kv.put'].access;"
        "print([n for n in sys.modules if n in ('strata._kernel', 'strata.api.schema', 'strata.api.requests',"
        "'strata.api.examples', 'numpy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@EACH
def test_results_come_back_as_what_they_were(operation, tmp_path, monkeypatch):
    """What a client makes of plain data is plain data again, and equal to what the method gave."""
    monkeypatch.chdir(tmp_path)
    names = set_up(operation)
    with names["db"] as db:
        data = dispatch(db, operation.name, {}, arguments(operation, names))
        revived = revive(operation, decode_json(encode_json(data)))
        assert plain(revived) == (data["items"] if operation.pages else data)
        if operation.access == "read" and operation.result not in (Diff, Replay):
            found = eval(operation.example.code(operation), names)
            found = list(found) if operation.pages else found
            if not isinstance(found, Explanation | TraceTree | Results) and operation.name != "info":
                assert revived == found
