"""Reliability of numbers "mixture domain block": the share of their variance that is no noise.

And which of these numbers can be compared, where some are missing.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp.core.errors import SampleError, ShapeError

HALVES, BLOCKS, INTERVALS = "halves of drawings", "blocks", "intervals"
"""What reliability was known from."""

RELIABLE = 0.6
"""The least share of the variance of a number that must not be noise."""

Panel = Float[np.ndarray, "mixture domain block"]


def panels(
    asked: str, sharing: ArrayLike, accuracy: ArrayLike, given: ArrayLike | None
) -> list[np.ndarray]:
    """Tables "mixture domain block" of sharing, accuracy and what is given, of one shape."""
    tables = [np.asarray(each, float) for each in (sharing, accuracy, given) if each is not None]
    shapes = {each.shape for each in tables}
    if len(shapes) > 1 or tables[0].ndim != 3:
        right = "one shape, mixture by domain by block"
        do = "give a number per mixture, domain and block, NaN where none was measured"
        raise ShapeError(asked, f"shapes {sorted(shapes)}", right, do)
    return tables


def centred(values: Panel) -> Panel:
    """Values less their cell's mean and their fold's mean (a block in a domain).

    >>> centred(np.array([[[1.0, 2.0]], [[3.0, 5.0]]])).ravel().tolist()
    [0.25, -0.25, -0.25, 0.25]
    """
    cell, fold = values.mean(axis=2, keepdims=True), values.mean(axis=0, keepdims=True)
    return values - cell - fold + values.mean(axis=(0, 2), keepdims=True)


def of_halves(first: np.ndarray, second: np.ndarray) -> float:
    """Reliability of the mean of two numbers that share no pictures: cov / var of their mean.

    Both are residuals, with what is of no interest taken out. It is about the mean as it was
    measured, not about twice as many drawings (no Spearman-Brown), and 0 where halves disagree.

    >>> of_halves(np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 0.0, 1.0]))
    1.0
    """
    mean = (first + second) / 2
    square = float((mean**2).sum())
    return max(float((first * second).sum()) / square, 0.0) if square > 0 else np.nan


def noise_of_cells(values: Panel, square_error: Panel | None = None) -> tuple[float, str]:
    """Squared standard error of a cell's mean over blocks, and what it is known from.

    Two blocks or more: the mean square of what neither cell nor fold explains, over the number of
    blocks. One block: the mean of the squared errors of single models, where they are known; these
    count the choice of classes as well, which mixtures have in common, and so are never too small.
    """
    mixtures, domains, blocks = values.shape
    if blocks > 1 and mixtures > 1:
        free = domains * (mixtures - 1) * (blocks - 1)
        return float((centred(values) ** 2).sum()) / free / blocks, BLOCKS
    if square_error is not None and np.isfinite(square_error).any():
        return float(np.nanmean(square_error)) / blocks, INTERVALS
    return np.nan, ""


def of_cells(values: Panel, square_error: Panel | None = None) -> tuple[float, float, str]:
    """Reliability of cell means within their domain, their squared error, and its source.

    1 - squared error / variance of the cell means over mixtures, 0 where it would be less.

    >>> steady = np.array([[[0.1, 0.1]], [[0.5, 0.5]], [[0.9, 0.9]]])
    >>> of_cells(steady)[0]
    1.0
    """
    noise, kind = noise_of_cells(values, square_error)
    means = values.mean(axis=2)
    spread = float(means.var(axis=0, ddof=1).mean()) if len(means) > 1 else np.nan
    return (max(1 - noise / spread, 0.0) if spread > 0 else np.nan), noise, kind


PENALTY = 1.0
"""Of the ridge, on standardised predictors: one cell's worth of doubt."""


