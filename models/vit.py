"""open_clip's VisionTransformer, hooked."""

import torch
from einops import rearrange
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError
from interp.models.hooked import HookedTower, hooked
from interp.models.transformer import (
    HookedNorm,
    check_resid,
    open_blocks,
    open_config,
    unsupported,
)


class HookedViT(HookedTower):
    """A picture's patches and a class token, through the blocks, pooled and projected.

    `tower(pictures)` is open_clip's `encode_image(pictures, normalize=False)`. `hook_embed` is the
    class token and the patches before their positions are added; `ln_final` is what open_clip
    calls `ln_post`; where a model pools first and normalises afterwards, `ln_final`'s sites have
    a `pos` axis of length 1. `hook_pooled` is the vector that the last projection reads.
    """

    label = "visual"

    def __init__(self, source: VisionTransformer) -> None:
        if source.attn_pool is not None:
            raise unsupported("attentional pooling", "pooling by the class token or the mean")
        if source.pool_type not in ("tok", "avg"):
            raise unsupported(f"pooling {source.pool_type!r}", "pooling 'tok' or 'avg'")
        super().__init__(source)
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self.hook_full_embed = HookPoint()
        self.ln_pre = (
            nn.Identity() if isinstance(source.ln_pre, nn.Identity) else HookedNorm(source.ln_pre)
        )
        self.blocks = open_blocks(source.transformer)
        self.ln_final = HookedNorm(source.ln_post)
        self.hook_pooled, self.hook_embedding = HookPoint(), HookPoint()
        self.setup()

    @property
    def chain(self) -> list[nn.Module]:
        """The blocks in order."""
        return list(self.blocks)

    @property
    def cfg(self) -> TransformerBridgeConfig:
        """The tower in TransformerLens's terms."""
        return open_config(
            self.source.transformer,
            causal=False,
            vision=True,
            n_ctx=self.source.positional_embedding.shape[0],
        )

    def original(self, x: Tensor) -> Tensor:
        """The embedding as open_clip itself computes it."""
        answer = self.source(x)
        return answer[0] if isinstance(answer, tuple) else answer

    def _check_input(self, x: Tensor) -> None:
        check_pictures(x, size=self.source.image_size)

    def _check_stream(self, stream: Tensor, layer: int) -> None:
        n_ctx, d_model = self.source.positional_embedding.shape
        if self.source.patch_dropout.training and stream.ndim == 3:
            n_ctx = stream.shape[1]  # patch dropout leaves fewer positions
        check_resid(stream, n_ctx=n_ctx, d_model=d_model)

    def _embed(self, x: Tensor) -> Tensor:
        source = self.source
        patches = rearrange(
            source.conv1(x), "batch d_model row column -> batch (row column) d_model"
        )
        first = source.class_embedding.to(patches.dtype).expand(len(x), 1, -1)
        tokens = self.hook_embed(torch.cat([first, patches], dim=1))
        where = source.positional_embedding.to(tokens.dtype).expand_as(tokens)
        # a hook may write in place, and must not write into the parameter
        where = where.clone() if hooked(self.hook_pos_embed) else where
        full = self.hook_full_embed(tokens + self.hook_pos_embed(where))
        return self.ln_pre(source.patch_dropout(full))

    def _context(self, stream: Tensor, tokens: Tensor | None) -> tuple[()]:
        return ()

    def _read_out(self, stream: Tensor, tokens: Tensor | None) -> Tensor:
        if self.source.final_ln_after_pool:
            pooled = self.ln_final(self._pool(stream)).squeeze(1)
        else:
            pooled = self._pool(self.ln_final(stream)).squeeze(1)
        pooled = self.hook_pooled(pooled)
        return self.hook_embedding(
            pooled if self.source.proj is None else pooled @ self.source.proj
        )

    def _pool(self, stream: Tensor) -> Tensor:
        if self.source.pool_type == "avg":
            return stream[:, 1:].mean(dim=1, keepdim=True)
        return stream[:, :1]


def check_pictures(x: Tensor, *, size: tuple[int, int]) -> None:
    """Refuse what is no batch of colour pictures of this size."""
    right = (3, *size)
    if not isinstance(x, Tensor) or x.ndim != 4 or tuple(x.shape[1:]) != right:
        given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(
            "embed pictures",
            given,
            f"a tensor of shape (batch, {right[0]}, {right[1]}, {right[2]})",
            "resize them with the model's own transform",
        )
    if not x.is_floating_point():
        raise ShapeError(
            "embed pictures",
            f"numbers of type {x.dtype}",
            "floating-point numbers",
            "scale and normalise them with the model's own transform",
        )
