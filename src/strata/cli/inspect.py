"""`strata inspect`: print what stands in a file, or in all files of a database."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strata.api.inspect import files_of, inspect_file
from strata.api.table import show_time
from strata.cli.opening import keys_of
from strata.core.errors import InvalidInput, StrataError

# Lines that belong to the one above.
_INSIDE = dict.fromkeys(("write", "row", "span", "branch", "keyspace", "policy", "erasure"), 1) | {"floor": 2}
_TIMES = {"time", "created", "checkpoint_time", "expires"}


def run(arguments: Namespace) -> int:
    """Print every line; exit code 1 when one of them is a problem."""
    if arguments.rows < 0:
        raise InvalidInput("--rows is a number from 0 on")
    path = Path(arguments.path)
    problems, keys = 0, keys_of(arguments)
    for file in files_of(path) if path.is_dir() else [path]:
        show = _json_printer(file) if arguments.json else _printer(file)

        def take(line: dict[str, Any], show: Callable[[dict[str, Any]], None] = show) -> None:
            nonlocal problems
            problems += line["kind"] == "problem"
            show(line)

        try:
            inspect_file(file, rows=arguments.rows, key=keys, take=take)
        except StrataError as error:
            if not path.is_dir():
                raise
            take({"at": 0, "kind": "problem", "reason": str(error)})  # the others can be read all the same
    return 1 if problems else 0


def _json_printer(file: Path) -> Callable[[dict[str, Any]], None]:
    return lambda line: print(json.dumps({"file": str(file), **line}, ensure_ascii=False))


def _printer(file: Path) -> Callable[[dict[str, Any]], None]:
    print(file)
    return lambda line: print(_text(line))


def _text(line: dict[str, Any]) -> str:
    """One line: offset, kind, and its fields with their names."""
    fields = {name: _field(name, value) for name, value in line.items() if name not in ("at", "kind")}
    kind = "PROBLEM" if line["kind"] == "problem" else line["kind"]
    first = fields.pop("reason", None)  # says enough without its name
    said = [*([first] if first else []), *(f"{name}={value}" for name, value in fields.items())]
    indent = "  " * _INSIDE.get(line["kind"], 0)
    return f"{line['at']:>10}  {indent}{kind} {' '.join(said)}"


def _field(name: str, value: object) -> str:
    if name in _TIMES and isinstance(value, int):
        try:
            return show_time(value) if value else "none"
        except (OverflowError, ValueError, OSError):
            return str(value)  # of a damaged file
    return str(value)
