"""What tests of Strata and of programs on it need.

Model      the oracle: all semantics in plain Python, where every commit is a whole copy
SimDisk    a disk in memory that loses, tears and reorders what was not synced
FakeClock  a clock that stands still until it is told to move
"""

from strata.store import SimDisk
from strata.testing.clock import FakeClock
from strata.testing.model import Model

__all__ = ["FakeClock", "Model", "SimDisk"]
