"""`db.search` over vectors, and over vectors and words together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import databases
import pytest

import strata
from strata.errors import InvalidInput, NotFound, NotIndexed, RemoteError
from strata.search import CallableEmbedder, HashingEmbedder, Results, register
from strata.testing import FakeClock


@pytest.fixture(params=databases.KINDS)
def db(request: Any) -> Iterator[strata.Database]:
    with databases.make(request.param, FakeClock()) as opened:
        opened.vectors.create_collection("places", 2)
        for key, vector in {"north": [0, 1], "east": [1, 0], "north-east": [1, 1]}.items():
            opened.vectors.upsert("places", key, vector, {"name": f"the {key}", "letters": len(key)})
        yield opened


def keys(results: Results) -> list[str]:
    return [hit.key for hit in results]


def found(results: Results) -> list[tuple[str, float]]:
    return [(hit.key, hit.score) for hit in results]


def test_the_nearest_come_first(db: strata.Database):
    results = db.search(vector=[0.1, 1])
    assert keys(results) == ["places/north", "places/north-east", "places/east"]
    assert [hit.score for hit in results] == [hit.score for hit in db.vectors.query("places", [0.1, 1])]
    assert str(results[0].ref) == "strata://main/default/vectors/places/north"
    assert results[0].value.metadata == {"name": "the north", "letters": 5}
    assert str(results[0].snippet) == "the north"
    assert set(results[0].signals) == {"places"}
    assert keys(db.search(vector=[0.1, 1], k=1, offset=1)) == ["places/north-east"]


def test_filters_by_metadata_key_and_state(db: strata.Database):
    assert keys(db.search(vector=[1, 0], where={"letters": 5})) == ["places/north"]
    assert keys(db.search(vector=[1, 0], prefix="places/n")) == ["places/north-east", "places/north"]
    version, before = db.version, found(db.search(vector=[1, 0]))
    db.vectors.delete("places", "east")
    assert keys(db.search(vector=[1, 0])) == ["places/north-east", "places/north"]
    assert found(db.search(vector=[1, 0], at=version)) == before
    assert found(db.branches.fork("main", "draft", at=version).search(vector=[1, 0])) == before


def test_words_and_vectors_are_put_together_by_rank(db: strata.Database):
    db.indexes.create("names", primitive="vectors", paths="$.name")
    results = db.search("east", vector=[0, 1])
    assert len(results) == 3
    (both,) = [hit for hit in results if hit.key == "places/north-east"]
    assert both.score == sum(1 / (60 + signal.rank) for signal in both.signals.values())
    assert set(both.signals) == {"names", "places"}
    assert keys(db.search("east", vector=[0, 1], weights={"text": 9}))[0] == "places/east"
    assert keys(db.search("east", vector=[0, 1], weights={"names": 0}))[0] == "places/north"


def test_a_collection_with_an_embedder_answers_texts(db: strata.Database):
    db.vectors.create_collection("notes", embedder=HashingEmbedder(256))
    for key, text in {"1": "brewing green tea", "2": "rain over the harbour"}.items():
        db.vectors.upsert("notes", key, text=text)
    results = db.search("she brews teas")
    assert keys(results) == ["notes/1", "notes/2"]
    assert "tea" in str(results[0].snippet)
    assert set(results[0].signals) == {"notes"}
    assert keys(db.search("harbour", indexes=["notes"], k=1)) == ["notes/2"]


def test_an_embedder_that_fails_fails_the_search_with_its_message(db: strata.Database):
    working = True

    def model(texts: list[str]) -> list[list[float]]:
        if not working:
            raise OSError("the model is gone")
        return [[1.0, 0.0] for _ in texts]

    register(CallableEmbedder(model, name="frail", dim=2))
    db.vectors.create_collection("frail", embedder="frail")
    db.vectors.upsert("frail", "a", text="tea")
    assert keys(db.search("tea")) == ["frail/a"]
    working = False
    with pytest.raises(RemoteError, match="the model is gone"):
        db.search("tea")
    version = db.version
    with pytest.raises(RemoteError, match="the model is gone"):
        db.vectors.upsert("frail", "b", text="tea")
    assert db.version == version


def test_vectors_of_other_lengths_are_left_out_unless_there_are_no_others(db: strata.Database):
    db.vectors.create_collection("deep", 3)
    db.vectors.upsert("deep", "a", [1, 0, 0])
    assert keys(db.search(vector=[1, 0, 0])) == ["deep/a"]
    assert len(keys(db.search(vector=[1, 0]))) == 3
    with pytest.raises(InvalidInput, match="2, 3"):
        db.search(vector=[1, 0, 0, 0])
    with pytest.raises(InvalidInput, match="3 numbers"):
        db.search(vector=[1, 0], indexes=["deep"])


def test_vectors_inside_of_documents(db: strata.Database):
    db.indexes.create("where", primitive="json", kind="vector", paths="$.at", dim=2)
    for key, at in {"home": [0.0, 2.0], "away": [3.0, 0.1]}.items():
        db.json.set(key, "$", {"at": at, "name": f"my {key}"})
    assert keys(db.search(vector=[1, 0], primitives=["json"])) == ["away", "home"]
    assert keys(db.search(vector=[1, 0], indexes=["where"], where={"name": "my home"})) == ["home"]
    assert set(keys(db.search(vector=[1, 0]))) == {
        "away", "home", "places/east", "places/north", "places/north-east",
    }  # fmt: skip


def test_what_is_not_there_is_told(db: strata.Database):
    with pytest.raises(NotFound):
        db.search(vector=[1, 0], indexes=["nosuch"])
    with pytest.raises(NotIndexed):
        db.search(vector=[1, 0], primitives=["kv"])
    with pytest.raises(NotIndexed):
        db.search("north", primitives=["vectors"])
    assert keys(db.search("north", primitives=["vectors"], scan=True))


def test_a_transaction_finds_its_own_vectors(db: strata.Database):
    with db.transaction() as tx:
        tx.vectors.upsert("places", "own", [1, 0.1])
        tx.vectors.delete("places", "east")
        assert keys(tx.search(vector=[1, 0]))[0] == "places/own"
        assert "places/east" not in keys(tx.search(vector=[1, 0]))
        tx.rollback()
