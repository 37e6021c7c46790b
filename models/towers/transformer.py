"""The blocks of CLIP's two transformer towers, with their activations named."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
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
from interp.models.towers.attention import HookedAttention, Mask
from interp.models.towers.checked_hooks import only_heard, with_hooks
from interp.models.towers.components import Heads, Perceptron, components_of
from interp.models.towers.hooked import HookedTower, share


class HookedNorm(nn.Module):
    """A layer norm whose scale and normalised stream are computed when they are hooked.

    Args:
        source: The open_clip layer norm.

    Notes:
        `hook_scale` is $\\sqrt{\\mathrm{var}(x) + \\epsilon}$ and `hook_normalized` is (x - mean) /
        scale, before the gain and the bias, as in TransformerLens 4.
    """

    source: nn.LayerNorm

    def __init__(self, source: nn.LayerNorm) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(
        self, x: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch pos d_model"]:
        """The normalised stream, with gain and bias."""
        points: Any = self._modules.values()  # quicker to come by than each as an attribute
        if not with_hooks(*points):
            return self.source(x)
        if not torch.is_grad_enabled() and x.dtype in (torch.float32, torch.float64):
            if only_heard(*points):
                return self._overheard(x)
        # half precision cannot hold the squares; the fused kernel widens them too
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        centred = wide - wide.mean(dim=-1, keepdim=True)
        scale = (centred.pow(2).mean(dim=-1, keepdim=True) + self.source.eps).sqrt()
        normalized = self.hook_normalized(centred / self.hook_scale(scale))
        return (normalized * self.source.weight + self.source.bias).to(x.dtype)

    def _overheard(
        self, x: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch pos d_model"]:
        """The fused kernel with its statistics; listening changes no bit of the result."""
        out, mean, inverse = torch.native_layer_norm(
            x, self.source.normalized_shape, self.source.weight, self.source.bias, self.source.eps
        )
        self.hook_scale(inverse.reciprocal())
        self.hook_normalized((x - mean).mul_(inverse))
        return out

    @property
    def w(self) -> Float[Tensor, "d_model"]:
        """The gain."""
        return self.source.weight

    @property
    def b(self) -> Float[Tensor, "d_model"]:
        """The bias."""
        return self.source.bias


class HookedMLP(nn.Module):
    """The MLP of a block, with the LayerScale that may follow it.

    Args:
        source: The open_clip block.
    """

    source: ResidualAttentionBlock

    def __init__(self, source: ResidualAttentionBlock) -> None:
        super().__init__()
        share(self, source=source)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(
        self, x: Float[Tensor, "*batch pos d_model"]
    ) -> Float[Tensor, "*batch pos d_model"]:
        """What the neurons write, given the normalised stream."""
        mlp = self.source.mlp
        return self.write(self.hook_post(mlp.gelu(self.hook_pre(mlp.c_fc(x)))))

    def write(
        self, neurons: Float[Tensor, "*batch pos d_mlp"]
    ) -> Float[Tensor, "*batch pos d_model"]:
        """What the neurons write, given how active they are."""
        return self.source.ls_2(self.source.mlp.c_proj(neurons))

    @property
    def W_in(self) -> Float[Tensor, "d_model d_mlp"]:
        """The weights into the neurons."""
        return self.source.mlp.c_fc.weight.T

    @property
    def b_in(self) -> Float[Tensor, "d_mlp"]:
        """The neurons' biases."""
        return self.source.mlp.c_fc.bias

    @property
    def W_out(self) -> Float[Tensor, "d_mlp d_model"]:
        """The weights out of the neurons, LayerScale included."""
        return self.source.ls_2(self.source.mlp.c_proj.weight.T)

    @property
    def b_out(self) -> Float[Tensor, "d_model"]:
        """The output bias, LayerScale included."""
        return self.source.ls_2(self.source.mlp.c_proj.bias)


class HookedBlock(nn.Module):
    """A residual block: attention, then the MLP, each adding to the stream.

    Args:
        source: The open_clip block.
    """

    def __init__(self, source: ResidualAttentionBlock) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()
        self.ln1 = HookedNorm(source.ln_1)
        self.attn = HookedAttention(source)
        self.hook_attn_out, self.hook_resid_mid = HookPoint(), HookPoint()
        self.ln2 = HookedNorm(source.ln_2)
        self.mlp = HookedMLP(source)
        self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint()

    def forward(
        self, stream: Float[Tensor, "batch pos d_model"], mask: Mask = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream after the block."""
        stream = self.hook_resid_pre(stream)
        stream = self.hook_resid_mid(stream + self.hook_attn_out(self.attn(self.ln1(stream), mask)))
        return self.hook_resid_post(stream + self.hook_mlp_out(self.mlp(self.ln2(stream))))

    def at(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        place: Int[Tensor, "batch"],
        mask: Mask = None,
    ) -> Float[Tensor, "batch one d_model"]:
        """The stream after the block at one position of each example, at a sixth of the cost.

        Args:
            stream: The stream before the block.
            place: The position in each example.
            mask: Added to the scores; None adds nothing.

        Returns:
            The stream at that position.

        Notes:
            Only the sites in `SEEN_WHOLE` may be hooked, since the others depend on the query.
        """
        stream = self.hook_resid_pre(stream)
        rows = torch.arange(len(stream), device=stream.device)
        token = stream[rows, place][:, None] + self.attn.at(self.ln1(stream), place, mask)
        return token + self.mlp(self.ln2(token))

    def enter(
        self,
        name: str,
        activation: Float[Tensor, "batch pos *d"],
        stream: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream after the block, from one of the sites in `ADDED_TO` on.

        Args:
            name: The site's name within the block.
            activation: The activation there.
            stream: The stream that it is added to; no part behind it reads another position.

        Returns:
            The stream after the block.
        """
        if name == "attn.hook_z":
            name, activation = "hook_attn_out", self.hook_attn_out(self.attn.write(activation))
        if name == "hook_attn_out":
            name, activation = "hook_resid_mid", self.hook_resid_mid(stream + activation)
        if name == "hook_resid_mid":
            stream = activation
            name, activation = "hook_mlp_out", self.hook_mlp_out(self.mlp(self.ln2(stream)))
        if name == "mlp.hook_post":
            name, activation = "hook_mlp_out", self.hook_mlp_out(self.mlp.write(activation))
        if name == "hook_mlp_out":
            activation = self.hook_resid_post(stream + activation)
        return activation


ADDED_TO = {
    "attn.hook_z": "hook_resid_pre",
    "hook_attn_out": "hook_resid_pre",
    "hook_resid_mid": "hook_resid_mid",
    "mlp.hook_post": "hook_resid_mid",
    "hook_mlp_out": "hook_resid_mid",
    "hook_resid_post": "hook_resid_post",
}
"""Sites behind which a block mixes no positions, and the stream that each is added to."""

SEEN_WHOLE = (
    "hook_resid_pre",
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "attn.hook_k",
    "attn.hook_v",
)
"""The sites that a block has at all positions also where only one position of it is wanted."""


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
