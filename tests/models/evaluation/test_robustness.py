"""Effective robustness: the line is least squares, and what stands above it is found."""

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn.linear_model import LinearRegression

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.tables import Table
from interp.models.evaluation.robustness import Line, logit, robustness
from tests.refusals import refuses


def models(lift: float, n: int = 8, seed: int = 0) -> pd.DataFrame:
    """Reference models on a line of logits, and one lifted above it; accuracies of 4,000."""
    generator = rng("robustness", seed)
    inside = np.append(np.linspace(-0.5, 1.5, n), 0.5)
    outside = -0.8 + 0.7 * inside + 0.08 * generator.normal(size=n + 1)
    outside[-1] += lift
    rows = []
    for place in range(n + 1):
        setting = "lifted" if place == n else "natural-only"
        for domain, at in (("real", inside[place]), ("sketch", outside[place])):
            rows.append([setting, "sketch", place, domain, special.expit(at)])
    frame = pd.DataFrame(rows, columns=["setting", "test_domain", "seed", "domain", "value"])
    return frame.assign(
        measure="balanced top-1", class_set="all", candidates="all", prompts="neutral",
        classifier="text", n_pictures=4000,
    )  # fmt: skip


def natural_only(rows: pd.DataFrame) -> pd.Series:
    return rows["setting"] == "natural-only"


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    return robustness(frame, inside="real", outside="sketch", reference=natural_only)


def test_a_lifted_model_is_found_and_one_on_the_line_is_not() -> None:
    found = measured(models(0.8)).set_index("setting").loc["lifted"]
    assert found["low"] > 0 and found["p"] < 0.01 and found["value"] > 0.1
    none = measured(models(0.0)).set_index("setting").loc["lifted"]
    assert none["low"] < 0 < none["high"] and none["p"] > 0.05


def test_the_line_is_least_squares_on_logits() -> None:
    table = measured(models(0.5))
    known = table[table["fitted"]]
    x, y = (logit(known[name], 4000) for name in ("accuracy_in", "accuracy_out"))
    fitted = LinearRegression().fit(x[:, None], y)
    lifted = table[~table["fitted"]].iloc[0]
    height = fitted.predict(logit([lifted["accuracy_in"]], 4000)[:, None])[0]
    assert lifted["expected"] == pytest.approx(special.expit(height))
    assert lifted["value"] == pytest.approx(lifted["accuracy_out"] - special.expit(height))
    Table.with_evidence("robustness", table.assign(seed=0))


def test_a_reference_model_is_held_against_the_others() -> None:
    table = measured(models(0.0))
    one = table.iloc[2]
    rest = table[table["fitted"]].drop(index=table.index[2])
    fitted = stats.linregress(logit(rest["accuracy_in"], 4000), logit(rest["accuracy_out"], 4000))
    height = fitted.intercept + fitted.slope * logit(one["accuracy_in"], 4000)
    assert one["value"] == pytest.approx(one["accuracy_out"] - special.expit(height))


def test_line_intervals_cover_the_line_and_one_more_model() -> None:
    generator = rng("line coverage", 0)
    x = np.linspace(-1, 1, 6)
    line_hit, model_hit = [], []
    for _ in range(600):
        line = Line.fit(x, 1 + 2 * x + 0.3 * generator.normal(size=6))
        new = 1 + 2 * 0.7 + 0.3 * generator.normal()
        line_hit.append(abs(float(line.at(0.7)) - 2.4) <= float(line.reach(0.7, of_model=False)))
        model_hit.append(abs(float(line.at(0.7)) - new) <= float(line.reach(0.7, of_model=True)))
    assert 0.925 <= np.mean(line_hit) <= 0.975
    assert 0.925 <= np.mean(model_hit) <= 0.975


def test_too_few_models_are_refused_and_four_say_what_they_lack() -> None:
    refuses(SampleError, "3 models", measured, models(0.5, n=3))
    table = measured(models(0.5, n=4))
    own = table[table["fitted"]]
    assert own["low"].isna().all() and own["reason"].str.contains("3 other reference").all()
    assert table[~table["fitted"]]["low"].notna().all()
    with pytest.raises(SampleError, match="in real and in quickdraw"):
        robustness(models(0.5), inside="real", outside="quickdraw", reference=natural_only)


def test_perfect_and_hopeless_models_stay_finite() -> None:
    frame = models(0.0)
    frame.loc[frame["seed"] == 0, "value"] = 1.0
    frame.loc[frame["seed"] == 1, "value"] = 0.0
    assert np.isfinite(measured(frame)[["value", "low", "high", "expected"]]).all().all()
