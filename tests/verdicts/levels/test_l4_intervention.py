"""The intervention: which arms are made, what they are compared in, and what may be concluded."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interp import Study
from interp.core.errors import SpecificationError
from interp.core.seeds import rng
from interp.core.storage.store import fingerprint
from interp.core.tables import COLUMNS, Table
from interp.data.mixtures.intervention_arms import SHUFFLED, Arm, InterventionSpec
from interp.models.loading.checkpoints import run_options
from interp.study.cost import cost_of_study
from interp.study.grid import Grid
from interp.study.results import Result
from interp.study.specification import ImagesSpec, MixturesSpec, Specification, TrainingSpec
from interp.verdicts.levels.l4_intervention import (
    BEYOND,
    HELD_EQUAL,
    SHARING,
    SLOPE,
    TARGET,
    intervention,
    ordinary,
)

SPEC = Specification(
    blocks=3,
    mixtures=MixturesSpec(settings=("cg-low", "cg-high")),
    intervention=InterventionSpec("cg-high", (0.3, 1.0)),
)
CLASSES = [f"class {number:02}" for number in range(24)]


def planted(
    spec: Specification = SPEC,
    *,
    gain: float = 0.3,
    seen: float = 0.0,
    moved: float = 0.4,
    noise: float = 0.02,
    blocks: int = 3,
) -> dict[str, pd.DataFrame]:
    """Tables of arms in which a weight of 1 adds `gain` to C2 x d, `seen` to C1 x d and `moved` to
    the index; shuffled arms, and classes, blocks and arms by themselves, only vary."""
    generator = rng("planted arms", 0)
    answers: list[dict[str, Any]] = []
    shared: list[dict[str, Any]] = []
    for block in range(blocks):
        held_out = set(CLASSES[block::3])
        base = dict(zip(CLASSES, generator.uniform(0.2, 0.6, len(CLASSES)), strict=True))
        for arm in (Arm(0.0), *spec.intervention.arms):
            pull = arm.weight if arm.partners != SHUFFLED else 0.0
            name = f"cg-high, {arm.name}" if arm.name else "cg-high"
            own = {"setting": name, "arm": arm.name, "test_domain": "sketch", "seed": block}
            own |= {"control": "", "epoch": 8}
            for label in CLASSES:
                out = label in held_out
                for domain in ("real", "sketch", "clipart"):
                    by = (gain if out else seen) * pull if domain == "sketch" else 0.0
                    row = own | {"label": label, "domain": domain, "n_pictures": 16}
                    row |= {"class_set": "held-out" if out else "seen", "prompts": "neutral"}
                    row |= {"classifier": "text"}
                    value = base[label] + by + noise * generator.normal()
                    for candidates in ("all", "held-out") if out else ("all",):
                        answers.append(row | {"candidates": candidates, "value": value})
                    answers.append(row | {"candidates": "all", "value": 0.9, "prompts": "paper"})
            for depth in (0.1, 0.43, 0.6, 0.8):
                index = 0.3 + moved * pull + 0.02 * generator.normal()
                shared.append(
                    own | {"depth": depth, "index": index if 0.3 < depth < 0.7 else 0.9}
                    | {"measure": "cosine of mean differences", "n_pictures": 100}
                )  # fmt: skip
    # what must not be seen: other mixtures, earlier epochs, the untrained model
    other = [row | {"setting": "cg-low", "arm": "", "value": 0.99} for row in answers]
    early = [row | {"epoch": 4, "value": 0.99} for row in answers]
    floor = [row | {"control": "epoch 0", "value": 0.99} for row in answers]
    return {
        "accuracy_by_class": pd.DataFrame([*other, *answers, *early, *floor]),
        "directions": pd.DataFrame(shared),
    }


def verdicts(frames: Mapping[str, pd.DataFrame], spec: Specification = SPEC) -> pd.Series:
    _, levels = intervention(frames, spec.intervention)
    return levels.set_index(levels["measure"].str.split(", ").str[-1])["verdict"]


def test_differences_are_those_recomputed_class_by_class() -> None:
    frames = planted()
    made, _ = intervention(frames, SPEC.intervention)
    Table.with_evidence("intervention", made)
    rows = frames["accuracy_by_class"].query(
        "setting != 'cg-low' and epoch == 8 and control == '' and prompts == 'neutral' and "
        "candidates == 'all' and domain == 'sketch' and class_set == 'held-out'"
    )
    wide = rows.pivot(index=["seed", "label"], columns="setting", values="value")
    means = wide.groupby("seed").mean()
    rest = means.sub(means.mean(axis=1), axis=0) - means.mean() + means.to_numpy().mean()
    degrees = 4 * 2  # five arms of three blocks
    error = np.sqrt(2 * (rest.to_numpy() ** 2).sum() / degrees / 3)
    for weight, (control, named) in product((0.3, 1.0), (("shuffled", True), ("none", False))):
        other = means[f"cg-high, shuffled {weight:g}" if named else "cg-high"]
        gap = means[f"cg-high, aligned {weight:g}"] - other
        (row,) = made[(made["measure"] == TARGET.name) & (made["weight"] == weight)
                      & (made["arm"] == f"aligned − {control}")].itertuples()  # fmt: skip
        assert row.value == pytest.approx(gap.mean()) and row.degrees == degrees
        assert row.high - row.value == pytest.approx(stats.t.ppf(0.975, degrees) * error)
        assert row.p == pytest.approx(2 * stats.t.sf(abs(gap.mean()) / error, degrees))
        low, high = stats.t.interval(0.95, 2, gap.mean(), stats.sem(gap))
        assert (row.paired_low, row.paired_high) == pytest.approx((low, high))
        assert (row.unit, row.n_units, row.n_runs) == ("class within block", 24, 6)
    slopes = (
        0.3 * (wide["cg-high, aligned 0.3"] - wide["cg-high, shuffled 0.3"])
        + (wide["cg-high, aligned 1"] - wide["cg-high, shuffled 1"])
    ) / 1.09
    (row,) = made[(made["measure"] == TARGET.name) & (made["arm"] == SLOPE)].itertuples()
    assert row.value == pytest.approx(slopes.groupby("seed").mean().mean())
    (base,) = made[(made["measure"] == TARGET.name) & (made["arm"] == "none")].itertuples()
    assert base.value == pytest.approx(wide["cg-high"].groupby("seed").mean().mean())


def test_what_held_out_classes_gain_beyond_seen_ones_stands_beside_it() -> None:
    made, _ = intervention(planted(gain=0.3, seen=0.1), SPEC.intervention)
    rows = made[(made["measure"] == BEYOND.name) & (made["weight"] == 1)].set_index("arm")
    for control in ("shuffled", "none"):
        row = rows.loc[f"aligned − {control}"]
        assert row["value"] == pytest.approx(0.2, abs=0.02) and row["unit"] == "block"
        assert row["low"] > 0 and row["p"] < 0.05


def test_p_says_what_the_interval_says() -> None:
    frames = planted(gain=0.03, noise=0.05)
    made, _ = intervention(frames, SPEC.intervention)
    compared = made.dropna(subset=["p"])
    assert len(compared) == 6 * 5 and made["p"].isna().sum() == 6 * 5
    clear = (compared["low"] > 0) | (compared["high"] < 0)
    assert (clear == (compared["p"] < 0.05)).all() and 0 < clear.sum() < len(clear)
    alone, _ = intervention(planted(blocks=1), SPEC.intervention)
    assert alone["p"].isna().all() and alone["reason"].str.startswith("one block").any()


def test_sharing_is_read_in_the_middle_layers() -> None:
    made, _ = intervention(planted(moved=0.5), SPEC.intervention)
    rows = made[(made["measure"] == SHARING.name) & (made["arm"] == "aligned − shuffled")]
    assert rows["value"].tolist() == pytest.approx([0.15, 0.5], abs=0.04)
    assert set(rows["unit"]) == {"block"}


@pytest.mark.parametrize(
    ("change", "verdict", "why"),
    [
        ({}, "goes together", ""),
        ({"gain": -0.3}, "goes against", ""),
        ({"gain": 0.0, "noise": 0.005}, "does not go together", "smaller than 2 points"),
        ({"seen": 0.1}, "unknown", "seen classes differ by +"),
        ({"seen": 0.0, "noise": 0.25}, "unknown", "seen classes differ by"),
        ({"moved": 0.0}, "unknown", "did not change sharing"),
        ({"moved": -0.4}, "unknown", "did not change sharing"),
        ({"blocks": 1}, "unknown", "one block"),
    ],
)  # fmt: skip
def test_the_verdict_is_what_was_planted(change: dict[str, Any], verdict: str, why: str) -> None:
    _, levels = intervention(planted(**change), SPEC.intervention)
    row = levels[levels["measure"].str.endswith("weight 1")].iloc[0]
    assert row["verdict"] == verdict and why in row["reason"]
    assert ("because" in row["licence"]) == verdict.startswith("goes")
    assert bool(row["needed"]) == (verdict == "unknown")
    assert set(levels["level"]) == {"L4"} and set(levels.columns) <= set(COLUMNS)


def test_what_classes_differ_in_takes_more_classes_and_not_more_blocks() -> None:
    frames = planted(blocks=6, noise=0.002)
    rows = frames["accuracy_by_class"]
    odd = rows["label"].map(CLASSES.index) % 2 * 2 - 1
    own = (rows["setting"] == "cg-high, aligned 1") & (rows["class_set"] == "seen")
    frames["accuracy_by_class"] = rows.assign(value=rows["value"] + own * 0.2 * odd)
    _, levels = intervention(frames, SPEC.intervention)
    row = levels[levels["measure"].str.endswith("weight 1")].iloc[0]
    assert "not within two points" in row["reason"] and row["needed"].startswith("more classes")


def test_separating_is_judged_by_its_own_sign() -> None:
    """Less shared and less well recognised is the same link as more and better."""
    spec = replace(SPEC, intervention=InterventionSpec("cg-high", (-1.0, 1.0)))
    assert (verdicts(planted(spec), spec) == "goes together").all()
    against = verdicts(planted(spec, gain=-0.3), spec)
    assert (against == "goes against").all() and len(against) == 3


def test_without_sharing_or_control_nothing_can_be_told() -> None:
    frames = planted()
    _, levels = intervention({"accuracy_by_class": frames["accuracy_by_class"]}, SPEC.intervention)
    assert set(levels["verdict"]) == {"unknown"}
    assert levels["reason"].str.contains("no index of sharing").all()
    alone = replace(SPEC, intervention=replace(SPEC.intervention, shuffled=False))
    made, levels = intervention(planted(alone), alone.intervention)
    assert levels["verdict"].tolist() == ["unknown"] and "shuffled" in levels["needed"].iloc[0]
    assert set(made["arm"]) == {"none", "aligned", "aligned − none"}


@pytest.mark.long
@pytest.mark.slow
def test_without_an_effect_the_verdict_is_seldom_a_link() -> None:
    """Nothing planted in C2 x d, sharing moved and C1 equal: at most two of 16 studies."""
    found = []
    for seed in range(16):
        frames = planted(gain=0.0, noise=0.02)
        generator = rng("no effect", seed)
        table = frames["accuracy_by_class"]
        out = (table["class_set"] == "held-out") & (table["domain"] == "sketch")
        table.loc[out, "value"] += 0.1 * generator.normal(size=int(out.sum()))
        found.append(verdicts(frames).loc[SLOPE])
    assert sum(each.startswith("goes") for each in found) <= 2
    assert "unknown" in found


def test_comparisons_of_mixtures_never_see_an_arm() -> None:
    frames = planted()
    assert (frames["accuracy_by_class"]["arm"] != "").any()
    for name, frame in ordinary(frames).items():
        assert "arm" not in frame and len(frame) < len(frames[name])
        assert not frame["setting"].str.contains("aligned|shuffled").any()


TINY = Specification(
    title="Arms",
    images=ImagesSpec(n_classes=6, n_train=8, n_test=3, n_analysis=3, size=32),
    mixtures=MixturesSpec(settings=("cg-high",), held_out=2),
    training=TrainingSpec(steps=8, batch_size=32, warmup=2, precision="fp32"),
    intervention=InterventionSpec("cg-high", (0.5,)),
)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory, trains_here: None) -> Result:
    return Study(TINY).grid(tmp_path_factory.mktemp("arms"), jobs=1, command="a test")


@pytest.mark.long
@pytest.mark.slow
def test_arms_are_trained_and_measured_beside_the_mixture(arms: Result) -> None:
    cells = Grid(TINY).plan(arms.folder / "steps")
    names = ["cg-high", "cg-high, aligned 0.5", "cg-high, shuffled 0.5"]
    assert [cell.setting for cell in cells] == names
    assert len({cell.run.name for cell in cells}) == 3
    assert len({cell.run.tsv for cell in cells}) == 1
    for cell, partners in zip(cells[1:], ("own", "shuffled"), strict=True):
        told = run_options(cell.run.final)
        assert told["align"] == 0.5 and told["align_classes"] == partners
    tables = {name: table.frame for name, table in arms.tables.items()}
    assert set(tables["intervention_classes"]["setting"]) == set(names)
    assert set(tables["accuracy"]["setting"]) <= {"cg-high", ""} and "arm" not in tables["accuracy"]
    assert set(tables["losses"]["setting"]) == set(tables["mixtures"]["setting"]) == {"cg-high"}
    assert {"none", "aligned", "shuffled"} <= set(tables["intervention"]["arm"])
    assert set(tables["intervention_directions"]["setting"]) == set(names)
    assert "directions" not in tables  # a grid has no other sharing to compare it with
    assert tables["levels"]["reason"].tolist() == ["one block: no p, and no interval over runs"]


@pytest.mark.slow
def test_the_runs_of_a_study_keep_their_names_when_arms_join(tmp_path: Path) -> None:
    plain = replace(TINY, intervention=InterventionSpec())
    (before,) = Grid(plain).plan(tmp_path)
    assert before.run.name == Grid(TINY).plan(tmp_path)[0].run.name
    assert fingerprint(plain) != fingerprint(TINY)
    later = {"intervention", "comparison", "folds"}  # options that studies of before did not have
    without = {name: value for name, value in vars(plain).items() if name not in later}
    assert fingerprint(plain) == fingerprint(without)


def test_the_cost_counts_every_arm() -> None:
    assert cost_of_study(TINY).text.startswith("3 runs of resnet-small")
    assert "cg-high, shuffled 0.5" in cost_of_study(TINY).text
    two = replace(TINY, intervention=replace(TINY.intervention, weights=(0.5, -1.0)))
    assert cost_of_study(two).text.startswith("5 runs")
    assert "cg-high, separated 1" in cost_of_study(two).text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("setting = 'cg-hihg'", "mean cg-high"),
        ("setting = 'leave-out-domain'", "without seen classes in sketch"),
        ("setting = 'natural-only'", "without seen classes in sketch"),
        ("setting = 'cg-high'\nweights = [0.0, 1.0]", "numbers other than 0"),
        ("setting = 'cg-high'\nweights = [1.0, 1.0]", "each once"),
        ("setting = 'cg-high'\nweights = []", "numbers other than 0"),
        ("setting = 'cg-high'\nweights = ['much']", "numbers other than 0"),
        ("setting = 'cg-high'\nsigth = 'x'", "mean site"),
        ("[training]\nalign = 0.5", "Write \\[intervention\\]"),
    ],
)
def test_bad_interventions_say_what_is_right(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "study.toml").write_text(f"[intervention]\n{text}")
    with pytest.raises(SpecificationError, match=words):
        Grid.from_toml(tmp_path / "study.toml")


def test_an_unknown_site_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    wrong = replace(TINY, intervention=replace(TINY.intervention, site="layer9.0.hook_resid_post"))
    with pytest.raises(Exception, match=r"mean layer\d\.0\.hook_resid_post"):
        Grid(wrong).plan(tmp_path / "steps")


def test_seen_classes_are_what_is_held_equal() -> None:
    made, _ = intervention(planted(seen=0.1), SPEC.intervention)
    rows = made[(made["measure"] == HELD_EQUAL.name) & (made["arm"] == "aligned − shuffled")]
    assert rows["value"].tolist() == pytest.approx([0.03, 0.1], abs=0.01)
