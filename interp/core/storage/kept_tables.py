"""A model's tables in a folder of their own: compressed, rounded, the same bytes every time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from interp.core.illustrations import Plate
from interp.core.storage.store import complete
from interp.core.tables import read_frame

DIGITS, COLOURS = 6, 256
"""Significant digits of what is kept, and colours of a picture."""


def keep_model(folder: Path, frames: Mapping[str, pd.DataFrame], plates: Sequence[Plate]) -> None:
    """Write a model's tables and pictures, complete or not at all."""
    with complete(folder) as temporary:
        for name, frame in frames.items():
            frame.to_csv(
                temporary / f"{name}.csv.gz",
                index=False,
                float_format=f"%.{DIGITS}g",
                compression={"method": "gzip", "mtime": 0},
            )
        for plate in plates:
            plate.save(temporary, colours=COLOURS)


def kept_model(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a model, typed as their columns are declared."""
    paths = sorted(folder.glob("*.csv.gz"))
    return {path.name.removesuffix(".csv.gz"): read_frame(path) for path in paths}


def kept_plates(folder: Path) -> list[Plate]:
    """The pictures of a model."""
    return [Plate.load(path) for path in sorted(folder.glob("*.png"))]
