"""Running towers: in batches, and as the linear maps that they are at their input."""
