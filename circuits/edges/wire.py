"""The wiring of a tower: what writes to its stream, what reads it, and the edges between them.

Nodes carry the field's names: `input` (the stream that enters block 0), `a3.h5` (a head), `m3` (an
MLP), `logits` (what reads the last stream). A head reads three times, as `a3.h5<q>`, `<k>`, `<v>`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from interp.core.errors import SiteError, SpecificationError, listed, nearest
from interp.core.tower import Component, Tower, Wired, check_evaluation

INPUT, OUTPUT = "input", "logits"


@dataclass(frozen=True)
class Wiring:
    """The writers, readers and edges of a tower, as `wire` finds them.

    Args:
        writers: Names of the writers in the order of the computation, `input` first.
        readers: Names of the readers in the same order, `logits` last.
        seen: For each reader, how many of the writers come before it.

    Notes:
        There is an edge from a writer to every reader that comes after it. Edges are counted reader
        by reader. `edges` lists them as places of a writer and of a reader, `edge 2`.

    >>> from interp.circuits import Chain, wire
    >>> import torch
    >>> for edge in wire(Chain([torch.nn.Identity(), torch.nn.Identity()])).names:
    ...     print(edge)
    input->m0
    input->m1
    m0->m1
    input->logits
    m0->logits
    m1->logits
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    seen: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Wiring({len(self.nodes)} nodes, {self.n_edges:,} edges)"

    @cached_property
    def edges(self) -> np.ndarray:
        """Places of writer and reader of every edge, `[edge 2]`."""
        pairs = [np.stack([np.arange(n), np.full(n, v)], 1) for v, n in enumerate(self.seen)]
        return np.concatenate(pairs)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each reader's edges begin, and last the number of all edges, `reader + 1`."""
        return np.concatenate([[0], np.cumsum(self.seen)])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every edge as `writer->reader`."""
        return tuple(f"{self.writers[u]}->{self.readers[v]}" for u, v in self.edges)

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Every writer, and the output."""
        return (*self.writers, OUTPUT)

    @cached_property
    def owners(self) -> np.ndarray:
        """The place of each reader's node, `reader`."""
        place = {name: number for number, name in enumerate(self.nodes)}
        return np.array([place[node_of(reader)] for reader in self.readers])

    @cached_property
    def layers(self) -> np.ndarray:
        """The block of each node, `node`: -1 for the input, `n_layers` for the output."""
        inner = [int(name[1:].split(".")[0]) for name in self.writers[1:]]
        return np.array([-1, *inner, max(inner, default=-1) + 1])

    @cached_property
    def groups(self) -> np.ndarray:
        """For each edge a number that it shares with all edges between the same two blocks."""
        senders, readers = self.edges.T
        return self.layers[senders] * 1000 + self.layers[self.owners[readers]]

    @property
    def n_edges(self) -> int:
        """The number of edges."""
        return int(self.offsets[-1])

    def edge(self, name: str) -> int:
        """The place of an edge by its name.

        Args:
            name: The edge as `writer->reader`.

        Returns:
            Its number among `names`.

        Raises:
            SiteError: If there is no such edge.
        """
        try:
            return self._places[name]
        except KeyError:
            raise SiteError(
                f"find the edge {name!r}",
                f"a tower of {self.n_edges} edges",
                "a writer and a reader behind it, as in 'm0->a1.h0<v>' or 'input->logits'",
                f"try {nearest(name, self.names)}",
            ) from None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def node_of(reader: str) -> str:
    """The node that a reader belongs to: `a3.h5` of `a3.h5<q>`."""
    return reader.split("<")[0]


def wire(tower: Tower) -> Wiring:
    """Find the writers, readers and edges of a tower.

    Args:
        tower: A tower whose stream is a sum of parts: a ViT, a text transformer or a `Chain`.

    Returns:
        Its wiring.

    Raises:
        SpecificationError: For a tower whose stream is no sum of parts, or whose batch norm or
            dropout is in training mode.

    >>> import torch
    >>> from interp.circuits import Chain
    >>> wire(Chain([torch.nn.Identity()])).names
    ('input->m0', 'input->logits', 'm0->logits')
    """
    check_evaluation(tower, "wire a tower edge by edge")
    writers, readers, seen = [INPUT], [], []
    for component in parts_of(tower):
        readers += component.readers
        seen += [len(writers)] * len(component.readers)
        writers += component.writers
    return Wiring(tuple(writers), (*readers, OUTPUT), (*seen, len(writers)))


def parts_of(tower: Tower) -> Sequence[Component]:
    """The tower's components, or an error that says which towers have some."""
    if not isinstance(tower, Wired):
        raise SpecificationError(
            "wire a tower edge by edge",
            f"a {type(tower).__name__}",
            "a tower whose stream is a sum of what its components add: a ViT or a text transformer",
            "sweep sites or channels instead",
        )
    return tower.components


def check_edges(wiring: Wiring, names: Sequence[str]) -> np.ndarray:
    """Places of edges by name; refuses none at all and unknown ones."""
    if not len(names):
        raise SpecificationError(
            "choose edges",
            "no edge",
            f"one or more of {listed(wiring.names, limit=3)}",
            "name some, or take those of a Circuit",
        )
    return np.array([wiring.edge(name) for name in names])
