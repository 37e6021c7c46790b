"""The components of a transformer block as circuits see them: heads and an MLP on the stream.

Each query, key, value and MLP can be given a stream of its own; each head and MLP adds a part of
its own. How the parts are summed into streams decides how the model is wired.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from interp.models.towers.attention import fused_attention

Streams = Float[Tensor, "batch reader pos d_model"]
Parts = Float[Tensor, "batch writer pos d_model"]


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
