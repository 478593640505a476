"""An agent that a test kills: python recorded_program.py DIR LINES.

It goes on with the run that another process has left in DIR, or begins one. After it has run through LINES
lines of the code that records (and of its own tools) it kills itself as `kill -9` does; 0 is never. Each tool
writes its place in the record to DIR/called first, in one write that a kill cannot tear.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import strata

OURS = ("api/recorded.py", "api/runs.py", "primitives/runs.py", "core/atomic.py", "recorded_program.py")


def killed_after(lines: int):
    left = lines

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.endswith(OURS):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def agent(run: strata.Run, called: int) -> list[int]:
    def says(place: str) -> None:
        os.write(called, f"{place}\n".encode())

    @run.recorded
    def factor(place: str, n: int) -> int:
        says(place)
        return n

    @run.recorded
    def square(place: str, n: int) -> int:
        says(place)
        return factor(f"{place}.0", n) * factor(f"{place}.1", n)

    @run.recorded(transaction=True)
    def add(tx: strata.Transaction, place: str, n: int) -> int:
        says(place)
        tx.kv.put("total", tx.kv.get("total", 0) + n)
        return n

    results = []
    for n in range(8):
        results.append(square(str(2 * n), n))
        add(str(2 * n + 1), results[-1])
    return results


def main(directory: Path, lines: int) -> None:
    called = os.open(directory / "called", os.O_WRONLY | os.O_APPEND)
    with strata.open(directory / "db.strata") as db:
        if lines:
            sys.settrace(killed_after(lines))
        for lost in db.runs.orphans():
            run = db.runs.take_over(lost.id)
            break
        else:
            if db.runs.count():
                print("done")
                return
            run = db.runs.begin("squares")
        run.end(agent(run, called))
        sys.settrace(None)
        print("done")


main(Path(sys.argv[1]), int(sys.argv[2]))
