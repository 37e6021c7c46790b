"""Per-epoch curves: each epoch is its own accuracy table, opened one after another."""

import pandas as pd
import pytest
import torch

from interp.core.errors import SampleError
from interp.core.seeds import rng
from interp.models.evaluation.accuracy import accuracy, by_epoch
from interp.models.evaluation.ask import Answers, Question

NAMES = tuple("abcdefgh")


def answers(signal: float) -> Answers:
    generator = rng("epochs", 0)
    labels = list(NAMES) * 12
    logits = generator.normal(size=(len(labels), 8))
    logits[range(len(labels)), [NAMES.index(one) for one in labels]] += signal
    pictures = pd.DataFrame({"label": labels, "domain": "real"})
    return Question(NAMES, ("c", "h")).answers(pictures, torch.from_numpy(logits))


def test_an_epoch_is_the_accuracy_of_its_checkpoint() -> None:
    opened: list[int] = []

    def checkpoint(epoch: int) -> Answers:
        opened.append(epoch)
        return answers(float(epoch))

    found = by_epoch([(3, lambda: checkpoint(3)), (0, lambda: checkpoint(0))], seed=2)
    assert opened == [0, 3] and found["epoch"].unique().tolist() == [0, 3]
    for epoch in (0, 3):
        expected = accuracy(answers(float(epoch)), seed=2)
        part = found[found["epoch"] == epoch].drop(columns="epoch").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, expected)
    top = found.query("measure == 'balanced top-1' and class_set == 'all'").set_index("epoch")
    assert top.loc[0, "low"] < top.loc[0, "null"] < top.loc[0, "high"]
    assert top.loc[3, "low"] > top.loc[3, "null"]


def test_no_checkpoints_are_refused() -> None:
    with pytest.raises(SampleError, match="at least one"):
        by_epoch([])
