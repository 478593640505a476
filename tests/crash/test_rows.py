"""The rows of the fault matrix that need the real world: a few cases each; `make test-slow` has the rest."""

from __future__ import annotations

import pytest

BOTH = pytest.mark.parametrize("durability", ["buffered", "strict"])


@BOTH
def test_f6_killed_processes(row, durability):
    row("kill", "--rounds", 3, "--durability", durability)


@BOTH
@pytest.mark.slow
def test_f6_killed_processes_250_times(row, durability):
    row("kill", "--seed", 100, "--databases", 25, "--rounds", 10, "--durability", durability)


def test_f6_killed_while_indexes_are_written(row):
    row("indexed", "--rounds", 3)


@pytest.mark.slow
def test_f6_killed_while_indexes_are_written_100_times(row):
    row("indexed", "--seed", 100, "--databases", 10, "--rounds", 10)


@BOTH
def test_f5_power_cuts(row, durability):
    row("power", "--rounds", 2, "--durability", durability)


@BOTH
@pytest.mark.slow
def test_f5_power_cuts_100_times(row, durability):
    row("power", "--seed", 100, "--databases", 10, "--rounds", 10, "--durability", durability)


@BOTH
def test_f7_a_full_disk(row, durability):
    row("full", "--databases", 2, "--durability", durability)


@BOTH
@pytest.mark.slow
def test_f7_a_full_disk_of_100_sizes(row, durability):
    row("full", "--seed", 100, "--databases", 100, "--durability", durability)


@BOTH
def test_f12_hardly_any_file_descriptors(row, durability):
    row("limits", "--durability", durability)


@BOTH
@pytest.mark.slow
def test_f12_hardly_any_file_descriptors_on_50_databases(row, durability):
    row("limits", "--seed", 100, "--databases", 50, "--durability", durability)


@BOTH
def test_f11_no_more_memory(row, durability):
    row("memory", "--rounds", 3, "--durability", durability)


@BOTH
@pytest.mark.slow
def test_f11_no_more_memory_100_times(row, durability):
    row("memory", "--seed", 100, "--databases", 10, "--rounds", 10, "--durability", durability)
