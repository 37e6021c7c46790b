"""Measures of accuracy against naive counts, and a random scorer against every null."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.core.statistics.resampling import jackknife
from interp.core.tables import EVIDENCE, Table
from interp.models.evaluation.accuracy import (
    accuracy,
    accuracy_by_class,
    by_epoch,
    confusion,
    guessing_f1,
    macro_f1,
)
from interp.models.evaluation.ask import Answers, Question
from tests.refusals import refuses

NAMES = tuple(f"c{k:02d}" for k in range(12))
HELD_OUT = NAMES[:4]


def asked(signal: float, seed: int = 0, n: int = 20) -> tuple[Answers, np.ndarray, np.ndarray]:
    generator = rng("accuracy", seed)
    labels = np.repeat(NAMES, n)
    labels = labels[generator.random(len(labels)) < 0.8]  # unequal classes
    logits = generator.normal(size=(len(labels), 12))
    logits[range(len(labels)), [NAMES.index(one) for one in labels]] += signal
    pictures = pd.DataFrame({"label": labels, "domain": "real", "drawing": "x"})
    return Question(NAMES, HELD_OUT).answers(pictures, torch.from_numpy(logits)), logits, labels


def test_top_k_and_taken_are_naive_counts() -> None:
    answers, logits, labels = asked(1.0)
    found = accuracy(answers).set_index(["class_set", "candidates", "measure"])["value"]
    order = np.argsort(-logits, axis=1)
    for class_set, classes in (("held-out", HELD_OUT), ("seen", NAMES[4:]), ("all", NAMES)):
        first, fifth, taken = [], [], []
        for name in classes:
            rows = order[labels == name]
            first.append(np.mean(rows[:, 0] == NAMES.index(name)))
            fifth.append(np.mean((rows[:, :5] == NAMES.index(name)).any(axis=1)))
            taken.append(np.mean(rows[:, 0] >= 4))
        assert found[class_set, "all", "balanced top-1"] == pytest.approx(np.mean(first))
        assert found[class_set, "all", "balanced top-5"] == pytest.approx(np.mean(fifth))
        if class_set == "held-out":
            expected = pytest.approx(np.mean(taken))
            assert found[class_set, "all", "held-out taken for seen"] == expected
    assert ("held-out", "held-out", "balanced top-5") not in found.index  # four to choose from
    assert ("seen", "all", "held-out taken for seen") not in found.index


def test_a_random_scorer_is_at_every_null() -> None:
    drawn = [accuracy(asked(0.0, seed)[0]) for seed in range(25)]
    keys = ["class_set", "candidates", "measure"]
    many = pd.concat(drawn).groupby(keys)
    error = many["value"].std() / 5
    assert (abs(many["value"].mean() - many["null"].mean()) < 4 * error).all()
    assert (error < 0.02).all()
    assert abs(many["index"].mean()).max() < 0.2


def test_every_row_carries_its_evidence() -> None:
    answers, _, _ = asked(1.0)
    frame = accuracy(answers)
    Table.with_evidence("accuracy", frame)
    needed = [name for name in EVIDENCE if name != "p"]
    assert frame[needed].notna().all().all()
    by_class = accuracy_by_class(answers)
    Table("accuracy_by_class", by_class)
    assert by_class[by_class["candidates"] == "all"].set_index("label")["class_set"].to_dict() == {
        name: "held-out" if name in HELD_OUT else "seen" for name in NAMES
    }


def test_without_held_out_classes_there_are_no_rows_of_theirs() -> None:
    _, logits, labels = asked(1.0)
    pictures = pd.DataFrame({"label": labels, "domain": "real"})
    plain = Question(NAMES, ()).answers(pictures, torch.from_numpy(logits))
    frame = accuracy(plain)
    assert set(frame["class_set"]) == {"seen", "all"} and set(frame["candidates"]) == {"all"}
    assert "held-out taken for seen" not in set(frame["measure"])


def of_epoch(signal: float) -> Answers:
    generator = rng("epochs", 0)
    names = NAMES[:8]
    labels = list(names) * 12
    logits = generator.normal(size=(len(labels), 8))
    logits[range(len(labels)), [names.index(one) for one in labels]] += signal
    pictures = pd.DataFrame({"label": labels, "domain": "real"})
    return Question(names, ("c02", "c07")).answers(pictures, torch.from_numpy(logits))


def test_an_epoch_is_the_accuracy_of_its_checkpoint() -> None:
    opened: list[int] = []

    def checkpoint(epoch: int) -> Answers:
        opened.append(epoch)
        return of_epoch(float(epoch))

    found = by_epoch([(3, lambda: checkpoint(3)), (0, lambda: checkpoint(0))], seed=2)
    assert opened == [0, 3] and found["epoch"].unique().tolist() == [0, 3]
    for epoch in (0, 3):
        expected = accuracy(of_epoch(float(epoch)), seed=2)
        part = found[found["epoch"] == epoch].drop(columns="epoch").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, expected)
    top = found.query("measure == 'balanced top-1' and class_set == 'all'").set_index("epoch")
    assert top.loc[0, "low"] < top.loc[0, "null"] < top.loc[0, "high"]
    assert top.loc[3, "low"] > top.loc[3, "null"]


def test_no_checkpoints_are_refused() -> None:
    refuses(SampleError, "at least one", by_epoch, [])


CLASSES = ["a", "b", "c", "d"]


@pytest.fixture
def choices() -> tuple[np.ndarray, np.ndarray]:
    """Unequal classes, right two times in three, and sometimes a class from outside."""
    generator = rng("f1", 0)
    true = generator.choice(CLASSES, 120, p=[0.4, 0.3, 0.2, 0.1])
    guess = generator.choice([*CLASSES, "outside"], 120)
    return true, np.where(generator.random(120) < 0.66, true, guess)


def sklearns(true: np.ndarray, chosen: np.ndarray, classes: list[str]) -> float:
    return float(f1_score(true, chosen, labels=classes, average="macro", zero_division=0.0))


def test_it_is_scikit_learns(choices: tuple[np.ndarray, np.ndarray]) -> None:
    true, chosen = choices
    assert macro_f1(true, chosen, CLASSES).value == pytest.approx(sklearns(true, chosen, CLASSES))
    some = ["b", "d"]
    keep = np.isin(true, some)
    found = macro_f1(true[keep], chosen[keep], some)
    assert found.value == pytest.approx(sklearns(true[keep], chosen[keep], some))


def test_the_interval_is_the_jackknife_that_leaves_out_whole_classes(choices) -> None:
    true, chosen = choices
    left_out = [
        sklearns(true[true != c], chosen[true != c], [k for k in CLASSES if k != c])
        for c in CLASSES
    ]
    found = macro_f1(true, chosen, CLASSES)
    expected = jackknife(found.value, left_out)
    assert found.error == pytest.approx(expected.error)
    assert found.low == pytest.approx(max(expected.low, 0))
    assert found.high == pytest.approx(min(expected.high, 1))


def test_a_class_never_shown_nor_chosen_counts_as_nought() -> None:
    assert macro_f1(["a", "a"], ["a", "a"], ["a", "b"]).value == 0.5
    assert np.isnan(macro_f1(["a"], ["a"], ["a"]).low)
    assert macro_f1([0, 0, 1], [0, 1, -1], [0, 1]) == macro_f1(list("aab"), list("ab?"), list("ab"))
    assert confusion(["a", "b"], ["b", "zebra"], ["a", "b"]).tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(("shown", "n"), [([16] * 10, 40), ([3, 5, 9], 3), ([2, 2, 2, 30], 12)])
def test_guessing_scores_what_it_is_said_to(shown: list[int], n: int) -> None:
    generator = rng("guessing", 0)
    true = np.repeat([f"c{k}" for k in range(len(shown))], shown)
    names = [f"c{k}" for k in range(len(shown))]
    drawn = [
        macro_f1(true, generator.choice([f"c{k}" for k in range(n)], len(true)), names).value
        for _ in range(600)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert guessing_f1(shown, n) == pytest.approx(np.mean(drawn), abs=4 * error)
    assert error < 0.01  # so that the line above can fail


def test_a_random_classifier_is_at_the_null_and_a_good_one_above() -> None:
    generator = rng("f1 null", 0)
    names = [f"c{k}" for k in range(12)]
    true = np.repeat(names, 16)
    null = guessing_f1([16] * 12, 12)
    random = macro_f1(true, generator.choice(names, len(true)), names)
    assert random.low < null < random.high
    good = np.where(generator.random(len(true)) < 0.5, true, generator.choice(names, len(true)))
    assert macro_f1(true, good, names).low > null
