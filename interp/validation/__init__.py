"""Measures and discovery methods judged on planted models whose answer is known."""
