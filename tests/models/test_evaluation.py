"""Accuracy: balanced over classes, among the right candidates, with honest intervals."""

import numpy as np
import pandas as pd
import pytest
import torch

from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable
from interp.models.evaluation import Answers, accuracy, accuracy_by_class, ask, differences
from interp.models.heads import ZeroShotHead, build_head, write

LABELS = ["cat", "dog", "owl", "pig"]


class Oracle:
    """A model that sees the class, except that it takes every owl for a cat."""

    def __init__(self, images: ImageTable) -> None:
        self.images = images

    def embed(self, images: ImageTable, *, batch_size: int) -> torch.Tensor:
        code = torch.eye(4)
        rows = [
            code[0] + 0.5 * code[2] if label == "owl" else code[LABELS.index(label)]
            for label in images.label
        ]
        return torch.stack(rows)

    def zero_shot(self, class_names: list[str], templates: list[str]) -> ZeroShotHead:
        return ZeroShotHead(tuple(class_names), torch.eye(4), 10.0)


@pytest.fixture
def images() -> ImageTable:
    rows = [
        (f"{d}{c}{k}", c, d, "test", "")
        for d in ("real", "sketch")
        for c in LABELS
        for k in range(3 if c == "cat" else 1)
    ]
    return ImageTable(pd.DataFrame(rows, columns=["path", "label", "domain", "split", "caption"]))


@pytest.fixture
def answers(images: ImageTable) -> Answers:
    return ask(
        Oracle(images),
        images,
        {"neutral": lambda domain: ["{}"]},  # type: ignore[arg-type]
        class_names=LABELS,
        held_out=["owl", "pig"],
    )


def test_accuracy_is_balanced_over_classes(answers: Answers) -> None:
    frame = accuracy(answers).set_index(["domain", "class_set", "candidates"])["value"]
    assert frame["real", "all", "all"] == 0.75  # three classes of four, though cats are many
    assert frame["real", "held-out", "all"] == 0.5
    assert frame["real", "seen", "all"] == 1.0


def test_among_held_out_classes_a_preference_for_seen_ones_is_gone(answers: Answers) -> None:
    frame = accuracy(answers)
    narrow = frame[frame["candidates"] == "held-out"]
    assert (narrow["value"] == 1.0).all() and (narrow["null"] == 0.5).all()
    assert set(narrow["class_set"]) == {"held-out"}


def test_accuracy_by_class_is_what_accuracy_averages(answers: Answers) -> None:
    by_class = accuracy_by_class(answers)
    real = by_class[(by_class["domain"] == "real") & (by_class["candidates"] == "all")]
    assert dict(zip(real["label"], real["value"], strict=True)) == {
        "cat": 1.0,
        "dog": 1.0,
        "owl": 0.0,
        "pig": 1.0,
    }
    assert (
        real["value"].mean()
        == accuracy(answers).set_index(["domain", "class_set", "candidates"])["value"][
            "real", "all", "all"
        ]
    )


def test_one_held_out_class_has_no_interval_and_says_so(images: ImageTable) -> None:
    got = ask(
        Oracle(images),
        images,
        {"neutral": lambda domain: ["{}"]},  # type: ignore[arg-type]
        class_names=LABELS,
        held_out=["owl"],
    )
    row = accuracy(got).query("class_set == 'held-out'").iloc[0]
    assert np.isnan(row["low"]) and "one class" in row["reason"]


def test_no_pictures_and_unknown_classes_are_errors(images: ImageTable) -> None:
    sets = {"neutral": lambda domain: ["{}"]}
    with pytest.raises(SampleError):
        ask(Oracle(images), images[[]], sets, class_names=LABELS, held_out=[])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="zebra"):
        ask(Oracle(images), images, sets, class_names=LABELS, held_out=["zebra"])  # type: ignore[arg-type]


def by_class_table(gains: dict[str, float], seeds: int) -> pd.DataFrame:
    stream = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for label in range(12):
            hard = stream.normal()
            rows += [
                (
                    setting,
                    "sketch",
                    seed,
                    "sketch",
                    f"c{label}",
                    "neutral",
                    "all",
                    0.3 + 0.2 * hard + gain + 0.02 * stream.normal(),
                    10,
                )
                for setting, gain in gains.items()
            ]
    return pd.DataFrame(
        rows,
        columns=[
            "setting",
            "test_domain",
            "seed",
            "domain",
            "label",
            "prompts",
            "candidates",
            "value",
            "n_pictures",
        ],
    )


@pytest.mark.parametrize("seeds", [1, 3])
def test_paired_differences_see_what_separate_intervals_would_not(seeds: int) -> None:
    frame = differences(by_class_table({"high": 0.1, "low": 0.0}, seeds), [("high", "low")])
    row = frame.iloc[0]
    assert row["value"] == pytest.approx(0.1, abs=0.02) and row["low"] > 0.05 and row["p"] < 0.01
    assert row["n_runs"] == 2 * seeds and row["n_units"] == 12


def test_no_difference_is_not_found() -> None:
    row = differences(by_class_table({"high": 0.0, "low": 0.0}, 2), [("high", "low")]).iloc[0]
    assert row["low"] < 0 < row["high"] and row["p"] > 0.05


def test_a_missing_setting_gives_no_row() -> None:
    assert len(differences(by_class_table({"high": 0.0}, 1), [("high", "low")])) == 0


def test_templates_take_braces_words_or_functions() -> None:
    assert write("a {}", "ice_cream") == "a ice cream" == write("a CLASS", "ice_cream")
    assert write(lambda name: name.upper(), "cat") == "CAT"
    with pytest.raises(SampleError):
        build_head(lambda texts: torch.eye(2), [], ["{}"], 1.0)
