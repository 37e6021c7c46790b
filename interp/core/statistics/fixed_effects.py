"""Fixed effects of two ways: a slope within both, and its error clustered by either."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Within:
    """Numbers with their class's and their run's effect taken out, and who they belong to.

    x: sharing, y: accuracy, both also less what natural accuracy explains; scores: x times the
    residual of y, summed over each class and each run.
    """

    x: np.ndarray
    y: np.ndarray
    slope: float
    by_class: np.ndarray
    by_run: np.ndarray


def take_out(
    numbers: Sequence[np.ndarray], codes: Sequence[np.ndarray], *, lone: bool = False
) -> Within:
    """Take the effects of class and run out of sharing, accuracy and natural accuracy.

    Class means and run means are taken out in turn until nothing changes; then natural accuracy is
    taken out of the other two (Frisch, Waugh and Lovell). `lone` numbers have no accuracy.
    """
    free = [_two_way(each, codes) for each in numbers]
    if lone:
        free.insert(1, free[0])
    x, y = free[:2]
    if len(free) == 3 and (free[2] ** 2).sum() > 1e-18:
        x, y = (each - (each @ free[2]) / (free[2] @ free[2]) * free[2] for each in (x, y))
    square = float(x @ x)
    slope = float(x @ y) / square if square > 0 else np.nan
    scores = x * (y - slope * x)
    by_class, by_run = (np.bincount(code, weights=scores) for code in codes)
    return Within(x, y, slope, by_class, by_run)


def _two_way(values: np.ndarray, codes: Sequence[np.ndarray]) -> np.ndarray:
    own = values - values.mean()
    sizes = [np.bincount(code) for code in codes]
    for _ in range(2000):
        before = own
        for code, size in zip(codes, sizes, strict=True):
            own = own - (np.bincount(code, weights=own) / size)[code]
        if np.abs(own - before).max() < 1e-13 * max(1.0, np.abs(values).max()):
            break
    return own


def clustered(own: Within) -> float:
    """Standard error of the slope: by class + by run - by row, at least the larger of the two."""
    scores = own.x * (own.y - own.slope * own.x)
    parts = [
        (each**2).sum() * len(each) / max(len(each) - 1, 1)
        for each in (own.by_class, own.by_run, scores)
    ]
    square = max(parts[0], parts[1], parts[0] + parts[1] - parts[2])
    return float(np.sqrt(square)) / float((own.x**2).sum())
