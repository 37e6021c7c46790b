"""Intervals, nulls and p-values, by resampling.

Resampling is by whole classes (or drawings), never by single pictures or pairs: free permutation of
rows rejects true nulls, and a row bootstrap of a pairwise statistic counts duplicates as agreement.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.seeds import rng


@dataclass(frozen=True)
class Interval:
    """An estimate with its standard error and 95 % interval."""

    value: float
    error: float
    low: float
    high: float


def jackknife(value: float, left_out: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Interval of a statistic from its values with one unit left out at a time.

    se^2 = (n - 1) / n * sum_i (theta_i - mean theta)^2, and value +/- t_{n-1} se (Tukey 1958). It
    serves pairwise statistics such as CKA, for which a bootstrap of rows is wrong.

    >>> jackknife(2.0, [2.5, 2.0, 1.5]).error
    0.5773502691896257
    """
    thetas = np.asarray(left_out, dtype=float)
    n = len(thetas)
    if n < 2 or not np.isfinite(thetas).all() or not np.isfinite(value):
        return Interval(float(value), np.nan, np.nan, np.nan)
    error = float(np.sqrt((n - 1) / n * ((thetas - thetas.mean()) ** 2).sum()))
    return student(value, error, n=n, confidence=confidence)


def student(value: float, error: float, *, n: int, confidence: float = 0.95) -> Interval:
    """value +/- t_{n-1} error, for the standard error of a statistic of n units.

    >>> round(student(1.0, 0.1, n=11).high, 3)
    1.223
    """
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return Interval(float(value), float(error), float(value) - reach, float(value) + reach)


def mean_interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    n_resamples: int = 2000,
) -> Interval:
    """Mean of the groups' means, with a percentile bootstrap interval over whole groups.

    Balanced accuracy is this with the class as group. One group alone has no interval (NaN).

    >>> mean_interval([0, 1, 1, 1], ["cat", "cat", "dog", "dog"], seed=1).value
    0.75
    """
    means = group_means(values, groups)
    if len(means) < 2:
        return Interval(float(means.mean()), np.nan, np.nan, np.nan)
    if np.ptp(means) == 0:  # scipy warns of a degenerate distribution; the interval is a point
        return Interval(float(means[0]), 0.0, float(means[0]), float(means[0]))
    result = stats.bootstrap(
        (means,),
        np.mean,
        confidence_level=confidence,
        method="percentile",
        n_resamples=n_resamples,
        rng=rng("bootstrap", seed),
    )
    return Interval(
        float(means.mean()),
        float(result.standard_error),
        float(result.confidence_interval.low),
        float(result.confidence_interval.high),
    )


def column_intervals(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    n_resamples: int = 2000,
) -> list[Interval]:
    """`mean_interval` of every column of `row column` at once, all from the same resamples.

    Thousands of columns take a matrix product where a loop would take minutes.

    >>> [each.value for each in column_intervals([[0.0, 2.0], [1.0, 4.0]])]
    [0.5, 3.0]
    """
    numbers = np.asarray(values, dtype=float)
    means = np.stack([group_means(column, groups) for column in numbers.T], axis=1)
    n = len(means)
    if n < 2:
        return [Interval(float(mean), np.nan, np.nan, np.nan) for mean in means.mean(axis=0)]
    share = _resampled(n, n_resamples, seed)
    found = []
    for start in range(0, means.shape[1], 1024):  # keeps the resampled means below 20 MB
        block = means[:, start : start + 1024]
        resampled = share @ block
        low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        found += [
            Interval(*map(float, each))
            for each in zip(
                block.mean(axis=0), resampled.std(axis=0, ddof=1), low, high, strict=True
            )
        ]
    return found


@lru_cache(maxsize=4)
def _resampled(n: int, n_resamples: int, seed: int) -> np.ndarray:
    """What share of each resample every one of `n` units makes, `resample unit`.

    A model is asked hundreds of questions about the same classes: their resamples are drawn once.
    """
    return _shares(rng("bootstrap", seed), n, n_resamples)


