"""Intervals cover, nulls are uniform, and verdicts decide by equivalence."""

import numpy as np
import pytest
from scipy import stats

from interp.core.seeds import rng
from interp.core.statistics import resampling as statistics


def test_jackknife_of_a_mean_is_the_standard_error() -> None:
    values = rng("test", 1).normal(size=12)
    left_out = [np.delete(values, i).mean() for i in range(12)]
    spread = statistics.jackknife(float(values.mean()), left_out)
    assert spread.error == pytest.approx(stats.sem(values))
    expected = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (spread.low, spread.high) == pytest.approx(expected)


def test_balanced_mean_weighs_groups_not_values() -> None:
    assert statistics.mean_interval([1, 1, 1, 0], ["a", "a", "a", "b"]).value == 0.5


def test_mean_interval_covers_at_its_nominal_rate() -> None:
    generator = rng("cover", 0)
    covered = []
    for seed in range(200):
        spread = statistics.mean_interval(
            generator.normal(1.0, 1.0, 30), seed=seed, n_resamples=400
        )
        covered.append(spread.low <= 1.0 <= spread.high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_column_intervals_are_mean_intervals_of_every_column() -> None:
    table = rng("columns", 0).normal(size=(12, 1100)) * np.linspace(0, 2, 1100)
    for groups in (None, ["a", "b", "c"] * 4):
        many = statistics.column_intervals(table, groups, seed=5, n_resamples=300)
        for column in (0, 7, 1099):
            alone = statistics.mean_interval(table[:, column], groups, seed=5, n_resamples=300)
            for word in ("value", "error", "low", "high"):
                assert getattr(many[column], word) == pytest.approx(getattr(alone, word))
    assert np.isnan(statistics.column_intervals(table[:1])[3].low)


def test_two_way_interval_is_wider_than_resampling_one_way_alone() -> None:
    generator = rng("two way", 0)
    cells = generator.normal(size=(12, 1)) + 2 * generator.normal(size=(1, 3))
    both = statistics.two_way_interval(cells)
    units_alone = statistics.mean_interval(cells.mean(axis=1))
    assert both.high - both.low > 1.5 * (units_alone.high - units_alone.low)


def test_two_way_interval_with_one_block_is_a_bootstrap_over_units() -> None:
    values = rng("one block", 0).normal(size=25)
    two = statistics.two_way_interval(values[:, None], n_resamples=8000)
    one = statistics.mean_interval(values, n_resamples=8000)
    assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=0.04)


def test_sign_flip_rejects_true_nulls_at_its_level_and_sees_effects() -> None:
    generator = rng("flip", 0)
    null = [statistics.sign_flip_p(generator.normal(size=12), n_resamples=400) for _ in range(200)]
    assert np.mean(np.asarray(null) < 0.05) < 0.1
    assert statistics.sign_flip_p(generator.normal(2.0, 1.0, size=12)) < 0.01


def test_flipping_whole_groups_is_not_flipping_single_pairs() -> None:
    """Ten copies of three classes are three units; flipped singly they would look like thirty."""
    values = np.repeat([1.0, 1.2, 0.8], 10)
    groups = np.repeat(["a", "b", "c"], 10)
    assert statistics.sign_flip_p(values, groups) == pytest.approx(0.25)
    assert statistics.sign_flip_p(values) < 0.001


def test_permutation_p_is_never_zero() -> None:
    assert statistics.permutation_p(9.0, np.zeros(99)) == pytest.approx(0.01)
    assert np.isnan(statistics.permutation_p(np.nan, np.zeros(9)))


def test_holm_controls_what_single_tests_do_not() -> None:
    assert statistics.holm([0.04, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.06, 0.06])
