"""How alike two sets of features rank the distances between their rows."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from interp.core.errors import NumericsError, check_known
from interp.probes.rows import paired_rows

DISTANCES = ("correlation", "cosine", "euclidean")


def rsa(x: ArrayLike, y: ArrayLike, *, distance: str = "correlation") -> float:
    """Representational similarity analysis: Spearman's correlation of two sets of dissimilarities.

    The dissimilarities of all pairs of rows, 1 - r ("correlation", r over the features), 1 - cos
    ("cosine") or |x_i - x_j| ("euclidean"), are ranked and correlated (Kriegeskorte et al. 2008).
    0 on average without relation. Rotations leave cosine and euclidean alone; correlation takes
    each row's mean over the features out and so depends on the axes.

    Shapes: `x` "row d_x", `y` "row d_y"; centred first. Unitless, -1 to 1. Memory row^2.

    Raises like `cka`, from four rows on, and `NumericsError` where dissimilarities are undefined
    or all the same.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> noise = np.random.default_rng(1).normal(size=(20, 5))
    >>> round(rsa(x, 3 * x + 1e4), 6), abs(rsa(x, noise)) < 0.3
    (1.0, True)
    """
    check_known("measure RSA", "distance", [distance], DISTANCES)
    a, b = paired_rows(x, y, "RSA", at_least=4)
    overlap = (ranked_distances(a, distance) * ranked_distances(b, distance)).sum()
    return float(np.clip(overlap, -1, 1))


def ranked_distances(centred: np.ndarray, distance: str) -> np.ndarray:
    """Ranks of the dissimilarities, "row row", so scaled that inner products are correlations.

    Symmetric, 0 on the diagonal, sum 0, sum of squares 1.

    >>> ranked_distances(np.array([[0.0], [1.0], [3.0]]), "euclidean").round(2).tolist()
    [[0.0, -0.5, 0.5], [-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]
    """
    if distance != "euclidean":
        _refuse_without_direction(centred, distance)
    apart = pdist(centred, distance)  # type: ignore[call-overload]
    # equal distances must tie, whatever rounding did to them
    ranks = rankdata(np.round(apart / apart.max(), 12)) if apart.max() > 0 else apart
    ranks = ranks - ranks.mean()
    length = np.sqrt(2 * (ranks**2).sum())
    if not length > 0:
        raise NumericsError(
            "measure RSA",
            "rows whose dissimilarities are all the same",
            "rows with some geometry",
            "give more rows or another distance",
        )
    return squareform(ranks / length)


def _refuse_without_direction(centred: np.ndarray, distance: str) -> None:
    """A row without length (or without variance over the features) has no angle to the others."""
    spread = centred - centred.mean(axis=1, keepdims=True) if distance == "correlation" else centred
    flat = np.flatnonzero(np.abs(spread).max(axis=1) <= 1e-10 * np.abs(centred).max())
    if len(flat):
        raise NumericsError(
            f"measure {distance} dissimilarities",
            f"row {flat[0]}, which is the same in every feature",
            "rows that vary over at least two features",
            "leave the row out or take distance='euclidean'",
        )
