"""Deletion and insertion: closed forms, planted parts, and what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from interp.circuits import planted_vit
from interp.core.classifiers import Classifier
from interp.core.errors import ShapeError, SpecificationError
from interp.core.tables import Table
from interp.models import deletion_insertion, explain, open_tower
from interp.models.attribution.explain import Heatmaps, LogitQuestion
from tests.refusals import refuses


class Sums(nn.Module):
    """A tower that adds up the weights of those of four patches that have not the plain colour.

    Its embedding is (sum, rest) on the unit circle, so that the logit of class 0 is the sum.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        each = nn.functional.adaptive_avg_pool2d(x[:, :1], 2).flatten(1)
        shown = (each - PLAIN).abs() > 1e-3
        total = (shown * self.weights).sum(dim=1)
        return torch.stack([total, (1 - total.square()).sqrt()], dim=1)


WEIGHTS = torch.tensor([0.1, 0.4, 0.2, 0.0])
COLOURS = torch.tensor([1.0, 0.6, 0.3, 0.0])
PLAIN = float(COLOURS.mean())


def quarters(order: list[float]) -> Heatmaps:
    """A map that orders the patches of two pictures in one way."""
    pictures = COLOURS.reshape(1, 1, 2, 2).expand(2, 3, 2, 2)
    pictures = pictures.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    tower = Sums(WEIGHTS)
    question = LogitQuestion(tower, torch.eye(2)[:1], ("sum",), pictures, None, lambda row: None)  # type: ignore[arg-type, return-value]
    logits = question.logits(pictures).detach()
    patches = torch.tensor(order).reshape(1, 1, 2, 2).expand(2, 1, 2, 2)
    return Heatmaps(question, "by hand", logits, patches, logits * torch.nan)


def values(table: Table, column: str = "value") -> pd.Series:
    return table.frame.set_index("measure")[column]


def area(heights: list[float]) -> float:
    return float(np.trapezoid(heights, dx=1 / (len(heights) - 1)))


def test_the_areas_are_those_of_the_two_curves() -> None:
    table = deletion_insertion(quarters([2.0, 4.0, 3.0, 1.0]), steps=4, n_random=200)
    found = values(table)
    assert found["deletion"] == pytest.approx(area([0.7, 0.3, 0.1, 0.0, 0.0]), abs=1e-5)
    assert found["insertion"] == pytest.approx(area([0.0, 0.4, 0.6, 0.7, 0.7]), abs=1e-5)
    assert found["insertion - deletion"] == pytest.approx(found["insertion"] - found["deletion"])
    # by chance both curves are straight on average
    null = values(table, "null")
    assert null["insertion"] == pytest.approx(0.35, abs=0.01)
    assert null["insertion - deletion"] == pytest.approx(0, abs=0.02)


def test_a_map_that_is_turned_round_is_as_much_worse_as_it_was_better() -> None:
    good, bad = (quarters([sign * v for v in (2.0, 4.0, 3.0, 1.0)]) for sign in (1, -1))
    table = deletion_insertion({"good": good, "bad": bad}, steps=4, n_random=4)
    rows = table.frame.set_index(["method", "measure"])["value"]
    assert rows["bad", "insertion"] == pytest.approx(rows["good", "deletion"], abs=1e-5)
    assert rows["good less bad", "insertion - deletion"] == pytest.approx(
        2 * rows["good", "insertion - deletion"], abs=1e-5
    )


@pytest.mark.slow
def test_maps_of_planted_parts_beat_random_orders() -> None:
    planted = planted_vit("all shared", seed=1)
    pictures = planted.pictures(3)
    maps: dict[str, Heatmaps] = {
        str(options["method"]): explain(
            open_tower(planted.source), pictures, planted.classifier,
            preprocess=planted.preprocess, contrast=True, **options,
        )
        for options in ({"method": "occlusion"}, {"method": "straight"})
    }  # fmt: skip
    table = deletion_insertion(maps, n_random=3)
    rows = table.frame.set_index(["method", "measure"])
    for name in maps:
        row = rows.loc[name, "insertion - deletion"]
        assert row["low"] > row["null"] and row["p"] < 0.05
        assert (row["unit"], row["n_units"], row["n_pictures"]) == ("class", 8, 48)


def test_what_cannot_be_tried_is_said() -> None:
    maps = quarters([1.0, 2.0, 3.0, 4.0])
    for given in ({}, {"steps": 0}, {"n_random": 0}):
        refuses(SpecificationError, "", deletion_insertion, maps if given else {}, **given)
    for sentence in ([0, 1], [0, -1], [0]):
        refuses(ShapeError, "2 places from 0, below 1", deletion_insertion, maps, sentence=sentence)
    with pytest.raises((ShapeError, TypeCheckError), match="sentence"):
        deletion_insertion(maps, sentence=[0.0, 0.0])  # type: ignore[arg-type]
    other: Any = explain(
        planted_tower := open_tower(planted_vit("all shared", seed=1).source),
        torch.rand(2, 3, 32, 32, dtype=torch.float64),
        Classifier(torch.randn(1, planted_tower.source.output_dim, dtype=torch.float64), ["a"]),
        method="occlusion",
    )
    refuses(SpecificationError, "same question", deletion_insertion, {"a": maps, "b": other})
