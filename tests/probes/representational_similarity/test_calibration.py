"""Are p-values, intervals and indices what they say, on classes that share nothing, half, or all?

Fifteen classes and sixty, in two domains, four artists. Bounds are those that a binomial count
exceeds once in a thousand times: of `STUDIES` uniform p, as many are .05 or less; of as many
intervals at 95 %, as many hold the truth.
"""

from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.probes import Features, factorisation, similarity
from tests.probes.conftest import make_frame, plant

STUDIES = {15: 200, 60: 100}
N_PERMUTATIONS = 99
SIMULATIONS = {"similarity": similarity, "factorisation": factorisation}
HALF = {"similarity": 0.5, "factorisation": np.sqrt(0.5)}
"""Indices at many classes: the domains' class means correlate by sqrt(1/2), which CKA squares."""

pytestmark = [pytest.mark.slow, pytest.mark.long]
both_sizes = pytest.mark.parametrize("n_classes", STUDIES)
both_measures = pytest.mark.parametrize("name", SIMULATIONS)


def planted(sharing: float, n_classes: int, seed: int) -> Features:
    """Two domains, not turned (class effects must add up), few pictures."""
    frame = make_frame(n_classes, n_artists=4, copies=1)
    return plant(sharing, n_classes=n_classes, seed=seed, noise=0.5, rotate=False, pictures=frame)


@lru_cache(maxsize=1)
def studies(name: str, sharing: float, n_classes: int) -> pd.DataFrame:
    """A row for each simulated study; of a factorisation the class's, and its domain's p."""
    rows = []
    for seed in range(STUDIES[n_classes]):
        features = planted(sharing, n_classes, seed)
        options = {"n_splits": 1, "n_permutations": N_PERMUTATIONS, "seed": seed}
        table = SIMULATIONS[name](features, **options).frame
        if name == "factorisation":
            table = table.set_index("factor")
            rows.append(table.loc["class"].to_dict() | {"domain_p": table.loc["domain", "p"]})
        else:
            rows.append(table.iloc[0].to_dict())
    return pd.DataFrame(rows)


def assert_uniform(p: pd.Series) -> None:
    n = len(p)
    assert stats.binom.ppf(0.001, n, 0.05) <= (p <= 0.05).sum() <= stats.binom.ppf(0.999, n, 0.05)
    # without the steps of 1 / 100, for Kolmogorov and Smirnov
    smooth = p.to_numpy() - np.random.default_rng(0).random(n) / (1 + N_PERMUTATIONS)
    assert stats.kstest(smooth, "uniform").pvalue > 0.001


def assert_covered(rows: pd.DataFrame, truth: float) -> None:
    held = ((rows["index_low"] <= truth) & (rows["index_high"] >= truth)).sum()
    assert held >= stats.binom.ppf(0.001, len(rows), 0.95)


def assert_mean(index: pd.Series, truth: float) -> None:
    assert abs(index.mean() - truth) < 3.5 * index.std() / np.sqrt(len(index))


@both_sizes
@both_measures
def test_without_sharing_p_is_uniform_and_the_index_zero(name: str, n_classes: int) -> None:
    rows = studies(name, 0.0, n_classes)
    assert rows["index"].notna().all()
    assert_uniform(rows["p"])
    assert_mean(rows["index"], 0.0)
    assert_covered(rows, 0.0)
    assert "shared" not in set(rows["verdict"])


@both_sizes
@both_measures
def test_with_full_sharing_the_index_is_one(name: str, n_classes: int) -> None:
    rows = studies(name, 1.0, n_classes)
    assert_mean(rows["index"], 1.0)
    assert_covered(rows, 1.0)
    assert set(rows["verdict"]) == {"shared"} and (rows["p"] == 0.01).all()
    if name == "factorisation":  # domains differ in nothing here
        assert_uniform(rows["domain_p"])


@both_sizes
@both_measures
def test_half_sharing_lies_between_and_within_its_interval(name: str, n_classes: int) -> None:
    rows = studies(name, 0.5, n_classes)
    error = rows["index"].std() / np.sqrt(len(rows))
    assert abs(rows["index"].mean() - HALF[name]) < 3.5 * error + 0.02  # a ratio's bias, O(1 / n)
    assert_covered(rows, HALF[name])
