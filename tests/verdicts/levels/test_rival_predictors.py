"""What foretells accuracy: of made studies, predictor by predictor, and from a study's tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from interp.verdicts.levels.across_checkpoints import verdict
from interp.verdicts.levels.rival_predictors import (
    BEHAVIOUR,
    FACTORS,
    SHARING,
    foretelling,
    predictors,
)
from tests.verdicts.made_studies import World

KEY = ["setting", "test_domain", "seed"]
LINKED = World(mixtures=12, blocks=4, l1=0.95, l2=0.8, own=0.2, drawings=0.05)


def rows(world: World, seed: int = 0) -> pd.DataFrame:
    """One predictor that is linked as asked, and one that is drawn by itself."""
    generator = np.random.default_rng(seed)
    runs = world.runs(generator)
    own = runs.rename(columns={"index": "value"})[[*KEY, "value", "accuracy"]]
    own = own.assign(seen=generator.normal(size=len(own)))
    linked = own.assign(predictor="linked", predictor_kind=SHARING)
    other = own.assign(predictor="drawn", predictor_kind=FACTORS,
                       value=world.runs(generator)["index"])  # fmt: skip
    return pd.concat([linked, other], ignore_index=True)


def test_each_predictor_is_held_against_accuracy_as_a_verdict_does_it() -> None:
    made = rows(LINKED)
    found = foretelling(made, n_permutations=999).frame.set_index(["predictor", "level"])
    runs = made[made["predictor"] == "linked"].rename(columns={"value": "index"})
    own = verdict(runs.assign(rung="R3", measure="made"), n_permutations=999).table.frame
    own = own[own["adjusted"] == ""].set_index("level")
    for level in ("L1", "L2"):
        for name in ("value", "low", "high", "p", "n_runs"):
            assert found.loc[("linked", level), name] == pytest.approx(own.loc[level, name]), name
        assert found.loc[("linked", level), "foretold"] > 0.4
        assert found.loc[("drawn", level), "foretold"] < 0.1
    p = found.xs("L1", level="level")["p"].sort_values().to_numpy()
    adjusted = found.xs("L1", level="level")["p_adjusted"].sort_values().to_numpy()
    np.testing.assert_allclose(adjusted, [min(2 * p[0], p[1]), p[1]])


def test_what_is_foretold_is_so_in_mixtures_that_were_left_out() -> None:
    """By a loop over mixtures, each foretold by a ridge of the others."""
    made = rows(LINKED)
    own = made[made["predictor"] == "linked"]
    means = own.groupby(["setting", "test_domain"], sort=False)[["value", "accuracy"]].mean()
    means = means - means.groupby(level="test_domain").transform("mean")
    missed = 0.0
    for name in means.index.unique("setting"):
        out = means.index.get_level_values("setting") == name
        x, y = (means[column].to_numpy() for column in ("value", "accuracy"))
        x = x / np.sqrt((x[~out] ** 2).mean())
        slope = (x[~out] @ y[~out]) / (x[~out] @ x[~out] + 1)
        missed += ((y[out] - slope * x[out]) ** 2).sum()
    found = foretelling(made, n_permutations=99).frame
    found = found[(found["predictor"] == "linked") & (found["level"] == "L1")]
    share = 1 - missed / (means["accuracy"] ** 2).sum()
    assert found["foretold"].item() == pytest.approx(share)


def test_what_seen_accuracy_says_already_adds_nothing() -> None:
    made = rows(LINKED)
    made["seen"] = made.groupby(KEY)["value"].transform("first")  # the linked predictor itself
    found = foretelling(made, n_permutations=99).frame.set_index(["predictor", "level"])
    row = found.loc[("linked", "L1")]
    assert row["foretold"] > 0.4 and abs(row["beyond_seen"]) < 0.05


def test_one_missing_model_leaves_the_rest() -> None:
    made = rows(LINKED)
    gap = (made["setting"] == "mixture 3") & (made["seed"] == 1) & (made["predictor"] == "linked")
    found = foretelling(made[~gap], n_permutations=99).frame.set_index(["predictor", "level"])
    assert found.loc[("linked", "L1"), "foretold"] > 0.4
    assert found.loc[("linked", "L2"), "foretold"] > 0.2


def test_a_predictor_that_no_model_has_stands_without_numbers() -> None:
    made = rows(LINKED)
    made["value"] = made["value"].where(made["predictor"] == "linked")
    found = foretelling(made, n_permutations=99).frame.set_index(["predictor", "level"])
    for level in ("L1", "L2"):
        own = found.loc[("drawn", level)]
        assert np.isnan([own["value"], own["foretold"], own["beyond_seen"]]).all()
        assert own["n_runs"] == 0 and own["reason"]
        assert found.loc[("linked", level), "foretold"] > 0.2


def test_a_predictor_that_says_nothing_is_seldom_found() -> None:
    nothing = replace(LINKED, l1=0.0, l2=0.0)
    drawn = [foretelling(rows(nothing, seed), n_permutations=199).frame for seed in range(30)]
    frame = pd.concat(drawn)
    assert (frame["p"] < 0.05).mean() < 0.13
    assert (frame["p_adjusted"] < 0.05).mean() <= (frame["p"] < 0.05).mean()


def study_tables() -> dict[str, pd.DataFrame]:
    """Eight mixtures and an upper bound in two blocks; one model did not learn."""
    generator = np.random.default_rng(1)
    place = [
        {"setting": setting, "test_domain": "sketch", "seed": seed}
        for setting in (*(f"mixture {n}" for n in range(8)), "upper-bound-high")
        for seed in (0, 1)
    ]
    accuracy, factors, angles = [], [], []
    for number, run in enumerate(place):
        for domain in ("real", "sketch"):
            for kind in ("held-out", "seen"):
                value = 0.2 + 0.02 * number if (number, kind) != (0, "seen") else 0.03
                accuracy.append(
                    run | {"domain": domain, "class_set": kind, "measure": "balanced top-1",
                           "candidates": "all", "classifier": "text", "prompts": "neutral",
                           "control": "", "value": value, "low": value - 0.1, "high": value + 0.1,
                           "null": 0.05, "n_units": 20, "n_runs": 1, "n_pictures": 400,
                           "n_drawings": 400}
                )  # fmt: skip
        for site, depth in (("layer1.0.hook_resid_post", 0.1), ("layer2.0.hook_resid_post", 0.5),
                            ("hook_embedding", 1.0)):  # fmt: skip
            where = run | {"site": site, "depth": depth, "control": ""}
            value = number if depth == 0.5 else generator.normal()
            factors.append(where | {"measure": "linearity, whitened", "value": value})
            angles.append(where | {"factor": "class and domain", "value": -value})
    frames = {"accuracy": accuracy, "linear_factors": factors, "factorisation": angles}
    return {name: pd.DataFrame(each) for name, each in frames.items()}


def test_predictors_are_read_from_the_tables_of_a_study() -> None:
    frame = predictors(study_tables())
    kinds = frame.groupby("predictor")["predictor_kind"].first().to_dict()
    assert kinds == {
        "accuracy of seen classes there": BEHAVIOUR,
        "accuracy of held-out classes in natural pictures": BEHAVIOUR,
        "linearity, whitened": FACTORS,
        "class and domain along one another": FACTORS,
    }
    own = frame[frame["predictor"] == "linearity, whitened"]
    assert own["value"].tolist() == list(range(1, 16))  # the middle alone; 0 did not learn
    assert not own["setting"].eq("upper-bound-high").any()
    found = foretelling(frame, n_permutations=99).frame
    assert found[found["level"] == "L1"].set_index("predictor")["value"].round(3).to_dict() == {
        "accuracy of seen classes there": 1.0,
        "accuracy of held-out classes in natural pictures": 1.0,
        "linearity, whitened": 1.0,
        "class and domain along one another": -1.0,
    }
