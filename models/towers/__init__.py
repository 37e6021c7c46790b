"""Hooked towers: open_clip encoders whose activations have names, shared weights and all."""
