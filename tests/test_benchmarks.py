"""The comparison runs from end to end, with sizes too small to mean anything; and judges rightly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cases
from benchmarks.measure import Figures, quantiles
from benchmarks.processes import written_bytes
from benchmarks.report import judge
from benchmarks.rows import VALUE_BYTES, Goal, value_bytes

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
    names = [row["row"] for row in rows]
    assert {"get", "put", "scan of 100", "JSON path set", "view"} <= set(names)
    for name, case in cases.load().items():
        assert all(any(promised in row for row in names) for promised in case.NAMES), name
    for row in rows:
        assert row["median"].get("strata", -1) >= 0, (row["row"], row["absent"].get("strata"))
    (lost,) = [row for row in rows if row["row"] == "puts lost by the kill"]
    assert lost["median"]["strata"] == 0
    assert str(tmp_path) not in json.dumps(rows)


def _figures(row: str, ours: list[float], more: bool = False, **peers: list[float]) -> Figures:
    return Figures(row, "buffered", "us", {"strata": ours, **peers}, more=more)


@pytest.mark.parametrize(
    ("figures", "goal", "verdict"),
    [
        (_figures("lost", [0, 0, 0]), Goal(0), "met"),
        (_figures("lost", [0, 1, 1]), Goal(0), "missed"),
        (_figures("lost", []), Goal(0), ""),
        (_figures("replay", [210], more=True), Goal(200), "met"),
        (_figures("replay", [190], more=True), Goal(200), "missed"),
        # Pair by pair: both were slow in the last round, and that is no fault of the second.
        (_figures("runs", [1.05, 1.05, 5.2]), Goal(within=(_figures("plain", [1, 1, 5]), 1.1)), "met"),
        (_figures("runs", [1.2, 1.2, 1.0]), Goal(within=(_figures("plain", [1, 1, 5]), 1.1)), "missed"),
        (_figures("runs", [1.0]), Goal(within=(_figures("plain", []), 1.1)), ""),
    ],
)
def test_a_goal_is_judged_by_our_figures(figures: Figures, goal: Goal, verdict: str) -> None:
    assert judge(figures, goal, [(figures, goal)])[1] == verdict


def test_a_ratio_says_how_many_times_better_we_are() -> None:
    assert _figures("get", [2, 2, 2], lmdb=[4, 6, 6]).ratio("strata", "lmdb") == 3
    assert _figures("replay", [600], more=True, lmdb=[200]).ratio("strata", "lmdb") == 3


def test_quantiles_are_microseconds() -> None:
    assert quantiles([number * 1000 for number in range(100)]) == (50, 99)


def test_values_differ_and_cannot_be_compressed() -> None:
    values = [value_bytes(index) for index in range(30_000)]
    assert len(set(values)) == len(values)
    assert {len(value) for value in values} == {VALUE_BYTES}


def test_written_bytes_leave_out_the_zeros_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "segment").write_bytes(b"a\0b" + bytes(3 << 20))
    (tmp_path / "empty").write_bytes(bytes(5 << 20))
    (tmp_path / "full").write_bytes(b"c" * 10)
    assert written_bytes(tmp_path) == 3 + 10
