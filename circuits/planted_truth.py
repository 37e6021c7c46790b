"""What is true of a planted model: the circuits by which it tells classes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

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


def union(truths: Iterable[Truth]) -> Truth:
    """The circuit of several classes: whatever is in that of one."""
    first, *others = truths
    for other in others:
        first = first | other
    return first
