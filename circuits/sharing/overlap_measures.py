"""How alike the parts of circuits are: overlaps by name, and rewirings that keep the nodes."""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared units over all units of two circuits, `[n m]` from Booleans `[n unit]`, `[m unit]`."""
    both = a.astype(float) @ b.astype(float).T
    return both / (a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - both)


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
    "jaccard": (jaccard, True),
    "weighted jaccard": (weighted_jaccard, False),
    "rank correlation": (rank_correlation, False),
}
"""Every measure by name, and whether it compares the kept units rather than their scores."""

PRIMARY_OVERLAP = "jaccard"
"""The overlap by which rung R5 is judged; the others stand beside it."""


def best_of_groups(
    means: np.ndarray, groups: np.ndarray, share: float, *, signed: bool = False
) -> np.ndarray:
    """In each group of units, the share with the largest |score|, rounded up.

    Where scores are `signed`, those with the largest score, and none that is not above 0.
    """
    size = means if signed else np.abs(means)
    kept = np.zeros(means.shape, dtype=bool)
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        number = int(np.ceil(share * len(places) - 1e-9))
        best = np.argsort(-size[..., places], axis=-1, kind="stable")[..., :number]
        np.put_along_axis(kept, places[best], True, axis=-1)
    return kept & (means > 0) if signed else kept


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
