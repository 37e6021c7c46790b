"""Cosines of class directions: the planted cosine, whatever the noise; nothing where none is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from interp.core.artists import artist_halves
from interp.core.errors import DataError, SampleError
from interp.core.tables import EVIDENCE
from interp.probes import directions as measure
from interp.probes.geometry.directions import DISCRIMINANT, MEAN_DIFFERENCE, class_directions
from tests.refusals import refuses


def directions(features, **options) -> pd.DataFrame:
    return measure(features, **{"n_permutations": 99, **options}).frame


@pytest.mark.parametrize("width", [10, 200])
def test_lda_directions_are_scikit_learns(width: int) -> None:
    generator = np.random.default_rng(0)
    code = np.repeat(np.arange(5), 8)
    x = generator.normal(size=(5, width))[code] + generator.normal(size=(40, width))
    inner = x - np.stack([x[code == c].mean(axis=0) for c in code])
    share = ledoit_wolf_shrinkage(inner, assume_centered=True)
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share).fit(x, code).coef_
    mine = class_directions(x + 1000, code, shrunk=True)
    np.testing.assert_allclose(mine, peer - peer.mean(axis=0), atol=1e-8 * np.abs(peer).max())


def test_value_null_and_ceiling_are_those_of_a_plain_loop(planted) -> None:
    features = planted(0.6, n_classes=6, width=8, rotate=False, offset=3.0)
    frame = directions(features, n_splits=1).set_index("measure")
    half = artist_halves(features.frame, ["real", "sketch"])
    label, domain = (features.frame[name].to_numpy(object) for name in ("label", "domain"))
    for kind, shrunk in ((MEAN_DIFFERENCE, False), (DISCRIMINANT, True)):

        def cosines(a: str, i: int, b: str, j: int, names: list[str], shrunk=shrunk) -> np.ndarray:
            fitted = []
            for where, side in ((a, i), (b, j)):
                all_rows = (domain == where) & (half == side)
                x = features.values["site0"][all_rows].astype(float)
                means = np.stack([x[label[all_rows] == c].mean(axis=0) for c in sorted(set(label))])
                inner = x - means[np.unique(label[all_rows], return_inverse=True)[1]]
                share = ledoit_wolf_shrinkage(inner, assume_centered=True)
                cov = inner.T @ inner / len(x)
                cov = (1 - share) * cov + share * np.trace(cov) / len(cov) * np.eye(len(cov))
                means = means[np.isin(sorted(set(label)), names)]
                found = means - means.mean(axis=0)
                found = found @ np.linalg.inv(cov) if shrunk else found
                fitted.append(found / np.linalg.norm(found, axis=1, keepdims=True))
            return fitted[0] @ fitted[1].T

        def triple(names: list[str], cosines=cosines) -> tuple[float, float, float]:
            across = (cosines("real", 0, "sketch", 1, names)
                      + cosines("real", 1, "sketch", 0, names)) / 2  # fmt: skip
            ends = [np.diag(cosines(d, 0, d, 1, names)).mean() for d in ("real", "sketch")]
            return np.diag(across).mean(), across.mean(), np.sqrt(ends[0] * ends[1])

        names = sorted(set(label))
        row = frame.loc[kind]
        value, null, ceiling = triple(names)
        np.testing.assert_allclose(
            [row["value"], row["null"], row["ceiling"]], [value, null, ceiling], atol=1e-6
        )
        left = np.array([triple([c for c in names if c != out]) for out in names])
        index = (left[:, 0] - left[:, 1]) / (left[:, 2] - left[:, 1])
        error = np.sqrt(5 / 6 * ((index - index.mean()) ** 2).sum())
        assert row["index"] == pytest.approx((value - null) / (ceiling - null), abs=1e-5)
        assert row["index_high"] - row["index"] == pytest.approx(2.5705818 * error, abs=1e-5)
        for side, column in enumerate(("half_1", "half_2")):
            half_across = cosines("real", side, "sketch", 1 - side, names)
            beyond = np.diag(half_across).mean() - half_across.mean()
            assert row[column] == pytest.approx(beyond, abs=1e-6)


def test_halves_are_of_the_first_deal_whatever_is_averaged(planted) -> None:
    features = planted(0.6, n_classes=6, width=8, rotate=False)
    once, often = (directions(features, n_splits=n)[["half_1", "half_2"]] for n in (1, 4))
    pd.testing.assert_frame_equal(once, often)
    assert not np.allclose(once["half_1"], once["half_2"])


@pytest.mark.parametrize("sharing", [0.0, 0.25, 0.64, 1.0])
def test_the_index_is_the_true_cosine_whatever_the_noise(planted, sharing) -> None:
    # means share a part `sharing` of their variance, so that their cosine is its root
    for noise in (0.5, 2.5):
        rows = pd.concat(
            directions(planted(sharing, seed=seed, noise=noise, rotate=False, n_classes=24),
                       n_splits=2)
            for seed in range(6)
        )  # fmt: skip
        for _, each in rows.groupby("measure"):
            error = each["index"].std() / np.sqrt(6)
            assert each["index"].mean() == pytest.approx(np.sqrt(sharing), abs=3 * error + 0.01)
            assert error < 0.05
    # what the index repairs: the raw cosine at this noise falls far short
    assert rows["value"].mean() < 0.75 * np.sqrt(sharing) + 0.05


def test_same_directions_are_shared_and_a_rotation_is_not(planted) -> None:
    same = directions(planted(1.0, rotate=False, sites=2))
    turned = directions(planted(1.0, rotate=True, sites=2))
    assert set(same["verdict"]) == {"shared"} and (same["p"] == 0.01).all()
    assert set(turned["verdict"]) == {"not shared"}
    assert set(EVIDENCE) <= set(same.columns) and not same[list(EVIDENCE)].isna().any(axis=None)


def test_marks_of_a_drawing_are_no_sharing(planted) -> None:
    frame = directions(planted(0.0, rotate=False, drawing=2.0))
    assert (frame["index"].abs() < 0.25).all()


def test_without_sharing_p_is_uniform(planted) -> None:
    p = np.array(
        [
            directions(planted(0.0, seed=seed, n_classes=10, width=16, sites=3), seed=seed,
                       n_splits=1).groupby("measure")["p"].min().to_numpy()
            for seed in range(25)
        ]
    )  # fmt: skip
    # the smallest adjusted p of the sites is uniform: that is what max-T promises
    assert abs(p.mean() - 0.5) < 3 * np.sqrt(1 / 12 / 25)
    assert (p < 0.1).mean() < 0.1 + 3 * np.sqrt(0.09 / 25)


def test_bad_data_get_a_reason_or_an_error(planted) -> None:
    features = planted(1.0, rotate=False)
    refuses(SampleError, "at least 4", directions, features.rows(features.frame["label"] < "c03"))
    refuses(DataError, "Did you mean sketch", directions, features, domains=["real", "sketsh"])
    flat = replace(features, values={"site0": np.full_like(features.values["site0"], 0.3)})
    frame = directions(flat)
    assert frame["reason"].str.contains("constant features").all()
    assert set(frame["verdict"]) == {"unknown"} and frame["index"].isna().all()
    one = features.frame["artist"].isin(["artist0", "artist1"])
    one &= ~features.frame.duplicated(["label", "domain", "artist"])
    frame = directions(features.rows(one)).set_index("measure")
    assert frame.loc[MEAN_DIFFERENCE, "verdict"] == "shared"
    assert "two are needed for a covariance" in frame.loc[DISCRIMINANT, "reason"]


def test_classes_missing_in_a_domain_are_left_out_and_counted(planted) -> None:
    features = planted(1.0, rotate=False, domains=("a", "b", "c"))
    gone = (features.frame["domain"] == "c") & (features.frame["label"] >= "c03")
    frame = directions(features.rows(~gone))
    of_c = frame["domain_b"] == "c"
    assert frame["reason"][of_c].str.contains("3 classes by two artists").all()
    assert set(frame["verdict"][of_c]) == {"unknown"}
    assert set(frame["verdict"][~of_c]) == {"shared"}
