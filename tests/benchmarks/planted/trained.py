"""Vision transformers that were trained to have a circuit, by strict interchange.

They start from random weights and are deployed without masks. Which parts make the class is asked
of them; the directions that these write, and the neurons they use, are left to gradient descent.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from interp.circuits.edges.wire import Wiring, wire
from interp.circuits.planted.conditions import CONDITIONS, TRAINED, Lanes
from interp.circuits.planted.model import (
    Edge,
    Outlook,
    PlantedBlueprint,
    TowerOpener,
    Truth,
    check_some_steps,
)
from interp.circuits.planted.routes import lane_edges
from interp.circuits.planted.stages import BRINGS, COMBINES, SECOND, WRITES, bringing_head, feeding
from interp.circuits.planted.vit import TRANSFORMER_OUTLOOK, Planted
from interp.circuits.planted.weights import HEADS, LAYERS, WIDTH
from interp.circuits.planted.world import (
    CARRIERS,
    CLASSES,
    D_EMBED,
    DOMAINS,
    PATCH,
    SIZE,
    World,
    planted_directions,
)
from interp.core.errors import NumericsError
from interp.core.progress import say
from interp.core.seeds import rng
from tests.benchmarks.planted.interchange_training import (
    STEPS,
    Anatomy,
    CircuitPart,
    blindfold,
    train_strictly,
)
from tests.benchmarks.planted.resnet_training import Pool

NEURONS = 4 * WIDTH

ATTEMPTS = 6
"""Trainings that are begun, from other weights, before a blueprint is given up."""

LANE = NEURONS // 2
"""Neurons of a block that a lane takes: the first half, or where the other domain has that, the
second."""


@dataclass(frozen=True)
class TrainedBlueprint(PlantedBlueprint):
    """What to train: a condition of `TRAINED`, and a seed of glyphs, directions and training."""

    dose: None = field(default=None, init=False)
    tier: str = field(default="trained", init=False)
    outlook: ClassVar[Outlook] = TRANSFORMER_OUTLOOK
    conditions: ClassVar[Collection[str]] = TRAINED

    @property
    def lanes(self) -> Lanes:
        """What the domains share, stage by stage."""
        return CONDITIONS[self.condition]

    def make(self, open_tower: TowerOpener) -> Planted:
        """The model, undisguised: `plant_trained`."""
        return plant_trained(self, open_tower)


def plant_trained(
    blueprint: TrainedBlueprint, open_tower: TowerOpener, *, steps: int = STEPS
) -> Planted:
    """Train a transformer that tells the world's classes by the circuits of a blueprint.

    Heads and blocks do what they do in a model by hand (`interp.circuits.planted.vit.plant`): block
    0's neurons detect P and Q in the patches, two heads of block 1 bring them to the class token,
    the neurons of block 2 (of block 1 in domain B, where it combines on its own) combine them, a
    head of block 3 writes the class. Each lane takes half of a block's neurons. *How* they do it is
    found by descent: see `tests.benchmarks.planted.interchange_training.train_strictly`.

    Where both domains are detected by one lane, the first filters see no difference between their
    carriers, and so nothing behind them can. Where lanes meet later, the shared parts are trained
    to take over what they do in the other domain's picture of the same scene. A model that needs no
    cue does not see it.

    `open_tower` opens the transformer for hooks, such as `HookedViT`. About four minutes on one
    core for the 2,600 `steps`. A training that is stuck on its way, or whose model does not pass
    `certify_truth` in the end, is begun anew from other weights. With fewer steps the model is
    handed out as it is. Raises `SpecificationError` for less than one step, `NumericsError` where
    six trainings came to nothing.

    >>> from interp.models.towers.vit import HookedViT
    >>> planted = plant_trained(TrainedBlueprint("all separate"), HookedViT, steps=1)
    >>> planted.source(planted.world.draw("p3 q0", "B", 2)).shape
    torch.Size([2, 32])
    >>> sorted(planted.truth("A").nodes & planted.truth("B").nodes)
    ['input', 'logits', 'm0']
    """
    check_some_steps("train by strict interchange", steps, STEPS)
    lanes, seed = blueprint.lanes, blueprint.seed
    blind, directions = _blind(lanes), planted_directions(seed)
    truths = {domain: _truth(lanes, domain) for domain in DOMAINS}
    written = ["AB" if lanes.one_output else _lane(lanes.write, domain) for domain in DOMAINS]
    codes = torch.stack([directions[lane] for lane in written]).float()
    pool = Pool(blueprint.world, seed=seed, twins=True)
    for attempt in range(ATTEMPTS):
        again = ATTEMPTS * seed + attempt
        model = _fresh(blueprint.world, lanes, again)
        blindfold(model, blind)
        tower = open_tower(model)
        anatomy = anatomy_of(lanes, truths, wire(tower))
        words: dict[str, Any] = {"blind": blind, "seed": again, "steps": steps}
        if train_strictly(model, tower, anatomy, pool, codes, **words):
            by_class = {domain: (truth,) * len(CLASSES) for domain, truth in truths.items()}
            model = model.double().eval()
            planted = Planted(blueprint, model, directions["AB"], by_class)
            if steps < STEPS or planted.certify(tower).frame["ok"].all():
                return planted
        say(f"{blueprint.condition} {seed}: attempt {attempt + 1} came to nothing, begun anew")
    raise NumericsError(
        "train by strict interchange",
        f"{ATTEMPTS} attempts at {blueprint.condition!r} with seed {seed} that came to nothing",
        "one that finds the circuit",
        "take another seed",
    )


def _lane(stage: Sequence[str], domain: str) -> str:
    """The lane of a stage that serves a domain."""
    [lane] = feeding(stage, domain)
    return lane


def _blind(lanes: Lanes) -> Float[Tensor, "direction 3"]:
    """Directions of RGB that the first filters must not see."""
    unseen = [] if lanes.cued else [CARRIERS["cue"]]
    if len(lanes.detect) == 1:
        unseen.append((CARRIERS["A"] - CARRIERS["B"]) / np.sqrt(2))
    return torch.from_numpy(np.reshape(unseen, (-1, 3))).float()


def _fresh(world: World, lanes: Lanes, seed: int) -> VisionTransformer:
    """An untrained transformer, whose first filters see every glyph in the carriers of each lane.

    They lie along random orthogonal directions of the stream: random filters mostly see noise.
    """
    glyphs = np.concatenate([world.glyphs[part] for part in "PQRK"])
    carriers = [np.sum([CARRIERS[name] for name in lane], axis=0) for lane in lanes.detect]
    seen = [np.multiply.outer(carrier, glyph) for carrier in carriers for glyph in glyphs]
    if lanes.cued:
        seen += [np.multiply.outer(CARRIERS["cue"], glyph) for glyph in world.glyphs["cue"]]
    generator = rng("a fresh transformer", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**31)))
        model = VisionTransformer(SIZE, PATCH, WIDTH, LAYERS, HEADS, 4.0, output_dim=D_EMBED)
    turn = np.linalg.qr(generator.normal(size=(WIDTH, len(seen))))[0]
    with torch.no_grad():
        filters = np.tensordot(turn, np.stack(seen) / PATCH, axes=1)
        model.conv1.weight.copy_(torch.from_numpy(filters))
    for fixed in (model.ln_pre.weight, model.ln_pre.bias, model.ln_post.bias):
        fixed.requires_grad_(False)  # so that a stream can be turned, see `disguise`
    return model


def _truth(lanes: Lanes, domain: str) -> Truth:
    detect, combine = (_lane(stage, domain) for stage in (lanes.detect, lanes.combine))
    neurons = {(0, place + LANE * (detect == "B")) for place in range(LANE)}
    neurons |= {(COMBINES[combine], place) for place in range(LANE)}
    edges = lane_edges(domain, lanes.bring, lanes.combine, lanes.write)
    return Truth(frozenset(edges), frozenset(neurons))


def anatomy_of(lanes: Lanes, truths: Mapping[str, Truth], wiring: Wiring) -> Anatomy:
    """The circuits as parts to exchange, and all that lies outside them.

    What is written before block 1 counts in the patches, and from there on at the class token.
    """
    early = torch.from_numpy(wiring.layers[wiring.edges[:, 0]] <= 0)
    edges = torch.stack([_marked(wiring, truth.edges) for truth in truths.values()])
    edges = edges[:, None] & torch.stack([~early, early])
    neurons = torch.zeros(len(truths), LAYERS, 2, NEURONS, dtype=torch.bool)
    for number, truth in enumerate(truths.values()):
        for layer, place in truth.neurons:
            neurons[number, layer, int(layer == 0), place] = True

    def part(brings: str, stage: Sequence[str], node_of: Callable[[str], str]) -> CircuitPart:
        """An MLP's neurons in the circuit, or what a head sends on; by the lane of each domain."""
        own_edges, own_neurons = torch.zeros_like(edges), torch.zeros_like(neurons)
        for number, domain in enumerate(truths):
            node = node_of(_lane(stage, domain))
            if node.startswith("m"):
                own_neurons[number, int(node[1:])] = neurons[number, int(node[1:])]
            else:
                sent = torch.from_numpy(wiring.edges[:, 0] == wiring.writers.index(node))
                own_edges[number] = edges[number] & sent
        return CircuitPart(brings, len(stage) == 1, own_edges, own_neurons)

    parts = [
        part("PQ", lanes.detect, lambda lane: "m0"),
        part("P", lanes.bring, lambda lane: f"a{BRINGS}.h{bringing_head(lane, 'P')}"),
        part("Q", lanes.bring, lambda lane: f"a{BRINGS}.h{bringing_head(lane, 'Q')}"),
        part("PQ", lanes.combine, lambda lane: f"m{COMBINES[lane]}"),
        part("PQ", lanes.write, lambda lane: f"a{WRITES}.h{SECOND[lane]}"),
    ]
    return Anatomy(wiring, parts, ~edges, ~neurons)


def _marked(wiring: Wiring, edges: Iterable[Edge]) -> Bool[Tensor, "edge"]:
    marked = torch.zeros(wiring.n_edges, dtype=torch.bool)
    marked[[wiring.edge(f"{sender}->{reader}") for sender, reader in edges]] = True
    return marked
