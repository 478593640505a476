"""Who may only read searches vectors, also where their index is gone.

The story: a query of a collection without its index (dropped, or never made) declares that, which is
a write, so over a connection that may only read it was refused as one. What was asked for is a read.
"""

from __future__ import annotations

import contextlib

import pytest
from wire_clients import SETUP, Client, call, hello, opens, serving

import strata
from strata.core.protocols import Layout
from strata.errors import AccessDenied, NotFound, ReadOnly
from strata.server.access import hash_of, tokens_of
from strata.server.server import Server

TOKEN = "strata_reads"


@contextlib.contextmanager
def readers(db, how):
    """The database, at the other end of a connection that may only read."""
    tokens = tokens_of([f"{hash_of(TOKEN)} {'read' if how == 'token' else 'admin'}"])
    server = Server(db._store, tokens=tokens, read_only=how == "server")
    host, port = server.listen_tcp("127.0.0.1", 0)
    try:
        with strata.connect(f"strata://{host}:{port}", token=TOKEN, read_only=how == "client") as seen:
            yield seen
    finally:
        server.close()


@pytest.fixture
def db():
    with strata.open() as db:
        db.vectors.create_collection("c", 2)
        db.vectors.upsert_many(
            "c", ["a", "b", "ab"], [[1, 0], [0, 1], [1, 1]], [{"n": 1}, {"n": 2}, {"n": 3}]
        )
        for row in db._store.indexes():
            db._store.drop_index(row[0])
        yield db


@pytest.mark.parametrize("how", ["token", "client", "server"])
def test_who_reads_searches_a_collection_whose_index_is_gone(db, how):
    with readers(db, how) as seen:
        head = seen.version
        assert [hit.key for hit in seen.vectors.query("c", [1, 0], 2)] == ["a", "ab"]
        assert [hit.key for hit in seen.vectors.query("c", [1, 0], where={"n": {"gte": 2}})] == ["ab", "b"]
        assert [hit.key for hit in seen.search(vector=[0, 1]).hits][:1] == ["c/b"]
        assert seen.version == head
        with pytest.raises((AccessDenied, ReadOnly)):
            seen.vectors.upsert("c", "d", [1, 1])
        with pytest.raises(NotFound):
            seen.vectors.query("none", [1, 0])


def test_a_view_is_searched_by_who_reads(db):
    with readers(db, "token") as seen:
        assert [hit.key for hit in seen.at(seen.version).vectors.query("c", [1, 0], 1)] == ["a"]


def test_who_reads_declares_no_other_index_and_none_as_it_likes(db):
    with readers(db, "token") as seen:
        vectors = seen._store.branch("main").keyspace(
            "default", Layout("vectors", text_keys=False, finite=True)
        )
        kv = seen._store.branch("main").keyspace("default", Layout("kv"))
        spec = {"type": "vector", "path": [0], "dim": 2, "metric": "dot", "quantization": "i8"}
        for txn, name in ((vectors, "mine"), (kv, "vectors/default/c/2/cosine/f32"), (vectors, 5)):
            with pytest.raises(AccessDenied):
                txn.declare_index(name, b"", spec)
        assert db._store.indexes() == []
        vectors.declare_index("vectors/default/c/2/cosine/f32", b"", spec)
        ((_, _, _, prefix, declared),) = db._store.indexes()
        assert prefix == b"c\0" and declared == {**spec, "metric": "cosine", "quantization": "f32"}


def test_a_declaration_without_a_name_is_refused(db):
    with serving(tokens=tokens_of([f"{hash_of(TOKEN)} read"])) as server:
        _, port = server.listen_tcp("127.0.0.1", 0)
        client = Client(server, hello=b"", port=port)
        client.send(hello(token=TOKEN) + SETUP + opens(3, 1, "keyspace", "default", "vectors", False, True))
        client.next()
        client.send(call(1, 3, "declare_index"))
        assert client.next()[2]["code"] in ("type_error", "invalid_input", "access_denied")
        client.close()
