"""JSON lines: a record a line, in the JSON of `strata.api.plain`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

from strata.api.plain import decode_json
from strata.cli.formats import STDIO, Options, Records, replaced, taken
from strata.cli.formats.columns import listed
from strata.cli.output import json_text
from strata.cli.parsing import stdin
from strata.core.errors import InvalidInput

UNIT: Final = "line"


def read(file: str, options: Options) -> Iterator[tuple[int, Any]]:
    """Yield each line's record, or list, and its number."""
    with taken(file):
        if file == STDIO:
            yield from _records(stdin() or [])
            return
        with open(file, "rb") as lines:
            yield from _records(lines)


def _records(lines: Any) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = decode_json(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except InvalidInput as error:
            raise InvalidInput(f"line {number}: {error.message}") from None
        yield number, record


def write(file: str, records: Records, options: Options) -> int:
    """Write a line for each record; return how many."""
    if file == STDIO:
        return _write(sys.stdout, records)
    with replaced(file) as part, open(part, "w", encoding="utf-8", newline="\n") as out:
        return _write(out, records)


def _write(out: Any, records: Records) -> int:
    count = 0
    for record in records():
        print(json_text({name: listed(value) for name, value in record.items()}), file=out)
        count += 1
    return count
