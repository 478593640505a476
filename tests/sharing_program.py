"""What one of several processes on one database does: appends and increments, each noted when it is
acknowledged.

    python sharing_program.py DIRECTORY WORKER EVENTS STEPS

Begun again after it was killed it goes on behind what it has noted. What was under way when it was killed is
not done again, so that nothing is there twice unless the database has made it so. It catches no error: a
process that needs a retry of its own ends with a traceback.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import strata


def noted(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


def main(directory: str, worker: str, events: int, steps: int) -> None:
    base = Path(directory)
    log = base / f"noted-{worker}"
    done = noted(log)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    begun = os.open(base / f"begun-{worker}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    # What was begun and not noted may or may not be there, so its name is not used again.
    first = 1 + max((int(line.split()[1]) for line in noted(base / f"begun-{worker}")), default=-1)
    left = {"event": events, "step": steps}
    for line in done:
        left[line.split()[0]] -= 1
    with strata.open(base / "shared.strata") as db:
        number = first
        while left["event"] > 0 or left["step"] > 0:
            kind = "event" if left["event"] > 0 and (number % 2 == 0 or left["step"] <= 0) else "step"
            os.write(begun, f"{kind} {number}\n".encode())
            if kind == "event":
                db.events.append("done", {"worker": worker, "number": number})
            else:
                db.state.transition("counter", lambda value: value + 1, default=0)
            os.write(out, f"{kind} {number}\n".encode())
            left[kind] -= 1
            number += 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
