"""Means over classes and blocks: right variance, right coverage, no false certainty."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.statistics.replication import (
    crossed_interval,
    mean_of_intervals,
    mean_t,
    nested_interval,
    of_common_units,
    replicated,
)
from interp.core.statistics.resampling import Interval, two_way_interval


def table(
    generator: np.random.Generator, units: int, blocks: int, spread: tuple[float, float, float]
) -> np.ndarray:
    """0.1 plus an effect of each unit, of each block, and of each cell."""
    unit, block, cell = spread
    return (
        0.1
        + unit * generator.normal(size=(units, 1))
        + block * generator.normal(size=(1, blocks))
        + cell * generator.normal(size=(units, blocks))
    )


@pytest.mark.parametrize("spread", [(0.1, 0.05, 0.1), (0.0, 0.1, 0.05), (0.1, 0.0, 0.05)])
def test_three_blocks_cover_at_the_nominal_rate(spread: tuple[float, float, float]) -> None:
    generator = rng("crossed coverage", 0)
    found = [crossed_interval(table(generator, 10, 3, spread)) for _ in range(600)]
    covered = np.mean([one.low <= 0.1 <= one.high for one in found])
    assert 0.925 <= covered <= 0.98


def test_the_percentile_bootstrap_would_not() -> None:
    """Why there is a closed form with Student's t: three blocks are too few to resample."""
    generator = rng("bootstrap coverage", 0)
    found = [
        two_way_interval(table(generator, 10, 3, (0.0, 0.1, 0.05)), seed=k, n_resamples=300)
        for k in range(200)
    ]
    assert np.mean([one.low <= 0.1 <= one.high for one in found]) < 0.85


def test_nested_blocks_cover_at_the_nominal_rate() -> None:
    generator = rng("nested coverage", 0)
    covered = []
    for _ in range(600):
        blocks = [
            0.1 + 0.05 * generator.normal() + 0.1 * generator.normal(size=8) for _ in range(3)
        ]
        one = nested_interval(blocks)
        covered.append(one.low <= 0.1 <= one.high)
    assert 0.925 <= np.mean(covered) <= 0.98


