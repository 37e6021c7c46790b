"""Learned masks: what they maximise, by plain runs; planted circuits; and what they are worth."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import ClassCircuits, Units, mask_scores
from interp.circuits.edges.hard_gates import hard_gate
from interp.circuits.tasks.pairs import PairTask
from interp.circuits.units.unit_faithfulness import measure_units
from interp.circuits.units.unit_methods import _alone
from interp.core.errors import AlikeError, SiteError, SpecificationError
from tests.circuits.planted_models import NEURONS, kept_on_others
from tests.circuits.planted_models import found as planted_circuits
from tests.refusals import refuses


@pytest.fixture(scope="module")
def found() -> ClassCircuits:
    """The circuits of a planted model's neurons, by integrated gradients."""
    return planted_circuits("all shared", "d_mlp", "A")


def units(found: ClassCircuits) -> Units:
    assert isinstance(found.cut, Units)
    return found.cut


def by_masks(found: ClassCircuits, **options: Any) -> ClassCircuits:
    cut = replace(units(found), method="learned masks")
    values = []
    for read in found.halves:
        scores = mask_scores(cut.tower, list(cut.widths), axis=cut.level, **options, **read.words)
        values.append(torch.cat([scores[site] for site in cut.widths]).T.numpy())
    return replace(found, cut=cut, values=tuple(values))


def test_planted_circuits_are_learned(found: ClassCircuits) -> None:
    learned = by_masks(found, shares=(0.05, 0.1), steps=20)
    assert kept_on_others(learned, 0.05) > 0.95
    assert all(((0 < each) & (each < 1)).all() for each in learned.values)


def test_pictures_of_a_class_have_one_mask_and_classes_their_own(found: ClassCircuits) -> None:
    learned = by_masks(found, shares=(0.05,), steps=8)
    for read, values in zip(learned.halves, learned.values, strict=True):
        label = read.pairs.clean.label.to_numpy()
        masks = {name: np.unique(values[label == name], axis=0) for name in set(label)}
        assert all(len(one) == 1 for one in masks.values())
        assert len({one.tobytes() for one in masks.values()}) > 1


def test_what_is_maximised_is_the_metric_of_the_circuit_alone(found: ClassCircuits) -> None:
    read = found.halves[0]
    rows = np.arange(0, len(read.clean), 3)
    tower, widths = found.cut.tower, units(found).widths
    torch.manual_seed(0)
    masks = {site: (torch.rand(len(rows), n) < 0.3).double() for site, n in widths.items()}
    given = PairTask(clean=read.clean, corrupt=read.corrupt, metric=read.metric, pairs=read.pairs)
    axes = {site: tower.axes(site).index("d_mlp") for site in widths}
    value = _alone(tower, given, rows, masks, axes)
    part = read[rows]
    plain, _ = measure_units(
        tower,
        {site: mask.bool().numpy()[None] for site, mask in masks.items()},
        clean=part.clean,
        corrupt=part.corrupt,
        metric=part.metric,
        axis="d_mlp",
    )
    assert float(value.detach()) == pytest.approx(plain.mean(), abs=1e-9)


def test_a_gate_passes_the_best_and_gives_the_gradient_of_a_sigmoid() -> None:
    logits = torch.tensor([[0.9, -0.5, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    gate = hard_gate(logits, 0.5)
    assert gate.detach().round(decimals=6).tolist()[0] == [1, 0, 1, 0]
    assert gate.detach().sum(dim=1).round(decimals=5).tolist() == [2, 2]  # ties too
    (grad,) = torch.autograd.grad(gate[0].sum(), logits)
    bar = 0.05  # between the second and the third
    soft = torch.sigmoid((logits[0] - bar) / 0.3)
    torch.testing.assert_close(grad[0], (soft * (1 - soft) / 0.3).detach())


@pytest.mark.slow
def test_the_order_of_pairs_is_the_seeds(found: ClassCircuits) -> None:
    options = {"shares": (0.1,), "steps": 5, "batch_size": 4}
    one, same, other = (by_masks(found, seed=seed, **options).values[0] for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_what_cannot_be_learned_is_refused(found: ClassCircuits) -> None:
    read, tower = found.halves[0], found.cut.tower

    def refuse(error: type[Exception], words: str, sites: str = NEURONS, **changes: Any) -> None:
        with pytest.raises(error, match=words):
            mask_scores(tower, sites, **{"axis": "d_mlp", **read.words, **changes})

    refuse(SpecificationError, "shares", shares=(0.5, 1.0))
    refuse(SpecificationError, "0 steps", steps=0)
    refuse(SiteError, "axis", axis="channel")
    refuse(AlikeError, "identical", corrupt=read.clean)

    def deaf(outputs: Tensor) -> Tensor:
        return torch.ones(len(outputs))

    refuse(SpecificationError, "ignores", metric=deaf)
    refuses(SpecificationError, "learned masks", replace, units(found), method="learned mask")
