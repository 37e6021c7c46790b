"""Evaluation of one CLIP on the pictures of every domain, with its exposure to each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import pandas as pd

from interp.core.arguments import filled
from interp.core.errors import DataError, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.statistics.correlations import spearman
from interp.core.statistics.evidence_rows import evidence
from interp.core.statistics.resampling import Interval
from interp.core.tables import rows_by
from interp.models.evaluation.accuracy import accuracy, accuracy_by_class
from interp.models.evaluation.ask import (
    ALL,
    HELD_OUT,
    SEEN,
    TEXT,
    Embedded,
    Prompts,
    ZeroShotModel,
    ask,
    ask_examples,
)
from interp.models.evaluation.tradeoff import tradeoff


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
        learned from pictures are those of `interp.models.evaluation.ask`.

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


EVERYWHERE, NATURAL = "all domains", "natural"
SAME = "every class was trained on equally often"


def exposures(
    by_class: pd.DataFrame, trained_on: pd.DataFrame, *, natural: str = "real"
) -> pd.DataFrame:
    """Each class's accuracy in each domain beside the number of training pictures of that class.

    Args:
        by_class: `accuracy_by_class` of one model.
        trained_on: Columns `label, domain, n_pictures`, a row per cell of the model's mixture; a
            cell that is absent was not trained on.
        natural: The natural domain.

    Returns:
        The rows of `by_class` twice, with `exposure` counted in all domains and in the natural one
        alone, as `exposed_in` says.

    Raises:
        DataError: If `trained_on` lacks a column.
    """
    missing = [c for c in ("label", "domain", "n_pictures") if c not in trained_on]
    if missing:
        asked = "count what a class was trained on"
        given = f"a table without {listed(missing)}"
        right = "the columns label, domain, n_pictures"
        raise DataError(asked, given, right, "pass the counts of the mixture's manifest")
    parts = []
    for name, cells in (
        (EVERYWHERE, trained_on),
        (NATURAL, trained_on[trained_on["domain"] == natural]),
    ):
        seen = cells.groupby("label")["n_pictures"].sum()
        times = by_class["label"].map(seen).fillna(0).astype(int)
        parts.append(by_class.assign(exposure=times, exposed_in=name))
    return pd.concat(parts, ignore_index=True)


def exposure(classes: pd.DataFrame, *, keys: Sequence[str] = (), seed: int = 0) -> pd.DataFrame:
    """Spearman correlation over classes of accuracy with exposure, for each class set.

    Args:
        classes: What `exposures` returns, for one model or several.
        keys: Columns that tell models apart, such as setting, test_domain, seed.
        seed: Seed of the permutations.

    Returns:
        A row per model, domain, question, `exposed_in` and class set. The interval is a class
        jackknife; p permutes exposures over whole classes; the null is 0.

    Notes:
        Held-out classes differ from seen ones in more than their number, so each kind is also
        looked at alone. The result is a correlation: exposure was not assigned at random.
    """
    cell = [*keys, "domain", "prompts", "classifier", "candidates", "exposed_in"]
    rows = []
    value, times, n_pictures, kinds = (
        classes[name].to_numpy() for name in ("value", "exposure", "n_pictures", "class_set")
    )
    for values, rows_of in rows_by(classes, cell, dropna=False):
        for class_set in (ALL, HELD_OUT, SEEN):
            own = rows_of if class_set == ALL else rows_of[kinds[rows_of] == class_set]
            if len(own) and not (class_set != ALL and len(own) == len(rows_of)):
                correlation = spearman(value[own], times[own], seed=seed)
                reason = SAME if np.ptp(times[own]) == 0 else correlation.reason
                rows.append(
                    {
                        **dict(zip(cell, values, strict=True)),
                        "class_set": class_set,
                        "measure": "Spearman of accuracy and exposure",
                        **evidence(
                            Interval(correlation.value, np.nan, correlation.low, correlation.high),
                            null=0.0,
                            null_kind="exposures permuted over classes",
                            ceiling=1.0,
                            ceiling_kind="the same order",
                            index=correlation.value,
                            p=correlation.p,
                            unit="class",
                            n_units=correlation.n,
                            n_pictures=int(n_pictures[own].sum()),
                            estimand="this model, over classes like these",
                            seed=seed,
                            reason=reason,
                        ),
                    }
                )
    return pd.DataFrame(rows)
