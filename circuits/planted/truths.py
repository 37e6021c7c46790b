"""The true circuits of planted models: edges and neurons of a transformer, channels of a ResNet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np


@runtime_checkable
class PlantedTruth(Protocol):
    """The circuit of one domain, or of a class in it; `|` is the circuit of both."""

    @property
    def units(self) -> Mapping[str, frozenset[Any]]:
        """The names of what is in the circuit, by the kind of unit (`edge`, `channel`, ...)."""
        ...

    def __or__(self, other: Any) -> Any: ...


SomeTruth = TypeVar("SomeTruth", bound=PlantedTruth)


def union(truths: Sequence[SomeTruth]) -> SomeTruth:
    """The circuit of several classes: whatever is in that of one."""
    return reduce(or_, truths)


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

    @property
    def units(self) -> dict[str, frozenset[tuple[str, int]]]:
        """The channels, as what may be found."""
        return {"channel": self.channels}

    def __or__(self, other: "ChannelTruth") -> "ChannelTruth":
        return ChannelTruth({site: mask | other.masks[site] for site, mask in self.masks.items()})

    def renamed(self, orders: Mapping[str, np.ndarray]) -> "ChannelTruth":
        """The same circuit where channels stand in another order: the old place of each new one."""
        return ChannelTruth({site: mask[orders[site]] for site, mask in self.masks.items()})
