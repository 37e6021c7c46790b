"""The mutants: towers with one thing wrong, each of which the certificate must fail."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.towers import attention, block, resnet, text, vit
from tests.models.certificate.test_certify import RESNET, VIT, build, rows
from tests.models.moved import QUERIES

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch
Mutate = Callable[[Patch], None]
IMAGES, WORDS = VIT | {"layers": 1}, {"layers": 1}
# the second block of a stage has no downsample: only there can a plain shortcut be missing
MAPS = RESNET | {"image_size": 32}


def passes(vision: Any = IMAGES, which: str = "visual", **more: Any) -> bool:
    return bool(rows(build(vision, WORDS, **more), which).ok.all())


def drop_output_bias(patch: Patch) -> None:
    old = attention.HookedAttention.forward

    def forward(self: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return old(self, x, mask) - self.b_O

    patch.setattr(attention.HookedAttention, "forward", forward)


def drop_query_bias(patch: Patch) -> None:
    old = attention.in_projection

    def without(x: Tensor, weight: Tensor, bias: Tensor, *, n_heads: int) -> Any:
        keep = torch.ones_like(bias)
        keep[: len(bias) // 3] = 0
        return old(x, weight, bias * keep, n_heads=n_heads)

    patch.setattr(attention, "in_projection", without)


def drop_neuron_bias(patch: Patch) -> None:
    old = block.HookedMLP.forward
    patch.setattr(block.HookedMLP, "forward", lambda self, x: old(self, x) - self.b_out)


def skip_residual(patch: Patch) -> None:
    def forward(self: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(self.hook_attn_out(self.attn(self.ln1(x), mask)))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(self.ln2(x))))

    patch.setattr(block.HookedBlock, "forward", forward)


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

    patch.setattr(block.HookedMLP, "forward", forward)


def sample_variance(patch: Patch) -> None:
    old = block.HookedNorm.forward

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.hook_scale.has_hooks():
            return old(self, x)
        scale = self.hook_scale((x.var(dim=-1, keepdim=True) + self.source.eps).sqrt())
        return self.hook_normalized((x - x.mean(-1, keepdim=True)) / scale) * self.w + self.b

    patch.setattr(block.HookedNorm, "forward", forward)


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


def no_mask(patch: Patch) -> None:
    patch.setattr(text.HookedText, "_context", lambda self, stream, tokens: (None,))


def read_at_the_last_place(patch: Patch) -> None:
    def read_out(self: Any, stream: Tensor, tokens: Tensor) -> Tensor:
        pooled = self.hook_pooled(self.ln_final(stream)[:, -1])
        return self.hook_embedding(pooled @ self.source.text_projection)

    patch.setattr(text.HookedText, "_read_out", read_out)


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


def bottleneck_with(forward: Callable) -> Mutate:
    return lambda patch: patch.setattr(resnet.HookedBottleneck, "forward", forward)


def pool_without_positions(patch: Patch) -> None:
    old = resnet.HookedAttentionPool.forward

    def forward(self: Any, x: Tensor) -> Tensor:
        positions = self.source.positional_embedding
        keep = positions.data
        positions.data = torch.zeros_like(keep)
        try:
            return old(self, x)
        finally:
            positions.data = keep

    patch.setattr(resnet.HookedAttentionPool, "forward", forward)


def swapped_before_merging(module: Any) -> Mutate:
    merge = attention.merge_heads
    return lambda patch: patch.setattr(module, "merge_heads", lambda z: merge(z.flip(2)))


def keys_without_norm(patch: Patch) -> None:
    patch.setattr(vit, "HookedNorm", lambda source: nn.Identity())


def keys_and_values_exchanged(patch: Patch) -> None:
    old = vit._weights
    patch.setattr(vit, "_weights", lambda attn: [old(attn)[n] for n in (0, 2, 1)])


OF_BLOCKS = (
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
POOLED = IMAGES | QUERIES
MUTANTS: dict[str, tuple[Any, str, Mutate]] = {
    **{f"vit, {each.__name__}": (IMAGES, "visual", each) for each in OF_BLOCKS},
    **{f"text, {each.__name__}": (IMAGES, "text", each) for each in OF_BLOCKS},
    "vit, no positions": (IMAGES, "visual", no_positions),
    "vit, mean pooling": (IMAGES, "visual", mean_pooling),
    "text, no mask": (IMAGES, "text", no_mask),
    "text, not read at its end": (IMAGES, "text", read_at_the_last_place),
    **{name: (MAPS, "visual", bottleneck_with(each)) for name, each in BOTTLENECKS.items()},
    "pool without positions": (MAPS, "visual", pool_without_positions),
    "pool with swapped heads": (MAPS, "visual", swapped_before_merging(resnet)),
    "queries with swapped heads": (POOLED, "visual", swapped_before_merging(vit)),
    "keys without norm": (POOLED, "visual", keys_without_norm),
    "keys and values exchanged": (POOLED, "visual", keys_and_values_exchanged),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_fail(name: str, monkeypatch: Patch) -> None:
    vision, which, mutate = MUTANTS[name]
    mutate(monkeypatch)
    assert not passes(vision, which)


def test_what_is_no_mutant_passes(monkeypatch: Patch) -> None:
    bottleneck_with(bottleneck())(monkeypatch)
    assert passes(MAPS)
    other_gelu(monkeypatch)
    assert passes(quick_gelu=True)
