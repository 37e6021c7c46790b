"""Opened attention against PyTorch's own, and against loops."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.towers import attention
from tests.models.moved import RESNET, VIT, text, visual

BATCH, POS, HEADS, D_HEAD = 2, 5, 3, 4


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


def small(name: str) -> tuple[Any, Tensor]:
    if name == "text":
        return text()[1:]
    layer_scale = {"ls_init_value": 0.3} if name == "layer scale" else {}
    return visual(RESNET if name == "resnet" else VIT, **layer_scale)[1:]


@pytest.fixture(params=["vit", "layer scale", "text", "resnet"])
def towered(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    return small(request.param)


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


def test_attention_is_fused_until_somebody_listens(towered, monkeypatch) -> None:
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


def test_knocking_a_key_out(towered: tuple[Any, Tensor]) -> None:
    tower, x = towered

    def blind(scores: Tensor, hook: Any) -> Tensor:
        return scores.index_fill(-1, torch.tensor([1]), -torch.inf)

    scores = "*hook_attn_scores"
    with tower.hooks(fwd_hooks=[(scores, blind)]):
        _, cache = tower.run_with_cache(x, names_filter="*hook_pattern")
    assert all((pattern[..., 1] == 0).all() for pattern in cache.values())
