"""Correlations with intervals and p: by leaving units out, or from the permutations of p."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.errors import ShapeError
from interp.core.seeds import rng
from interp.core.statistics.resampling import jackknife, permutation_p

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


@dataclass(frozen=True)
class Association:
    """A rank correlation with its 95 % interval and p; `reason` says why there is none."""

    value: float
    low: float
    high: float
    p: float
    n: int
    reason: str = ""


def spearman(
    first: ArrayLike, second: ArrayLike, *, seed: int = 0, n_permutations: int = 4999
) -> Association:
    """Spearman's rank correlation of two numbers per unit, rank ties averaged.

    The interval is a jackknife over units of Fisher's z = artanh(rho), turned back, so that it
    stays within -1 and 1; p is two-sided, the second number permuted over whole units. Nothing can
    be said with fewer than five units or where a number does not vary. Raises `ShapeError` where
    the two are not of one length.

    >>> found = spearman([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])
    >>> round(found.value, 3), found.p < 0.05
    (0.943, True)
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        given = f"shapes {x.shape} and {y.shape}"
        do = "give one pair of numbers per unit"
        raise ShapeError("correlate two numbers per unit", given, "two lists of one length", do)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    n = len(x)
    if n < 5:
        return Association(np.nan, np.nan, np.nan, np.nan, n, f"{n} units, at least 5 are needed")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        constant = "first" if np.ptp(x) == 0 else "second"
        return Association(
            np.nan, np.nan, np.nan, np.nan, n, f"the {constant} number is the same for all units"
        )
    value = _rho(x, y)
    spread = jackknife(float(_fisher(value)), _fisher(_without_each(x, y)))
    drawn = _permuted(x, y, _orders(len(x), n_permutations, seed))
    return Association(
        value,
        float(np.tanh(spread.low)),
        float(np.tanh(spread.high)),
        permutation_p(abs(value) - 1e-12, np.abs(drawn)),
        n,
        "" if np.isfinite(spread.low) else "without one unit a number does not vary: no interval",
    )


def _rho(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def _without_each(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The correlation without each unit in turn; NaN where a number then does not vary."""
    n = len(x)
    others = np.arange(n)[None].repeat(n, axis=0)[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    a, b = (stats.rankdata(each[others], axis=1) for each in (x, y))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    sizes = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), sizes, out=np.full(n, np.nan), where=sizes > 0)


def _fisher(rho: float | list[float] | np.ndarray) -> np.ndarray:
    """artanh, finite where the ranks agree exactly."""
    return np.asarray(np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9)))


@lru_cache(maxsize=4)
def _orders(n: int, n_permutations: int, seed: int) -> np.ndarray:
    """Orders of `n` units, `permutation unit`: drawn once for all correlations of a study."""
    orders = rng("spearman", seed).permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
    orders.flags.writeable = False
    return orders


def _permuted(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Correlations of x with y in other orders: products of standardised ranks."""
    a, b = (stats.zscore(stats.rankdata(each)) for each in (x, y))
    return b[orders] @ a / len(a)


@dataclass(frozen=True)
class Link:
    """A correlation of accuracy with sharing at one level, and all that a verdict on it rests on.

    value, low, high: the correlation and its 95 % interval; slope: points of accuracy (0 to 1) per
    unit of sharing; n: number of units by name, as in {"mixture": 10}; least: how many of each are
    needed; narrow: which number hardly varies; flips: the mixture without which the sign is
    another; reason: why there is no number.
    """

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    n: Mapping[str, int] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)
    slope: float = np.nan
    reliability: float = np.nan
    reliability_kind: str = ""
    narrow: str = ""
    flips: str = ""
    reason: str = ""
