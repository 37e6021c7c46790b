"""Canonical correlations of two sets of features, averaged in the two customary ways.

Presets for comparison with older results. They need many more rows than dimensions, and are refused
where fewer would force correlations of 1.
"""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, SpecificationError
from interp.probes.representational_similarity.rows import paired_rows

VARIANCE = 0.99
"""The share of variance that SVCCA keeps, as in Raghu et al. 2017."""


def svcca(x: ArrayLike, y: ArrayLike, *, variance: float = VARIANCE) -> float:
    """Mean canonical correlation of the principal components that hold most of the variance.

    Each set is cut to the fewest principal components with a share `variance` of its variance, and
    the canonical correlations of these are averaged (Raghu et al. 2017). Noise reads about
    sqrt(components / rows), not 0.

    Shapes: `x` "row d_x", `y` "row d_y". Unitless, 0 to 1. Raises like `cka`, and `SampleError`
    unless there are more rows than components of both sets together.

    >>> x = np.random.default_rng(0).normal(size=(40, 5))
    >>> round(svcca(x, 3 * x + 1), 6)
    1.0
    """
    if not 0 < variance <= 1:
        raise SpecificationError(
            "measure SVCCA", f"variance={variance}", "a share above 0, at most 1", "say .99"
        )
    a, b = paired_rows(x, y, "SVCCA", at_least=4)
    bases = _axes(a, variance), _axes(b, variance)
    return float(_mean_correlation(*bases, np.arange(len(a))[None])[0])


def svcca_in_orders(
    x: np.ndarray, y: np.ndarray, orders: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """SVCCA of centred features, with the rows of `y` in every order: "order".

    Shapes: `x` "row d_x", `y` "row d_y", `orders` "order row"; no `deal` of the rows is needed.
    """
    return _mean_correlation(_axes(x, VARIANCE), _axes(y, VARIANCE), orders)


def _mean_correlation(a: np.ndarray, b: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Reordering rows reorders scores, so that the components are found once."""
    _refuse_forced("SVCCA", len(a), (a, b))
    return np.linalg.svd(a.T @ b[orders], compute_uv=False).mean(axis=-1)


def pwcca(x: ArrayLike, y: ArrayLike) -> float:
    """Canonical correlations weighted by how much of `x` each canonical direction of `x` holds.

    sum_i w_i rho_i / sum_i w_i, w_i = sum_j |<h_i, x_j>| over the features x_j of `x` with h_i its
    canonical variates (Morcos et al. 2018). Not symmetric: the weights are those of `x`.

    Shapes, unit and errors as for `svcca`, without a cut.

    >>> x = np.random.default_rng(0).normal(size=(40, 5))
    >>> round(pwcca(x, 3 * x + 1), 6)
    1.0
    """
    a, b = paired_rows(x, y, "PWCCA", at_least=4)
    return float(pwcca_in_orders(a, b, np.arange(len(a))[None], np.zeros(len(a)))[0])


def pwcca_in_orders(
    x: np.ndarray, y: np.ndarray, orders: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """PWCCA of centred features, with the rows of `y` in every order: "order".

    Shapes: `x` "row d_x", `y` "row d_y", `orders` "order row"; no `deal` of the rows is needed.
    """
    a, b = _axes(x, 1.0), _axes(y, 1.0)
    _refuse_forced("PWCCA", len(a), (a, b))
    turn, correlations, _ = np.linalg.svd(a.T @ b[orders], full_matrices=False)
    weights = np.abs(turn.swapaxes(-1, -2) @ (a.T @ x)).sum(axis=-1)
    return (weights * correlations).sum(axis=-1) / weights.sum(axis=-1)


def svcca_dimensions(centred: np.ndarray) -> int:
    """How many principal components SVCCA keeps of centred features.

    >>> svcca_dimensions(np.diag([1.0, 1.0, 0.01]))
    2
    """
    return _axes(centred, VARIANCE).shape[1]


def pwcca_dimensions(centred: np.ndarray) -> int:
    """The rank of centred features: PWCCA keeps all of it.

    >>> pwcca_dimensions(np.diag([1.0, 1.0, 0.01]))
    3
    """
    return _axes(centred, 1.0).shape[1]


def _axes(centred: np.ndarray, variance: float) -> np.ndarray:
    """Orthonormal scores "row component" of the leading components, by variance and by rank."""
    scores, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(lengths**2) / (lengths**2).sum()
    kept = int(np.searchsorted(share, variance * (1 - 1e-12))) + 1
    rank = int((lengths > 1e-10 * lengths[0]).sum())
    return scores[:, : min(kept, rank)]


def _refuse_forced(what: str, rows: int, bases: tuple[np.ndarray, np.ndarray]) -> None:
    """Two subspaces of the rows' space meet, whatever the data, once their dimensions exceed it."""
    first, second = (basis.shape[1] for basis in bases)
    if rows <= first + second:
        raise SampleError(
            f"measure {what}",
            f"{rows} rows in {first} and {second} dimensions, where some canonical correlations "
            "are 1 whatever the data",
            f"more than {first + second} rows",
            "give more rows or fewer dimensions, or use cka",
        )
