"""The mutants: towers with one thing wrong, each of which the certificate must fail."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from interp.models.certificate.certify import certify
from interp.models.towers import attention, resnet, text, transformer, vit
from interp.models.towers.open_tower import open_tower

pytestmark = pytest.mark.slow

VIT: Any = {"layers": 1, "width": 32, "patch_size": 8, "image_size": 32, "head_width": 16}
# the second block of a stage has no downsample: only there can a plain shortcut be missing
RESNET: Any = {"layers": (1, 2, 1, 1), "width": 4, "image_size": 32, "head_width": 64}
TEXT: Any = {"context_length": 10, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
Patch = pytest.MonkeyPatch


def build(
    vision: dict | None = None, words: dict | None = None, *, kind: Any = CLIP, **more: Any
) -> Any:
    torch.manual_seed(0)
    return kind(24, vision or VIT, TEXT | (words or {}), **more)


def rows(model: Any, which: str = "visual") -> pd.DataFrame:
    return certify(open_tower(model, which))


# mutants of the transformer


def drop_output_bias(patch: Patch) -> None:
    old = attention.HookedAttention.forward
    patch.setattr(
        attention.HookedAttention,
        "forward",
        lambda self, x, mask=None: old(self, x, mask) - self.b_O,
    )


def drop_query_bias(patch: Patch) -> None:
    old = attention.in_projection

    def without(x: Tensor, weight: Tensor, bias: Tensor, *, n_heads: int) -> Any:
        keep = torch.ones_like(bias)
        keep[: len(bias) // 3] = 0
        return old(x, weight, bias * keep, n_heads=n_heads)

    patch.setattr(attention, "in_projection", without)


def drop_neuron_bias(patch: Patch) -> None:
    old = transformer.HookedMLP.forward
    patch.setattr(transformer.HookedMLP, "forward", lambda self, x: old(self, x) - self.b_out)


def skip_residual(patch: Patch) -> None:
    def forward(self: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(self.hook_attn_out(self.attn(self.ln1(x), mask)))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(self.ln2(x))))

    patch.setattr(transformer.HookedBlock, "forward", forward)


def swap_heads(patch: Patch) -> None:
    old = attention.in_projection
    patch.setattr(
        attention, "in_projection", lambda *a, **k: tuple(part.flip(2) for part in old(*a, **k))
    )


def swap_heads_of_the_fused_kernel(patch: Patch) -> None:
    old = attention.fused_attention
    patch.setattr(attention, "fused_attention", lambda *a: old(*a).flip(2))


def other_gelu(patch: Patch) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        pre = self.hook_pre(self.source.mlp.c_fc(x))
        return self.source.ls_2(
            self.source.mlp.c_proj(self.hook_post(pre * torch.sigmoid(1.702 * pre)))
        )

    patch.setattr(transformer.HookedMLP, "forward", forward)


def sample_variance(patch: Patch) -> None:
    old = transformer.HookedNorm.forward

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.hook_scale.has_hooks():
            return old(self, x)
        scale = self.hook_scale((x.var(dim=-1, keepdim=True) + self.source.eps).sqrt())
        return self.hook_normalized((x - x.mean(-1, keepdim=True)) / scale) * self.w + self.b

    patch.setattr(transformer.HookedNorm, "forward", forward)


def unscaled_scores(patch: Patch) -> None:
    old = attention.attention_scores
    patch.setattr(
        attention, "attention_scores", lambda q, k, mask: old(q * q.shape[-1] ** 0.5, k, mask)
    )


def no_positions(patch: Patch) -> None:
    old = vit.HookedViT._embed

    def embed(self: Any, x: Tensor) -> Tensor:
        with self.hooks(fwd_hooks=[("hook_pos_embed", lambda t, hook: torch.zeros_like(t))]):
            return old(self, x)

    patch.setattr(vit.HookedViT, "_embed", embed)


def mean_pooling(patch: Patch) -> None:
    patch.setattr(vit.HookedViT, "_pool", lambda self, x: x.mean(dim=1, keepdim=True))


TRANSFORMER_MUTANTS = (
    drop_output_bias,
    drop_query_bias,
    drop_neuron_bias,
    skip_residual,
    swap_heads,
    swap_heads_of_the_fused_kernel,
    other_gelu,
    sample_variance,
    unscaled_scores,
)


@pytest.mark.parametrize("mutate", [*TRANSFORMER_MUTANTS, no_positions, mean_pooling])
def test_vit_mutants_fail(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    assert not rows(build()).ok.all()


@pytest.mark.parametrize("mutate", TRANSFORMER_MUTANTS)
def test_text_mutants_fail(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    assert not rows(build(), "text").ok.all()


@pytest.mark.parametrize(
    "attribute, value",
    [
        ("_context", lambda self, stream, tokens: (None,)),
        (
            "_read_out",
            lambda self, stream, tokens: self.hook_embedding(
                self.hook_pooled(self.ln_final(stream)[:, -1]) @ self.source.text_projection
            ),
        ),
    ],
)
def test_text_without_mask_or_end_fails(attribute: str, value: object, monkeypatch: Patch) -> None:
    monkeypatch.setattr(text.HookedText, attribute, value)
    assert not rows(build(), "text").ok.all()


def test_quick_gelu_read_as_gelu_fails(monkeypatch: Patch) -> None:
    other_gelu(monkeypatch)
    assert rows(build(quick_gelu=True)).ok.all()  # there it is no mutant


# mutants of the ResNet


def bottleneck(
    relu: Callable = F.relu,
    last_norm: Callable | None = None,
    shortcut: Callable | None = None,
    branch: float = 1.0,
) -> Callable:
    def forward(self: Any, x: Tensor) -> Tensor:
        net, x = self.source, self.hook_resid_pre(x)
        out = self.hook_act1(F.relu(net.bn1(net.conv1(x))))
        out = self.hook_act2(relu(net.bn2(net.conv2(out))))
        out = net.conv3(net.avgpool(out))
        out = self.hook_out(last_norm(net.bn3, out) if last_norm else net.bn3(out))
        way = shortcut(net, x) if shortcut else (net.downsample(x) if net.downsample else x)
        return self.hook_resid_post(F.relu(branch * out + way))

    return forward


def current_statistics(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


def half_a_downsample(net: Any, x: Tensor) -> Tensor:
    return x if net.downsample is None else net.downsample[1](net.downsample[0](x))


def no_shortcut(net: Any, x: Tensor) -> Tensor:
    return torch.zeros_like(x) if net.downsample is None else net.downsample(x)


BOTTLENECKS = {
    "relu missing": bottleneck(relu=lambda x: x),
    "running statistics ignored": bottleneck(last_norm=current_statistics),
    "downsample cut short": bottleneck(shortcut=half_a_downsample),
    "shortcut missing": bottleneck(shortcut=no_shortcut),
    "branch missing": bottleneck(branch=0.0),
}


def test_the_rewritten_bottleneck_is_right_when_nothing_is_changed(monkeypatch: Patch) -> None:
    monkeypatch.setattr(resnet.HookedBottleneck, "forward", bottleneck())
    assert rows(build(RESNET)).ok.all()


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_resnet_mutants_fail(name: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(resnet.HookedBottleneck, "forward", BOTTLENECKS[name])
    assert not rows(build(RESNET)).ok.all()


def test_a_fresh_resnet_hides_a_missing_branch(monkeypatch: Patch) -> None:
    """Why everything is moved off its initial value first."""
    monkeypatch.setattr(resnet.HookedBottleneck, "forward", BOTTLENECKS["branch missing"])
    model = build(RESNET).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(open_tower(model, "visual")(x), model.visual(x))


def test_pool_without_positions_fails(monkeypatch: Patch) -> None:
    old = resnet.HookedAttentionPool.forward

    def forward(self: Any, x: Tensor) -> Tensor:
        positions = self.source.positional_embedding
        keep = positions.data
        positions.data = torch.zeros_like(keep)
        try:
            return old(self, x)
        finally:
            positions.data = keep

    monkeypatch.setattr(resnet.HookedAttentionPool, "forward", forward)
    assert not rows(build(RESNET)).ok.all()


def test_pool_with_swapped_heads_fails(monkeypatch: Patch) -> None:
    monkeypatch.setattr(resnet, "merge_heads", lambda z: attention.merge_heads(z.flip(2)))
    assert not rows(build(RESNET)).ok.all()


# mutants of pooling by learned queries

QUERIES: Any = {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5}


def test_queries_with_swapped_heads_fail(monkeypatch: Patch) -> None:
    monkeypatch.setattr(vit, "merge_heads", lambda z: attention.merge_heads(z.flip(2)))
    assert not rows(build(VIT | QUERIES)).ok.all()


def test_keys_that_are_not_normalised_fail(monkeypatch: Patch) -> None:
    monkeypatch.setattr(vit, "HookedNorm", lambda source: nn.Identity())
    assert not rows(build(VIT | QUERIES)).ok.all()


def test_keys_and_values_exchanged_fail(monkeypatch: Patch) -> None:
    old = vit._weights
    monkeypatch.setattr(vit, "_weights", lambda attn: [old(attn)[n] for n in (0, 2, 1)])
    assert not rows(build(VIT | QUERIES)).ok.all()
