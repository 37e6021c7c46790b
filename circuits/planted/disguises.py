"""Disguises: changes of weights that keep a planted model's function and hide how it was made."""

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from interp.circuits.planted.model import PlantedModel
from interp.circuits.planted.weights import zero_sum_basis
from interp.core.seeds import rng

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
