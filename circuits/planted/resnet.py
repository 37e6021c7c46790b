"""ResNets whose circuits are known: narrow networks, each trained for its own part, merged in one.

What a network was not trained to tell it does not tell, and in the merged one nobody else reads its
channels: so the channels that make the class in a domain are known without looking.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn.utils import skip_init

from interp.circuits.planted.resnet_training import STEPS, PartTask, Pool, train_part
from interp.circuits.planted.world import (
    CLASSES,
    D_EMBED,
    DOMAINS,
    PARTS,
    World,
    planted_directions,
)
from interp.circuits.tasks.metrics import Classifier
from interp.core.errors import SpecificationError, check_known


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


@torch.no_grad()
def merge(parts: Sequence[ModifiedResNet]) -> ModifiedResNet:
    """One ResNet whose embedding is the sum of the parts' embeddings, in eval mode exactly.

    At every site of the stem and of the bottlenecks the channels of the first part come first, then
    those of the second; so do the heads of the attention pool. The result has the parts' format and
    is in eval mode. Embeddings that lie in orthogonal directions stay apart in the sum.

    Raises `SpecificationError` for no parts, and for parts that differ in blocks, picture size,
    embedding or width of a head (a head's softmax is scaled by its width).

    >>> parts = [ModifiedResNet((1, 1, 1, 1), 6, 2, image_size=32, width=4).eval() for _ in "AB"]
    >>> merged, pictures = merge(parts), torch.rand(2, 3, 32, 32)
    >>> torch.allclose(merged(pictures), parts[0](pictures) + parts[1](pictures), atol=1e-5)
    True
    >>> merged.conv3.weight.shape, merged.attnpool.num_heads
    (torch.Size([8, 4, 3, 3]), 4)
    """
    shapes = {_shape(part) for part in parts}
    if len(shapes) != 1:
        raise SpecificationError(
            "merge ResNets",
            f"parts with (blocks, picture size, d_embed, d_head) of {sorted(shapes)}",
            "one or more parts that agree in these",
            "make all parts alike but for their width, with heads in proportion to it",
        )
    [(layers, size, d_embed, d_head)] = shapes
    width = sum(part.conv3.out_channels for part in parts)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        merged = ModifiedResNet(list(layers), d_embed, 32 * width // d_head, size, width)
    merged = merged.to(parts[0].conv1.weight)
    states = [part.state_dict() for part in parts]
    merged.load_state_dict(
        {name: _joined(name, [state[name] for state in states]) for name in states[0]}
    )
    return merged.eval()


def _shape(part: Any) -> tuple[tuple[int, ...], int, int, int]:
    stages = (part.layer1, part.layer2, part.layer3, part.layer4)
    pool = part.attnpool
    d_head = pool.q_proj.out_features // pool.num_heads
    return tuple(map(len, stages)), part.image_size, part.output_dim, d_head


def _joined(name: str, parts: Sequence[Tensor]) -> Tensor:
    """A weight or buffer of the merged model from those of the parts."""
    if name.endswith("num_batches_tracked"):
        return parts[0]
    if name == "attnpool.c_proj.bias":
        return torch.stack(list(parts)).sum(dim=0)
    if name in ("attnpool.c_proj.weight", "attnpool.positional_embedding"):
        return torch.cat(list(parts), dim=1)
    if name == "conv1.weight" or parts[0].ndim == 1:  # all parts see the whole picture
        return torch.cat(list(parts))
    return _block_diagonal(parts)


def _block_diagonal(parts: Sequence[Tensor]) -> Tensor:
    """Zeros, with the parts along the diagonal of the first two axes."""
    rows, columns = sum(len(part) for part in parts), sum(part.shape[1] for part in parts)
    joined = parts[0].new_zeros(rows, columns, *parts[0].shape[2:])
    row = column = 0
    for part in parts:
        joined[row : row + len(part), column : column + part.shape[1]] = part
        row, column = row + len(part), column + part.shape[1]
    return joined


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


WHISPER = 0.05
"""Length of what nobody reads, beside a class of length 1: a cosine would feel what is loud."""


@dataclass(frozen=True)
class MergedPart:
    """A narrow network of the merged one: what it tells, and in which directions it writes it."""

    task: PartTask
    writes: str


RESNETS: dict[str, tuple[MergedPart, ...]] = {
    "all shared": (MergedPart(PartTask("class", "AB"), "AB"), MergedPart(PartTask("K", "AB"), "K")),
    "all separate": (
        MergedPart(PartTask("class", "A"), "A"),
        MergedPart(PartTask("class", "B"), "B"),
    ),
    "separate, one direction": (
        MergedPart(PartTask("class", "A"), "AB"),
        MergedPart(PartTask("class", "B"), "AB"),
    ),
}
"""The parts of each planted ResNet. They write classes in one set of orthogonal directions, A, in
another, B, or in the sums of both, AB; K where no class is."""


@dataclass(frozen=True)
class ResNetBlueprint:
    """What to plant: a condition of `RESNETS`, and a seed of glyphs, directions and training."""

    condition: str
    seed: int = 0
    tier: ClassVar[str] = "ResNet"
    dose: ClassVar[None] = None

    def __post_init__(self) -> None:
        given = [self.condition]
        check_known("plant a ResNet", "condition", given, RESNETS, SpecificationError)


@dataclass(frozen=True, eq=False)
class ChannelTruth:
    """The channels by which the class is told in one domain, as a mask for each site.

    `masks` names every site of the stem and of the bottlenecks, `[channel]`, true for each channel
    of the part that serves the domain. They may hold channels that never move.
    """

    masks: Mapping[str, np.ndarray]

    @property
    def channels(self) -> frozenset[tuple[str, int]]:
        """The same as pairs (site, channel)."""
        return frozenset(
            (site, int(place)) for site, mask in self.masks.items() for place in np.nonzero(mask)[0]
        )


@dataclass(frozen=True, eq=False)
class PlantedResNet:
    """A ResNet with its world, its classes' directions and its true circuits.

    `source` is an open_clip `ModifiedResNet` in float64 and in eval mode, `classes` are
    `[class d_embed]`.
    """

    blueprint: ResNetBlueprint
    source: ModifiedResNet
    classes: Float[Tensor, "class d_embed"]
    truths: dict[str, ChannelTruth]

    @property
    def world(self) -> World:
        """Where the pictures come from that the model was made for."""
        return World(self.blueprint.seed)

    @property
    def classifier(self) -> Classifier:
        """The classes as a zero-shot head: plain cosines."""
        return Classifier(self.classes, CLASSES)

    def truth(self, domain: str) -> ChannelTruth:
        """The circuit that tells the classes in a domain; `DataError` for an unknown domain."""
        check_known("say the truth", "domain", [domain], self.truths)
        return self.truths[domain]


def plant_resnet(blueprint: ResNetBlueprint, *, steps: int = STEPS) -> PlantedResNet:
    """Train two narrow ResNets on the world's pictures, and merge them into one.

    `all shared`: the first tells the class in both domains; the second tells K, in directions that
    no class has, and so quietly that no cosine feels it. `all separate`: the first tells the class
    in domain A and says nothing in B, the second the reverse; the embedding is their sum. A class's
    direction is the sum of two orthogonal ones: A's network writes the first, B's the second, a
    shared one both. `separate, one direction`: both networks write the sum.

    In training K says nothing about the class. About seventeen seconds on one core, for 220 steps
    (`steps`) of each network; fewer may not reach what `certify_channels` asks for. Raises
    `SpecificationError` for less than one step.

    >>> planted = plant_resnet(ResNetBlueprint("all separate"), steps=1)
    >>> planted.source(planted.world.draw("p3 q0", "B", 2)).shape
    torch.Size([2, 32])
    >>> a, b = (planted.truth(domain).channels for domain in "AB")
    >>> ("layer1.0.hook_resid_post", 0) in a, len(a) == len(b), a & b
    (True, True, frozenset())
    """
    if steps < 1:
        raise SpecificationError(
            "plant a ResNet", f"{steps} steps", "1 or more", f"take {STEPS}, the default"
        )
    parts, seed = RESNETS[blueprint.condition], blueprint.seed
    pool, directions = Pool(World(seed), seed=seed), planted_directions(seed)
    directions["K"] = WHISPER * directions["free"][: PARTS["K"]]
    networks = []
    for number, part in enumerate(parts):
        network = train_part(part.task, pool, seed=len(parts) * seed + number, steps=steps)
        networks.append(_writing(network, directions[part.writes]))
    merged = merge(networks)
    truths = {domain: _truth(merged, parts, domain) for domain in DOMAINS}
    return PlantedResNet(blueprint, merged, directions["AB"], truths)


@torch.no_grad()
def _writing(network: ModifiedResNet, directions: Tensor) -> ModifiedResNet:
    """The same network, with its outputs written along directions of a common embedding."""
    pool: Any = network.attnpool
    last: Any = skip_init(nn.Linear, pool.c_proj.in_features, D_EMBED, dtype=directions.dtype)
    last.weight.copy_(directions.T @ pool.c_proj.weight)
    last.bias.copy_(pool.c_proj.bias @ directions)
    pool.c_proj, network.output_dim = last, D_EMBED
    return network


def _truth(merged: ModifiedResNet, parts: Sequence[MergedPart], domain: str) -> ChannelTruth:
    """The channels of the parts that tell the class in a domain."""
    serves = [part.task.tells == "class" and domain in part.task.serves for part in parts]
    return ChannelTruth(
        {
            site: np.repeat(serves, space.width // len(parts))
            for space in spaces(merged)
            for site in space.sites
        }
    )
