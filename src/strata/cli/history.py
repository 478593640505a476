"""Look back: step through a run, and say why something is what it is."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator

from strata.cli.opening import open_database
from strata.history.replay import Step

_KEYS = "enter: next   b: back   q: quit "


def replay(arguments: Namespace) -> int:
    """Print the steps of a run: one by one on a terminal, else all."""
    with open_database(arguments, create=False, read_only=True) as db:
        place = db.branch(arguments.branch).space(arguments.space)
        steps = place.replay(arguments.source)
        if not arguments.json and not arguments.all and sys.stdin.isatty() and sys.stdout.isatty():
            walk(iter(steps), len(steps))
            return 0
        for number, step in enumerate(steps, 1):
            print(_as_json(step) if arguments.json else f"{number}. {step}")
    return 0


def walk(steps: Iterator[Step], count: int, ask: Callable[[str], str] = input) -> None:
    """Print one step, ask where to go, and so on."""
    seen: list[Step] = []
    at = 0
    while at < count:
        while len(seen) <= at:
            seen.append(next(steps))
        print(f"{at + 1} of {count}. {seen[at]}")
        try:
            answer = ask(_KEYS).strip().lower()
        except EOFError:
            print()
            return
        if answer == "q":
            return
        at = max(0, at - 1) if answer == "b" else at + 1
    print("that was all" if count else "it made no commit")


def _as_json(step: Step) -> str:
    return json.dumps(step.to_dict(), ensure_ascii=False)


def watch(arguments: Namespace) -> int:
    """Print the commits of a branch as they come, each on a line that is written at once."""
    with open_database(arguments, create=False, read_only=True) as db:
        found = db.branch(arguments.branch).watch(
            arguments.primitive,
            space=arguments.space,
            prefix=arguments.prefix,
            type=arguments.type,
            from_version=arguments.from_version,
            timeout_s=arguments.timeout,
            limit=arguments.limit,
        )
        for step in found:
            print(_as_json(step), flush=True)
    return 0


def explain(arguments: Namespace) -> int:
    """Print why something is what it is."""
    with open_database(arguments, create=False, read_only=True) as db:
        found = db.explain(arguments.ref, depth=arguments.depth, limit=arguments.limit)
        print(json.dumps(found.to_dict(), ensure_ascii=False) if arguments.json else found)
    return 0
