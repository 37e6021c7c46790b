"""Activations of many examples on disk: what to keep, how much memory it takes, reading it back."""
