"""What the tests of machines share: a machine, and a database that has it."""

from __future__ import annotations

from collections.abc import Iterator

import databases

import strata
from strata.testing import FakeClock

ORDER = {
    "states": ["created", "paid", "shipped", "cancelled"],
    "initial": "created",
    "transitions": [
        {"from": "created", "event": "PAY", "to": "paid"},
        {"from": "paid", "event": "SHIP", "to": "shipped"},
        {"from": ["created", "paid"], "event": "CANCEL", "to": "cancelled"},
        {"from": "created", "event": "TOUCH", "to": "created"},
    ],
}


def with_order(kind: str, clock: FakeClock) -> Iterator[strata.Database]:
    """Yield a database that has the machine `order`."""
    db = databases.make(kind, clock)
    db.machines.define("order", 1, ORDER)
    yield db
    db.close()


def states(machines) -> dict[str, str]:
    """Return the state of each instance."""
    return {found.id: found.state for found in machines}
