"""What those who run a server ask it: alive, ready, metrics."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from http_client import HERE, client
from starlette.testclient import TestClient

import strata
from strata.server.http import Stats, admin_app, app
from strata.server.http.exposition import escaped

LINE = re.compile(r'^[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\.)*"\})? -?[0-9.e+-]+$')


@pytest.fixture
def db():
    with strata.open() as opened:
        yield opened


def admin(db, stats=Stats):
    return TestClient(admin_app(db, stats), base_url=HERE)


def samples(text):
    """Return the samples of metrics, each line checked to be one that Prometheus reads."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# "):
            assert re.match(r"^# (HELP|TYPE) strata_[a-z_]+ .", line), line
        else:
            assert LINE.match(line), line
            name, _, number = line.rpartition(" ")
            assert name not in found, f"{name} is there twice"
            found[name] = float(number)
    return found


def test_a_server_that_works_is_alive_and_ready(db):
    web = admin(db)
    assert (web.get("/healthz").status_code, web.get("/readyz").status_code) == (200, 200)


def test_a_closed_database_is_not_ready_and_still_alive(db):
    db.close()
    web = admin(db)
    assert (web.get("/healthz").status_code, web.get("/readyz").status_code) == (200, 503)
    assert web.get("/metrics").status_code == 503


def test_a_server_that_ends_is_not_ready(db):
    served = app(db)
    web = admin(db, served.stats)
    assert web.get("/readyz").status_code == 200
    served.drain()
    assert web.get("/readyz").status_code == 503
    assert samples(web.get("/metrics").text)["strata_draining"] == 1


def test_metrics_are_what_happened(db):
    served = app(db)
    web = TestClient(served, base_url=HERE)
    web.put("/v1/kv/k", json=1)
    web.put("/v1/kv/k", json=2)
    web.get("/v1/kv.get")
    web.get("/v1/none")
    found = samples(admin(db, served.stats).get("/metrics").text)
    assert found['strata_operations_total{operation="kv.put"}'] == 2
    assert found['strata_errors_total{code="invalid_input"}'] == 1
    assert found['strata_errors_total{code="not_found"}'] == 1
    assert found["strata_version"] == 2 and found["strata_durable_lag_versions"] == 2
    assert found["strata_branches"] == 1 and found["strata_connections"] == 0


def test_metrics_of_a_database_with_files(tmp_path):
    with strata.open(tmp_path / "a.strata") as db:
        db.kv.put("k", "x" * 1_000)
        db.flush()
        found = samples(admin(db).get("/metrics").text)
    assert found["strata_durable_lag_versions"] == 0 and found["strata_disk_bytes"] > 1_000
    assert found['strata_written_bytes_total{to="log"}'] > 1_000


def test_a_disk_that_failed_is_not_ready():
    """A sync that failed cannot be had from here; that the kernel says so then is a test of the kernel's."""
    broken = SimpleNamespace(closed=False, _store=SimpleNamespace(poisoned="fsync failed: EIO"))
    for path in ("/readyz", "/healthz", "/health"):
        answer = admin(broken).get(path)
        assert answer.status_code == 503 and "EIO" in answer.text


def test_two_servers_of_a_database_are_counted_together():
    both = Stats({"kv.put": 1}, {"closed": 1}, 2) + Stats({"kv.put": 2, "kv.get": 1}, {}, 3, draining=True)
    assert both == Stats({"kv.put": 3, "kv.get": 1}, {"closed": 1}, 5, True)


def test_nothing_else_is_there(db):
    web = admin(db)
    assert web.get("/").status_code == web.get("/v1/kv.get").status_code == 404
    assert web.post("/metrics").status_code == 405
    assert web.head("/healthz").status_code == 200


def test_labels_are_escaped():
    assert escaped('a"b\\c\nd') == r"a\"b\\c\nd"


def test_the_application_goes_with_any_server(db):
    """Inside of another one, with its lifespan: what Starlette and uvicorn do with applications."""
    served = app(db)
    with TestClient(served, base_url=HERE) as web:
        assert web.put("/v1/kv/k", json=1).status_code == 200
    assert served.draining
    assert client(db, read_only=True).put("/v1/kv/k", json=1).json()["code"] == "read_only"
