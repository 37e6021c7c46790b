"""How alike the parts of circuits are: overlaps by name, and rewirings that keep the nodes."""

from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.edges.wire import node_of
from interp.core.errors import SpecificationError
from interp.core.faces.doors import door
from interp.core.storage.store import fingerprint

NEGLIGIBLE, QUIET_GROUP = 1e-2, 0.1
"""A unit belongs to no circuit if its |score| is less than this share of the largest of its group,
or, in a group that is so quiet beside the largest of all, than a thousandth of that.

An edge may: attention that is sure of itself has no slope, so edges into its keys have next to no
score."""

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


def dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared units over the mean size of two circuits, `[n m]` from `[n unit]` and `[m unit]`.

    The share of units that circuits of one size have in common (Dice 1945, Sørensen 1948);
    Jaccard's index is dice / (2 - dice). 0 where both are empty.
    """
    both = a.astype(float) @ b.astype(float).T
    return 2 * both / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1)[None], 1)


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared units over all units of two circuits, `[n m]` from Booleans `[n unit]`, `[m unit]`.

    0 where both are empty.
    """
    both = a.astype(float) @ b.astype(float).T
    return both / np.maximum(a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - both, 1)


def weighted_jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of minima over sum of maxima of |scores|, each scaled to sum to 1 (Ruzicka)."""
    x, y = (np.abs(each) / np.abs(each).sum(axis=1, keepdims=True) for each in (a, b))
    least = np.stack([np.minimum(row, y).sum(axis=1) for row in x])
    return least / (2 - least)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of signed scores: no threshold, and sign counts."""
    x, y = (rankdata(each, axis=1) for each in (a, b))
    x, y = (each - each.mean(axis=1, keepdims=True) for each in (x, y))
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)[None]
    return x @ y.T / scale


MEASURES_OF_OVERLAP: dict[str, tuple[Compare, bool]] = {
    "dice": (dice, True),
    "jaccard": (jaccard, True),
    "weighted jaccard": (weighted_jaccard, False),
    "rank correlation": (rank_correlation, False),
}
"""Every measure by name, and whether it compares the kept units rather than their scores."""

PRIMARY_OVERLAP = "dice"
"""The overlap by which rung R5 is judged: the share of parts in common. Others stand beside it."""


def best_of_groups(
    means: np.ndarray,
    groups: np.ndarray,
    share: float,
    *,
    signed: bool = False,
    negligible: float = NEGLIGIBLE,
) -> np.ndarray:
    """In each group of units, the share with the largest |score|, rounded up, of those that matter.

    Left out is what is `negligible` (`matters`): otherwise a share of a group in which little
    happens is filled up with units by which nothing goes. Where scores are `signed`, those with the
    largest score, and none that is not above 0.

    >>> best_of_groups(np.array([[5.0, -3.0, 2.0, 1e-9]]), np.array([0, 0, 1, 1]), 1.0).tolist()
    [[True, True, True, False]]
    """
    size = np.maximum(means, 0) if signed else np.abs(means)
    kept = np.zeros(means.shape, dtype=bool)
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        number = int(np.ceil(share * len(places) - 1e-9))
        best = np.argsort(-size[..., places], axis=-1, kind="stable")[..., :number]
        np.put_along_axis(kept, places[best], True, axis=-1)
    return kept & matters(means, groups, negligible) & ((means > 0) | (not signed))


def matters(means: np.ndarray, groups: np.ndarray, negligible: float = NEGLIGIBLE) -> np.ndarray:
    """Which units of a circuit are not negligible beside others of their group and of all.

    >>> matters(np.array([[-4.0, 0.1, 0.03, 0.02]]), np.array([0, 0, 0, 1])).tolist()
    [[True, True, False, True]]
    """
    size = np.abs(means)
    quiet = QUIET_GROUP * size.max(axis=-1, keepdims=True)
    found = np.zeros(means.shape, dtype=bool)
    for group in np.unique(groups):
        own = size[..., groups == group]
        floor = negligible * np.maximum(own.max(axis=-1, keepdims=True), quiet)
        found[..., groups == group] = (own >= floor) & ((own > 0) | (negligible == 0))
    return found


def reach(
    kept: np.ndarray, means: np.ndarray, others: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Which of other scores are as large as the smallest that a circuit keeps in the unit's group.

    >>> kept, means = np.array([[True, True, False]]), np.array([[5.0, -2.0, 1.0]])
    >>> reach(kept, means, np.array([[-3.0, 1.0, 2.0]]), np.zeros(3)).tolist()
    [[True, False, True]]
    """
    found = np.zeros(kept.shape, dtype=bool)
    for group in np.unique(groups):
        here = groups == group
        least = np.where(kept, np.abs(means), np.inf)[..., here].min(axis=-1, keepdims=True)
        found[..., here] = np.abs(others)[..., here] >= least
    return found


def first_of_others(
    own: np.ndarray, taken: np.ndarray, order: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """In each group as many units as a circuit has, those of largest `order` that are not `taken`.

    Fewer where no more are left.

    >>> own, taken = np.array([True, False, False, False]), np.array([True, False, False, True])
    >>> first_of_others(own, taken, np.array([9.0, 1.0, 2.0, 3.0]), np.zeros(4)).tolist()
    [False, False, True, False]
    """
    kept = np.zeros(order.shape, dtype=bool)
    own, taken = (np.broadcast_to(each, order.shape) for each in (own, taken))
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        gone, wanted = taken[..., places], own[..., places].sum(axis=-1, keepdims=True)
        ranked = np.argsort(np.where(gone, np.inf, -order[..., places]), axis=-1, kind="stable")
        first = np.broadcast_to(np.arange(len(places)), gone.shape) < wanted
        chosen = np.zeros_like(gone)
        np.put_along_axis(chosen, ranked, first, axis=-1)
        kept[..., places] = chosen & ~gone
    return kept


def rewire(
    kept: np.ndarray, ends: np.ndarray, groups: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Swap edges at random so that every node keeps its number of edges in every group.

    `kept` are Booleans `[edge]`, `ends` `[edge 2]` the writer and reader of each edge. Two kept
    edges u->v and u'->v' of a group become u->v' and u'->v where both exist and neither is kept
    (Maslov and Sneppen 2002); ten attempts per kept edge.

    >>> ends = np.array([[u, v] for u in range(2) for v in range(2)])
    >>> kept = np.array([True, False, False, True])  # 0->0 and 1->1
    >>> rewire(kept, ends, np.zeros(4), np.random.default_rng(0)).tolist()
    [False, True, True, False]
    """
    places = {(int(u), int(v)): edge for edge, (u, v) in enumerate(ends)}
    rewired = kept.copy()
    for group in np.unique(groups[kept]):
        own = np.flatnonzero(rewired & (groups == group)).tolist()
        if len(own) < 2:
            continue
        for first, second in generator.integers(len(own), size=(10 * len(own), 2)):
            (u, v), (x, y) = ends[own[first]], ends[own[second]]
            one, other = places.get((int(u), int(y))), places.get((int(x), int(v)))
            if one is None or other is None or rewired[one] or rewired[other]:
                continue
            rewired[[own[first], own[second]]] = False
            rewired[[one, other]] = True
            own[first], own[second] = one, other
    return rewired


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
