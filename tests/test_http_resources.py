"""Keys, cells and documents by URL: against a model of values and versions, and one by one."""

from __future__ import annotations

import threading
from urllib.parse import quote

import pytest
from http_client import client
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import strata
from strata.api import dispatch
from strata.testing import FakeClock

GROUPS = ["kv", "state", "json"]
KEYS = ["a", "a/b", "..", "a%2Fb", "ü ?#&", ".", "a//b", "\n", "%", "+"]


@pytest.fixture
def db():
    with strata.open(clock=FakeClock()) as opened:
        yield opened


@pytest.fixture
def web(db):
    return client(db)


def at(group, key):
    return f"/v1/{group}/{quote(key, safe='').replace('.', '%2E')}"  # clients resolve bare dots


class Resources(RuleBasedStateMachine):
    """Random requests with random conditions. What is there, and since which version, is known."""

    def __init__(self):
        super().__init__()
        self.db = strata.open()
        self.web = client(self.db)
        self.there = {}

    def teardown(self):
        self.db.close()

    group, key = st.sampled_from(GROUPS), st.sampled_from(KEYS[:3])
    condition = st.sampled_from(["none", "match", "stale", "any", "new", "known"])

    def headers(self, place, condition):
        """Return the headers of a condition, and whether it holds."""
        version = self.there.get(place, (0, None))[0]
        return {
            "none": ({}, True),
            "match": ({"If-Match": f'"{version}"'}, version > 0),
            "stale": ({"If-Match": f'"{version + 1000}", "x"'}, False),
            "any": ({"If-Match": "*"}, version > 0),
            "new": ({"If-None-Match": "*"}, version == 0),
            "known": ({"If-None-Match": f'W/"{version}"'}, version == 0),
        }[condition]

    @rule(group=group, key=key, value=st.integers(0, 3), condition=condition)
    def put(self, group, key, value, condition):
        headers, holds = self.headers((group, key), condition)
        before = self.db.version
        answer = self.web.put(at(group, key), json=value, headers=headers)
        if holds:
            version = answer.json()["version"]
            assert answer.status_code == 200 and answer.headers["etag"] == f'"{version}"' and version > before
            self.there[group, key] = version, value
        else:
            assert answer.status_code == 412 and self.db.version == before

    @rule(group=group, key=key, condition=condition)
    def delete(self, group, key, condition):
        headers, holds = self.headers((group, key), condition)
        answer = self.web.delete(at(group, key), headers=headers)
        if not holds:
            assert answer.status_code == 412
        elif condition == "none":
            assert answer.status_code == (204 if (group, key) in self.there else 404)
        else:
            assert answer.status_code == 204
        if holds:
            self.there.pop((group, key), None)

    @rule(group=group, key=key)
    def get(self, group, key):
        answer = self.web.get(at(group, key))
        if (group, key) not in self.there:
            assert answer.status_code == 404 and answer.json()["fields"]["name"] == key
            return
        version, value = self.there[group, key]
        assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, value, f'"{version}"')
        headers = {"If-None-Match": f'"0", W/"{version}"'}
        again = self.web.get(at(group, key), headers=headers)
        assert again.status_code == 304 and not again.content and again.headers["etag"] == f'"{version}"'
        assert self.web.get(at(group, key), headers={"If-Match": '"0"'}).status_code == 412
        head = self.web.head(at(group, key))
        assert head.status_code == 200 and head.headers["etag"] == f'"{version}"'

    @invariant()
    def nothing_else_is_there(self):
        kept = {("kv", key) for key in self.db.kv}
        kept |= {("state", key) for key in self.db.state.list()}
        kept |= {("json", key) for key in self.db.json.list()}
        assert kept == self.there.keys()


TestResources = Resources.TestCase
TestResources.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("key", KEYS)
def test_any_key_has_a_url(db, web, group, key):
    assert web.put(at(group, key), json={"n": 1}).status_code == 200
    primitive = getattr(db, group)
    assert primitive.get(key) == {"n": 1}
    assert web.get(at(group, key)).json() == {"n": 1}
    assert web.delete(at(group, key)).status_code == 204
    assert primitive.entry(key) is None


