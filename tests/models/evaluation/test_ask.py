"""Classifiers learned from pictures: planted embeddings where each must succeed, or must fail."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from interp.core.errors import DataError, SampleError
from interp.core.images import ImageTable
from interp.core.seeds import rng
from interp.models.evaluation.ask import (
    LINEAR_NATURAL,
    LINEAR_OWN,
    PROTOTYPE,
    STRENGTH,
    Embedded,
    ask_examples,
    prototypes,
)
from tests.tables import image_table

LABELS = ["cat", "dog", "owl", "pig"]


def pictures(
    per_cell: int, split: str, domains: tuple[str, ...] = ("real", "sketch")
) -> ImageTable:
    cells = product(domains, LABELS, [split], range(per_cell))
    return image_table([cell[:3] for cell in cells], "domain label split")


def embedded(images: ImageTable, *, shuffled: bool, seed: int = 0) -> Embedded:
    """Class c at axis c in natural pictures; in sketches too, or each at the next class's axis."""
    generator = rng("planted", seed)
    place = images.label.map(LABELS.index).to_numpy()
    place = (place + (images.domain == "sketch").to_numpy() * shuffled) % 4
    noise = 0.15 * generator.normal(size=(len(images), 6))
    return Embedded(images, torch.from_numpy(np.eye(6)[place] + noise))


def right(training: Embedded, test: Embedded) -> pd.Series:
    answers = ask_examples(training, test, class_names=LABELS, held_out=["owl", "pig"])
    frame = answers.frame[answers.frame["candidates"] == "all"]
    return frame.groupby(["classifier", "domain"])["correct"].mean()


def test_one_geometry_carries_over_and_two_do_not() -> None:
    train, test = pictures(20, "train"), pictures(15, "test")
    same = right(embedded(train, shuffled=False), embedded(test, shuffled=False, seed=1))
    assert (same > 0.9).all() and len(same) == 6
    apart = right(embedded(train, shuffled=True), embedded(test, shuffled=True, seed=1))
    assert apart[LINEAR_OWN, "sketch"] > 0.9  # the oracle reads what is there
    assert apart[LINEAR_NATURAL, "sketch"] < 0.1 and apart[PROTOTYPE, "sketch"] < 0.1
    assert apart[LINEAR_NATURAL, "real"] > 0.9


def test_the_probe_is_scikit_learns_pipeline() -> None:
    training = embedded(pictures(8, "train"), shuffled=False)
    test = embedded(pictures(25, "test"), shuffled=False, seed=3)
    noise = torch.from_numpy(rng("noise", 0).normal(size=test.vectors.shape))
    noisy = Embedded(test.images, test.vectors + 0.5 * noise)
    natural = np.flatnonzero(training.images.domain == "real").tolist()
    pipeline = make_pipeline(
        Normalizer(), StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500)
    ).fit(training.vectors[natural].numpy(), training.images.label.iloc[natural])
    answers = ask_examples(training, noisy, class_names=LABELS, held_out=["owl"])
    ours = answers.frame.query("classifier == @LINEAR_NATURAL")["chosen"].to_numpy()
    theirs = pipeline.predict(noisy.vectors.numpy())
    assert (ours == theirs).mean() > 0.98 and (ours != noisy.images.label.to_numpy()).any()


def test_prototypes_are_means_of_directions() -> None:
    vectors = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0]])
    found = prototypes(vectors, ["cat", "cat", "dog"], ["dog", "cat", "owl"])
    assert found[:2].numpy() == pytest.approx(np.full((2, 2), 0.5**0.5))
    assert found[2].isnan().all()


def test_a_class_never_shown_is_never_chosen_and_ranks_last() -> None:
    train, test = pictures(6, "train"), pictures(6, "test")
    shown = embedded(train[(train.label != "owl").to_numpy()], shuffled=False)
    asked = embedded(test, shuffled=False, seed=1)
    answers = ask_examples(shown, asked, class_names=LABELS, held_out=["owl", "pig"])
    frame = answers.frame[answers.frame["candidates"] == "all"]
    assert "owl" not in set(frame["chosen"])
    assert (frame[frame["label"] == "owl"]["rank"] == 4).all()
    assert frame["margin"].notna().all()


def test_two_classes_are_told_apart_as_more_are() -> None:
    train, test = (pictures(n, s)[[*range(2 * n)]] for n, s in ((10, "train"), (8, "test")))
    assert set(train.label) == {"cat", "dog"}
    both = (embedded(train, shuffled=False), embedded(test, shuffled=False, seed=1))
    found = ask_examples(*both, class_names=["cat", "dog"], held_out=[])
    assert found.frame.groupby("classifier")["correct"].mean().min() > 0.9


def test_what_cannot_be_learned_is_said() -> None:
    train, test = pictures(5, "train"), pictures(5, "test")
    one = embedded(train[(train.label == "cat").to_numpy()], shuffled=False)
    with pytest.raises(SampleError, match="fewer than two classes"):
        ask_examples(one, embedded(test, shuffled=False), class_names=LABELS, held_out=[])
    with pytest.raises(DataError, match="mean real"):
        ask_examples(
            embedded(train, shuffled=False), embedded(test, shuffled=False),
            class_names=LABELS, held_out=[], natural="reel",
        )  # fmt: skip


def test_few_keeps_every_cell_and_repeats_itself() -> None:
    images = pictures(9, "train")
    some = images.few(3, seed=1)
    assert (some.counts() == 3).all().all()
    assert some.path.tolist() == images.few(3, seed=1).path.tolist()
    assert some.path.tolist() != images.few(3, seed=2).path.tolist()
    assert len(images.few(100)) == len(images)
