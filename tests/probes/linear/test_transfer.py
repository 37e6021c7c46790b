"""Probe transfer: right on planted truth, chance where chance is due, honest where data lack."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from interp.core.artists import artist_halves
from interp.core.errors import DataError, SampleError
from interp.core.tables import EVIDENCE
from interp.probes import Features
from interp.probes import transfer as measure
from interp.probes.linear import linear_probe as fitting
from interp.probes.linear.linear_probe import STRENGTHS, permuted_groups
from tests.probes.linear.reference import plain_probe
from tests.refusals import refuses


def transfer(features: Features, **options) -> pd.DataFrame:
    return measure(features, **{"n_null": 3, "n_permutations": 99, **options}).frame


def across(frame: pd.DataFrame, *, centred: bool) -> pd.DataFrame:
    return frame[(frame["train_domain"] != frame["domain"]) & (frame["centred"] == centred)]


def test_value_and_ceiling_are_those_of_linear_probes(planted, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "STRENGTHS", STRENGTHS[2:3])
    features = planted(0.8, n_classes=8, noise=2.0, rotate=False, offset=0.5)
    frame = transfer(features).set_index(["train_domain", "domain", "centred"])
    half = artist_halves(features.frame, ["real", "sketch"])
    label, domain = (features.frame[name].to_numpy(object) for name in ("label", "domain"))
    x = features.values["site0"].astype(float)
    for a, b, centred in frame.index:
        scores = []
        for side in (0, 1):
            train = (domain == a) & (half == side)
            test = (domain == b) & (half == 1 - side)
            home = (domain == b) & (half == side)
            moved = x[test] + centred * (x[train].mean(axis=0) - x[home].mean(axis=0))
            said = plain_probe(C=STRENGTHS[2]).fit(x[train], label[train]).predict(moved)
            scores.append(balanced_accuracy_score(label[test], said))
        assert frame.loc[(a, b, centred), "value"] == pytest.approx(np.mean(scores), abs=0.011)
    for centred in (False, True):
        for a, b in (("real", "sketch"), ("sketch", "real")):
            home = frame.loc[(b, b, centred), "value"]
            assert frame.loc[(a, b, centred), "ceiling"] == pytest.approx(home)


def test_same_directions_are_shared_and_a_rotation_is_not(planted) -> None:
    same = across(transfer(planted(1.0, rotate=False)), centred=True)
    turned = across(transfer(planted(1.0, rotate=True)), centred=True)
    assert set(same["verdict"]) == {"shared"}
    assert same["index"].between(0.93, 1.07).all() and (same["p"] == 0.01).all()
    assert set(turned["verdict"]) == {"not shared"}


def test_a_domain_without_a_class_of_its_own_has_nothing_to_share(planted) -> None:
    features = planted(1.0, rotate=False)
    values = features.values["site0"].copy()
    at = (features.frame["domain"] == "real").to_numpy()
    values[at] = np.random.default_rng(5).normal(size=values[at].shape)
    rows = across(transfer(Features({"site0": values}, features.frame)), centred=True)
    rows = rows.set_index("train_domain")
    assert set(rows["verdict"]) == {"unknown"} and rows["index"].isna().all()
    assert "reads no class in real either" in rows.loc["real", "reason"]
    assert "either" not in rows.loc["sketch", "reason"]


def test_centring_takes_out_a_constant_offset_of_the_domain(planted) -> None:
    frame = transfer(planted(1.0, rotate=False, offset=6.0, noise=2.0))
    raw, centred = across(frame, centred=False), across(frame, centred=True)
    assert (centred["value"].to_numpy() > raw["value"].to_numpy() + 0.2).all()
    assert set(centred["verdict"]) == {"shared"}


@pytest.mark.slow
def test_without_sharing_index_is_zero_and_p_is_uniform(planted) -> None:
    rows = pd.concat(
        across(transfer(planted(0.0, seed=seed, n_classes=10, width=16), seed=seed), centred=True)
        for seed in range(25)
    )
    # the two directions of a study are not independent: the error is that of 25 studies
    assert abs(rows["index"].mean()) < 3 * rows["index"].std() / 5
    assert "shared" not in set(rows["verdict"])
    assert abs(rows["p"].mean() - 0.5) < 3 * np.sqrt(1 / 12 / 25)
    assert rows["null"].mean() == pytest.approx(1 / 10, abs=0.02)


def test_permuted_labels_keep_class_by_artist_groups_whole() -> None:
    codes, who = np.repeat(np.arange(6), 4), np.tile(np.repeat(["ann", "bob"], 2), 6)
    permuted = permuted_groups(codes, who, 5, np.random.default_rng(0))
    assert (permuted[:, ::2] == permuted[:, 1::2]).all()
    assert all((np.bincount(labels) == 4).all() for labels in permuted)
    assert (permuted != codes).any(axis=1).all()


def test_the_diagonal_is_rung_one_without_a_ceiling(planted) -> None:
    frame = transfer(planted(0.5))
    home = frame[frame["train_domain"] == frame["domain"]]
    assert set(EVIDENCE) <= set(frame.columns)
    assert home["ceiling"].isna().all() and home["reason"].str.contains("no ceiling").all()
    assert (home["value"] > 0.8).all() and home["estimand"].str.contains("R1").all()
    assert not frame["value"].isna().any()


def test_classes_missing_in_a_domain_are_left_out_and_counted(planted) -> None:
    features = planted(1.0, rotate=False, domains=("a", "b", "c"))
    gone = (features.frame["domain"] == "c") & (features.frame["label"] < "c02")
    frame = across(transfer(features.rows(~gone)), centred=True)
    of_c = (frame["train_domain"] == "c") | (frame["domain"] == "c")
    assert set(frame["n_units"][of_c]) == {18} and set(frame["n_units"][~of_c]) == {20}
    assert frame["reason"][of_c].str.contains("2 classes left out").all()
    assert set(frame["verdict"]) == {"shared"}


def test_bad_data_get_a_reason_or_an_error(planted) -> None:
    features = planted(1.0, rotate=False)
    refuses(SampleError, "at least 4", transfer, features.rows(features.frame["label"] < "c03"))
    with pytest.raises(SampleError, match="0 classes"):
        transfer(features.rows(~features.frame.duplicated(["label", "domain"])))
    refuses(DataError, "Did you mean sketch", transfer, features, test_domains=["sketsh"])
    flat = replace(features, values={"site0": np.full_like(features.values["site0"], 0.3)})
    frame = transfer(flat)
    assert frame["reason"].str.contains("constant features").all()
    assert "shared" not in set(frame["verdict"]) and "not shared" not in set(frame["verdict"])


def test_two_pictures_per_class_cannot_choose_the_penalty_and_say_so(planted) -> None:
    features = planted(1.0, rotate=False)
    two = features.frame["artist"].isin(["artist0", "artist1"])
    two &= ~features.frame.duplicated(["label", "domain", "artist"])
    frame = transfer(features.rows(two))
    assert frame["reason"].str.contains("not chosen").all()
