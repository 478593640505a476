"""Benchmarks of our own: the adapter for the comparison, and how costs grow with size."""
