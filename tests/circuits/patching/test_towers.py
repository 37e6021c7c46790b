"""Sweeps over open_clip's own towers: the shortened last block against one full run per cell."""

from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor

from interp.circuits import Chain, sweep
from interp.circuits.patching.patched_cells import PatchPlace, reference_outputs
from interp.core.tower import resumption
from interp.models.towers.opening import open_tower
from tests.models.moved import moved, tokens

VIT: Any = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 16, "head_width": 16}
TEXT: Any = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
FORMS: dict[str, Any] = {
    "class token": ({}, {}),
    "mean": ({"pool_type": "avg"}, {}),
    "norm after": ({"final_ln_after_pool": True}, {}),
    "queries": ({"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3}, {}),
    "text, argmax": (None, {}),
    "text, eos": (None, {"pool_type": "eos", "eos_id": 5}),
    "text, last": (None, {"pool_type": "last"}),
    "text, class token": (None, {"embed_cls": True}),
}
SITES = ["blocks.*.hook_resid_pre", "blocks.*.attn.hook_v", "blocks.*.attn.hook_z"]


def inputs_of(form: str) -> tuple[Any, Tensor, Tensor]:
    vision, text = FORMS[form]
    torch.manual_seed(0)
    kind: Any = CustomTextCLIP if "embed_cls" in text else CLIP
    model = moved(kind(24, VIT | (vision or {}), TEXT | text))
    if vision is None:
        return open_tower(model, "text"), tokens(), tokens().roll(1, dims=1).clamp(max=48)
    pictures = torch.randn(2, 3, 3, 16, 16).double()
    return open_tower(model, "visual"), pictures[0], pictures[1]


def difference(output: Tensor) -> Tensor:
    return output[:, 0] - output[:, 1]


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float64, 1e-10), (torch.float32, 5e-6)])
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_naive_loop(form: str, dtype: torch.dtype, bar: float) -> None:
    tower, clean, corrupt = inputs_of(form)
    if clean.is_floating_point():
        clean, corrupt = clean.to(dtype), corrupt.to(dtype)
    tower = tower.to(dtype)
    table = sweep(tower, clean=clean, corrupt=corrupt, metric=difference, sites=SITES).frame
    largest = float(table["value"].abs().to_numpy().max())
    for (site, pos), rows in table.groupby(["site", "pos"], sort=False):
        cell = PatchPlace(str(site), 0, (("pos", int(pos)),))  # type: ignore[arg-type]
        with torch.no_grad():
            out = reference_outputs(tower, cell, base=corrupt, donor=clean)
        expected = difference(out).double().numpy()
        np.testing.assert_allclose(rows["value"].to_numpy(), expected, rtol=0, atol=bar * largest)


@pytest.mark.parametrize(("form", "saved"), [("class token", True), ("mean", False)])
def test_the_last_block_is_shortened_only_where_one_token_is_read(form: str, saved: bool) -> None:
    tower, clean, corrupt = inputs_of(form)
    positions: list[int] = []
    perceptron = tower.source.transformer.resblocks[-1].mlp.c_fc
    perceptron.register_forward_hook(lambda _, given, out: positions.append(given[0].shape[1]))
    words: dict[str, Any] = {"clean": clean, "corrupt": corrupt, "metric": difference}
    sweep(tower, **words, sites="blocks.*.hook_resid_pre", batch_size=3)
    # 2 layers x 5 positions and the base run finish; the probe, the metric tried on both inputs
    # and the donor's own run are read in full
    assert positions.count(1) == (11 if saved else 0) and positions.count(5) == (4 if saved else 15)
    positions.clear()
    sweep(tower, **words, sites="blocks.1.hook_mlp_out", batch_size=3)
    assert positions.count(1) == (1 if saved else 0)  # only the base run: the block is patched


def test_only_a_text_tower_is_given_its_tokens_again() -> None:
    """Whole numbers go into other towers too, which take nothing but the stream."""
    text, _, _ = inputs_of("text, argmax")
    tower = Chain([torch.nn.Identity()], embed=torch.nn.Embedding(50, 4))
    assert resumption(text, tokens())["tokens"] is not None and not resumption(tower, tokens())
    clean, corrupt = tokens(), tokens().roll(1, dims=1)
    table = sweep(tower, clean=clean, corrupt=corrupt, metric=difference, axes=("layer",)).frame
    with torch.no_grad():
        expected = difference(tower(clean)).double().numpy()
    np.testing.assert_allclose(table["value"].to_numpy(), expected, rtol=1e-6)
