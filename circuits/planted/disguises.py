"""The same function with other weights, so that nothing shows how a planted model was written."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from interp.circuits.planted.resnet import ChannelTruth, PlantedResNet, Space, spaces
from interp.circuits.planted.vit import Planted
from interp.circuits.planted.weights import zero_sum_basis
from interp.core.seeds import rng


@torch.no_grad()
def disguise(planted: Planted, *, seed: int = 0) -> Planted:
    """A planted model with gains folded, stream rotated, heads and neurons shuffled and re-coded.

    The function stays what it was, to rounding in float64: W' = W diag(gain) behind each layer norm
    of a block or of the read-out; all that is written and read turns by a random orthogonal R with
    R 1 = 1, with which a layer norm commutes; heads and neurons are permuted; and in each head
    q' = M q, k' = M^-T k, v' = N v, W_O' = W_O N^-1 with random invertible M and N. The truth goes
    by the new places of heads and neurons.

    >>> from interp.circuits.planted.vit import Blueprint, plant
    >>> plain = plant(Blueprint("all shared"))
    >>> hidden = disguise(plain, seed=3)
    >>> pictures = plain.world.draw("p1 q1", "A", 2)
    >>> bool((hidden.source(pictures) - plain.source(pictures)).abs().max() < 1e-9)
    True
    """
    generator = rng("disguise", seed)
    model = deepcopy(planted.source)
    fold_gains(model)
    rotate_stream(model, generator)
    heads, neurons = [], []
    for block in model.transformer.resblocks:
        recode_heads(block, generator)
        heads.append(permute_heads(block, generator))
        neurons.append(permute_neurons(block, generator))
    names = {
        f"a{layer}.h{old}": f"a{layer}.h{new}"
        for layer, places in enumerate(heads)
        for old, new in enumerate(places)
    }
    return planted.renamed(model, names, {i: dict(enumerate(at)) for i, at in enumerate(neurons)})


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


def recode_heads(block: Any, generator: np.random.Generator) -> None:
    """Change the basis in which each head compares queries with keys, and that of its values."""
    for first in range(0, block.attn.embed_dim, block.attn.head_dim):
        rows = slice(first, first + block.attn.head_dim)
        compare, carry = (invertible(block.attn.head_dim, generator) for _ in range(2))
        changes = (compare, torch.linalg.inv(compare).T, carry)
        for part, change in enumerate(changes):
            for parameter in (block.attn.in_proj_weight, block.attn.in_proj_bias):
                own = parameter.chunk(3)[part][rows]
                own.copy_(change @ own)
        out = block.attn.out_proj.weight[:, rows]
        out.copy_(out @ torch.linalg.inv(carry))


def permute_heads(block: Any, generator: np.random.Generator) -> list[int]:
    """Shuffle a block's heads; the new place of each."""
    order = generator.permutation(block.attn.num_heads)
    rows = np.arange(block.attn.embed_dim).reshape(block.attn.num_heads, -1)[order].ravel()
    for parameter in (block.attn.in_proj_weight, block.attn.in_proj_bias):
        for part in parameter.chunk(3):
            part.copy_(part[rows])
    block.attn.out_proj.weight.copy_(block.attn.out_proj.weight[:, rows])
    return np.argsort(order).tolist()


def permute_neurons(block: Any, generator: np.random.Generator) -> list[int]:
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


@torch.no_grad()
def disguise_resnet(planted: PlantedResNet, *, seed: int = 0) -> PlantedResNet:
    """A planted ResNet with batch norms folded, channels shuffled and rescaled, heads re-coded.

    The function in eval mode stays what it was, to rounding in float64. Each batch norm hands its
    gain to its convolution and keeps the shift. The channels of a space (`spaces`) are permuted and
    multiplied by 1/2 to 2, and what reads them undoes it: relu(s x) = s relu(x) for s > 0, and a
    stage's stream, being added to, has one order and one s throughout. The attention pool's heads
    are permuted, and in each q' = M q, k' = M^-T k, v' = N v, W_O' = W_O N^-1 with random
    invertible M and N. The truth goes by the new places of the channels.

    >>> from interp.circuits.planted.resnet import ResNetBlueprint, plant_resnet
    >>> plain = plant_resnet(ResNetBlueprint("all shared"), steps=1)
    >>> hidden = disguise_resnet(plain, seed=3)
    >>> pictures = plain.world.draw("p1 q1", "A", 2)
    >>> bool((hidden.source(pictures) - plain.source(pictures)).abs().max() < 1e-9)
    True
    """
    generator = rng("disguise a ResNet", seed)
    model = deepcopy(planted.source)
    fold_norms(model)
    orders: dict[str, np.ndarray] = {}
    for space in spaces(model):
        orders |= dict.fromkeys(space.sites, recode_space(space, generator))
    recode_pool(model.attnpool, generator)
    truths = {domain: _renamed(truth, orders) for domain, truth in planted.truths.items()}
    return replace(planted, source=model, truths=truths)


def fold_norms(model: ModifiedResNet) -> None:
    """Move every batch norm's scale into its convolution; the norm is left to add its shift.

    A convolution has no bias to take the shift. The variance left, 1 - eps, makes the scale 1.
    """
    for space in spaces(model):
        for conv, norm in space.writers:
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None and variance is not None
            gain = norm.weight / (variance + norm.eps).sqrt()
            conv.weight *= gain[:, None, None, None]
            norm.bias.sub_(gain * mean)
            norm.weight.fill_(1)
            mean.zero_()
            variance.fill_(1 - norm.eps)


def recode_space(space: Space, generator: np.random.Generator) -> np.ndarray:
    """Shuffle and rescale channels whose norms are folded; the old place of each new one."""
    order = generator.permutation(space.width)
    scale = torch.from_numpy(np.exp2(generator.uniform(-1, 1, space.width)))[order]
    for conv, norm in space.writers:
        conv.weight.copy_(conv.weight[order] * scale[:, None, None, None])
        norm.bias.copy_(norm.bias[order] * scale)
    for weight in space.added:
        weight.copy_(weight[:, order] * scale)
    for weight in space.readers:
        weight.copy_((weight[:, order].movedim(1, -1) / scale).movedim(-1, 1))
    return order


def recode_pool(pool: Any, generator: np.random.Generator) -> None:
    """Shuffle the attention pool's heads, and change the bases of what they compare and carry."""
    d_head = pool.q_proj.out_features // pool.num_heads
    for first in range(0, pool.q_proj.out_features, d_head):
        rows = slice(first, first + d_head)
        compare, carry = (invertible(d_head, generator) for _ in range(2))
        changes = (compare, torch.linalg.inv(compare).T, carry)
        for linear, change in zip(_inputs(pool), changes, strict=True):
            linear.weight[rows] = change @ linear.weight[rows]
            linear.bias[rows] = change @ linear.bias[rows]
        pool.c_proj.weight[:, rows] = pool.c_proj.weight[:, rows] @ torch.linalg.inv(carry)
    heads = generator.permutation(pool.num_heads)
    order = np.arange(pool.q_proj.out_features).reshape(-1, d_head)[heads].ravel()
    for linear in _inputs(pool):
        linear.weight.copy_(linear.weight[order])
        linear.bias.copy_(linear.bias[order])
    pool.c_proj.weight.copy_(pool.c_proj.weight[:, order])


def _inputs(pool: Any) -> Sequence[nn.Linear]:
    return pool.q_proj, pool.k_proj, pool.v_proj


def _renamed(truth: ChannelTruth, orders: Mapping[str, np.ndarray]) -> ChannelTruth:
    return ChannelTruth({site: mask[orders[site]] for site, mask in truth.masks.items()})
