"""Pooling by learned queries that attend to the tokens (CoCa's image tower), with hooks."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.towers.attention import attend, merge_heads, split_heads
from interp.models.towers.hooked import share
from interp.models.towers.transformer import HookedNorm


class HookedQueries(nn.Module):
    """open_clip's `AttentionalPooler`: learned queries attend to the normalised tokens.

    Args:
        source: The `AttentionalPooler`.

    Notes:
        Sites have as many query positions as there are queries; the model may use only the first.
    """

    source: Any

    def __init__(self, source: Any) -> None:
        super().__init__()
        share(self, source=source)
        self.ln_k = HookedNorm(source.ln_k)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z = HookPoint()

    def forward(
        self, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch query width"]:
        """What each query reads from the tokens."""
        attn, tokens = self.source.attn, self.ln_k(stream)
        asked = self.source.ln_q(self.source.query).expand(len(tokens), -1, -1)
        q, k, v = (
            split_heads(F.linear(x, weight, bias), n_heads=attn.num_heads)
            for x, weight, bias in zip(
                (asked, tokens, tokens), _weights(attn), attn.in_proj_bias.chunk(3), strict=True
            )
        )
        z = attend(
            self.hook_q(q),
            self.hook_k(k),
            self.hook_v(v),
            None,
            at_scores=self.hook_attn_scores,
            at_pattern=self.hook_pattern,
        )
        return attn.out_proj(merge_heads(self.hook_z(z)))

    @property
    def W_V(self) -> Float[Tensor, "head d_model d_head"]:
        """The value weights, one matrix a head."""
        attn = self.source.attn
        return rearrange(
            _weights(attn)[2], "(head d_head) d_model -> head d_model d_head", head=attn.num_heads
        )

    @property
    def b_V(self) -> Float[Tensor, "head d_head"]:
        """The value biases."""
        return self.source.attn.in_proj_bias.chunk(3)[2].unflatten(
            0, (self.source.attn.num_heads, -1)
        )

    @property
    def W_O(self) -> Float[Tensor, "head d_head width"]:
        """The output weights, from z to the pooled vector."""
        attn = self.source.attn
        return rearrange(
            attn.out_proj.weight, "width (head d_head) -> head d_head width", head=attn.num_heads
        )


def _weights(attn: nn.MultiheadAttention) -> Sequence[Tensor]:
    """The weights of queries, keys and values, which PyTorch fuses where their shapes allow."""
    if attn.in_proj_weight is not None:
        return attn.in_proj_weight.chunk(3)
    return attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight
