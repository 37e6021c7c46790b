"""The mean of a table of classes by blocks, with an interval in which both of them count.

A block repeats an experiment: new initialisation, order, subsample. Few blocks are the rule, and a
percentile bootstrap of three blocks covers far less than it says; so these intervals take the
variance that resampling whole classes and whole blocks has, in closed form, and Student's t.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.errors import SampleError
from interp.core.statistics.resampling import Interval

CROSSED, NESTED, ONE_BLOCK = "class x block", "class within block", "class"


@dataclass(frozen=True)
class Replicated:
    """A mean over classes and blocks: its interval, the design it was judged by, and its counts.

    `unit` is "class" (one block), "class x block" (the same classes in every block) or "class
    within block" (each block has classes of its own); `reason` says what had to be left out.
    """

    interval: Interval
    unit: str
    n_units: int
    n_blocks: int
    reason: str = ""


def crossed_interval(cells: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Mean of a full table `unit block`, both of whose ways are samples.

    se^2 = V_unit + V_block - V_cell, where V_unit = var(unit means) / units, V_block = var(block
    means) / blocks and V_cell = mean square of what neither explains / cells: what resampling
    units, blocks and single cells would show (Cameron, Gelbach and Miller 2011), and never less
    than the larger of the first two. The interval is value +/- t se with Satterthwaite's degrees
    of freedom, so that three blocks are not taken for many. One block leaves the units alone.

    >>> found = crossed_interval([[1.0], [2.0], [3.0]])
    >>> round(found.error, 4), round(found.high, 4)
    (0.5774, 4.4841)
    """
    table = np.asarray(cells, dtype=float)
    units, blocks = table.shape
    value = float(table.mean())
    if blocks == 1:
        return mean_t(table[:, 0], confidence=confidence)
    if units < 2 or not np.isfinite(table).all():
        return Interval(value, np.nan, np.nan, np.nan)
    by_unit, by_block = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_unit[:, None] - by_block[None, :] + value
    free = np.array([units - 1, blocks - 1, (units - 1) * (blocks - 1)])
    parts = np.array([
        by_unit.var(ddof=1) / units,
        by_block.var(ddof=1) / blocks,
        (rest**2).sum() / free[2] / table.size,
    ])  # fmt: skip
    square = max(parts[0], parts[1], parts[0] + parts[1] - parts[2])
    if square <= 1e-30 * (1 + value**2):  # all cells equal, but for rounding
        return Interval(value, 0.0, value, value)
    degrees = max(square**2 / (parts**2 / free).sum(), float(free[:2].min()))
    return _student(value, float(np.sqrt(square)), degrees, confidence)


def nested_interval(blocks: Sequence[ArrayLike], *, confidence: float = 0.95) -> Interval:
    """Mean over blocks of their classes' means, where each block has classes of its own.

    Resampling blocks, and classes within them, shows the variance of the block means, since those
    carry their classes' too: value +/- t_{blocks - 1} sd(block means) / sqrt(blocks).

    >>> nested_interval([[1.0, 3.0], [2.0, 4.0], [4.0, 4.0]]).value
    3.0
    """
    if len(blocks) == 1:
        return mean_t(blocks[0], confidence=confidence)
    return mean_t([np.mean(np.asarray(one, dtype=float)) for one in blocks], confidence=confidence)


def mean_t(values: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Mean of independent values with Student's interval; one value alone has none (NaN).

    >>> mean_t([1.0, 2.0, 3.0]).value
    2.0
    """
    numbers = np.asarray(values, dtype=float)
    value, n = float(numbers.mean()), len(numbers)
    if n < 2 or not np.isfinite(numbers).all():
        return Interval(value, np.nan, np.nan, np.nan)
    return _student(value, float(numbers.std(ddof=1) / np.sqrt(n)), n - 1, confidence)


def _student(value: float, error: float, degrees: float, confidence: float) -> Interval:
    reach = float(stats.t.ppf((1 + confidence) / 2, degrees)) * error
    return Interval(value, error, value - reach, value + reach)


def replicated(values: Mapping[int, pd.Series], *, confidence: float = 0.95) -> Replicated:
    """The mean of a number per class (index) and block (key), by the design that the data have.

    The same classes in every block: crossed. No class in two blocks, as with class folds: nested.
    In between, the classes that every block has if there are two at least, else nested, and
    `reason` says so. Raises `SampleError` without any value.

    >>> folds = {0: pd.Series({"cat": 0.2, "dog": 0.4}), 1: pd.Series({"owl": 0.3, "pig": 0.5})}
    >>> replicated(folds).unit, replicated(folds).n_units
    ('class within block', 4)
    """
    known = {block: one.dropna() for block, one in values.items()}
    known = {block: one for block, one in known.items() if len(one)}
    if not known:
        raise SampleError(
            "average over classes and blocks",
            "no class with a value",
            "a value per class and block",
            "give models that answered the same question",
        )
    n_classes = sum(map(len, known.values()))
    common = sorted(set.intersection(*(set(one.index) for one in known.values())))
    everything = set().union(*(one.index for one in known.values()))
    if len(common) == len(everything) or len(common) > 1:
        cells = np.column_stack([one.loc[common] for one in known.values()])
        gone = len(everything) - len(common)
        return Replicated(
            crossed_interval(cells, confidence=confidence),
            ONE_BLOCK if len(known) == 1 else CROSSED,
            len(common),
            len(known),
            f"{gone} classes that some block lacks are left out" if gone else "",
        )
    again = n_classes - len(everything)
    return Replicated(
        nested_interval([one.to_numpy() for one in known.values()], confidence=confidence),
        NESTED,
        n_classes,
        len(known),
        f"{again} classes stand in more than one block and count in each" if again else "",
    )
