"""open_clip's VisionTransformer with hooks, and its pooling by learned queries (CoCa)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from open_clip.transformer import AttentionalPooler, VisionTransformer
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError
from interp.models.towers.attention import attend, merge_heads, split_heads
from interp.models.towers.block import HookedNorm
from interp.models.towers.hooked import share
from interp.models.towers.transformer import TransformerTower, unsupported


class HookedQueries(nn.Module):
    """open_clip's `AttentionalPooler`: learned queries attend to the normalised tokens.

    Args:
        source: The `AttentionalPooler`.

    Notes:
        Sites have as many query positions as there are queries; the model may use only the first.
    """

    source: AttentionalPooler

    def __init__(self, source: AttentionalPooler) -> None:
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
        attn = self.source.attn
        return attn.in_proj_bias.chunk(3)[2].unflatten(0, (attn.num_heads, -1))

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


class HookedViT(TransformerTower):
    """open_clip's VisionTransformer as a tower: patches and a class token, pooled and projected.

    Args:
        source: The `VisionTransformer`.

    Notes:
        `tower(pictures)` is open_clip's `encode_image(pictures, normalize=False)`. `hook_embed` is
        the class token and the patches before their positions are added. `ln_final` is open_clip's
        `ln_post`; where a model pools first and normalises afterwards, its sites have a `pos` axis
        of length 1. Where learned queries pool (CoCa), their attention has `attnpool`'s sites, and
        `ln_final` has their number of positions. `hook_pooled` is the input of the last projection.

    >>> import open_clip
    >>> model = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    >>> tower = HookedViT(model.visual)
    >>> tower.n_layers, tower(torch.zeros(1, 3, 64, 64)).shape
    (12, torch.Size([1, 256]))
    """

    label = "visual"

    def __init__(self, source: VisionTransformer) -> None:
        if source.attn_pool is not None and source.attn_pool_contrastive is not None:
            raise unsupported("two attentional pools", "one, or none")
        if source.pool_type not in ("tok", "avg"):
            raise unsupported(f"pooling {source.pool_type!r}", "pooling 'tok' or 'avg'")
        super().__init__(source)
        plain = isinstance(source.ln_pre, nn.Identity)
        self.ln_pre = nn.Identity() if plain else HookedNorm(source.ln_pre)
        self._open_blocks()
        self.attnpool = None if source.attn_pool is None else HookedQueries(source.attn_pool)
        self.ln_final = HookedNorm(source.ln_post)
        self.hook_pooled, self.hook_embedding = HookPoint(), HookPoint()
        self.setup()

    def _check_input(self, x: Tensor) -> None:
        check_pictures(x, size=self.source.image_size)

    def _n_ctx(self, stream: Tensor) -> int:
        if self.source.patch_dropout.training and stream.ndim == 3:
            return stream.shape[1]  # patch dropout leaves fewer positions
        return super()._n_ctx(stream)

    def _embed(self, x: Tensor) -> Tensor:
        source = self.source
        patches = rearrange(
            source.conv1(x), "batch d_model row column -> batch (row column) d_model"
        )
        first = source.class_embedding.to(patches.dtype).expand(len(x), 1, -1)
        full = self._add_positions(torch.cat([first, patches], dim=1))
        return self.ln_pre(source.patch_dropout(full))

    def _context(self, stream: Tensor, tokens: Tensor | None) -> tuple[()]:
        return ()

    def _read_out(self, stream: Tensor, tokens: Tensor | None) -> Tensor:
        if self.attnpool is not None:
            stream = self.attnpool(stream)
        if self.attnpool is None and self.source.final_ln_after_pool:
            pooled = self.ln_final(self._pool(stream)).squeeze(1)
        else:
            pooled = self._pool(self.ln_final(stream)).squeeze(1)
        return self._project(pooled)

    def _read_at(self, stream: Tensor, tokens: Tensor | None) -> Tensor | None:
        if self.attnpool is not None or self.source.pool_type != "tok":
            return None
        return torch.zeros(len(stream), dtype=torch.long, device=stream.device)

    def _project(self, pooled: Tensor) -> Tensor:
        pooled, project = self.hook_pooled(pooled), self.source.proj
        return self.hook_embedding(pooled if project is None else pooled @ project)

    def _pool(self, stream: Tensor) -> Tensor:
        if self.source.pool_type == "avg":
            return stream[:, 1:].mean(dim=1, keepdim=True)
        return stream[:, :1]


def check_pictures(x: Tensor, *, size: tuple[int, int]) -> None:
    """Refuse what is no batch of colour pictures of this size.

    Args:
        x: What was given.
        size: (rows, columns).

    Raises:
        ShapeError: For another shape or number format.
    """
    right = (3, *size)
    if not isinstance(x, Tensor) or x.ndim != 4 or tuple(x.shape[1:]) != right:
        given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        asked = "embed pictures"
        wanted = f"a tensor of shape (batch, {right[0]}, {right[1]}, {right[2]})"
        raise ShapeError(asked, given, wanted, "resize them with the model's own transform")
    if not x.is_floating_point():
        shown = f"numbers of type {x.dtype}"
        do = "scale and normalise them with the model's own transform"
        raise ShapeError("embed pictures", shown, "floating-point numbers", do)
