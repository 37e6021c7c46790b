"""How much of one set of features a linear map from another foretells."""

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, ShapeError
from interp.core.seeds import rng
from interp.probes.rows import paired_rows

STRENGTHS = tuple(10.0**power for power in range(-6, 3))
"""Ridge penalties that are tried, as shares of the training rows' total squared length."""


def predictivity(
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """Cross-validated R^2 of ridge regression from `x` to `y`: one direction at a time.

    R^2 = 1 - sum |y - y_hat|^2 / sum |y - mean|^2 over the held-out rows and all features of `y`,
    the mean that of the training rows. 1 is perfect, 0 no better than the mean; without relation
    it is about 0 or a little below. The penalty, one for all features of `y`, is chosen among
    `STRENGTHS` by leave-one-out error within the training rows. Rows of one of the `groups`
    (artists, say, or classes) are never in training and held-out rows at once.

    Shapes: `x` "row d_x", `y` "row d_y". Unitless, at most 1. Raises like `cka`, and `SampleError`
    for fewer than two rows, or fewer groups than one, per fold.

    >>> stream = np.random.default_rng(0)
    >>> x = stream.normal(size=(60, 5))
    >>> round(predictivity(x, x @ stream.normal(size=(5, 3))), 3), predictivity(x[:, :1], x) < 0.5
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


def _folds(n: int, groups: ArrayLike | None, folds: int, seed: int) -> np.ndarray:
    """The fold of each row; whole groups are dealt at random."""
    who = np.arange(n) if groups is None else np.asarray(groups)
    if len(who) != n:
        raise ShapeError(
            "measure predictivity", f"{len(who)} groups for {n} rows", "one per row", "align them"
        )
    names, code = np.unique(who, return_inverse=True)
    if folds < 2 or len(names) < folds:
        raise SampleError(
            "measure predictivity",
            f"{len(names)} groups and folds={folds}",
            "at least two folds, and a group for each",
            "give more groups or fewer folds",
        )
    place = np.empty(len(names), dtype=int)
    place[rng("folds", seed).permutation(len(names))] = np.arange(len(names)) % folds
    return place[code]
