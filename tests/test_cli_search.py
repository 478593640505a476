"""`strata search`: what the library finds, on a terminal and as JSON."""

from __future__ import annotations

import json

import pytest
from test_cli import strata_

import strata


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "test.strata"
    with strata.open(path) as db:
        db.indexes.create("talk", primitive="json", paths="$.text")
        db.json.set("a/1", "$", {"text": "green tea", "by": "Ada"})
        db.json.set("a/2", "$", {"text": "tea in the harbour", "by": "Bob"})
        db.json.destroy("a/1")
        db.kv.put("note", "more tea")
    return path


def test_it_prints_what_fits_best(capsys, path):
    code, out, _ = strata_(capsys, "search", path, "tea")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()[::2]] == ["strata://main/default/json/a/2"]
    assert "**tea** in the harbour" in out
    assert strata_(capsys, "search", path, "coffee")[1] == "nothing found\n"


def test_it_takes_what_the_library_takes(capsys, path):
    def keys(*arguments):
        out = strata_(capsys, "search", path, "tea", "--json", *arguments)[1]
        refs = [hit["ref"].partition("@")[0] for hit in json.loads(out)["hits"]]
        return [ref.partition("json/")[2] or ref for ref in refs]

    assert set(keys("--at", "2")) == {"a/1", "a/2"}
    assert keys("--at", "2", "--where", '{"by": "Ada"}') == ["a/1"]
    assert keys("--at", "2", "-k", "1", "--offset", "1") == [keys("--at", "2")[1]]
    assert keys("--primitive", "kv", "--scan") == ["strata://main/default/kv/note"]
    assert keys("--prefix", "b/") == []


def test_it_says_why(capsys, path):
    out = strata_(
        capsys, "search", path, "tea harbour", "--at", "2", "--where", '{"by": "Bob"}', "--explain"
    )[1]
    assert "talk: " in out and "harbour: " in out
    assert "json/a/1@2: taken out by the filter: where" in out


@pytest.mark.parametrize(
    "arguments", [("--primitive", "kv"), ("--where", "{"), ("--where", "[]"), ("-k", "-1"), ("--at", "never")]
)
def test_what_cannot_be_answered_is_an_error_of_a_line_or_two(capsys, path, arguments):
    code, out, errors = strata_(capsys, "search", path, "tea", *arguments)
    assert (code, out) == (1, "")
    assert errors.startswith("error: ") and len(errors.splitlines()) <= 2
