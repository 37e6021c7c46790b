"""Vision transformers by hand, whose circuits are known: one circuit for both domains, or two.

What finds circuits can be scored on them. They follow Tracr (Lindner et al. 2023), which writes
transformers by hand, and InterpBench (Gupta et al. 2024), which holds methods against them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from interp.circuits import planted_stages as stages
from interp.circuits.metrics import Classifier
from interp.circuits.planted_stages import Lanes, feeding
from interp.circuits.planted_weights import Draft
from interp.circuits.planted_world import CLASSES, DOMAINS, World
from interp.core.errors import SpecificationError, check_known

Edge = tuple[str, str]
Neuron = tuple[int, int]

ONE, TWO = ("AB",), ("A", "B")

CONDITIONS = {
    "all shared": Lanes(detect=ONE, bring=ONE, combine=ONE, write=ONE),
    "all separate": Lanes(detect=TWO, bring=TWO, combine=TWO, write=TWO),
}
"""What the two domains share in a planted model, stage by stage."""


@dataclass(frozen=True)
class Blueprint:
    """What to plant: a condition of `CONDITIONS`, and a seed of glyphs, directions and decoys."""

    condition: str
    seed: int = 0

    def __post_init__(self) -> None:
        given = [self.condition]
        check_known("plant a model", "condition", given, CONDITIONS, SpecificationError)


@dataclass(frozen=True)
class Truth:
    """The circuit of one domain: what exchanging pictures can reach the logits through.

    `nodes` are `input`, `a{layer}.h{head}`, `m{layer}`, `logits`; `edges` pairs of them, where a
    head as receiver says which of its inputs is meant, `a1.h0<k>`; `neurons` are (layer, neuron).
    What is the same in all pictures, such as the class token's query, is no part of a circuit; and
    an edge into `<k>` shows only between pictures that differ in where the glyphs are.
    """

    edges: frozenset[Edge]
    neurons: frozenset[Neuron]

    @cached_property
    def nodes(self) -> frozenset[str]:
        """What the edges connect."""
        return frozenset(name.split("<")[0] for edge in self.edges for name in edge)


@dataclass(frozen=True, eq=False)
class Planted:
    """A vision transformer with its world, its classes' directions and its true circuits.

    `source` is an open_clip `VisionTransformer` in float64, `classes` are `[class d_embed]`.
    """

    blueprint: Blueprint
    source: VisionTransformer
    classes: Float[Tensor, "class d_embed"]
    truths: dict[str, Truth]

    @property
    def world(self) -> World:
        """Where the pictures come from that the model was made for."""
        return World(self.blueprint.seed)

    @property
    def classifier(self) -> Classifier:
        """The classes as a zero-shot head: plain cosines."""
        return Classifier(self.classes, CLASSES)

    def truth(self, domain: str) -> Truth:
        """The circuit that tells the classes in a domain; `DataError` for an unknown domain."""
        check_known("say the truth", "domain", [domain], self.truths)
        return self.truths[domain]


@torch.no_grad()
def plant(blueprint: Blueprint) -> Planted:
    """Write a transformer by hand that tells the world's classes in both domains.

    Block 0's neurons *detect* the glyphs of P and Q in a domain's carrier; block 1's heads *bring*
    them to the class token, one head for P and one for Q; the neurons of block 2 (of block 1 for
    domain B, where it has a lane of its own) *combine* them, class = P and Q; a head of block 3
    *writes* the class's direction. R is ignored; K is carried to the class token by a head of
    block 2, where it can be decoded, and read by nobody. All other heads and neurons are decoys:
    they respond to glyphs, and nothing reads what they write.

    `all shared`: every stage is one for both domains. `all separate`: each stage has a part for
    each domain. Block 0's MLP is then still one node for both, with other neurons for each: a
    measure of nodes sees the separation in the heads and in the blocks that combine, one of edges
    sees it everywhere but in ("input", "m0"), one of neurons sees it there too. The class's
    direction is the sum of two orthogonal ones: domain A writes the first, B the second.

    Scales and layer norms: see `interp.circuits.planted_weights.Draft`. Raises
    `SpecificationError` for an unknown condition. Sources: Tracr (Lindner et al. 2023), InterpBench
    (Gupta et al. 2024).

    >>> planted = plant(Blueprint("all separate", seed=1))
    >>> pictures = planted.world.draw("p3 q0", "B", 2)
    >>> logits = planted.classifier.logits(planted.source(pictures))
    >>> [CLASSES[place] for place in logits.argmax(dim=1)]
    ['p3 q0', 'p3 q0']
    >>> sorted(planted.truth("A").nodes & planted.truth("B").nodes)
    ['input', 'logits', 'm0']
    """
    lanes, world, draft = CONDITIONS[blueprint.condition], World(blueprint.seed), Draft()
    neurons: dict[str, set[Neuron]] = {domain: set() for domain in DOMAINS}
    for lane in lanes.detect:
        _note(neurons, lane, 0, stages.detect(draft, world, lane))
        stages.carry_unread(draft, world, lane)
    for lane in lanes.bring:
        stages.bring(draft, lane, feeding(lanes.detect, lane))
    for lane in lanes.combine:
        found = stages.combine(draft, lane, feeding(lanes.detect, lane))
        _note(neurons, lane, stages.COMBINES[lane], found)
    for lane in lanes.write:
        stages.write(draft, lane, feeding(lanes.combine, lane))
    stages.add_decoys(draft, lanes.detect, seed=blueprint.seed)
    classes = stages.read_out(draft, lanes.write, seed=blueprint.seed)
    truths = {
        domain: Truth(_edges(lanes, domain), frozenset(neurons[domain])) for domain in DOMAINS
    }
    return Planted(blueprint, draft.model, classes, truths)


def _note(neurons: Mapping[str, set[Neuron]], lane: str, layer: int, places: Sequence[int]) -> None:
    for domain in lane:
        neurons[domain].update((layer, place) for place in places)


def _edges(lanes: Lanes, domain: str) -> frozenset[Edge]:
    """The way from the input to the logits, through the lanes that serve a domain."""
    [bring], [combine], [write] = (
        feeding(stage, domain) for stage in (lanes.bring, lanes.combine, lanes.write)
    )
    heads = [f"a{stages.BRINGS}.h{stages.bringing_head(bring, part)}" for part in "PQ"]
    combiner = f"m{stages.COMBINES[combine]}"
    writer = f"a{stages.WRITES}.h{stages.SECOND[write]}"
    edges = [("input", "m0"), (combiner, f"{writer}<v>"), (writer, "logits")]
    for head in heads:
        edges += [("m0", f"{head}<k>"), ("m0", f"{head}<v>"), (head, combiner)]
    return frozenset(edges)
