"""Import and export: what is written in any format comes back; bad rows are named; all or nothing."""

from __future__ import annotations

import json
import math
import sqlite3
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import strata_
from test_cli_verbs import piped

import strata
from strata.cli.formats import NAMES, Options, module_of
from strata.core.values import same

EACH = pytest.mark.parametrize("form", NAMES)
EXTENSION = {"jsonl": "jsonl", "csv": "csv", "arrow": "arrow", "parquet": "parquet", "sqlite": "db"}

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=6) | st.sampled_from(
    ["", "1", "007", "1.0", "true", "null", "NaN", '"', '"a"', "[", "{}", "-", "a,b", "a\nb", "\r", " 1",
     "1e5", "123456789012345678901234567890"]
)  # fmt: skip
ints = st.integers(-(2**63), 2**63 - 1)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
columns = st.dictionaries(st.sampled_from(["a", "b", "c c"]), values, min_size=1)


def there_and_back(form, tmp_path_factory, records, names=()):
    file = str(tmp_path_factory.mktemp("f") / f"x.{EXTENSION[form]}")
    module, options = module_of(form), Options("t", names)
    assert module.write(file, lambda: iter(records), options) == len(records)
    return [record for _, record in module.read(file, options)]


@EACH
@settings(deadline=None)  # the first one imports pyarrow
@given(data=st.data())
def test_values_come_back_as_they_were(form, data, tmp_path_factory):
    """Whatever a column holds: all of one kind, or of any."""
    kind = data.draw(st.sampled_from([values, ints, st.floats(), texts, st.binary()]))
    drawn = data.draw(st.lists(kind, max_size=6))
    records = [{"key": f"k{number}", "value": value} for number, value in enumerate(drawn)]
    back = there_and_back(form, tmp_path_factory, records, ("key", "value"))
    assert same(back, records)


@EACH
@settings(deadline=None)  # the first one imports pyarrow
@given(records=st.lists(columns, min_size=1, max_size=5))
def test_rows_of_different_columns(form, records, tmp_path_factory):
    back = there_and_back(form, tmp_path_factory, records)
    for record, found in zip(records, back, strict=True):
        if form != "jsonl":
            found = {name: value for name, value in found.items() if name in record or value is not None}
        assert same(found, record)


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "db")
    with strata.open(path) as db:
        db.kv.put_many({"a": 1, "b": "1", "c": None, "d": b"\x00\xff", "e": math.nan, "f": {"x": [1, "ä"]}})
        db.json.set("ada", "$", {"name": "Ada", "age": 36, "tags": ["x"], "zip": "007"})
        db.json.set("bob", "$", {"name": "Bob", "age": 40, "tags": [], "zip": None})
        db.events.append_many([("ask", {"n": 1}), ("tell", {"n": 2, "ok": True})], stream="talk")
        db.vectors.create_collection("facts", 2)
        db.vectors.upsert("facts", "sky", [0.1, 2.5], {"colour": "blue"})
        db.vectors.upsert("facts", "sea", [1.0, -0.0])
        db.branches.fork("main", "draft").kv.put("a", 2)
    return path


def content(path, branch="main"):
    with strata.open(path) as db:
        place = db.branch(branch)
        events = [event for name in place.events.streams() for event in place.events.range(stream=name)]
        entries = [
            place.vectors.get(made.name, key)
            for made in place.vectors.collections()
            for key in place.vectors.keys(made.name)
        ]
        return {
            "kv": dict(place.kv.scan()),
            "json": {doc: place.json.get(doc) for doc in place.json.list()},
            "events": [(event.type, event.payload) for event in events],
            "vectors": [(entry.key, entry.vector.tolist(), entry.metadata) for entry in entries],
        }


@EACH
@pytest.mark.parametrize("primitive", ["kv", "json", "events", "vectors"])
def test_round_trips(capsys, path, tmp_path, form, primitive):
    file, copy = str(tmp_path / f"x.{EXTENSION[form]}"), str(tmp_path / "copy")
    options = ["--primitive", primitive]
    options += {"events": ["--stream", "talk"], "vectors": ["--collection", "facts"]}.get(primitive, [])
    code, out, errors = strata_(capsys, "export", path, file, *options)
    assert (code, out) == (0, "") and errors.endswith(" records\n")
    code, out, errors = strata_(capsys, "import", copy, file, *options)
    assert code == 0 and out == "1\n" and errors.endswith(" records\n")
    assert same(content(copy)[primitive], content(path)[primitive]) and content(path)[primitive]
    with strata.open(copy) as db:
        assert db.log(limit=1)[0].actor == "strata import"
    assert strata_(capsys, "export", path, file, *options)[0] == 1  # it is there


