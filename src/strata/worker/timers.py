"""Timers: those of one branch fire when they are due, in all of its spaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from strata.core.clock import to_micros
from strata.core.protocols import Branch
from strata.primitives import Machines

_PAGE: Final = 1000  # timers between two looks at whether to stop


class Timers:
    """The timers of a branch."""

    def __init__(self, branch: Branch, is_stopped: Callable[[], bool]) -> None:
        self.branch = branch
        self._is_stopped = is_stopped
        self._clock = branch.keyspace("default", Machines.LAYOUT)
        self._made: dict[str, Machines] = {}  # by space

    @property
    def now(self) -> int:
        """The clock of the database."""
        return self._clock.now

    def fire(self) -> int:
        """Fire all timers that are due, space by space; return how many had an effect or were refused."""
        fired = 0
        for machines in self._machines():
            while not self._is_stopped():
                found = len(machines.fire_due(limit=_PAGE))
                fired += found
                if found < _PAGE:
                    break
        return fired

    def next_due(self) -> int | None:
        """Return when the next one is due."""
        found = [due for machines in self._machines() if (due := machines.next_due()) is not None]
        return to_micros(min(found)) if found else None

    def _machines(self) -> list[Machines]:
        for space in self.branch.spaces():
            if space not in self._made and not space.startswith("_"):
                self._made[space] = Machines(self.branch.keyspace(space, Machines.LAYOUT), self.branch)
        return list(self._made.values())
