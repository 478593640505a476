"""The second act: an agent without a language model repairs a function that fails its tests.

The function is a binary search with two mistakes in it, each of which hides a part of what the other does.
There are forty small edits of it (`edits.py`), and so forty plans, each on a branch of its own: make this
edit; if it fails fewer tests than before, look for a second one that mends the rest; else give up.

The program is a document, its lines a list in it, so each line has a history of its own.
"""

from __future__ import annotations

from typing import Any, Final

import strata
from strata import agents
from strata.api.table import text_table
from strata.cli.demo.edits import Edit, applied, edits, failures
from strata.cli.demo.story import Scene

SPACE: Final = "code"
NAME: Final = "where"
PROGRAM: Final = '''\
def where(numbers, wanted):
    """Return where `wanted` begins and ends in a sorted list: numbers[begin:end] is all there is of it."""
    low, high = 0, len(numbers) - 1
    while low < high:
        middle = (low + high) // 2
        if numbers[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    begin = low
    high = len(numbers)
    while low < high:
        middle = (low + high) // 2
        if numbers[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return begin, low'''
_CASES: Final[tuple[tuple[list[int], int, int, int], ...]] = (
    ([], 5, 0, 0),
    ([5], 5, 0, 1),
    ([5], 4, 0, 0),
    ([5], 6, 1, 1),
    ([1, 2, 2, 2, 3], 2, 1, 4),
    ([1, 2, 2, 2, 3], 3, 4, 5),
    ([1, 2, 2, 2, 3], 0, 0, 0),
    ([1, 2, 2, 2, 3], 9, 5, 5),
    ([1, 3, 5, 7], 4, 2, 2),
    ([2, 2, 2, 2], 2, 0, 4),
    ([1, 1, 2, 3, 5, 8], 8, 5, 6),
    ([-3, -1, -1, 0], -1, 1, 3),
)
TESTS: Final = [
    {"call": f"{NAME}({numbers}, {wanted})", "gives": [begin, end]} for numbers, wanted, begin, end in _CASES
]
_ROWS = 4  # of a table that are shown
_TREE = 28  # lines of an explanation
_WIDTH = 110


class GaveUp(Exception):
    """A plan that leads nowhere."""


def fail(scene: Scene) -> None:
    """Write a program and its tests into the database, and see it fail them."""
    stage, code = scene.stage, scene.db.space(SPACE)
    stage.headline("A second agent, and real work: a function fails its tests")
    lines = PROGRAM.split("\n")
    with code.transaction(message="a first version", actor="somebody") as tx:
        tx.json.create(NAME, {"lines": lines, "tests": TESTS})
        tx.kv.put("failing", len(failures(lines, TESTS)))
    stage.say("\n".join(f"{number:2}  {line}" for number, line in enumerate(lines)))
    wrong = failures(lines, TESTS)
    stage.say("\n".join(["", *wrong[:_ROWS], f"... and {len(wrong) - _ROWS} more"]))
    stage.check(f"{len(wrong)} of its {len(TESTS)} tests fail", code.kv.get("failing"), len(wrong))
    stage.check("no edit of one line mends it", [edit for edit in edits(lines) if _mends(lines, [edit])], [])


def compete(scene: Scene) -> None:
    """Try all edits at once, each on a branch, and merge the best."""
    stage, code = scene.stage, scene.db.space(SPACE)
    lines = code.json.get(NAME, "$.lines")
    count = len(edits(lines))
    stage.headline(f"{count} plans on {count} branches, side by side; the best is merged")
    with stage.timed("fork, for a plan each", count, "branches"):
        runs = agents.fork_many(code, count, prefix="repair", tags=[NAME])
    runs_of_tests = 0
    with stage.timed("try, and run the tests", lambda: runs_of_tests, "runs"):
        outcomes = agents.run_plans(runs, plan, timeout=60, measures={"edits": _edits_made})
        runs_of_tests = sum(outcome.measures["tool_calls"] for outcome in outcomes)
    mended = [outcome for outcome in outcomes if outcome.success]
    lost = [outcome for outcome in outcomes if not outcome.success]
    stage.say(
        text_table(("", "status", "runs of the tests", "edits", ""), map(_row, [*mended, *lost[:_ROWS]]))
    )
    stage.say(f"... and {len(lost) - _ROWS} more that gave up.")
    stage.check("no plan has touched main", code.json.get(NAME, "$.lines"), lines)
    stage.check(f"{len(mended)} plans say that they mended it", bool(mended))
    right = [failures(outcome.run.json.get(NAME, "$.lines"), TESTS) for outcome in mended]
    stage.check("on their branches all tests pass", right, [[]] * len(mended))
    before = code.version
    with stage.timed("merge the winner", 1, "merge"):
        merged = outcomes.merge_winner("tool_calls", actor="foreman")
    winner = outcomes.best("tool_calls")
    stage.say(f"The winner is {winner.name}, with the fewest runs of the tests.")
    now = code.json.get(NAME, "$.lines")
    for old, new in zip(lines, now, strict=True):
        if old != new:
            stage.say(f"- {old}\n+ {new}")
    stage.check(
        f"on main all {len(TESTS)} tests pass", (failures(now, TESTS), code.kv.get("failing")), ([], 0)
    )
    stage.check("it came as one commit", [c.version for c in code.log(after=before)], [merged.version])
    stage.check("all plans are recorded", (len(mended), len(lost)), _recorded(code))


