"""CLIP's two transformer towers as chains of blocks, with their activations named."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from open_clip.model import CLIP
from open_clip.transformer import (
    QuickGELU,
    ResidualAttentionBlock,
    TextTransformer,
    VisionTransformer,
)
from torch import Tensor, nn
from transformer_lens import FactoredMatrix
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint

from interp.core.errors import ShapeError, SiteError, SpecificationError, listed
from interp.models.towers.block import (
    ADDED_TO,
    SEEN_WHOLE,
    Heads,
    HookedBlock,
    HookedNorm,
    Perceptron,
    components_of,
)
from interp.models.towers.checked_hooks import with_hooks
from interp.models.towers.hooked import HookedTower


class TransformerTower(HookedTower):
    """A chain of transformer blocks over tokens at learned positions.

    Args:
        source: The open_clip transformer.
        foreign: Beginnings of names in `source` that belong to the other tower.
    """

    def __init__(
        self, source: CLIP | TextTransformer | VisionTransformer, *, foreign: tuple[str, ...] = ()
    ) -> None:
        for block in source.transformer.resblocks:
            if type(block) is not ResidualAttentionBlock:
                raise unsupported(
                    f"blocks of type {type(block).__name__}", "ResidualAttentionBlock"
                )
        super().__init__(source, foreign=foreign)
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self.hook_full_embed = HookPoint()

    ln_final: HookedNorm

    def _open_blocks(self) -> None:
        """Register the blocks; what comes before them in a run must be registered before."""
        self.blocks = nn.ModuleList(HookedBlock(b) for b in self.source.transformer.resblocks)

    @property
    def chain(self) -> list[nn.Module]:
        """The blocks in order."""
        return list(self.blocks)

    @property
    def components(self) -> list[Heads | Perceptron]:
        """The heads and MLPs that read the stream and add to it, for circuits."""
        return components_of(self)

    def _stacked(self, name: str, part: str = "attn") -> Tensor:
        return torch.stack([getattr(getattr(block, part), name) for block in self.blocks])

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """From the normalised stream to queries, of every block."""
        return self._stacked("W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer head d_model d_head"]:
        """From the normalised stream to keys, of every block."""
        return self._stacked("W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer head d_model d_head"]:
        """From the normalised stream to values, of every block."""
        return self._stacked("W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """From a head's mixture of values to the stream, of every block."""
        return self._stacked("W_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """From the normalised stream to neurons, of every block."""
        return self._stacked("W_in", "mlp")

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """From neurons to the stream, of every block."""
        return self._stacked("W_out", "mlp")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """The biases of queries, of every block."""
        return self._stacked("b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """The biases of keys, of every block."""
        return self._stacked("b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """The biases of values, of every block."""
        return self._stacked("b_V")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """What attention adds to the stream whatever the heads do, of every block."""
        return self._stacked("b_O")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """The neurons' biases, of every block."""
        return self._stacked("b_in", "mlp")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """What an MLP adds to the stream whatever its neurons do, of every block."""
        return self._stacked("b_out", "mlp")

    @property
    def QK(self) -> FactoredMatrix:
        """What a head attends to: `W_Q W_K^T`, layer by head, never multiplied out."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """What a head moves: `W_V W_O`, layer by head, never multiplied out."""
        return FactoredMatrix(self.W_V, self.W_O)

    @property
    def cfg(self) -> TransformerBridgeConfig:
        """The tower in TransformerLens's terms."""
        n_ctx, d_model = self.source.positional_embedding.shape
        block = self.source.transformer.resblocks[0]
        weight, gelu = block.attn.in_proj_weight, block.mlp.gelu
        plain = "gelu_pytorch_tanh" if getattr(gelu, "approximate", "") == "tanh" else "gelu"
        return TransformerBridgeConfig(
            d_model=d_model,
            d_head=d_model // block.attn.num_heads,
            n_layers=self.n_layers,
            n_ctx=n_ctx,
            n_heads=block.attn.num_heads,
            d_mlp=block.mlp.c_fc.out_features,
            d_vocab=-1,
            eps=block.ln_1.eps,
            act_fn="quick_gelu" if isinstance(gelu, QuickGELU) else plain,
            normalization_type="LN",
            attention_dir="causal" if self.causal else "bidirectional",
            is_visual_model=self.label == "visual",
            device=str(weight.device),
            dtype=weight.dtype,
        )

    causal: bool = False
    """Whether a token sees only those before it."""

    def original(self, x: Tensor) -> Tensor:
        """The embedding as open_clip itself computes it."""
        answer = self.source(x)
        return answer[0] if isinstance(answer, tuple) else answer

    @abstractmethod
    def _read_at(self, stream: Tensor, tokens: Tensor | None) -> Tensor | None:
        """The position that the embedding is read off, by example; None if there are several."""

    @abstractmethod
    def _project(self, pooled: Float[Tensor, "batch d_model"]) -> Tensor:
        """The embedding, from the pooled and normalised vector."""

    def finish(
        self, stream: Tensor, *, start_at_layer: int, tokens: Tensor | None = None
    ) -> Tensor:
        """The embedding of `tower(stream, start_at_layer=l)`, with less work in the last block.

        Args:
            stream: The stream that enters block `start_at_layer`.
            start_at_layer: The block.
            tokens: The tokens, in a text tower.

        Returns:
            The embedding, equal up to the order of sums.

        Notes:
            Where the embedding is read off one position (a class token, the end of a text), the
            last block computes keys and values everywhere, but queries, heads and neurons only
            there. Where a hook or listener would miss something, the block runs in full.
        """
        last = self.n_layers - 1
        whole = not 0 <= start_at_layer <= last or with_hooks(*self._left_out())
        position = None if whole else self._read_at(stream, tokens)
        if position is None:
            return self(stream, start_at_layer=start_at_layer, tokens=tokens)
        if start_at_layer < last:
            stream = self(stream, start_at_layer=start_at_layer, stop_at_layer=last, tokens=tokens)
        else:
            self._check_stream(stream, last)
            self._forwards += 1
        block: Any = self.blocks[last]
        token = block.at(stream, position, *self._context(stream, tokens))
        return self._project(self.ln_final(token).squeeze(1))

    def added_to(self, site: str) -> str | None:
        """The stream that a block adds a site to, where a run can go on from both; see `enter`."""
        at = self.layer(site)
        if not 0 <= at < self.n_layers:
            return None
        block = f"blocks.{at}."
        stream = ADDED_TO.get(site.removeprefix(block))
        return None if stream is None else block + stream

    def enter(
        self, site: str, activation: Tensor, stream: Tensor, *, tokens: Tensor | None = None
    ) -> Tensor:
        """The embedding of a run whose activation at `site` is given: what comes before is not run.

        Args:
            site: A site that `added_to` knows.
            activation: The activation there, `[batch pos ...]`.
            stream: The stream that the block adds it to: the activation at `added_to(site)`.
            tokens: The tokens, in a text tower.

        Returns:
            The embedding, equal up to the order of sums.

        Raises:
            SiteError: For another site.
        """
        if self.added_to(site) is None:
            asked = f"enter a block at {site}"
            given = "a site behind which positions are mixed, or outside the blocks"
            right = f"one of {listed(ADDED_TO, limit=6)} of a block"
            raise SiteError(asked, given, right, "begin before the block, with start_at_layer")
        at, last = self.layer(site), self.n_layers - 1
        name = site.removeprefix(f"blocks.{at}.")
        block: Any = self.blocks[at]
        position = None if with_hooks(*self._left_out()) else self._read_at(stream, tokens)
        if at < last or position is None:
            stream = block.enter(name, activation, stream)
            return self.finish(stream, start_at_layer=at + 1, tokens=tokens)
        self._forwards += 1
        rows = torch.arange(len(stream), device=stream.device)
        here = (one[rows, position][:, None] for one in (activation, stream))
        return self._project(self.ln_final(block.enter(name, *here)).squeeze(1))

    def _left_out(self) -> list[HookPoint]:
        """The hook points that `finish` would skip, or show at one position only."""
        ahead = f"blocks.{self.n_layers - 1}."
        return [
            point
            for site, point in self.hook_dict.items()
            if (site.startswith(ahead) and site.removeprefix(ahead) not in SEEN_WHOLE)
            or site.startswith("ln_final.")
        ]

    def _n_ctx(self, stream: Tensor) -> int:
        return self.source.positional_embedding.shape[0]

    def _check_stream(self, stream: Tensor, layer: int) -> None:
        right = (self._n_ctx(stream), self.source.positional_embedding.shape[1])
        if stream.ndim != 3 or tuple(stream.shape[1:]) != right:
            asked = "resume from a residual stream"
            given = f"shape {tuple(stream.shape)}"
            wanted = f"(batch, {right[0]}, {right[1]})"
            raise ShapeError(asked, given, wanted, "pass what stop_at_layer or hook_resid_pre gave")

    def _add_positions(
        self, tokens: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        tokens = self.hook_embed(tokens)
        where = self.source.positional_embedding.to(tokens.dtype).expand_as(tokens)
        # a hook may write in place, and must not write into the parameter
        where = where.clone() if with_hooks(self.hook_pos_embed) else where
        return self.hook_full_embed(tokens + self.hook_pos_embed(where))


class Unhooked(SpecificationError):
    """A tower, or a part of one, for which there are no hooks."""


def unsupported(given: str, right: str) -> Unhooked:
    """The error for a part of a tower without hooks.

    Args:
        given: What it has.
        right: What has hooks.

    Returns:
        The error, to be raised.
    """
    return Unhooked("hook this tower", given, right, "open it by module path, as a TracedTower")
