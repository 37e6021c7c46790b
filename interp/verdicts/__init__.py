"""What evidence permits to say: the rungs of the ladder, the levels across checkpoints."""
