"""Whose work a thread takes next: of the connections that have some waiting, each in its turn.

And no connection has more threads at a time than are left for all the others: of 32 the first has 16 at most,
the next one 8. So who asks for much at once does not keep the one from beginning who asks for a little.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextlib import suppress

Call = Callable[[], None]


class Turns:
    """Work of several, for threads that are fewer."""

    def __init__(self, submit: Callable[[Call], object], threads: int) -> None:
        """Let `submit` have threads work, of which there are so many."""
        self._submit = submit
        self._free = threads
        self._waiting: dict[Hashable, deque[Call]] = {}  # by whose it is, in the order of their turns
        self._working: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def add(self, who: Hashable, call: Call) -> None:
        """Let a thread do `call` when it is the turn of `who`. What it raises is lost."""
        with self._lock:
            self._waiting.setdefault(who, deque()).append(call)
        self._submit(self._take_turn)

    def _take_turn(self) -> None:
        """Do what is due, if anything: whose turn it is shows when there is a thread."""
        with self._lock:
            who = self._due()
            if who is None:
                return
            call = self._begin(who)
            has_another = self._due() is not None
        self._go_on(has_another)
        try:
            call()
        finally:
            with self._lock:
                self._end(who)
                is_due = self._due() is not None
            self._go_on(is_due)

    def _go_on(self, is_due: bool) -> None:
        if is_due:
            with suppress(RuntimeError):  # at the end no thread takes any more
                self._submit(self._take_turn)

    def _due(self) -> Hashable | None:
        for who in self._waiting:
            if self._working[who] < self._free:
                return who
        return None

    def _begin(self, who: Hashable) -> Call:
        """Take the oldest work of `who`, who is the last one to have another turn."""
        rest = self._waiting.pop(who)
        work = rest.popleft()
        if rest:
            self._waiting[who] = rest
        self._working[who] += 1
        self._free -= 1
        return work

    def _end(self, who: Hashable) -> None:
        self._free += 1
        self._working[who] -= 1
        if not self._working[who]:
            del self._working[who]
