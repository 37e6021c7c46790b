"""Macro-F1 of a classifier: with a jackknife over classes, and what guessing would score."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.statistics import Interval, jackknife


def macro_f1(true: ArrayLike, chosen: ArrayLike, classes: Sequence[str]) -> Interval:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), with a class jackknife interval.

    `true` and `chosen` are class names, one per picture; choices outside `classes` are misses of
    the true class. F1 is 0 for a class that is neither shown nor chosen. The F1 of a class depends
    on other classes' pictures (its false positives), so that resampling classes with replacement
    would count copies of one class as agreeing; leaving one class's pictures out at a time does
    not. The interval ends at 0 and 1.

    >>> found = macro_f1(["cat", "cat", "dog"], ["cat", "dog", "dog"], ["cat", "dog"])
    >>> round(found.value, 4)
    0.6667
    """
    names = sorted(classes)
    counts = confusion(true, chosen, names)
    value = float(_f1(counts, counts.sum(axis=0)[: len(names)]).mean())
    if len(names) < 2:
        return Interval(value, np.nan, np.nan, np.nan)
    within = counts[:, : len(names)]
    # row c: what remains in each column when the pictures of class c are left out
    remaining = within.sum(axis=0)[None, :] - within
    each = _f1(counts, remaining)
    np.fill_diagonal(each, np.nan)
    spread = jackknife(value, np.nanmean(each, axis=1))
    return Interval(value, spread.error, max(spread.low, 0.0), min(spread.high, 1.0))


def confusion(true: ArrayLike, chosen: ArrayLike, names: Sequence[str]) -> np.ndarray:
    """Pictures `true chosen`, classes sorted; a last column holds choices of any other class.

    >>> confusion(["cat", "dog"], ["cat", "owl"], ["cat", "dog"]).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    place = {name: number for number, name in enumerate(names)}
    rows = [place[str(label)] for label in np.asarray(true)]
    columns = [place.get(str(label), len(names)) for label in np.asarray(chosen)]
    counts = np.zeros((len(names), len(names) + 1), dtype=int)
    np.add.at(counts, (rows, columns), 1)
    return counts


def _f1(counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """F1 per class from a confusion table and how often each class was chosen (last axis)."""
    hits = np.diagonal(counts)
    shown = counts.sum(axis=1)
    total = np.asarray(chosen + shown, dtype=float)
    return np.divide(2.0 * hits, total, out=np.zeros_like(total), where=total > 0)


def guessing_f1(shown: Sequence[int], n_candidates: int) -> float:
    """Expected macro-F1 of guessing evenly among `n_candidates` classes.

    `shown` are the pictures of each class, N in all. A class is guessed P ~
    Bin(N, 1 / n_candidates) times and, of these, P shown / N times rightly on average, hence

    E[F1_c] = sum_p Pr(P = p) 2 p (shown_c / N) / (shown_c + p).

    >>> round(guessing_f1([1, 1], 2), 4)  # by hand: 1/2 x 1/2 + 1/4 x 2/3
    0.4167
    """
    counts = np.asarray(shown, dtype=float)
    total = int(counts.sum())
    guessed = np.arange(total + 1)
    chance = stats.binom.pmf(guessed, total, 1 / n_candidates)
    sizes, place = np.unique(counts, return_inverse=True)
    expected = [
        float((chance * 2 * guessed * (size / total) / np.maximum(size + guessed, 1)).sum())
        for size in sizes
    ]
    return float(np.asarray(expected)[place].mean())
