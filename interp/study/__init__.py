"""A question, asked and answered: specification, grid of runs, measurements, results."""