@EACH
def test_documents_as_rows_of_a_table(capsys, path, tmp_path, form):
    file, copy = str(tmp_path / f"x.{EXTENSION[form]}"), str(tmp_path / "copy")
    options = ("--primitive", "json", "--key", "id")
    assert strata_(capsys, "export", path, file, *options)[0] == 0
    if form == "sqlite":
        rows = sqlite3.connect(file).execute("select id, name, age, zip from json order by age").fetchall()
        assert rows == [("ada", "Ada", 36, "007"), ("bob", "Bob", 40, None)]
    assert strata_(capsys, "import", copy, file, *options)[0] == 0
    assert content(copy)["json"] == content(path)["json"]
    assert (
        strata_(capsys, "export", path, tmp_path / "y.csv", "--key", "id")[0] == 1
    )  # of kv, not all are maps
    assert strata_(capsys, "export", path, tmp_path / "z.csv", "--primitive", "json", "--key", "name")[0] == 1
    assert not (tmp_path / "y.csv").exists() and not list(tmp_path.glob(".*.part"))


def test_a_table_of_others(capsys, tmp_path):
    file, path = str(tmp_path / "shop.sqlite"), str(tmp_path / "db")
    with sqlite3.connect(file) as shop:
        shop.execute("create table item (id integer primary key, name text, price real, blob blob)")
        shop.execute("insert into item values (1, '12', 2.5, x'00ff'), (2, 'b', null, null)")
    shop.close()
    options = ("--table", "item", "--key", "id")
    assert strata_(capsys, "import", path, file, *options)[0] == 0
    with strata.open(path) as db:
        assert dict(db.kv.scan()) == {
            "1": {"name": "12", "price": 2.5, "blob": b"\x00\xff"},
            "2": {"name": "b", "price": None, "blob": None},
        }
    code, _, errors = strata_(capsys, "import", path, file, "--table", "itme", "--key", "id")
    assert code == 1 and "item" in errors
    assert strata_(capsys, "export", path, file, "--table", "item")[0] == 1  # that one is there
    assert strata_(capsys, "export", path, file, "--table", "more")[0] == 0
    with sqlite3.connect(file) as shop:
        assert shop.execute("select count(*) from item").fetchone() == (2,)
        assert shop.execute("select count(*) from more").fetchone() == (2,)
    shop.close()


def test_cells_of_others(capsys, tmp_path):
    (tmp_path / "x.csv").write_bytes('\ufeffid,n,zip,ok\r\na,1,0812,true\r\n"b,c",,x,\r\n'.encode())
    assert strata_(capsys, "import", tmp_path / "db", tmp_path / "x.csv", "--key", "id")[0] == 0
    assert content(tmp_path / "db")["kv"] == {
        "a": {"n": 1, "zip": "0812", "ok": True}, "b,c": {"n": None, "zip": "x", "ok": None},
    }  # fmt: skip
    assert strata_(capsys, "import", tmp_path / "t", tmp_path / "x.csv", "--key", "id", "--text")[0] == 0
    assert content(tmp_path / "t")["kv"]["a"] == {"n": "1", "zip": "0812", "ok": "true"}


def test_arrow_of_others(capsys, tmp_path):
    import pyarrow as pa

    table = pa.table({"id": ["a"], "when": pa.array([0], pa.timestamp("s")), "nested": [{"x": [1, None]}]})
    with pa.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert strata_(capsys, "import", tmp_path / "db", tmp_path / "x.arrow", "--key", "id")[0] == 0
    assert content(tmp_path / "db")["kv"] == {
        "a": {"when": "1970-01-01T00:00:00", "nested": {"x": [1, None]}}
    }


def test_vectors_are_a_matrix_in_arrow(capsys, path, tmp_path):
    import pyarrow as pa

    strata_(capsys, "export", path, tmp_path / "x.arrow", "--primitive", "vectors", "--collection", "facts")
    table = pa.ipc.open_file(str(tmp_path / "x.arrow")).read_all()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 2)
    assert table["key"].to_pylist() == ["sea", "sky"]


