"""Is the planted truth true? Exchange every part of a model, one at a time, and read the margin.

An exchange is exact: the part takes the activation that it has in a run on another picture, and
nothing else is changed (resample ablation; Chan et al. 2022).
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.edges.path_patching import edge_effects
from interp.circuits.edges.wiring import wire
from interp.circuits.planted.conditions import Edge, Neuron, Truth, union
from interp.circuits.planted.resnet import ChannelTruth, PlantedResNet
from interp.circuits.planted.vit import Planted
from interp.circuits.planted.world import CLASSES, PARTS, Scenes, World
from interp.circuits.tasks.metrics import Metric, Target
from interp.circuits.units.masked_units import measure_units
from interp.core.errors import SpecificationError, listed
from interp.core.seeds import rng
from interp.core.sites import find_sites
from interp.core.tables import Table
from interp.core.tower import Hook, Tower

INSIDE, OUTSIDE = 0.3, 0.02
"""What an exchange must cost on average inside a circuit, and may move in any picture outside it,
as shares of the mean margin."""

FLOOR = 0.01
"""A mean margin (of cosines) below which a model has nothing to lose, and no truth to certify."""

READ = ("hook_resid_pre", "attn.hook_z", "mlp.hook_post", "hook_mlp_out")
"""What is kept of each block in the runs that exchange parts."""

COLUMNS = ["domain", "class_set", "component", "kind", "inside", "value", "error", "ok"]

Margins = Float[Tensor, "batch"]


def certify_truth(planted: Planted, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
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
    spread evenly over the
    classes. The facts hold the accuracy in each domain.

    Raises `SampleError` for less than one picture, `SiteError` for a tower without heads. Source:
    InterpBench (Gupta et al. 2024) certifies nodes by interchange.
    """
    return _certify("planted_truth", _nodes_and_neurons, planted, tower, n, seed)


