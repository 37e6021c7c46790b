"""Accuracy against exposure: counts that are right, a correlation found where it was planted."""

import pandas as pd
import pytest
from scipy import stats

from interp.core.errors import DataError
from interp.core.seeds import rng
from interp.core.tables import Table
from interp.models.evaluation.evaluate import exposure, exposures

N = 24


def made(slope: float, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """24 classes, six held out; accuracy rises by `slope` per hundred natural pictures."""
    generator = rng("exposure", seed)
    natural = generator.permutation(N) * 10 + 10
    labels = [f"c{k:02d}" for k in range(N)]
    cells = [(c, "real", int(n)) for c, n in zip(labels, natural, strict=True)]
    cells += [(c, "sketch", 50) for c in labels[6:]]
    trained_on = pd.DataFrame(cells, columns=["label", "domain", "n_pictures"])
    value = 0.2 + slope * natural / 100 + 0.05 * generator.normal(size=N)
    by_class = pd.DataFrame({
        "label": labels, "domain": "sketch", "prompts": "neutral", "classifier": "text",
        "candidates": "all", "value": value, "n_pictures": 16,
        "class_set": ["held-out"] * 6 + ["seen"] * (N - 6),
    })  # fmt: skip
    return by_class, trained_on


def test_exposures_are_the_mixtures_counts() -> None:
    by_class, trained_on = made(0.1)
    found = exposures(by_class, trained_on).set_index(["exposed_in", "label"])["exposure"]
    for label in by_class["label"]:
        cells = trained_on[trained_on["label"] == label].set_index("domain")["n_pictures"]
        assert found["natural", label] == cells["real"]
        assert found["all domains", label] == cells["real"] + cells.get("sketch", 0)
    without = exposures(by_class, trained_on[trained_on["label"] != "c00"])
    assert (without[without["label"] == "c00"]["exposure"] == 0).all()


def test_a_planted_slope_is_found_and_none_is_not() -> None:
    found = exposure(exposures(*made(0.2)))
    row = found.query("exposed_in == 'natural' and class_set == 'all'").iloc[0]
    by_class, trained_on = made(0.2)
    natural = trained_on[trained_on["domain"] == "real"]["n_pictures"]
    expected = stats.spearmanr(by_class["value"], natural.to_numpy()).statistic
    assert row["value"] == pytest.approx(expected) and row["low"] > 0.3 and row["p"] < 0.01
    flat = exposure(exposures(*made(0.0)))
    none = flat.query("exposed_in == 'natural' and class_set == 'all'").iloc[0]
    assert none["low"] < 0 < none["high"] and none["p"] > 0.05
    Table.with_evidence("exposure", found)
    assert found.query("class_set == 'held-out'")["n_units"].tolist() == [6, 6]


def test_even_exposure_says_nothing_and_says_so() -> None:
    by_class, trained_on = made(0.2)
    even = trained_on.assign(n_pictures=10)
    found = exposure(exposures(by_class, even)).query("exposed_in == 'natural'")
    assert found["value"].isna().all()
    assert set(found["reason"]) == {"every class was trained on equally often"}


def test_models_are_told_apart_by_their_keys() -> None:
    classes = exposures(*made(0.2))
    both = pd.concat([classes.assign(setting="a"), classes.assign(setting="b", value=0.5)])
    found = exposure(both, keys=["setting"]).query("class_set == 'all'")
    assert found[found["setting"] == "a"]["value"].notna().all()
    assert found[found["setting"] == "b"]["value"].isna().all()


def test_counts_without_their_columns_are_refused() -> None:
    with pytest.raises(DataError, match="n_pictures"):
        exposures(made(0.1)[0], pd.DataFrame({"label": ["cat"], "domain": ["real"]}))
