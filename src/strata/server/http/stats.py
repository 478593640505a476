"""Stats: what a server counted, for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counts since the server began, and what is now."""

    operations: Mapping[str, int] = field(default_factory=Counter)  # by name
    errors: Mapping[str, int] = field(default_factory=Counter)  # by code
    connections: int = 0  # open now
    draining: bool = False

    def __add__(self, other: Stats) -> Stats:
        """Return what two servers of one database counted together."""
        return Stats(
            Counter(self.operations) + Counter(other.operations),
            Counter(self.errors) + Counter(other.errors),
            self.connections + other.connections,
            self.draining or other.draining,
        )
