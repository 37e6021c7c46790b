"""A vision transformer written by hand, signal by signal.

A signal is a named direction of the residual stream. A neuron reads signals and writes signals; a
head moves them to the class token from wherever the patch is that it looks for.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from scipy.linalg import hadamard
from torch import Tensor, nn

from interp.circuits.planted_world import PATCH, SIZE

WIDTH, LAYERS, HEADS, D_HEAD, D_EMBED = 64, 4, 4, 16, 32

CONSTANT = 128 * np.sqrt(2)
"""Length of the constant signal, as long as a pair of coordinates at 128 and -128: all that varies
is so small beside it that a layer norm divides every token by nearly the same number."""

SHARPNESS = 10.0
"""Length of queries and keys: a patch that is looked for wins by 10 x 10 / sqrt(16) = 25 nats."""


def zero_sum_basis() -> Float[Tensor, "signal d_model"]:
    """The 63 Walsh functions that sum to zero, orthonormal: what a layer norm does not centre."""
    return torch.from_numpy(hadamard(WIDTH)[1:] / np.sqrt(WIDTH))


class Draft:
    """A `VisionTransformer` of zeros, into which filters, neurons, heads, a read-out are written.

    32 x 32 pictures, patches of 8, width 64, 4 blocks of 4 heads, embeddings of 32; float64. Write
    under `torch.no_grad()`: the weights are a model's own.

    Signals are orthonormal directions that sum to zero, 63 of them, handed out as they are named
    (plus/minus pairs of coordinates would be 32). The first is constant: positive in the class
    token, negative in patches. It is so long that every layer norm, its gain set to the inverse,
    hands on the signals as they stand in the stream, to one part in two thousand.
    """

    def __init__(self) -> None:
        model = VisionTransformer(SIZE, PATCH, WIDTH, LAYERS, HEADS, 4.0, output_dim=D_EMBED)
        self.model = model.double().eval()
        for parameter in self.model.parameters():
            parameter.zero_()
        for module in self.model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(CONSTANT / np.sqrt(WIDTH))
        self._free = list(zero_sum_basis())
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
        first = head * D_HEAD
        query, key, value = attn.in_proj_weight.view(3, WIDTH, WIDTH)
        query[first] = SHARPNESS / CONSTANT * self.signal("constant")
        key[first] = SHARPNESS * self._sum(look)
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
