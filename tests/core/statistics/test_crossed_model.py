"""Contrasts of settings: as mixed models and least squares have them, and right at their rate."""

import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.statistics.crossed_model import (
    CELL,
    ModelledContrast,
    contrast_of_means,
    contrast_of_settings,
)
from interp.core.statistics.replication import of_common_units
from interp.core.statistics.resampling import sign_flip_p

SPREAD = np.array([0.60, 1.13, 0.72, 1.14, 0.60, 1.46, 0.97, 1.05])
"""Of each setting's runs in the committed grid over that of all eight, upper bounds apart."""


def runs(
    generator: np.random.Generator, sd: float, blocks: int, spread: np.ndarray = SPREAD
) -> np.ndarray:
    """Means of runs, `block setting`, without any effect: blocks, runs, and 13 classes in each."""
    shape = (blocks, len(spread))
    classes = np.sqrt(0.05**2 / 13)  # a class's own answer to a setting, and its pictures'
    noise = np.hypot(sd * spread, classes) * generator.normal(size=shape)
    return 0.3 + 0.1 * generator.normal(size=(blocks, 1)) + noise


def between(one: int, other: int, n: int = len(SPREAD)) -> np.ndarray:
    weights = np.zeros(n)
    weights[one], weights[other] = 1.0, -1.0
    return weights


def told(found: ModelledContrast) -> list[float]:
    """What a contrast came to, but for rounding."""
    numbers = (found.interval.value, found.interval.low, found.interval.high, found.p)
    return [round(float(number), 12) for number in (*numbers, found.degrees)]


def table(domains: tuple[str, ...], blocks: int, *, folds: bool = True) -> pd.DataFrame:
    """Made-up answers of four settings, six classes a block, in the form of `CELL`."""
    generator = rng("answers", blocks)
    rows = []
    for block in range(blocks):
        run = 0.3 + 0.05 * generator.normal(size=4) + 0.1 * generator.normal()
        for place in range(6):
            of_class = 0.1 * generator.normal(size=4)
            for domain in domains:
                label = f"{block if folds else ''}{place}"
                rows.append((domain, block, label, *(run + of_class), *generator.normal(size=1)))
    frame = pd.DataFrame(rows, columns=[*CELL, "a", "b", "c", "d", "loud"]).set_index([*CELL])
    return frame[["a", "b", "c", "d"]] + 0.01 * frame[["loud"]].to_numpy()


def test_it_is_the_least_squares_fit_of_settings_and_blocks() -> None:
    means = runs(rng("least squares", 0), 0.05, 4)
    found = contrast_of_means(means, between(0, 5))
    block, setting = np.indices(means.shape)
    design = np.hstack([np.eye(4)[block.ravel()], np.eye(8)[setting.ravel()][:, 1:]])
    solved, *_ = np.linalg.lstsq(design, means.ravel(), rcond=None)
    degrees = means.size - np.linalg.matrix_rank(design)
    left = means.ravel() - design @ solved
    of_contrast = np.zeros(design.shape[1])
    of_contrast[4 + 5 - 1] = -1.0  # the first setting is the one that all others are held against
    scale = np.linalg.pinv(design.T @ design)
    error = np.sqrt(left @ left / degrees * (of_contrast @ scale @ of_contrast))
    assert found.degrees == degrees == 21
    assert found.interval.value == pytest.approx(of_contrast @ solved)
    assert found.interval.error == pytest.approx(error)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.interval.value) / error, degrees))
    for confidence, interval in ((0.95, found.interval), (0.9, found.at(0.9))):
        reach = stats.t.ppf((1 + confidence) / 2, degrees) * error
        assert interval.high - interval.value == pytest.approx(reach)


def test_it_is_the_restricted_likelihood_fit_of_the_crossed_model() -> None:
    """Setting fixed; block, setting x block and class within fold random; of single answers."""
    formula = pytest.importorskip("statsmodels.formula.api")
    answers = table(("sketch", "quickdraw"), 5)
    found = contrast_of_settings(answers, {"a": 1.0, "b": -1.0})
    long = answers.groupby(["seed", "label"]).mean().stack().rename("value").reset_index()
    long.columns = ["seed", "label", "setting", "value"]
    parts = {"run": "0 + C(setting)", "label": "0 + C(label)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = formula.mixedlm(
            "value ~ 0 + C(setting)", long, groups="seed", re_formula="1", vc_formula=parts
        ).fit(reml=True, method=["lbfgs", "powell"])
    means = fitted.fe_params
    assert found.interval.value == pytest.approx(means.iloc[0] - means.iloc[1])
    of_contrast = np.array([1.0, -1.0, 0.0, 0.0])
    covariance = fitted.cov_params().iloc[:4, :4].to_numpy()
    error = np.sqrt(of_contrast @ covariance @ of_contrast)
    assert found.interval.error == pytest.approx(error, rel=0.01)


