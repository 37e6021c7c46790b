"""A transformer block with its activations named, and its components as circuits see them.

Of the components, heads and an MLP on the stream, each query, key, value and MLP can be given a
stream of its own; each head and MLP adds a part of its own. How the parts are summed into streams
decides how the model is wired.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.towers.attention import HookedAttention, Mask, fused_attention
from interp.models.towers.checked_hooks import only_heard, with_hooks
from interp.models.towers.hooked import share

Streams = Float[Tensor, "batch reader pos d_model"]
Parts = Float[Tensor, "batch writer pos d_model"]


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


class Heads:
    """The attention of a block: three readers and one writer for each head.

    Args:
        tower: The transformer tower.
        layer: The block's number.

    Notes:
        Readers are the queries of all heads, then their keys, then their values. A part is what a
        head adds, LayerScale included; the output bias belongs to no head.
    """

    def __init__(self, tower: Any, layer: int) -> None:
        self.tower, self.layer, self.block = tower, layer, tower.blocks[layer]
        path = f"blocks.{layer}"
        self.reads, self.writes = f"{path}.hook_resid_pre", f"{path}.attn.hook_z"
        self.inner = tuple(f"{path}.attn.hook_{part}" for part in "qkv")
        n_heads = self.block.attn.source.attn.num_heads
        self.writers = tuple(f"a{layer}.h{head}" for head in range(n_heads))
        self.readers = tuple(f"{name}<{part}>" for part in "qkv" for name in self.writers)
        self.places: tuple[tuple[str, Mapping[str, int]], ...] = tuple(
            (site, {"head": head}) for site in self.inner for head in range(n_heads)
        )

    def write(self, activation: Float[Tensor, "batch pos head d_head"]) -> Parts:
        """What each head adds, from z."""
        return einsum(
            activation,
            self.block.attn.W_O.to(activation),
            "batch pos head d_head, head d_head d_model -> batch head pos d_model",
        )

    def read(
        self, reader: int, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_head"]:
        """The query, key or value that one head makes of a stream."""
        weight, bias = self._weights()
        return self.block.ln1(stream) @ weight[reader] + bias[reader]

    def run(self, streams: Streams, tokens: Tensor | None = None) -> Parts:
        """What each head adds when every query, key and value reads a stream of its own.

        Args:
            streams: A stream per reader.
            tokens: The tokens, which a text tower with padding needs for its mask.

        Returns:
            A part per head.
        """
        weight, bias = self._weights()
        projected = torch.matmul(self.block.ln1(streams), weight) + bias[:, None]
        q, k, v = rearrange(
            projected, "batch (part head) pos d_head -> part batch pos head d_head", part=3
        )
        context = self.tower._context(streams[:, 0], tokens)
        return self.write(fused_attention(q, k, v, context[0] if context else None))

    def pull(
        self,
        stream: Float[Tensor, "batch pos d_model"],
        values: Sequence[Float[Tensor, "batch pos head d_head"]],
        gradients: Sequence[Float[Tensor, "batch pos head d_head"]],
        *,
        straight: bool = False,
    ) -> Streams:
        r"""The gradient at each reader's stream, from those at `inner`.

        With $y = W^\top g$, norm scale $\sigma$ and normalised stream $\hat x$ it is

        $(\gamma y - \overline{\gamma y} - \hat x\,\overline{\gamma y \hat x}) / \sigma$.

        Args:
            stream: The stream that all readers read.
            values: Queries, keys and values.
            gradients: Their gradients.
            straight: Whether to hold the norm's scale fixed, which drops the last term.

        Returns:
            A gradient per reader.

        Notes:
            The last mean is taken on the small side: $\gamma y \hat x$ sums to $g$ times the query,
            key or value without its constant.
        """
        weight, constant = self._centred
        centred = stream - stream.mean(dim=-1, keepdim=True)
        scale = (centred.pow(2).mean(dim=-1, keepdim=True) + self.block.ln1.source.eps).sqrt()
        inner = self._by_reader(gradients) / scale[:, None]
        along = (inner * (self._by_reader(values) - constant)).sum(dim=-1, keepdim=True)
        normalized, share = centred / scale, along / -stream.shape[-1]
        pulled = stream.new_empty(*inner.shape[:3], stream.shape[-1])
        for example, out in enumerate(pulled):  # one at a time stays in the processor's cache
            torch.bmm(inner[example], weight, out=out)
            if not straight:
                out.addcmul_(share[example], normalized[example])
        return pulled

    @staticmethod
    def _by_reader(
        parts: Sequence[Float[Tensor, "batch pos head d_head"]],
    ) -> Float[Tensor, "batch reader pos d_head"]:
        return rearrange(list(parts), "part batch pos head d_head -> batch (part head) pos d_head")

    @cached_property
    def _centred(self) -> tuple[Float[Tensor, "reader d_head d_model"], Tensor]:
        """Weights that carry a gradient back through the norm's gain, and the readers' constants.

        They are cached as long as these components exist, which is one analysis.
        """
        (weight, bias), norm = self._weights(), self.block.ln1
        back = (weight * norm.w[:, None]).transpose(1, 2)
        return back - back.mean(dim=-1, keepdim=True), (norm.b @ weight + bias)[:, None]

    def _weights(self) -> tuple[Float[Tensor, "reader d_model d_head"], Tensor]:
        attn = self.block.attn
        return (
            torch.cat([attn.W_Q, attn.W_K, attn.W_V]),
            torch.cat([attn.b_Q, attn.b_K, attn.b_V]),
        )


class Perceptron:
    """The MLP of a block: one reader and one writer.

    Args:
        tower: The transformer tower.
        layer: The block's number.
    """

    def __init__(self, tower: Any, layer: int) -> None:
        self.layer, self.block = layer, tower.blocks[layer]
        path = f"blocks.{layer}"
        self.reads, self.writes = f"{path}.hook_resid_mid", f"{path}.hook_mlp_out"
        self.readers = self.writers = (f"m{layer}",)
        self.places: tuple[tuple[str, Mapping[str, int]], ...] = ((self.writes, {}),)

    def write(self, activation: Float[Tensor, "batch pos d_model"]) -> Parts:
        """What the MLP adds."""
        return activation[:, None]

    def read(
        self, reader: int, stream: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP computes from a stream."""
        return self.block.mlp(self.block.ln2(stream))

    def run(self, streams: Streams, tokens: Tensor | None = None) -> Parts:
        """What the MLP adds when it reads this stream."""
        return self.block.mlp(self.block.ln2(streams))


def components_of(tower: Any) -> list[Heads | Perceptron]:
    """The components of a transformer tower, in the order of the computation.

    Args:
        tower: The tower.

    Returns:
        Heads and MLP of every block.
    """
    return [part(tower, layer) for layer in range(tower.n_layers) for part in (Heads, Perceptron)]
