"""Correlations, and their intervals from the permutations that their p comes from."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

SPEARMAN, PEARSON = 0.5, 0.0
"""How much wider a correlation's error is at the end of its range, on the scale of artanh:
var = (1 + bend r^2) times that of no correlation (Bonett and Wright 2000)."""

ALMOST = 1 - 1e-9

Axes = int | tuple[int, ...] | None


def correlation(
    x: np.ndarray, y: np.ndarray, *, axis: Axes = None, least: float = 1e-15
) -> np.ndarray:
    """Correlations of centred numbers along some axes; NaN where their size is at most `least`.

    >>> float(correlation(np.array([-1.0, 1.0]), np.array([-2.0, 2.0])))
    1.0
    """
    size = np.sqrt((x**2).sum(axis=axis) * (y**2).sum(axis=axis))
    alive = size > least
    return np.where(alive, (x * y).sum(axis=axis) / np.where(alive, size, 1.0), np.nan)


def without(values: np.ndarray, given: np.ndarray, axis: Axes = None) -> np.ndarray:
    """Residuals of values on another number, both centred, along some axes.

    >>> without(np.array([-1.0, 0.0, 1.0]), np.array([-2.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 0.0]
    """
    size = (given**2).sum(axis=axis, keepdims=True)
    share = (values * given).sum(axis=axis, keepdims=True) / np.where(size > 0, size, 1.0)
    return values - np.where(size > 0, share, 0.0) * given


def permuted_interval(
    value: float, drawn: ArrayLike, *, bend: float = PEARSON, largest: float = ALMOST
) -> tuple[float, float]:
    """The correlations that permutations of the study at hand do not rule out.

        {rho : |artanh r - artanh rho| <= q sqrt(1 + bend rho^2)}

    with q the 95 % quantile of |artanh| of the permuted correlations. It leaves out 0 exactly where
    their two-sided p is .05 or less.

    Args:
        value: The correlation r.
        drawn: The correlations of the permutations.
        bend: `SPEARMAN` or `PEARSON`.
        largest: What a perfect correlation counts as.

    Returns:
        Both ends; NaN from fewer than 19 permutations, which have no p of .05.

    >>> drawn = np.linspace(-0.6, 0.6, 999)
    >>> low, high = permuted_interval(0.6, drawn)
    >>> round(low, 3), round(high, 3)
    (0.044, 0.872)
    """
    sizes = np.sort(np.abs(np.asarray(drawn, dtype=float)))[::-1]
    place = int(0.05 * (len(sizes) + 1) + 1e-9)
    if place < 1 or not np.isfinite(value):
        return np.nan, np.nan
    reach = float(np.arctanh(min(sizes[place - 1], largest))) + 1e-9
    low, high = score_ends(np.array([value]), reach, bend=bend, largest=largest)
    return float(low[0]), float(high[0])


def score_ends(
    values: np.ndarray, reach: float, *, bend: float = PEARSON, largest: float = ALMOST
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of intervals whose error is that of the end itself, on the scale of artanh.

    Args:
        values: Correlations.
        reach: How far they reach from no correlation.
        bend: `SPEARMAN` or `PEARSON`.
        largest: What a perfect correlation counts as.

    Returns:
        Lower and upper ends.

    >>> low, high = score_ends(np.array([0.5]), 0.3, bend=SPEARMAN)
    >>> [float(np.round(end[0], 3)) for end in (low, high)]
    [0.24, 0.709]
    """
    z = np.arctanh(np.clip(values, -largest, largest))
    low = high = z
    for _ in range(60):
        low = z - reach * np.sqrt(1 + bend * np.tanh(low) ** 2)
        high = z + reach * np.sqrt(1 + bend * np.tanh(high) ** 2)
    return np.tanh(low), np.tanh(high)


def expected_reach(free: float) -> float:
    """How far permutations of normal numbers reach, 95 % of them, on the scale of artanh.

    Args:
        free: Independent comparisons: numbers less the means that are taken out.

    Returns:
        artanh of the correlation whose p is .05 by Student's t with `free` - 1 degrees of freedom.

    >>> round(float(np.tanh(expected_reach(9))), 3)  # ten mixtures
    0.632
    """
    quantile = float(stats.t.ppf(0.975, free - 1))
    return float(np.arctanh(quantile / np.sqrt(free - 1 + quantile**2)))


def rank_link(x: np.ndarray, y: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
    """(Partial) rank correlations of numbers "... mixture".

    >>> x = np.array([1.0, 2.0, 4.0])
    >>> float(rank_link(x, -x))
    -1.0
    """
    a, b = (ranked(each) for each in (x, y))
    if z is not None:
        a, b = (without(each, ranked(z), axis=-1) for each in (a, b))
    return correlation(a, b, axis=-1, least=1e-9)


def ranked(values: np.ndarray) -> np.ndarray:
    """Centred ranks along the last axis, of values freed of rounding.

    Ties are real: without rounding, centring would break them at random.
    """
    scale = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1e-300)
    ranks = stats.rankdata(np.round(values / scale, 10), axis=-1)
    return ranks - ranks.mean(axis=-1, keepdims=True)


def largest_rho(n: int) -> float:
    """What a perfect order of n numbers counts as: half a swap of neighbours short of 1.

    artanh(1) is infinite; a study whose ranks agree but for one swap would otherwise be all the
    less certain for it.

    >>> round(largest_rho(10), 4)
    0.9939
    """
    return 1 - 6 / (n * (n**2 - 1))
