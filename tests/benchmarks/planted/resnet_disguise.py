"""The disguise of a ResNet: other weights that keep its function and hide how it was merged."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from interp.circuits.planted.weights import recode_heads
from interp.core.seeds import rng


@dataclass(frozen=True, eq=False)
class Space:
    """Sites that have the same channels, what writes these channels, and what reads them.

    `writers` are convolutions with their batch norms, whose outputs are the channels; `readers` are
    weights whose second axis are the channels; `added` are the attention pool's positions, `[pos
    channel]`, in the one space that it reads.
    """

    sites: tuple[str, ...]
    writers: tuple[tuple[nn.Conv2d, nn.BatchNorm2d], ...]
    readers: tuple[Tensor, ...]
    added: tuple[Tensor, ...] = ()

    @property
    def width(self) -> int:
        """How many channels there are."""
        return self.writers[0][0].out_channels


def spaces(model: Any) -> Iterator[Space]:
    """The spaces of channels of a ResNet, from the stem to the last stage.

    Each bottleneck has two of its own. Its output shares one with its shortcut, so a stage has one
    residual stream, from its first block's output to what reads its last block's.

    >>> model = ModifiedResNet((2, 1, 1, 1), 6, 2, image_size=32, width=4)
    >>> [(space.sites[-1], space.width) for space in spaces(model)][2:6]  # doctest: +ELLIPSIS
    [('layer1.0.hook_resid_pre', 4), ('layer1.0.hook_act1', 4), ('layer1.0.hook_act2', 4), ...]
    """
    yield Space(("stem.hook_act1",), ((model.conv1, model.bn1),), (model.conv2.weight,))
    yield Space(("stem.hook_act2",), ((model.conv2, model.bn2),), (model.conv3.weight,))
    sites = ["stem.hook_act3", "stem.hook_pool"]
    writers = [(model.conv3, model.bn3)]
    readers: list[Tensor] = []
    for stage in (1, 2, 3, 4):
        for place, block in enumerate(getattr(model, f"layer{stage}")):
            name = f"layer{stage}.{place}"
            sites.append(f"{name}.hook_resid_pre")
            readers.append(block.conv1.weight)
            if block.downsample is not None:
                *_, conv, norm = block.downsample
                yield Space(tuple(sites), tuple(writers), (*readers, conv.weight))
                sites, writers, readers = [], [(conv, norm)], []
            yield Space((f"{name}.hook_act1",), ((block.conv1, block.bn1),), (block.conv2.weight,))
            yield Space((f"{name}.hook_act2",), ((block.conv2, block.bn2),), (block.conv3.weight,))
            sites += [f"{name}.hook_out", f"{name}.hook_resid_post"]
            writers.append((block.conv3, block.bn3))
    pool = model.attnpool
    weights = (pool.q_proj.weight, pool.k_proj.weight, pool.v_proj.weight)
    yield Space(tuple(sites), tuple(writers), (*readers, *weights), (pool.positional_embedding,))


@torch.no_grad()
def disguise_resnet(
    source: ModifiedResNet, seed: int
) -> tuple[ModifiedResNet, dict[str, np.ndarray]]:
    """Fold batch norms, shuffle and rescale channels, shuffle and re-code heads of a ResNet.

    The function in eval mode stays what it was. Each batch norm hands its gain to its convolution
    and keeps the shift. The channels of a space (`spaces`) are permuted and multiplied by 1/2 to 2,
    and what reads them undoes it: relu(s x) = s relu(x) for s > 0, and a stage's stream, being
    added to, has one order and one s throughout. The attention pool's heads are re-coded, see
    `recode_heads`.

    Returns:
        The new ResNet, and for each site the old place of each new channel.

    >>> from tests.benchmarks.planted.resnet import ResNetBlueprint, plant_resnet
    >>> plain = plant_resnet(ResNetBlueprint("all shared"), steps=1)
    >>> hidden, _ = disguise_resnet(plain.source, seed=3)
    >>> pictures = plain.world.draw("p1 q1", "A", 2)
    >>> bool((hidden(pictures) - plain.source(pictures)).abs().max() < 1e-9)
    True
    """
    generator = rng("disguise a ResNet", seed)
    model = deepcopy(source)
    fold_norms(model)
    orders: dict[str, np.ndarray] = {}
    for space in spaces(model):
        orders |= dict.fromkeys(space.sites, recode_space(space, generator))
    pool: Any = model.attnpool
    inputs = [(each.weight, each.bias) for each in (pool.q_proj, pool.k_proj, pool.v_proj)]
    recode_heads(inputs, pool.c_proj.weight, pool.num_heads, generator)
    return model, orders


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
