"""Permutations of whole classes, and p-values that allow for having looked at every layer."""

from functools import lru_cache

import numpy as np

from interp.core.seeds import rng


@lru_cache(maxsize=8)
def class_permutations(n_classes: int, n_permutations: int, seed: int) -> np.ndarray:
    """Random orders of the classes, "permutation class", the same for every layer and measure.

    >>> class_permutations(4, 2, seed=0).shape
    (2, 4)
    """
    stream = rng("class permutations", seed)
    orders = np.stack([stream.permutation(n_classes) for _ in range(n_permutations)])
    orders.flags.writeable = False  # the cache hands the same array to everyone
    return orders


def max_t(value: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """One-sided p per layer, adjusted for the largest of all (Westfall and Young 1993, max-T).

    Every layer is studentised by its own permutations (the observed value among them), and a p is
    the share of permutations whose largest T over layers reaches this layer's T.

    Shapes: `value` "layer", `drawn` "permutation layer" from one stream of permutations.

    >>> max_t(np.array([3.0]), np.array([[1.0], [2.0], [0.0]])).tolist()
    [0.25]
    """
    if not value.size:
        return np.empty(0)
    everything = np.vstack([value[None], drawn])
    spread = everything.std(axis=0)
    t = (everything - everything.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    largest = np.sort(t[1:].max(axis=1))
    # A tie must count as reaching; permutations that give the observed value do so up to rounding.
    reached = len(largest) - np.searchsorted(largest, t[0] - 1e-9, side="left")
    return (1 + reached) / (1 + len(drawn))
