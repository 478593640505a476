"""Lists of rows that show themselves: a table when printed, and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from html import escape
from typing import Any, TypeVar

from strata.core.clock import to_datetime

R = TypeVar("R")

_TIMES = frozenset({"time", "created", "timestamp"})
# A notebook cell with more rows than this helps nobody; the table says how many it leaves out.
_ROWS_SHOWN = 50


class Table(list[R]):
    """A list of dataclass rows. `print` gives aligned columns, a notebook a small table."""

    __slots__ = ()

    def __str__(self) -> str:
        head, rows, left_out = _cells(self)
        return text_table(head, rows) + (f"\n... and {left_out} more" if left_out else "")

    def _repr_html_(self) -> str:
        head, rows, left_out = _cells(self)
        more = f"<p>… and {left_out} more</p>" if left_out else ""
        return html_table(head, rows) + more


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the rows below their headings, in columns as wide as their widest cell."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the rows below their headings as a notebook shows them."""
    lines = [_html_row("th", head), *(_html_row("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def show_time(time: int) -> str:
    """Return `time` (microseconds since 1970) as people and `db.at` read it."""
    return to_datetime(time).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _cells(rows: Sequence[Any]) -> tuple[list[str], list[list[str]], int]:
    if not rows:
        return ["(none)"], [], 0
    names = [field.name for field in fields(rows[0])]
    shown = [[_cell(name, getattr(row, name)) for name in names] for row in rows[:_ROWS_SHOWN]]
    return names, shown, len(rows) - len(shown)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return show_time(value) if name in _TIMES and isinstance(value, int) else str(value)


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
