"""Ways to score units: literal numbers, naive loops, planted heads and neurons, and chance."""

from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from interp.circuits import UNIT_METHODS, Metric
from interp.circuits.tasks.pairs import Read
from interp.circuits.units import unit_methods
from interp.core.errors import SiteError, SpecificationError
from tests.circuits.planted_models import AXES, found, kept_on_others, model, units
from tests.refusals import refuses


@cache
def few() -> Read:
    return found("all shared", "d_mlp", "A", "random").halves[0][np.arange(0, 16, 4)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks learn for a few steps only."""

    def few_steps(*args: Any, **words: Any) -> Any:
        return learn(*args, **{"steps": 8, **words})

    learn = unit_methods.mask_scores
    monkeypatch.setattr(unit_methods, "mask_scores", few_steps)


def true_heads() -> np.ndarray:
    names = model()[0].truth("A").nodes
    return np.array([f"a{layer}.h{head}" in names for layer in range(4) for head in range(4)])


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in UNIT_METHODS if name != "random"])
def test_every_method_finds_the_planted_heads(method: str) -> None:
    """Half of the heads of each block hold all that are planted, and do the work alone."""
    circuits = found("all shared", "head", "A", method)
    kept, true = circuits.masks(0.5), true_heads()
    assert 0 < true.sum() < 8 and len(true) == len(circuits.cut.names)
    per_block = true.reshape(4, 4).sum(axis=1)
    assert per_block.max() <= 2
    assert kept[..., true].mean() > 0.8  # by chance .5
    assert kept_on_others(circuits, 0.5) > 0.95


def test_heads_by_chance_do_not_do_the_work() -> None:
    circuits = found("all shared", "head", "A", "random")
    assert kept_on_others(circuits, 0.5) < 0.5
    assert all((each == each[0]).all() for each in circuits.values)


def test_a_neuron_more_or_less_is_what_a_plain_run_says() -> None:
    """Exact scores, by masks that leave one neuron out; and a site alone is what counts."""
    cut, read = units("d_mlp", "resample ablation"), few()
    site = next(iter(cut.widths))
    one = replace(cut, widths={site: cut.widths[site]})
    scores = one.score(read)
    masks = np.ones((6, len(read.clean), cut.widths[site]), bool)
    places = np.argsort(-np.abs(scores).mean(axis=0))[:6]
    for mask, place in zip(masks, places, strict=True):
        mask[:, place] = False
    values, ends = one.run(read, masks)
    np.testing.assert_allclose(scores[:, places].T, ends[0] - values, atol=1e-9)
    assert np.abs(scores[:, places]).max() > 1e-6


def test_differences_times_gradients_are_those_of_one_run() -> None:
    """Of the mean margin: which rival the margin itself looks at, rounding says where two tie."""
    cut, read = units("d_mlp", "gradient x difference"), few()
    read = replace(read, metric=Metric("mean_margin", read.metric.target))
    tower, scores = cut.tower, replace(cut, batch_size=3).score(read)
    _, corrupt = tower.run_with_cache(read.corrupt, names_filter=list(cut.widths))
    slow = []
    for site in cut.widths:
        kept = {}

        def keep(tensor: torch.Tensor, hook: Any, kept: dict[str, Any] = kept) -> torch.Tensor:
            kept["leaf"] = tensor.detach().requires_grad_()
            return kept["leaf"]

        out = tower.run_with_hooks(read.clean, fwd_hooks=[(site, keep)])
        (grad,) = torch.autograd.grad(read.metric(out).sum(), kept["leaf"])
        slow.append(((kept["leaf"] - corrupt[site]) * grad).sum(dim=1).detach().numpy())
    np.testing.assert_allclose(scores, np.concatenate(slow, axis=1), atol=1e-9)
    assert np.abs(scores).max() > 0.1


def test_an_ensemble_is_the_mean_rank_of_its_ways() -> None:
    read = few()
    labels = read.pairs.clean.label.to_numpy()
    ways = [units("head", name).score(read) for name in ("integrated gradients", "learned masks")]
    got = units("head", "ensemble").score(read)
    for name in set(labels):
        rows = labels == name
        ranks = [
            np.concatenate(
                [
                    (rankdata(np.abs(way[rows].mean(axis=0))[own]) - 1) / 3
                    for own in np.split(np.arange(16), 4)
                ]
            )
            for way in ways
        ]
        np.testing.assert_allclose(got[rows], np.tile(np.mean(ranks, axis=0), (rows.sum(), 1)))


@pytest.mark.parametrize(
    ("method", "axis"),
    # a run for each neuron takes long: one site is tried above
    sorted({*product(UNIT_METHODS, AXES)} - {("resample ablation", "d_mlp")}),
)
def test_every_method_keeps_the_contract(method: str, axis: str) -> None:
    cut, read = units(axis, method), few()
    scores = cut.score(read)
    assert scores.shape == (len(read.clean), len(cut.names)) and np.isfinite(scores).all()
    assert np.array_equal(scores, cut.score(read))
    assert not any(point.fwd_hooks for point in model()[1].hook_dict.values())


@pytest.mark.parametrize("method", UNIT_METHODS)
def test_a_site_without_the_axis_is_refused(method: str) -> None:
    cut = replace(units("head", method), widths={"blocks.0.hook_resid_post": 4})
    refuses(SiteError, "head", cut.score, few())


def test_an_unknown_method_is_refused() -> None:
    refuses(SpecificationError, "gradient x difference", units, "head", "gradients x difference")
