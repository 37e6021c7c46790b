"""Multi-head attention in separate steps, and a module with a hook at each step.

open_clip's blocks hold a fused `nn.MultiheadAttention` whose intermediate values cannot be read.
Everything here is computed from that module's own weights.
"""

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.towers.checked_hooks import with_hooks
from interp.models.towers.hooked import share

Heads = Float[Tensor, "batch pos head d_head"]
Mask = Float[Tensor, "*shape query key"] | None
"""Added to the scores; broadcasts against `batch head query key`."""


def split_heads(x: Float[Tensor, "batch pos d_model"], *, n_heads: int) -> Heads:
    """Split the last axis into heads."""
    return rearrange(x, "batch pos (head d_head) -> batch pos head d_head", head=n_heads)


def merge_heads(z: Heads) -> Float[Tensor, "batch pos d_model"]:
    """Concatenate the heads again."""
    return rearrange(z, "batch pos head d_head -> batch pos (head d_head)")


def in_projection(
    x: Float[Tensor, "batch pos d_model"],
    weight: Float[Tensor, "d_qkv d_model"],
    bias: Float[Tensor, "d_qkv"] | None,
    *,
    n_heads: int,
) -> tuple[Heads, Heads, Heads]:
    """Queries, keys and values from the fused weight, where they are stacked in this order.

    Args:
        x: The normalised stream.
        weight: The fused weight.
        bias: The fused bias, or None.
        n_heads: Number of heads.

    Returns:
        q, k and v.
    """
    q, k, v = rearrange(
        F.linear(x, weight, bias),
        "batch pos (part head d_head) -> part batch pos head d_head",
        part=3,
        head=n_heads,
    )
    return q, k, v


def attention_scores(
    q: Float[Tensor, "batch query head d_head"],
    k: Float[Tensor, "batch key head d_head"],
    mask: Mask,
) -> Float[Tensor, "batch head query key"]:
    r"""Attention scores $q \cdot k / \sqrt{d_\mathrm{head}}$, plus the mask.

    Args:
        q: Queries.
        k: Keys.
        mask: Added to the scores; None adds nothing.

    Returns:
        Scores before the softmax.
    """
    scores = einsum(
        q / sqrt(q.shape[-1]),
        k,
        "batch query head d_head, batch key head d_head -> batch head query key",
    )
    return scores if mask is None else scores + mask


def mix_values(
    pattern: Float[Tensor, "batch head query key"], v: Float[Tensor, "batch key head d_head"]
) -> Float[Tensor, "batch query head d_head"]:
    """Average the values by each row of the pattern."""
    return einsum(
        pattern, v, "batch head query key, batch key head d_head -> batch query head d_head"
    )


def fused_attention(
    q: Float[Tensor, "batch query head d_head"],
    k: Float[Tensor, "batch key head d_head"],
    v: Float[Tensor, "batch key head d_head"],
    mask: Mask,
) -> Float[Tensor, "batch query head d_head"]:
    """Compute z in one kernel that never stores the pattern.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: Added to the scores; None adds nothing.

    Returns:
        z, the same as softmax of `attention_scores` and `mix_values`.
    """
    z = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask
    )
    return z.transpose(1, 2)


def head_results(
    z: Heads, w_o: Float[Tensor, "head d_head d_model"]
) -> Float[Tensor, "batch pos head d_model"]:
    """What each head adds to the stream; the output bias belongs to no head."""
    return einsum(z, w_o, "batch pos head d_head, head d_head d_model -> batch pos head d_model")


def attend(
    q: Float[Tensor, "batch query head d_head"],
    k: Float[Tensor, "batch key head d_head"],
    v: Float[Tensor, "batch key head d_head"],
    mask: Mask,
    *,
    at_scores: HookPoint,
    at_pattern: HookPoint,
) -> Float[Tensor, "batch query head d_head"]:
    """Compute z, step by step where the scores or the pattern are hooked, and fused otherwise.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: Added to the scores; None adds nothing.
        at_scores: Hook point of the scores.
        at_pattern: Hook point of the pattern.

    Returns:
        z.
    """
    if not with_hooks(at_scores, at_pattern):
        return fused_attention(q, k, v, mask)
    scores = at_scores(attention_scores(q, k, mask))
    return mix_values(at_pattern(torch.softmax(scores, dim=-1)), v)


def mask_at(
    mask: Mask, place: Int[Tensor, "batch"]
) -> Float[Tensor, "batch head_or_1 1 key"] | None:
    """The mask of one query of each example.

    Args:
        mask: A mask for all queries, or None.
        place: The query's position in each example.

    Returns:
        A mask that broadcasts against scores with one query.
    """
    if mask is None:
        return None
    if mask.ndim == 2:
        return mask[place][:, None, None]
    return mask[torch.arange(len(place), device=place.device), :, place][:, :, None]


