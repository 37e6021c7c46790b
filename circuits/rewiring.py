"""Circuits with the same nodes and other edges: what overlap of edges says beyond that of nodes."""

import numpy as np


def rewire(
    kept: np.ndarray, ends: np.ndarray, groups: np.ndarray, stream: np.random.Generator
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
        for first, second in stream.integers(len(own), size=(10 * len(own), 2)):
            (u, v), (x, y) = ends[own[first]], ends[own[second]]
            one, other = places.get((int(u), int(y))), places.get((int(x), int(v)))
            if one is None or other is None or rewired[one] or rewired[other]:
                continue
            rewired[[own[first], own[second]]] = False
            rewired[[one, other]] = True
            own[first], own[second] = one, other
    return rewired
