"""Vectors: near ones are found, exactly, on any branch and at any version; what is wrong is refused whole."""

from __future__ import annotations

import math
import struct
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strata
from strata.errors import AlreadyExists, InvalidInput, NotFound, RemoteError
from strata.testing import SimDisk, looking

FLOATS = st.floats(-10, 10, width=32)
VECTORS = st.one_of(st.just([0.0, 0.0, 0.0]), st.lists(FLOATS, min_size=3, max_size=3))
METRICS = ["cosine", "euclidean", "dot"]


def near(metric, a, b):
    return looking._nearness(metric, array("f", a).tolist(), array("f", b).tolist())


@settings(max_examples=80, deadline=None)
@given(
    rows=st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(VECTORS, st.integers(0, 3)), max_size=8),
    moved=st.dictionaries(st.sampled_from("abcdefgh"), VECTORS, max_size=4),
    asked=VECTORS,
    metric=st.sampled_from(METRICS),
    k=st.integers(0, 9),
    least=st.integers(0, 3),
    indexed=st.booleans(),
)
def test_the_nearest_are_found(rows, moved, asked, metric, k, least, indexed):
    with strata.open(disk=SimDisk(1)) as db:
        db.vectors.create_collection("c", 3, metric=metric)
        if indexed:
            db.indexes.create("by_n", primitive="vectors", kind="ordered", paths="$.n", prefix="c\0")
        db.vectors.upsert_many(
            "c", list(rows), [row[0] for row in rows.values()], [{"n": row[1]} for row in rows.values()]
        ) if rows else None
        db.checkpoint()
        before = db.version
        db.branches.fork("main", "b")
        branch = db.branch("b")
        for key, vector in moved.items():
            branch.vectors.upsert("c", key, vector, {"n": 3})
        for key in list(rows)[:2]:
            db.vectors.delete("c", key)
        shown = {
            "before": (db.at(before), rows),
            "main": (db, dict(list(rows.items())[2:])),
            "b": (branch, {**rows, **{key: (vector, 3) for key, vector in moved.items()}}),
        }
        for face, there in shown.values():
            for where in (None, {"$.n": {"gte": least}}):
                passing = {key: row for key, row in there.items() if where is None or row[1] >= least}
                expected = sorted(((-near(metric, asked, row[0]), key) for key, row in passing.items()))[:k]
                hits = face.vectors.query("c", asked, k, where)
                assert len(hits) == len(expected)
                assert [hit.score for hit in hits] == pytest.approx([-e[0] for e in expected], abs=1e-6)
                assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.key))
                assert all(hit.metadata["n"] == there[hit.key][1] for hit in hits)
            assert face.vectors.count("c") == len(there)


@pytest.fixture
def db():
    with strata.open() as db:
        db.vectors.create_collection("c", 2)
        yield db


def test_what_is_stored_comes_back_to_the_bit(db):
    vector = [0.1, -1e-40]
    db.vectors.upsert("c", "a", vector, {"lang": "en"})
    entry = db.vectors.get("c", "a")
    assert entry.vector.tolist() == array("f", vector).tolist()
    assert (entry.metadata, entry.key, entry.version) == ({"lang": "en"}, "a", db.version)
    db.vectors.upsert("c", "a", array("d", [1, 2]))
    assert db.vectors.delete("c", "a")
    history = db.vectors.history("c", "a")
    assert [one.deleted for one in history] == [True, False, False]
    assert history[1].vector.tolist() == [1.0, 2.0]
    assert db.vectors.get("c", "a") is None
    assert not db.vectors.exists("c", "a")


def test_matrices_are_taken_as_they_are(db):
    flat = array("f", [1, 0, 0, 1, 1, 1])
    matrix = memoryview(flat).cast("B").cast("f", [3, 2])
    db.vectors.upsert_many("c", ["x", "y", "xy"], matrix, [{"n": 1}, None, {"n": 3}])
    assert [hit.key for hit in db.vectors.query("c", memoryview(array("f", [1, 0])), 2)] == ["x", "xy"]
    assert list(db.vectors.keys("c", "x")) == ["x", "xy"]
    with pytest.raises(InvalidInput, match="has 2 numbers, not 3"):
        db.vectors.upsert_many("c", ["x", "y"], memoryview(flat).cast("B").cast("f", [2, 3]))


