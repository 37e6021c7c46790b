"""Sweeps over open_clip's own towers: the shortened last block against one full run per cell."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor

from interp.circuits import Chain, sweep
from interp.circuits.patching.patched_cells import PatchPlace, reference_outputs
from interp.core.tower import resumption
from interp.models.towers.block import ADDED_TO
from interp.models.towers.open_tower import open_tower
from tests.circuits.conftest import difference
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
SITES = [
    "blocks.*.hook_resid_pre",
    "blocks.*.attn.hook_v",
    *(f"blocks.*.{name}" for name in ADDED_TO),  # a run goes on from there
]


def inputs_of(form: str) -> tuple[Any, Tensor, Tensor]:
    vision, text = FORMS[form]
    torch.manual_seed(0)
    kind: Any = CustomTextCLIP if "embed_cls" in text else CLIP
    model = moved(kind(24, VIT | (vision or {}), TEXT | text))
    if vision is None:
        return open_tower(model, "text"), tokens(), tokens().roll(1, dims=1).clamp(max=48)
    pictures = torch.randn(2, 3, 3, 16, 16).double()
    return open_tower(model, "visual"), pictures[0], pictures[1]


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


@pytest.mark.parametrize("form", ["class token", "mean", "text, eos"])
def test_a_patched_head_repeats_nothing_that_comes_before_it(form: str) -> None:
    tower, clean, corrupt = inputs_of(form)
    blocks = tower.source.transformer.resblocks
    calls = [0, 0]

    def counted(number: int) -> Callable[..., None]:
        def count(*given: Any) -> None:
            calls[number] += 1

        return count

    handles = [block.ln_1.register_forward_hook(counted(n)) for n, block in enumerate(blocks)]
    sites, axes = "blocks.*.attn.hook_z", ("layer", "head")
    words: dict[str, Any] = {"sites": sites, "axes": axes, "batch_size": 3}
    table = sweep(tower, clean=clean, corrupt=corrupt, metric=difference, **words).frame
    # the metric tried on both inputs, base and donor; the two heads of block 0 go through block 1
    assert calls == [4, 4 + 2]
    for handle in handles:
        handle.remove()
    for (site, head), rows in table.groupby(["site", "head"], sort=False):
        cell = PatchPlace(str(site), 0, (("head", int(head)),))  # type: ignore[arg-type]
        with torch.no_grad():
            out = reference_outputs(tower, cell, base=corrupt, donor=clean)
        np.testing.assert_allclose(rows["value"], difference(out).numpy(), rtol=0, atol=1e-10)


def test_a_sweep_within_other_hooks_is_a_sweep_of_the_hooked_tower() -> None:
    tower, clean, corrupt = inputs_of("class token")
    words: dict[str, Any] = {"clean": clean, "corrupt": corrupt, "metric": difference}
    words |= {"sites": "blocks.*.attn.hook_z", "axes": ("layer", "head")}
    plain = sweep(tower, **words).frame["value"]
    for site in ("blocks.0.hook_resid_pre", "blocks.1.attn.hook_z", "blocks.1.hook_attn_out"):
        with tower.hooks(fwd_hooks=[(site, lambda tensor, hook: 2 * tensor)]):
            rows = sweep(tower, **words).frame
            assert not np.allclose(rows["value"], plain)
            for (where, head), found in rows.groupby(["site", "head"], sort=False):
                cell = PatchPlace(str(where), 0, (("head", int(head)),))  # type: ignore[arg-type]
                with torch.no_grad():
                    out = difference(reference_outputs(tower, cell, base=corrupt, donor=clean))
                np.testing.assert_allclose(found["value"], out.numpy(), rtol=0, atol=1e-10)


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
    # the same four and the base run, held behind the block: patched runs do not come through it
    assert positions.count(1) == 0 and positions.count(5) == 5


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
