"""Training runs: recipes, open_clip's trainer under torchrun, resumption."""
