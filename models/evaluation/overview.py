"""How well a CLIP names pictures of each domain: everything asked of one model, in one call."""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp.core.images import ImageTable
from interp.models.evaluation.accuracies import accuracy, accuracy_by_class, by_epoch
from interp.models.evaluation.class_exposure import exposure, exposures
from interp.models.evaluation.effective_robustness import robustness
from interp.models.evaluation.image_classifiers import ask_examples, few
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
    "few",
    "over_blocks",
    "robustness",
    "run_means",
    "tradeoff",
]


def evaluate(
    clip: ZeroShotModel,
    test: ImageTable,
    prompt_sets: Mapping[str, Prompts],
    *,
    class_names: Sequence[str],
    held_out: Sequence[str],
    training: ImageTable | None = None,
    natural: str = "real",
    per_cell: int = 16,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Tables of one model: `accuracy` (trade-off summaries too), `accuracy_by_class`, `tradeoff`.

    With `training` pictures, classifiers learned from at most `per_cell` of them per class and
    domain answer as well (`interp.models.evaluation.image_classifiers`). Pictures are embedded
    once. The curves of `tradeoff` are kept for the text head with the first prompt set alone, for
    they are long; without held-out classes there is none, and the table has no rows.
    """
    pictures = Embedded.of(clip, test, batch_size=batch_size)
    answers = ask(clip, pictures, prompt_sets, class_names=class_names, held_out=held_out)
    if training is not None:
        shown = Embedded.of(clip, few(training, per_cell, seed=seed), batch_size=batch_size)
        others = ask_examples(
            shown, pictures, class_names=class_names, held_out=held_out, natural=natural
        )
        answers = answers.with_([others])
    summary, points = tradeoff(answers, seed=seed)
    return {
        "accuracy": pd.concat([accuracy(answers, seed=seed), summary], ignore_index=True),
        "accuracy_by_class": accuracy_by_class(answers),
        "tradeoff": _first(points, prompt_sets),
    }


def _first(points: pd.DataFrame, prompt_sets: Mapping[str, Prompts]) -> pd.DataFrame:
    if points.empty:
        return points
    kept = (points["classifier"] == TEXT) & (points["prompts"] == next(iter(prompt_sets)))
    return points[kept].reset_index(drop=True)
