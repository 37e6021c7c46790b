"""Circuits of units: a plain loop, a planted channel and its twin, heads of a ViT, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.circuits import Chain, unit_faithfulness
from interp.circuits.units.unit_faithfulness import measure_units, runs_of_units
from interp.core.errors import DataError, ShapeError, SpecificationError
from interp.core.tables import EVIDENCE
from tests.circuits.conftest import Function, first, open_vit
from tests.refusals import refuses


def reads(channel: int) -> Chain:
    """A tower of maps whose output is one channel of the stream, doubled by its only block."""
    pool = Function(lambda x: x[:, channel : channel + 1].mean(dim=(2, 3)))
    return Chain([torch.nn.Identity()], pool=pool, axes=("batch", "channel", "row", "column"))


@pytest.fixture
def maps() -> dict[str, Any]:
    torch.manual_seed(30)
    clean, corrupt = torch.randn(2, 6, 4, 3, 3)
    return {"clean": clean + 3, "corrupt": corrupt - 3, "metric": first}


def test_equals_a_plain_loop_over_hooks(maps: dict[str, Any]) -> None:
    """Some channels kept at each of two sites; replaced ones come from the corrupt run."""
    tower = Chain(
        [Function(torch.tanh), Function(lambda x: x.roll(1, dims=1).sin())],
        pool=Function(lambda x: (x[:, :2] * x[:, 2:]).mean(dim=(2, 3))),
        axes=("batch", "channel", "row", "column"),
    )
    sites = ["blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"]
    masks = {site: np.random.default_rng(n).random((5, 4)) < 0.5 for n, site in enumerate(sites)}
    for batch_size in (2, 6):
        values, ends = measure_units(tower, masks, **maps, batch_size=batch_size)
    c = maps["corrupt"]
    out0 = torch.tanh(c)
    post1 = c + out0 + (c + out0).roll(1, dims=1).sin()
    for row in range(5):
        kept0, kept1 = (torch.as_tensor(masks[site][row])[:, None, None] for site in sites)
        stream = maps["clean"] + torch.where(kept0, torch.tanh(maps["clean"]), out0)
        stream = torch.where(kept1, stream + stream.roll(1, dims=1).sin(), post1)
        slow = (stream[:, :2] * stream[:, 2:]).mean(dim=(2, 3))[:, 0]
        np.testing.assert_allclose(values[row], slow.numpy(), atol=1e-5)
    np.testing.assert_allclose(ends[0], first(tower(maps["clean"])), atol=1e-6)
    np.testing.assert_allclose(ends[1], first(tower(c)), atol=1e-6)


@pytest.mark.parametrize(("channel", "share"), [(2, 1.0), (0, 0.0)])
def test_the_channel_that_is_read_is_the_circuit(maps, channel, share) -> None:
    """Scores say channel 2. Where 2 is read it does the work alone; where 0 is read, none of it."""
    scores = {"blocks.0.hook_resid_post": torch.tensor([0.1, 0.0, -5.0, 0.2])}
    table = unit_faithfulness(reads(channel), scores, **maps, shares=[0.25, 1.0], n_random=4)
    assert set(EVIDENCE) <= set(table.frame.columns)
    rows = table.frame.set_index(["measure", "n_edges"])["value"]
    assert rows["circuit alone", 1] == pytest.approx(share, abs=1e-6)
    assert rows["model without the circuit", 1] == pytest.approx(1 - share, abs=1e-6)
    assert rows["circuit alone", 4] == pytest.approx(1, abs=1e-6)


def test_a_metric_may_have_parameters_and_gradients_stay_as_they_were(maps: dict[str, Any]) -> None:
    """Numbers are taken without gradients, and whoever reads runs keeps its own context."""
    weight = torch.ones(1, requires_grad=True)
    masks = {"blocks.0.hook_resid_post": np.eye(4, dtype=bool)}
    plain, _ = measure_units(reads(2), masks, **maps)
    values, _ = measure_units(reads(2), masks, **{**maps, "metric": lambda out: weight * out[:, 0]})
    np.testing.assert_array_equal(values, plain)
    runs = {"clean": maps["clean"], "corrupt": maps["corrupt"]}
    for _, _, found in runs_of_units(reads(2), masks, **runs):
        assert all(torch.is_grad_enabled() for _ in found)


def test_one_partner_for_all_pictures_carries_a_warning(maps: dict[str, Any]) -> None:
    scores = {"blocks.0.hook_resid_post": torch.tensor([0.1, 0.0, -5.0, 0.2])}
    own = unit_faithfulness(reads(2), scores, **maps, shares=[0.25, 1.0]).frame
    assert not own["reason"].str.contains("mean ablation").any()
    maps["corrupt"] = maps["corrupt"].mean(dim=0, keepdim=True).expand(6, -1, -1, -1)
    mean = unit_faithfulness(reads(2), scores, **maps, shares=[0.25, 1.0]).frame
    assert mean["reason"].str.contains("mean ablation").all() and mean["value"].notna().all()


def test_heads_are_units_too() -> None:
    tower = open_vit()
    torch.manual_seed(31)
    clean, corrupt = torch.randn(2, 4, 3, 16, 16).double()
    site = "blocks.2.attn.hook_z"
    masks = {site: np.array([[True, False], [True, True]])}
    values, ends = measure_units(
        tower, masks, clean=clean, corrupt=corrupt, metric=first, axis="head"
    )
    _, cache = tower.run_with_cache(corrupt, names_filter=site)

    def swap(z: Tensor, hook: Any) -> Tensor:
        return torch.cat([z[:, :, :1], cache[site][:, :, 1:]], dim=2)

    slow = first(tower.run_with_hooks(clean, fwd_hooks=[(site, swap)])).detach()
    np.testing.assert_allclose(values[0], slow, atol=1e-12)
    assert values[1].tolist() == ends[0].tolist() and (values[0] != ends[0]).all()


def test_refusals(maps: dict[str, Any]) -> None:
    tower, site = reads(0), "blocks.0.hook_resid_post"

    def refuse(error: Any, match: str, scores: Any, **words: Any) -> None:
        refuses(error, match, unit_faithfulness, tower, scores, **{**maps, **words})

    good = {site: torch.ones(4)}
    refuse(SpecificationError, "nowhere", {"nowhere": torch.ones(4)})
    refuse(SpecificationError, "shares", good, shares=[0.0])
    refuse(ShapeError, "one number per unit", {site: torch.ones(4, 6)})
    refuse(ShapeError, "'head'", good, axis="head")
    refuse(ShapeError, "3 scores", {site: torch.ones(3)})
    refuse(SpecificationError, "ignores", good, metric=lambda out: 0 * out[:, 0])
    refuse(DataError, "identical", good, corrupt=maps["clean"])
