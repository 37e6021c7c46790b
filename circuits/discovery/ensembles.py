"""Ensembles: several ways to score the parts of a model, put together by rank."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from interp.circuits.discovery.hard_gates import class_places


def mean_ranks(
    ways: Sequence[np.ndarray],
    labels: Sequence[object] | np.ndarray | None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """The mean over ways of the rank of |a class's mean score|, 0 to 1, `[example part]`.

    Units of the ways differ, ranks compare. `groups` are ranked each on its own, where given; every
    example has the ranks of its class.

    >>> mean_ranks([np.array([[1.0, -3.0, 2.0]]), np.array([[20.0, 30.0, 10.0]])], None).tolist()
    [[0.25, 1.0, 0.25]]
    """
    place = class_places(labels, len(ways[0]))
    whole = np.zeros(ways[0].shape[1]) if groups is None else groups
    ranks = np.zeros((place.max() + 1, ways[0].shape[1]))
    for values in ways:
        for number, own in enumerate(ranks):
            size = np.abs(values[place == number].mean(axis=0))
            for group in np.unique(whole):
                here = whole == group
                own[here] += (rankdata(size[here]) - 1) / max(here.sum() - 1, 1) / len(ways)
    return ranks[place]
