"""The weights of a planted vision transformer: written by hand, signal by signal, and disguised.

A signal is a named direction of the residual stream. A neuron reads signals and writes signals; a
head moves them to the class token from wherever the patch is that it looks for. A disguise changes
weights, keeps the function, and hides how the model was made.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import product
from typing import TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from scipy.linalg import hadamard
from torch import Tensor, nn

from interp.circuits.planted.model import PlantedModel
from interp.circuits.planted.world import D_EMBED, PATCH, SIZE
from interp.core.seeds import rng

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


SomeModel = TypeVar("SomeModel", bound=PlantedModel)


def disguise(planted: SomeModel, *, seed: int = 0) -> SomeModel:
    """A planted model with other weights; the truth goes by the new places of its parts.

    The function stays what it was, to rounding in float64. How a transformer is disguised says
    `disguise_transformer`, how a ResNet is `disguise_resnet`.

    >>> from interp.circuits.planted.vit import Blueprint, plant
    >>> plain = plant(Blueprint("all shared"))
    >>> hidden = disguise(plain, seed=3)
    >>> pictures = plain.world.draw("p1 q1", "A", 2)
    >>> bool((hidden.source(pictures) - plain.source(pictures)).abs().max() < 1e-9)
    True
    """
    return planted.disguised(seed)


@torch.no_grad()
def disguise_transformer(
    source: VisionTransformer, seed: int
) -> tuple[VisionTransformer, dict[str, str], dict[int, dict[int, int]]]:
    """Fold gains, rotate the stream, shuffle and re-code heads and neurons of a transformer.

    W' = W diag(gain) behind each layer norm of a block or of the read-out; all that is written and
    read turns by a random orthogonal R with R 1 = 1, with which a layer norm commutes; heads and
    neurons are permuted; heads are re-coded, see `recode_heads`.

    Returns:
        The new transformer, the new name of each head, and by layer the new place of each neuron.
    """
    generator = rng("disguise", seed)
    model = deepcopy(source)
    fold_gains(model)
    rotate_stream(model, generator)
    heads: dict[str, str] = {}
    neurons: dict[int, dict[int, int]] = {}
    for layer, block in enumerate(model.transformer.resblocks):
        attn = block.attn
        inputs = zip(attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True)
        places = recode_heads(list(inputs), attn.out_proj.weight, attn.num_heads, generator)
        heads |= {f"a{layer}.h{old}": f"a{layer}.h{new}" for old, new in enumerate(places)}
        neurons[layer] = dict(enumerate(permute_neurons(block, generator)))
    return model, heads, neurons


def fold_gains(model: VisionTransformer) -> None:
    """Move every layer norm's gain and bias into the weights that read it.

    The norm before the blocks has nobody but the stream to read it, and keeps its gain, which is
    the same for all coordinates.
    """
    for block in model.transformer.resblocks:
        for norm, weight, bias in (
            (block.ln_1, block.attn.in_proj_weight, block.attn.in_proj_bias),
            (block.ln_2, block.mlp.c_fc.weight, block.mlp.c_fc.bias),
        ):
            bias += weight @ norm.bias
            weight *= norm.weight
            norm.weight.fill_(1)
            norm.bias.zero_()
    # a projection has no bias to take that of the last norm, which a planted model leaves at zero;
    # and a stream whose coordinates have gains or shifts of their own cannot be turned
    assert model.proj is not None and not bool(model.ln_post.bias.any())
    first = cast(nn.LayerNorm, model.ln_pre)
    assert not bool(first.bias.any()) and bool((first.weight == first.weight[0]).all())
    model.proj *= model.ln_post.weight[:, None]
    model.ln_post.weight.fill_(1)


def rotate_stream(model: VisionTransformer, generator: np.random.Generator) -> None:
    """Turn the residual stream by a random rotation that leaves the all-ones vector where it is."""
    basis = zero_sum_basis(model.conv1.out_channels)
    turn = torch.from_numpy(np.linalg.qr(generator.normal(size=(len(basis), len(basis))))[0])
    rotation = basis.T @ turn @ basis + 1 / basis.shape[1]
    model.conv1.weight.copy_(torch.tensordot(rotation, model.conv1.weight, dims=1))
    model.class_embedding.copy_(rotation @ model.class_embedding)
    model.positional_embedding.copy_(model.positional_embedding @ rotation.T)
    for block in model.transformer.resblocks:
        for writer in (block.attn.out_proj, block.mlp.c_proj):
            writer.weight.copy_(rotation @ writer.weight)
            writer.bias.copy_(rotation @ writer.bias)
        for weight in (block.attn.in_proj_weight, block.mlp.c_fc.weight):
            weight.copy_(weight @ rotation.T)
    assert model.proj is not None
    model.proj.copy_(rotation @ model.proj)


def recode_heads(
    inputs: Sequence[tuple[Tensor, Tensor]],
    out: Tensor,
    n_heads: int,
    generator: np.random.Generator,
) -> list[int]:
    """Change the bases of what heads compare and carry, then shuffle them, in place.

    q' = M q, k' = M^-T k, v' = N v, W_O' = W_O N^-1 with random invertible M and N for each head.

    Args:
        inputs: weight and bias of query, key and value.
        out: the weight that reads what heads carry.
        n_heads: how many heads there are.
        generator: where the random numbers come from.

    Returns:
        The new place of each head.
    """
    heads = np.arange(out.shape[1]).reshape(n_heads, -1)
    for rows in heads:
        own = slice(rows[0], rows[-1] + 1)
        compare, carry = (invertible(len(rows), generator) for _ in range(2))
        changes = (compare, torch.linalg.inv(compare).T, carry)
        for parameters, change in zip(inputs, changes, strict=True):
            for parameter in parameters:
                parameter[own] = change @ parameter[own]
        out[:, own] = out[:, own] @ torch.linalg.inv(carry)
    order = generator.permutation(n_heads)
    rows = heads[order].ravel()
    for parameters in inputs:
        for parameter in parameters:
            parameter.copy_(parameter[rows])
    out.copy_(out[:, rows])
    return np.argsort(order).tolist()


def permute_neurons(block: ResidualAttentionBlock, generator: np.random.Generator) -> list[int]:
    """Shuffle a block's neurons; the new place of each."""
    order = generator.permutation(block.mlp.c_fc.out_features)
    for parameter in (block.mlp.c_fc.weight, block.mlp.c_fc.bias):
        parameter.copy_(parameter[order])
    block.mlp.c_proj.weight.copy_(block.mlp.c_proj.weight[:, order])
    return np.argsort(order).tolist()


def invertible(n: int, generator: np.random.Generator) -> Float[Tensor, "n n"]:
    """A random matrix with singular values from 1/2 to 2."""
    left, right = (np.linalg.qr(generator.normal(size=(n, n)))[0] for _ in range(2))
    return torch.from_numpy(left * np.exp2(generator.uniform(-1, 1, n)) @ right)
