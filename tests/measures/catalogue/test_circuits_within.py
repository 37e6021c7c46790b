"""Circuits of a study's models: found on some artists' drawings, tested on others'."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from interp.core.images import ImageTable
from interp.measures.catalogue.circuits_within import _halves, over_classes


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


def test_a_unit_that_raises_one_class_and_lowers_another_counts() -> None:
    shown = np.array(["ant", "bee", "cat"] * 4, dtype=object)
    either = np.select([shown == "ant", shown == "bee"], [1.0, -1.0], 0.0)  # 0 in the mean
    weak = np.full(len(shown), 0.1)
    found = over_classes(torch.from_numpy(np.stack([either, weak])), shown)
    assert found.tolist() == pytest.approx([2 / 3, 0.1])
