"""Circuits found against a picture's own corruption, in place of a picture of another class."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageColor

from interp.circuits import CORRUPTIONS, Chain, Classifier, Units, class_circuits
from interp.core.errors import SpecificationError
from interp.core.images import ImageTable

COLOURS = ("red", "lime", "blue", "white")
HEAD = Classifier(torch.tensor([*map(ImageColor.getrgb, COLOURS)]) / 255, COLOURS)


def read(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0))).reshape(3, 1, 1) / 255


def found(corruption: str | None, **more: Any) -> Any:
    frame = pd.DataFrame({"path": range(16), "label": COLOURS * 4, "domain": "real"})
    images = ImageTable(
        frame.assign(split="test", caption=""),
        reader=lambda row: Image.new("RGB", (1, 1), row["label"]),
    )
    tower = Chain(
        [torch.nn.Identity()], axes=("batch", "channel", "row", "column"), pool=torch.nn.Flatten()
    )
    cut = Units.of(tower, "hook_embed", torch.ones(1, 3, 1, 1))
    words: dict[str, Any] = {"classifier": HEAD, "preprocess": read, "corruption": corruption}
    return class_circuits(cut, images, domain="real", **words, **more)


@pytest.mark.parametrize("name", ["gaussian_noise", "mean_image"])
def test_the_corrupt_picture_is_the_clean_one_corrupted(name: str) -> None:
    own = found(name, seed=3)
    for half, before in zip(own.halves, found(None, seed=3).halves, strict=True):
        assert torch.equal(half.clean, before.clean)
        assert torch.equal(half.corrupt, CORRUPTIONS[name](half.clean, seed=3))
        partners = zip(half.pairs.corrupt.label, half.pairs.clean.label, strict=True)
        assert all(one != other for one, other in partners)


def test_scores_and_runs_are_those_of_the_corrupted_pictures() -> None:
    """With no unit kept, a run is the corrupt one, from which gaps are measured too."""
    own = found("mean_image", metric="mean_margin")
    for half, values, gap in zip(own.halves, own.values, own.gaps, strict=True):
        nothing, ends = own.cut.run(half, np.zeros((1, *values.shape), dtype=bool))
        np.testing.assert_allclose(nothing[0], ends[1], atol=1e-6)
        np.testing.assert_allclose(ends[0] - ends[1], gap, atol=1e-6)


def test_an_unknown_corruption_is_refused() -> None:
    with pytest.raises(SpecificationError, match="gaussian_noise"):
        found("noise")
