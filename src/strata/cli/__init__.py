"""The command line: `strata COMMAND`, and `strata GROUP VERB` for every operation.

    commands.py     commands of one word, which print for reading     data.py and others do what they say
    verbs.py        the verbs of the catalogue                        fields.py, calling.py, output.py
    session.py      what a shell does with a line                     shell.py, completion.py
    transfer.py     data to and from files of others                  formats/
    opening.py      paths, URLs, keys and tokens                      parsing.py

Only the parser of the command that is called is made, and only what it needs is imported.
Exit codes: 0 well, 1 the error that was printed, 2 a command line that cannot be understood, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from strata.cli.commands import COMMANDS, Command
from strata.cli.parsing import Parser
from strata.core.errors import StrataError

SHARED = frozenset({"branches", "retention"})  # commands that have the name of a group of verbs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code. An error becomes a line or two, never a traceback."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        sys.stdout.reconfigure(encoding="utf-8")  # what is stored may be any text, and JSON is UTF-8
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, run, rest = _command(words)
    given = parser.parse_intermixed_args(rest)
    return guarded(lambda: run(given))


def guarded(run: Callable[[], int | None]) -> int:
    """Run something, and return its exit code; errors are printed."""
    try:
        return run() or 0
    except StrataError as error:
        say_error(error)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone. What Python would flush at exit must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:  # of argparse, which has said why
        return end.code if isinstance(end.code, int) else 1


def say_error(error: StrataError) -> None:
    """Print an error, and what to do, on standard error."""
    print(f"error: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def _command(words: list[str]) -> tuple[Parser, Callable[[Namespace], int], list[str]]:
    """Return the parser of what was called, what runs it, and the words for it."""
    first = words[0] if words else "--help"
    found = COMMANDS.get(first)
    if found is not None and first not in SHARED:
        return found.parser(first), found.call, words[1:]
    from strata.cli import overview

    return overview.command(words, found)


__all__ = ["Command", "main", "say_error"]
