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

CROSSED, IN_SOME = "class x block", "class in some blocks"
NESTED, ONE_BLOCK = "class within block", "class"


@dataclass(frozen=True)
class Replicated:
    """A mean over classes and blocks: its interval, the design it was judged by, and its counts.

    `unit` is "class" (one block), "class x block" (the same classes in every block), "class within
    block" (each block has classes of its own) or "class in some blocks" (in between); `n_units`
    counts a class once.
    """

    interval: Interval
    unit: str
    n_units: int
    n_blocks: int

    @property
    def reason(self) -> str:
        """Why there is no interval; empty where there is one."""
        if self.n_units == 1:
            return "one class: no interval"
        told = np.isfinite(self.interval.low)
        return "" if told else "one class in each block, and some return: no interval"


def crossed_interval(cells: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Mean over blocks of their means, from a table `unit block` both of whose ways are samples.

    se^2 = V_block + V_common, and never less than V_block or V_unit, where V_block = var(block
    means) / blocks; V_common is what units that blocks have in common add to it
    (`of_common_units`); and V_unit = U / (U - 1) sum_u (sum_b w(u, b) (y(u, b) - mean(b)))^2 is of
    U whole units, w being the weight of a cell. In a full table V_common is V_unit less V_cell, the
    mean square of what neither unit nor block explains over the number of cells: what resampling
    units, blocks and single cells would show (Cameron, Gelbach and Miller 2011). The interval is
    value +/- t se with Satterthwaite's degrees of freedom, so that three blocks are not taken for
    many. One block leaves the units alone.

    Args:
        cells: `unit block`; NaN where a block lacks a unit.
        confidence: How often the interval covers.

    Returns:
        The interval; NaN for its ends where one unit is all there is, where a block or a unit has
        no number, and where blocks of one unit each have it in common, which tells nothing of what
        units differ in.

    Notes:
        In simulation 8 and 12 blocks of 40 units cover at .94 to .98, whether each has a third of
        them or all but an eighth; three blocks at .93 to .96, and two at .87 to .97.

    >>> found = crossed_interval([[1.0], [2.0], [3.0]])
    >>> round(found.error, 4), round(found.high, 4)
    (0.5774, 4.4841)
    """
    table = np.asarray(cells, dtype=float)
    there = np.isfinite(table)
    units, blocks = table.shape
    if blocks == 1:
        return mean_t(table[:, 0], confidence=confidence)
    if units < 2 or not (there.any(axis=0).all() and there.any(axis=1).all()):
        return Interval(float(table.mean()), np.nan, np.nan, np.nan)
    by_block = np.nanmean(table, axis=0)
    value = float(by_block.mean())
    by_unit = (np.where(there, table - by_block, 0.0) / there.sum(axis=0) / blocks).sum(axis=1)
    of_unit = units / (units - 1) * float((by_unit**2).sum())
    of_block = float(by_block.var(ddof=1) / blocks)
    common = of_common_units(table)
    if np.isnan(common):
        return Interval(value, np.nan, np.nan, np.nan)
    square = max(of_unit, of_block, of_block + common)
    if square <= 1e-30 * (1 + value**2):  # all cells equal, but for rounding
        return Interval(value, 0.0, value, value)
    parts = np.array([of_unit, of_block, of_unit - common])
    free = np.array([units - 1, blocks - 1, max(there.sum() - units - blocks + 1, 1)])
    degrees = max(square**2 / (parts**2 / free).sum(), float(free[:2].min()))
    return _student(value, float(np.sqrt(square)), degrees, confidence)


def of_common_units(cells: ArrayLike) -> float:
    """What units that blocks have in common add to the variance of the mean over blocks.

    v mean_{b != b'} n(b, b') / (n(b) n(b')),

    v = sum_{b != b'} sum_u r(u, b) r(u, b') / sum_{b != b'} n(b, b') (1 - 1 / n(b) - 1 / n(b')
    + n(b, b') / (n(b) n(b'))),

    r = y - mean(b), n(b, b') the units that two blocks have in common. v is the variance of units
    without bias, however few blocks a unit stands in: var(block means) / blocks takes blocks for
    independent, and a unit that returns makes them alike.

    Args:
        cells: `unit block`; NaN where a block lacks a unit.

    Returns:
        The variance; by chance it may be below 0. 0 where no unit stands in two blocks, and NaN
        where units do but each block has one alone.

    >>> of_common_units([[1.0, 1.0], [3.0, 3.0]]), of_common_units([[1.0, np.nan], [np.nan, 3.0]])
    (1.0, 0.0)
    """
    table = np.asarray(cells, dtype=float)
    there = np.isfinite(table)
    rest = np.where(there, table - np.nanmean(table, axis=0), 0.0)
    n = there.sum(axis=0)
    common = there.T.astype(float) @ there
    along = common / np.outer(n, n)
    room = common * (1 - 1 / n[:, None] - 1 / n + along)
    apart = ~np.eye(len(n), dtype=bool)
    if not common[apart].any():
        return 0.0
    if room[apart].sum() < 1e-9:
        return float("nan")
    variance = (rest.T @ rest)[apart].sum() / room[apart].sum()
    return float(variance * along[apart].mean())


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


def mean_of_intervals(
    values: ArrayLike, lows: ArrayLike, highs: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Mean over blocks of numbers that have intervals of their own, over units in common.

    low = mean - sqrt(mean_b (y_b - low_b)^2 + t^2 s^2 / B), and high alike,

    t of B - 1 degrees and s the standard deviation of the blocks' numbers. The units (classes) may
    be the same in every block, so their share of the variance is not divided by B: half-widths of
    the two sources are squared and added (Zou and Donner 2008). For numbers of which only the
    intervals are at hand; with a cell for each unit, `crossed_interval` is up to 2.5 times
    narrower.

    Args:
        values: One number for each block.
        lows: The lower ends of their intervals.
        highs: The upper ends.
        confidence: How often the intervals cover, and this one.

    Returns:
        The interval; one block has its own. NaN for the ends where no block has one.

    Notes:
        In simulation 2, 3 and 8 blocks of the same 15 or 40 units cover at .94 to 1, whatever
        units, blocks and cells vary by; Student's interval over the blocks alone at .00 to .96.

    >>> found = mean_of_intervals([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [2.0, 3.0, 4.0])
    >>> round(found.low, 3), found.value, round(found.high, 3)
    (-0.678, 2.0, 4.678)
    """
    numbers, below, above = (np.asarray(each, dtype=float) for each in (values, lows, highs))
    value = float(numbers.mean())
    told = np.isfinite(below) & np.isfinite(above)
    if not told.any():
        return Interval(value, np.nan, np.nan, np.nan)
    if len(numbers) == 1:
        return Interval(value, np.nan, float(below[0]), float(above[0]))
    between = mean_t(numbers, confidence=confidence).high - value
    low, high = (
        float(np.sqrt(np.mean((ends - numbers)[told] ** 2) + between**2)) for ends in (below, above)
    )
    return Interval(value, np.nan, value - low, value + high)


def _student(value: float, error: float, degrees: float, confidence: float) -> Interval:
    reach = float(stats.t.ppf((1 + confidence) / 2, degrees)) * error
    return Interval(value, error, value - reach, value + reach)


def replicated(values: Mapping[int, pd.Series], *, confidence: float = 0.95) -> Replicated:
    """The mean of a number per class (index) and block (key), by the design that the data have.

    The same classes in every block: crossed. No class in two blocks, as with class folds: nested.
    In between, a class that stands in several blocks is one class, and not several.

    Args:
        values: The numbers of each block, by class; a class without a number is not there.
        confidence: How often the interval covers.

    Returns:
        The mean over blocks of their means, with the design that it was judged by.

    Raises:
        SampleError: Without any value, or with two of a class in one block.

    >>> folds = {0: pd.Series({"cat": 0.2, "dog": 0.4}), 1: pd.Series({"owl": 0.3, "pig": 0.5})}
    >>> replicated(folds).unit, replicated(folds).n_units
    ('class within block', 4)
    """
    return replicated_rows(
        np.concatenate([[], *values.values()]),
        np.concatenate([np.empty(0, object), *(one.index for one in values.values())]),
        np.repeat([*values], [len(one) for one in values.values()]),
        confidence=confidence,
    )


def replicated_rows(
    values: ArrayLike, classes: ArrayLike, blocks: ArrayLike, *, confidence: float = 0.95
) -> Replicated:
    """What `replicated` says of a number per row, of a class and a block that have no other row.

    >>> replicated_rows([0.2, 0.4], ["cat", "dog"], [0, 1]).unit
    'class within block'
    """
    numbers = np.asarray(values, dtype=float)
    own = np.isfinite(numbers)
    numbers = numbers[own]
    right = "a value per class and block"
    if not len(numbers):
        do = "give models that answered the same question"
        raise SampleError("average over classes and blocks", "no class with a value", right, do)
    ways = (np.unique(np.asarray(each)[own], return_inverse=True) for each in (classes, blocks))
    (shown, row), (told, column) = ways
    n_classes, n_blocks = len(shown), len(told)
    table = np.full((n_classes, n_blocks), np.nan)
    table[row, column] = numbers
    there = np.isfinite(table)
    if there.sum() < len(numbers):
        given, do = "two values of a class in one block", "average each class of a block first"
        raise SampleError("average over classes and blocks", given, right, do)
    if n_blocks > 1 and (there.sum(axis=1) == 1).all():
        columns = [numbers[column == block] for block in range(n_blocks)]
        interval = nested_interval(columns, confidence=confidence)
        return Replicated(interval, NESTED, n_classes, n_blocks)
    unit = ONE_BLOCK if n_blocks == 1 else CROSSED if there.all() else IN_SOME
    return Replicated(crossed_interval(table, confidence=confidence), unit, n_classes, n_blocks)
