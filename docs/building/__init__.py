"""Build the documentation into one offline site: `python -m docs.building`, by `make docs`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
