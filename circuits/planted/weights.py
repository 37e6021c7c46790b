"""A vision transformer written by hand, signal by signal.

A signal is a named direction of the residual stream. A neuron reads signals and writes signals; a
head moves them to the class token from wherever the patch is that it looks for.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from scipy.linalg import hadamard
from torch import Tensor, nn

from interp.circuits.planted.world import D_EMBED, PATCH, SIZE

WIDTH, LAYERS, HEADS = 64, 4, 4

CONSTANT = 128 * np.sqrt(2)
"""Length of the constant signal, as long as a pair of coordinates at 128 and -128: all that varies
is so small beside it that a layer norm divides every token by nearly the same number."""

SHARPNESS = 25.0
"""By how many nats a patch that is looked for wins, where its signal is 1."""


def zero_sum_basis(width: int = WIDTH) -> Float[Tensor, "signal d_model"]:
    """The 63 Walsh functions that sum to zero, orthonormal: what a layer norm does not centre.

    127 for a width of 128; the width is a power of two.
    """
    return torch.from_numpy(hadamard(width)[1:] / np.sqrt(width))


class Draft:
    """A `VisionTransformer` of zeros, into which filters, neurons, heads, a read-out are written.

    32 x 32 pictures, patches of 8, width 64, 4 blocks of 4 heads, embeddings of 32; float64. Write
    under `torch.no_grad()`: the weights are a model's own.

    Signals are orthonormal directions that sum to zero, 63 of them, handed out as they are named
    (plus/minus pairs of coordinates would be 32). The first is constant: positive in the class
    token, negative in patches. It is so long that every layer norm, its gain set to the inverse,
    hands on the signals as they stand in the stream, to one part in two thousand. A `width` of 128
    has room for 127 signals. A `steep` draft has neurons without a slope where they work.
    """

    def __init__(self, *, width: int = WIDTH, steep: bool = False) -> None:
        model = VisionTransformer(SIZE, PATCH, width, LAYERS, HEADS, 4.0, output_dim=D_EMBED)
        self.width, self.steep = width, steep
        self.model = model.double().eval()
        for parameter in self.model.parameters():
            parameter.zero_()
        for module in self.model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(CONSTANT / np.sqrt(width))
        self._free = list(zero_sum_basis(width))
        self._signals: dict[str, Tensor] = {}
        self._neurons = [0] * LAYERS
        self._heads: set[tuple[int, int]] = set()
        self.model.class_embedding.copy_(CONSTANT * self.signal("constant"))
        self.model.positional_embedding[1:] = -CONSTANT * self.signal("constant")

    def signal(self, name: str) -> Float[Tensor, "d_model"]:
        """The direction of a signal; a new one for a new name."""
        if name not in self._signals:
            self._signals[name] = self._free.pop(0)
        return self._signals[name]

    def has(self, name: str) -> bool:
        """Whether a signal of that name is used."""
        return name in self._signals

    def _sum(self, weights: Mapping[str, float]) -> Float[Tensor, "d_model"]:
        directions = torch.stack([self.signal(name) for name in weights])
        return torch.tensor(list(weights.values()), dtype=directions.dtype) @ directions

    def filter(self, pattern: np.ndarray, write: str) -> None:
        """Add to the patch embedding: `write` = the patch times `pattern`, `[3 8 8]`, summed."""
        outer = self.signal(write)[:, None, None, None] * torch.from_numpy(pattern)
        self.model.conv1.weight += outer

    def neuron(
        self, layer: int, read: Mapping[str, float], bias: float, write: Mapping[str, float]
    ) -> int:
        """Add gelu(sum of signals times weights + bias), times weights, to signals; its place."""
        mlp, place = self.model.transformer.resblocks[layer].mlp, self._neurons[layer]
        mlp.c_fc.weight[place] = self._sum(read)
        mlp.c_fc.bias[place] = bias
        mlp.c_proj.weight[:, place] = self._sum(write)
        self._neurons[layer] += 1
        return place

    def threshold(
        self, layer: int, read: Mapping[str, float], write: Mapping[str, float]
    ) -> list[int]:
        """Two neurons that add `write` times 0 or 1: what they read goes from .4 to .6 between.

        gelu(30 x - 12) / 6 - gelu(30 x - 18) / 6; their places.
        """
        steep = {signal: 30.0 * weight for signal, weight in read.items()}
        return [
            self.neuron(layer, steep, bias, {name: sign * w / 6 for name, w in write.items()})
            for bias, sign in ((-12.0, 1), (-18.0, -1))
        ]

    def every(
        self,
        layer: int,
        read: Sequence[str],
        write: Mapping[str, float],
        *,
        of: int = 0,
        against: Mapping[str, float] | None = None,
    ) -> list[int]:
        """Neurons that add `write` where all signals read are 1, or `of` of them; their places.

        What is read `against` them lowers the sum before the gelu, by signals times weights.

        With n signals and s their sum, one neuron, gelu(8 (s - n) + 4) / 4. Of a steep draft two,
        gelu(60 (s - n) + 42) / 24 - gelu(60 (s - n) + 18) / 24: level at s = n, with no gradient.
        """
        n, slope, steps = of or len(read), 8.0, [(4.0, 1 / 4)]
        if self.steep:
            slope, steps = 60.0, [(42.0, 1 / 24), (18.0, -1 / 24)]
        weights = dict.fromkeys(read, slope)
        weights.update({name: -weight for name, weight in (against or {}).items()})
        return [
            self.neuron(
                layer, weights, bias - slope * n, {name: gain * w for name, w in write.items()}
            )
            for bias, gain in steps
        ]

    def head(
        self,
        layer: int,
        head: int,
        *,
        look: Mapping[str, float],
        move: Mapping[str, Mapping[str, float]],
    ) -> None:
        """The class token attends to the token where `look` is largest, and gets its signals.

        Each signal in `move` is added to the class token, times weights, as others or as itself.
        Patches look away from such tokens, so nothing is moved to them.
        """
        attn = self.model.transformer.resblocks[layer].attn
        d_head = self.width // HEADS
        first, length = head * d_head, np.sqrt(SHARPNESS * np.sqrt(d_head))
        query, key, value = attn.in_proj_weight.view(3, self.width, self.width)
        query[first] = length / CONSTANT * self.signal("constant")
        key[first] = length * self._sum(look)
        for place, (source, targets) in enumerate(move.items(), start=first):
            value[place] = self.signal(source)
            attn.out_proj.weight[:, place] = self._sum(targets)
        self._heads.add((layer, head))

    def free_heads(self) -> list[tuple[int, int]]:
        """The heads that nothing was written into, as (layer, head)."""
        return [at for at in product(range(LAYERS), range(HEADS)) if at not in self._heads]

    def free_neurons(self, layer: int) -> int:
        """How many neurons of a block nothing was written into."""
        return self.model.transformer.resblocks[layer].mlp.c_fc.out_features - self._neurons[layer]

    def read_out(self, signal: str, embedding: Float[Tensor, "d_embed"], gain: float = 1.0) -> None:
        """Add to the embedding: the class token's signal times `gain` times a direction."""
        assert self.model.proj is not None
        self.model.proj += gain * self.signal(signal)[:, None] * embedding
