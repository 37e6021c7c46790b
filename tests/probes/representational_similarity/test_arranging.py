"""Similarity by other measures, rows and models: a second way for each figure, and known traps."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from interp.core.artists import artist_halves
from interp.core.errors import SpecificationError
from interp.core.statistics.resampling import jackknife, permutation_p
from interp.probes import (
    Features,
    biased_cka,
    cka,
    classes_needed,
    cross_validated_cka,
    rsa,
    similarity,
)
from interp.probes.representational_similarity.classes_needed import null_deviation
from interp.probes.representational_similarity.permuting import expected
from tests.probes.representational_similarity.test_similarity import means

QUICK = {"n_splits": 1, "n_permutations": 49}


def halves(features: Features, without: str = "") -> dict[tuple[str, int], np.ndarray]:
    """Class means of each half of each domain, by pandas."""
    half = artist_halves(features.frame, ["real", "sketch"])
    domain = features.frame["domain"]
    return {
        (name, side): means(
            features, np.flatnonzero((domain == name) & (half == side)), "site0", without
        )
        for name, side in product(("real", "sketch"), (0, 1))
    }


@pytest.mark.parametrize(("name", "estimate"), [("biased_cka", biased_cka), ("rsa", rsa)])
def test_value_ceiling_and_jackknife_are_those_of_plain_estimates(planted, name, estimate) -> None:
    features = planted(0.6, n_classes=8)

    def plain(without: str = "") -> tuple[float, float]:
        part = halves(features, without)
        value = np.mean([estimate(part["real", i], part["sketch", 1 - i]) for i in (0, 1)])
        ends = [estimate(part[d, 0], part[d, 1]) for d in ("real", "sketch")]
        return float(value), float(np.sqrt(max(ends[0], 0) * max(ends[1], 0)))

    row = similarity(features, measure=name, **QUICK).frame.iloc[0]
    left = [plain(c) for c in sorted(set(features.frame["label"]))]
    value, ceiling = plain()
    assert row["value"] == pytest.approx(value, abs=1e-9)
    assert row["ceiling"] == pytest.approx(ceiling, abs=1e-9)
    assert row["low"] == pytest.approx(jackknife(value, [v for v, _ in left]).low, abs=1e-8)
    assert row["index"] == pytest.approx((value - row["null"]) / (ceiling - row["null"]), abs=1e-9)
    assert (abs(row["null"]) < 1e-12) == (name == "rsa")


@pytest.mark.parametrize("size", [1, 2])
def test_the_null_is_the_mean_over_every_permutation_of_classes(size: int) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 1, 2, 1, 5 * size, 5 * size))
    orders = [
        (np.array(order)[:, None] * size + np.arange(size)).ravel()
        for order in permutations(range(5))
    ]
    every = [(a[0, 0, 0] * b[0, 1, 0][np.ix_(order, order)]).sum() for order in orders]
    assert expected(a, b, [(0, 1)], 5)[0, 0] == pytest.approx(np.mean(every), abs=1e-12)


def test_cross_validated_cka_is_that_of_the_plain_estimator(planted) -> None:
    features = planted(0.6, n_classes=9)
    part = halves(features)
    # the mean of both products that share no artist, over the same scale
    parts = [
        cross_validated_cka(
            [part["real", i], part["real", 1 - i]], [part["sketch", 1 - i], part["sketch", i]]
        )
        for i in (0, 1)
    ]
    row = similarity(features, measure="cross_validated_cka", **QUICK).frame.iloc[0]
    assert row["value"] == pytest.approx(np.mean(parts), abs=1e-9)
    assert row["index"] == pytest.approx(row["value"]) and row["ceiling"] == 1


@pytest.mark.parametrize("rows", ["picture pair", "class structure"])
def test_other_rows_find_sharing_and_nothing(planted, rows: str) -> None:
    shared = similarity(planted(1.0, n_classes=12), rows=rows, **QUICK).frame.iloc[0]
    assert shared["verdict"] == "shared" and shared["p"] == 0.02
    apart = [
        similarity(planted(0.0, n_classes=12, seed=seed), rows=rows, **QUICK).frame.iloc[0]
        for seed in range(5)
    ]
    assert abs(np.mean([row["index"] for row in apart])) < 0.15
    assert np.mean([row["p"] for row in apart]) > 0.1
    assert (shared["null"] > 0.01) == (rows == "picture pair")  # blocks of classes stay blocks


def test_two_models_are_compared_within_and_between_domains(planted) -> None:
    one = planted(1.0, n_classes=12)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(48, 48)))[0].astype("f4")
    same = replace(one, values={"site0": one.values["site0"] @ turn})
    table = similarity(one, other=same, other_name="epoch 9", **QUICK).frame
    cells = set(zip(table["domain_a"], table["domain_b"], strict=True))
    assert cells == set(product(("real", "sketch"), repeat=2))
    assert set(table["verdict"]) == {"shared"} and set(table["model_b"]) == {"epoch 9"}
    unlike = similarity(one, other=planted(1.0, n_classes=12, seed=5), **QUICK).frame
    assert "shared" not in set(unlike["verdict"]) and abs(unlike["index"].mean()) < 0.25


def test_rows_that_a_measure_cannot_take_are_refused(planted) -> None:
    features = planted(1.0, n_classes=6)
    for measure in ("svcca", "rsa"):
        with pytest.raises(SpecificationError, match="rows='class structure'"):
            similarity(features, measure=measure, rows="class structure")
    with pytest.raises(SpecificationError, match="class mean"):
        similarity(features, rows="class means")
    renamed = replace(features, values={"other site": features.values["site0"]})
    with pytest.raises(SpecificationError, match="layers='all'"):
        similarity(features, other=renamed)
    assert len(similarity(features, other=renamed, layers="all", **QUICK)) == 4


@pytest.mark.parametrize("n", [8, 15, 45])
def test_the_foretold_deviation_is_that_of_noise(n: int) -> None:
    generator = np.random.default_rng(n)
    for width in (6, 64):
        drawn = [cka(*generator.normal(size=(2, n, width))) for _ in range(400)]
        assert np.std(drawn) == pytest.approx(null_deviation(n), rel=0.16)


def test_the_classes_foretold_give_the_width_asked_for() -> None:
    n = classes_needed(0.4)
    generator = np.random.default_rng(0)
    widths = []
    for _ in range(60):
        x, y = generator.normal(size=(2, n, 32))
        left = [cka(np.delete(x, c, 0), np.delete(y, c, 0)) for c in range(n)]
        spread = jackknife(cka(x, y), left)
        widths.append(spread.high - spread.low)
    assert np.median(widths) == pytest.approx(0.4, rel=0.25)


class TestTraps:
    """What looks reasonable, fails; what is done here instead, holds."""

    def test_bootstrap_of_rows_finds_what_is_not_there(self) -> None:
        """A row drawn twice agrees with itself in both sets: unrelated classes read far above 0."""
        generator = np.random.default_rng(0)
        means, lows, covered = [], [], []
        for _ in range(8):
            x, y = generator.normal(size=(2, 15, 32))
            drawn = generator.integers(15, size=(60, 15))
            boot = [cka(x[rows], y[rows]) for rows in drawn]
            means.append(np.mean(boot))
            lows.append(np.quantile(boot, 0.025))
            left = [cka(np.delete(x, c, 0), np.delete(y, c, 0)) for c in range(15)]
            spread = jackknife(cka(x, y), left)
            covered.append(spread.low <= 0 <= spread.high)
        assert np.mean(means) == pytest.approx(0.66, abs=0.06) and min(lows) > 0.2
        assert sum(covered) >= 7

    def test_spearman_brown_on_cka(self) -> None:
        """Stepping a half's CKA up to full length misses what all pictures give."""
        generator = np.random.default_rng(0)
        off = []
        for _ in range(150):
            truth = generator.normal(size=(40, 20))
            four = truth + 1.5 * generator.normal(size=(4, 40, 20))
            half = cka(four[0], four[1])
            full = cka(four[:2].mean(axis=0), four[2:].mean(axis=0))
            off.append(2 * half / (1 + half) - full)
        assert abs(np.mean(off)) > 3.5 * np.std(off) / np.sqrt(150)

    def test_free_permutation_of_rows_rejects_true_nulls(self) -> None:
        """Pictures of a class move together; permuting them freely makes every block look real."""
        generator = np.random.default_rng(0)
        classes, each = 8, 4
        label = np.repeat(np.arange(classes), each)
        free, whole = [], []
        for _ in range(20):
            x, y = (
                generator.normal(size=(classes, 10))[label] + 0.3 * generator.normal(size=(32, 10))
                for _ in range(2)
            )
            value = cka(x, y)
            rows = [cka(x, y[generator.permutation(32)]) for _ in range(39)]
            blocks = [
                cka(
                    x, y[(generator.permutation(classes)[:, None] * each + np.arange(each)).ravel()]
                )
                for _ in range(39)
            ]
            free.append(permutation_p(value, rows))
            whole.append(permutation_p(value, blocks))
        assert np.mean(np.array(free) <= 0.05) > 0.7
        assert np.mean(np.array(whole) <= 0.05) < 0.25
