"""The hooked VisionTransformer, variant by variant."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn
from transformer_lens import ActivationCache

from interp.core.errors import InterpError, ShapeError
from interp.models.towers.open_tower import open_tower
from interp.models.towers.traced import TracedTower
from interp.models.towers.vit import HookedViT

VIT: Any = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
TEXT: Any = {"context_length": 10, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
QUERIES: dict[str, Any] = {
    "attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5,
}  # fmt: skip
VARIANTS: dict[str, Any] = {
    "class token": {},
    "mean": {"pool_type": "avg"},
    "norm after": {"final_ln_after_pool": True},
    "mean, norm after": {"pool_type": "avg", "final_ln_after_pool": True},
    "no first norm": {"no_ln_pre": True},
    "layer scale": {"ls_init_value": 0.1},
    "oblong": {"image_size": (32, 16)},
    "sines": {"pos_embed_type": "sin_cos_2d"},
    "patch dropout": {"patch_dropout": 0.5},
    "tokens too": {"output_tokens": True},
    "mlp ratio": {"mlp_ratio": 2.0},
    "eps": {"norm_kwargs": {"eps": 1e-2}},
    "queries": QUERIES,
    "queries, mean": QUERIES | {"pool_type": "avg"},
    "queries, as wide": QUERIES | {"width": 24, "head_width": 12},  # one weight for q, k and v
    "queries, norm after": QUERIES | {"final_ln_after_pool": True},  # which open_clip ignores
}


def build(**variant: Any) -> tuple[Any, Any, Tensor]:
    torch.manual_seed(0)
    quick = bool(variant.pop("quick_gelu", False))
    model = CLIP(24, VIT | variant, TEXT, quick_gelu=quick).double().eval()
    for value in model.parameters():
        nn.init.normal_(value, mean=float(value.detach().mean()), std=0.1)
    size: Any = model.visual.image_size
    return model, open_tower(model, "visual"), torch.randn(2, 3, *size, dtype=torch.float64)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    model, tower, x = build(**VARIANTS[name])
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
    _, tower, x = build(**QUERIES)
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


def test_activation_function_is_the_models_own() -> None:
    for quick, name in ((False, "gelu"), (True, "quick_gelu")):
        _, tower, x = build(quick_gelu=quick)
        _, cache = tower.run_with_cache(x)
        pre, post = cache["blocks.0.mlp.hook_pre"], cache["blocks.0.mlp.hook_post"]
        right = pre * torch.sigmoid(1.702 * pre) if quick else F.gelu(pre)
        torch.testing.assert_close(post, right)
        assert tower.cfg.act_fn == name


def test_norm_sites_are_before_gain_and_bias() -> None:
    _, tower, x = build()
    _, cache = tower.run_with_cache(x)
    stream, scale = cache["blocks.1.hook_resid_mid"], cache["blocks.1.ln2.hook_scale"]
    right = (stream.var(dim=-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(scale, right)
    torch.testing.assert_close(
        cache["blocks.1.ln2.hook_normalized"], (stream - stream.mean(-1, keepdim=True)) / right
    )


def test_a_frozen_scale_makes_the_norm_linear() -> None:
    _, tower, x = build()
    block = tower.blocks[0]
    stream = tower(x, stop_at_layer=0)
    one = torch.ones(1, dtype=torch.float64)
    block.ln1.hook_scale.add_hook(lambda scale, hook: one.expand_as(scale))
    try:
        twice, once = block.ln1(2 * stream) - block.ln1.b, block.ln1(stream) - block.ln1.b
        torch.testing.assert_close(twice, 2 * once)
    finally:
        tower.reset_hooks()


def test_positions_are_not_written_to() -> None:
    model, tower, x = build()
    before = model.visual.positional_embedding.clone()

    def erase(tensor: Tensor, hook: Any) -> Tensor:
        return tensor.detach().zero_()

    with torch.no_grad():
        moved = tower.run_with_hooks(x[:1], fwd_hooks=[("hook_pos_embed", erase)])
    assert not torch.allclose(moved, tower(x[:1]))
    assert torch.equal(model.visual.positional_embedding, before)


def test_embedding_sites() -> None:
    model, tower, x = build()
    _, cache = tower.run_with_cache(x)
    assert torch.equal(cache["hook_embed"][:, 0], model.visual.class_embedding.expand(2, -1))
    patch = torch.einsum("bchw,dchw->bd", x[:, :, 8:16, 16:24], model.visual.conv1.weight)
    torch.testing.assert_close(cache["hook_embed"][:, 1 + 4 + 2], patch)
    torch.testing.assert_close(
        cache["hook_embed"] + cache["hook_pos_embed"], cache["hook_full_embed"]
    )


def test_patch_dropout_follows_the_models_mode() -> None:
    _, tower, x = build(patch_dropout=0.5)
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
    model, tower, x = build(**variant)
    with pytest.raises(InterpError, match="hook this tower"):
        HookedViT(model.visual)
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
    _, tower, _ = build()
    with pytest.raises(ShapeError, match="embed pictures"):
        tower(wrong)


def test_transformer_lens_reads_the_cache() -> None:
    _, tower, x = build(no_ln_pre=True)
    _, cache = tower.run_with_cache(x)
    theirs: Any = ActivationCache(cache, tower)
    assert torch.equal(theirs["resid_post", 1], cache["blocks.1.hook_resid_post"])
    streams = theirs.accumulated_resid()
    assert torch.equal(streams[-1], cache["blocks.1.hook_resid_post"])
    parts, labels = theirs.decompose_resid(return_labels=True)
    assert labels[0] == "embed"
    torch.testing.assert_close(parts.sum(0), cache["blocks.1.hook_resid_post"])
    heads = theirs.stack_head_results(layer=2)
    assert heads.shape == (4, 2, 17, 32)
    _, full = tower.run_with_cache(x, names_filter="*hook_result")
    torch.testing.assert_close(heads[3], full["blocks.1.attn.hook_result"][:, :, 1])
    normed = theirs.apply_ln_to_stack(parts, layer=-1).sum(0)
    torch.testing.assert_close(normed, cache["ln_final.hook_normalized"])
