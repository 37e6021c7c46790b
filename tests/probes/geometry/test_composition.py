"""Classes composed with a domain: planted, by plain loops, and never better than chance alone."""

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import ledoit_wolf

from interp.core.artists import artist_halves
from interp.core.errors import SampleError, SpecificationError
from interp.probes import Features, composition
from tests.probes.conftest import make_frame
from tests.refusals import refuses

PAIR = ("real", "sketch")
HELD = ["c01", "c04", "c06"]


def planted(sharing: float, *, noise: float = 0.4, n_classes: int = 9, seed: int = 0) -> Features:
    """Class effects alike in both domains to some share, a domain offset, uneven noise."""
    generator = np.random.default_rng(seed)
    frame = make_frame(n_classes)
    label, domain = (pd.factorize(frame[name])[0] for name in ("label", "domain"))
    common, own = generator.normal(size=(2, n_classes, 12))
    there = sharing * common + np.sqrt(1 - sharing**2) * own
    x = np.stack([common, there])[domain, label] + 4 * domain[:, None]
    x = x + noise * generator.normal(size=x.shape) * np.linspace(0.2, 2, 12)
    return Features({"hook_embedding": x.astype(np.float32)}, frame)


def by_loops(features: Features, *, own: bool) -> dict[str, float]:
    """Each held-out class's accuracy, picture by picture, with scikit-learn's covariance."""
    frame, x = features.frame, features.values["hook_embedding"].astype(float)
    deal = artist_halves(frame, PAIR, seed=0, split=0)
    classes = sorted(set(frame["label"]))
    right: dict[str, list[bool]] = {name: [] for name in HELD}
    for half in (0, 1):
        here = frame[deal == half]
        mean = {place: x[rows.index].mean(axis=0)
                for place, rows in here.groupby(["label", "domain"])}  # fmt: skip
        seen = [name for name in classes if name not in HELD]
        offset = np.mean([mean[c, "sketch"] - mean[c, "real"] for c in seen], axis=0)
        inner = [
            x[at] - mean[row["label"], row["domain"]]
            for at, row in here.iterrows()
            if not (row["label"] in HELD and row["domain"] == "sketch")
        ]
        inverse = np.linalg.inv(ledoit_wolf(np.array(inner), assume_centered=True)[0])
        for at, row in frame[(deal == 1 - half) & (frame["domain"] == "sketch")].iterrows():
            if row["label"] in HELD:
                gaps = [
                    x[at] - (mean[c, "sketch"] if own else mean[c, "real"] + offset)
                    for c in classes
                ]
                best = int(np.argmin([gap @ inverse @ gap for gap in gaps]))
                right[row["label"]].append(classes[best] == row["label"])
    return {name: float(np.mean(each)) for name, each in right.items()}


def found(features: Features, **options) -> pd.Series:
    options = {"n_splits": 1, "n_permutations": 99} | options
    return composition(features, PAIR, HELD, **options).frame.iloc[0]


@pytest.mark.parametrize("sharing", [1.0, 0.6])
def test_accuracy_is_that_of_plain_loops(sharing: float) -> None:
    features = planted(sharing, noise=1.2)
    row = found(features)
    added, own = (by_loops(features, own=each) for each in (False, True))
    assert row["value"] == pytest.approx(np.mean(list(added.values())))
    assert row["ceiling"] == pytest.approx(np.mean(list(own.values())))
    assert row["null"] == pytest.approx(1 / 9) and row["n_units"] == 3
    assert 0.3 < row["value"] < 1


def test_what_adds_up_composes_and_what_does_not_stays_at_chance() -> None:
    shared = [found(planted(1.0, seed=seed)) for seed in range(4)]
    assert min(row["value"] for row in shared) > 0.95 and max(row["p"] for row in shared) < 0.05
    apart = [found(planted(0.0, seed=seed)) for seed in range(12)]
    assert np.mean([row["value"] for row in apart]) == pytest.approx(1 / 9, abs=0.1)
    assert sum(row["p"] < 0.05 for row in apart) <= 3
    assert min(row["ceiling"] for row in apart) > 0.95


def test_what_cannot_be_composed_is_said() -> None:
    features = planted(1.0)
    refuses(SpecificationError, "no picture", composition, features, PAIR, ["c99"])
    refuses(SpecificationError, "two", composition, features, ["real"], HELD)
    refuses(SampleError, "1 held-out", composition, features, PAIR, ["c01"])
    refuses(SampleError, "2 seen", composition, features, PAIR, [f"c{n:02d}" for n in range(7)])
