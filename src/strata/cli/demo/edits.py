"""Small edits of Python, one expression of one line each, and tests that are run with a limit.

A line is edited in its syntax tree: an operator or a comparison becomes another, a number one more or less,
the right side of an operator goes, two things that stand side by side change places. So every edit is Python,
though it may well run for ever: tests may run only so many lines.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

_FILE: Final = "<repaired>"
_LINES_RUN: Final = 300  # of one test: the longest that is right runs some thirty
_COMPARISONS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mult: ast.FloorDiv,
}


@dataclass(frozen=True, slots=True)
class Edit:
    """A line, and what it becomes."""

    number: int  # of the line, from 0
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old.strip()}  ->  {self.new.strip()}"


class TooLong(Exception):
    """A test ran more lines than it may."""


def edits(lines: list[str]) -> list[Edit]:
    """Return all edits of a program, each once, in order of its lines."""
    found: dict[Edit, None] = {}
    for statement in ast.walk(ast.parse("\n".join(lines))):
        expression = getattr(statement, "test", None) or getattr(statement, "value", None)
        if isinstance(statement, ast.stmt) and isinstance(expression, ast.expr) and not _is_doc(statement):
            number, start, end = expression.lineno - 1, expression.col_offset, expression.end_col_offset
            line = lines[number]
            for variant in _variants(expression):
                found[Edit(number, line, line[:start] + _text(variant) + line[end:])] = None
    return sorted((edit for edit in found if edit.new != edit.old), key=lambda edit: edit.number)


def applied(lines: list[str], edit: Edit) -> list[str]:
    """Return the lines after an edit."""
    return [edit.new if number == edit.number else line for number, line in enumerate(lines)]


def failures(lines: list[str], tests: list[dict[str, Any]]) -> list[str]:
    """Run the tests, each a call and what it gives; return what is wrong, a line for each that fails."""
    space: dict[str, Any] = {}
    exec(compile("\n".join(lines), _FILE, "exec"), space)
    return [wrong for test in tests if (wrong := _failure(space, test))]


def _failure(space: dict[str, Any], test: dict[str, Any]) -> str | None:
    try:
        found = _limited(compile(test["call"], _FILE, "eval"), space)
    except Exception as error:
        return f"{test['call']} raises {type(error).__name__}"
    return (
        None if list(found) == test["gives"] else f"{test['call']} gives {list(found)}, not {test['gives']}"
    )


def _limited(code: Any, space: dict[str, Any]) -> Any:
    """Evaluate code that may run only so many lines, which is the same on every machine, as time is not."""
    left = _LINES_RUN

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != _FILE:
            return None
        left -= event == "line"
        if left < 0:
            raise TooLong
        return count

    before = sys.gettrace()
    sys.settrace(count)  # of this thread alone
    try:
        return eval(code, space)
    finally:
        sys.settrace(before)


def _text(expression: ast.expr) -> str:
    text = ast.unparse(expression)
    return text[1:-1] if isinstance(expression, ast.Tuple) else text  # as people write it


def _is_doc(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _variants(expression: ast.expr) -> Iterator[ast.expr]:
    """Yield the expression with one thing in it changed."""
    for place, node in enumerate(ast.walk(expression)):
        for change in _changes(node):
            whole = copy.deepcopy(expression)
            target = [*ast.walk(whole)][place]
            yield _Put(target, change).visit(whole)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in the place of a node."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], _COMPARISONS):
        for comparison in _COMPARISONS:
            yield ast.Compare(node.left, [comparison()], node.comparators)
    elif isinstance(node, ast.BinOp):
        yield node.left
        if type(node.op) in _OPERATORS:
            yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.Tuple):
        yield ast.Tuple(node.elts[::-1], node.ctx)
    elif isinstance(node, ast.Call) and len(node.args) > 1:
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)


class _Put(ast.NodeTransformer):
    """Puts a node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self._new if node is self._old else super().visit(node)