def gain(
    outcome: np.ndarray,
    sharing: np.ndarray,
    others: Sequence[np.ndarray],
    left_out: Sequence[np.ndarray],
) -> float:
    """Explained variance of left-out groups that sharing adds to what others explain.

    All are centred residuals, one entry per cell. For each grouping of `left_out` (mixtures, test
    domains) every group is foretold by a ridge fitted to the other groups, with and without
    sharing: R^2 = 1 - sum of squared errors / sum of squares. The least gain over the groupings is
    given, since it must hold for new mixtures and for new domains; NaN where none has two groups.

    >>> x = np.array([-1.0, 0.0, 1.0, -1.0, 0.0, 1.0])
    >>> found = gain(x, x, [], [np.array([0, 0, 0, 1, 1, 1])])
    >>> found > 0.8
    True
    """
    base = [each for each in others if np.isfinite(each).all() and np.abs(each).max() > 1e-12]
    total = float((outcome**2).sum())
    gains = []
    for groups in left_out:
        names = np.unique(groups)
        if len(names) < 2 or total == 0:
            continue
        with_it, bare = (_missed(outcome, each, groups, names) for each in ([sharing, *base], base))
        gains.append((bare - with_it) / total)
    return min(gains) if gains else np.nan


def _missed(
    outcome: np.ndarray, predictors: Sequence[np.ndarray], groups: np.ndarray, names: np.ndarray
) -> float:
    """Sum of squared errors of foretelling each group from the others."""
    if not predictors:
        return float((outcome**2).sum())
    x = np.column_stack(predictors)
    missed = 0.0
    for name in names:
        out = groups == name
        scale = np.sqrt((x[~out] ** 2).mean(axis=0))
        own = x / np.where(scale > 1e-12, scale, np.inf)
        seen = own[~out]
        weights = np.linalg.solve(
            seen.T @ seen + PENALTY * np.eye(x.shape[1]), seen.T @ outcome[~out]
        )
        missed += float(((outcome[out] - own[out] @ weights) ** 2).sum())
    return missed


Kept = tuple[np.ndarray, np.ndarray]


def complete_blocks(tables: Sequence[Panel]) -> Kept:
    """Mixtures and blocks that have every number in every domain, and most to compare.

        (mixtures - 1) (blocks - 1), the independent comparisons, is largest

    and where that is equal, mixtures times blocks. One run without a number then costs its mixture
    or its block, whichever leaves more.

    Args:
        tables: Numbers "mixture domain block", NaN where there is none.

    Returns:
        Which mixtures and which blocks, as two arrays of truth values.

    >>> table = np.zeros((3, 2, 4))
    >>> table[0, 1, 2] = np.nan
    >>> [each.tolist() for each in complete_blocks([table])]
    [[True, True, True], [True, True, False, True]]
    """
    known = np.all([np.isfinite(each).all(axis=1) for each in tables], axis=0)
    shared = {tuple(known.any(axis=0))}
    for row in known:
        shared |= {tuple(row & each) for each in shared}
    found = [(known[:, each].all(axis=1), each) for each in map(np.array, sorted(shared))]

    def size(kept: Kept) -> tuple[int, int]:
        mixtures, blocks = (int(each.sum()) for each in kept)
        return max(mixtures - 1, 0) * max(blocks - 1, 0), mixtures * blocks

    return max(found, key=size)


def measured(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Which mixtures have every number in every domain, in one block at least."""
    known = np.stack([np.isfinite(each).any(axis=2) for each in tables])
    return np.asarray(known.reshape(len(known), len(tables[0]), -1).all(axis=(0, 2)))


def mixture_means(table: Panel) -> np.ndarray:
    """One number per mixture: its cells, centred within their domain, averaged over domains.

    >>> mixture_means(np.array([[[1.0, 3.0], [5.0, 5.0]], [[4.0, 4.0], [9.0, 9.0]]])).tolist()
    [-1.5, 1.5]
    """
    cells = np.nanmean(table, axis=2)
    return np.asarray((cells - cells.mean(axis=0)).mean(axis=1))


def in_common(tables: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same tables "mixture domain block" without blocks that some mixture lacks.

    Means over different blocks differ by the blocks' folds of classes, which are no mixtures.

    Raises:
        SampleError: If mixtures have no block in common in some domain.

    >>> table = np.array([[[1.0, 2.0]], [[3.0, np.nan]]])
    >>> in_common([table])[0].tolist()
    [[[1.0, nan]], [[3.0, nan]]]
    """
    whole = np.all([np.isfinite(each).all(axis=0) for each in tables], axis=0)  # domain block
    if not whole.any(axis=1).all():
        right = "a block that all mixtures have, in every domain"
        do = "train the missing models, or leave mixtures out"
        raise SampleError("correlate mixtures", "mixtures without a block in common", right, do)
    return [np.where(whole, each, np.nan) for each in tables]
