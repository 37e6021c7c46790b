"""Opened attention against PyTorch's own, and against loops."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from interp.models.towers import attention
from interp.models.towers.open_tower import open_tower

BATCH, POS, HEADS, D_HEAD = 2, 5, 3, 4
VIT: Any = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
RESNET: Any = {"layers": (1, 1, 1, 1), "width": 8, "image_size": 64, "head_width": 64}
TEXT: Any = {"context_length": 10, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=["none", "causal", "per example"])
def mask(request: pytest.FixtureRequest) -> Tensor | None:
    causal = torch.full((POS, POS), -torch.inf, dtype=torch.float64).triu(1)
    return {
        "none": None,
        "causal": causal,
        "per example": causal + random(BATCH, 1, POS, POS, seed=9),
    }[request.param]


def test_against_a_loop(mask: Tensor | None) -> None:
    q, k, v = (random(BATCH, POS, HEADS, D_HEAD, seed=seed) for seed in range(3))
    scores = attention.attention_scores(q, k, mask)
    pattern = scores.softmax(dim=-1)
    z = attention.mix_values(pattern, v)
    added = (
        torch.zeros(BATCH, HEADS, POS, POS) if mask is None else mask.expand(BATCH, HEADS, POS, POS)
    )
    for b in range(BATCH):
        for h in range(HEADS):
            for i in range(POS):
                row = torch.stack(
                    [q[b, i, h] @ k[b, j, h] / D_HEAD**0.5 + added[b, h, i, j] for j in range(POS)]
                )
                torch.testing.assert_close(scores[b, h, i], row)
                mixed = sum(p * v[b, j, h] for j, p in enumerate(row.softmax(0)))
                torch.testing.assert_close(z[b, i, h], mixed)
    torch.testing.assert_close(attention.fused_attention(q, k, v, mask), z)


def test_against_multihead_attention() -> None:
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(HEADS * D_HEAD, HEADS, batch_first=True).double()
    nn.init.normal_(mha.in_proj_bias)
    x = random(BATCH, POS, HEADS * D_HEAD)
    q, k, v = attention.in_projection(x, mha.in_proj_weight, mha.in_proj_bias, n_heads=HEADS)
    pattern = attention.attention_scores(q, k, None).softmax(dim=-1)
    out = mha.out_proj(attention.merge_heads(attention.mix_values(pattern, v)))
    theirs, weights = mha(x, x, x, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(out, theirs)
    torch.testing.assert_close(pattern, weights)


def test_heads_split_and_merge() -> None:
    x = random(BATCH, POS, HEADS * D_HEAD)
    z = attention.split_heads(x, n_heads=HEADS)
    assert torch.equal(z[:, :, 1], x[..., D_HEAD : 2 * D_HEAD])
    assert torch.equal(attention.merge_heads(z), x)


def small(name: str) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    layer_scale = {"ls_init_value": 0.3} if name == "layer scale" else {}
    model = CLIP(24, RESNET if name == "resnet" else VIT | layer_scale, TEXT).double().eval()
    for value in model.parameters():
        nn.init.normal_(value, mean=float(value.detach().mean()), std=0.2)
    if name == "text":
        return open_tower(model, "text"), torch.randint(0, 50, (3, 10))
    side = 64 if name == "resnet" else 32
    return open_tower(model, "visual"), random(3, 3, side, side)


@pytest.fixture(params=["vit", "layer scale", "text", "resnet"])
def towered(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    return small(request.param)


def test_rows_of_the_pattern_sum_to_one(towered: tuple[Any, Tensor]) -> None:
    tower, x = towered
    _, cache = tower.run_with_cache(x, names_filter=["*hook_pattern", "*hook_attn_scores"])
    assert cache
    for site, value in cache.items():
        if site.endswith("hook_pattern"):
            torch.testing.assert_close(value.sum(-1), torch.ones_like(value[..., 0]))
            assert (value >= 0).all()
            scores = cache[site.replace("pattern", "attn_scores")]
            torch.testing.assert_close(scores.softmax(-1), value)


@pytest.mark.parametrize("name", ["vit", "layer scale", "text"])
def test_heads_and_bias_sum_to_what_attention_writes(name: str) -> None:
    tower, x = small(name)
    _, plain = tower.run_with_cache(x)
    _, cache = tower.run_with_cache(x, names_filter="*")
    for layer, block in enumerate(tower.blocks):
        here = f"blocks.{layer}"
        written = cache[f"{here}.attn.hook_result"].sum(dim=-2) + block.attn.b_O
        torch.testing.assert_close(written, cache[f"{here}.hook_attn_out"])
        torch.testing.assert_close(written, plain[f"{here}.hook_attn_out"])
        neurons = cache[f"{here}.mlp.hook_post"] @ block.mlp.W_out + block.mlp.b_out
        torch.testing.assert_close(neurons, cache[f"{here}.hook_mlp_out"])
        parts = (
            cache[f"{here}.hook_resid_pre"]
            + cache[f"{here}.hook_attn_out"]
            + cache[f"{here}.hook_mlp_out"]
        )
        torch.testing.assert_close(parts, cache[f"{here}.hook_resid_post"])


@pytest.mark.parametrize("name", ["vit", "text"])
def test_weights_in_transformer_lens_layout(name: str) -> None:
    tower, x = small(name)
    _, cache = tower.run_with_cache(x)
    block = tower.blocks[1]
    read = cache["blocks.1.ln1.hook_normalized"] * block.ln1.w + block.ln1.b
    for letter in "QKV":
        weight, bias = getattr(block.attn, f"W_{letter}"), getattr(block.attn, f"b_{letter}")
        right = torch.einsum("bpm,hmd->bphd", read, weight) + bias
        torch.testing.assert_close(cache[f"blocks.1.attn.hook_{letter.lower()}"], right)
    read = cache["blocks.1.ln2.hook_normalized"] * block.ln2.w + block.ln2.b
    torch.testing.assert_close(
        cache["blocks.1.mlp.hook_pre"], read @ block.mlp.W_in + block.mlp.b_in
    )


def test_attention_is_fused_until_somebody_listens(
    towered: tuple[Any, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, x = towered
    calls: list[str] = []
    fused, opened = F.scaled_dot_product_attention, attention.attention_scores
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: calls.append("fused") or fused(*a, **k)
    )
    monkeypatch.setattr(
        attention, "attention_scores", lambda *a, **k: calls.append("open") or opened(*a, **k)
    )
    monkeypatch.setattr(attention, "head_results", lambda *a, **k: pytest.fail("nobody asked"))
    blocks = 1 if "attnpool.hook_z" in tower.sites else tower.n_layers
    tower.run_with_cache(x, names_filter=["*.hook_resid_post", "*hook_q", "*hook_z"])
    assert calls == ["fused"] * blocks
    calls.clear()
    tower.run_with_cache(x)
    assert calls == ["open"] * blocks


def test_a_pattern_read_changes_nothing_but_the_last_bits(towered: tuple[Any, Tensor]) -> None:
    tower, x = towered
    opened, _ = tower.run_with_cache(x, names_filter="*")
    torch.testing.assert_close(opened, tower(x), rtol=1e-12, atol=1e-12)


def test_knocking_a_key_out(towered: tuple[Any, Tensor]) -> None:
    tower, x = towered

    def blind(scores: Tensor, hook: Any) -> Tensor:
        return scores.index_fill(-1, torch.tensor([1]), -torch.inf)

    scores = "*hook_attn_scores"
    with tower.hooks(fwd_hooks=[(scores, blind)]):
        _, cache = tower.run_with_cache(x, names_filter="*hook_pattern")
    assert all((pattern[..., 1] == 0).all() for pattern in cache.values())
