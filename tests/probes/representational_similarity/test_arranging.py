"""Similarity by other measures, rows and models: a second way for each figure, and known traps."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from interp import probes
from interp.core.artists import artist_halves
from interp.core.errors import SpecificationError
from interp.core.statistics.resampling import jackknife
from interp.probes.representational_similarity.classes_needed import null_deviation
from interp.probes.representational_similarity.permuting import expected
from tests.probes.representational_similarity.test_similarity import means
from tests.refusals import refuses

QUICK = {"n_splits": 1, "n_permutations": 49}


def halves(
    features: probes.Features, without: str = "", split: int = 0
) -> dict[tuple[str, int], np.ndarray]:
    """Class means of each half of each domain, by pandas."""
    half = artist_halves(features.frame, ["real", "sketch"], split=split)
    domain = features.frame["domain"]
    return {
        (name, side): means(
            features, np.flatnonzero((domain == name) & (half == side)), "site0", without
        )
        for name, side in product(("real", "sketch"), (0, 1))
    }


@pytest.mark.parametrize(
    ("name", "estimate"),
    [("cka", probes.cka), ("biased_cka", probes.biased_cka), ("rsa", probes.rsa)],
)
def test_value_ceiling_and_jackknife_are_those_of_plain_estimates(planted, name, estimate) -> None:
    features = planted(0.6, n_classes=9, seed=4)

    def plain(without: str = "") -> tuple[float, float]:
        parts = [halves(features, without, split) for split in (0, 1)]
        met = [estimate(p["real", i], p["sketch", 1 - i]) for p in parts for i in (0, 1)]
        ends = [np.mean([estimate(p[d, 0], p[d, 1]) for p in parts]) for d in ("real", "sketch")]
        return float(np.mean(met)), float(np.sqrt(max(ends[0], 0) * max(ends[1], 0)))

    row = probes.similarity(features, measure=name, n_splits=2, n_permutations=49).frame.iloc[0]
    value, ceiling = plain()
    assert row["value"] == pytest.approx(value, abs=1e-9)
    assert row["ceiling"] == pytest.approx(ceiling, abs=1e-9)
    assert row["index"] == pytest.approx((value - row["null"]) / (ceiling - row["null"]), abs=1e-9)
    assert (abs(row["null"]) < 1e-12) == (name != "biased_cka")
    if name != "cka":  # whose interval is that of the pairs' influence
        left = [plain(c)[0] for c in sorted(set(features.frame["label"]))]
        assert row["low"] == pytest.approx(jackknife(value, left).low, abs=1e-8)


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
        probes.cross_validated_cka(
            [part["real", i], part["real", 1 - i]], [part["sketch", 1 - i], part["sketch", i]]
        )
        for i in (0, 1)
    ]
    row = probes.similarity(features, measure="cross_validated_cka", **QUICK).frame.iloc[0]
    assert row["value"] == pytest.approx(np.mean(parts), abs=1e-9)
    assert row["index"] == pytest.approx(row["value"]) and row["ceiling"] == 1


@pytest.mark.parametrize("rows", ["picture pair", "class structure"])
def test_other_rows_find_sharing_and_nothing(planted, rows: str) -> None:
    shared = probes.similarity(planted(1.0, n_classes=12), rows=rows, **QUICK).frame.iloc[0]
    assert shared["verdict"] == "shared" and shared["p"] == 0.02
    apart = [
        probes.similarity(planted(0.0, n_classes=12, seed=seed), rows=rows, **QUICK).frame.iloc[0]
        for seed in range(5)
    ]
    assert abs(np.mean([row["index"] for row in apart])) < 0.15
    assert np.mean([row["p"] for row in apart]) > 0.1
    assert (shared["null"] > 0.01) == (rows == "picture pair")  # blocks of classes stay blocks


def test_two_models_are_compared_within_and_between_domains(planted) -> None:
    one = planted(1.0, n_classes=12)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(48, 48)))[0].astype("f4")
    same = replace(one, values={"site0": one.values["site0"] @ turn})
    table = probes.similarity(one, other=same, other_name="epoch 9", **QUICK).frame
    cells = set(zip(table["domain_a"], table["domain_b"], strict=True))
    assert cells == set(product(("real", "sketch"), repeat=2))
    assert set(table["verdict"]) == {"shared"} and set(table["model_b"]) == {"epoch 9"}
    unlike = probes.similarity(one, other=planted(1.0, n_classes=12, seed=5), **QUICK).frame
    assert "shared" not in set(unlike["verdict"]) and abs(unlike["index"].mean()) < 0.25


def test_rows_that_a_measure_cannot_take_are_refused(planted) -> None:
    features = planted(1.0, n_classes=6)
    for measure in ("svcca", "rsa"):
        with pytest.raises(SpecificationError, match="rows='class structure'"):
            probes.similarity(features, measure=measure, rows="class structure")
    refuses(SpecificationError, "class mean", probes.similarity, features, rows="class means")
    renamed = replace(features, values={"other site": features.values["site0"]})
    refuses(SpecificationError, "layers='all'", probes.similarity, features, other=renamed)
    assert len(probes.similarity(features, other=renamed, layers="all", **QUICK)) == 4


@pytest.mark.parametrize("n", [8, 15, 45])
def test_the_foretold_deviation_is_that_of_noise(n: int) -> None:
    generator = np.random.default_rng(n)
    for width in (6, 64):
        drawn = [probes.cka(*generator.normal(size=(2, n, width))) for _ in range(400)]
        assert np.std(drawn) == pytest.approx(null_deviation(n), rel=0.16)


def test_the_classes_foretold_give_the_width_asked_for() -> None:
    n = probes.classes_needed(0.4)
    generator = np.random.default_rng(0)
    widths = []
    for _ in range(60):
        x, y = generator.normal(size=(2, n, 32))
        left = [probes.cka(np.delete(x, c, 0), np.delete(y, c, 0)) for c in range(n)]
        spread = jackknife(probes.cka(x, y), left)
        widths.append(spread.high - spread.low)
    assert np.median(widths) == pytest.approx(0.4, rel=0.25)