def test_a_slash_is_a_slash_escaped_or_not(db, web):
    web.put("/v1/kv/a%2Fb", json=1)
    assert web.get("/v1/kv/a/b").json() == 1 and list(db.kv.keys()) == ["a/b"]


def test_places(db, web):
    first = db.kv.put("k", "main")
    db.branches.tag("v1")
    db.branches.fork("main", "b")
    assert web.put("/v1/kv/k?branch=b&space=s", json="b/s").status_code == 200
    assert db.branch("b").space("s").kv.get("k") == "b/s"
    db.kv.put("k", "later")
    for query in (f"at={first}", "at=tag:v1", "branch=b"):
        assert web.get(f"/v1/kv/k?{query}").json() == "main"
    assert web.get("/v1/kv/k").json() == "later"
    assert web.get("/v1/kv/k?branch=none").status_code == 404
    assert web.get("/v1/kv/k?space=none").status_code == 404
    assert web.get("/v1/kv/k?at=yesterday").status_code == 400
    assert web.put("/v1/kv/k?at=1", json=1).status_code == 400
    assert web.put("/v1/kv/k?space=new", json=1, headers={"If-None-Match": "*"}).status_code == 200


def test_what_a_commit_says(db, web):
    web.put("/v1/kv/k?message=why&actor=Ada&cause=c1", json=1)
    commit = db.log()[0]
    assert (commit.message, commit.actor, commit.cause) == ("why", "Ada", "c1")
    web.delete("/v1/kv/k?actor=Bob", headers={"If-Match": '"1"'})
    assert db.log()[0].actor == "Bob"


def test_a_key_makes_a_write_happen_once(db, web):
    answers = [web.put("/v1/kv/k", json=n, headers={"Idempotency-Key": "one"}) for n in (1, 2)]
    assert [answer.json() for answer in answers] == [{"version": 1}] * 2 and db.kv.get("k") == 1
    body = {"arguments": {"key": "n"}, "commit": {"actor": "Ada"}}
    for _ in range(3):
        assert web.post("/v1/kv.incr", json=body, headers={"Idempotency-Key": "two"}).json() == 2
    assert db.kv.get("n") == 1 and db.log()[0].actor == "Ada"
    other = {**body, "commit": {"idempotency_key": "three"}}
    assert web.post("/v1/kv.incr", json=other, headers={"Idempotency-Key": "two"}).status_code == 400
    both = {"Idempotency-Key": "four", "If-Match": '"1"'}
    assert web.put("/v1/kv/k", json=1, headers=both).status_code == 400


def test_what_expires(web):
    assert web.put("/v1/kv/k?ttl=60", json=1).status_code == 200
    assert web.get("/v1/kv.entry?key=k").json()["expires"] is not None
    for wrong in ("0", "-1", "soon", "nan", "inf", ""):
        assert web.put(f"/v1/kv/k?ttl={wrong}", json=2).status_code == 400


def test_what_can_never_be_is_said_before_a_condition(web):
    """As RFC 9110 has it: a condition only counts where the request would succeed without it."""
    stale = {"If-Match": '"7"'}
    for query in ("ttl=-1", "ttl=soon", "path=[[", "at=1", "limit=1"):
        assert web.put(f"/v1/json/k?{query}", json=1, headers=stale).status_code == 400
    assert (
        web.put("/v1/json/k", content=b"{", headers={**stale, "Content-Type": "application/json"}).status_code
        == 400
    )


def test_bytes_are_bytes(db, web):
    data = bytes(range(256))
    web.put("/v1/kv/k", content=data, headers={"Content-Type": "application/octet-stream"})
    assert db.kv.get("k") == data
    assert web.get("/v1/kv/k", headers={"Accept": "application/octet-stream"}).content == data
    assert "$bytes" in web.get("/v1/kv/k").json()
    web.put("/v1/kv/k", content=b"", headers={"Content-Type": "application/octet-stream"})
    assert db.kv.get("k") == b""


