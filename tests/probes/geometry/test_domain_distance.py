"""Domains told apart and their distance: a second way for every number, and planted answers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from interp.core.artists import artists_of
from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.statistics.resampling import jackknife
from interp.core.tables import EVIDENCE, Table
from interp.probes import Features, domain_distance, domain_test
from interp.probes.geometry.domain_distance import domain_pair
from tests.refusals import refuses

Measure = Callable[..., Table]


@pytest.fixture
def alike(planted) -> Callable[..., Features]:
    """Domains that differ by nothing but noise, or by `offset` in every feature."""
    return lambda **options: planted(1.0, rotate=False, **options)


def apart(features: Features) -> Features:
    """The same pictures, with other artists in each domain."""
    frame = features.frame
    return replace(features, frame=frame.assign(artist=frame["artist"] + frame["domain"]))


def accuracy(features: Features, labels: np.ndarray, without: int = -1) -> np.ndarray:
    """The accuracy of each class by scikit-learn, fold by fold and picture by picture.

    A class left out trains nothing, though features are standardised with it.
    """
    pair = domain_pair(features.frame, "real", "sketch", n_permutations=1, seed=0)
    x = features.values["site0"][pair.rows].astype(float)
    k = len(pair.classes)
    second = rng("class halves", 0).permutation(k)[: k // 2]
    side = np.isin(pair.code, second)
    right: dict[int, list[bool]] = {code: [] for code in range(k)}
    for classes in (False, True):
        for artists in (0, 1):
            train = (side == classes) & (pair.half == artists)
            test = (side != classes) & (pair.half != artists)
            assert not set(pair.code[train]) & set(pair.code[test])
            who = artists_of(features.frame)[pair.rows]
            assert not set(who[train]) & set(who[test])
            scaler = StandardScaler().fit(x[train])
            kept = train & (pair.code != without)
            model = Ridge(alpha=x.shape[1], fit_intercept=False)
            model.fit(scaler.transform(x[kept]), labels[kept] - labels[train].mean())
            said = model.predict(scaler.transform(x[test]))
            for place, score in zip(np.flatnonzero(test), said, strict=True):
                right[pair.code[place]].append(np.sign(score) == labels[place])
    return np.array([np.mean(found) for found in right.values()])


def distance(features: Features, labels: np.ndarray, without: int = -1) -> float:
    """The distance by loops over classes, with the observed spread."""
    pair = domain_pair(features.frame, "real", "sketch", n_permutations=1, seed=0)
    x = features.values["site0"][pair.rows].astype(float)
    difference = []
    for half in (0, 1):
        each = [
            x[(pair.code == c) & (pair.half == half) & (labels == 1)].mean(axis=0)
            - x[(pair.code == c) & (pair.half == half) & (labels == -1)].mean(axis=0)
            for c in range(len(pair.classes))
            if c != without
        ]
        difference.append(np.mean(each, axis=0))
    left, free = 0.0, 0
    for c in range(len(pair.classes)):
        for sign in (1, -1):
            part = x[(pair.code == c) & (pair.sign == sign)]
            left += ((part - part.mean(axis=0)) ** 2).sum()
            free += len(part) - 1
    return float(difference[0] @ difference[1] / (left / free))


@pytest.mark.parametrize("other_artists", [False, True])
class TestSecondWays:
    def test_classifier_is_scikit_learns_ridge_fold_by_fold(self, alike, other_artists) -> None:
        features = alike(n_classes=8, offset=0.3, width=12)
        features = apart(features) if other_artists else features
        row = domain_test(features, n_permutations=3).frame.iloc[0]
        pair = domain_pair(features.frame, "real", "sketch", n_permutations=3, seed=0)
        by_class = accuracy(features, pair.sign)
        assert row["value"] == pytest.approx(by_class.mean(), abs=1e-12)
        left = [np.delete(accuracy(features, pair.sign, without=c), c).mean() for c in range(8)]
        assert row["high"] == pytest.approx(jackknife(by_class.mean(), left).high, abs=1e-12)
        drawn = [accuracy(features, labels).mean() for labels in pair.drawn]
        assert row["null"] == pytest.approx(np.mean(drawn), abs=1e-12)
        assert row["p"] == pytest.approx((1 + np.sum(np.array(drawn) > row["value"] - 1e-9)) / 4)

    def test_distance_is_that_of_a_loop(self, alike, other_artists) -> None:
        features = alike(n_classes=8, offset=0.1, width=12)
        features = apart(features) if other_artists else features
        row = domain_distance(features, n_permutations=3).frame.iloc[0]
        pair = domain_pair(features.frame, "real", "sketch", n_permutations=3, seed=0)
        value = distance(features, pair.sign)
        assert row["value"] == pytest.approx(value, rel=1e-9)
        left = [distance(features, pair.sign, without=c) for c in range(8)]
        assert row["low"] == pytest.approx(jackknife(value, left).low, rel=1e-9)
        drawn = [distance(features, labels) for labels in pair.drawn]
        assert row["null"] == pytest.approx(np.mean(drawn), rel=1e-9)


def test_distance_is_unbiased_where_one_without_halves_is_not(alike) -> None:
    """An offset of d in each of 48 features of variance 1 is 48 d^2 / 48; by theory, and measured.

    The plain squared distance of the means adds the noise of both, 2 / n per feature.
    """
    for offset in (0.0, 0.2):
        found, plain = [], []
        for seed in range(40):
            features = alike(offset=offset, seed=seed)
            found.append(domain_distance(features, n_permutations=1).frame["value"].iloc[0])
            x, real = features.values["site0"], (features.frame["domain"] == "real").to_numpy()
            plain.append(((x[real].mean(axis=0) - x[~real].mean(axis=0)) ** 2).mean())
        assert np.mean(found) == pytest.approx(offset**2, abs=3 * np.std(found) / np.sqrt(40))
        assert np.mean(plain) == pytest.approx(offset**2 + 2 / 240, abs=0.002)


def grouped(seed: int, *, copies: int = 4, offset: float = 0.0) -> Features:
    """Eight classes by six artists in two domains; a group's pictures are nearly one picture."""
    generator = np.random.default_rng(seed)
    rows = [
        (f"c{c}", domain, f"artist{a}", k)
        for c in range(8)
        for domain in ("real", "sketch")
        for a in range(6)
        for k in range(copies)
    ]
    frame = pd.DataFrame(rows, columns=["label", "domain", "artist", "copy"])
    group = pd.factorize(frame["label"] + frame["domain"] + frame["artist"])[0]
    x = generator.normal(size=(group.max() + 1, 10))[group] + 0.1 * generator.normal(
        size=(len(rows), 10)
    )
    shift = offset * (frame["domain"] == "sketch").to_numpy()[:, None]
    return Features({"site0": x + shift}, frame)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [domain_test, domain_distance])
