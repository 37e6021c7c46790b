"""Measures of accuracy against naive counts, and a random scorer against every null."""

import numpy as np
import pandas as pd
import pytest
import torch

from interp.core.seeds import rng
from interp.core.tables import EVIDENCE, Table
from interp.models.evaluation.accuracy import accuracy, accuracy_by_class
from interp.models.evaluation.ask import Answers, Question

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


def test_a_signal_is_above_every_null() -> None:
    frame = accuracy(asked(3.0)[0])
    good = frame[frame["measure"] != "held-out taken for seen"]
    assert (good["low"] > good["null"]).all() and (good["high"] <= 1).all()
    taken = frame[frame["measure"] == "held-out taken for seen"].iloc[0]
    assert taken["high"] < taken["null"]


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