def test_alone_and_between_kinds_it_is_the_paired_t_of_blocks() -> None:
    means = runs(rng("paired", 0), 0.05, 5)[:, :2]
    gaps = means[:, 0] - means[:, 1]
    low, high = stats.t.interval(0.95, 4, gaps.mean(), stats.sem(gaps))
    for kinds in (None, ["", "upper bound"]):
        found = contrast_of_means(means, between(0, 1, 2), kinds)
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
        assert (found.paired.low, found.paired.high) == pytest.approx((low, high))
        assert found.p == found.paired_p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)


def test_settings_of_another_kind_lend_no_spread() -> None:
    means = runs(rng("kinds", 0), 0.05, 3)
    loud = np.hstack([means, 5 * rng("loud", 0).normal(size=(3, 2))])
    kinds = [""] * 8 + ["upper bound"] * 2
    weights = np.append(between(0, 1), [0.0, 0.0])
    alone, beside = contrast_of_means(means, between(0, 1)), contrast_of_means(loud, weights, kinds)
    assert told(beside) == told(alone) and alone.n_settings == 8
    assert contrast_of_means(loud, weights).interval.error > 5 * alone.interval.error


def test_a_weighted_contrast_has_the_variance_of_its_weights() -> None:
    means = runs(rng("weights", 0), 0.05, 4)
    pair, mixed = between(0, 1), np.array([1.0, -0.5, -0.5, 0, 0, 0, 0, 0])
    found = [contrast_of_means(means, weights).interval.error for weights in (mixed, pair)]
    assert found[0] / found[1] == pytest.approx(np.sqrt(1.5 / 2))


def test_domains_are_averaged_and_are_no_repetitions() -> None:
    """Twice the same answers in another domain change nothing."""
    one = table(("sketch",), 4)
    again = pd.concat([one, one.rename(index={"sketch": "quickdraw"}, level="test_domain")])
    weights = {"a": 1.0, "c": -1.0}
    assert told(contrast_of_settings(one, weights)) == told(contrast_of_settings(again, weights))
    both = table(("sketch", "quickdraw"), 4)
    by_hand = (both["a"] - both["c"]).groupby(["seed", "test_domain"]).mean()
    assert contrast_of_settings(both, weights).interval.value == pytest.approx(by_hand.mean())


def test_classes_of_their_own_are_part_of_a_block_and_common_ones_a_sample() -> None:
    weights = {"a": 1.0, "b": -1.0}
    own = contrast_of_settings(table(("sketch",), 3), weights)
    assert (own.unit, own.n_units, own.n_blocks) == ("class within block", 18, 3)
    assert own.degrees == 3 * 2
    common = table(("sketch",), 3, folds=False)
    far = common.copy()
    far["a"] += 0.4 * far.index.get_level_values("label").astype(int) % 0.7  # classes differ in it
    found, spread = (contrast_of_settings(each, weights) for each in (common, far))
    assert found.unit == "class x block" and found.n_units == 6
    assert spread.interval.error > 1.5 * found.interval.error


def test_classes_in_some_blocks_add_what_they_have_in_common() -> None:
    """Three settings, four blocks, five of six classes in each: error and degrees by hand."""
    full = table(("sketch",), 4, folds=False)
    suits = full.index.get_level_values("label").astype(int) * 0.05
    full["a"] = full["a"] + suits  # classes differ in what a has over b
    places = full.index.get_level_values("label").astype(int)
    some = full[places % 4 != full.index.get_level_values("seed")][["a", "b", "c"]]
    found = contrast_of_settings(some, {"a": 1.0, "b": -1.0})
    assert (found.unit, found.n_units, found.n_blocks) == ("class in some blocks", 6, 4)
    means = some.groupby("seed").mean().to_numpy()
    rest = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    of_runs = (rest**2).sum() / (2 * 3) * 2 / 4
    gaps = (some["a"] - some["b"]).droplevel("test_domain").unstack("seed")
    common = of_common_units(gaps.to_numpy())
    assert common > 0
    error = np.sqrt(of_runs + common)
    degrees = error**4 / (of_runs**2 / 6 + common**2 / 5)
    assert found.interval.error == pytest.approx(error)
    assert found.degrees == pytest.approx(degrees)
    reach = stats.t.ppf(0.975, degrees) * error
    assert found.interval.high - found.interval.value == pytest.approx(reach)
    assert found.by_classes == pytest.approx(common / error**2)
    assert contrast_of_settings(full[["b", "c"]], {"b": 1.0, "c": -1.0}).by_classes == 0


