"""The comparison runs from end to end, with sizes too small to mean anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_quick_comparison_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--quiet"]
    command += ["--only", "strata", "dict", "sqlite", "lmdb", "--results", str(tmp_path / "results")]
    ended = subprocess.run(
        [*command, "--directory", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert {"strata", "goal", "dict", "sqlite"} <= set(lines[0].split())
    assert "LMDB has no memory mode" in ended.stdout or "ABSENT: lmdb" in ended.stdout

    (written,) = (tmp_path / "results").iterdir()
    document = json.loads(written.read_text("utf-8"))
    rows = document["rows"]
    assert {"get", "put", "scan of 100", "JSON path set", "view"} <= {row["row"] for row in rows}
    for row in rows:
        assert row["median"].get("strata", -1) >= 0, (row["row"], row["mode"], row["absent"].get("strata"))
    assert str(tmp_path) not in json.dumps(rows)
