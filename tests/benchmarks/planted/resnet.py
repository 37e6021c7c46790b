"""ResNets whose circuits are known: narrow networks, each trained for its own part, merged in one.

A network tells apart nothing that it was not trained to, and in the merged one no other network
reads its channels. So the channels that make the class in a domain are known beforehand.
"""

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn.utils import skip_init

from interp.circuits.planted.certification import certify_channels
from interp.circuits.planted.model import (
    ChannelTruth,
    Outlook,
    PlantedBlueprint,
    PlantedModel,
    TowerOpener,
    check_some_steps,
)
from interp.circuits.planted.world import (
    CARRIERS,
    CLASSES,
    D_EMBED,
    DOMAINS,
    PARTS,
    World,
    planted_directions,
)
from interp.core.errors import SpecificationError
from interp.core.tables import Table
from interp.core.tower import Tower
from tests.benchmarks.planted.resnet_disguise import disguise_resnet, spaces
from tests.benchmarks.planted.resnet_training import STEPS, PartTask, Pool, train_part


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


WHISPER = 0.05
"""Length of what nobody reads, beside a class of length 1: a cosine would feel what is loud."""


@dataclass(frozen=True)
class MergedPart:
    """A narrow network of the merged one: what it tells, and in which directions it writes it.

    It is there in so many `copies`, each of which writes with a `length` of its own. `blind` to a
    domain, it sees nothing of that domain's code, and is as it was trained in the other.
    """

    task: PartTask
    writes: str
    copies: int = 1
    length: float = 1.0
    blind: str = ""

    @property
    def serves(self) -> str:
        """The domains in which it tells something."""
        return "".join(domain for domain in self.task.serves if domain not in self.blind)


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

DOSE_OF_NETWORKS = "dose of networks"
"""The condition in which a share of the networks that tell the class serves both domains.

All are copies of one, of which those for one domain are blind to the other: so no network, and no
channel, does more in its domain than another."""

NETWORKS = 2
"""So many networks tell the class in each domain there."""

RESNET_DOSES = (0.0, 0.5, 1.0)
"""The shares of them that may serve both domains."""


def merged_parts(condition: str, dose: float | None) -> tuple[MergedPart, ...]:
    """The parts of a planted ResNet.

    >>> [part.serves for part in merged_parts("dose of networks", 0.5)]
    ['AB', 'A', 'B', 'AB']
    """
    if condition != DOSE_OF_NETWORKS or dose is None:
        return RESNETS[condition]
    common = round(dose * NETWORKS)
    copies = {"": common, "B": NETWORKS - common, "A": NETWORKS - common}
    tells = PartTask("class", "AB")
    told = [MergedPart(tells, "AB", n, 1 / NETWORKS, blind) for blind, n in copies.items() if n]
    return (*told, MergedPart(PartTask("K", "AB"), "K", length=1 / NETWORKS))


RESNET_OUTLOOK = Outlook(
    streams=tuple(f"layer{stage}.0.hook_resid_post" for stage in range(1, 5)),
    added=(),
    place={},
    pool="mean",
    neurons="layer*.*.hook_resid_post",
    axis="channel",
)
"""Measures look at what each stage hands on, at all places of the map."""


@dataclass(frozen=True)
class ResNetBlueprint(PlantedBlueprint):
    """What to plant: a condition of `RESNETS`, and a seed of glyphs, directions and training.

    Or `dose of networks`, with a dose of 0, .5 or 1.
    """

    tier: str = field(default="ResNet", init=False)
    outlook: ClassVar[Outlook] = RESNET_OUTLOOK
    conditions: ClassVar[Collection[str]] = (*RESNETS, DOSE_OF_NETWORKS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.dose in RESNET_DOSES) != (self.condition == DOSE_OF_NETWORKS):
            raise SpecificationError(
                "plant a ResNet",
                f"{self.condition!r} with dose={self.dose}",
                f"a dose of {', '.join(map(str, RESNET_DOSES))} for {DOSE_OF_NETWORKS!r} alone",
                f'write ResNetBlueprint("{DOSE_OF_NETWORKS}", dose=0.5)',
            )

    def make(self, open_tower: TowerOpener) -> "PlantedResNet":
        """The model, undisguised: `plant_resnet`, which needs no tower."""
        return plant_resnet(self)


@dataclass(frozen=True, eq=False)
class PlantedResNet(PlantedModel[ChannelTruth]):
    """A ResNet, an open_clip `ModifiedResNet`, of which all classes go by the same channels."""

    def disguised(self, seed: int) -> "PlantedResNet":
        """The same function with other weights: `disguise_resnet`."""
        source, orders = disguise_resnet(self.source, seed)
        return self.moved(source, lambda truth: truth.renamed(orders))

    def certify(self, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
        """Hold channels against exact interchange: `certify_channels`."""
        return certify_channels(self, tower, n=n, seed=seed)


def plant_resnet(blueprint: ResNetBlueprint, *, steps: int = STEPS) -> PlantedResNet:
    """Train narrow ResNets on the world's pictures, and merge them into one.

    `all shared`: the first tells the class in both domains; the second tells K, in directions that
    no class has, and so quietly that no cosine feels it. `all separate`: the first tells the class
    in domain A and says nothing in B, the second the reverse; the embedding is their sum. A class's
    direction is the sum of two orthogonal ones: A's network writes the first, B's the second, a
    shared one both. `separate, one direction`: both networks write the sum. `dose of networks`: of
    the two networks that tell the class in a domain, each half of it, so many serve both as the
    dose says; all are copies of one, blind to the other domain or not. A further one tells K.

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
    check_some_steps("plant a ResNet", steps, STEPS)
    parts, seed = merged_parts(blueprint.condition, blueprint.dose), blueprint.seed
    pool, directions = Pool(blueprint.world, seed=seed), planted_directions(seed)
    directions["K"] = WHISPER * directions["free"][: PARTS["K"]]
    trained: dict[PartTask, ModifiedResNet] = {}
    networks = []
    for number, part in enumerate(parts):
        if part.task not in trained:
            chosen = len(parts) * seed + number
            trained[part.task] = train_part(part.task, pool, seed=chosen, steps=steps)
        network = _blinded(deepcopy(trained[part.task]), part.blind, blueprint.world)
        networks += [_writing(network, part.length * directions[part.writes])] * part.copies
    merged = merge(networks)
    by_class = {domain: (_truth(merged, parts, domain),) * len(CLASSES) for domain in DOMAINS}
    return PlantedResNet(blueprint, merged, directions["AB"], by_class)


@torch.no_grad()
def _blinded(network: ModifiedResNet, domain: str, world: World) -> ModifiedResNet:
    """The same network, whose first filters see grey for whatever is drawn on a domain's carrier.

    What it says of that domain's pictures, the same of all, is taken off its outputs.
    """
    if not domain:
        return network
    filters: Any = network.conv1.weight
    mean: Any = network.bn1.running_mean
    carrier = torch.from_numpy(CARRIERS[domain]).to(filters)
    seen = torch.einsum("orxy,r,s->osxy", filters, carrier, carrier)
    filters -= seen
    mean -= 0.5 * seen.sum(dim=(1, 2, 3))
    last: Any = network.attnpool.c_proj
    last.bias -= network(world.render(world.scenes(len(CLASSES), domain=domain))).mean(dim=0)
    return network


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
    serves = [
        part.task.tells == "class" and domain in part.serves
        for part in parts
        for _ in range(part.copies)
    ]
    return ChannelTruth(
        {
            site: np.repeat(serves, space.width // len(serves))
            for space in spaces(merged)
            for site in space.sites
        }
    )