def thirds(generator: np.random.Generator, units: int, blocks: int) -> np.ndarray:
    """Which third of the units each block has; they are dealt anew after every three blocks."""
    deals = [generator.permutation(units) % 3 for _ in range(-(-blocks // 3))]
    return np.column_stack([deals[block // 3] == block % 3 for block in range(blocks)])


def all_but_some(generator: np.random.Generator, units: int, blocks: int) -> np.ndarray:
    """The units that each block has, where every unit is missing in one: classes that were seen."""
    missing = generator.permutation(units) % blocks
    return missing[:, None] != np.arange(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [4, 12])
@pytest.mark.parametrize("spread", [(0.1, 0.05, 0.1), (0.2, 0.02, 0.1), (0.0, 0.1, 0.05)])
@pytest.mark.parametrize("design", [thirds, all_but_some])
def test_units_that_return_in_some_blocks_are_covered(
    design: Callable[..., np.ndarray], spread: tuple[float, float, float], blocks: int
) -> None:
    generator = rng(f"partly {design.__name__} {spread}", blocks)
    covered, as_blocks = [], []
    for _ in range(600):
        cells = table(generator, 40, blocks, spread)
        cells = np.where(design(generator, 40, blocks), cells, np.nan)
        found, plain = crossed_interval(cells), mean_t(np.nanmean(cells, axis=0))
        covered.append(found.low <= 0.1 <= found.high)
        as_blocks.append(plain.low <= 0.1 <= plain.high)
    assert 0.92 <= np.mean(covered) <= 0.99
    if spread[0] > 0.1 and blocks == 12:  # blocks are not independent
        assert np.mean(as_blocks) < 0.8


def test_what_common_units_add_is_without_bias() -> None:
    """The variance of the mean over blocks, less what the spread of block means says of it."""
    generator, spread = rng("common units", 0), (0.2, 0.05, 0.1)
    there = thirds(generator, 12, 6)
    values, said = [], []
    for _ in range(6000):
        cells = np.where(there, table(generator, 12, 6, spread), np.nan)
        means = np.nanmean(cells, axis=0)
        values.append(means.mean())
        said.append((means.var(ddof=1) / 6, of_common_units(cells)))
    of_blocks, common = np.mean(said, axis=0)
    assert of_blocks + common == pytest.approx(np.var(values), rel=0.06)
    # a third of four classes in each of six blocks; 12 pairs of 15 lie in two deals
    overlap = np.mean(
        [(there[:, a] & there[:, b]).sum() / 16 for a, b in permutations(range(6), 2)]
    )
    assert common == pytest.approx(0.2**2 * overlap, rel=0.06)
    full = table(generator, 7, 3, spread)
    by_hand = np.mean([np.cov(full[:, a], full[:, b])[0, 1] for a, b in permutations(range(3), 2)])
    assert of_common_units(full) == pytest.approx(by_hand / 7)


def by_loops(cells: np.ndarray) -> tuple[float, float, int]:
    """Ends of the interval, term by term; and which of the three variances was the largest."""
    units, blocks = cells.shape
    has = [[u for u in range(units) if np.isfinite(cells[u, b])] for b in range(blocks)]
    mean = [np.mean([cells[u, b] for u in has[b]]) for b in range(blocks)]
    weighed = [[(cells[u, b] - mean[b]) / len(has[b]) / blocks if u in has[b] else 0.0
                for b in range(blocks)] for u in range(units)]  # fmt: skip
    sums = [sum(own) for own in weighed]
    of_unit = units / (units - 1) * sum(each**2 for each in sums)
    of_block = np.var(mean, ddof=1) / blocks
    products, room, overlap = 0.0, 0.0, []
    for one, other in permutations(range(blocks), 2):
        both, n, m = set(has[one]) & set(has[other]), len(has[one]), len(has[other])
        products += sum((cells[u, one] - mean[one]) * (cells[u, other] - mean[other]) for u in both)
        room += len(both) * (1 - 1 / n - 1 / m + len(both) / (n * m))
        overlap.append(len(both) / (n * m))
    common = products / room * float(np.mean(overlap))
    variances = [of_unit, of_block, of_block + common]
    square = max(variances)
    free = sum(map(len, has)) - units - blocks + 1
    parts = of_unit**2 / (units - 1) + of_block**2 / (blocks - 1) + (of_unit - common) ** 2 / free
    degrees = max(square**2 / parts, min(units, blocks) - 1)
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(square)
    return np.mean(mean) - reach, np.mean(mean) + reach, int(np.argmax(variances))


def test_the_interval_is_that_of_its_formula() -> None:
    generator, largest = rng("by loops", 0), set()
    for spread in ((0.1, 0.0, 0.3), (0.0, 0.3, 0.1), (0.3, 0.2, 0.1)) * 6:
        cells = table(generator, 9, 4, spread)
        cells[generator.permutation(9)[:4], generator.permutation(4)] = np.nan
        low, high, term = by_loops(cells)
        found = crossed_interval(cells)
        assert (found.low, found.high) == pytest.approx((low, high))
        largest.add(term)
    assert largest == {0, 1, 2}


def test_blocks_of_one_class_that_returns_have_no_interval() -> None:
    """What classes differ in cannot be told from blocks, and blocks are not independent."""
    cells = np.full((3, 6), np.nan)
    cells[[0, 1, 2, 0, 1, 2], range(6)] = [0.1, 0.5, 0.9, 0.1, 0.5, 0.9]
    assert np.isnan(of_common_units(cells)) and np.isnan(crossed_interval(cells).low)
    assert crossed_interval(cells).value == pytest.approx(0.5)
    alone = replicated({b: pd.Series([0.1 * b], index=[f"{b % 3}"]) for b in range(6)})
    assert "some return" in alone.reason and np.isnan(alone.interval.low)
    assert replicated({0: pd.Series([0.1, 0.2], index=["cat", "dog"])}).reason == ""


def test_a_missing_cell_changes_little_and_a_missing_block_is_no_number() -> None:
    cells = table(rng("missing", 0), 40, 5, (0.1, 0.05, 0.1))
    whole = crossed_interval(cells)
    cells[3, 2] = np.nan
    found = crossed_interval(cells)
    assert found.value == pytest.approx(np.nanmean(cells, axis=0).mean())
    assert found.error == pytest.approx(whole.error, rel=0.05)
    cells[:, 2] = np.nan
    assert np.isnan(crossed_interval(cells).low)


def test_the_variance_is_what_resampling_shows() -> None:
    """Resampling units, blocks and cells, each by itself; n - 1 of n drawn, for no bias."""
    cells = table(rng("resampled", 0), 12, 9, (0.1, 0.08, 0.05))
    units, blocks = cells.shape
    generator, n = rng("resampled", 1), 6000
    by_unit, by_block = cells.mean(axis=1), cells.mean(axis=0)
    rest = cells - by_unit[:, None] - by_block + cells.mean()
    of_unit = by_unit[generator.integers(units, size=(n, units - 1))].mean(axis=1).var()
    of_block = by_block[generator.integers(blocks, size=(n, blocks - 1))].mean(axis=1).var()
    free = (units - 1) * (blocks - 1)
    of_cell = rest.ravel()[generator.integers(cells.size, size=(n, free))].mean(axis=1).var()
    assert crossed_interval(cells).error ** 2 == pytest.approx(
        of_unit + of_block - of_cell, rel=0.06
    )


def test_many_blocks_agree_with_the_two_way_bootstrap() -> None:
    cells = table(rng("many", 0), 60, 60, (0.1, 0.1, 0.1))
    ours, theirs = crossed_interval(cells), two_way_interval(cells)
    assert ours.value == theirs.value
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_one_block_is_students_interval_over_units() -> None:
    values = rng("one block", 0).normal(size=9)
    expected = stats.t.interval(0.95, 8, values.mean(), stats.sem(values))
    for found in (crossed_interval(values[:, None]), nested_interval([values]), mean_t(values)):
        assert (found.low, found.high) == pytest.approx(expected)


def test_blocks_that_disagree_are_no_certainty() -> None:
    cells = np.tile([0.0, 0.4], (12, 1))  # every class agrees, the two blocks do not
    found = crossed_interval(cells)
    assert found.low < 0 < found.high
    same = crossed_interval(np.full((12, 2), 0.2))
    assert same.error == 0.0 and same.low == same.high == pytest.approx(0.2)


def test_too_little_has_no_interval() -> None:
    assert np.isnan(mean_t([0.3]).low)
    assert np.isnan(crossed_interval([[0.1, 0.2]]).low)
    with pytest.raises(SampleError, match="no class"):
        replicated({0: pd.Series([np.nan], index=["cat"])})
    with pytest.raises(SampleError, match="two values of a class"):
        replicated({0: pd.Series([0.1, 0.2], index=["cat", "cat"])})


def test_the_design_is_read_off_the_classes() -> None:
    whole = pd.Series([0.1, 0.2, 0.4], index=["cat", "dog", "owl"])
    assert replicated({0: whole}).unit == "class"
    crossed = replicated({0: whole, 1: whole + 0.1})
    assert (crossed.unit, crossed.n_units) == ("class x block", 3)
    partly = replicated({0: whole, 1: whole.drop("owl")})
    assert (partly.unit, partly.n_units, partly.n_blocks) == ("class in some blocks", 3, 2)
    assert partly.interval.value == pytest.approx((0.7 / 3 + 0.15) / 2)  # blocks weigh alike
    apart = replicated({0: whole, 1: whole.rename(lambda name: f"other {name}")})
    assert (apart.unit, apart.n_units, apart.n_blocks) == ("class within block", 6, 2)
    again = replicated({0: whole, 1: pd.Series([0.3, 0.5], index=["owl", "pig"])})
    assert (again.unit, again.n_units) == ("class in some blocks", 4)


def of_blocks(cells: np.ndarray) -> Interval:
    """A table's mean from each block's own interval alone."""
    own = [mean_t(block) for block in cells.T]
    return mean_of_intervals(*np.transpose([(one.value, one.low, one.high) for one in own]))


@pytest.mark.parametrize("blocks", [2, 8])
@pytest.mark.parametrize(
    "spread", [(0.1, 0.0, 0.001), (0.1, 0.02, 0.1), (0.001, 0.03, 0.1), (0.1, 0.05, 0.02)]
)
def test_means_of_intervals_cover_whatever_varies(
    blocks: int, spread: tuple[float, float, float]
) -> None:
    """Units in common are no more units for it, where the blocks alone would cover nothing."""
    generator = rng("means of intervals", blocks)
    tables = [table(generator, 15, blocks, spread) for _ in range(400)]
    found = [of_blocks(cells) for cells in tables]
    assert np.mean([one.low <= 0.1 <= one.high for one in found]) >= 0.925
    by_units = [crossed_interval(cells) for cells in tables]
    widths = [np.mean([one.high - one.low for one in kind]) for kind in (found, by_units)]
    assert widths[0] >= 0.98 * widths[1]
    if spread == (0.1, 0.0, 0.001):
        alone = [mean_t(cells.mean(axis=0)) for cells in tables]
        assert np.mean([one.low <= 0.1 <= one.high for one in alone]) < 0.2


def test_a_mean_of_intervals_is_that_of_its_formula() -> None:
    values, lows, highs = [0.2, 0.5, 0.5], [0.1, 0.2, np.nan], [0.4, 0.9, np.nan]
    found = mean_of_intervals(values, lows, highs)
    between = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert found.value == pytest.approx(0.4)
    assert found.value - found.low == pytest.approx(np.hypot(np.sqrt((0.01 + 0.09) / 2), between))
    assert found.high - found.value == pytest.approx(np.hypot(np.sqrt((0.04 + 0.16) / 2), between))
    one = mean_of_intervals([0.3], [0.1], [0.9])
    assert (one.value, one.low, one.high) == (0.3, 0.1, 0.9)
    assert np.isnan(mean_of_intervals([0.3, 0.4], [np.nan] * 2, [np.nan] * 2).low)
