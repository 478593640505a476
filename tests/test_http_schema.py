"""The OpenAPI description: valid, whole, and true of what the server does."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from http_client import client
from openapi_spec_validator import validate

import strata
from strata.api.operations import OPERATIONS
from strata.server.http import app, openapi, page, serve_http
from strata.server.http.query import is_readable

DESCRIPTION = openapi.description()


def test_the_description_is_valid_openapi():
    validate(DESCRIPTION)
    assert DESCRIPTION["openapi"].startswith("3.1")


def test_every_operation_is_described_once():
    described = {path.removeprefix("/v1/"): set(methods) for path, methods in DESCRIPTION["paths"].items()}
    for name, operation in OPERATIONS.items():
        assert described.pop(name) == ({"post", "get"} if is_readable(operation) else {"post"})
    described.pop("watch", None)
    assert described.keys() == {"kv/{key}", "state/{name}", "json/{doc}"}
    ids = [
        one["operationId"]
        for path in DESCRIPTION["paths"].values()
        for one in path.values()
        if "operationId" in one
    ]
    assert len(ids) == len(set(ids))


def test_the_page_has_every_operation_and_nothing_from_elsewhere():
    with strata.open() as db:
        answer = client(db).get("/")
    text = answer.text.replace("https://example.com/hooks", "")  # which an example tells, and nothing loads
    assert answer.headers["content-type"].startswith("text/html")
    for name in OPERATIONS:
        assert f'<details id="{name}">' in text
    loaded = re.findall(r"""(?:src|href|action|url|@import)\s*[=(]?\s*["']?([^"'\s>)]+)""", text)
    assert all(
        target.startswith(("/", "data:,")) for target in loaded if "://" in target or "//" in target
    ), loaded
    assert "http://" not in text and "https://" not in text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert page._digest(re.search(r"<script>(.*)</script>", text, re.S)[1]) in policy
    assert page._digest(re.search(r"<style>(.*)</style>", text, re.S)[1]) in policy


def test_the_description_names_nothing_elsewhere():
    assert not re.search(rb"https?://(?!example\.com/)", openapi.document())


# Left out: a request may fit the schema and still name a branch that is not there, or a path that is none.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method"
)
SETTING = (
    'db.kv.put("goal", 1)',
    'db.json.create("user", {"name": "Ada"})',
    'db.state.init("mood", "calm")',
    'db.events.append("ask", {"text": "why"})',
    'db.vectors.create_collection("facts", 2)',
    'db.vectors.upsert("facts", "sky", [1.0, 0.0])',
    'db.traces.record("thought", "plan", id="t1")',
    'db.runs.begin("plan", id="r1")',
)


@pytest.mark.slow
def test_schemathesis_finds_no_failure_and_no_breach_of_the_schema(tmp_path):
    """Every operation, good requests and bad: no 5xx, no status, body or header that is not described."""
    tool = [sys.executable, "-m", "schemathesis.cli", "run"]
    with strata.open() as db:
        for line in SETTING:
            exec(line, {"db": db})
        served = app(db)
        server = serve_http(served)
        try:
            url = "http://{}:{}/openapi.json".format(*server.address)
            command = [*tool, url, "--no-color", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing"]
            command += ["--exclude-path", "/v1/watch"]  # it goes on for ever
            command += [
                "--max-examples",
                os.environ.get("STRATA_HTTP_EXAMPLES", "5"),
                "--continue-on-failure",
            ]
            found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
            assert found.returncode == 0, found.stdout[-5_000:] + found.stderr[-1_000:]
            asked = served.stats().operations.keys()  # those that name files are refused before they are
            assert asked >= {name for name, found in OPERATIONS.items() if not found.names_files}
        finally:
            server.close()
            served.close()
