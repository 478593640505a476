"""The terminal: headlines, proofs, a progress bar, and the table at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from strata.api.table import text_table

T = TypeVar("T")

_BAR_CELLS = 30
_BAR_PAUSE_S = 0.05  # between two drawings: often enough for the eye, and no load on a slow terminal


class Mismatch(Exception):
    """Something that the demo says is not so."""


class Stage:
    """Prints the story, counts the proofs, keeps the times."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.perf_counter) -> None:
        self._out = out
        self._clock = clock
        self._began = clock()
        self._terminal = out.isatty()
        self._bold = self._terminal and "NO_COLOR" not in os.environ
        self._fine = (out.encoding or "").lower().replace("-", "").startswith("utf8")
        self.marks = ("\x1b[1m", "\x1b[0m") if self._bold else ("**", "**")  # around words that matter
        self._headlines = 0
        self._checks = 0
        self._rows: list[tuple[str, ...]] = []

    def open(self, title: str) -> None:
        """Begin the story."""
        self._print(title)

    def headline(self, text: str) -> None:
        """Begin a step."""
        self._headlines += 1
        line = f"{self._headlines}. {text}"
        self._print(f"\n\x1b[1m{line}\x1b[0m" if self._bold else f"\n{line}")

    def say(self, text: str) -> None:
        """Print what happens."""
        for line in text.splitlines():
            self._print(f"   {line}".rstrip())

    def check(self, claim: str, found: Any, wanted: Any = True) -> None:
        """Print the claim when it holds. Raises: Mismatch."""
        if found != wanted:
            raise Mismatch(f"{claim}\n       expected {_short(wanted)}\n       found    {_short(found)}")
        self._checks += 1
        self._print(f"   {'✓' if self._fine else 'ok'} {claim}")

    @contextmanager
    def timed(self, what: str, count: int | Callable[[], int], noun: str) -> Iterator[None]:
        """Time a block for the table: `count` things of the name `noun`."""
        began = self._clock()
        yield
        took = self._clock() - began
        number = count if isinstance(count, int) else count()
        each = duration(took / number) if number else ""
        self._rows.append((what, f"{number:>9,} {noun}", f"{duration(took):>8}", f"{each:>8}"))

    def progress(self, items: Iterable[T], total: int, noun: str) -> Iterator[T]:
        """Yield `items` under a bar; without a terminal, print nothing."""
        drawn = 0.0
        for done, item in enumerate(items):
            if self._terminal and self._clock() - drawn >= _BAR_PAUSE_S:
                drawn = self._clock()
                self._draw(done, total, noun)
            yield item
        if self._terminal:
            print(end="\r\x1b[K", file=self._out, flush=True)

    def _draw(self, done: int, total: int, noun: str) -> None:
        full = _BAR_CELLS * done // max(total, 1)
        on, off = ("━", "─") if self._fine else ("#", ".")
        bar = on * full + off * (_BAR_CELLS - full)
        print(f"\r   {bar} {done:,} of {total:,} {noun}\x1b[K", end="", file=self._out, flush=True)

    def fail(self, text: str) -> None:
        """End the story badly."""
        self._print(f"   {'✗' if self._fine else 'FAILED'} {text}")
        self._print("\nThe demo failed: what is marked above does not hold.")

    def close(self, last: str) -> None:
        """End the story well, with the table."""
        self.headline("What was done, and how long it took")
        self.say(text_table(("", "   how many", "    took", "    each"), self._rows))
        took = duration(self._clock() - self._began)
        self._print(f"\nAll {self._checks} checks held, in {took}. {last}")

    def _print(self, text: str) -> None:
        if not self._fine:
            text = text.encode("ascii", "replace").decode()
        print(text, file=self._out, flush=True)


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds:.2f} s"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
