"""open_clip's VisionTransformer with hooks."""

import torch
from einops import rearrange
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError
from interp.models.towers.pooling import HookedQueries
from interp.models.towers.transformer import HookedNorm, TransformerTower, unsupported


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
