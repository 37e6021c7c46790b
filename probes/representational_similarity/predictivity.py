"""Linear predictivity: how much of one set of features a linear map from another predicts."""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, ShapeError
from interp.core.seeds import rng
from interp.probes.features.features import paired_rows

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
