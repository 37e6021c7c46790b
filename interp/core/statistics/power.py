"""Power: the runs that would decide, by simulation from the variances that a study has.

Each simulated study is larger than the one at hand and otherwise like it; it decides where its
interval leaves out 0, or lies within |r| < .3. The least size is named at which four in five do.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from interp.core.seeds import rng
from interp.core.statistics.correlations import (
    SPEARMAN,
    expected_reach,
    largest_rho,
    rank_link,
    score_ends,
)
from interp.core.statistics.crossed_model import Within
from interp.core.statistics.reliability import RELIABLE

SMALL = 0.3
"""A correlation below this is too small to matter: the bound of equivalence."""
POWER, STUDIES = 0.8, 200
MIXTURES = (8, 10, 12, 16, 20, 24, 32, 40)
BLOCKS = (3, 4, 6, 8, 10, 12, 16, 24, 32, 40)
MANY = (1, 1.5, 2, 3, 4, 6, 8, 12)
"""So many times the classes and runs at hand."""


def mixtures_needed(means: Sequence[np.ndarray], *, seed: int = 0) -> str:
    """How many mixtures would decide L1, from a mean of sharing and of accuracy per mixture.

    Both numbers of a mixture are drawn from a normal distribution with the covariance that the
    mixtures at hand have.

    >>> x = np.arange(6.0)
    >>> mixtures_needed([x, x + np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.1])])
    '8 mixtures'
    """
    n = len(means[0])
    if n < 3:
        return f"at least {MIXTURES[0]} mixtures"
    own = np.stack([each - each.mean() for each in means], axis=1) / np.sqrt(n - 1)

    def intervals(size: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = rng("more mixtures", seed, size).normal(size=(STUDIES, size, n)) @ own
        found = rank_link(drawn[..., 0], drawn[..., 1])
        reach = expected_reach(size - 1)
        return score_ends(found, reach, bend=SPEARMAN, largest=largest_rho(size))

    return _least(MIXTURES, intervals, "mixtures")


def blocks_needed(own: Sequence[np.ndarray], *, reliability: float = 1.0, seed: int = 0) -> str:
    """How many blocks would decide L2, from centred panels of sharing and accuracy.

    Panels are "mixture domain block". The numbers of new blocks are drawn with the correlation of
    those at hand, one for each mixture: test domains are no further blocks.

    >>> x = np.random.default_rng(0).normal(size=(6, 2, 4))
    >>> x = x - x.mean(axis=0) - x.mean(axis=2, keepdims=True) + x.mean(axis=(0, 2), keepdims=True)
    >>> blocks_needed([x, x])
    '3 blocks'
    """
    mixtures, _, blocks = own[0].shape
    if mixtures < 2 or blocks < 2:
        return f"at least {BLOCKS[0]} blocks"
    size = np.sqrt((own[0] ** 2).sum() * (own[1] ** 2).sum())
    r = float(np.clip((own[0] * own[1]).sum() / size, -0.999, 0.999))

    def intervals(size: int) -> tuple[np.ndarray, np.ndarray]:
        free = (mixtures - 1) * (size - 1)
        x, rest = rng("more blocks", seed, size).normal(size=(2, STUDIES, free))
        y = r * x + np.sqrt(1 - r**2) * rest
        found = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        return score_ends(found, expected_reach(free))

    return _least(BLOCKS, intervals, "blocks", reliability)


def classes_to_decide(own: Within, *, reliability: float = 1.0, seed: int = 0) -> str:
    """How many classes, or runs, would decide L3: whichever of the two makes the larger error.

    Scores of new classes (or runs) are drawn from a normal distribution with the variance of those
    at hand; more of one kind leave each as it is.
    """
    square, spread = float((own.x**2).sum()), float((own.y**2).sum())
    kinds = {"classes": own.by_class, "runs": own.by_run}
    kind = max(kinds, key=lambda name: (kinds[name] ** 2).sum())
    scores = kinds[kind]
    n, deviation = len(scores), float(np.sqrt((scores**2).mean()))
    scale = np.sqrt(square / spread)

    def intervals(size: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = deviation * rng("more classes", seed, size).normal(size=(STUDIES, size))
        total = square * size / n
        found = own.slope + drawn.sum(axis=1) / total
        reach = stats.t.ppf(0.975, size - 1) * np.sqrt((drawn**2).sum(axis=1)) / total
        return (found - reach) * scale, (found + reach) * scale

    return _least([int(np.ceil(n * times)) for times in MANY], intervals, kind, reliability)


def blocks_for_reliability(reliability: float, blocks: int) -> str:
    """How many blocks would make cell means reliable, whose reliability is known from some.

    >>> blocks_for_reliability(0.5, 2), blocks_for_reliability(-0.2, 3)
    ('3 blocks', 'more than 40 blocks')
    """
    if not reliability > 0:
        return f"more than {BLOCKS[-1]} blocks"
    ratio = reliability / (1 - reliability) / blocks
    needed = int(np.ceil(RELIABLE / (1 - RELIABLE) / ratio - 1e-9))
    return f"{needed} blocks" if needed <= BLOCKS[-1] else f"more than {BLOCKS[-1]} blocks"


def least_visible(reliability: float) -> float:
    """What noise leaves of a correlation worth telling; 0 where it may hide any.

    >>> round(least_visible(0.81), 2), least_visible(0.5)
    (0.27, 0.0)
    """
    return SMALL * float(np.sqrt(reliability)) if reliability >= RELIABLE else 0.0


Intervals = Callable[[int], tuple[np.ndarray, np.ndarray]]


def _least(sizes: Sequence[int], intervals: Intervals, what: str, reliability: float = 1) -> str:
    """The least size that decides, by bisection: larger studies decide more often."""
    least = least_visible(reliability)

    def falls_short(size: int) -> bool:
        low, high = intervals(size)
        decided = (low > 0) | (high < 0) | ((low > -least) & (high < least))
        return bool(decided.mean() < POWER)

    place = bisect_left(sizes, True, key=lambda size: not falls_short(size))
    return f"{sizes[place]} {what}" if place < len(sizes) else f"more than {sizes[-1]} {what}"
