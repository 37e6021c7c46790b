"""Agreement up to linear maps: canonical correlations, and how much one map predicts.

Canonical correlations are kept for comparison with older results. They need many more rows than
dimensions, and are refused where too few rows would force correlations of 1.
"""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, ShapeError, SpecificationError
from interp.core.seeds import rng
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


STRENGTHS = tuple(10.0**power for power in range(-6, 3))
"""Ridge penalties that are tried, as shares of the training rows' total squared length."""


def predictivity(
    x: ArrayLike, y: ArrayLike, *, groups: ArrayLike | None = None, folds: int = 5, seed: int = 0
) -> float:
    """Cross-validated R^2 of ridge regression from `x` to `y`.

        R^2 = 1 - sum |y - y_hat|^2 / sum |y - mean|^2

    over the held-out rows and all features of `y`; the mean is that of the training rows.

    Args:
        x: Features "row d_x" that predict.
        y: Features "row d_y" that are predicted, of the same rows in the same order.
        groups: Group of each row, "row", such as its artist or class: rows of one group are never
            in training and held-out rows at once. None makes every row a group of its own.
        folds: Number of folds that groups are dealt into.
        seed: Seed of the random deal into folds.

    Returns:
        R^2, unitless, at most 1: 1 is perfect, 0 no better than the mean.

    Raises:
        SampleError: For fewer than two rows per fold, fewer groups than folds, or fewer than two
            folds.
        ShapeError: For unequal numbers of rows or groups, or other than two axes.
        NumericsError: For a NaN or infinity, or features that are the same in every row.

    Notes:
        It is not symmetric. Without relation it is about 0 or a little below. One penalty serves
        all features of `y`; it is chosen among `STRENGTHS` by leave-one-out error within the
        training rows.

    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(60, 5))
    >>> y = x @ generator.normal(size=(5, 3))
    >>> round(predictivity(x, y), 3), predictivity(x[:, :1], x) < 0.5
    (1.0, True)
    """
    from sklearn.linear_model import RidgeCV

    a, b = paired_rows(x, y, "predictivity", at_least=2 * folds)
    fold = _folds(len(a), groups, folds, seed)
    missed = spread = 0.0
    for each in range(folds):
        train, test = fold != each, fold == each
        centre, level = a[train].mean(axis=0), b[train].mean(axis=0)
        learnt = a[train] - centre
        size = (learnt**2).sum() or 1.0  # constant in the training rows: nothing is foretold
        ridge = RidgeCV(alphas=size * np.array(STRENGTHS), fit_intercept=False)
        ridge.fit(learnt, b[train] - level)
        told = level + ridge.predict(a[test] - centre).reshape(b[test].shape)
        missed += ((b[test] - told) ** 2).sum()
        spread += ((b[test] - level) ** 2).sum()
    return float(1 - missed / spread)


def predictivity_in_orders(
    x: np.ndarray, y: np.ndarray, orders: np.ndarray, deal: np.ndarray
) -> np.ndarray:
    """Predictivity of `y` from `x`, with the rows of `y` in every order, without fitting anew.

    Errors of ridge regression are linear in `y`, so that with K = YY' every sum of squared errors
    (leave-one-out per penalty, held out per penalty, about the mean) is <W, K> with W from `x`
    alone; and an order of the rows of `y` is one of the rows and columns of K.

    Shapes: `x` "row d_x", `y` "row d_y", `orders` "order row", `deal` "row" the fold of each row.
    Gives "order".

    >>> x = np.random.default_rng(0).normal(size=(20, 2))
    >>> predictivity_in_orders(x, 3 * x, np.arange(20)[None], np.arange(20) % 5).round(3).tolist()
    [1.0]
    """
    gram = (y @ y.T)[orders[:, :, None], orders[:, None, :]].reshape(len(orders), -1)
    every = np.arange(len(orders))
    missed, spread = np.zeros((2, len(orders)))
    for each in np.unique(deal):
        inner, held, level = _error_weights(x, deal != each)
        best = (gram @ inner.reshape(len(STRENGTHS), -1).T).argmin(axis=1)
        missed += (gram @ held.reshape(len(STRENGTHS), -1).T)[every, best]
        spread += gram @ level.ravel()
    return 1 - missed / spread


def _error_weights(x: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quadratic forms of one fold: leave-one-out and held-out errors "strength row row", spread.

    With X the training rows less their mean, and XX' = Q diag(v) Q', what ridge leaves of y is
    Q diag(a / (v + a)) Q' y, and leave-one-out errors are that over its diagonal.
    """
    rows = np.eye(len(x))
    mean = rows[train].mean(axis=0)
    less, ahead = rows[train] - mean, rows[~train] - mean
    learnt = less @ x
    size = (learnt**2).sum() or 1.0  # constant in the training rows: nothing is foretold
    values, axes = np.linalg.eigh(learnt @ learnt.T)
    penalty = size * np.array(STRENGTHS)[:, None]
    shrunk = 1 / (np.maximum(values, 0) + penalty)  # strength row
    left = (axes * (penalty * shrunk)[:, None]) @ axes.T
    inner = (left / np.diagonal(left, axis1=1, axis2=2)[:, :, None]) @ less
    held = ahead - ((ahead @ x) @ learnt.T @ axes * shrunk[:, None]) @ (axes.T @ less)
    squares = [each.swapaxes(-1, -2) @ each for each in (inner, held, ahead)]
    return squares[0], squares[1], squares[2]


def dealt_folds(groups: np.ndarray) -> np.ndarray:
    """The fold of each row in `predictivity` of its default, whole groups together.

    >>> np.bincount(dealt_folds(np.arange(11))).tolist()
    [3, 2, 2, 2, 2]
    """
    return _folds(len(groups), groups, 5, 0)


def _folds(n: int, groups: ArrayLike | None, folds: int, seed: int) -> np.ndarray:
    """The fold of each row; whole groups are dealt at random."""
    who = np.arange(n) if groups is None else np.asarray(groups)
    if len(who) != n:
        raise ShapeError(
            "measure predictivity", f"{len(who)} groups for {n} rows", "one per row", "align them"
        )
    names, code = np.unique(who, return_inverse=True)
    if folds < 2 or len(names) < folds:
        given = f"{len(names)} groups and folds={folds}"
        right = "at least two folds, and a group for each"
        raise SampleError("measure predictivity", given, right, "give more groups or fewer folds")
    place = np.empty(len(names), dtype=int)
    place[rng("folds", seed).permutation(len(names))] = np.arange(len(names)) % folds
    return place[code]
