"""Gradients against finite differences and closed forms; screening against whole sweeps."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import Chain, Classifier, Metric, Target, node_scores, screen, sweep
from interp.circuits.patching.patched_cells import list_cells, probe
from interp.circuits.patching.screen import missed_at_most
from interp.core.errors import NumericsError, ShapeError, SiteError, SpecificationError
from interp.core.sites import find_sites
from interp.core.tower import part
from tests.circuits.conftest import Function, TinyViT, difference
from tests.refusals import refuses

GRIDS = [
    ("vit", "blocks.*.hook_resid_pre", ("layer", "pos")),
    ("vit", ["blocks.*.attn.hook_z", "blocks.*.attn.hook_q"], ("layer", "head", "pos")),
    ("vit", "blocks.1.attn.hook_pattern", ("layer", "head", "query", "key")),
    ("vit", "*", ("layer",)),
    ("maps", "blocks.*.hook_mlp_out", ("layer", "channel", "row")),
]


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize(("name", "sites", "axes"), GRIDS)
def test_scores_are_the_slope_towards_the_donor(request, name, sites, axes, direction) -> None:
    """A central finite difference along (donor - base), a hook for every cell: the second way."""
    tower, inputs = request.getfixturevalue(name), request.getfixturevalue(f"{name[:3]}_inputs")
    inputs = {key: value[:2] for key, value in inputs.items()}
    words: dict[str, Any] = {"sites": sites, "axes": axes, "direction": direction}
    scores = node_scores(tower, **inputs, metric=difference, batch_size=1, **words)
    swap = direction == "noise"
    base, donor = inputs["clean" if swap else "corrupt"], inputs["corrupt" if swap else "clean"]
    names = find_sites(sites, tower.sites)
    cells = list_cells(tower, names, probe(tower, base, names)[0], axes=axes)
    assert len(cells) == len(scores)
    _, held = tower.run_with_cache(donor, names_filter=names)
    for cell, score in list(zip(cells, scores, strict=True))[:: max(1, len(cells) // 12)]:
        index = part(dict(cell.index), axes=tower.axes(cell.site), site=cell.site)

        def run(step: float, cell: Any = cell, index: Any = index) -> Tensor:
            def move(x: Tensor, hook: object) -> Tensor:
                moved = x.clone()
                moved[index] += step * (held[cell.site] - x)[index]
                return moved

            return difference(tower.run_with_hooks(base, fwd_hooks=[(cell.site, move)]))

        slope = (run(1e-5) - run(-1e-5)) / 2e-5
        torch.testing.assert_close(score, slope.detach(), rtol=1e-6, atol=1e-8)


def test_frozen_towers_and_towers_that_work_in_place() -> None:
    halve = Function(lambda x: x.mul_(-0.5))
    tower = Chain([halve, halve], embed=Function(torch.clone), pool=Function(lambda x: x.sum(1)))
    torch.manual_seed(7)
    clean, corrupt = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    words: dict[str, Any] = {"clean": clean, "corrupt": corrupt, "metric": difference}
    frame = sweep(tower, **words, sites="blocks.*.hook_mlp_out").frame
    effect = (frame["value"] - frame["corrupt_metric"]).to_numpy()
    scores = node_scores(tower, **words, sites="blocks.*.hook_mlp_out")
    np.testing.assert_allclose(scores.numpy().ravel(), effect, atol=1e-5)


def test_labels_follow_their_batch_and_no_gradient_is_left_behind(vit, vit_inputs) -> None:
    head = Classifier(torch.randn(3, 5).double(), ("ant", "bee", "cat"))
    metric = Metric("mean_margin", Target(head, [0, 1, 2, 1, 0]))
    whole = node_scores(vit, **vit_inputs, metric=metric)
    torch.testing.assert_close(node_scores(vit, **vit_inputs, metric=metric, batch_size=2), whole)
    assert all(value.grad is None for value in vit.parameters())
    assert not any(point.fwd_hooks for point in vit.hook_points())


def test_scores_that_cannot_be(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    def refuse(error: Any, match: str, **words: Any) -> None:
        refuses(error, match, node_scores, vit, **{**vit_inputs, "metric": difference, **words})

    refuse(SpecificationError, "without a gradient", metric=lambda out: out.detach()[:, 0])
    refuse(SpecificationError, "axis", axes=("layer", "head"))
    refuse(SpecificationError, "the axes pos", axes=("pos",))
    refuse(SpecificationError, "denoise", direction="denoising")
    refuse(SiteError, "resid_pre", sites="blocks.0.resid_pre")
    refuse(ShapeError, "one shape", clean=vit_inputs["clean"][:1])
    refuse(NumericsError, "NaN", corrupt=vit_inputs["corrupt"] * float("nan"))


def test_measured_cells_have_the_values_of_a_sweep(vit, vit_inputs) -> None:
    words: dict[str, Any] = {**vit_inputs, "metric": difference}
    found = screen(vit, **words, top=3, sample=4)
    keys = ["site", "layer", "pos", "example"]
    both = found.frame.merge(sweep(vit, **words).frame, on=keys, suffixes=("", "_all"))
    assert len(both) == len(found.frame) == 7 * 5
    np.testing.assert_allclose(both["value"], both["value_all"], atol=1e-12)
    scores = node_scores(vit, **words).reshape(3, 4, 5).detach().numpy()
    expected = scores[both["layer"], both["pos"], both["example"]]
    np.testing.assert_allclose(both["estimate"], expected, atol=1e-12)
    few = screen(vit, **words, top=1, sample=1).facts
    assert few["cells"] == 12 and few["forwards"] < few["forwards_of_all"]


def test_with_everything_measured_nothing_is_left_to_doubt(vit, vit_inputs) -> None:
    words: dict[str, Any] = {**vit_inputs, "metric": difference}
    facts = screen(vit, **words, top=3, sample=99).facts
    frame = sweep(vit, **words).frame
    effect = (frame["value"] - frame["corrupt_metric"]).groupby([frame["layer"], frame["pos"]])
    means = effect.mean().abs()
    above = int((means > facts["threshold"] + 1e-9).sum())
    assert facts["sampled"] == 9 and facts["missed_at_most"] == facts["missed_in_sample"]
    assert above <= 2 + facts["missed_in_sample"]  # the threshold's own cell is not above it
    assert screen(vit, **words, top=99).facts["share_missed_at_most"] == 0


def saturated(hidden: bool) -> tuple[Chain, dict[str, Any]]:
    """Position 0 is read by a slope, position 1 (if hidden) behind a threshold without slope."""

    def read(x: Tensor) -> Tensor:
        step = 5 * (x[:, 1, :1] > 0.5).to(x.dtype)
        return x[:, 0] + (step if hidden else 0 * step)

    inputs = {"clean": torch.ones(2, 6, 2), "corrupt": torch.zeros(2, 6, 2)}
    return Chain([Function(torch.zeros_like)], pool=Function(read)), inputs


@pytest.mark.parametrize("hidden", [True, False])
def test_what_gradients_cannot_see_is_seen_by_the_sample(hidden: bool) -> None:
    tower, inputs = saturated(hidden)
    words: dict[str, Any] = {**inputs, "metric": lambda out: out[:, 0]}
    table = screen(tower, **words, top=1, sample=5)
    first = table.frame.query("chosen == 'screened'")
    assert first["pos"].tolist() == [0, 0] and first["value"].tolist() == [1, 1]
    assert table.facts["missed_in_sample"] == table.facts["missed_at_most"] == int(hidden)


@pytest.mark.parametrize("missed", [0, 3, 12])
def test_the_bound_holds_as_often_as_it_says(missed: int) -> None:
    generator = np.random.default_rng(missed)
    rest, drawn = 80, 20
    hits = generator.hypergeometric(missed, rest - missed, drawn, size=2000)
    bounds = np.array([missed_at_most(m, drawn=drawn, rest=rest) for m in range(missed + 1)])
    assert (bounds[hits] >= missed).mean() >= 0.94
    assert bounds[0] < rest / 4  # and is worth something


def test_numbers_out_of_range(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    for words in ({"top": 0}, {"sample": -1}, {"confidence": 1.0}):
        with pytest.raises(SpecificationError, match="top of 1 or more"):
            screen(vit, **vit_inputs, metric=difference, **words)
