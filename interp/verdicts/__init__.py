"""Verdicts: the rungs of the ladder, the levels across checkpoints, and the words they license."""