def test_blocks_of_one_class_that_returns_have_no_interval_and_no_p() -> None:
    """They tell nothing of what classes differ in; a point would be false certainty."""
    rows = [("sketch", block, str(block % 3), 0.5 + 0.1 * (block % 3), 0.3) for block in range(6)]
    answers = pd.DataFrame(rows, columns=[*CELL, "a", "b"]).set_index([*CELL])
    found = contrast_of_settings(answers, {"a": 1.0, "b": -1.0})
    assert found.interval.value == pytest.approx(0.3)
    assert np.isnan([found.interval.low, found.interval.high, found.p]).all()
    assert found.reason == "one class in each block, and some return: no interval"


def test_one_block_has_an_interval_over_its_classes_and_no_p() -> None:
    one = table(("sketch",), 1)
    found = contrast_of_settings(one, {"a": 1.0, "b": -1.0})
    gaps = one["a"] - one["b"]
    low, high = stats.t.interval(0.95, 5, gaps.mean(), stats.sem(gaps))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert np.isnan(found.p) and np.isnan(found.paired_p) and found.unit == "class"
    assert found.reason == "one block: no p, and no interval over runs"
    assert np.isnan(contrast_of_means(np.array([[0.1, 0.2]]), between(0, 1, 2)).interval.low)
    single = contrast_of_settings(one.iloc[:1], {"a": 1.0, "b": -1.0})
    assert np.isnan(single.interval.low) and "one class" in single.reason


def test_what_is_missing_is_left_out_and_said() -> None:
    both = table(("sketch", "quickdraw"), 4)
    weights = {"a": 1.0, "b": -1.0}
    lost = both.sort_index().drop(index=("quickdraw", 2))
    found = contrast_of_settings(lost, weights)
    expected = contrast_of_settings(both.drop(index=2, level="seed"), weights)
    assert found.interval == expected.interval and found.n_blocks == 3
    assert found.reason == "1 block left out, where some setting or test domain is missing"
    gap = both.copy()
    gap.loc[gap.index.get_level_values("seed") == 0, "d"] = np.nan  # of another setting
    found, expected = (
        contrast_of_settings(each, weights) for each in (gap, both.drop(columns="d"))
    )
    assert told(found) == told(expected) and found.n_settings == 3
    with pytest.raises(SampleError, match="no class of a block"):
        contrast_of_settings(both.assign(a=np.nan), weights)


def test_p_and_interval_never_disagree() -> None:
    generator = rng("agree", 0)
    for n, kinds in product(range(150), (None, ["", "", "", "", "", "", "u", "u"])):
        means = runs(generator, 0.05, 2 + n % 4) + 0.1 * generator.normal(size=8)
        for weights in (between(0, 1), between(6, 7), between(2, 6)):
            found = contrast_of_means(means, weights, kinds)
            for interval, p in ((found.interval, found.p), (found.paired, found.paired_p)):
                assert (p < 0.05) == (interval.low > 0 or interval.high < 0)
    same = contrast_of_means(np.tile([0.3, 0.2], (3, 1)), between(0, 1, 2))
    assert same.p == 0.0 and same.interval.low == same.interval.high == pytest.approx(0.1)
    assert contrast_of_means(np.full((3, 2), 0.3), between(0, 1, 2)).p == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [3, 6, 12])
@pytest.mark.parametrize(
    "sd", [0.03, *(pytest.param(s, marks=pytest.mark.long) for s in (0.05, 0.08))]
)
@pytest.mark.parametrize("spread", [np.ones(8), SPREAD], ids=["equal", "observed"])
def test_false_positives_and_cover_are_nominal(sd: float, blocks: int, spread: np.ndarray) -> None:
    """Over all pairs of eight settings; with three, six and twelve blocks."""
    generator = rng(f"cover {sd} {blocks}", len(np.unique(spread)))
    effects = np.array([0.0] * 4 + [-0.1, 0.05, 0.1, 0.2])
    wrong, covered = [], []
    for _ in range(1600):
        means = runs(generator, sd, blocks, spread)
        order = generator.permutation(8)  # which settings have an effect
        one, other = generator.choice(8, size=2, replace=False)
        wrong.append(contrast_of_means(means, between(one, other)).p < 0.05)
        moved = contrast_of_means(means + effects[order], between(one, other)).interval
        truth = effects[order][one] - effects[order][other]
        covered.append(moved.low <= truth <= moved.high)
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.02)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [3, 6])
def test_classes_that_blocks_have_in_common_are_covered_too(blocks: int) -> None:
    """Ten classes, the same in every block; a setting suits some of them better than others."""
    generator, wrong, ignored = rng("common classes", blocks), [], []
    for _ in range(1200):
        suits = 0.1 * generator.normal(size=(10, 1, 8))
        run = 0.05 * generator.normal(size=(1, blocks, 8))
        cells = 0.3 + suits + run + 0.1 * generator.normal(size=(10, blocks, 8))
        means, weights = cells.mean(axis=0), between(0, 1)
        found = contrast_of_means(means, weights, classes=cells @ weights)
        wrong.append(found.p < 0.05)
        ignored.append(contrast_of_means(means, weights).p < 0.05)
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.02) and np.mean(ignored) > 0.1