@lru_cache(maxsize=4)
def _resampled_ways(
    units: int, blocks: int, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same of both ways of a table, each resampled by itself."""
    generator = rng("two-way bootstrap", seed)
    return _shares(generator, units, n_resamples), _shares(generator, blocks, n_resamples)


def _shares(generator: np.random.Generator, n: int, n_resamples: int) -> np.ndarray:
    """The share of every one of `n` in each resample, which spares a copy of the data for each."""
    drawn = generator.integers(n, size=(n_resamples, n))
    share = np.stack([np.bincount(row, minlength=n) for row in drawn]) / n
    share.flags.writeable = False  # every caller has the same one
    return share


def two_way_interval(
    values: ArrayLike, *, confidence: float = 0.95, seed: int = 0, n_resamples: int = 2000
) -> Interval:
    """Mean of a table `unit block`, with a percentile bootstrap over both of its ways at once.

    Units (classes) and blocks (seeds) are resampled independently, and every resample takes the
    cells where they cross. With one block it is a bootstrap over units.

    >>> two_way_interval([[1.0, 1.0], [1.0, 1.0]]).high
    1.0
    """
    cells = np.asarray(values, dtype=float)
    units, blocks = cells.shape
    if units < 2:
        return Interval(float(cells.mean()), np.nan, np.nan, np.nan)
    by_row, by_column = _resampled_ways(units, blocks, n_resamples, seed)
    means = ((by_row @ cells) * by_column).sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(cells.mean()), float(means.std(ddof=1)), float(low), float(high))


def two_sample_interval(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    n_resamples: int = 2000,
) -> Interval:
    """A statistic of two means, with a percentile bootstrap over the units of each on its own.

    `statistic` takes arrays of first and second means and gives an array of values.

    >>> two_sample_interval([1.0, 3.0], [2.0, 2.0], lambda a, b: a * b).value
    4.0
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    value = float(statistic(one.mean(keepdims=True), two.mean(keepdims=True))[0])
    if min(len(one), len(two)) < 2:
        return Interval(value, np.nan, np.nan, np.nan)
    generator = rng("two samples", seed)
    means = [
        each[generator.integers(len(each), size=(n_resamples, len(each)))].mean(axis=1)
        for each in (one, two)
    ]
    drawn = statistic(means[0], means[1])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(drawn.std(ddof=1)), float(low), float(high))


def group_means(values: ArrayLike, groups: ArrayLike | None = None) -> np.ndarray:
    """One mean per group, in sorted order of the groups; without groups the values themselves."""
    numbers = np.asarray(values, dtype=float)
    if groups is None:
        return numbers
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(place, weights=numbers) / np.bincount(place)


def sign_flip_p(
    values: ArrayLike, groups: ArrayLike | None = None, *, seed: int = 0, n_resamples: int = 4999
) -> float:
    """Two-sided p of a mean effect of zero, flipping the signs of whole groups.

    >>> sign_flip_p([1.0, 1.1, 0.9, 1.2, 1.0, 0.8, 1.1, 1.0]) < 0.02
    True
    """
    means = group_means(values, groups)
    if len(means) < 2:
        return float("nan")
    result = stats.permutation_test(
        (means,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        n_resamples=n_resamples,
        vectorized=True,
        rng=rng("sign flip", seed),
    )
    return float(result.pvalue)


def permutation_p(value: float, null: ArrayLike) -> float:
    """One-sided p: (1 + how many null values reach the value) / (1 + how many there are).

    >>> permutation_p(3.0, [1.0, 2.0, 3.0])
    0.5
    """
    drawn = np.asarray(null, dtype=float)
    if not np.isfinite(value) or not np.isfinite(drawn).all():
        return float("nan")
    return float((1 + (drawn >= value).sum()) / (1 + len(drawn)))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down adjustment of a few primary p-values (Holm 1979).

    >>> holm([0.01, 0.04]).tolist()
    [0.02, 0.04]
    """
    p = np.asarray(p_values, dtype=float)
    tests = np.isfinite(p).sum()  # a p that could not be had is no test of the family
    order = np.argsort(p)[:tests]  # NaN sorts last
    scaled = np.maximum.accumulate(p[order] * np.arange(tests, 0, -1))
    adjusted = np.full_like(p, np.nan)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted


@lru_cache(maxsize=8)
def class_permutations(n_classes: int, n_permutations: int, seed: int) -> np.ndarray:
    """Random orders of the classes, "permutation class", the same for every layer and measure.

    >>> class_permutations(4, 2, seed=0).shape
    (2, 4)
    """
    generator = rng("class permutations", seed)
    orders = np.stack([generator.permutation(n_classes) for _ in range(n_permutations)])
    orders.flags.writeable = False  # the cache hands the same array to everyone
    return orders


def max_t(value: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """One-sided p per layer, adjusted for the largest of all (Westfall and Young 1993, max-T).

    Every layer is studentised by its own permutations (the observed value among them), and a p is
    the share of permutations whose largest T over layers reaches this layer's T.

    Shapes: `value` "layer", `drawn` "permutation layer" from one stream of permutations.

    >>> max_t(np.array([3.0]), np.array([[1.0], [2.0], [0.0]])).tolist()
    [0.25]
    """
    if not value.size:
        return np.empty(0)
    everything = np.vstack([value[None], drawn])
    spread = everything.std(axis=0)
    t = (everything - everything.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    largest = np.sort(t[1:].max(axis=1))
    # A tie must count as reaching; permutations that give the observed value do so up to rounding.
    reached = len(largest) - np.searchsorted(largest, t[0] - 1e-9, side="left")
    return (1 + reached) / (1 + len(drawn))
