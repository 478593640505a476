"""Guards: conditions on the context of an instance, as text in a definition.

    expr    := and ('||' and)*      and := unary ('&&' unary)*      unary := '!' unary | primary
    primary := '(' expr ')' | field [op value]
    field   := 'ctx.' then letters, digits, '_' and '.'             steps go through maps only
    op      := == != take true | false | null | "text" | number     > >= < <= take a number only
    number  := '-'? digit* ('.' digit*)?                            at least one digit

White space is free. `!` binds looser than a comparison, `&&` tighter than `||`. What is missing is null. A
field alone holds unless it is null, false, 0, "", [] or {}. Only equal kinds are equal: numbers as doubles,
lists and maps to nothing. `!=` is the exact opposite of `==`; to order what is no number is false.

Texts take the escapes of JSON, and letters are those of Unicode.
"""

from __future__ import annotations

import json
import math
import operator
import re
import sys
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from strata.core.errors import InvalidInput, LimitExceeded

Guard = Callable[[dict[str, Any]], bool]  # of a context

MAX_DEPTH: Final = 64  # of parentheses and `!`: far more than people write, far less than Python's stack
_EPSILON: Final = sys.float_info.epsilon

_SPACE: Final = re.compile(r"\s*")
_CTX: Final = "ctx."
_JOINERS: Final = "\u200c\u200d"  # without which some scripts cannot write their words
_NUMBER: Final = re.compile(r"-?[0-9]*(?:\.[0-9]*)?")
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WORD: Final = re.compile(r"\w+")
_OPERATORS: Final = ("==", "!=", ">=", "<=", ">", "<")
_ORDERS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_NUMBERS: Final = (int, float)
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
_HINT: Final = 'as in ctx.total >= 100 && ctx.status == "open"'


@lru_cache(maxsize=4096)
def compile_guard(text: str) -> Guard:
    """Return the function that tells whether a guard holds for a context.

    Raises: InvalidInput, naming the place, for what is no guard; LimitExceeded for one nested too deep.
    """
    parser = _Parser(text)
    guard = parser.either(0)
    if parser.at < len(text):
        raise parser.error("there is more text than a guard")
    return guard


def leading_guard(text: str) -> str:
    """Return the part of a text that is a guard, as rstmdb takes it, which does not look at the rest.

    Raises: InvalidInput where it does not begin with one; LimitExceeded.
    """
    parser = _Leading(text)
    parser.either(0)
    return text[: parser.at].rstrip()


class _Parser:
    """Reads a guard from left to right. Between calls `at` is at no white space."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._skip()

    def either(self, depth: int) -> Guard:
        parts = [self._all(depth)]
        while self._take("||"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else lambda ctx: any(part(ctx) for part in parts)

    def _all(self, depth: int) -> Guard:
        parts = [self._not(depth)]
        while self._take("&&"):
            parts.append(self._not(depth))
        return parts[0] if len(parts) == 1 else lambda ctx: all(part(ctx) for part in parts)

    def _not(self, depth: int) -> Guard:
        if depth > MAX_DEPTH:
            raise LimitExceeded(what="depth of the guard", limit=MAX_DEPTH, actual=depth)
        if self._take("!"):
            return _opposite(self._not(depth + 1))
        if self._take("("):
            guard = self.either(depth + 1)
            if not self._take(")"):
                raise self.error("a parenthesis is not closed")
            return guard
        return self._comparison()

    def _comparison(self) -> Guard:
        read = _reader(self._field())
        for sign in _OPERATORS:
            if self._take(sign):
                if sign in ("==", "!="):
                    equal = _equal(read, self._value())
                    return equal if sign == "==" else _opposite(equal)
                return _ordered(read, _ORDERS[sign], self._number())
        return lambda ctx: bool(read(ctx))

    def _field(self) -> list[str]:
        if not self.text.startswith(_CTX, self.at):
            raise self.error("a field is expected" if self.at < len(self.text) else "it ends too early")
        begin = end = self.at + len(_CTX)
        while end < len(self.text) and _is_in_names(self.text[end]):
            end += 1
        if end == begin:
            raise self.error("'ctx.' needs the name of a field")
        self.at = end
        self._skip()
        return self.text[begin:end].split(".")

    def _value(self) -> Any:
        if self.text.startswith('"', self.at):
            return self._string()
        begin, word = self.at, self._match(_WORD)
        if word is not None and word in _WORDS:
            return _WORDS[word]
        self.at = begin
        return self._number()

    def _string(self) -> str:
        found = self._match(_TEXT)
        if found is None:
            raise self.error("a text is not ended")
        try:
            value: str = json.loads(found, strict=False)
            value.encode()
        except ValueError:
            raise self.error(f"{found} is no text") from None
        return value

    def _number(self) -> float:
        begin, found = self.at, self._match(_NUMBER)
        if found is None or not any(map(str.isdigit, found)) or self._goes_on():
            self.at = begin
            raise self.error("a number is expected" if begin < len(self.text) else "it ends too early")
        if math.isinf(number := float(found)):
            raise self.error(f"{found[:20]}... is larger than any number")
        return number

    def _goes_on(self) -> bool:
        """Return whether there is a word right behind a number."""
        return _WORD.match(self.text, self.at) is not None

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        self._skip()
        return found[0]

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        self._skip()
        return True

    def _skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def error(self, reason: str) -> InvalidInput:
        shown = self.text if len(self.text) <= 80 else f"{self.text[:80]}..."
        return InvalidInput(f"guard {shown!r}, character {self.at}: {reason}", hint=_HINT)


class _Leading(_Parser):
    """Reads a guard up to where it ends, whatever comes then."""

    def _goes_on(self) -> bool:
        return False


def _is_in_names(mark: str) -> bool:
    """Return whether a character may be in the path of a field: a letter or its accent, a digit, `_`, `.`."""
    return mark.isalnum() or mark in "_." or mark in _JOINERS or unicodedata.category(mark)[0] == "M"


def _reader(steps: list[str]) -> Callable[[dict[str, Any]], Any]:
    if len(steps) == 1:
        name = steps[0]
        return lambda ctx: ctx.get(name)

    def read(ctx: dict[str, Any]) -> Any:
        value: Any = ctx
        for step in steps:
            if type(value) is not dict:
                return None
            value = value.get(step)
        return value

    return read


def _opposite(guard: Guard) -> Guard:
    return lambda ctx: not guard(ctx)


def _equal(read: Callable[[dict[str, Any]], Any], wanted: Any) -> Guard:
    if wanted is None or isinstance(wanted, bool):
        return lambda ctx: read(ctx) is wanted
    if isinstance(wanted, str):
        return lambda ctx: type(found := read(ctx)) is str and found == wanted

    def equal(ctx: dict[str, Any]) -> bool:
        found = read(ctx)
        return type(found) in _NUMBERS and abs(float(found) - wanted) < _EPSILON

    return equal


def _ordered(
    read: Callable[[dict[str, Any]], Any], holds: Callable[[float, float], bool], bound: float
) -> Guard:
    def ordered(ctx: dict[str, Any]) -> bool:
        found = read(ctx)
        return type(found) in _NUMBERS and holds(float(found), bound)

    return ordered
