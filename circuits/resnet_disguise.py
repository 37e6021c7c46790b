"""The same ResNet with other weights, so that nothing shows where its parts were put together."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import nn

from interp.circuits.disguise import invertible
from interp.circuits.planted_merging import Space, spaces
from interp.circuits.planted_resnet import ChannelTruth, PlantedResNet
from interp.core.seeds import rng


@torch.no_grad()
def disguise_resnet(planted: PlantedResNet, *, seed: int = 0) -> PlantedResNet:
    """A planted ResNet with batch norms folded, channels shuffled and rescaled, heads re-coded.

    The function in eval mode stays what it was, to rounding in float64. Each batch norm hands its
    gain to its convolution and keeps the shift. The channels of a space (`spaces`) are permuted and
    multiplied by 1/2 to 2, and what reads them undoes it: relu(s x) = s relu(x) for s > 0, and a
    stage's stream, being added to, has one order and one s throughout. The attention pool's heads
    are permuted, and in each q' = M q, k' = M^-T k, v' = N v, W_O' = W_O N^-1 with random
    invertible M and N. The truth goes by the new places of the channels.

    >>> from interp.circuits.planted_resnet import ResNetBlueprint, plant_resnet
    >>> plain = plant_resnet(ResNetBlueprint("all shared"), steps=1)
    >>> hidden = disguise_resnet(plain, seed=3)
    >>> pictures = plain.world.draw("p1 q1", "A", 2)
    >>> bool((hidden.source(pictures) - plain.source(pictures)).abs().max() < 1e-9)
    True
    """
    stream = rng("disguise a ResNet", seed)
    model = deepcopy(planted.source)
    fold_norms(model)
    orders: dict[str, np.ndarray] = {}
    for space in spaces(model):
        orders |= dict.fromkeys(space.sites, recode_space(space, stream))
    recode_pool(model.attnpool, stream)
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


def recode_space(space: Space, stream: np.random.Generator) -> np.ndarray:
    """Shuffle and rescale channels whose norms are folded; the old place of each new one."""
    order = stream.permutation(space.width)
    scale = torch.from_numpy(np.exp2(stream.uniform(-1, 1, space.width)))[order]
    for conv, norm in space.writers:
        conv.weight.copy_(conv.weight[order] * scale[:, None, None, None])
        norm.bias.copy_(norm.bias[order] * scale)
    for weight in space.added:
        weight.copy_(weight[:, order] * scale)
    for weight in space.readers:
        weight.copy_((weight[:, order].movedim(1, -1) / scale).movedim(-1, 1))
    return order


def recode_pool(pool: Any, stream: np.random.Generator) -> None:
    """Shuffle the attention pool's heads, and change the bases of what they compare and carry."""
    d_head = pool.q_proj.out_features // pool.num_heads
    for first in range(0, pool.q_proj.out_features, d_head):
        rows = slice(first, first + d_head)
        compare, carry = (invertible(d_head, stream) for _ in range(2))
        changes = (compare, torch.linalg.inv(compare).T, carry)
        for linear, change in zip(_inputs(pool), changes, strict=True):
            linear.weight[rows] = change @ linear.weight[rows]
            linear.bias[rows] = change @ linear.bias[rows]
        pool.c_proj.weight[:, rows] = pool.c_proj.weight[:, rows] @ torch.linalg.inv(carry)
    heads = stream.permutation(pool.num_heads)
    order = np.arange(pool.q_proj.out_features).reshape(-1, d_head)[heads].ravel()
    for linear in _inputs(pool):
        linear.weight.copy_(linear.weight[order])
        linear.bias.copy_(linear.bias[order])
    pool.c_proj.weight.copy_(pool.c_proj.weight[:, order])


def _inputs(pool: Any) -> Sequence[nn.Linear]:
    return pool.q_proj, pool.k_proj, pool.v_proj


def _renamed(truth: ChannelTruth, orders: Mapping[str, np.ndarray]) -> ChannelTruth:
    return ChannelTruth({site: mask[orders[site]] for site, mask in truth.masks.items()})
