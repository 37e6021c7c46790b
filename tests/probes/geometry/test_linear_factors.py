"""Linearity and ranks: planted, by plain loops, and in step with the factorisation."""

import numpy as np
import pandas as pd
import pytest

from interp.core.errors import SampleError
from interp.core.statistics.resampling import jackknife
from interp.probes import Features, factorisation, linear_factors
from interp.probes.geometry.linear_factors import (
    CLASS_RANK,
    DOMAIN_RANK,
    LINEARITY,
    ONE_DIRECTION,
    WHITENED,
)
from tests.probes.geometry.test_factorisation import NAMES, additive, by_loops
from tests.refusals import refuses

FIVE = ("clipart", "painting", "real", "sketch", "quickdraw")


def found(features: Features, **options) -> pd.DataFrame:
    options = {"n_splits": 2, "n_permutations": 99} | options
    return linear_factors(features, **options).frame.set_index("measure")


def test_linearity_is_that_of_plain_loops_and_its_index_that_of_the_class(frame_of) -> None:
    features = additive(frame_of(7, NAMES), of_both=0.5, cosine=0.5)
    row = found(features, n_splits=1).loc[LINEARITY]
    between = ("class", "domain", "interaction")

    def linearity(effect: dict[str, float]) -> float:
        return (effect["class"] + effect["domain"]) / sum(effect[name] for name in between)

    left = [linearity(by_loops(features, 0, c)) for c in sorted(set(features.frame["label"]))]
    spread = jackknife(linearity(by_loops(features, 0)), left)
    assert row["value"] == pytest.approx(spread.value, abs=1e-6)
    assert row["low"] == pytest.approx(spread.low, abs=1e-5)
    options = {"n_splits": 1, "n_permutations": 99}
    of_class = factorisation(features, **options).frame.set_index("factor").loc["class"]
    for name in ("index", "index_low", "index_high", "p"):
        assert row[name] == pytest.approx(of_class[name], abs=1e-5), name


@pytest.mark.parametrize(("of_both", "linear"), [(0.0, 1.0), (1.0, 2 / 3)])
def test_planted_linearity_comes_back_whatever_the_noise(frame_of, of_both, linear) -> None:
    frame = frame_of(12, FIVE)
    for noise in (1.0, 8.0):
        rows = pd.DataFrame([
            found(additive(frame, of_both=of_both, noise=noise, seed=seed))["value"]
            for seed in range(5)
        ])  # fmt: skip
        for measure in (LINEARITY, WHITENED):
            error = rows[measure].std() / np.sqrt(len(rows))
            assert abs(rows[measure].mean() - linear) < 3.5 * error + 0.02, (measure, noise)


def test_whitening_lets_a_direction_count_by_what_can_be_told_along_it(frame_of) -> None:
    """Effects that add up are loud but lie in noise; those that do not are small and clear."""
    frame = frame_of(12, NAMES)
    generator = np.random.default_rng(3)
    label, domain = (pd.factorize(frame[name])[0] for name in ("label", "domain"))
    loud = 3 * generator.normal(size=(12, 8))[label] + 9 * generator.normal(size=(len(frame), 8))
    clear = 0.5 * generator.normal(size=(12, 3, 8))[label, domain]
    clear = clear + 0.1 * generator.normal(size=clear.shape)
    rows = found(Features({"hook_embedding": np.hstack([loud, clear])}, frame))["value"]
    assert rows[LINEARITY] > 0.85 and rows[WHITENED] < 0.7


def test_planted_ranks_come_back_whatever_the_noise(frame_of) -> None:
    frame = frame_of(20, FIVE)
    for noise in (1.0, 8.0):
        rows = pd.DataFrame([
            found(additive(frame, rank=4, noise=noise, seed=seed), n_permutations=9)["value"]
            for seed in range(5)
        ])  # fmt: skip
        assert rows[CLASS_RANK].mean() == pytest.approx(4, rel=0.25), noise
        assert rows[DOMAIN_RANK].mean() == pytest.approx(1, abs=0.1), noise  # along one axis
    row = found(additive(frame, rank=4)).loc[CLASS_RANK]
    assert row["null"] == pytest.approx(40, rel=0.1) and row["ceiling"] == 40  # isotropic noise
    assert np.isnan(row["index"]) and np.isnan(row["p"])


def test_the_null_of_ranks_is_that_of_random_effects(frame_of) -> None:
    """Domain offsets drawn from the variation within cells have its rank, on average."""
    frame, generator = frame_of(10, FIVE), np.random.default_rng(5)
    spread, domain = np.linspace(0.3, 2, 12), pd.factorize(frame["domain"])[0]
    rows = []
    for _ in range(40):
        x = spread * (
            generator.normal(size=(len(frame), 12)) + 4 * generator.normal(size=(5, 12))[domain]
        )
        rows.append(
            found(Features({"site0": x.astype(np.float32)}, frame), n_splits=1).loc[DOMAIN_RANK]
        )
    values = pd.DataFrame(rows)[["value", "null"]].astype(float)
    assert values["value"].mean() == pytest.approx(values["null"].mean(), rel=0.12)
    assert (values["value"] <= 4.001).all()


def test_what_has_no_rank_or_no_number_says_why(frame_of) -> None:
    rows = found(additive(frame_of(8, NAMES[:2])))
    assert rows.loc[DOMAIN_RANK, "reason"] == ONE_DIRECTION and np.isnan(
        rows.loc[DOMAIN_RANK, "value"]
    )
    rows = found(additive(frame_of(8, FIVE), of_domain=0.0))
    assert "no rank" in rows.loc[DOMAIN_RANK, "reason"]
    frame = frame_of(8, NAMES)
    rows = found(Features({"site0": np.ones((len(frame), 4), dtype=np.float32)}, frame))
    assert (rows["reason"] == "constant features").all() and rows["value"].isna().all()
    refuses(SampleError, "3 domains and 4 classes", found, additive(frame_of(4, NAMES)))
