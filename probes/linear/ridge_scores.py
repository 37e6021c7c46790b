"""Ridge regressions of many labellings of the same rows, and with groups of rows left out."""

from collections.abc import Sequence

import numpy as np


def ridge(train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores "row labelling" of ridge regressions of many labellings of the same rows at once.

    Features are standardised on the rows of `train`, the penalty is one mean eigenvalue of their
    Gram matrix, and labels are centred: the scores have no intercept.

    >>> x = np.array([[-1.0], [1.0]])
    >>> ridge(x, 3 * x, x).tolist()
    [[-2.0], [2.0]]
    """
    z, new = _standardised(train, test)
    if not z.shape[1]:
        return np.zeros((len(test), labels.shape[1]))
    centred = labels - labels.mean(axis=0)
    if len(z) > z.shape[1]:  # the same scores, from a system of features instead of pictures
        return new @ np.linalg.solve(_penalised_scatter(z), z.T @ centred / z.shape[1])
    solved = np.linalg.solve(_penalised_gram(z), centred)
    return new @ (z.T @ solved) / z.shape[1]


def ridge_without(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Scores "row group" of `ridge` on one labelling, each group of training rows left out.

    Groups in sorted order. Features are standardised, and labels centred, as with all rows. With M
    the penalised Gram matrix, H its inverse and a = H y, leaving out the rows B gives the others
    a_A - H_AB H_BB^-1 a_B: no system is solved again. With more pictures than features, H is
    1 - z S^-1 z' / width, with S the penalised scatter of the features, and is never made.

    >>> x = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    >>> ridge_without(x, x[:1], x[:, 0], np.array([0, 0, 1, 1])).round(3).tolist()
    [[-0.667, -0.667]]
    """
    z, new = _standardised(train, test)
    names = np.unique(groups)
    if not z.shape[1]:
        return np.zeros((len(test), len(names)))
    centred = labels - labels.mean()
    if len(z) > z.shape[1]:
        return new @ _weights_without(z, centred, [groups == name for name in names])
    inverse = np.linalg.inv(_penalised_gram(z))
    whole = inverse @ centred
    solved = np.zeros((len(z), len(names)))
    for place, name in enumerate(names):
        out = groups == name
        fix = np.linalg.solve(inverse[np.ix_(out, out)], whole[out])
        solved[~out, place] = whole[~out] - inverse[np.ix_(~out, out)] @ fix
    return new @ (z.T @ solved) / z.shape[1]


def _weights_without(z: np.ndarray, labels: np.ndarray, outs: Sequence[np.ndarray]) -> np.ndarray:
    """Weights "feature group" with each group of rows left out, from a system of features."""
    width = z.shape[1]
    # M = S^-1 / width: all rows weigh M z'y, and S^-1 loses what the rows left out had in it
    inverse = np.linalg.inv(_penalised_scatter(z)) / width
    whole = inverse @ (z.T @ labels)
    found = np.empty((width, len(outs)))
    for place, out in enumerate(outs):
        part = z[out]
        spread = part @ inverse
        fix = np.linalg.solve(np.eye(len(part)) - spread @ part.T, part @ whole - labels[out])
        found[:, place] = whole + spread.T @ fix
    return found


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by the mean and deviation of `train`, without features that do not vary there."""
    mean, scale = train.mean(axis=0), train.std(axis=0)
    varies = scale > 1e-10 * max(float(np.abs(train).max()), np.finfo(float).tiny)
    z, new = ((part - mean)[:, varies] / scale[varies] for part in (train, test))
    return z, new


def _penalised_gram(z: np.ndarray) -> np.ndarray:
    """The Gram matrix, of mean eigenvalue 1, with a penalty of as much."""
    return z @ z.T / z.shape[1] + np.eye(len(z))


def _penalised_scatter(z: np.ndarray) -> np.ndarray:
    """The products of features instead, over as many features, with the same penalty."""
    return z.T @ z / z.shape[1] + np.eye(z.shape[1])
