"""CSV with a line of headings, in UTF-8.

A cell is a text as it stands, unless it reads as JSON: a number, true, false, a list, a map, a text in its
quotes. So a text that would read as JSON is written in its quotes ("12" with them is a text), an empty cell
is None, and the empty text "". Every value comes back as it was, and files of others mostly read as they are
meant; `text` takes each cell of such a file for a text.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from typing import IO, Any, Final

from strata.api.plain import decode_json
from strata.cli.formats import STDIO, Options, Record, Records, replaced, taken
from strata.cli.formats.columns import survey, to_text
from strata.cli.parsing import stdin
from strata.core.errors import InvalidInput

UNIT: Final = "line"

_INT64: Final = range(-(2**63), 2**63)


def read(file: str, options: Options) -> Iterator[tuple[int, Record]]:
    """Yield each record and the number of its last line."""
    csv.field_size_limit(sys.maxsize)
    with taken(file):
        if file == STDIO:
            piped = TextIOWrapper(stdin() or BytesIO(), encoding="utf-8-sig", newline="")
            yield from _records(piped, options.text)
            return
        with open(file, encoding="utf-8-sig", newline="") as lines:
            yield from _records(lines, options.text)


def _records(lines: IO[str], is_text: bool) -> Iterator[tuple[int, Record]]:
    reader = csv.reader(lines, strict=True)
    try:
        head = next(reader, [])
        if len(set(head)) < len(head):
            raise InvalidInput("line 1: two columns have one name")
        for row in reader:
            if not row:
                continue
            if len(row) != len(head):
                raise InvalidInput(f"line {reader.line_num}: {len(row)} cells, and {len(head)} headings")
            yield reader.line_num, dict(zip(head, row if is_text else map(_value, row), strict=True))
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num}: {error}") from None


def write(file: str, records: Records, options: Options) -> int:
    """Write headings, and a line for each record; return how many."""
    head = list(options.columns) or list(survey(records, (), exact_floats=True))
    if file == STDIO:
        return _write(sys.stdout, head, records)
    with replaced(file) as part, open(part, "w", encoding="utf-8", newline="") as out:
        return _write(out, head, records)


def _write(out: IO[str], head: list[str], records: Records) -> int:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    count = 0
    for record in records():
        writer.writerow([cell(record.get(name)) for name in head])
        count += 1
    return count


def cell(value: Any) -> str:
    """Return a value as it stands in a cell."""
    # The csv module leaves a lone carriage return without quotes, and then reads it as the end of a line.
    if isinstance(value, str) and value and "\r" not in value and _value(value) is value:
        return value
    return to_text(value) or ""


def _value(text: str) -> Any:
    """Return what a cell says: JSON, or the text itself."""
    if not text:
        return None
    if text[0] not in '"{[-0123456789tfn':
        return text
    try:
        found = decode_json(text)
    except InvalidInput:
        return text
    return text if found is None or (isinstance(found, int) and found not in _INT64) else found