def test_no_value_is_no_null(db, web):
    assert web.put("/v1/kv/k", content=b"").status_code == 400 and db.version == 0
    assert web.put(
        "/v1/kv/k", content=b"null", headers={"Content-Type": "application/json"}
    ).status_code == 200 and db.kv.exists("k")
    assert web.get("/v1/kv/k").json() is None


def test_parts_of_documents(db, web):
    web.put("/v1/json/user", json={"name": "Ada", "tags": ["x"]})
    assert web.put("/v1/json/user?path=$.age", json=36).status_code == 200
    got = web.get("/v1/json/user?path=$.age")
    assert got.json() == 36 and got.headers["etag"] == '"2"'
    assert web.get("/v1/json/user?path=$.age&at=1").status_code == 404
    assert web.get("/v1/json/user?path=$.none").status_code == 404
    assert web.get("/v1/json/user?path=[[").status_code == 400
    assert web.put("/v1/json/user?path=$.age", json=1, headers={"If-Match": '"1"'}).status_code == 412
    assert web.delete("/v1/json/user?path=$.tags").status_code == 204
    assert db.json.get("user") == {"name": "Ada", "age": 36}


def test_patches(db, web):
    web.put("/v1/json/user", json={"name": "Ada", "tags": ["x"]})
    merge = {"Content-Type": "application/merge-patch+json"}
    patch = {"Content-Type": "application/json-patch+json"}
    assert web.patch("/v1/json/user", content=b'{"tags": null}', headers=merge).json() == {"version": 2}
    operations = b'[{"op": "add", "path": "/age", "value": 36}]'
    assert (
        web.patch("/v1/json/user", content=operations, headers={**patch, "If-Match": '"2"'}).status_code
        == 200
    )
    assert (
        web.patch("/v1/json/user", content=operations, headers={**patch, "If-Match": '"2"'}).status_code
        == 412
    )
    assert db.json.get("user") == {"name": "Ada", "age": 36}
    assert (
        web.patch("/v1/json/user", content=b"{}", headers={"Content-Type": "application/json"}).status_code
        == 415
    )
    assert web.patch("/v1/json/user", content=b'[{"op": "fly"}]', headers=patch).status_code == 400
    assert web.patch("/v1/kv/user", content=b"{}", headers=merge).status_code == 405


@pytest.mark.parametrize("tags", ["7", '"7', "*, *", '"7" "8"', "W/7", "", ","])
def test_what_is_no_etag(db, web, tags):
    db.kv.put("k", 1)
    for method in ("GET", "PUT", "DELETE"):
        for name in ("If-Match", "If-None-Match"):
            answer = web.request(
                method, "/v1/kv/k", headers={name: tags, "Content-Type": "application/json"}, content=b"2"
            )
            assert answer.status_code == 400
    assert db.kv.get("k") == 1


def test_weak_tags_are_never_strong_enough_to_write(db, web):
    db.kv.put("k", 1)
    assert web.put("/v1/kv/k", json=2, headers={"If-Match": 'W/"1"'}).status_code == 412


@pytest.mark.parametrize("headers", [{"If-Match": '"1"'}, {"If-Match": "*"}])
def test_a_write_between_the_condition_and_what_it_allows(db, web, headers, monkeypatch):
    """Who reads a version and writes over it must not write over what came in between."""
    db.kv.put("k", 0)
    others = iter([1])

    def run_late(*arguments):
        for other in others:
            db.kv.put("k", other)
        return dispatch.run(*arguments)

    monkeypatch.setattr("strata.server.http.resources.run", run_late)
    answer = web.put("/v1/kv/k", json="mine", headers=headers)
    if headers["If-Match"] == "*":  # it was looked at again, and holds
        assert answer.status_code == 200 and [entry.value for entry in db.kv.history("k")] == ["mine", 1, 0]
    else:
        assert answer.status_code == 412 and db.kv.get("k") == 1


def test_of_many_who_write_over_one_version_one_does(db):
    db.kv.put("k", 0)
    found = []

    def write(number):
        found.append(client(db).put("/v1/kv/k", json=number, headers={"If-Match": '"1"'}).status_code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] + [412] * 7