def certify_edges(planted: Planted, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
    """Hold every edge of a planted model against exact interchange, as `certify_truth` does nodes.

    An edge takes over only the difference that its sender makes to what its receiver reads; all
    others go on reading the sender as it was. There are 479 edges, and a run for each. Those that
    find the cue (`kind` cue) pass with a value beyond .3 in either direction.

    Raises `SpecificationError` for models whose edges are not felt one by one: with a backup, or
    with circuits of several groups of classes (the same head brings P to both combining blocks, and
    P of one class with Q of another makes a class of the other group).
    """
    if any(
        truths[0].backup or len(class_groups(truths)) > 1 for truths in planted.by_class.values()
    ):
        raise SpecificationError(
            "certify edges one by one",
            f"the condition {planted.blueprint.condition!r}",
            "a model without a backup, all classes of which go the same way",
            "certify its nodes and neurons: certify_truth",
        )
    return _certify("planted_edges", _all_edges, planted, tower, n, seed)


def certify_shared(planted: Planted, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
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
    rows = []
    for domain in planted.by_class:
        scenes = planted.world.scenes(n, domain=domain, seed=2 * seed)
        runs = _Exchange(planted, tower, scenes, scenes.of_other_domain())
        for component, margin in _alike(runs, nodes, neurons, seed):
            value, error = runs.lost(margin)
            ok = error <= OUTSIDE and runs.margin.mean().item() >= FLOOR
            rows.append((domain, "all", component, "shared", True, value, error, ok))
    frame = pd.DataFrame(rows, columns=COLUMNS).assign(n_pictures=n)
    return Table("planted_shared", frame, {"outside": OUTSIDE, "seed": seed})


def _alike(
    runs: "_Exchange", nodes: Collection[str], neurons: Collection[Neuron], seed: int
) -> Iterator[tuple[str, Margins]]:
    generator = rng("halves of shared neurons", seed)
    for node, margin in runs.nodes():
        if node in nodes and node.startswith("a"):
            yield node, margin
    for layer in range(runs.tower.n_layers):
        own = [place for where, place in sorted(neurons) if where == layer]
        if own:
            half = generator.permutation(own)[: len(own) // 2].tolist()
            yield f"m{layer} neurons", runs.neurons(layer, own, inside=True)
            yield f"m{layer} neurons, half", runs.neurons(layer, half, inside=True)


Part = tuple[str, str, bool, Margins]
"""Kind and name of a part, whether it is in the circuit, and the margin with it exchanged."""


def _certify(
    name: str,
    parts: Callable[["_Exchange", Truth], Iterator[Part]],
    planted: Planted,
    tower: Tower,
    n: int,
    seed: int,
) -> Table:
    rows, right = [], {domain: [] for domain in planted.by_class}
    for domain, truths in planted.by_class.items():
        for numbers in class_groups(truths):
            pairs = draw_partners(planted.world, domain, n, seed, numbers)
            runs = _Exchange(planted, tower, *pairs)
            right[domain] += (runs.margin > 0).tolist()
            classes = (
                "all" if len(numbers) == len(CLASSES) else listed([CLASSES[i] for i in numbers])
            )
            for kind, component, inside, margin in parts(runs, union(truths[i] for i in numbers)):
                value, error = runs.lost(margin)
                size = abs(value) if kind == "cue" else value
                passes = size >= INSIDE if inside and kind != "backup" else error <= OUTSIDE
                ok = passes and runs.margin.mean().item() >= FLOOR
                rows.append((domain, classes, component, kind, inside, value, error, ok))
    frame = pd.DataFrame(rows, columns=COLUMNS).assign(n_pictures=n)
    accuracy = {domain: float(np.mean(told)) for domain, told in right.items()}
    facts = {"inside": INSIDE, "outside": OUTSIDE, "accuracy": accuracy, "seed": seed}
    return Table(name, frame, facts)


def class_groups(truths: Sequence[Truth]) -> list[list[int]]:
    """The classes that go the same way, by their places: one list where all do."""
    groups: dict[frozenset[Edge], list[int]] = {}
    for number, truth in enumerate(truths):
        groups.setdefault(truth.edges | truth.cue, []).append(number)
    return list(groups.values())


def _nodes_and_neurons(runs: "_Exchange", truth: Truth) -> Iterator[Part]:
    for node, margin in runs.nodes():
        yield "backup" if node in truth.backup else "node", node, node in truth.nodes, margin
    if truth.backup:
        yield "node", "+".join(sorted(truth.backup)), True, runs.together(truth.backup)
    for layer in range(runs.tower.n_layers):
        own = [place for where, place in sorted(truth.neurons) if where == layer]
        for inside in (True, False) if own else (False,):
            name = f"m{layer} neurons {'inside' if inside else 'outside'}"
            kind = "backup" if inside and f"m{layer}" in truth.backup else "neurons"
            yield kind, name, inside, runs.neurons(layer, own, inside=inside)


def _all_edges(runs: "_Exchange", truth: Truth) -> Iterator[Part]:
    true, cue = (
        {f"{sender}->{receiver}" for sender, receiver in edges}
        for edges in (truth.edges, truth.cue)
    )
    for edge, margin in runs.edges():
        yield "cue" if edge in cue else "edge", edge, edge in true | cue, margin


class _Exchange:
    """A run on pictures of scenes, and one on those of partners, to take parts from."""

    def __init__(self, planted: Planted, tower: Tower, scenes: Scenes, partners: Scenes) -> None:
        world, self.tower, self.n = planted.world, tower, len(scenes)
        sites = [f"blocks.*.{name}" for name in READ]
        self.clean, self.corrupt = world.render(scenes), world.render(partners)
        with torch.no_grad():
            outputs, self.base = tower.run_with_cache(self.clean, names_filter=sites)
            _, self.donor = tower.run_with_cache(self.corrupt, names_filter=sites)
        self.metric = Metric("margin", Target(planted.classifier, scenes.label))
        self.margin = self.metric(outputs)

    def lost(self, margin: Margins) -> tuple[float, float]:
        """What an exchange costs on average, and at most moves, as shares of the mean margin."""
        lost = (self.margin - margin) / self.margin.mean()
        return lost.mean().item(), lost.abs().max().item()

    def nodes(self) -> Iterator[tuple[str, Margins]]:
        """Every head and MLP, and the margins when its output is the donor's."""
        for layer in range(self.tower.n_layers):
            here = f"blocks.{layer}.attn.hook_z"
            values = _by_head(self.base[here], self.donor[here])
            for head, margin in enumerate(self._finish(layer, here, values)):
                yield f"a{layer}.h{head}", margin
            here = f"blocks.{layer}.hook_mlp_out"
            yield f"m{layer}", self._finish(layer, here, [self.donor[here]])[0]

    def together(self, mlps: Collection[str]) -> Margins:
        """The margins when the outputs of several MLPs are the donor's, all at once."""
        layers = sorted(int(name.removeprefix("m")) for name in mlps)
        sites = [f"blocks.{layer}.hook_mlp_out" for layer in layers]
        first, *later = [(site, self.donor[site]) for site in sites]
        return self._finish(layers[0], first[0], [first[1]], later)[0]

    def neurons(self, layer: int, places: list[int], *, inside: bool) -> Margins:
        """The margins when some neurons of a layer, or all others, are the donor's."""
        here = f"blocks.{layer}.mlp.hook_post"
        base, donor = (self.base, self.donor) if inside else (self.donor, self.base)
        value = base[here].clone()
        value[..., places] = donor[here][..., places]
        return self._finish(layer, here, [value])[0]

    def edges(self) -> Iterator[tuple[str, Margins]]:
        """Every edge, and the margins when it alone carries the donor's value: path patching."""
        lost = edge_effects(self.tower, clean=self.clean, corrupt=self.corrupt, metric=self.metric)
        for edge, effect in zip(wire(self.tower).names, lost.T, strict=True):
            yield edge, self.margin - torch.as_tensor(effect).to(self.margin)

    def _finish(
        self,
        layer: int,
        site: str,
        values: Sequence[Tensor],
        also: Sequence[tuple[str, Tensor]] = (),
    ) -> list[Margins]:
        """The margins of the base's run from a block on, for each of the values at a site."""
        start, value = self.base[f"blocks.{layer}.hook_resid_pre"], torch.cat(list(values))
        with torch.no_grad():
            outputs = self.tower.run_with_hooks(
                start.repeat(len(values), 1, 1),
                start_at_layer=layer,
                fwd_hooks=[(name, _replacing(new)) for name, new in ((site, value), *also)],
            )
        return [self.metric(own) for own in outputs.split(self.n)]


def _replacing(value: Tensor) -> Hook:
    return lambda activation, hook: value


def draw_partners(
    world: World,
    domain: str,
    n: int,
    seed: int,
    numbers: Sequence[int] = range(len(CLASSES)),
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


def _by_head(base: Tensor, donor: Tensor) -> list[Tensor]:
    """For each head the activation with that head's part from the donor, the rest as it was."""
    values = []
    for head in range(base.shape[2]):
        value = base.clone()
        value[:, :, head] = donor[:, :, head]
        values.append(value)
    return values


CUTS = ("stem.*", "layer*.*.hook_resid_post")
"""Sites that everything passes through. At others, inside a block, the shortcut goes around."""


def certify_channels(planted: PlantedResNet, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
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
    rows, accuracy, margins = [], {}, {}
    for domain, truth in planted.truths.items():
        scenes, partners = draw_partners(planted.world, domain, n, seed)
        cuts = find_sites(CUTS, tower.sites)
        asked = [(site, inside) for site in truth.masks for inside in (True, False)
                 if site in cuts or not inside]  # fmt: skip
        values, (margin, _) = measure_units(
            tower,
            _kept(truth, asked),
            clean=planted.world.render(scenes),
            corrupt=planted.world.render(partners),
            metric=Metric("margin", Target(planted.classifier, scenes.label)),
            batch_size=n,
        )
        accuracy[domain], margins[domain] = float((margin > 0).mean()), float(margin.mean())
        for (site, inside), lost in zip(asked, (margin - values) / margin.mean(), strict=True):
            value, error = float(lost.mean()), float(np.abs(lost).max())
            passes = value >= INSIDE if inside else error <= OUTSIDE
            kind = f"channels {'inside' if inside else 'outside'}"
            ok = passes and margins[domain] >= FLOOR
            rows.append((domain, site, kind, inside, value, error, ok))
    columns = ["domain", "component", "kind", "inside", "value", "error", "ok"]
    frame = pd.DataFrame(rows, columns=columns).assign(n_pictures=n)
    facts = {"inside": INSIDE, "outside": OUTSIDE, "accuracy": accuracy, "margin": margins,
             "seed": seed}  # fmt: skip
    return Table("planted_channels", frame, facts)


def _kept(truth: ChannelTruth, asked: Sequence[tuple[str, bool]]) -> dict[str, np.ndarray]:
    """For each exchange the channels kept: all, but at its site those outside, or inside."""
    kept = {site: np.ones((len(asked), len(mask)), bool) for site, mask in truth.masks.items()}
    for row, (site, inside) in enumerate(asked):
        kept[site][row] = truth.masks[site] != inside
    return kept
