"""Domain probes: what is planted is read, chance where nothing is, no class or artist met twice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp.core.errors import SampleError
from interp.core.tables import EVIDENCE
from interp.probes import Features
from interp.probes import domain_probes as measure
from interp.probes.linear import linear_probe as fitting
from interp.probes.linear.domain_probes import _cells
from tests.probes.linear.reference import plain_probe
from tests.refusals import refuses


def read(features: Features, **options) -> pd.DataFrame:
    return measure(features, **{"n_null": 2, "n_permutations": 199, **options}).frame


def noise_only(features: Features, seed: int) -> Features:
    drawn = np.random.default_rng(seed).normal(size=features.values["site0"].shape)
    return replace(features, values={"site0": drawn.astype(np.float32)})


def test_value_is_that_of_four_linear_probes(planted, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "STRENGTHS", (1e-2,))
    features = planted(1.0, n_classes=8, noise=2.0, rotate=False, offset=0.5)
    frame = features.frame
    code = (frame["domain"] == "sketch").to_numpy().astype(int)
    _, cell = _cells(frame, code, ["real", "sketch"], 0)
    told = pd.DataFrame({"label": frame["label"], "domain": code, "right": 0.0})
    for turn in range(4):
        train, test = cell == turn, cell == 3 - turn
        assert not set(frame["label"][train]) & set(frame["label"][test])
        assert not set(frame["artist"][train]) & set(frame["artist"][test])
        probe = plain_probe(C=1e-2).fit(features.values["site0"][train], code[train])
        said = probe.predict(features.values["site0"][test])
        told.loc[test, "right"] = (said == code[test]).astype(float)
    row = read(features).iloc[0]
    assert row["value"] == pytest.approx(told["right"].mean(), abs=0.01)
    assert 0.6 < row["value"] < 1.0 and row["low"] < row["value"] < row["high"]
    # two domains' names in eight classes have 256 orders, the right one among them
    assert row["p"] <= 0.02 and row["n_units"] == 8
    assert set(EVIDENCE) <= set(row.index)


def test_nothing_to_read_is_chance_with_uniform_p(planted) -> None:
    features = planted(1.0, n_classes=8)
    rows = pd.concat(read(noise_only(features, seed), n_null=1, seed=seed) for seed in range(20))
    assert rows["value"].mean() == pytest.approx(0.5, abs=0.04)
    assert rows["null"].mean() == pytest.approx(0.5, abs=0.04)
    assert abs(rows["p"].mean() - 0.5) < 3 * np.sqrt(1 / 12 / 20)


def test_artists_who_draw_in_one_domain_only_do_not_betray_it(planted) -> None:
    """The trap: marks of artists tell domains apart, until the test's artists are new."""
    features = planted(1.0, n_classes=12, rotate=False)
    frame = features.frame.copy()
    frame["artist"] = frame["domain"] + frame["artist"]
    marks = np.random.default_rng(0).normal(size=(12, 48))
    x = features.values["site0"] + 4 * marks[pd.factorize(frame["artist"])[0]]
    told = [
        read(Features({"site0": x.astype(np.float32)}, frame), seed=seed)["value"].iloc[0]
        for seed in range(4)
    ]
    same_artists = (
        plain_probe().fit(x[::2], frame["domain"][::2]).score(x[1::2], frame["domain"][1::2])
    )
    assert same_artists > 0.95 and np.mean(told) < 0.8


def test_three_domains_and_bad_data(planted) -> None:
    three = planted(1.0, n_classes=6, rotate=False, offset=2.0, domains=("a", "b", "c"))
    row = read(three, n_null=20).iloc[0]
    assert row["domain"] == "a, b, c" and row["value"] > 0.9
    assert row["null"] == pytest.approx(1 / 3, abs=0.12)
    features = planted(1.0, rotate=False)
    with pytest.raises(SampleError, match="2 domains and 3 classes"):
        read(features.rows(features.frame["label"] < "c03"))
    with pytest.raises(SampleError, match="2 domains and 0 classes"):
        read(features.rows(features.frame["artist"] == "artist0"))
    refuses(SampleError, "1 domains", read, features, domains=["real"])
    flat = replace(features, values={"site0": np.full_like(features.values["site0"], 0.3)})
    assert "constant features" in read(flat)["reason"].iloc[0]
