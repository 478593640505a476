"""Snippets: the part of a value that shows why it was found.

Cut where the most of what was asked for stands close together, at the ends of words, with `…` where text
was left out. What matched is known by its place, so whoever shows it marks it as fits: `str()` with `**`, a
notebook with <mark>.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from strata.core.values import one_line

WIDTH: Final = 160
_LEAD: Final = 0.25  # of the width, in front of the first match: what a sentence needs to be understood
_STEPS_MAX: Final = 24  # characters that a cut moves to end with a word
_MORE: Final = "…"

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of text, and where in it what was asked for stands."""

    text: str
    spans: tuple[Span, ...] = ()

    def marked(self, before: str = "**", after: str = "**") -> str:
        """Return the text with marks around what was asked for."""
        return "".join(f"{before}{part}{after}" if hit else part for part, hit in self._parts())

    def _parts(self) -> Iterator[tuple[str, bool]]:
        at = 0
        for start, end in self.spans:
            yield self.text[at:start], False
            yield self.text[start:end], True
            at = end
        yield self.text[at:], False

    def _repr_html_(self) -> str:
        return "".join(f"<mark>{escape(part)}</mark>" if hit else escape(part) for part, hit in self._parts())

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        return self.marked()


def cut(text: str, spans: Sequence[Span], width: int = WIDTH) -> Snippet:
    """Return about `width` characters of `text`, where most of `spans` are; these are in order and apart."""
    start, end = _window(text, spans, width)
    if start > 0:
        start = _word_start(text, start, min([end, *(begin for begin, _ in spans if begin >= start)]))
    if end < len(text):
        end = _word_end(text, end, max([start, *(stop for _, stop in spans if stop <= end)]))
    pieces = [_MORE] if start > 0 else []
    shown: list[Span] = []
    size = len(pieces)
    at = start
    for begin, stop in [*(span for span in spans if start <= span[0] and span[1] <= end), (end, end)]:
        for piece, hit in ((text[at:begin], False), (text[begin:stop], True)):
            clean = one_line(piece, max(len(piece) * 10, 1))  # a mark may become `\\U0001f600`
            if hit and clean:
                shown.append((size, size + len(clean)))
            pieces.append(clean)
            size += len(clean)
        at = stop
    if end < len(text):
        pieces.append(_MORE)
    return Snippet("".join(pieces), tuple(shown))


def _window(text: str, spans: Sequence[Span], width: int) -> Span:
    """Return where to cut: from a little before the span from which on most spans fit."""
    if len(text) <= width or not spans:
        return 0, min(width, len(text))
    lead = int(width * _LEAD)
    ends = [end for _, end in spans]
    fits = [bisect_left(ends, start + width - lead + 1) - first for first, (start, _) in enumerate(spans)]
    start = spans[fits.index(max(fits))][0] - lead
    start = min(max(start, 0), len(text) - width)
    return start, start + width


def _word_start(text: str, start: int, latest: int) -> int:
    """Return the beginning of a word at or after `start`; `start` itself where none is near."""
    for at in range(start, min(start + _STEPS_MAX, latest) + 1):
        if at == 0 or text[at - 1].isspace():
            return at
    return start


def _word_end(text: str, end: int, earliest: int) -> int:
    for at in range(end, max(end - _STEPS_MAX, earliest) - 1, -1):
        if at == len(text) or text[at].isspace():
            return at
    return end


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts inside a value, in its order."""
    if type(value) is str:
        yield value
    elif type(value) is dict:
        for item in value.values():
            yield from texts_in(item)
    elif type(value) is list:
        for item in value:
            yield from texts_in(item)
