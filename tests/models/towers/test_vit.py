"""The hooked VisionTransformer, variant by variant."""

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.core.errors import InterpError, ShapeError
from interp.models import HookedViT, TracedTower
from tests.models.moved import QUERIES, VIT_VARIANTS, visual
from tests.refusals import refuses

VARIANTS: dict[str, Any] = VIT_VARIANTS | {
    "sines": {"pos_embed_type": "sin_cos_2d"},
    "patch dropout": {"patch_dropout": 0.5},
    "tokens too": {"output_tokens": True},
    "mlp ratio": {"mlp_ratio": 2.0},
    "queries, as wide": QUERIES | {"width": 24, "head_width": 12},  # one weight for q, k and v
    "queries, norm after": QUERIES | {"final_ln_after_pool": True},  # which open_clip ignores
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    model, tower, x = visual(n=2, **VARIANTS[name])
    theirs = model.visual(x)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    torch.testing.assert_close(tower(x), theirs, rtol=1e-12, atol=1e-12)
    embedding, cache = tower.run_with_cache(x, names_filter="*")
    torch.testing.assert_close(embedding, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cache["hook_pooled"] @ model.visual.proj, theirs)
    for site in tower.sites:
        assert cache[site].ndim == len(tower.axes(site))
    assert ("ln_pre.hook_scale" in tower.sites) == (name != "no first norm")
    length = 5 if "queries" in name else 1 if "norm after" in name else tower.cfg.n_ctx
    assert cache["ln_final.hook_scale"].shape[1] == length


def test_learned_queries_see_every_token_and_the_first_is_read() -> None:
    _, tower, x = visual(n=2, **QUERIES)
    embedding, cache = tower.run_with_cache(x, names_filter="*")
    pattern, v = cache["attnpool.hook_pattern"], cache["attnpool.hook_v"]
    assert pattern.shape == (2, 4, 5, 17)  # batch head query key
    z = torch.stack([pattern[:, head] @ v[:, :, head] for head in range(4)], dim=2)
    torch.testing.assert_close(z, cache["attnpool.hook_z"])

    def erase(query: slice) -> Tensor:
        def hook(z: Tensor, hook: Any) -> Tensor:
            z = z.clone()
            z[:, query] = 0
            return z

        return tower.run_with_hooks(x, fwd_hooks=[("attnpool.hook_z", hook)])

    torch.testing.assert_close(erase(slice(1, None)), embedding)
    assert (erase(slice(0, 1)) - embedding).abs().max() > 0.1


def test_positions_are_not_written_to() -> None:
    model, tower, x = visual(n=2)
    before = model.visual.positional_embedding.clone()

    def erase(tensor: Tensor, hook: Any) -> Tensor:
        return tensor.detach().zero_()

    with torch.no_grad():
        moved = tower.run_with_hooks(x[:1], fwd_hooks=[("hook_pos_embed", erase)])
    assert not torch.allclose(moved, tower(x[:1]))
    assert torch.equal(model.visual.positional_embedding, before)


def test_patch_dropout_follows_the_models_mode() -> None:
    _, tower, x = visual(n=2, patch_dropout=0.5)
    tower.train()
    assert tower(x, stop_at_layer=0).shape[1] == 1 + 8
    tower(tower(x, stop_at_layer=1), start_at_layer=1)
    tower.eval()
    assert tower(x, stop_at_layer=0).shape[1] == 1 + 16


@pytest.mark.parametrize(
    "variant",
    [
        # which open_clip itself can run only where the embedding is as wide as the stream
        {"attentional_pool": "parallel", "attn_pooler_heads": 2, "width": 24, "head_width": 12},
        {"pool_type": "none"},
        {"qk_norm": True},
        {"scale_fc": True},
        {"block_type": "custom"},
    ],
)
def test_what_has_no_hooks_is_traced(variant: dict[str, Any]) -> None:
    model, tower, x = visual(n=2, **variant)
    refuses(InterpError, "hook this tower", HookedViT, model.visual)
    assert isinstance(tower, TracedTower)
    theirs = model.visual(x)
    assert torch.equal(tower(x), theirs[0] if isinstance(theirs, tuple) else theirs)
    assert "transformer.resblocks.1.mlp.c_fc" in tower.sites


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 31, 32),
        torch.zeros(2, 1, 32, 32),
        torch.zeros(3, 32, 32),
        torch.zeros(2, 3, 32, 32, dtype=torch.int64),
    ],
)
def test_pictures_that_do_not_fit(wrong: Tensor) -> None:
    _, tower, _ = visual(n=2)
    refuses(ShapeError, "embed pictures", tower, wrong)