@pytest.mark.parametrize(
    ("name", "lines", "where"),
    [
        ("x.jsonl", ['["new", 1]', '{"key": "x"}'], "line 2"),
        ("x.jsonl", ['["new", 1]', "", "{"], "line 3"),
        ("x.jsonl", ['["new", 1]', "7"], "line 2"),
        ("x.jsonl", ['["new", 1]', '{"key": 7, "value": 1}'], "line 2"),
        ("x.jsonl", ['["new", 1]', '{"key": "x", "value": 1, "more": 2}'], "line 2"),
        ("x.jsonl", ['["new", 1]', '["", 1]'], "line 2"),
        ("x.jsonl", ['["new", 1]', '["k", 123456789012345678901234567890]'], "line 2"),
        ("x.csv", ["key,value", "new,1", "x"], "line 3"),
        ("x.csv", ["key,value", 'new,"1', "x"], "line"),
        ("x.csv", ["key,key", "new,1"], "line 1"),
        ("x.arrow", ["no arrow"], "x.arrow"),
        ("x.parquet", ["no parquet"], "x.parquet"),
        ("x.db", ["no database, and long enough to be one" * 100], "x.db"),
        ("none.jsonl", None, "none.jsonl"),
        ("none.parquet", None, "none.parquet"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_and_nothing_is_written(capsys, path, tmp_path, name, lines, where):
    file, before = tmp_path / name, content(path)
    if lines is not None:
        file.write_text("\n".join(lines))
    code, out, errors = strata_(capsys, "import", path, file)
    assert (code, out) == (1, "") and errors.startswith("error: ") and where in errors
    assert same(content(path), before)


def test_options_that_do_not_go_together(capsys, path, tmp_path):
    for words in (
        ("export", path, tmp_path / "x.bundle", "--primitive", "json"),
        ("export", path, tmp_path / "x.csv", "--history"),
        ("export", path, tmp_path / "x.json"),
        ("export", path, "-"),
        ("export", path, tmp_path / "x.csv", "--primitive", "vectors"),
        (
            "export",
            path,
            tmp_path / "x.csv",
            "--primitive",
            "vectors",
            "--collection",
            "facts",
            "--key",
            "id",
        ),
        ("export", path, tmp_path / "none" / "x.csv"),
        ("import", path, tmp_path / "x.bundle", "--text"),
        ("import", path),
    ):
        code, out, errors = strata_(capsys, *words)
        assert (code, out) == (1, "") and errors.startswith("error: "), words
    assert not (tmp_path / "x.csv").exists() and not (tmp_path / "x.bundle").exists()


def test_standard_input_and_output(capsys, path, tmp_path, monkeypatch):
    code, out, _ = strata_(capsys, "export", path, "-", "--format", "jsonl", "--prefix", "a")
    assert (code, out) == (0, '{"key": "a", "value": 1}\n')
    piped(monkeypatch, out.encode())
    assert strata_(capsys, "import", tmp_path / "copy", "-", "--format", "jsonl")[0] == 0
    assert content(tmp_path / "copy")["kv"] == {"a": 1}
    code, out, _ = strata_(
        capsys, "export", path, "-", "--format", "csv", "--branch", "draft", "--prefix", "a"
    )
    assert out == "key,value\na,2\n"
    piped(monkeypatch, out.encode())
    assert strata_(capsys, "import", tmp_path / "copy", "-", "--format", "csv", "--branch", "main")[0] == 0
    assert content(tmp_path / "copy")["kv"] == {"a": 2}


def test_at_a_point_in_history(capsys, path):
    assert strata_(capsys, "kv", "put", path, "a", "9")[0] == 0
    out = strata_(capsys, "export", path, "-", "--format", "jsonl", "--prefix", "a", "--at", "1")[1]
    assert json.loads(out)["value"] == 1


def test_bundles_as_before(capsys, path, tmp_path):
    assert strata_(capsys, "export", path, tmp_path / "all.bundle")[0] == 0
    assert strata_(capsys, "import", "--check", tmp_path / "all.bundle")[0] == 0
    assert strata_(capsys, "import", tmp_path / "one", tmp_path / "all.bundle")[0] == 0
    assert strata_(capsys, "import", tmp_path / "all.bundle", tmp_path / "two")[0] == 0
    for copy in ("one", "two"):
        assert same(content(tmp_path / copy), content(path))


def test_without_pyarrow(capsys, path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("x.arrow", "x.parquet"):
        code, _, errors = strata_(capsys, "export", path, tmp_path / name)
        assert code == 1 and "[arrow]" in errors


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    """A value that cannot be written, far into the file, leaves nothing behind."""

    def records():
        yield {"a": 1}
        raise KeyboardInterrupt

    for form in ("jsonl", "csv", "parquet", "arrow", "sqlite"):
        with pytest.raises(KeyboardInterrupt):
            module_of(form).write(str(tmp_path / f"x.{form}"), records, Options("t", ("a",)))
    assert list(tmp_path.iterdir()) == []
