"""Selectivity: high where classes are read, nil where a probe can only memorise drawings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from interp.core.errors import SampleError
from interp.core.tables import EVIDENCE
from interp.probes import Features
from interp.probes import selectivity as measure
from interp.probes.linear import linear_probe as fitting
from interp.probes.linear.selectivity import _deal
from tests.probes.linear.reference import plain_probe
from tests.refusals import refuses


def selective(features: Features, **options) -> pd.DataFrame:
    return measure(features, **{"n_control": 2, **options}).frame


def drawings_only(features: Features, noise: float = 0.3) -> Features:
    """Every drawing a point of its own, the same for its pictures; classes are nothing."""
    generator = np.random.default_rng(0)
    group = pd.factorize(features.frame["label"] + features.frame["artist"])[0]
    x = generator.normal(size=(group.max() + 1, 256))[group]
    x += noise * generator.normal(size=x.shape)
    return replace(features, values={"site0": x.astype(np.float32)})


def test_both_accuracies_are_those_of_linear_probes(planted, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "STRENGTHS", (1e-2,))
    features = planted(1.0, n_classes=6, noise=1.5)
    row = selective(features, domains=["real"]).iloc[0]
    deal, x = _deal(features.frame, "real", 2, 0), features.values["site0"]
    tasks = {"accuracy": [deal.code], "accuracy_control": list(deal.control)}
    who = features.frame["artist"].to_numpy()[deal.rows]
    for labels in deal.control:  # one label per class x artist group, in both halves
        assert pd.Series(labels).groupby([deal.code, who]).nunique().eq(1).all()
    for name, labellings in tasks.items():
        scores = []
        for labels in labellings:
            for side in (0, 1):
                train, test = deal.half == side, deal.half == 1 - side
                probe = plain_probe(C=1e-2).fit(x[deal.rows[train]], labels[train])
                said = probe.predict(x[deal.rows[test]])
                scores.append(balanced_accuracy_score(labels[test], said))
        assert row[name] == pytest.approx(np.mean(scores), abs=0.015)
    assert row["value"] == pytest.approx(row["accuracy"] - row["accuracy_control"])
    assert row["low"] < row["value"] < row["high"] and row["p"] < 0.05
    assert set(EVIDENCE) <= set(row.index) and row["n_units"] == 6


def test_a_memory_of_drawings_is_not_selective(planted) -> None:
    features = planted(1.0, n_classes=12)
    frame = selective(drawings_only(features))
    assert (frame["accuracy"] > 0.9).all(), "the trap: accuracy alone looks like class knowledge"
    assert (frame["value"].abs() < 0.06).all()
    classes = selective(features)
    assert (classes["value"] > 0.4).all() and (classes["low"] > 0.3).all()


def test_bad_data_get_a_reason_or_an_error(planted) -> None:
    features = planted(1.0)
    single = ~features.frame.duplicated(["label", "artist", "domain"])
    refuses(SampleError, "pictures per artist", selective, features.rows(single))
    frame = selective(features.rows(single | (features.frame["domain"] == "real")))
    frame = frame.set_index("domain")
    assert "0 classes of two artists" in frame.loc["sketch", "reason"]
    assert np.isnan(frame.loc["sketch", "value"]) and frame.loc["real", "value"] > 0.3
    flat = replace(features, values={"site0": np.full_like(features.values["site0"], 0.3)})
    assert selective(flat)["reason"].str.contains("constant features").all()


def test_p_is_adjusted_over_the_sites_of_a_domain(planted) -> None:
    features = planted(1.0, n_classes=8, noise=3.0)
    generator = np.random.default_rng(3)
    noise = generator.normal(size=features.values["site0"].shape).astype(np.float32)
    two = replace(features, values={"site0": features.values["site0"], "noise": noise})
    for _, rows in selective(two, domains=["real", "sketch"]).groupby("domain"):
        smaller, larger = rows.sort_values("p")[["p", "p_adjusted"]].to_numpy()
        assert smaller[1] == pytest.approx(min(1.0, 2 * smaller[0]))
        assert larger[1] == pytest.approx(min(1.0, max(larger[0], smaller[1])))
        assert set(rows["family"]) == {"2 sites of a domain"}
