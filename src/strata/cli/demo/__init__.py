"""`strata demo`: an agent's memory at work on real text.

    source.py   what the agent reads: chapters of documents
    stdlib.py   ... out of the standard library's documentation strings
    chat.py     ... out of a chat log, or the LoCoMo conversations
    story.py    what it does with them, step by step
    repair.py   the second act: forty plans on forty branches repair a function, and the best is merged
    edits.py    ... by edits of its lines, with its tests as the judge
    find.py     the third act: what was written is found again by words, on any branch and at any version
    crash.py    the steps that need other processes, one of which is killed
    child.py    those other processes
    stage.py    the terminal: headlines, proofs, a progress bar, the table at the end

Each number that is printed has been checked; what does not hold ends the demo with exit code 1.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from strata.cli.demo import crash, find, repair, story
from strata.cli.demo.source import Source
from strata.cli.demo.stage import Mismatch, Stage
from strata.core.errors import AlreadyExists


def run(arguments: Namespace) -> int:
    """Play the demo, and return its exit code."""
    stage = Stage(sys.stdout)
    stage.open("Strata: an agent's memory on real text. What is printed is checked as it is printed.")
    try:
        if arguments.keep:
            play(stage, _keep(Path(arguments.keep)), arguments.input, arguments.quick)
        else:
            with tempfile.TemporaryDirectory(prefix="strata-demo-") as directory:
                play(stage, Path(directory) / "demo.strata", arguments.input, arguments.quick)
    except Mismatch as mismatch:
        stage.fail(str(mismatch))
        return 1
    stage.close(
        f"The database is in {_kept(arguments.keep)}." if arguments.keep else "The database was removed."
    )
    return 0


def play(stage: Stage, path: Path, file: str | None, quick: bool) -> None:
    """Tell the whole story with a database at `path`, and print the table."""
    scene = story.begin(stage, path, read(stage, file, quick), quick)
    try:
        for step in (*story.STEPS, *repair.STEPS, *find.STEPS, *crash.STEPS):
            step(scene)
    finally:
        scene.db.close()


def read(stage: Stage, file: str | None, quick: bool) -> Source:
    """Read what the agent will study."""
    if file is None:
        from strata.cli.demo import stdlib

        return stdlib.read(stage, quick)
    from strata.cli.demo import chat

    return chat.read(stage, Path(file))


def _keep(directory: Path) -> Path:
    path = _kept(directory)
    if path.exists():
        raise AlreadyExists(f"{path} exists already", hint="remove it, or keep this one elsewhere")
    directory.mkdir(parents=True, exist_ok=True)
    return path


def _kept(directory: str | Path) -> Path:
    return Path(directory) / "demo.strata"
