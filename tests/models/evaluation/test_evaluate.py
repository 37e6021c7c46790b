"""Accuracy: balanced over classes, among the right candidates, with honest intervals."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.core.classifiers import Classifier
from interp.core.errors import DataError, NumericsError, SampleError, SpecificationError
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.models.clip import build_head, write
from interp.models.evaluation.accuracy import accuracy, accuracy_by_class
from interp.models.evaluation.ask import Answers, Question, ask
from interp.models.evaluation.evaluate import evaluate
from tests.refusals import refuses
from tests.tables import image_table

LABELS = ["cat", "dog", "owl", "pig"]


class Oracle:
    """A model that sees the class, except that it takes every owl for a cat."""

    def embed(self, images: ImageTable, *, batch_size: int) -> torch.Tensor:
        code = torch.eye(4)
        rows = [
            code[0] + 0.5 * code[2] if label == "owl" else code[LABELS.index(label)]
            for label in images.label
        ]
        return torch.stack(rows)

    def zero_shot(self, class_names: list[str], templates: list[str]) -> Classifier:
        return Classifier(torch.eye(4), tuple(class_names), 10.0)


@pytest.fixture
def images() -> ImageTable:
    labels = [*["cat"] * 3, *LABELS[1:]]
    return image_table(product(("real", "sketch"), labels), "domain label")


def asked(images: ImageTable, **words: Any) -> Answers:
    usual: Any = {"class_names": LABELS, "held_out": ["owl", "pig"]}
    return ask(Oracle(), images, {"neutral": lambda domain: ["{}"]}, **usual | words)


@pytest.fixture
def answers(images: ImageTable) -> Answers:
    return asked(images)


def top_1(answers: Answers) -> pd.DataFrame:
    return accuracy(answers).query("measure == 'balanced top-1'")


def test_among_held_out_classes_a_preference_for_seen_ones_is_gone(answers: Answers) -> None:
    frame = top_1(answers)
    narrow = frame[frame["candidates"] == "held-out"]
    assert (narrow["value"] == 1.0).all() and (narrow["null"] == 0.5).all()
    assert set(narrow["class_set"]) == {"held-out"}


def test_accuracy_by_class_is_what_accuracy_averages(answers: Answers) -> None:
    by_class = accuracy_by_class(answers)
    real = by_class[(by_class["domain"] == "real") & (by_class["candidates"] == "all")]
    assert real.set_index("label")["value"].to_dict() == {"cat": 1, "dog": 1, "owl": 0, "pig": 1}
    means = top_1(answers).set_index(["domain", "class_set", "candidates"])["value"]
    assert real["value"].mean() == means["real", "all", "all"] == 0.75  # though cats are many
    assert means["real", "held-out", "all"] == 0.5 and means["real", "seen", "all"] == 1


def test_one_held_out_class_has_no_interval_and_says_so(images: ImageTable) -> None:
    row = accuracy(asked(images, held_out=["owl"])).query("class_set == 'held-out'").iloc[0]
    assert np.isnan(row["low"]) and "one class" in row["reason"]


def test_what_cannot_be_asked_is_refused(images: ImageTable) -> None:
    refuses(SampleError, "", asked, images[[]], held_out=[])
    refuses(DataError, "zebra", asked, images, held_out=["zebra"])
    refuses(DataError, "owl", asked, images, class_names=["cat", "dog", "pig"], held_out=[])
    pictures = pd.DataFrame({"label": ["a"], "domain": "real"})
    nan = torch.tensor([[torch.nan, 1.0]])
    refuses(NumericsError, "1 pictures", Question(("a", "b"), ()).answers, pictures, nan)


def test_rank_margin_and_best_of_kind_are_what_sorting_says() -> None:
    """The kept columns against the logits themselves, ties included."""
    generator = np.random.default_rng(0)
    names = tuple("abcdefg")
    logits = generator.integers(0, 4, size=(200, 7)).astype(float)  # many ties
    pictures = pd.DataFrame({"label": generator.choice(names, 200), "domain": "real"})
    held_out = ("b", "e", "g")
    got = Question(names, held_out).answers(pictures, torch.from_numpy(logits)).frame
    wide = got[got["candidates"] == "all"]
    for row, (label, scores) in enumerate(zip(pictures["label"], logits, strict=True)):
        order = sorted(range(7), key=lambda c: (-scores[c], c))
        kind = [c for c in order if (names[c] in held_out) == (label in held_out)]
        found = wide.iloc[row]
        assert found["chosen"] == names[order[0]]
        assert found["rank"] == 1 + order.index(names.index(label))
        assert found["correct"] == (found["rank"] == 1)
        assert found["best_of_kind"] == (names[kind[0]] == label)
        seen = max(scores[c] for c in range(7) if names[c] not in held_out)
        unseen = max(scores[c] for c in range(7) if names[c] in held_out)
        assert found["margin"] == seen - unseen
    narrow = got[got["candidates"] == "held-out"]
    assert set(narrow["label"]) == set(held_out) == set(narrow["chosen"])
    assert narrow["margin"].isna().all()


def test_heads_are_made_once_and_pictures_embedded_once(images: ImageTable) -> None:
    class Counting(Oracle):
        made = embedded = 0

        def zero_shot(self, class_names: list[str], templates: list[str]) -> Classifier:
            self.made += 1
            return super().zero_shot(class_names, templates)

        def embed(self, images: ImageTable, *, batch_size: int) -> torch.Tensor:
            self.embedded += 1
            return super().embed(images, batch_size=batch_size)

    model: Any = Counting()
    sets = {
        "neutral": lambda domain: ["a {}"],
        "the same": lambda domain: [lambda name: f"a {name}"],
        "own": lambda domain: [f"a {domain} of a {{}}"],
    }
    ask(model, images, sets, class_names=LABELS, held_out=["owl", "pig"])
    assert model.made == 3 and model.embedded == 1  # one of words alone, one per domain


def test_everything_in_one_call(images: ImageTable) -> None:
    training = ImageTable(images.frame.assign(split="train"))
    words: Any = {"class_names": LABELS, "held_out": ["owl", "pig"], "training": training}
    tables = evaluate(Oracle(), images, {"neutral": lambda domain: ["{}"]}, **words)
    frame = tables["accuracy"]
    assert {"text", "linear (own domain)", "prototype (natural)"} <= set(frame["classifier"])
    assert {"AUSUC", "macro-F1", "balanced top-1"} <= set(frame["measure"])
    for name in ("low", "high", "null", "null_kind", "ceiling", "unit", "n_units", "n_pictures"):
        assert frame[name].notna().all() or name in ("low", "high"), name
    Table.with_evidence("accuracy", frame)
    for name, table in tables.items():
        Table(name, table)
    # the own text head takes owls for cats; what pictures teach does not
    owl = tables["accuracy_by_class"].query("label == 'owl' and candidates == 'all'")
    by = owl.groupby("classifier")["value"].mean()
    assert by["text"] == 0.0 and by["prototype (natural)"] == 1.0


def test_an_unknown_keyword_is_refused_with_the_nearest(images: ImageTable) -> None:
    with pytest.raises(SpecificationError, match=r"call evaluate: .* mean training"):
        evaluate(Oracle(), images, {}, class_names=LABELS, held_out=[], trainings=None)


def test_templates_take_braces_words_or_functions() -> None:
    assert write("a {}", "ice_cream") == "a ice cream" == write("a CLASS", "ice_cream")
    assert write(lambda name: name.upper(), "cat") == "CAT"
    refuses(SampleError, "", build_head, lambda texts: torch.eye(2), [], ["{}"], 1.0)
