"""Canonical correlations of two sets of features, averaged in the two customary ways.

Presets for comparison with older results. They need many more rows than dimensions, and are refused
where fewer would force correlations of 1.
"""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, SpecificationError
from interp.probes.rows import paired_rows


def svcca(x: ArrayLike, y: ArrayLike, *, variance: float = 0.99) -> float:
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
    _refuse_forced("SVCCA", len(a), bases)
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).mean())


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
    bases = _axes(a, 1.0), _axes(b, 1.0)
    _refuse_forced("PWCCA", len(a), bases)
    turn, correlations, _ = np.linalg.svd(bases[0].T @ bases[1], full_matrices=False)
    weights = np.abs((bases[0] @ turn).T @ a).sum(axis=1)
    return float(weights @ correlations / weights.sum())


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
