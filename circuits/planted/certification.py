"""Certification of planted truth: exchange every part of a model in turn, and measure the margin.

An exchange is exact: the part takes the activation that it has in a run on another picture, and
nothing else is changed (resample ablation; Chan et al. 2022).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from interp.circuits.edges.path_patch import edge_effects
from interp.circuits.edges.wire import wire
from interp.circuits.planted.model import (
    ChannelTruth,
    MarginTask,
    Neuron,
    PlantedModel,
    SomeTruth,
    Truth,
)
from interp.circuits.planted.world import CLASSES, PARTS, Scenes, World
from interp.circuits.tasks.metrics import Metric, Target
from interp.circuits.units.channel_scores import unit_axis
from interp.circuits.units.unit_faithfulness import measure_units
from interp.core.errors import SpecificationError, listed
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.core.tower import Tower

INSIDE, OUTSIDE = 0.3, 0.02
"""What an exchange must cost on average inside a circuit, and may move in any picture outside it,
as shares of the mean margin."""

FLOOR = 0.01
"""A mean margin (of cosines) below which a model has nothing to lose, and no truth to certify."""

COLUMNS = ["domain", "class_set", "component", "kind", "inside", "value", "error", "ok"]

CUTS = ("stem.*", "layer*.*.hook_resid_post")
"""Sites that everything passes through. At others, inside a block, the shortcut goes around."""


def certify_truth(
    planted: PlantedModel[Truth], tower: Tower, *, n: int = 16, seed: int = 0
) -> Table:
    """Hold a planted model's nodes and neurons against exact interchange, domain by domain.

    The parts are all heads and MLPs; and in each MLP the neurons that belong to the circuit, all
    together, and all others together. Each part in turn takes its activation from a picture of the
    same domain, drawn independently (other places, contrasts, nuisances), whose class shares
    neither P nor Q. With m the margin of the true class before and m' after,

        value = mean(m - m') / mean(m),   error = max |m - m'| / mean(m).

    A part passes (`ok`) inside the circuit with value >= .3, outside with error <= .02; none passes
    in a domain whose mean margin is no more than rounding (below a cosine of .01). Nodes that do
    each other's work, and their neurons, have a rule of their own (`kind` backup): one alone passes
    with error <= .02, and all of them at once (a node, `m1+m2`) with value >= .3.

    Where classes go by circuits of their own, as in the condition `dose`, each group of them
    (`class_set`) is held against its circuit, with partners from the group. `tower` is
    `planted.source`, opened for hooks, such as a `HookedViT`; `n` pictures per domain and group are
    spread evenly over the classes. The facts hold the accuracy and the mean margin in each domain.

    Raises `SampleError` for less than one picture, `SiteError` for a tower without heads. Source:
    InterpBench (Gupta et al. 2024) certifies nodes by interchange.
    """
    return _certify("planted_truth", _units(_nodes_and_neurons), planted, tower, n, seed)


def certify_channels(
    planted: PlantedModel[ChannelTruth], tower: Tower, *, n: int = 16, seed: int = 0
) -> Table:
    """Hold a planted ResNet's channels against exact interchange, domain by domain, site by site.

    At one site all channels of the truth together, or all others together, take their activations
    from a picture of the same domain, drawn independently (other places, contrasts, nuisances),
    whose class shares neither P nor Q; the run goes on from there. With m the margin of the true
    class before and m' after,

        value = mean(m - m') / mean(m),   error = max |m - m'| / mean(m).

    Channels inside pass (`ok`) with value >= .3, channels outside with error <= .02; none passes in
    a domain whose mean margin is below a cosine of .01. Inside is asked only of sites that
    everything passes through (`CUTS`). `tower` is `planted.source`, opened for hooks, such as a
    `HookedResNet`; `n` pictures per domain are spread evenly over the classes. The facts hold the
    accuracy and the mean margin in each domain.

    Raises `SampleError` for less than one picture, `SiteError` for a tower without these sites.
    Source: InterpBench (Gupta et al. 2024) certifies nodes by interchange.
    """
    return _certify("planted_channels", _units(_channels), planted, tower, n, seed)


def certify_edges(
    planted: PlantedModel[Truth], tower: Tower, *, n: int = 16, seed: int = 0
) -> Table:
    """Hold every edge of a planted model against exact interchange, as `certify_truth` does nodes.

    An edge takes over only the difference that its sender makes to what its receiver reads; all
    others go on reading the sender as it was. There are 479 edges, and a run for each. Those that
    find the cue (`kind` cue) pass with a value beyond .3 in either direction.

    Raises `SpecificationError` for models whose edges are not felt one by one: with a backup, or
    with circuits of several groups of classes (the same head brings P to both combining blocks, and
    P of one class with Q of another makes a class of the other group).
    """
    ways = [way for domain in planted.by_class for way in planted.ways(domain)]
    if len(ways) > len(planted.by_class) or any(truth.backup for _, truth in ways):
        given = f"the condition {planted.blueprint.condition!r}"
        right = "a model without a backup, all classes of which go the same way"
        do = "certify its nodes and neurons: certify_truth"
        raise SpecificationError("certify edges one by one", given, right, do)
    return _certify("planted_edges", _edges, planted, tower, n, seed)


def certify_shared(
    planted: PlantedModel[Truth], tower: Tower, *, n: int = 16, seed: int = 0
) -> Table:
    """Hold what both domains go by against an exchange between them: it must change nothing.

    The parts are the heads in the circuit of every class in both domains; and in each MLP the
    neurons that are, all together (`m2 neurons`), and a random half of them. Each takes its
    activation from the same scene in the other domain: same class, places, contrasts and noise. It
    passes (`ok`) with error <= .02, columns as in `certify_truth`. Parts that do one thing by two
    codes, or by neurons of which each serves one domain, do not pass, and neither does what is
    quieter in one domain.

    Raises what `certify_truth` raises.
    """
    every = [truth for truths in planted.by_class.values() for truth in truths]
    nodes = frozenset.intersection(*(truth.nodes for truth in every))
    neurons = frozenset.intersection(*(truth.neurons for truth in every))
    parts = list(_alike(tower, nodes, neurons, seed))
    rows = []
    for domain in planted.by_class:
        scenes = planted.world.scenes(n, domain=domain, seed=2 * seed)
        task = margin_task(planted, scenes, scenes.of_other_domain())
        margin = _margin(tower, task)
        for part, lost in zip(parts, _exchanged(tower, parts, task), strict=True):
            judged = _passes(part.kind, part.inside, lost, margin)
            rows.append((domain, "all", part.name, part.kind, part.inside, *judged))
    frame = pd.DataFrame(rows, columns=COLUMNS).assign(n_pictures=n)
    return Table("planted_shared", frame, {"outside": OUTSIDE, "seed": seed})


@dataclass(frozen=True)
class _Part:
    """A part to exchange: at each site the units that are `taken`, along an axis, or all others."""

    kind: str
    name: str
    inside: bool
    taken: Mapping[str, list[int] | np.ndarray | slice]
    axis: str = "channel"
    others: bool = False


def _alike(
    tower: Tower, nodes: Collection[str], neurons: Collection[Neuron], seed: int
) -> Iterator[_Part]:
    generator = rng("halves of shared neurons", seed)
    for node in wire(tower).writers:
        if node in nodes and node.startswith("a"):
            yield _node("shared", node, True, [node])
    for layer in range(tower.n_layers):
        own = _of_layer(neurons, layer)
        if own:
            half = generator.permutation(own)[: len(own) // 2].tolist()
            for name, places in (("neurons", own), ("neurons, half", half)):
                yield _Part("shared", f"m{layer} {name}", True, {_post(layer): places}, "d_mlp")


def _nodes_and_neurons(tower: Tower, truth: Truth) -> Iterator[_Part]:
    for node in wire(tower).writers[1:]:
        kind = "backup" if node in truth.backup else "node"
        yield _node(kind, node, node in truth.nodes, [node])
    if truth.backup:
        together = sorted(truth.backup)
        yield _node("node", "+".join(together), True, together)
    for layer in range(tower.n_layers):
        own = _of_layer(truth.neurons, layer)
        for inside in (True, False) if own else (False,):
            name = f"m{layer} neurons {'inside' if inside else 'outside'}"
            kind = "backup" if inside and f"m{layer}" in truth.backup else "neurons"
            yield _Part(kind, name, inside, {_post(layer): own}, "d_mlp", others=not inside)


def _channels(tower: Tower, truth: ChannelTruth) -> Iterator[_Part]:
    cuts = find_sites(CUTS, tower.sites)
    for site, mask in truth.masks.items():
        for inside in (True, False) if site in cuts else (False,):
            kind = f"channels {'inside' if inside else 'outside'}"
            yield _Part(kind, site, inside, {site: mask}, others=not inside)


def _node(kind: str, name: str, inside: bool, nodes: Sequence[str]) -> _Part:
    """A head, or one MLP or several."""
    layer, _, head = nodes[0].removeprefix("a").partition(".h")
    if head:
        taken = {f"blocks.{layer}.attn.hook_z": [int(head)]}
        return _Part(kind, name, inside, taken, "head")
    taken = {f"blocks.{node.removeprefix('m')}.hook_mlp_out": slice(None) for node in nodes}
    return _Part(kind, name, inside, taken, "d_model")


def _post(layer: int) -> str:
    return f"blocks.{layer}.mlp.hook_post"


def _of_layer(neurons: Collection[Neuron], layer: int) -> list[int]:
    return [place for where, place in sorted(neurons) if where == layer]


def _exchanged(
    tower: Tower, parts: Sequence[_Part], task: MarginTask
) -> Float[np.ndarray, "part picture"]:
    """What the margin loses when each part is the partner's."""
    n = len(task["clean"])
    lost = np.empty((len(parts), n))
    for axis in dict.fromkeys(part.axis for part in parts):
        places = [place for place, part in enumerate(parts) if part.axis == axis]
        sites = list(dict.fromkeys(site for place in places for site in parts[place].taken))
        with torch.no_grad():
            _, cache = tower.run_with_cache(task["corrupt"][:1], names_filter=sites)
        kept: dict[str, np.ndarray] = {}
        for row, place in enumerate(places):
            for site, taken in parts[place].taken.items():
                width = cache[site].shape[unit_axis(tower, site, axis)]
                here = kept.setdefault(site, np.ones((len(places), width), dtype=bool))[row]
                here[taken] = False
                here ^= parts[place].others
        values, (margin, _) = measure_units(tower, kept, **task, axis=axis, batch_size=n)
        lost[places] = margin - values
    return lost


def _margin(tower: Tower, task: MarginTask) -> np.ndarray:
    with torch.no_grad():
        return task["metric"](tower(task["clean"])).numpy()


def _passes(
    kind: str, inside: bool, lost: np.ndarray, margin: np.ndarray
) -> tuple[float, float, bool]:
    """What an exchange costs on average, and at most moves, in margins; and whether that is ok."""
    share = lost / margin.mean()
    value, error = float(share.mean()), float(np.abs(share).max())
    if inside and kind not in ("backup", "shared"):
        passes = (abs(value) if kind == "cue" else value) >= INSIDE
    else:
        passes = error <= OUTSIDE
    return value, error, bool(passes and margin.mean() >= FLOOR)


Priced = Iterable[tuple[str, str, bool, np.ndarray]]
"""Kind and name of a part, whether it is in the circuit, and what the margin loses with it."""


def _units(parts_of: Callable[[Tower, SomeTruth], Iterator[_Part]]) -> Callable[..., Priced]:
    """The price of each part that consists of units."""

    def priced(tower: Tower, truth: SomeTruth, task: MarginTask) -> Priced:
        parts = list(parts_of(tower, truth))
        for part, lost in zip(parts, _exchanged(tower, parts, task), strict=True):
            yield part.kind, part.name, part.inside, lost

    return priced


def _edges(tower: Tower, truth: Truth, task: MarginTask) -> Priced:
    """The price of every edge that alone carries the partner's value: path patching."""
    cue = {f"{sender}->{reader}" for sender, reader in truth.cue}
    inside = truth.units["edge"]
    for edge, lost in zip(wire(tower).names, edge_effects(tower, **task).T, strict=True):
        yield "cue" if edge in cue else "edge", edge, edge in inside, lost


def _certify(
    name: str, price: Callable[..., Priced], planted: PlantedModel, tower: Tower, n: int, seed: int
) -> Table:
    rows, margins = [], {}
    for domain in planted.by_class:
        told = []
        for numbers, truth in planted.ways(domain):
            scenes, partners = draw_partners(planted.world, domain, n, seed, numbers)
            task = margin_task(planted, scenes, partners)
            margin = _margin(tower, task)
            told.append(margin)
            every = len(numbers) == len(CLASSES)
            classes = "all" if every else listed([CLASSES[i] for i in numbers])
            for kind, component, inside, lost in price(tower, truth, task):
                judged = _passes(kind, inside, lost, margin)
                rows.append((domain, classes, component, kind, inside, *judged))
        margins[domain] = np.concatenate(told)
    frame = pd.DataFrame(rows, columns=COLUMNS).assign(n_pictures=n)
    facts = {
        "inside": INSIDE,
        "outside": OUTSIDE,
        "accuracy": {domain: float((own > 0).mean()) for domain, own in margins.items()},
        "margin": {domain: float(own.mean()) for domain, own in margins.items()},
        "seed": seed,
    }
    return Table(name, frame, facts)


def margin_task(planted: PlantedModel, scenes: Scenes, partners: Scenes) -> MarginTask:
    """Pictures of scenes and of their partners, and the margin of the true class of the scenes."""
    return {
        "clean": planted.world.render(scenes),
        "corrupt": planted.world.render(partners),
        "metric": Metric("margin", Target(planted.classifier, scenes.label)),
    }


def draw_partners(
    world: World, domain: str, n: int, seed: int, numbers: Sequence[int] = range(len(CLASSES))
) -> tuple[Scenes, Scenes]:
    """Scenes of some classes, and others, drawn independently, that share neither P nor Q."""
    scenes = world.scenes(n, domain=domain, labels=numbers, seed=2 * seed)
    generator = rng("certify", seed)
    others = [int(generator.choice(_apart(label, numbers))) for label in scenes.label.tolist()]
    return scenes, world.scenes(n, domain=domain, labels=others, seed=2 * seed + 1)


def _apart(label: int, numbers: Sequence[int]) -> list[int]:
    """The classes among `numbers` that share neither P nor Q with one."""
    p, q = divmod(label, PARTS["Q"])
    return [i for i in numbers if i // PARTS["Q"] != p and i % PARTS["Q"] != q]
