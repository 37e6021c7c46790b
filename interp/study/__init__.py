"""Studies: specification, grid of runs, measurements, results."""
