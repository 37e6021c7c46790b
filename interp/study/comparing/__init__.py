"""Results compared row by row, and models with one another."""
