"""Measures taken anew for every order of classes: each figure a second way, and planted truth."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import RidgeCV

from interp.core.errors import SpecificationError
from interp.core.statistics.resampling import class_permutations, jackknife
from interp.probes import SimilarityMeasure, cka, predictivity, procrustes, similarity
from interp.probes.representational_similarity.arranging import ComparisonDesign
from interp.probes.representational_similarity.linear_agreement import STRENGTHS, dealt_folds
from interp.probes.representational_similarity.measures import MEASURES
from interp.probes.representational_similarity.permuting import NULL_DRAWS, orders_without
from interp.probes.representational_similarity.similarity import compare
from tests.probes.representational_similarity.test_arranging import halves

QUICK = {"n_splits": 1, "n_permutations": 49}
every_name = pytest.mark.parametrize("name", MEASURES)


def by_loop(x: np.ndarray, y: np.ndarray, orders: np.ndarray, deal: np.ndarray) -> np.ndarray:
    return np.array([cka(x, y[order]) for order in orders])


@pytest.mark.parametrize("rows", ["class mean", "picture pair"])
def test_reordering_gives_what_matrices_give(planted, monkeypatch, rows: str) -> None:
    """Debiased CKA by both ways: all but the null, which the one draws and the other knows."""
    features = planted(0.5, n_classes=6, width=5, sites=2)
    design = ComparisonDesign("cka", rows, "all", 2, 200, 0)
    fast = compare(features, features, "real", "sketch", design)
    plain = replace(MEASURES["cka"], matrix=None, in_orders=by_loop)
    monkeypatch.setitem(MEASURES, "cka", plain)
    slow = compare(features, features, "real", "sketch", design)
    one, two = fast.found, slow.found
    for name in ("value", "drawn"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), atol=1e-10)
    for side in (0, 1):
        np.testing.assert_allclose(two.within[side], one.within[side], atol=1e-10)
    np.testing.assert_allclose(slow.p, fast.p)
    np.testing.assert_allclose(two.null[0], one.drawn.mean(axis=0), atol=1e-10)
    error = one.drawn.std(axis=0) / np.sqrt(200)
    assert (abs(two.null[0] - one.null[0]) < 4 * error).all()
    # with a class left out, what 20 permutations change is nearly the change of the exact mean
    moved = two.null[1:] - two.null[0] - (one.null[1:] - one.null[0])
    assert abs(moved).max() < 4 * one.drawn.std() / np.sqrt(NULL_DRAWS)


def r2(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """Predictivity by scikit-learn, in given folds."""
    missed = spread = 0.0
    for each in np.unique(fold):
        train, test = fold != each, fold == each
        a, b = x[train] - x[train].mean(axis=0), y[train] - y[train].mean(axis=0)
        ridge = RidgeCV(alphas=(a**2).sum() * np.array(STRENGTHS), fit_intercept=False).fit(a, b)
        told = ridge.predict(x[test] - x[train].mean(axis=0)) + y[train].mean(axis=0)
        missed += ((y[test] - told) ** 2).sum()
        spread += ((y[test] - y[train].mean(axis=0)) ** 2).sum()
    return 1 - missed / spread


@pytest.mark.parametrize("name", ["procrustes", "predictivity"])
def test_every_figure_is_that_of_plain_loops(planted, name: str) -> None:
    n, drawn = 12, 5
    features = planted(0.8, n_classes=n, width=3, rotate=False, noise=0.5)
    fold = dealt_folds(np.arange(n))

    def both(x: np.ndarray, y: np.ndarray, order: np.ndarray, fold: np.ndarray) -> float:
        if name == "procrustes":
            return procrustes(x, y[order])
        return (r2(x, y[order], fold) + r2(y, x[np.argsort(order)], fold)) / 2

    def plain(without: str, orders: np.ndarray) -> tuple[float, float, list[float]]:
        part = halves(features, without)
        kept = np.array([f"c{c:02d}" != without for c in range(n)])
        met = [(part["real", i], part["sketch", 1 - i]) for i in (0, 1)]
        values = [float(np.mean([both(x, y, o, fold[kept]) for x, y in met])) for o in orders]
        same = np.arange(kept.sum())
        ends = [both(part[d, 0], part[d, 1], same, fold[kept]) for d in ("real", "sketch")]
        return float(values[0]), float(np.sqrt(ends[0] * ends[1])), values[1:]

    orders = np.vstack([np.arange(n), class_permutations(n, drawn, 0)])
    value, ceiling, whole = plain("", orders)
    null = float(np.mean(whole))
    left = [plain(f"c{c:02d}", orders_without(orders, c)) for c in range(n)]
    nulls = [null + float(np.mean(np.subtract(each, whole))) for *_, each in left]
    row = similarity(features, measure=name, n_splits=1, n_permutations=drawn).frame.iloc[0]
    assert row["value"] == pytest.approx(value, abs=1e-9)
    assert row["ceiling"] == pytest.approx(ceiling, abs=1e-9)
    assert row["null"] == pytest.approx(null, abs=1e-9)
    assert row["low"] == pytest.approx(jackknife(value, [v for v, *_ in left]).low, abs=1e-8)
    rows = [(v - z) / (c - z) for (v, c, _), z in zip(left, nulls, strict=True)]
    spread = jackknife((value - null) / (ceiling - null), rows)
    assert row["index"] == pytest.approx(spread.value, abs=1e-8)
    assert row["index_low"] == pytest.approx(spread.low, abs=1e-7)
    assert row["p"] == (1 + np.sum(np.array(whole) >= value)) / (1 + drawn)
    if name == "predictivity":
        x, y = halves(features)["real", 0], halves(features)["sketch", 1]
        assert predictivity(x, y) == pytest.approx(r2(x, y, fold), abs=1e-9)


def test_orders_without_a_class_are_uniform_and_keep_the_datas() -> None:
    from itertools import permutations

    every = np.array(list(permutations(range(4))))
    for c in range(4):
        found, counts = np.unique(orders_without(every, c), axis=0, return_counts=True)
        assert len(found) == 6 and set(counts) == {4}
        assert orders_without(np.arange(4)[None], c).tolist() == [[0, 1, 2]]


@every_name
def test_every_measure_finds_full_sharing(planted, name: str) -> None:
    features = planted(1.0, n_classes=24, width=5, noise=0.5, rotate=False)
    row = similarity(features, measure=name, **QUICK).frame.iloc[0]
    assert row["index"] == pytest.approx(1.0, abs=0.12)
    assert row["verdict"] == "shared" and row["p"] == 0.02 and row["reason"] == ""
    assert row["null"] < row["value"] and row["index_low"] < row["index"] < row["index_high"]


@every_name
def test_every_measure_finds_nothing_where_nothing_is_shared(planted, name: str) -> None:
    rows = pd.DataFrame(
        similarity(planted(0.0, n_classes=24, width=5, noise=0.5, rotate=False, seed=seed),
                   measure=name, **QUICK).frame.iloc[0]
        for seed in range(4)
    )  # fmt: skip
    assert abs(rows["index"].mean()) < 0.15 and "shared" not in set(rows["verdict"])
    assert rows["p"].mean() > 0.1


@pytest.mark.long
@pytest.mark.slow
@every_name
def test_p_is_uniform_without_sharing_and_the_index_is_zero(planted, name: str) -> None:
    """80 studies: p = .05 or less in 0 to 12 of them (binomial, 1 in 1000 on either side)."""
    rows = pd.DataFrame(
        similarity(planted(0.0, n_classes=16, width=4, noise=0.5, rotate=False, seed=seed),
                   measure=name, n_splits=1, n_permutations=39, seed=seed).frame.iloc[0]
        for seed in range(80)
    )  # fmt: skip
    assert (rows["p"] <= 0.05).sum() <= stats.binom.ppf(0.999, 80, 0.05)
    # Kolmogorov and Smirnov's, of p without its steps of 1/40
    smooth = rows["p"].to_numpy() - np.random.default_rng(0).random(80) / 40
    assert stats.kstest(smooth, "uniform").pvalue > 0.001
    index = rows["index"].dropna()
    assert len(index) > 60 and abs(index.mean()) < 3.5 * index.std() / np.sqrt(len(index))
    covered = (rows["index_low"] <= 0) & (rows["index_high"] >= 0)
    assert covered[index.index].sum() >= stats.binom.ppf(0.001, len(index), 0.95)


@every_name
@pytest.mark.parametrize("n_classes", [5, 12])
def test_every_missing_number_has_a_reason(planted, name: str, n_classes: int) -> None:
    """Constant features, dimensions without end, and too few classes for some measures."""
    features = planted(1.0, n_classes=n_classes, width=16)
    values = {**features.values, "flat": np.full_like(features.values["site0"], 0.3)}
    features = replace(features, values=values)
    frame = similarity(features, measure=name, n_splits=1, n_permutations=9).frame
    for column in ("value", "low", "null", "ceiling", "index", "index_low", "p"):
        assert (frame["reason"][frame[column].isna()] != "").all(), column
    assert frame["value"].isna().tolist()[1]
    assert (frame["value"].isna() == frame["p"].isna()).all()


@pytest.mark.parametrize(("name", "needed"), [("svcca", "30"), ("pwcca", "30")])
def test_canonical_correlations_that_are_forced_are_refused(planted, name, needed) -> None:
    frame = similarity(planted(1.0, n_classes=15), measure=name, **QUICK).frame
    assert np.isnan(frame.loc[0, ["value", "null", "ceiling", "p"]].astype(float)).all()
    assert f"needs {needed} classes" in frame.loc[0, "reason"]
    assert "14 dimensions" in frame.loc[0, "reason"] and frame.loc[0, "verdict"] == "unknown"


@pytest.mark.parametrize(("name", "least"), [("mutual_knn", 13), ("predictivity", 11)])
def test_the_fewest_classes_leave_one_to_leave_out(planted, name: str, least: int) -> None:
    make = partial(planted, 1.0, width=3, rotate=False, noise=0.3)
    few = similarity(make(n_classes=least - 1), measure=name, **QUICK).frame.iloc[0]
    assert np.isnan(few["value"]) and f"needs {least}" in few["reason"]
    enough = similarity(make(n_classes=least), measure=name, **QUICK).frame.iloc[0]
    assert np.isfinite(enough[["value", "low", "null", "ceiling"]].astype(float)).all()


def test_halves_that_foretell_nothing_have_no_index(planted) -> None:
    """Their R^2 is below 0, and so is the null: a ceiling of 0 would lie above it."""
    features = planted(1.0, n_classes=12, width=30, noise=5.0)
    row = similarity(features, measure="predictivity", **QUICK).frame.iloc[0]
    assert row["null"] < 0 and row["ceiling"] == 0
    assert row["verdict"] == "unknown" and "do not agree" in row["reason"]


def test_slow_measures_take_other_rows_layers_and_models(planted) -> None:
    features = planted(1.0, n_classes=8, width=3, sites=2, noise=0.3)
    pairs = similarity(features, measure="procrustes", rows="picture pair", **QUICK).frame
    assert set(pairs["verdict"]) == {"shared"}
    means = similarity(features, measure="procrustes", **QUICK).frame
    every = similarity(features, measure="procrustes", layers="all", **QUICK).frame
    same = every[every["site"] == every["site_b"]].reset_index(drop=True)
    for name in ("value", "ceiling", "null", "index"):
        np.testing.assert_allclose(same[name], means[name], atol=1e-10)
    models = similarity(features, measure="procrustes", other=features, **QUICK).frame
    assert len(models) == 8


def test_a_measure_with_an_estimate_alone_is_refused_at_the_door(planted, monkeypatch) -> None:
    monkeypatch.setitem(MEASURES, "mine", SimilarityMeasure("my measure", cka, 4))
    with pytest.raises(SpecificationError, match="my measure") as refused:
        similarity(planted(0.5, n_classes=6), measure="mine")
    error = refused.value
    assert "estimate" in error.given and "in_orders" in error.right and error.do