@pytest.mark.parametrize("other_artists", [False, True])
def test_without_difference_p_is_uniform_and_intervals_cover(measure, other_artists) -> None:
    made = [grouped(seed) for seed in range(50)]
    made = [apart(each) for each in made] if other_artists else made
    rows = pd.concat(measure(each, n_permutations=99, seed=n).frame for n, each in enumerate(made))
    assert stats.kstest(rows["p"], "uniform").pvalue > 0.01
    assert (rows["p"] <= 0.05).mean() <= 0.14
    truth = 0.5 if measure is domain_test else 0.0
    assert ((rows["low"] <= truth) & (truth <= rows["high"])).mean() >= 0.88
    assert abs(rows["value"].mean() - truth) < 3.5 * rows["value"].std() / np.sqrt(50)


@pytest.mark.parametrize("measure", [domain_test, domain_distance])
def test_a_difference_is_found(measure: Measure) -> None:
    found = [measure(grouped(seed, offset=0.7), n_permutations=99).frame for seed in range(20)]
    assert (pd.concat(found)["p"] <= 0.05).mean() >= 0.9


class TestPairs:
    def test_halves_share_no_artist_and_cells_are_balanced(self, frame_of) -> None:
        frame = frame_of(6, n_artists=5, copies=3).sample(frac=0.7, random_state=0)
        frame = frame.reset_index(drop=True)
        pair = domain_pair(frame, "real", "sketch", n_permutations=5, seed=1)
        part = frame.iloc[pair.rows].assign(half=pair.half, sign=pair.sign)
        assert not set(part["artist"][pair.half == 0]) & set(part["artist"][pair.half == 1])
        counts = part.groupby(["label", "half", "domain"]).size().unstack()
        assert (counts["real"] == counts["sketch"]).all()
        assert [pair.classes[code] for code in pair.code] == part["label"].tolist()

    @pytest.mark.parametrize("other_artists", [False, True])
    def test_relabelling_moves_whole_groups(self, planted, other_artists) -> None:
        features = planted(1.0, n_classes=5)
        frame = apart(features).frame if other_artists else features.frame
        pair = domain_pair(frame, "real", "sketch", n_permutations=50, seed=0)
        part = frame.iloc[pair.rows]
        for _, rows in part.reset_index().groupby(["label", "artist", "domain"]).groups.items():
            assert (np.ptp(pair.drawn[:, rows], axis=1) == 0).all()
        assert abs(pair.drawn.mean()) < 1e-12  # as many on either side, each time
        assert (pair.drawn == pair.sign).mean() == pytest.approx(0.5, abs=0.05)


def test_a_class_in_one_domain_only_is_left_out_and_counted(alike) -> None:
    features = alike(n_classes=6)
    gone = (features.frame["domain"] == "sketch") & (features.frame["label"] == "c00")
    row = domain_test(features.rows(~gone), n_permutations=9).frame.iloc[0]
    assert row["n_units"] == 5 and "1 classes left out" in row["reason"]


@pytest.mark.parametrize("measure", [domain_test, domain_distance])
def test_what_cannot_be_measured_is_a_reason_or_an_error(measure: Measure, planted) -> None:
    features = planted(1.0, sites=2, n_classes=6, domains=("a", "b", "c"))
    flat = {**features.values, "site0": np.full_like(features.values["site0"], 0.3)}
    few = ~((features.frame["domain"] == "c") & (features.frame["label"] > "c02"))
    frame = measure(replace(features, values=flat).rows(few), n_permutations=9).frame
    assert set(EVIDENCE) <= set(frame.columns)
    by_pair = frame.set_index(["domain_b", "site"]).loc
    assert by_pair[("b", "site0"), "reason"] == "constant features"
    assert "3 classes" in by_pair[("c", "site1"), "reason"].iloc[0]
    missing = frame["reason"].isin(["constant features"]) | frame["reason"].str.contains("needed")
    assert frame.loc[missing, ["value", "low", "null", "p"]].isna().all(axis=None)
    assert frame.loc[~missing, ["value", "low", "null", "p"]].notna().all(axis=None)
    refuses(SampleError, "at least 4", measure, features.rows(features.frame["label"] <= "c02"))
    refuses(SampleError, "0 classes", measure, features.rows(features.frame["artist"] == "artist0"))


def test_prompts_stand_as_a_domain_of_their_own(alike) -> None:
    image = alike(n_classes=8).rows(np.arange(96))
    text = replace(image, frame=image.frame.assign(domain="text"))
    row = domain_test(image.stacked(text), n_permutations=9).frame.iloc[0]
    assert (row["domain_a"], row["domain_b"]) == ("real", "text")
