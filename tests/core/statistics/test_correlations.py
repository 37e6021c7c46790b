"""Rank correlations: scipy's number, an interval that covers, a p that finds and does not find."""

import numpy as np
import pytest
from scipy import stats

from interp.core.errors import ShapeError
from interp.core.seeds import rng
from interp.core.statistics.correlations import _without_each, spearman


def test_it_is_scipys_with_ties_and_gaps() -> None:
    generator = rng("spearman", 0)
    x, y = generator.integers(0, 5, 30).astype(float), generator.normal(size=30)
    x[3] = np.nan
    known = np.isfinite(x)
    found = spearman(x, y)
    assert found.value == pytest.approx(stats.spearmanr(x[known], y[known]).statistic)
    assert found.n == 29


def test_the_interval_covers_at_its_nominal_rate() -> None:
    rho, n = 0.5, 40
    truth = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's of a normal pair
    generator, covered = rng("spearman coverage", 0), []
    for _ in range(300):
        pair = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
        found = spearman(pair[:, 0], pair[:, 1], n_permutations=9)
        covered.append(found.low <= truth <= found.high)
    assert 0.91 <= np.mean(covered) <= 0.985


@pytest.mark.slow
def test_p_holds_its_level_and_agrees_with_scipy() -> None:
    generator = rng("spearman p", 0)
    p = [spearman(*generator.normal(size=(2, 15)), n_permutations=199).p for _ in range(300)]
    assert 0.02 <= np.mean(np.asarray(p) <= 0.05) <= 0.09
    x = generator.normal(size=25)
    y = x + generator.normal(size=25)
    expected = stats.permutation_test(
        (x,), lambda a: stats.spearmanr(a, y).statistic, permutation_type="pairings",
        n_resamples=1999, rng=generator,
    ).pvalue  # fmt: skip
    assert spearman(x, y).p == pytest.approx(expected, abs=0.01)
    assert spearman(x, -y).p == pytest.approx(expected, abs=0.01)  # either direction counts


def test_what_cannot_be_said_is_said() -> None:
    assert "at least 5" in spearman([1, 2, 3], [1, 2, 3]).reason
    same = spearman([1.0] * 8, range(8))
    assert np.isnan(same.value) and "first number is the same" in same.reason
    perfect = spearman(range(8), range(8))
    assert perfect.value == pytest.approx(1.0) and 0.99 < perfect.low <= perfect.high <= 1.0
    with pytest.raises(ShapeError):
        spearman([1, 2], [1, 2, 3])


def test_a_single_class_that_varies_has_no_interval() -> None:
    found = spearman([0, 0, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6])
    assert np.isfinite(found.value) and np.isnan(found.low) and "without one unit" in found.reason


@pytest.mark.parametrize("ties", [False, True])
def test_leaving_out_at_once_is_leaving_out_one_by_one(ties: bool) -> None:
    x, y = rng("spearman left out", 0).normal(size=(2, 14)).round(0 if ties else 9)
    slow = [stats.spearmanr(np.delete(x, unit), np.delete(y, unit)).statistic for unit in range(14)]
    np.testing.assert_allclose(_without_each(x, y), slow, rtol=0, atol=1e-14)
    x[:] = 0
    x[3] = 1
    assert np.isnan(_without_each(x, y)).tolist() == [unit == 3 for unit in range(14)]
