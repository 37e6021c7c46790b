"""Planted models of every kind: made by a blueprint, disguised, certified, with their true
circuits.

The true circuits are edges and neurons of a transformer, or channels of a ResNet.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import or_
from typing import Any, ClassVar, Generic, Protocol, TypedDict, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from interp.circuits.planted.world import CLASSES, World, as_tensor, paint
from interp.circuits.tasks.metrics import Metric, Target
from interp.core.classifiers import Classifier
from interp.core.errors import SpecificationError, check_known
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.core.tower import Tower


@runtime_checkable
class PlantedTruth(Protocol):
    """The circuit of one domain, or of a class in it; `|` is the circuit of both."""

    @property
    def units(self) -> Mapping[str, frozenset[object]]:
        """The names of what is in the circuit, by the kind of unit (`edge`, `channel`, ...)."""
        ...

    def at(self, site: str) -> frozenset[int]:
        """The places of the units at a site that are in the circuit."""
        ...

    def __or__(self, other: Any) -> Any: ...


SomeTruth = TypeVar("SomeTruth", bound=PlantedTruth)


def union(truths: Sequence[SomeTruth]) -> SomeTruth:
    """The circuit of several classes: whatever is in that of one."""
    return reduce(or_, truths)


class MarginTask(TypedDict):
    """Pictures, their partners, and the margin of the true class of the pictures."""

    clean: Tensor
    corrupt: Tensor
    metric: Metric


Edge = tuple[str, str]
Neuron = tuple[int, int]


@dataclass(frozen=True)
class Truth:
    """The circuit of one domain: what exchanging pictures can reach the logits through.

    `nodes` are `input`, `a{layer}.h{head}`, `m{layer}`, `logits`; `edges` pairs of them, where a
    head as receiver says which of its inputs is meant, `a1.h0<k>`; `neurons` are (layer, neuron).
    What is the same in all pictures, such as the class token's query or the domain's cue, is no
    part of a circuit; and an edge into `<k>` shows only between pictures that differ in where the
    glyphs are. Nodes of `backup` do each other's work: the margin falls when all of them are
    exchanged at once, and not for one alone. The edges of `cue` find the patch with the cue: they
    show only between pictures that differ in where that is, and their head as a node never.
    """

    edges: frozenset[Edge]
    neurons: frozenset[Neuron]
    backup: frozenset[str] = frozenset()
    cue: frozenset[Edge] = frozenset()

    @cached_property
    def nodes(self) -> frozenset[str]:
        """What the edges connect."""
        return frozenset(name.split("<")[0] for edge in self.edges for name in edge)

    def at(self, site: str) -> frozenset[int]:
        """The neurons of a site, such as `blocks.2.mlp.hook_post`."""
        layer = int(site.split(".")[1])
        return frozenset(neuron for place, neuron in self.neurons if place == layer)

    @property
    def units(self) -> dict[str, frozenset[str]]:
        """The names of edges, those that find the cue among them, and of nodes."""
        edges = frozenset(f"{sender}->{reader}" for sender, reader in self.edges | self.cue)
        return {"edge": edges, "node": self.nodes}

    def __or__(self, other: "Truth") -> "Truth":
        return Truth(
            self.edges | other.edges,
            self.neurons | other.neurons,
            self.backup | other.backup,
            self.cue | other.cue,
        )

    def renamed(
        self, heads: Mapping[str, str], neurons: Mapping[int, Mapping[int, int]]
    ) -> "Truth":
        """The same circuit where heads have other names, and neurons other places, by layer.

        >>> truth = Truth(frozenset({("m0", "a1.h0<v>")}), frozenset({(0, 2)}))
        >>> moved = truth.renamed({"a1.h0": "a1.h3"}, {0: {2: 7}})
        >>> sorted(moved.edges), sorted(moved.neurons)
        ([('m0', 'a1.h3<v>')], [(0, 7)])
        """

        def rename(node: str) -> str:
            name, mark, rest = node.partition("<")
            return heads.get(name, name) + mark + rest

        def rename_all(edges: Iterable[Edge]) -> frozenset[Edge]:
            return frozenset((rename(sender), rename(reader)) for sender, reader in edges)

        return Truth(
            rename_all(self.edges),
            frozenset((layer, neurons[layer][place]) for layer, place in self.neurons),
            frozenset(rename(node) for node in self.backup),
            rename_all(self.cue),
        )


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

    def at(self, site: str) -> frozenset[int]:
        """The channels of a site."""
        return frozenset(place for name, place in self.channels if name == site)

    @property
    def units(self) -> dict[str, frozenset[tuple[str, int]]]:
        """The channels, as what may be found."""
        return {"channel": self.channels}

    def __or__(self, other: "ChannelTruth") -> "ChannelTruth":
        return ChannelTruth({site: mask | other.masks[site] for site, mask in self.masks.items()})

    def renamed(self, orders: Mapping[str, np.ndarray]) -> "ChannelTruth":
        """The same circuit where channels stand in another order: the old place of each new one."""
        return ChannelTruth({site: mask[orders[site]] for site, mask in self.masks.items()})


TowerOpener = Callable[[nn.Module], Tower]
"""Opens an open_clip image tower for hooks, such as `HookedViT`."""


@dataclass(frozen=True)
class Outlook:
    """Where measures look in a kind of planted model.

    `streams` are the sites where codes are compared, `added` those that are transplanted, at the
    `place`, or pooled by `pool`. `neurons` are the sites whose units, along `axis`, make a circuit.
    """

    streams: tuple[str, ...]
    added: tuple[str, ...]
    place: Mapping[str, int]
    pool: str
    neurons: str
    axis: str


@dataclass(frozen=True)
class PlantedBlueprint(ABC):
    """What to plant: a condition, which says what the domains share, and a seed.

    The seed is that of glyphs, directions, decoys and training. `dose` is the share of classes in
    common, in the condition `dose`, and `tier` says how hard the model is to read, or its kind.
    """

    condition: str
    seed: int = 0
    dose: float | None = None
    tier: str = "easy"
    outlook: ClassVar[Outlook]
    conditions: ClassVar[Collection[str]]

    def __post_init__(self) -> None:
        asked, given = "plant a model", [self.condition]
        check_known(asked, "condition", given, self.conditions, SpecificationError)

    @property
    def world(self) -> World:
        """Where the pictures come from."""
        return World(self.seed)

    @abstractmethod
    def make(self, open_tower: TowerOpener) -> "PlantedModel":
        """The model, undisguised; `open_tower` is for those that are trained with exchanges."""


@dataclass(frozen=True, eq=False)
class PlantedModel(ABC, Generic[SomeTruth]):
    """An image tower with its world, its classes' directions and its true circuits.

    `source` is open_clip's, in float64 and in eval mode, `classes` are `[class d_embed]`, and
    `by_class` has for each domain the circuit of every class.
    """

    blueprint: PlantedBlueprint
    source: Any
    classes: Float[Tensor, "class d_embed"]
    by_class: dict[str, tuple[SomeTruth, ...]]

    @property
    def world(self) -> World:
        """Where the pictures come from that the model was made for."""
        return self.blueprint.world

    @property
    def classifier(self) -> Classifier:
        """The classes as a zero-shot head: plain cosines."""
        return Classifier(self.classes, CLASSES)

    @property
    def truths(self) -> dict[str, SomeTruth]:
        """For each domain the circuit that tells its classes."""
        return {domain: union(truths) for domain, truths in self.by_class.items()}

    def truth(self, domain: str, label: str | None = None) -> SomeTruth:
        """The circuit that tells the classes in a domain, or the one that tells a class.

        Raises `DataError` for an unknown domain or class.
        """
        check_known("say the truth", "domain", [domain], self.by_class)
        if label is None:
            return union(self.by_class[domain])
        check_known("say the truth", "class", [label], CLASSES)
        return self.by_class[domain][CLASSES.index(label)]

    preprocess = staticmethod(as_tensor)

    def pictures(self, n: int, *, seed: int = 0) -> ImageTable:
        """`n` pictures of each class in both domains, which `preprocess` makes tensors: `paint`."""
        return paint(self.world, n, seed=seed)

    def task(self, n: int, *, domain: str, aligned: bool = True, seed: int = 0) -> MarginTask:
        """What a patched run takes: `n` clean pictures, partners of other classes, and a metric.

        Aligned partners differ in their class alone; others are other pictures altogether. The
        metric is the clean class's margin.
        """
        scenes = self.world.scenes(n, domain=domain, seed=seed)
        others = scenes.of_other_class(seed=seed)
        if not aligned:
            labels = others.label.tolist()
            others = self.world.scenes(n, domain=domain, labels=labels, seed=seed + 1)
        clean, corrupt = self.world.render(scenes), self.world.render(others)
        metric = Metric("margin", Target(self.classifier, scenes.label))
        return {"clean": clean, "corrupt": corrupt, "metric": metric}

    def ways(self, domain: str) -> list[tuple[list[int], SomeTruth]]:
        """The classes that go the same way in a domain, by their places, and their circuit."""
        groups: dict[frozenset[tuple[str, frozenset[object]]], list[int]] = {}
        for number, truth in enumerate(self.by_class[domain]):
            groups.setdefault(frozenset(truth.units.items()), []).append(number)
        own = self.by_class[domain]
        return [(numbers, union([own[i] for i in numbers])) for numbers in groups.values()]

    def moved(self, source: nn.Module, rename: Callable[[SomeTruth], SomeTruth]) -> Any:
        """The same function in another tower, where the parts of circuits have other names."""
        by_class = {domain: tuple(map(rename, truths)) for domain, truths in self.by_class.items()}
        return replace(self, source=source, by_class=by_class)

    @abstractmethod
    def disguised(self, seed: int) -> Any:
        """The same function with other weights; see `interp.circuits.planted.weights`."""

    @abstractmethod
    def certify(self, tower: Tower, *, n: int = 16, seed: int = 0) -> Table:
        """Hold every part against exact interchange; `tower` is `source`, opened for hooks."""


def check_some_steps(asked: str, steps: int, default: int) -> None:
    """Refuse to train for less than one step: `SpecificationError`."""
    if steps < 1:
        raise SpecificationError(asked, f"{steps} steps", "1 or more", f"take {default}")
