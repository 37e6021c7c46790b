"""Raw units and principal components as codes, and dictionaries matched over seeds."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch

from interp.core.errors import LeakError, NumericsError, SampleError, ShapeError, SpecificationError
from interp.core.tables import EVIDENCE
from interp.probes import (
    Dictionary,
    Features,
    TopK,
    dictionary_stability,
    match_features,
    pca,
    raw_units,
    train_dictionaries,
)
from tests.probes.sparse_world import SITE, sparse_world
from tests.refusals import refuses


def features_of(x: np.ndarray) -> Features:
    return Features({"s": x}, pd.DataFrame({"label": ["cat"] * len(x), "domain": "real"}))


@pytest.mark.parametrize("make", [raw_units, pca])
def test_codes_are_non_negative_and_write_back_what_they_read(make) -> None:
    x = 7 + np.random.default_rng(0).normal(size=(40, 6)) * [1, 2, 3, 4, 5, 0]
    code = make(features_of(x), "s", withheld=())
    made = code(x)
    assert (made >= 0).all() and made.shape[1] % 2 == 0
    np.testing.assert_allclose(code.reconstruct(torch.as_tensor(x)).numpy(), x, atol=1e-9)
    half = made.shape[1] // 2
    z = made[:, :half] - made[:, half:]
    if make is raw_units:
        np.testing.assert_allclose(z[:, :5], ((x - x.mean(0)) / np.maximum(x.std(0), 1e-9))[:, :5])
        assert (z[:, 5] == 0).all()  # a unit that does not vary
    else:
        assert half == 5
        np.testing.assert_allclose(np.cov(z.T, bias=True), np.diag(z.var(axis=0)), atol=1e-9)
        assert z.var(axis=0).sum() == pytest.approx(x.var(axis=0).sum())


def test_fewer_components_keep_the_largest() -> None:
    x = np.random.default_rng(0).normal(size=(40, 4)) * [9, 1, 5, 1]
    made = pca(features_of(x), "s", n_components=2, withheld=())(x)
    every = pca(features_of(x), "s", withheld=())(x)
    np.testing.assert_allclose(made, every[:, [0, 1, 4, 5]], atol=1e-9)
    for n in (0, 5):
        refuses(SpecificationError, "1 to 4", pca, features_of(x), "s", n_components=n, withheld=())


@pytest.mark.parametrize("make", [raw_units, pca])
def test_codes_do_not_see_withheld_cells(make) -> None:
    world = sparse_world(1.0, n_classes=6)
    inside = (world.features.frame["label"] == "c00").to_numpy()
    changed = np.where(inside[:, None], 1e3, world.features.values[SITE]).astype(np.float32)
    other = replace(world.features, values={SITE: changed})
    cells = [("c00", "real"), ("c00", "sketch")]
    first, second = (make(each, SITE, withheld=cells) for each in (world.features, other))
    assert torch.equal(first.mean, second.mean) and torch.equal(first.axes, second.axes)
    refuses(LeakError, "", make, world.features, SITE)


@pytest.mark.parametrize("make", [raw_units, pca])
def test_codes_refuse_what_does_not_vary_or_fit(make) -> None:
    with pytest.raises(NumericsError, match="pictures whose"):
        make(features_of(np.full((9, 3), 0.1)), "s", withheld=())
    code = make(features_of(np.random.default_rng(0).normal(size=(9, 3))), "s", withheld=())
    refuses(ShapeError, "3 values", code, np.ones((2, 4)))


def dictionary_of(directions: np.ndarray) -> Dictionary:
    rows = torch.as_tensor(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    n, d = rows.shape
    zero = torch.zeros(n).double()
    return Dictionary(rows.T, rows, zero, torch.zeros(d).double(), zero, facts={"site": SITE})


def test_matching_is_the_best_of_all_permutations() -> None:
    generator = np.random.default_rng(0)
    first, second = (dictionary_of(generator.normal(size=(6, 4))) for _ in range(2))
    partner, cosine = match_features(first, second)
    every = (first.decoder @ second.decoder.T).numpy()
    best = max(permutations(range(6)), key=lambda order: every[range(6), list(order)].sum())
    assert partner.tolist() == list(best)
    np.testing.assert_allclose(cosine, every[range(6), list(best)])
    assert sorted(partner) != partner.tolist()  # the identity would not do


def test_a_narrower_dictionary_leaves_features_without_a_partner() -> None:
    generator = np.random.default_rng(0)
    first, second = (dictionary_of(generator.normal(size=(n, 4))) for n in (6, 2))
    partner, cosine = match_features(first, second)
    assert (partner == -1).sum() == 4 and (cosine[partner == -1] == 0).all()
    with pytest.raises(ShapeError, match="4 and 5 values"):
        match_features(first, dictionary_of(generator.normal(size=(6, 5))))


class TestStability:
    def test_finds_nothing_among_random_directions(self) -> None:
        generator = np.random.default_rng(1)
        frame = dictionary_stability(
            [dictionary_of(generator.normal(size=(40, 10))) for _ in range(3)], n_null=40
        ).frame.set_index("measure")
        row = frame.loc["mean cosine"]
        assert row["value"] == pytest.approx(row["null"], abs=0.02) and row["p"] > 0.05
        assert row["null"] > 0.5  # forty directions in ten dimensions: cosines are never small

    def test_finds_directions_that_are_the_same_but_for_noise(self) -> None:
        generator = np.random.default_rng(0)
        base = generator.normal(size=(20, 30))
        several = [
            dictionary_of(generator.permutation(base) + 0.1 * generator.normal(size=base.shape))
            for _ in range(3)
        ]
        frame = dictionary_stability(several).frame.set_index("measure")
        assert set(EVIDENCE) <= set(frame.columns)
        assert (frame["value"] > 0.97).all() and (frame["index"] > 0.9).all()
        assert (frame["low"] <= frame["value"]).all() and (frame["p"] < 0.05).all()
        pairs = [(0, 1), (0, 2), (1, 2)]
        plain = np.mean([match_features(several[i], several[j])[1].mean() for i, j in pairs])
        assert frame.loc["mean cosine", "value"] == pytest.approx(plain)

    def test_is_lower_for_features_that_training_does_not_settle(self) -> None:
        """Twice as many features as there are: the surplus differs from seed to seed."""
        world = sparse_world(1.0, n_classes=6, n_artists=20, copies=8, width=20, on=0.35)
        value = {}
        for width in (24, 96):
            several = train_dictionaries(
                world.features, SITE, TopK(2), width=width, withheld=(), seeds=(0, 1), steps=400,
                rate=0.01, batch_size=256,
            )  # fmt: skip
            table = dictionary_stability(several, n_null=3).frame.set_index("measure")
            value[width] = table.loc["same features", "value"]
            assert "an interval takes three" in table["reason"].iloc[0]
        assert value[24] > value[96] + 0.1

    def test_takes_two(self) -> None:
        refuses(SampleError, "at least two", dictionary_stability, [dictionary_of(np.eye(3))])
