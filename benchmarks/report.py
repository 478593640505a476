"""The table that is printed and the JSON that is kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks import registry
from benchmarks.measure import Figures, median_ratio
from benchmarks.rows import Goal

Line = tuple[Figures, Goal | None]
OURS = registry.OURS


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def judge(figures: Figures, goal: Goal | None, lines: list[Line]) -> tuple[str, str]:
    """The goal in words, and "met", "missed" or nothing when there is none or nothing to compare with."""
    if goal is None:
        return "", ""
    mine = figures.median(OURS)
    words, verdicts = [goal.words] if goal.words else [], []
    if goal.limit is not None:
        if not goal.words:
            words.append(f"{'>=' if figures.more else '<='} {number(goal.limit)}")
        met = mine is not None and (mine >= goal.limit if figures.more else mine <= goal.limit)
        verdicts.append(None if mine is None else met)
    for peer, times in goal.beats.items():
        if not goal.words:
            words.append(f"{times:g}x {peer}")
        ratio = figures.ratio(OURS, peer)
        verdicts.append(None if ratio is None else ratio >= times)
    if goal.row is not None:
        name, times = goal.row
        words.append(f"{times:g}x '{name}'")
        other = next((f.median(OURS) for f, _ in lines if (f.row, f.mode) == (name, figures.mode)), None)
        verdicts.append(None if mine is None or other is None else other / mine >= times)
    if goal.within is not None:
        base, times = goal.within
        ratio = median_ratio(figures.rounds.get(OURS, []), base.rounds.get(OURS, []))
        found = "" if ratio is None else f": {number(ratio)}x"
        words.append(f"{times:g}x '{base.row}', {base.mode}{found}")
        verdicts.append(None if ratio is None else ratio <= times)
    if False in verdicts:
        return ", ".join(words), "missed"
    return ", ".join(words), "" if None in verdicts else "met"


def tables(lines: list[Line], systems: list[str]) -> str:
    """The table of all `systems`, and one more for lines that others are measured in."""
    own = [line for line in lines if set(line[0].rounds) <= set(systems)]
    rest = [line for line in lines if line not in own]
    others = list(dict.fromkeys(name for figures, _ in rest for name in figures.rounds))
    parts = [(own, systems), (rest, others)]
    return "\n\n".join(table(part, names) for part, names in parts if part)


def table(lines: list[Line], systems: list[str]) -> str:
    """One line a row: our figure, the goal, and each peer with how many times as long it takes."""
    peers = [name for name in systems if name != OURS]
    rows = [["", "mode", "unit", OURS, "goal", "", *peers]]
    for figures, goal in lines:
        words, verdict = judge(figures, goal, lines)
        cells = [figures.row, figures.mode, figures.unit, number(figures.median(OURS)), words, verdict]
        for peer in peers:
            ratio = figures.ratio(OURS, peer)
            times = f" ({number(ratio)}x)" if ratio is not None else ""
            cells.append(number(figures.median(peer)) + times)
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    left = {0, 1, 2, 4, 5}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def remarks(lines: list[Line], absent: dict[str, str], modes: dict[str, dict[str, str]]) -> str:
    """How each system was set up, what is not there, and why a figure is missing."""
    said = ["How each mode was had:"]
    for name, how in modes.items():
        said += [f"  {name:9} {mode:9} {words}" for mode, words in how.items()]
    said += [f"ABSENT: {name}: {why}" for name, why in absent.items()]
    missing: dict[tuple[str, str], list[str]] = {}
    for figures, _ in lines:
        for name, why in figures.absent.items():
            missing.setdefault((name, why), []).append(f"{figures.row} ({figures.mode})")
    said += [f"no figure: {name}: {why}: {'; '.join(rows)}" for (name, why), rows in missing.items()]
    return "\n".join(said)


def save(path: Path, lines: list[Line], options: dict[str, Any], absent: dict[str, str]) -> Path:
    """Write everything, rounds included, to a new file in `path`."""
    path.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    rows = []
    for figures, goal in lines:
        words, verdict = judge(figures, goal, lines)
        rows.append(
            {
                "row": figures.row,
                "mode": figures.mode,
                "unit": figures.unit,
                "goal": words,
                "verdict": verdict,
                "median": {name: figures.median(name) for name in figures.rounds},
                "ratio": {name: figures.ratio(OURS, name) for name in figures.rounds if name != OURS},
                "rounds": figures.rounds,
                "absent": figures.absent,
            }
        )
    known = [*registry.SYSTEMS, *registry.SEARCHERS]
    document = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "options": options,
        "machine": {"cpus": os.cpu_count(), "kind": platform.machine(), "system": platform.system()},
        "python": platform.python_version(),
        "versions": {name: registry.version(name) for name in known if name not in absent},
        "absent": absent,
        "rows": rows,
    }
    target = path / time.strftime(f"%Y%m%d-%H%M%S-{commit or 'unknown'}.json", time.gmtime())
    target.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return target
