"""The seen/unseen curve: exact where a grid is near, with a null, an interval and its ends."""

import numpy as np
import pandas as pd
import pytest
import torch

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.models.evaluation.ask import Answers, Question
from interp.models.evaluation.tradeoff import area_by_class, curve, harmonic_mean, tradeoff
from tests.refusals import refuses

NAMES = tuple("abcdefgh")
HELD_OUT = ("c", "f", "h")


def asked(
    signal: float = 1.0, bias: float = 0.0, seed: int = 0, n: int = 240
) -> tuple[Answers, np.ndarray, pd.Series]:
    """Answers of a scorer that sees the class by `signal` and prefers seen classes by `bias`."""
    generator = rng("trade-off", seed)
    logits = generator.normal(size=(n, len(NAMES)))
    labels = generator.choice(NAMES, n, p=[0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    logits[np.arange(n), [NAMES.index(one) for one in labels]] += signal
    logits[:, ~np.isin(NAMES, HELD_OUT)] += bias
    pictures = pd.DataFrame({"label": labels, "domain": "sketch"})
    answers = Question(NAMES, HELD_OUT).answers(pictures, torch.from_numpy(logits))
    return answers, logits, pictures["label"]


def among_all(answers: Answers) -> pd.DataFrame:
    return answers.frame[answers.frame["candidates"] == "all"]


def at(logits: np.ndarray, labels: pd.Series, bias: float) -> tuple[float, float]:
    """Balanced accuracies under a bias, from the logits themselves."""
    moved = logits - bias * ~np.isin(NAMES, HELD_OUT)
    right = pd.Series(np.array(NAMES)[moved.argmax(axis=1)] == labels.to_numpy())
    by_class = right.groupby(labels.to_numpy()).mean()
    held = by_class.index.isin(HELD_OUT)
    return float(by_class[~held].mean()), float(by_class[held].mean())


def test_the_curve_is_what_biased_logits_answer() -> None:
    answers, logits, labels = asked()
    found = curve(among_all(answers), HELD_OUT)
    for bias in (-30.0, *rng("biases", 0).normal(size=40), 30.0):
        place = np.searchsorted(found.bias, bias, side="right") - 1
        expected = at(logits, labels, bias)
        assert (found.seen[place], found.held_out[place]) == pytest.approx(expected)
    assert found.held_out[0] == 0 and found.seen[-1] == pytest.approx(0)
    assert (np.diff(found.seen) <= 1e-12).all() and (np.diff(found.held_out) >= -1e-12).all()


@pytest.mark.slow
def test_the_area_is_a_grids_and_a_count_of_pairs() -> None:
    answers, logits, labels = asked()
    part = among_all(answers)
    exact = curve(part, HELD_OUT).area
    points = np.array([at(logits, labels, bias) for bias in np.linspace(-8, 8, 4001)])
    grid = float((np.diff(points[:, 1]) * (points[1:, 0] + points[:-1, 0]) / 2).sum())
    assert exact == pytest.approx(grid, abs=2e-3)
    total = 0.0
    seen, held = (part[part["label"].isin(HELD_OUT) == kind] for kind in (False, True))
    sizes = part["label"].value_counts()
    for _, one in seen.iterrows():
        for _, two in held.iterrows():
            both = one["best_of_kind"] * two["best_of_kind"] * (one["margin"] > two["margin"])
            total += both / sizes[one["label"]] / sizes[two["label"]] / 5 / 3
    assert exact == pytest.approx(total)
    assert area_by_class(part, HELD_OUT).mean() == pytest.approx(exact)


def test_ties_count_half() -> None:
    part = pd.DataFrame({"label": ["a", "c"], "margin": [0.5, 0.5], "best_of_kind": 1.0})
    assert curve(part, ["c"]).area == 0.5 == area_by_class(part, ["c"]).mean()


def test_random_logits_reach_the_null_and_a_signal_more() -> None:
    areas = [curve(among_all(asked(0.0, seed=k)[0]), HELD_OUT).area for k in range(80)]
    error = np.std(areas) / np.sqrt(len(areas))
    assert np.mean(areas) == pytest.approx(1 / (2 * 5 * 3), abs=4 * error) and error < 0.005
    row = tradeoff(asked(2.0)[0])[0].set_index("measure").loc["AUSUC"]
    assert row["null"] == pytest.approx(1 / 30)
    assert row["null"] < row["low"] < row["value"] < row["high"]


def test_summary_and_points() -> None:
    answers, logits, labels = asked()
    summary, points = tradeoff(answers)
    seen, held = at(logits, labels, 0.0)
    found = summary.set_index("measure").loc["harmonic mean of seen and held-out"]
    assert found["value"] == pytest.approx(2 * seen * held / (seen + held))
    assert found["low"] < found["value"] < found["high"] and found["null"] == 1 / 8
    assert len(points) <= 103 and np.isneginf(points["bias"].iloc[0])
    exact = curve(among_all(answers), HELD_OUT)
    ends = points[["accuracy_seen", "accuracy_held_out"]].iloc[[0, -1]].to_numpy()
    assert ends[0].tolist() == pytest.approx([exact.seen[0], 0.0])
    assert ends[1].tolist() == pytest.approx([0.0, exact.held_out[-1]])
    assert harmonic_mean(np.zeros(1), np.zeros(1)).tolist() == [0.0]


def test_one_kind_of_class_has_no_trade_off() -> None:
    answers, _, _ = asked()
    seen = among_all(answers)[~among_all(answers)["label"].isin(HELD_OUT)]
    refuses(SampleError, "seen classes", curve, seen, HELD_OUT)
    summary, points = tradeoff(Answers(seen, HELD_OUT, 8))
    assert summary.empty and points.empty


def test_one_held_out_class_has_no_interval() -> None:
    frame = among_all(asked()[0])
    frame = frame[~frame["label"].isin(["f", "h"])]
    summary, _ = tradeoff(Answers(frame, HELD_OUT, 8))
    assert summary["low"].isna().all() and summary["reason"].str.contains("no interval").all()
