"""Similarity between domains: every figure a second way, and the right verdict on planted truth."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.core.artists import artist_halves
from interp.core.errors import SampleError, SpecificationError
from interp.core.statistics.resampling import max_t
from interp.core.tables import EVIDENCE
from interp.probes import Features, similarity
from interp.probes.representational_similarity.cka import u_centred
from interp.probes.representational_similarity.permuting import standard_errors
from tests.refusals import refuses


def means(features: Features, rows: np.ndarray, site: str, without: str = "") -> np.ndarray:
    """Class means by pandas."""
    part = pd.DataFrame(features.values[site][rows].astype(float))
    label = features.frame["label"].to_numpy()[rows]
    grouped = part.groupby(label).mean().sort_index()
    return grouped.drop(index=without, errors="ignore").to_numpy()


def test_intervals_are_those_of_the_pairs_influence(planted) -> None:
    """The second way: how value and index change when one pair of classes counts a little more."""
    features, n, step = planted(0.6, n_classes=9, seed=4), 9, 1e-5
    [row] = similarity(features, n_splits=1, n_permutations=19).frame.to_dict("records")
    domain, half = features.frame["domain"], artist_halves(features.frame, ["real", "sketch"])
    grams = {}
    for name, side in product(("real", "sketch"), (0, 1)):
        own = np.flatnonzero((domain == name) & (half == side))
        x = means(features, own, row["site"])
        grams[name, side] = u_centred((x - x.mean(axis=0)) @ (x - x.mean(axis=0)).T)

    def measured(weight: np.ndarray) -> tuple[float, float]:
        def aligned(one: np.ndarray, other: np.ndarray) -> float:
            lengths = (weight * one**2).sum() * (weight * other**2).sum()
            return float((weight * one * other).sum() / np.sqrt(lengths))

        value = np.mean([aligned(grams["real", i], grams["sketch", 1 - i]) for i in (0, 1)])
        ends = [aligned(grams[name, 0], grams[name, 1]) for name in ("real", "sketch")]
        return float(value), float(value / np.sqrt(np.prod(ends)))

    influence = np.zeros((2, n, n))
    for i, j in product(range(n), repeat=2):
        more, less = (np.ones((n, n)) for _ in range(2))
        more[i, j] += step
        less[i, j] -= step
        influence[:, i, j] = (np.array(measured(more)) - measured(less)) / (2 * step)
    linear = 4 * (influence.sum(axis=2) ** 2).sum(axis=1)
    variance = (linear - (influence**2).sum(axis=(1, 2))) * n / (n - 3)
    wider = 1.6  # six classes fewer than fifteen, a tenth for each
    reach = wider * stats.t.ppf(0.975, n - 1) * np.sqrt(variance)
    assert row["high"] - row["value"] == pytest.approx(reach[0], rel=1e-5)
    assert row["index_high"] - row["index"] == pytest.approx(reach[1], rel=1e-5)


def halves(
    n: int, *, rank: int, alike: float, seed: int, noise: float = 0.3, studies: int = 200
) -> list[np.ndarray]:
    """U-centred Gram matrices of unit length "deal half site class class" of both domains.

    Every site is a study with classes of its own. What B has correlates by `alike` with A's.
    """
    draw = np.random.default_rng(seed)
    code = draw.normal(size=(studies, n, rank))
    other = alike * code + np.sqrt(1 - alike**2) * draw.normal(size=code.shape)
    found = []
    for own in (code, other):
        x = np.pad(own, ((0, 0), (0, 0), (0, 24)))[None] + noise * draw.normal(
            size=(2, studies, n, rank + 24)
        )
        grams = u_centred(x @ x.swapaxes(-1, -2))
        found.append((grams / np.linalg.norm(grams, axis=(-1, -2), keepdims=True))[None])
    return found


def indices(grams: list[np.ndarray]) -> np.ndarray:
    """The index of every study."""
    (a,), (b,) = grams

    def aligned(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return (one * two).sum(axis=(-1, -2))

    value = (aligned(a[0], b[1]) + aligned(a[1], b[0])) / 2
    return value / np.sqrt(np.maximum(aligned(a[0], a[1]) * aligned(b[0], b[1]), 1e-9))


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 8, 12, 15, 20, 40, 60])
@pytest.mark.parametrize("rank", [4, 10])
def test_intervals_of_cka_cover(n: int, rank: int) -> None:
    """At identical, half shared and unrelated geometry; what half is, a thousand classes say."""
    covers = []
    for number, alike in enumerate((1.0, 0.7, 0.0)):
        words = {"rank": rank, "alike": alike}
        truth = indices(halves(1000, **words, seed=99, studies=4)).mean()
        grams = halves(n, **words, seed=100 * n + 10 * rank + number)
        found = indices(grams)
        errors = np.array([
            standard_errors(grams[0][:, :, [s]], grams[1][:, :, [s]], [(0, 1), (1, 0)])[2, 0, 0]
            for s in range(200)
        ])  # fmt: skip
        reach = stats.t.ppf(0.975, n - 1) * errors
        covers.append((np.abs(found - truth) < reach).mean())
        if n >= 15:  # with fewer classes the spread has tails that it does not tell
            assert 0.8 < errors.mean() / found.std() < 1.35
    assert min(covers) > (0.86 if n >= 15 else 0.84) and np.mean(covers) > 0.92, covers


def test_max_t_allows_for_the_number_of_layers() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.normal(size=(999, 20)) * np.arange(1, 21)
    value = np.zeros(20)
    value[3] = 2 * 4  # two deviations at one layer of twenty: p is .02 alone, not picked out
    adjusted = max_t(value, drawn)
    alone = max_t(value[3:4], drawn[:, 3:4])[0]
    assert alone < 0.04 < 0.2 < adjusted[3] < 0.7


@pytest.mark.slow
def test_no_sharing_is_never_called_shared_and_p_is_uniform(planted) -> None:
    rows = pd.concat(
        similarity(planted(0.0, seed=seed), n_splits=2, n_permutations=99, seed=seed).frame
        for seed in range(100)
    )
    error = rows["index"].std() / 10
    assert abs(rows["index"].mean()) < 3 * error
    assert "shared" not in set(rows["verdict"])
    assert stats.kstest(rows["p"], "uniform").pvalue > 0.01
    covered = ((rows["index_low"] <= 0) & (rows["index_high"] >= 0)).mean()
    assert covered >= 0.88


def test_full_sharing_under_a_rotation_is_called_shared(planted) -> None:
    rows = pd.concat(
        similarity(planted(1.0, seed=seed, offset=5.0), n_splits=2, n_permutations=99).frame
        for seed in range(40)
    )
    assert rows["index"].mean() == pytest.approx(1.0, abs=0.02)
    assert ((rows["index_low"] <= 1) & (rows["index_high"] >= 1)).mean() >= 0.88
    assert set(rows["verdict"]) == {"shared"}
    assert (rows["p"] == 0.01).all()
    assert (rows["value"] < 0.98).all()  # noise keeps the raw value below 1; the index repairs it


def test_partial_sharing_lies_between_and_is_monotone(planted) -> None:
    index = [
        np.mean([similarity(planted(dose, seed=seed), n_splits=2, n_permutations=9)
                 .frame["index"].iloc[0] for seed in range(8)])
        for dose in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]  # fmt: skip
    assert (np.diff(index) > 0.1).all()
    assert abs(index[2] - 0.5) < 0.1


def test_halves_of_the_artists_are_the_two_parts_of_the_value(planted) -> None:
    """A_1 with B_2 and A_2 with B_1 of the first deal, where artists drew in both domains."""
    features = planted(0.5, n_classes=20)
    once, often = (similarity(features, n_splits=n).frame.iloc[0] for n in (1, 8))
    assert (once["half_1"] + once["half_2"]) / 2 == pytest.approx(once["value"] - once["null"])
    assert once["half_1"] != once["half_2"]
    halves = ["half_1", "half_2"]
    assert often[halves].tolist() == pytest.approx(once[halves].tolist())
    assert "half_1" not in similarity(features, measure="procrustes", n_permutations=19).frame


@pytest.mark.parametrize(("sharing", "index"), [(0.0, 0.0), (1.0, 1.0)])
def test_drawings_common_to_both_domains_do_not_count_as_sharing(planted, sharing, index) -> None:
    """Counting A_1 with B_1, which show the same drawings, reads .3 here for 0 and 2 for 1."""
    rows = [
        similarity(planted(sharing, drawing=1.5, seed=seed), n_splits=2, n_permutations=9)
        .frame["value"].iloc[0]
        / similarity(planted(1.0, drawing=1.5, seed=seed), n_splits=2, n_permutations=9)
        .frame["ceiling"].iloc[0]
        for seed in range(12)
    ]  # fmt: skip
    assert np.mean(rows) == pytest.approx(index, abs=0.12)


def test_domains_by_different_artists_compare_all_halves(planted) -> None:
    features = planted(1.0)
    apart = features.frame.assign(artist=features.frame["artist"] + features.frame["domain"])
    four = similarity(replace(features, frame=apart), n_permutations=9).frame
    two = similarity(features, n_permutations=9).frame
    assert four["value"].iloc[0] != two["value"].iloc[0]
    assert four["verdict"].iloc[0] == two["verdict"].iloc[0] == "shared"


def test_a_table_without_artists_halves_pictures_and_says_so(planted) -> None:
    features = planted(1.0)
    anonymous = replace(features, frame=features.frame.drop(columns=["artist", "drawing"]))
    row = similarity(anonymous, n_permutations=9).frame.iloc[0]
    assert "halves by picture" in row["ceiling_kind"]
    assert row["n_drawings"] == row["n_pictures"]
    named = similarity(features, n_permutations=9).frame.iloc[0]
    assert "halves by artist" in named["ceiling_kind"]
    assert named["n_drawings"] == 20 * 6


def test_layers_all_holds_layers_same_on_its_diagonal(planted) -> None:
    features = planted(0.5, sites=3, domains=("a", "b", "c"))
    same = similarity(features, n_permutations=19).frame
    every = similarity(features, n_permutations=19, layers="all").frame
    assert len(same) == 9 and len(every) == 27
    diagonal = every[every["site"] == every["site_b"]].reset_index(drop=True)
    for name in ("value", "ceiling", "index", "index_low", "index_high"):
        np.testing.assert_allclose(diagonal[name], same[name], atol=1e-12)
    assert (diagonal["p"] >= same["p"] - 1e-12).all()  # a larger family


def test_every_row_carries_its_evidence(planted) -> None:
    frame = similarity(planted(0.5), n_permutations=9, control="epoch 0").frame
    assert set(EVIDENCE) <= set(frame.columns)
    assert frame.loc[0, ["value", "low", "high", "null", "ceiling", "p"]].notna().all()
    assert frame["control"].tolist() == ["epoch 0"]


def test_a_class_missing_in_one_domain_is_left_out_and_counted(planted) -> None:
    features = planted(1.0, domains=("a", "b", "c"))
    keep = ~((features.frame["domain"] == "c") & features.frame["label"].isin(["c00", "c01"]))
    frame = similarity(features.rows(keep), n_permutations=9).frame
    by_pair = frame.set_index(["domain_a", "domain_b"])
    assert by_pair.loc[("a", "b"), "n_units"] == 20 and by_pair.loc[("a", "b"), "reason"] == ""
    assert by_pair.loc[("a", "c"), "n_units"] == 18
    assert "2 classes left out" in by_pair.loc[("a", "c"), "reason"]
    assert by_pair.loc[("a", "c"), "verdict"] == "shared"


def test_too_few_classes_in_one_pair_is_a_reason_and_in_all_an_error(planted) -> None:
    features = planted(1.0, domains=("a", "b", "c"))
    few = ~((features.frame["domain"] == "c") & (features.frame["label"] > "c03"))
    frame = similarity(features.rows(few), n_permutations=9).frame.set_index("domain_b")
    assert np.isnan(frame.loc["c", "value"]).all()
    assert (frame.loc["c", "verdict"] == "unknown").all()
    assert frame.loc["c", "reason"].str.contains("4 classes").all()
    refuses(SampleError, "at least 5", similarity, features.rows(features.frame["label"] <= "c02"))


def test_one_picture_per_class_is_refused_with_what_is_needed(planted) -> None:
    features = planted(1.0)
    one = ~features.frame.duplicated(["label", "domain"])
    refuses(SampleError, "0 classes", similarity, features.rows(one))


def test_constant_features_are_a_reason_beside_sites_that_work(planted) -> None:
    features = planted(1.0, sites=2)
    flat = {**features.values, "site0": np.full_like(features.values["site0"], 0.3)}
    frame = similarity(replace(features, values=flat), n_permutations=9).frame
    assert frame["reason"].tolist() == ["constant features in real, sketch", ""]
    assert np.isnan(frame.loc[0, ["value", "low", "index", "p"]].astype(float)).all()
    assert frame["verdict"].tolist() == ["unknown", "shared"]


def test_unreliable_halves_withhold_the_index(planted) -> None:
    features = planted(1.0, noise=40.0, n_classes=8)
    row = similarity(features, n_permutations=9).frame.iloc[0]
    assert row["verdict"] == "unknown" and "there is no room" in row["reason"]


def test_doors_refuse_mixed_and_missing_arguments(planted) -> None:
    refuses(SpecificationError, "layers", similarity, planted(1.0), layers="some")


class TestHalves:
    def test_are_the_same_whichever_domains_are_asked_for(self, frame_of) -> None:
        frame = frame_of(6, ("a", "b", "c"))
        first = (frame["domain"] == "a").to_numpy()
        both = artist_halves(frame, ["a", "b"])[first]
        np.testing.assert_array_equal(both, artist_halves(frame, ["a", "b", "c"])[first])
        assert (both != artist_halves(frame, ["a", "b"], split=1)[first]).any()

    def test_serve_domains_without_a_common_artist(self, frame_of) -> None:
        frame = frame_of(4)
        frame["artist"] = frame["domain"] + frame["artist"]
        half = artist_halves(frame, ["real", "sketch"])
        assert (pd.crosstab(frame["domain"], half)[[0, 1]] == 24).all(axis=None)

    def test_leave_a_class_of_one_artist_out(self, frame_of) -> None:
        frame = frame_of(4)
        frame.loc[frame["label"] == "c01", "artist"] = "ann"
        half = artist_halves(frame, ["real", "sketch"])
        assert (half[frame["label"] == "c01"] == -1).all()
        assert (half[frame["label"] != "c01"] >= 0).all()