class HookedAttention(nn.Module):
    """The self-attention of a block, with the LayerScale that may follow it.

    Args:
        source: The open_clip block.

    Notes:
        `hook_result` is what a head adds to the residual stream, LayerScale included, so the heads'
        results and `b_O` always sum to the block's `hook_attn_out`.
    """

    source: ResidualAttentionBlock

    def __init__(self, source: ResidualAttentionBlock) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], mask: Mask = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the heads write, given the normalised stream.

        Args:
            x: The normalised stream.
            mask: Added to the scores; None adds nothing.

        Returns:
            The block's `hook_attn_out`.
        """
        attn = self.source.attn
        points: Any = self._modules.values()
        one_mask = mask is None or mask.ndim == 2  # for all heads and examples
        if one_mask and not (torch.is_grad_enabled() or with_hooks(*points)):
            # without gradients torch has one kernel for all of it: open_clip's result to the bit
            return self.source.ls_1(attn(x, x, x, need_weights=False, attn_mask=mask)[0])
        q, k, v = in_projection(x, attn.in_proj_weight, attn.in_proj_bias, n_heads=attn.num_heads)
        z = self.hook_z(
            attend(
                self.hook_q(q),
                self.hook_k(k),
                self.hook_v(v),
                mask,
                at_scores=self.hook_attn_scores,
                at_pattern=self.hook_pattern,
            )
        )
        return self.write(z)

    def write(self, z: Heads) -> Float[Tensor, "batch pos d_model"]:
        """What the heads write, given the values that they mixed."""
        if with_hooks(self.hook_result):
            return self.hook_result(head_results(z, self.W_O)).sum(dim=-2) + self.b_O
        return self.source.ls_1(self.source.attn.out_proj(merge_heads(z)))

    def at(
        self, x: Float[Tensor, "batch pos d_model"], place: Int[Tensor, "batch"], mask: Mask = None
    ) -> Float[Tensor, "batch one d_model"]:
        """What the heads write at one position of each example, the same as that row of `forward`.

        Args:
            x: The normalised stream.
            place: The position in each example.
            mask: Added to the scores; None adds nothing.

        Returns:
            The output at that position.

        Notes:
            Keys and values are computed at all positions and may be hooked. What depends on the
            query has one position, so hooks there would see another shape than they expect.
        """
        attn, rows = self.source.attn, torch.arange(len(x), device=x.device)
        width, bias = attn.embed_dim, attn.in_proj_bias
        b_q, b_kv = (None, None) if bias is None else (bias[:width], bias[width:])
        asked = F.linear(x[rows, place][:, None], attn.in_proj_weight[:width], b_q)
        q = split_heads(asked, n_heads=attn.num_heads)
        k, v = rearrange(
            F.linear(x, attn.in_proj_weight[width:], b_kv),
            "batch pos (part head d_head) -> part batch pos head d_head",
            part=2,
            head=attn.num_heads,
        )
        z = fused_attention(q, self.hook_k(k), self.hook_v(v), mask_at(mask, place))
        return self.source.ls_1(attn.out_proj(merge_heads(z)))

    def _in_weight(self, part: int) -> Float[Tensor, "head d_model d_head"]:
        weight = self.source.attn.in_proj_weight.chunk(3)[part]
        return rearrange(
            weight, "(head d_head) d_model -> head d_model d_head", head=self.source.attn.num_heads
        )

    def _in_bias(self, part: int) -> Float[Tensor, "head d_head"]:
        attn = self.source.attn
        return attn.in_proj_bias.chunk(3)[part].unflatten(0, (attn.num_heads, -1))

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """The query weights, one matrix a head, in TransformerLens's layout."""
        return self._in_weight(0)

    @property
    def W_K(self) -> Float[Tensor, "head d_model d_head"]:
        """The key weights."""
        return self._in_weight(1)

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        """The value weights."""
        return self._in_weight(2)

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        """The query biases."""
        return self._in_bias(0)

    @property
    def b_K(self) -> Float[Tensor, "head d_head"]:
        """The key biases."""
        return self._in_bias(1)

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:
        """The value biases."""
        return self._in_bias(2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """The output weights, LayerScale included: what carries z into the stream."""
        weight = rearrange(
            self.source.attn.out_proj.weight,
            "d_model (head d_head) -> head d_head d_model",
            head=self.source.attn.num_heads,
        )
        return self.source.ls_1(weight)

    @property
    def b_O(self) -> Float[Tensor, "d_model"]:
        """The output bias, LayerScale included."""
        return self.source.ls_1(self.source.attn.out_proj.bias)
