"""Circuits of a study's models: found on some artists' drawings, tested on others'."""

import pandas as pd
from PIL import Image

from interp.core.images import ImageTable
from interp.measures.catalogue.circuits_within import _halves


def table(artists: int) -> ImageTable:
    rows = [
        {"path": f"{a}-{label}.png", "label": label, "domain": "A", "split": "test",
         "caption": "", "artist": f"artist {a}"}
        for a in range(artists) for label in ("ant", "bee", "cat")
    ]  # fmt: skip
    return ImageTable(pd.DataFrame(rows), reader=lambda row: Image.new("RGB", (1, 1)))


def test_no_artist_is_in_both_halves() -> None:
    find, test = _halves(table(6), "A", 12, seed=0)
    sides = [set(pairs.clean.artist) | set(pairs.corrupt.artist) for pairs in (find, test)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 6
    for pairs in (find, test):
        assert (pairs.clean.label.to_numpy() != pairs.corrupt.label.to_numpy()).all()
