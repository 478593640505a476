"""Find what was kept: `strata search`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from strata.cli.opening import open_database
from strata.core.errors import InvalidInput
from strata.search import Hit, Results

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def run(arguments: Namespace) -> int:
    """Print what fits best, best first."""
    with open_database(arguments, create=False, read_only=True) as db:
        found = db.branch(arguments.branch).search(
            arguments.text,
            primitives=arguments.primitive or None,
            spaces=arguments.space or None,
            prefix=arguments.prefix,
            where=None if arguments.where is None else _filter(arguments.where),
            start=arguments.start,
            end=arguments.end,
            k=arguments.k,
            offset=arguments.offset,
            at=arguments.at if arguments.at is None or not arguments.at.isdecimal() else int(arguments.at),
            context=arguments.context,
            scan=arguments.scan,
            explain=arguments.explain,
        )
        if arguments.json:
            print(json.dumps(found.to_dict(), ensure_ascii=False))
        else:
            _show(found, arguments.explain)
    return 0


def _show(found: Results, explain: bool) -> None:
    marks = (_BOLD, _PLAIN) if sys.stdout.isatty() else ("**", "**")
    for hit in found:
        print(f"{hit.rank:3}  {hit.score:8.4f}  {hit.ref}")
        print(f"     {hit.snippet.marked(*marks)}")
        if explain:
            print("\n".join(f"       {line}" for line in _why(hit)))
    if not found:
        print("nothing found")
    for miss in found.near_misses:
        print(f"  -  {miss.score:8.4f}  {miss.ref}: {miss.reason}")


def _why(hit: Hit) -> list[str]:
    """Return a line for each index or rule, and for each word."""
    lines = []
    for name, signal in hit.signals.items():
        place = "" if signal.rank is None else f", place {signal.rank}"
        lines.append(f"{name}: {signal.score:.4f}{place}")
        lines += [
            f"  {term.text}: {term.contribution:.4f} (in {term.documents}, weighs {term.idf:.2f})"
            for term in signal.terms
        ]
    return lines


def _filter(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidInput(
            f"{text!r} is not JSON: {error}", hint="""as in --where '{"$.status": "open"}'"""
        ) from None
    if not isinstance(found, dict):
        raise InvalidInput("a filter is a JSON object", hint="""as in --where '{"$.status": "open"}'""")
    return found
