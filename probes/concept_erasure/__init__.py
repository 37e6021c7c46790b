"""A concept erased at a site inside the model, or turned up, and what changes in its answers."""