def plan(run: strata.Run) -> int:
    """Make one edit; look for a second; return how many runs of the tests it took."""
    lines, tests, before = run.json.get(NAME, "$.lines"), run.json.get(NAME, "$.tests"), run.kv.get("failing")
    first = edits(lines)[run.info.metadata["plan"]]
    failing, trace = _try(run, lines, first, tests)
    if failing >= before:
        raise GaveUp(f"{failing} tests fail, which is no better")
    _keep(run, first, failing, trace)
    lines = applied(lines, first)
    for second in edits(lines):
        failing, trace = _try(run, lines, second, tests)
        if not failing:
            _keep(run, second, failing, trace)
            return run.traces.count(kind="tool_call")
    raise GaveUp("no second edit mends the rest")


def _try(run: strata.Run, lines: list[str], edit: Edit, tests: Any) -> tuple[int, strata.EntityRef]:
    wrong = failures(applied(lines, edit), tests)
    said = f"{len(wrong)} of {len(tests)} fail"
    trace = run.traces.record("tool_call", "run the tests", input=str(edit), output=said)
    return len(wrong), strata.EntityRef(run.name, SPACE, "traces", trace.id)


def _keep(run: strata.Run, edit: Edit, failing: int, why: strata.EntityRef) -> None:
    """Write the edit down: what it is, what it rests on, and what comes of it."""
    place = f"$.lines[{edit.number}]"
    with run.transaction(message=str(edit), actor=run.info.name, cause=why, record_reads=True) as tx:
        assert tx.json.get(NAME, place) == edit.old
        before = tx.kv.get("failing")
        tx.json.set(NAME, place, edit.new)
        tx.kv.put("failing", failing)
        tx.traces.record("decision", "keep the edit", output=f"{failing} tests fail, {before} did before")


def tell(scene: Scene) -> None:
    """Ask why a line is what it is."""
    stage, code = scene.stage, scene.db.space(SPACE)
    stage.headline("Why is this line what it is?")
    number = _changed(code)[0]
    ref = f"strata://main/{SPACE}/json/{NAME}#$.lines[{number}]"
    with stage.timed("explain a line", 1, "line"):
        why = code.explain(ref)
    shown = str(why).splitlines()
    stage.say("\n".join([f"strata explain {ref!r}:", *(f"  {_cut(line)}" for line in shown[:_TREE])]))
    stage.say(f"  ... and {len(shown) - _TREE} more lines.")
    winner = _runs(code, "completed")[0]
    stage.check("the line is the one that was merged", why.value, code.json.get(NAME, f"$.lines[{number}]"))
    actors = {node.commit.actor for node in why.walk() if node.commit is not None}
    stage.check(
        "it names who merged it, who wrote it and who began", actors >= {"foreman", winner, "somebody"}
    )
    said = [trace.output for node in why.walk() for trace in node.traces]
    stage.check("it shows what was decided, and why", any("did before" in str(line) for line in said))


def step_through(scene: Scene) -> None:
    """Replay the plan that lost after the longest search."""
    stage, code = scene.stage, scene.db.space(SPACE)
    stage.headline("And the others? Step through a plan that lost")
    lost = max(code.runs.list(status="failed"), key=lambda run: len(code.replay(run.id)))
    replay = code.replay(lost.id)
    with stage.timed("replay a run", len(replay), "steps"):
        steps = list(replay)
    for step in [*steps[: _ROWS - 1], steps[-1]]:
        stage.say("\n".join(map(_cut, str(step).splitlines())))
    stage.say(f"{lost.name} ended after {len(steps)} steps: {lost.error}")
    stage.say(f"In a terminal: strata replay PATH {lost.id} --space {SPACE}")
    stage.check("the steps lead to what it left", replay.digest(), replay.view.digest())
    left = code.branch(lost.branch).kv.get("failing")
    stage.check(f"it left {left} failing tests behind, on its branch alone", code.kv.get("failing") < left)


def _mends(lines: list[str], made: list[Edit]) -> bool:
    for edit in made:
        lines = applied(lines, edit)
    return not failures(lines, TESTS)


def _edits_made(run: strata.Run) -> int:
    return run.traces.count(kind="decision")


def _row(outcome: agents.Outcome) -> tuple[str, ...]:
    measures = outcome.measures
    return (
        outcome.name,
        outcome.status,
        str(measures["tool_calls"]),
        str(measures["edits"]),
        outcome.error or "",
    )


def _recorded(code: strata.Space) -> tuple[int, int]:
    stats = code.runs.stats()
    return stats.completed, stats.failed


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _changed(code: strata.Space) -> list[int]:
    """The numbers of the lines that are no longer as they were."""
    pairs = zip(PROGRAM.split("\n"), code.json.get(NAME, "$.lines"), strict=True)
    return [number for number, (old, new) in enumerate(pairs) if old != new]


def _runs(code: strata.Space, status: Any) -> list[str]:
    """The names of runs, the one with the fewest runs of the tests first."""
    found = sorted(code.runs.list(status=status), key=lambda run: run.result)
    return [str(run.name) for run in found]


STEPS = (fail, compete, tell, step_through)
