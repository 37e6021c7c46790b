"""One domain left out: `transfer` from the others put together, at the left-out domain's size."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from interp.core.artists import artist_halves
from interp.core.errors import SampleError
from interp.core.tables import EVIDENCE
from interp.probes import Features
from interp.probes import leave_one_domain_out as measure
from interp.probes.linear import linear_probe as fitting
from tests.probes.linear.reference import plain_probe
from tests.refusals import refuses

DOMAINS = ("ink", "real", "sketch")


def left_out(features: Features, **options) -> pd.DataFrame:
    return measure(features, **{"n_null": 1, "n_permutations": 99, **options}).frame


def test_value_is_that_of_a_linear_probe_of_the_others(planted, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "STRENGTHS", (1e-2,))
    features = planted(0.8, n_classes=6, noise=2.0, rotate=False, offset=0.7, domains=DOMAINS)
    frame = left_out(features).set_index(["domain", "centred"])
    label, domain = (features.frame[name].to_numpy(object) for name in ("label", "domain"))
    x = features.values["site0"].astype(float)
    for name in DOMAINS:
        pooled = np.where(domain == name, name, f"all but {name}")
        half = artist_halves(features.frame.assign(domain=pooled), [f"all but {name}", name])
        for centred in (False, True):
            moved, scores = x.copy(), []
            for other in set(DOMAINS) - {name}:
                moved[domain == other] -= centred * x[domain == other].mean(axis=0)
            for side in (0, 1):
                train = (domain != name) & (half == side)
                test = (domain == name) & (half == 1 - side)
                home = (domain == name) & (half == side)
                assert train.sum() == home.sum()
                shift = moved[train].mean(axis=0) - x[home].mean(axis=0)
                probe = plain_probe(C=1e-2).fit(moved[train], label[train])
                said = probe.predict(x[test] + centred * shift)
                scores.append(balanced_accuracy_score(label[test], said))
            got = frame.loc[(name, centred), "value"]
            assert got == pytest.approx(np.mean(scores), abs=0.015)


def test_shared_is_shared_and_a_rotation_is_not(planted) -> None:
    same = left_out(
        planted(1.0, n_classes=12, rotate=False, domains=DOMAINS, offset=5.0, noise=2.0)
    )
    level, raw = same[same["centred"]], same[~same["centred"]]
    assert set(EVIDENCE) <= set(same.columns)
    assert level["train_domain"].tolist() == [f"all but {name}" for name in DOMAINS]
    assert set(level["verdict"]) == {"shared"} and level["index"].between(0.85, 1.15).all()
    assert level["value"].mean() > raw["value"].mean() + 0.1
    turned = left_out(planted(1.0, n_classes=12, rotate=True, domains=DOMAINS)).set_index(
        ["domain", "centred"]
    )
    assert set(turned["verdict"]) == {"not shared"}


def test_bad_data_are_refused_or_named(planted) -> None:
    features = planted(1.0, n_classes=8, rotate=False, domains=DOMAINS)
    refuses(SampleError, "three domains", left_out, features, domains=["real", "ink"])
    refuses(SampleError, "at least 4", left_out, features.rows(features.frame["label"] < "c03"))
    gone = (features.frame["domain"] == "ink") & (features.frame["label"] >= "c03")
    table = measure(features.rows(~gone), n_null=1, n_permutations=9)
    assert set(table.frame["domain"]) == {"real", "sketch"}
    assert "3 classes" in table.facts["left_out"][0]
