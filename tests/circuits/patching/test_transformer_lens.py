"""TransformerLens's spellings give TransformerLens's numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformer_lens.patching as library
from torch import Tensor

import interp.circuits as circuits
from interp.circuits.patching.transformer_lens import FAMILY
from interp.core.errors import ShapeError, SiteError
from tests.circuits.conftest import TinyViT


def mean_difference(output: Tensor) -> Tensor:
    return (output[:, 0] - output[:, 1]).mean()


@pytest.mark.filterwarnings("ignore")  # the library's progress bar and its own deprecations
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("stack", [1, 3])
def test_same_numbers_as_the_library(name, stack, vit, vit_inputs) -> None:
    _, cache = vit.run_with_cache(vit_inputs["clean"])
    arguments = (vit, vit_inputs["corrupt"], cache, mean_difference)
    ours = FAMILY[name](*arguments, stack=stack)
    theirs = getattr(library, name)(*arguments)
    torch.testing.assert_close(ours.float(), theirs.detach(), rtol=1e-5, atol=1e-6)


def test_every_spelling_is_exported() -> None:
    assert {name for name in dir(circuits) if name.startswith("get_act_patch")} == set(FAMILY)


def test_a_metric_per_example_keeps_its_axis(vit: TinyViT, vit_inputs: dict[str, Any]) -> None:
    _, cache = vit.run_with_cache(vit_inputs["clean"])
    each: Callable[[Tensor], Tensor] = lambda out: out[:, 0] - out[:, 1]  # noqa: E731
    arguments = (vit, vit_inputs["corrupt"], cache)
    kept = circuits.get_act_patch_resid_pre(*arguments, each)
    assert kept.shape == (3, 4, 5)
    torch.testing.assert_close(
        kept.mean(-1), circuits.get_act_patch_resid_pre(*arguments, mean_difference)
    )
    table = circuits.sweep(vit, **vit_inputs, metric=each)
    torch.testing.assert_close(kept.flatten(), torch.tensor(table.frame["value"].to_numpy()))


def test_refusals(vit: TinyViT, vit_inputs: dict[str, Any], hand: circuits.Chain) -> None:
    _, cache = vit.run_with_cache(vit_inputs["clean"])
    with pytest.raises(ShapeError, match="activations"):
        circuits.get_act_patch_resid_pre(vit, vit_inputs["corrupt"][:2], cache, mean_difference)
    with pytest.raises(SiteError, match="hook_resid_mid"):
        circuits.get_act_patch_resid_mid(hand, torch.zeros(1, 2, 2), {}, mean_difference)
