"""Comparisons of a grid's models, recomputed by hand on made-up accuracies."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.core.images import ImageTable
from interp.data.mixtures.settings import MixtureSpec
from interp.models.training.recipes import Recipe
from interp.models.training.run import Run
from interp.study.blocks import Block
from interp.study.compare_settings import FURTHER, PRIMARY, compare_settings, contrast_tables
from interp.study.grid import Cell
from interp.study.specification import TrainingSpec

SETTINGS = ("natural-only", "cg-low", "cg-high", "leave-out-domain", "cg-high, 2 domains")
LABELS = ("ant", "bee", "cat", "dog", "elk", "fox")
HELD_OUT = {0: ("ant", "bee"), 1: ("cat", "dog"), 2: ("elk", "fox")}


def cells(blocks: int) -> list[Cell]:
    counts = {f"real/{label}": 1 + number for number, label in enumerate(LABELS)}
    pool = ImageTable(pd.DataFrame(columns=["path", "label", "domain", "split", "caption"]))
    made = []
    for setting, block in product(SETTINGS, range(blocks)):
        spec = MixtureSpec(
            setting.split(",")[0],
            "sketch",
            HELD_OUT[block],
            domains=2 if "2 domains" in setting else None,
        )
        assert spec.name == setting
        run = Run("run", Path("model"), Path("train.tsv"), 256, Path("out"), Recipe())
        made.append(
            Cell(TrainingSpec(), spec, Block(block, pool, HELD_OUT[block]), {"counts": counts}, run)
        )
    return made


def frames(blocks: int, *, epochs: int = 1) -> dict[str, pd.DataFrame]:
    """Accuracy grows by setting, falls by class, and by epoch towards it."""
    rows = []
    for (place, setting), block, domain, label, epoch in product(
        enumerate(SETTINGS), range(blocks), ("real", "sketch"), LABELS, range(1, epochs + 1)
    ):
        value = 0.1 * place + 0.02 * LABELS.index(label) + 0.05 * block + 0.01 * (epoch - epochs)
        rows.append((setting, "", block, domain, label, epoch, value))
    for block, domain, label in product(range(blocks), ("real", "sketch"), LABELS):
        rows.append(("", "epoch 0", block, domain, label, 0, 1 / 6))
    names = ["setting", "control", "seed", "domain", "label", "epoch", "value"]
    frame = pd.DataFrame(rows, columns=names).assign(
        architecture="resnet-small", test_domain="sketch", prompts="neutral", classifier="text",
        candidates="all", measure="balanced top-1", n_pictures=10, null=1 / 6,
    )  # fmt: skip
    held = [label in HELD_OUT[block] for label, block in zip(frame.label, frame.seed, strict=True)]
    by_class = frame.assign(class_set=np.where(held, "held-out", "seen"))
    keys = ["architecture", "setting", "control", "test_domain", "seed", "domain", "epoch",
            "prompts", "classifier", "candidates", "measure"]  # fmt: skip
    both = pd.concat([by_class, by_class.assign(class_set="all")])
    accuracy = both.groupby([*keys, "class_set"])["value"].mean().reset_index()
    return {
        "accuracy": accuracy.assign(n_pictures=20, n_runs=1, null=1 / 6, ceiling=1.0),
        "accuracy_by_class": by_class,
    }


def test_only_the_last_epoch_is_compared() -> None:
    made = compare_settings(frames(1, epochs=3), cells(1))
    assert set(made["accuracy"].query("control == ''")["epoch"]) == {3}
    assert set(made["accuracy"].query("control == 'epoch 0'")["epoch"]) == {0}
    curves = made["epochs"].groupby("setting")["epoch"].agg(set)
    assert dict(curves) == {setting: {0, 1, 2, 3} for setting in SETTINGS}
    assert "epochs" not in compare_settings(frames(1), cells(1))


def test_one_block_keeps_its_runs_and_several_are_averaged() -> None:
    assert (compare_settings(frames(1), cells(1))["accuracy"]["n_runs"] == 1).all()
    many = compare_settings(frames(3), cells(3))
    row = many["accuracy"].query(
        "setting == 'cg-low' and domain == 'sketch' and class_set == 'held-out' and control == '' "
        "and n_runs == 3 and measure == 'balanced top-1'"
    )
    by_hand = np.mean([0.1 + 0.02 * (2 * block + 0.5) + 0.05 * block for block in range(3)])
    assert row["value"].item() == pytest.approx(by_hand) and row["n_runs"].item() == 3
    floor = many["accuracy"].query("control == 'epoch 0' and n_runs == 3")
    assert len(floor) and np.allclose(floor["value"], 1 / 6)
    # each run stays beside the mean, and a measure that is no mean over classes has blocks alone
    assert len(many["accuracy"].query("n_runs == 1 and setting == 'cg-low'")) == 3 * 2 * 3


def test_what_is_no_mean_over_classes_is_averaged_over_blocks() -> None:
    made = frames(3)
    other = made["accuracy"].assign(measure="macro-F1", null_kind="", ceiling_kind="")
    many = compare_settings({**made, "accuracy": pd.concat([made["accuracy"], other])}, cells(3))
    row = many["accuracy"].query(
        "measure == 'macro-F1' and n_runs == 3 and setting == 'cg-low' and domain == 'real' "
        "and class_set == 'all'"
    )
    values = [0.1 + 0.02 * 2.5 + 0.05 * block for block in range(3)]
    assert row["value"].item() == pytest.approx(np.mean(values)) and row["unit"].item() == "block"
    reach = 4.302652729 * np.std(values, ddof=1) / np.sqrt(3)  # Student's t of two degrees
    assert row["high"].item() - row["value"].item() == pytest.approx(reach)


def test_a_model_that_did_not_learn_is_in_no_difference() -> None:
    made = frames(3)
    accuracy = made["accuracy"].assign(n_units=4, n_drawings=60, value=0.6)
    failed = (accuracy["setting"] == "cg-low") & (accuracy["seed"] == 1)
    made["accuracy"] = accuracy.assign(value=accuracy["value"].mask(failed, 0.25))
    by_class = made["accuracy_by_class"]
    own = (by_class["setting"] == "cg-low") & (by_class["seed"] == 1)
    made["accuracy_by_class"] = by_class.assign(value=by_class["value"].mask(own, 0.0))
    found = compare_settings(made, cells(3))
    rows = found["differences"].set_index("setting")
    assert rows.loc["cg-high − cg-low", "value"] == pytest.approx(0.1)  # as in the other two blocks
    assert rows.loc["cg-high − cg-low", "n_pictures"] == 2 * 2 * 10
    assert rows.loc["leave-out-domain − natural-only", "n_pictures"] == 3 * 2 * 10
    assert "cg-low" in set(found["accuracy"]["setting"])  # its accuracy is told


def test_differences_are_paired_and_of_two_families() -> None:
    made = compare_settings(frames(3), cells(3))["differences"]
    by_name = made.set_index("setting")
    assert by_name.loc["cg-high − cg-low", "value"] == pytest.approx(0.1)
    assert by_name.loc["leave-out-domain − natural-only", "value"] == pytest.approx(0.3)
    assert by_name.loc["cg-high, 2 domains − cg-high", "value"] == pytest.approx(0.2)
    primary = {f"{a} − {b}" for a, b in PRIMARY}
    assert set(made[made["family"].str.startswith("primary")]["setting"]) == primary
    known = {f"{a} − {b}" for a, b in FURTHER if {a, b} <= set(SETTINGS)}
    assert set(made["setting"]) == primary | known | {"cg-high, 2 domains − cg-high"}
    assert made["degrees"].isin([4 * 2, 3 * 2]).all()  # five settings of three blocks
    assert (made["n_units"] == 6).all() and (made["unit"] == "class within block").all()


def test_a_setting_that_was_not_trained_makes_no_contrast() -> None:
    some = [cell for cell in cells(1) if cell.mixture.name in ("natural-only", "cg-high")]
    part = {name: frame[frame["setting"].isin(["natural-only", "cg-high", ""])]
            for name, frame in frames(1).items()}  # fmt: skip
    assert "differences" not in compare_settings(part, some)


def test_exposure_is_counted_per_run() -> None:
    made = compare_settings(frames(2), cells(2))
    rows = made["exposure_classes"].query("exposed_in == 'natural' and domain == 'sketch'")
    assert len(rows) == len(SETTINGS) * 2 * len(LABELS)
    assert dict(zip(rows["label"], rows["exposure"], strict=True)) == {
        label: 1 + number for number, label in enumerate(LABELS)
    }
    # accuracy rises with the class's place, and so does exposure
    assert np.allclose(made["exposure"].query("class_set == 'all'")["value"], 1.0)


def test_a_base_sets_pictures_count_as_natural_exposure() -> None:
    based = [
        replace(cell, manifest={**cell.manifest, "base_counts": {"ant": 5, "yak": 9}})
        for cell in cells(2)
    ]
    rows = compare_settings(frames(2), based)["exposure_classes"]
    natural = rows.query("exposed_in == 'natural' and domain == 'sketch' and label == 'ant'")
    assert set(natural["exposure"]) == {1 + 5} and "yak" not in set(rows["label"])


@pytest.mark.parametrize(("blocks", "epochs", "there"), [(2, 1, False), (2, 2, True)])
def test_a_line_needs_four_models_of_natural_pictures(
    blocks: int, epochs: int, there: bool
) -> None:
    made = compare_settings(frames(blocks, epochs=epochs), cells(blocks))
    assert ("robustness" in made) == there
    if there:
        fitted = made["robustness"].query("fitted")
        assert set(fitted["setting"]) == {"natural-only"} and len(fitted) == blocks * epochs


def test_nothing_is_lost_that_no_comparison_is_about() -> None:
    other = pd.DataFrame({"setting": ["cg-low"], "value": [1.0]})
    made = compare_settings({**frames(1), "similarity": other}, cells(1))
    pd.testing.assert_frame_equal(made["similarity"], other)


@pytest.mark.parametrize("hold", ["natural", "exposure", "steps"])
def test_what_is_held_does_not_part_natural_only_from_the_others(hold: str) -> None:
    specs = [
        MixtureSpec(name, "sketch", (), hold=hold)
        for name in ("natural-only", "leave-out-domain", "cg-low", "cg-high")
    ]
    names = {spec.setting: spec.name for spec in specs}
    assert contrast_tables(specs)["primary contrasts"] == [
        (names["leave-out-domain"], "natural-only"),
        (names["cg-high"], names["cg-low"]),
    ]


def test_mixtures_changed_in_different_ways_are_no_contrast() -> None:
    specs = [MixtureSpec("cg-high", "sketch", (), domain_words=False),
             MixtureSpec("cg-low", "sketch", ())]  # fmt: skip
    assert contrast_tables(specs) == {"primary contrasts": [], "further contrasts": []}


def test_what_is_held_parts_all_but_natural_only() -> None:
    specs = [
        MixtureSpec("natural-only", "sketch", ()),
        MixtureSpec("leave-out-domain", "sketch", (), hold="steps"),
        MixtureSpec("cg-low", "sketch", ()),
        MixtureSpec("cg-high", "sketch", (), hold="steps"),
    ]
    assert contrast_tables(specs)["primary contrasts"] == [(specs[1].name, "natural-only")]
