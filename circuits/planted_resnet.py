"""ResNets whose circuits are known: narrow networks, each trained for its own part, merged in one.

What a network was not trained to tell it does not tell, and in the merged one nobody else reads its
channels: so the channels that make the class in a domain are known without looking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn.utils import skip_init

from interp.circuits.metrics import Classifier
from interp.circuits.planted_merging import merge, spaces
from interp.circuits.planted_training import STEPS, Pool, Task, train
from interp.circuits.planted_world import CLASSES, D_EMBED, DOMAINS, PARTS, World, class_directions
from interp.core.errors import SpecificationError, check_known

WHISPER = 0.05
"""Length of what nobody reads, beside a class of length 1: a cosine would feel what is loud."""


@dataclass(frozen=True)
class Part:
    """A narrow network of the merged one: what it tells, and in which directions it writes it."""

    task: Task
    writes: str


RESNETS: dict[str, tuple[Part, ...]] = {
    "all shared": (Part(Task("class", "AB"), "AB"), Part(Task("K", "AB"), "K")),
    "all separate": (Part(Task("class", "A"), "A"), Part(Task("class", "B"), "B")),
    "separate, one direction": (Part(Task("class", "A"), "AB"), Part(Task("class", "B"), "AB")),
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
    pool, directions = Pool(World(seed), seed=seed), class_directions(seed)
    directions["K"] = WHISPER * directions["free"][: PARTS["K"]]
    networks = []
    for number, part in enumerate(parts):
        network = train(part.task, pool, seed=len(parts) * seed + number, steps=steps)
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


def _truth(merged: ModifiedResNet, parts: Sequence[Part], domain: str) -> ChannelTruth:
    """The channels of the parts that tell the class in a domain."""
    serves = [part.task.tells == "class" and domain in part.task.serves for part in parts]
    return ChannelTruth(
        {
            site: np.repeat(serves, space.width // len(parts))
            for space in spaces(merged)
            for site in space.sites
        }
    )
