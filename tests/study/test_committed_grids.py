"""The tables that README speaks of: whole, made from the committed files, and to be had again."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp.models import differences
from interp.models.evaluation.learning import trained_models
from interp.study.compare_settings import contrast_tables, kinds_of
from interp.study.specification import Specification
from interp.verdicts.levels.l4_intervention import TARGET, intervention
from tests.benchmarks import grids
from tests.benchmarks.grids import ASKED, HERE, written

MADE = sorted(path.stem for path in HERE.glob("*.toml"))


def committed(name: str) -> tuple[Specification, dict[str, pd.DataFrame]]:
    return Specification.from_toml(HERE / f"{name}.toml"), grids.committed(name)


@pytest.mark.parametrize("name", MADE)
def test_every_mixture_has_its_accuracy_over_all_blocks(name: str) -> None:
    spec, tables = committed(name)
    rows = tables["accuracy"].query(f"{ASKED} and measure == 'balanced top-1'")
    rows = rows[(rows["domain"] == rows["test_domain"]) & (rows["class_set"] == "held-out")]
    for domain in spec.mixtures.test_domains:
        for setting in spec.mixtures.names(domain):
            own = rows[(rows["setting"] == setting) & (rows["test_domain"] == domain)]
            single, (pooled,) = own[own["n_runs"] == 1], own[own["n_runs"] > 1].itertuples()
            assert len(single) == pooled.n_runs == spec.blocks
            assert pooled.low < pooled.value < pooled.high
            assert pooled.value == pytest.approx(single["value"].mean(), abs=2e-4)


@pytest.mark.parametrize("name", MADE)
def test_the_tables_say_how_they_were_made(name: str) -> None:
    spec, _ = committed(name)
    facts = grids.facts(name)
    assert f"interp-report grid tests/benchmarks/grid/{name}.toml" in facts["command"]
    assert facts["title"] == spec.title
    said = facts["specification"]
    assert said["settings"] == spec.mixtures.names(spec.mixtures.test_domains[0])
    assert said["training"]["steps"] == spec.training.steps
    assert said["images"]["n_train"] == spec.images.n_train


def test_the_intervention_follows_from_its_classes() -> None:
    """The committed differences, from the committed accuracy of each class in each arm."""
    spec, tables = committed("intervention")
    answers = tables["intervention_classes"].query(
        "domain == test_domain and class_set == 'held-out' and candidates == 'all'"
    )
    wide = answers.pivot(index=["seed", "label"], columns="setting", values="value")
    rows = tables["intervention"].query("arm == 'aligned − shuffled'")
    rows = rows[rows["measure"] == TARGET.name].set_index("weight")["value"]
    for weight in spec.intervention.weights:
        gap = wide[f"cg-high, aligned {weight:g}"] - wide[f"cg-high, shuffled {weight:g}"]
        assert rows[weight] == pytest.approx(gap.groupby("seed").mean().mean(), abs=2e-4)
    assert set(tables["levels"]["level"]) == {"L4"}


FOUND = {
    "leave-out-domain − natural-only": 0.214,
    "cg-high − cg-low": 0.038,
    "cg-high − leave-out-domain": -0.188,
    "cg-low − leave-out-domain": -0.227,
    "cg-high, half class overlap − cg-high": 0.023,
    "cg-high, aligned captions − cg-high": 0.227,
}
"""By crossed random effects (run, run x domain, class, fold); their intervals are +/- .083."""


def test_the_differences_follow_from_the_classes() -> None:
    """Recomputed: the analysis of variance of runs, of the eight mixtures that hold classes out."""
    _, tables = committed("resnet")
    answers = tables["accuracy_by_class"].query("domain == test_domain")
    by_domain = answers.groupby(["test_domain", "seed", "setting"])["value"].mean()
    means = by_domain.groupby(["seed", "setting"]).mean().unstack()
    means = means[[name for name in means if not name.startswith("upper-bound")]]
    rest = means.sub(means.mean(axis=1), axis=0) - means.mean() + means.to_numpy().mean()
    degrees = (8 - 1) * (3 - 1)
    error = np.sqrt(2 * (rest.to_numpy() ** 2).sum() / degrees / 3)
    rows = tables["differences"].query("test_domain == 'sketch and quickdraw'")
    rows = rows.set_index("setting")
    for name, fitted in FOUND.items():
        one, other = name.split(" − ")
        row = rows.loc[name]
        assert row["value"] == pytest.approx(means[one].mean() - means[other].mean(), abs=2e-4)
        reach = stats.t.ppf(0.975, degrees) * error
        assert row["high"] - row["value"] == pytest.approx(reach, abs=2e-4) and reach < 0.09
        assert row["value"] == pytest.approx(fitted, abs=0.005)
        assert reach == pytest.approx(0.083, abs=0.005)
        assert row["p"] == pytest.approx(
            2 * stats.t.sf(abs(row["value"]) / error, degrees), rel=0.1
        )
    every = pd.concat([tables["differences"], committed("vit")[1]["differences"]])
    clear = (every["low"] > 0) | (every["high"] < 0)
    assert (clear == (every["p"] < 0.05)).all() and 0 < clear.sum() < len(clear)


def compared(name: str) -> pd.DataFrame:
    """The differences between settings of a grid: all test domains averaged, then each."""
    spec, tables = committed(name)
    mixtures = [
        mixture
        for domain in spec.mixtures.test_domains
        for mixture in spec.mixtures.mixture_specs(domain, (), foreign=("a foreign class",))
    ]
    answers = tables.get("accuracy_by_class")
    if answers is None:  # of whole runs where no classes are kept
        answers = tables["accuracy"].query("n_runs == 1 and measure == 'balanced top-1'")
        answers = answers.assign(label="")
    answers = answers.query(f"{ASKED} and class_set == 'held-out' and domain == test_domain")
    answers = answers.reset_index(drop=True)
    answers = answers.assign(run=trained_models(answers))
    parts = [
        differences(answers, pairs, family=family, kinds=kinds_of(mixtures))
        for family, pairs in contrast_tables(mixtures).items()
    ]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def intervened() -> pd.DataFrame:
    """The table `intervention` of the committed arms, made again."""
    spec, tables = committed("intervention")
    frames = {
        name: tables[f"intervention_{part}"].fillna({"arm": ""}).assign(control="")
        for name, part in (("accuracy_by_class", "classes"), ("directions", "directions"))
    }
    return intervention(frames, spec.intervention)[0]


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_comparisons_are_derived_from_the_tables_beside_them(name: str) -> None:
    found = written(compared(name)).reset_index(drop=True)
    before = committed(name)[1]["differences"].reindex(columns=found.columns)
    numbers = ["value", "low", "high", "p", "degrees", "paired_low", "n_runs", "n_pictures"]
    assert before[["setting", "test_domain"]].equals(
        found[["setting", "test_domain"]].astype("str")
    )
    assert np.allclose(before[numbers], found[numbers], atol=2e-5)
    if name == "resnet":
        made = written(intervened())
        kept = committed("intervention")[1]["intervention"]
        assert np.allclose(made[["low", "high"]], kept[["low", "high"]], atol=2e-5, equal_nan=True)
