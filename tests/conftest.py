"""Fixtures: each test that takes one of these runs over the oracle and over the kernel."""

from __future__ import annotations

import pytest
import stores

from strata.testing import FakeClock


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