def test_numpy_goes_in_and_out(db):
    np = pytest.importorskip("numpy")
    matrix = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    db.vectors.upsert_many("c", [f"k{n}" for n in range(50)], matrix)
    assert np.array_equal(np.asarray(db.vectors.get("c", "k7").vector), matrix[7])
    best = db.vectors.query("c", matrix[7], 1)[0]
    assert best.key == "k7"
    assert math.isclose(best.score, 1.0, rel_tol=1e-6)
    wide = np.asfortranarray(np.ones((2, 2), dtype=np.float64))
    db.vectors.upsert_many("c", ["f", "g"], wide)
    assert db.vectors.get("c", "f").vector.tolist() == [1.0, 1.0]


def test_collections(db):
    made = db.vectors.create_collection("d", 4, metric="dot", quantization="i8")
    assert db.vectors.collection("d") == made
    assert [one.name for one in db.vectors.collections()] == ["c", "d"]
    db.vectors.upsert("d", "a", [1, 2, 3, 4])
    assert db.vectors.stats("d").vectors == 1
    assert db.vectors.stats("d").bytes == 16
    with pytest.raises(AlreadyExists, match="d"):
        db.vectors.create_collection("d", 4)
    db.branches.fork("main", "b")
    assert db.vectors.drop("d")
    assert not db.vectors.drop("d")
    with pytest.raises(NotFound, match="d"):
        db.vectors.query("d", [1, 2, 3, 4])
    assert db.branch("b").vectors.query("d", [1, 2, 3, 4])[0].score == pytest.approx(30, rel=0.02)
    db.vectors.create_collection("d", 2)
    db.vectors.upsert("d", "a", [1, 2])
    assert db.vectors.query("d", [1, 2])[0].score == pytest.approx(1)
    assert len(db.branch("b").vectors.query("d", [1, 2, 3, 4])) == 1


def test_transactions_see_their_own(db):
    db.vectors.upsert("c", "a", [1, 0])
    with db.transaction() as txn:
        txn.vectors.upsert("c", "b", [1, 0.1])
        txn.vectors.delete("c", "a")
        assert [hit.key for hit in txn.vectors.query("c", [1, 0])] == ["b"]
        assert [hit.key for hit in db.vectors.query("c", [1, 0])] == ["a"]
    assert [hit.key for hit in db.vectors.query("c", [1, 0])] == ["b"]


def test_delete_where(db):
    db.vectors.upsert_many("c", ["a", "b", "e"], [[1, 0]] * 3, [{"n": 1}, {"n": 2}, None])
    assert db.vectors.delete_where("c", {"$.n": {"gte": 2}}) == 1
    assert list(db.vectors.keys("c")) == ["a", "e"]
    with pytest.raises(InvalidInput, match="no operator"):
        db.vectors.delete_where("c", {"$.n": {"above": 2}})


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ([1], "has 1 numbers, and the collection 2"),
        ([1, 2, 3], "has 3 numbers"),
        ([1, math.nan], "NaN"),
        ([math.inf, 1], "infinity"),
        ([1e39, 1], "'k'"),
        (["a", "b"], "no sequence of numbers"),
        ([True, False], "no sequence of numbers"),
        ("ab", "no sequence of numbers"),
        (b"abcdefgh", "no sequence of numbers"),
        (7, "no sequence of numbers"),
        ({0: 1, 1: 2}, "no sequence of numbers"),
        ([[1, 2]], "no sequence of numbers"),
    ],
)
def test_vectors_that_are_refused(db, vector, says):
    before = db.version
    with pytest.raises(InvalidInput, match=says):
        db.vectors.upsert("c", "k", vector)
    with pytest.raises(InvalidInput):
        db.vectors.query("c", vector)
    with pytest.raises(InvalidInput):
        db.vectors.upsert_many("c", ["good", "k"], [[1, 2], vector])
    assert db.version == before


