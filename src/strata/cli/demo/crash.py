"""The steps that need other processes: verify the chain there, and kill one in the middle of its commits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import strata
from strata.cli.demo import child, find
from strata.cli.demo.story import STREAM, Scene

_KILLS = 10
_KILLS_QUICK = 3
_COMMITS = 200  # before a kill; a few more are always under way


def verify(scene: Scene) -> None:
    """Verify the event chain here, and after closing in another process."""
    stage, chapters = scene.stage, len(scene.source.chapters)
    stage.headline("Nothing was rewritten in silence: the chain of events")
    with stage.timed("verify the chain", chapters, "events"):
        here = scene.chain = child.chain(scene.db, STREAM)
    stage.check(
        f"{chapters:,} events are chained, each to the one before",
        (here["ok"], here["events"]),
        (True, chapters),
    )
    scene.db.close()
    with stage.timed("... in another process", chapters, "events"):
        there = json.loads(_finish(_start("verify", scene.path, STREAM)))
    stage.say(f"The newest hash is {here['hash']}.")
    stage.check("another process finds the same chain", there, here)
    with stage.timed("open again", 1, "database"):
        scene.db = strata.open(scene.path, create=False)


def kill(scene: Scene) -> None:
    """Kill a writing process again and again; whatever it had acknowledged must be there."""
    stage, kills = scene.stage, _KILLS_QUICK if scene.quick else _KILLS
    stage.headline("kill -9: a process dies in the middle of its commits")
    scene.db.close()
    acknowledged = 0
    with stage.timed("write, die, recover", lambda: acknowledged, "commits"):
        for _ in stage.progress(range(kills), kills, "kills"):
            acknowledged = write_until_killed(scene.path, _COMMITS)
            found = kept(scene.path)
            # One more than was acknowledged is well: its commit was done, its "done" not yet sent.
            if not acknowledged <= found["count"] <= acknowledged + 1 or len(set(found.values())) != 1:
                stage.check(f"{acknowledged} commits were acknowledged, and kept whole", found, acknowledged)
    stage.check(f"{kills} kills, {acknowledged:,} commits acknowledged, none lost, none torn", True)
    scene.db = strata.open(scene.path, create=False)
    stage.check("the documents are all there", scene.db.json.count(), len(scene.source.documents))
    stage.check("the chain of the study session is as it was", child.chain(scene.db, STREAM), scene.chain)
    answers = find.answers(scene.db, scene.source.questions)
    stage.check("and each question has the answer that it had", answers, scene.answers)


def write_until_killed(path: Path, commits: int) -> int:
    """Kill a child after `commits` commits; return the last number that it acknowledged before it died."""
    process = _start("write", path)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(commits)]
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    complete = [line for line in lines if line.endswith("\n")]
    if len(complete) < commits:
        _finish(process)
    return int(complete[-1])


def kept(path: Path) -> dict[str, int]:
    """What the three traces of each commit say: the counter, the keys, the events."""
    with strata.open(path, create=False) as db:
        space = db.space(child.SPACE)
        return {
            "count": space.kv.get("count"),
            "keys": space.kv.count(prefix="tick:"),
            "events": space.events.verify(child.STREAM).events,
        }


def _start(*arguments: object) -> subprocess.Popen[str]:
    package = Path(strata.__file__).parent.parent
    paths = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    # -P: a json.py in the directory of whoever runs the demo is not the library's.
    command = [sys.executable, "-P", "-m", "strata.cli.demo", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def _finish(process: subprocess.Popen[str]) -> str:
    """Return what the child printed. Raises: ChildProcessError with its last words."""
    out, errors = process.communicate()
    if process.returncode:
        raise ChildProcessError(f"the other process ended with {process.returncode}:\n{errors}")
    return out


STEPS = (verify, kill)
