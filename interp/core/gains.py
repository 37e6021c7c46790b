"""Does a number help to foretell another, beyond what else is known, where it was left out?"""

from collections.abc import Sequence

import numpy as np

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