def test_other_bad_input(db):
    vectors = db.vectors
    for wrong in (0, 65_536, -1, 2.0, True, "2", None):
        with pytest.raises(InvalidInput):
            vectors.create_collection("x", wrong)
    for options in ({"metric": "hamming"}, {"quantization": "i4"}, {"embedder": 7}):
        with pytest.raises(InvalidInput):
            vectors.create_collection("x", 2, **options)
    with pytest.raises(NotFound, match="embedder"):
        vectors.create_collection("x", embedder="nobody")
    with pytest.raises(InvalidInput, match="slash"):
        vectors.create_collection("a/b", 2)
    with pytest.raises(NotFound, match="collection"):
        vectors.upsert("none", "k", [1, 2])
    for wrong in (-1, 1.5, "3"):
        with pytest.raises(InvalidInput):
            vectors.query("c", [1, 2], wrong)
    for recall in (0, -1.0, 1.1, math.nan, "all", True, None):
        with pytest.raises(InvalidInput, match="recall"):
            vectors.query("c", [1, 2], recall=recall)
    with pytest.raises(InvalidInput, match="no operator"):
        vectors.query("c", [1, 2], where={"$.n": {"above": 1}})
    with pytest.raises(InvalidInput, match="not equally many"):
        vectors.upsert_many("c", ["a"], [[1, 2], [3, 4]])
    with pytest.raises(InvalidInput, match="metadata is a map"):
        vectors.upsert("c", "a", [1, 2], ["n"])
    with pytest.raises(InvalidInput, match="either"):
        vectors.upsert("c", "a")
    with pytest.raises(InvalidInput, match="no embedder"):
        vectors.query("c", text="hello")


class Broken:
    name, dim, timeout_s = "broken", 2, 0.2

    def __init__(self, answer):
        self.answer = answer

    def embed(self, texts):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ValueError("out of quota"), RemoteError),
        ([[1.0]], InvalidInput),
        ([[1.0, math.nan]], InvalidInput),
        ([], InvalidInput),
        (None, InvalidInput),
    ],
)
def test_a_write_fails_whole_with_its_embedder(answer, error):
    with strata.open() as db:
        db.vectors.create_collection("t", embedder=Broken(answer))
        before = db.version
        with pytest.raises(error, match="broken"):
            db.vectors.upsert("t", "a", text="hello")
        assert db.version == before


def test_texts_are_embedded_as_they_are_written():
    with strata.open() as db:
        db.vectors.create_collection("t", embedder="hashing-256")
        texts = {"tea": "green tea in the morning", "log": "the write-ahead log", "fox": "a quick brown fox"}
        db.vectors.upsert_many("t", list(texts), texts=list(texts.values()))
        assert db.vectors.query("t", text="morning tea", k=1)[0].key == "tea"
        assert db.vectors.get("t", "fox").text == "a quick brown fox"


def test_a_change_says_what_it_is(db):
    before = db.version
    db.vectors.upsert("c", "a", [1, 0], {"n": 1})
    (change,) = db.diff(before, db.version)
    assert (change.what, change.primitive, change.key) == ("added", "vectors", "c/a")
    assert change.new.metadata == {"n": 1}


def test_an_index_over_lists_in_documents():
    with strata.open() as db:
        db.indexes.create("near", primitive="json", kind="vector", paths="$.v", dim=2, metric="euclidean")
        db.json.set("a", "$", {"v": [0, 1]})
        db.json.set("b", "$", {"v": [5, 5.5]})
        db.json.set("c", "$", {"v": ["x"]})
        txn = db._source.keyspace("default", db.json.LAYOUT)
        found = txn.by_vector("near", struct.pack("<2f", 0, 0), 10)
        assert [(key, score) for key, _, score in found] == [
            ("a", 0.5),
            ("b", pytest.approx(1 / (1 + math.hypot(5, 5.5)))),
        ]
