"""Circuits compared as graphs."""

from collections import Counter

import numpy as np

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.edges.wiring import node_of
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.storage.store import fingerprint


@door
def weisfeiler_lehman(a: Circuit, b: Circuit, *, rounds: int = 3) -> float:
    r"""Compare two circuits as graphs, by their counts of Weisfeiler-Lehman labels.

    $k(a, b) = \phi(a) \cdot \phi(b) / (|\phi(a)|\,|\phi(b)|)$, with $\phi$ the counts of all labels
    of all rounds (Shervashidze et al. 2011).

    Args:
        a: A circuit.
        b: Another circuit of the same tower.
        rounds: How often each node's label takes in the labels of the nodes that send to it.

    Returns:
        A cosine: 1 for the same graph, 0 for circuits without a common node.

    Raises:
        SpecificationError: For circuits of towers that are wired differently, an empty circuit, or
            fewer than one round.

    Notes:
        Every node starts with its own name as label. Which input of a head an edge enters counts as
        part of the edge.

    >>> import torch
    >>> from interp.circuits import Chain, wire
    >>> wiring = wire(Chain([torch.nn.Identity(), torch.nn.Identity()]))
    >>> a = Circuit.of(wiring, ["input->m0", "m0->logits"])
    >>> b = Circuit.of(wiring, ["input->m1", "m1->logits"])
    >>> weisfeiler_lehman(a, a), round(weisfeiler_lehman(a, b), 2)
    (1.0, 0.42)
    """
    if a.wiring != b.wiring or not len(a) or not len(b) or rounds < 1:
        raise SpecificationError(
            "compare circuits as graphs",
            f"circuits of {len(a)} and {len(b)} edges, wired alike: {a.wiring == b.wiring}, and "
            f"{rounds} rounds",
            "circuits of one tower, with an edge each, and one round or more",
            "discover both in the same tower",
        )
    counts = [_labels(circuit, rounds) for circuit in (a, b)]
    names = sorted(set(counts[0]) | set(counts[1]))
    x, y = (np.array([count[name] for name in names], dtype=float) for count in counts)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _labels(circuit: Circuit, rounds: int) -> Counter[str]:
    """How often each label stands in the circuit, over all rounds."""
    senders: dict[str, list[tuple[str, str]]] = {node: [] for node in circuit.nodes}
    for edge in circuit.edges:
        sender, reader = edge.split("->")
        senders[node_of(reader)].append((reader, sender))
    labels = {node: node for node in senders}
    counts = Counter(labels.values())
    for _ in range(rounds):
        labels = {
            node: fingerprint(labels[node], sorted((reader, labels[u]) for reader, u in sending))
            for node, sending in senders.items()
        }
        counts.update(labels.values())
    return counts
