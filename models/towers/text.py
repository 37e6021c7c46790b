"""open_clip's text tower with hooks, on the CLIP model itself or in its `.text`."""

import torch
from einops import rearrange
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError
from interp.models.towers.block import HookedNorm
from interp.models.towers.transformer import TransformerTower, unsupported


class HookedText(TransformerTower):
    """open_clip's text transformer as a tower: tokens through blocks, pooled and projected.

    Args:
        source: The `TextTransformer`, or the `CLIP` that holds its parts.

    Notes:
        `tower(tokens)` is open_clip's `encode_text(tokens, normalize=False)`. Resuming from a
        stream needs the tokens again (`tower(stream, start_at_layer=l, tokens=tokens)`) if the
        embedding is read where the text ends, or padding is masked. A class token, where there is
        one, stands last.

    >>> text = TextTransformer(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
    >>> HookedText(text)(torch.ones(1, 8, dtype=torch.long)).shape
    torch.Size([1, 512])
    """

    label = "text"
    rereads_tokens = True

    def __init__(self, source: CLIP | TextTransformer) -> None:
        merged = isinstance(source, CLIP)
        super().__init__(source, foreign=("visual.", "logit_") if merged else ())
        self.pool_type = source.text_pool_type if merged else source.pool_type
        self.eos_id = getattr(source, "text_eos_id" if merged else "eos_id", None)
        self.class_token = getattr(source, "cls_emb", None) is not None
        self.pads = self.class_token or getattr(source, "use_pad_mask", False)
        if self.class_token:
            self.pool_type = "last"  # as open_clip: a class token overrides the pooling
        if self.pool_type not in ("first", "last", "argmax", "eos"):
            raise unsupported(
                f"pooling {self.pool_type!r}", "pooling 'argmax', 'eos', 'first' or 'last'"
            )
        self._open_blocks()
        self.ln_final = HookedNorm(source.ln_final)
        self.hook_pooled, self.hook_embedding = HookPoint(), HookPoint()
        self.setup()

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Whether a token attends only to itself and those before it."""
        return self.source.attn_mask is not None

    def original(self, x: Tensor) -> Tensor:
        """The embedding as open_clip itself computes it."""
        return self.source.encode_text(x) if isinstance(self.source, CLIP) else super().original(x)

    def _check_input(self, x: Tensor) -> None:
        check_tokens(x, length=self.source.context_length)

    def _embed(self, x: Tensor) -> Tensor:
        dtype = self.source.transformer.get_cast_dtype()
        tokens = self.source.token_embedding(x).to(dtype)
        if self.class_token:
            last = self.source.cls_emb.to(dtype).expand(len(x), 1, -1)
            tokens = torch.cat([tokens, last], dim=1)
        return self._add_positions(tokens)

    def _context(self, stream: Tensor, tokens: Tensor | None) -> tuple[Tensor | None]:
        mask = self.source.attn_mask
        mask = None if mask is None else mask.to(stream.dtype)
        if not self.pads:
            return (mask,)
        padding = self.source._build_additive_mask(
            self._need(tokens, stream), stream.shape[1], stream.dtype
        )
        padding = rearrange(
            padding, "(batch head) query key -> batch head query key", batch=len(stream)
        )
        return (padding if mask is None else mask + padding,)

    def _read_out(self, stream: Tensor, tokens: Tensor | None) -> Tensor:
        if self.class_token:
            return self._project(self.ln_final(stream[:, -1:]).squeeze(1))
        return self._project(self._pool(self.ln_final(stream), tokens))

    def _pool(self, stream: Tensor, tokens: Tensor | None) -> Tensor:
        if self.pool_type in ("argmax", "eos"):
            tokens = self._need(tokens, stream)
        return text_global_pool(stream, tokens, pool_type=self.pool_type, eos_token_id=self.eos_id)

    def _read_at(self, stream: Tensor, tokens: Tensor | None) -> Tensor:
        places = torch.arange(stream.shape[1], device=stream.device)
        return self._pool(places.expand(len(stream), -1), tokens)

    def _project(self, pooled: Tensor) -> Tensor:
        pooled, project = self.hook_pooled(pooled), self.source.text_projection
        if project is None:
            return self.hook_embedding(pooled)
        return self.hook_embedding(
            project(pooled) if isinstance(project, nn.Linear) else pooled @ project
        )

    def _need(self, tokens: Tensor | None, stream: Tensor) -> Tensor:
        if tokens is None or len(tokens) != len(stream):
            given = "no tokens" if tokens is None else f"{len(tokens)} rows of tokens"
            shown = f"{given} for {len(stream)} streams"
            right = "a row of tokens for every stream, to know where each text ends"
            raise ShapeError("resume a text tower", shown, right, "pass tokens=")
        return tokens


def check_tokens(x: Tensor, *, length: int, fewer: bool = False) -> None:
    """Refuse what is no batch of texts of this length, or of this length or fewer.

    Args:
        x: What was given.
        length: The context length.
        fewer: Whether shorter texts are allowed.

    Raises:
        ShapeError: For another shape or number format.
    """
    fits = isinstance(x, Tensor) and x.ndim == 2 and 0 < x.shape[1] <= length
    if not fits or (x.shape[1] < length and not fewer):
        given = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        right = f"token numbers of shape (batch, {'up to ' if fewer else ''}{length})"
        raise ShapeError("embed a text", given, right, "use the model's own tokenizer")
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        shown = f"numbers of type {x.dtype}"
        raise ShapeError("embed a text", shown, "whole numbers", "use the model's own tokenizer")