@pytest.mark.slow
def test_classes_that_some_blocks_have_in_common_are_covered_too() -> None:
    """Thirds of thirty classes, dealt anew after three blocks; three arms, each of its classes."""
    generator, wrong, ignored = rng("classes in some blocks", 0), [], []
    for _ in range(1200):
        there = np.hstack([folds(generator) for _ in range(3)])
        suits = 0.15 * generator.normal(size=(30, 1, 3))
        run = 0.02 * generator.normal(size=(1, 9, 3))
        cells = 0.3 + suits + run + 0.1 * generator.normal(size=(30, 9, 3))
        cells[~there] = np.nan
        means, weights = np.nanmean(cells, axis=0), np.array([1.0, -1.0, 0.0])
        found = contrast_of_means(means, weights, classes=cells @ weights)
        wrong.append(found.p < 0.05)
        ignored.append(contrast_of_means(means, weights).p < 0.05)
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.02) and np.mean(ignored) > 0.15


def folds(generator: np.random.Generator) -> np.ndarray:
    """Which of thirty classes each of three blocks has: every class one."""
    return generator.permutation(30)[:, None] % 3 == np.arange(3)


@pytest.mark.slow
def test_the_rate_is_of_contrasts_together_and_the_paired_t_is_right_for_each() -> None:
    """If spreads seen in three blocks were the true ones: the most and the least spread pair."""
    generator = rng("single contrasts", 0)
    wrong: dict[tuple[int, int], list[tuple[bool, bool]]] = {(5, 3): [], (0, 4): []}
    for _ in range(1600):
        means = runs(generator, 0.05, 6)
        for pair, those in wrong.items():
            found = contrast_of_means(means, between(*pair))
            those.append((found.p < 0.05, found.paired_p < 0.05))
    most, least = (np.mean(those, axis=0) for those in wrong.values())
    assert 0.1 < most[0] < 0.2 and least[0] < 0.03
    assert (most[1], least[1]) == pytest.approx((0.05, 0.05), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [3, 6, 12])
@pytest.mark.parametrize("pair", [(6, 7), (8, 0), (8, 9)], ids=["alike", "apart", "upper bounds"])
def test_upper_bounds_of_another_spread_do_not_spoil_it(pair: tuple[int, int], blocks: int) -> None:
    """Two upper bounds vary twice as much and in a block of their own; pooled, they would err."""
    generator = rng("upper bounds", blocks)
    kinds = [""] * 8 + ["upper bound"] * 2
    wrong, pooled = [], []
    for _ in range(1600):
        upper = runs(generator, 0.1, blocks, np.ones(2))
        means = np.hstack([runs(generator, 0.05, blocks, np.ones(8)), upper])
        weights = between(*pair, 10)
        wrong.append(contrast_of_means(means, weights, kinds).p < 0.05)
        pooled.append(contrast_of_means(means, weights).p < 0.05)
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.02)
    if pair[0] == 8:
        assert np.mean(pooled) > 0.07


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.05, 0.08])
def test_signs_of_classes_would_ignore_runs(sd: float) -> None:
    """Why no p flips them: 40 classes of three blocks, and what runs do is in 13 at once."""
    generator, wrong = rng("signs", 0), []
    for n in range(200):
        run = np.repeat(sd * np.sqrt(2) * generator.normal(size=3), 13)
        gaps = run + 0.17 * generator.normal(size=39)
        wrong.append(sign_flip_p(gaps, seed=n, n_resamples=299) < 0.05)
    assert np.mean(wrong) > 0.15


def test_two_blocks_do_not_borrow_certainty_from_their_classes() -> None:
    """Two settings, two runs each, the same ten classes: degrees are those of the runs, one."""
    generator, wrong = rng("two blocks", 0), []
    for _ in range(400):
        run = 0.05 * generator.normal(size=(1, 2, 2))
        cells = 0.3 + 0.1 * generator.normal(size=(10, 1, 2)) + run
        cells = cells + 0.1 * generator.normal(size=(10, 2, 2))
        weights = np.array([1.0, -1.0])
        found = contrast_of_means(cells.mean(axis=0), weights, classes=cells @ weights)
        assert found.degrees == 1
        wrong.append(found.p < 0.05)
    assert np.mean(wrong) <= 0.07
