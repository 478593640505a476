"""Find the verb that is called, or say which there are."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from strata.cli import verbs
from strata.cli.commands import COMMANDS, Command
from strata.cli.parsing import Parser

Found = tuple[Parser, Callable[[Namespace], int], list[str]]

_USAGE = """usage: strata COMMAND PATH ...
       strata GROUP VERB PATH ...
"""
_HEAD = "\nThe SQLite of agent memory. PATH is a database's directory, or a URL.\n"
_FOOT = """
strata COMMAND --help, strata GROUP --help and strata GROUP VERB --help say more; strata --version.
"""
_WIDTH = 78


def command(words: list[str], short: Command | None) -> Found:
    """Return the parser of a verb, what runs it, and the words for it. Ends where there is none."""
    first = words[0] if words else ""
    if verb := verbs.find(words) or verbs.find([verbs.WHOLE, *words]):
        by_group = verbs.find(words) is not None
        return verb.parser(), _checked(verb), words[2 if by_group else 1 :]
    if short is not None and not (words[1:2] and words[1] in ("-h", "--help")):
        return short.parser(first), short.call, words[1:]
    if first == "--version":
        from strata import __version__

        print(f"strata {__version__}")
        sys.exit(0)
    if first in ("-h", "--help"):
        print(_USAGE + _HEAD + "\n".join(_everything()) + "\n" + _FOOT, end="")
        sys.exit(0)
    _end(words)


def _checked(verb: verbs.Verb) -> Callable[[Namespace], int]:
    def run(given: Namespace) -> int:
        verb.check(given)
        return verbs.run(given)

    return run


def _end(words: list[str]) -> NoReturn:
    """Say what there is in a group, or that there is no such command."""
    first = words[0] if words else ""
    members = verbs.groups().get(first)
    if members is not None and words[1:2] and words[1] in ("-h", "--help"):
        print(f"usage: strata {first} VERB PATH ...\n")
        print("\n".join(_lines((verb.words[1], verb.summary) for verb in members)))
        if first in COMMANDS:
            print(f"\nstrata {first} PATH: {COMMANDS[first].summary}")
        sys.exit(0)
    said = "which command?" if not words else f"there is no command {' '.join(words[:2])!r}"
    if members is not None:
        said = f"strata {first} has {', '.join(verb.words[1] for verb in members)}"
    elif close := _close(first):
        said += f"; did you mean {close!r}?"
    print(f"{_USAGE}strata: error: {said}", file=sys.stderr)
    sys.exit(2)


def parsers() -> dict[str, Parser]:
    """Return the parser of every command and verb by its words, for what describes them all."""
    found = {name: known.parser(name) for name, known in COMMANDS.items()}
    found |= {verb.name: verb.parser() for verb in verbs.VERBS.values()}
    return found


def _close(word: str) -> str | None:
    from difflib import get_close_matches

    names = [*COMMANDS, *verbs.groups(), *(verb.words[1] for verb in verbs.VERBS.values())]
    return next(iter(get_close_matches(word, names, 1)), None)


def _everything() -> Iterator[str]:
    yield "\ncommands:"
    yield from _lines((name, found.summary) for name, found in COMMANDS.items())
    yield "\nverbs, which take and give JSON:"
    yield from _lines(
        (group, ", ".join(verb.words[1] for verb in members)) for group, members in verbs.groups().items()
    )


def _lines(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    from textwrap import wrap

    rows = list(pairs)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        first, *more = wrap(text, _WIDTH - width, break_on_hyphens=False) or [""]
        yield f"    {name:<{width}}  {first}".rstrip()
        yield from (f"    {'':<{width}}  {line}" for line in more)
