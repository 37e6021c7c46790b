"""Association of two numbers per class: Spearman's correlation, with its evidence."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.errors import ShapeError
from interp.core.seeds import rng
from interp.core.statistics.resampling import jackknife, permutation_p


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
