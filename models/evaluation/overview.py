"""Evaluation of one CLIP on the pictures of every domain, in one call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import pandas as pd

from interp.core.arguments import filled
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.models.evaluation.accuracies import accuracy, accuracy_by_class, by_epoch
from interp.models.evaluation.class_exposure import exposure, exposures
from interp.models.evaluation.effective_robustness import robustness
from interp.models.evaluation.image_classifiers import ask_examples
from interp.models.evaluation.predictions import (
    ALL,
    HELD_OUT,
    SEEN,
    TEXT,
    Answers,
    Embedded,
    Prompts,
    ZeroShotModel,
    ask,
)
from interp.models.evaluation.seen_unseen import tradeoff
from interp.models.evaluation.setting_differences import (
    Contrast,
    differences,
    over_blocks,
    run_means,
)

__all__ = [
    "ALL",
    "HELD_OUT",
    "SEEN",
    "TEXT",
    "Answers",
    "Contrast",
    "Embedded",
    "Prompts",
    "ZeroShotModel",
    "accuracy",
    "accuracy_by_class",
    "ask",
    "ask_examples",
    "by_epoch",
    "differences",
    "evaluate",
    "exposure",
    "exposures",
    "over_blocks",
    "robustness",
    "run_means",
    "tradeoff",
]


class ExampleKeywords(TypedDict, total=False):
    """What further classifiers are learned from."""

    training: ImageTable | None
    natural: str
    per_cell: int


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What further classifiers are learned from.

    Args:
        training: Their pictures; None learns no classifier.
        natural: The natural domain.
        per_cell: Pictures used per class and domain.
    """

    training: ImageTable | None = None
    natural: str = "real"
    per_cell: int = 16


@door
def evaluate(
    clip: ZeroShotModel,
    test: ImageTable,
    prompt_sets: Mapping[str, Prompts],
    *,
    class_names: Sequence[str],
    held_out: Sequence[str],
    batch_size: int = 256,
    seed: int = 0,
    **examples: Unpack[ExampleKeywords],
) -> dict[str, pd.DataFrame]:
    """Evaluate one model: accuracy, accuracy by class and the seen/held-out trade-off.

    Args:
        clip: A `Clip`, or anything that embeds pictures and class names.
        test: The pictures to classify.
        prompt_sets: By name, the templates to use for a domain.
        class_names: The classes to choose from.
        held_out: Those that were held out of training.
        batch_size: Pictures embedded at a time.
        seed: Seed of all draws.
        **examples: The keywords that follow.
        training: Pictures from which further classifiers are learned; None learns none.
        natural: The natural domain.
        per_cell: Training pictures used per class and domain.

    Returns:
        Tables `accuracy` (with summaries of the trade-off), `accuracy_by_class` and `tradeoff`.

    Notes:
        Pictures are embedded once. The long curves of `tradeoff` are kept for the text head with
        the first prompt set alone; without held-out classes the table has no rows. Classifiers
        learned from pictures are those of `interp.models.evaluation.image_classifiers`.

    >>> import torch
    >>> from interp.core.classifiers import Classifier
    >>> class Toy:
    ...     def embed(self, images, *, batch_size=256):
    ...         return torch.eye(2)
    ...     def zero_shot(self, class_names, templates):
    ...         return Classifier(torch.eye(2), tuple(class_names), 100.0)
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": ["cat", "dog"], "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> prompts = {"photo": lambda domain: ["a photo of a {}."]}
    >>> names = ["cat", "dog"]
    >>> tables = evaluate(Toy(), ImageTable(frame), prompts, class_names=names, held_out=[])
    >>> tables["accuracy_by_class"]["value"].tolist()
    [1.0, 1.0]
    """
    learned = filled(evaluate, Examples, examples)
    pictures = Embedded.of(clip, test, batch_size=batch_size)
    answers = ask(clip, pictures, prompt_sets, class_names=class_names, held_out=held_out)
    if learned.training is not None:
        some = learned.training.few(learned.per_cell, seed=seed)
        shown = Embedded.of(clip, some, batch_size=batch_size)
        others = ask_examples(
            shown, pictures, class_names=class_names, held_out=held_out, natural=learned.natural
        )
        answers = answers.with_([others])
    summary, points = tradeoff(answers, seed=seed)
    if not points.empty:
        first = (points["classifier"] == TEXT) & (points["prompts"] == next(iter(prompt_sets)))
        points = points[first].reset_index(drop=True)
    return {
        "accuracy": pd.concat([accuracy(answers, seed=seed), summary], ignore_index=True),
        "accuracy_by_class": accuracy_by_class(answers),
        "tradeoff": points,
    }
