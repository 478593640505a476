"""Fixtures: each test that takes one of these runs over the oracle and over the kernel."""

from __future__ import annotations

from typing import Any

import pytest
import stores
from hypothesis import settings

from strata.testing import FakeClock

# How long an example takes says something of the machine, and nothing of us.
settings.register_profile("strata", deadline=None)
settings.load_profile("strata")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=stores.KINDS)
def store(request, clock):
    """An empty store in memory whose clock only moves when told to."""
    store = stores.make(request.param, clock)
    yield store
    store.close()


@pytest.fixture
def db(store):
    """The main branch and the default space of an empty store."""
    return stores.Place(store)


def pytest_configure() -> None:
    """Let also `strata.open` and `strata.connect` give databases that are asked through a loop."""
    if set(stores.KINDS) & set(stores.ASYNC):
        from loops import open_through

        open_through()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the line of each row of the fault matrix that was run, also of those that could not."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    lines = [
        str(value)
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == "row"
    ]
    if lines:
        terminalreporter.section("fault matrix")
        for line in sorted(set(lines)):
            terminalreporter.write_line(line)
