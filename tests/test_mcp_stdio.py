"""`strata mcp` as hosts run it: a process of its own, over standard input and output, and over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("mcp")

from mcp.client.stdio import StdioServerParameters
from mcp_client import Tools, connected

import strata

SOURCE = str(Path(strata.__file__).parent.parent)


@contextmanager
def host(path: Path, *options: str) -> Iterator[Tools]:
    """A host of the database: the official client, which runs the command."""
    command = [sys.executable, "-m", "strata.cli", "mcp", str(path), *options]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    server = StdioServerParameters(command=command[0], args=command[1:], env=environment)
    with connected(server) as tools:
        yield tools


def test_every_tool_over_stdio(tmp_path: Path) -> None:
    with host(tmp_path / "a.strata") as tools:
        calls = {
            "remember": {"text": "Likes green tea", "key": "drink"},
            "recall": {"query": "tea"},
            "write": {"primitive": "kv", "key": "goal", "value": {"what": "rest"}},
            "read": {"primitive": "kv", "key": "goal"},
            "history": {"primitive": "kv", "key": "goal"},
            "branch": {"action": "fork", "name": "try"},
            "merge": {"source": "try", "preview": True},
            "explain": {"primitive": "kv", "key": "goal"},
            "guide": {},
        }
        assert tools.names() == calls.keys()
        answers = {name: tools.call(name, arguments) for name, arguments in calls.items()}
    assert answers["recall"]["hits"][0]["stored"] == {"text": "Likes green tea"}
    assert answers["read"]["stored"] == {"what": "rest"}
    with strata.open(tmp_path / "a.strata") as db:
        assert db.json.get("memory/drink", "$.text") == "Likes green tea" and "try" in db.branches
