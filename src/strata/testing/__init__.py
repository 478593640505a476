"""What tests of Strata and of programs on it need: an oracle, and a clock that obeys."""

from strata.testing.clock import FakeClock
from strata.testing.model import Model

__all__ = ["FakeClock", "Model"]
