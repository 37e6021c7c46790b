"""Intervals, nulls, permutation tests, replication over blocks, association of two numbers."""
