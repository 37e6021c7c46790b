"""Canonical correlations of two sets of features, averaged in the two usual ways.

They are kept for comparison with older results. They need many more rows than dimensions, and are
refused where too few rows would force correlations of 1.
"""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, SpecificationError
from interp.probes.features.features import paired_rows

VARIANCE = 0.99
"""The share of variance that SVCCA keeps, as in Raghu et al. 2017."""


def svcca(x: ArrayLike, y: ArrayLike, *, variance: float = VARIANCE) -> float:
    """Mean canonical correlation of the leading principal components of two sets (SVCCA).

    Args:
        x: Features "row d_x", one row per picture or class.
        y: Features "row d_y" of the same rows in the same order.
        variance: Share of variance above 0, at most 1. Of each set, the fewest principal components
            that hold it are kept.

    Returns:
        The mean correlation, unitless, 0 to 1.

    Raises:
        SampleError: For fewer than four rows, or no more rows than components of both sets
            together.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, or features that are the same in every row.
        SpecificationError: For a share of variance outside 0 to 1.

    References:
        Raghu et al. 2017, "SVCCA: Singular vector canonical correlation analysis for deep learning
        dynamics and interpretability".

    Notes:
        Without relation it is about sqrt(components / rows), not 0.

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
    """Mean canonical correlation, weighted by what each canonical direction holds of `x` (PWCCA).

        sum_i w_i rho_i / sum_i w_i   with w_i = sum_j |<h_i, x_j>|

    over the canonical variates h_i of `x` and its features x_j.

    Args:
        x: Features "row d_x", one row per picture or class; the weights are its own.
        y: Features "row d_y" of the same rows in the same order.

    Returns:
        The weighted mean correlation, unitless, 0 to 1.

    Raises:
        SampleError: For fewer than four rows, or no more rows than the ranks of both sets together.
        ShapeError: For unequal numbers of rows, or other than two axes.
        NumericsError: For a NaN or infinity, or features that are the same in every row.

    References:
        Morcos et al. 2018, "Insights on representational similarity in neural networks with
        canonical correlation".

    Notes:
        It is not symmetric, since the weights are those of `x`. Unlike `svcca` it keeps all
        components.

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
