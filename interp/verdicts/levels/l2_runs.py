"""L2, within mixtures: the slope of accuracy on sharing over repetitions of a mixture.

Mixtures cannot confound it, since each is compared with itself; nor can the classes that a block
holds out, as far as they raise or lower all mixtures of the block alike: that mean is taken out.
Where easy classes raise good mixtures more than poor ones, it is not a link's doing, and L2 takes
it for one (docs/evidence.md, limits). Runs are what is permuted: the blocks of a mixture, in all
domains at once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.statistics.resampling import permutation_p
from interp.declared.writing import plural
from interp.verdicts.levels.l1_mixtures import check_varies, names_of, panels
from interp.verdicts.levels.permuting import correlation, permuted_interval, without
from interp.verdicts.levels.reliability import HALVES, INTERVALS, Panel, centred, of_halves
from interp.verdicts.wording import RELIABLE, Link

LEAST = {"block": 3}
BETTER = 6
"""Blocks to run where they can be had: three find a correlation of .5 in three studies of five."""


def within_mixtures(
    sharing: ArrayLike,
    accuracy: ArrayLike,
    *,
    given: ArrayLike | None = None,
    halves: tuple[ArrayLike, ArrayLike] | None = None,
    sharing_error: ArrayLike | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
    n_permutations: int = 4999,
) -> Link:
    """Slope of accuracy on sharing over blocks, with the effects of cells and folds taken out.

    Tables are "mixture domain block". Of every number its cell's mean (mixture and domain) and its
    fold's (block and domain) are taken out, and `given` by least squares. Noise in sharing flattens
    a slope b, so slope = b / reliability, and value = r / sqrt(reliability): the correlation of
    accuracy with sharing as it would be measured without noise. Reliability is known from `halves`,
    sharing on two halves that have no picture in common; else from `sharing_error`, the squared
    standard errors of single models, which count the choice of classes too: reliability is then at
    least what is said. Below .6 nothing is divided. p is two-sided: in every mixture by itself the
    blocks of sharing are permuted, in all domains at once, and folds taken out again. The interval
    holds what the same permutations do not rule out (`permuted_interval`).

    Every mixture needs every block: of what was run, those are taken that leave most to compare
    (`complete_blocks`). Raises `ShapeError` where tables do not agree and `SampleError` for fewer
    than two mixtures or blocks, or a number that does not vary.

    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(4, 2, 6))
    >>> found = within_mixtures(x, 0.1 * x, halves=(x, x))
    >>> round(found.value, 3), round(found.slope, 3), found.n
    (1.0, 0.1, {'block': 6})
    """
    tables = panels("compare blocks", sharing, accuracy, given)
    kept = complete_blocks(tables)
    mixtures, blocks = (int(each.sum()) for each in kept)
    if min(mixtures, blocks) < 2:
        raise SampleError(
            "compare blocks",
            f"both numbers for {mixtures} {plural('mixture', mixtures)} "
            f"in {blocks} {plural('block', blocks)}",
            f"two mixtures or more in {LEAST['block']} blocks",
            "repeat the study in more blocks",
        )
    own = [centred(_selected(each, kept)) for each in tables]
    check_varies(own, "blocks of a mixture")
    x, y, *_ = own if given is None else [without(each, own[2]) for each in own[:2]]
    value = float(correlation(x, y))
    free = x.shape[1] * (mixtures - 1) * (blocks - 1)
    reliability, kind = _reliability(kept, own[0], halves, sharing_error, float((x**2).sum()), free)
    divisor = reliability if reliability >= RELIABLE else 1.0
    root = float(np.sqrt(divisor))
    drawn = _permuted([x, y, *own[2:]], seed, n_permutations)
    ends = permuted_interval(value, drawn)
    return Link(
        value / root,
        ends[0] / root,
        ends[1] / root,
        permutation_p(abs(value) - 1e-9, np.abs(drawn)),
        {"block": blocks},
        LEAST,
        slope=float((x * y).sum() / (x**2).sum()) / divisor,
        reliability=reliability,
        reliability_kind=kind,
        flips=_flips([_selected(each, kept) for each in tables], value, names_of(names, kept[0])),
    )


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


def _selected(table: np.ndarray, kept: Kept) -> Panel:
    return table[kept[0]][:, :, kept[1]]


def _reliability(
    kept: Kept,
    sharing: Panel,
    halves: tuple[ArrayLike, ArrayLike] | None,
    square_error: ArrayLike | None,
    left: float,
    free: float,
) -> tuple[float, str]:
    """Reliability of sharing within cells and folds, `left` being its sum of squares there.

    What is held constant takes true differences out, never noise: its share of noise grows.
    """
    total = float((sharing**2).sum())
    if halves is not None:
        two = [_selected(np.asarray(each, dtype=float), kept) for each in halves]
        if np.isfinite(two).all():
            known = of_halves(*(centred(each) for each in two))
            return max(1 - (1 - known) * total / left, 0.0), HALVES
    if square_error is not None:
        noise = _selected(np.asarray(square_error, dtype=float), kept)
        if np.isfinite(noise).any():
            return max(1 - float(np.nanmean(noise)) / (left / free), 0.0), INTERVALS
    return np.nan, ""


def _permuted(own: Sequence[Panel], seed: int, n_permutations: int) -> np.ndarray:
    """Correlations of residuals with the blocks of each mixture permuted, in all domains at once.

    What had been taken out of sharing (folds, and what is held constant) is taken out again.
    """
    x, y, *given = own
    mixtures, _, blocks = x.shape
    tiled = np.tile(np.arange(blocks), (n_permutations, mixtures, 1))
    orders = rng("blocks of each mixture", seed).permuted(tiled, axis=2)
    moved = np.take_along_axis(x[None], orders[:, :, None, :], axis=3)
    moved = moved - moved.mean(axis=1, keepdims=True)
    for each in given:
        moved = without(moved, each[None], axis=(1, 2, 3))
    return np.nan_to_num(correlation(moved, y[None], axis=(1, 2, 3)))


def _flips(tables: Sequence[Panel], value: float, names: Sequence[str]) -> str:
    """The first mixture without which the sign is another."""
    for out, name in enumerate(names if len(names) > 2 else ()):
        own = [centred(np.delete(each, out, axis=0)) for each in tables]
        if len(own) == 3:
            own = [without(each, own[2]) for each in own[:2]]
        if np.sign(correlation(*own)) == -np.sign(value):
            return name
    return ""
