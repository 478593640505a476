"""Print results: as JSON, JSON lines, a table, or CSV.

JSON is that of `strata.api.plain`: bytes, NaN and infinities are tagged maps. In tables and CSV a text stands
as it is, nothing as an empty cell, and all else as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from strata.api.plain import to_json

if TYPE_CHECKING:
    from strata.api.operations import Operation

Format = Literal["json", "nl", "table", "csv"]
FORMATS: Final = ("nl", "table", "csv")

_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {9: "\\t", 10: "\\n", 13: "\\r"}


def json_text(data: Any) -> str:
    """Return plain data as one line of JSON."""
    return json.dumps(to_json(data), ensure_ascii=False, check_circular=False)


def show(operation: Operation, result: Any, form: Format = "json") -> None:
    """Print what an operation gave."""
    out = sys.stdout
    if not operation.pages and not isinstance(result, list):
        _show_one(result, form, out)
    elif form == "json":
        _show_array(iter(result), out)
    elif form == "nl":
        for row in result:
            print(json_text(row), file=out)
    else:
        head, cells = _cells(operation, iter(result))
        _show_cells(head, cells, form, out)


def _show_one(result: Any, form: Format, out: IO[str]) -> None:
    if form in ("json", "nl"):
        print(json_text(result), file=out)
    elif form == "csv":
        named = result if isinstance(result, dict) else {"value": result}
        _show_cells(list(named), iter([list(named.values())]), form, out)
    else:
        named = result if isinstance(result, dict) else {"": result}
        _show_cells(["name", "value"], ([name, value] for name, value in named.items()), form, out)


def _show_array(rows: Iterator[Any], out: IO[str]) -> None:
    """Print a JSON array, one row a line, as the rows come."""
    before = "["
    for row in rows:
        out.write(before + json_text(row))
        before = ",\n "
    out.write("[]\n" if before == "[" else "]\n")


def _cells(operation: Operation, rows: Iterator[Any]) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the headings, and the cells of each row.

    Records have the columns of their type. What is stored by users may be anything: of maps all keys are
    columns, which needs all rows at once.
    """
    some = list(islice(rows, 1))
    if not some:
        return _columns(operation) or ["value"], iter(())
    rows = chain(some, rows)
    if isinstance(some[0], dict):
        columns = _columns(operation)
        if not columns:
            kept = list(rows)
            columns = list(dict.fromkeys(name for row in kept for name in row))
            rows = iter(kept)
        return columns, ([row.get(name) for name in columns] for row in rows)
    if isinstance(some[0], list):
        names = ["key", "value"] if len(some[0]) == 2 else [str(number) for number in range(len(some[0]))]
        return names, rows
    return ["value"], ([row] for row in rows)


def _columns(operation: Operation) -> list[str]:
    """Return the fields of the records that an operation gives, if it gives records."""
    from strata.api.schema import row_type, shown_fields

    if not operation.pages:
        return []
    try:
        return list(shown_fields(row_type(operation)))
    except TypeError:
        return []


def _show_cells(head: list[str], rows: Iterator[list[Any]], form: Format, out: IO[str]) -> None:
    if form == "csv":
        import csv

        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([_cell(value) for value in row] for row in rows)
        return
    from strata.api.table import text_table

    print(text_table(head, ([_cell(value).translate(_CONTROL) for value in row] for row in rows)), file=out)


def _cell(value: Any) -> str:
    """Return a text as it is, nothing for None, and all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json_text(value)
