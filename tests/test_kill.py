"""kill -9 in the middle of commits: whatever was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import random

import pytest

import strata
from strata.cli.demo import crash


def kill_again_and_again(path, kills, seed):
    """Kill a writer `kills` times, each time after a random number of its commits; check what is left."""
    chance = random.Random(seed)
    strata.open(path).close()
    total = 0
    for _ in range(kills):
        acknowledged = crash.write_until_killed(path, chance.randint(1, 300))
        assert acknowledged > total
        kept = crash.kept(path)
        assert acknowledged <= kept["count"] <= acknowledged + 1, (
            "an acknowledged commit was lost, or one invented"
        )
        assert len(set(kept.values())) == 1, f"a commit is there in part: {kept}"
        total = kept["count"]


def test_nothing_acknowledged_is_lost(tmp_path):
    kill_again_and_again(tmp_path / "kill.strata", kills=5, seed=1)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_200_kills(tmp_path):
    kill_again_and_again(tmp_path / "kill.strata", kills=200, seed=2)
