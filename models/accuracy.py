"""Balanced accuracy and its kin, per domain, class set, candidates, prompts and classifier."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from interp.core.evidence import evidence
from interp.core.statistics import Interval, column_intervals
from interp.models.answers import ALL, HELD_OUT, SEEN, Answers
from interp.models.f1 import guessing_f1, macro_f1

TOP_1, TOP_5, MACRO_F1 = "balanced top-1", "balanced top-5", "macro-F1"
TAKEN = "held-out taken for seen"

KEYS = ["domain", "prompts", "classifier", "candidates"]
"""What one set of answers is about."""


def accuracy(answers: Answers, *, seed: int = 0) -> pd.DataFrame:
    """How well classes are named, a row per measure, with interval, null and counts.

    - *balanced top-1*, *balanced top-5*: mean over classes of the share of their pictures whose
      true class comes first, or among the first five. Interval: bootstrap over whole classes;
      null: 1 / n and 5 / n of n candidates. No top-5 among five or fewer.
    - *macro-F1*: mean over classes of 2 TP / (2 TP + FP + FN), counted on the row's own pictures.
      Interval: class jackknife; null: the expectation of even guessing.
    - *held-out taken for seen*: share of held-out classes' pictures given to a seen class, balanced
      over classes; null: the share of seen classes among the candidates.

    Index is (value - null) / (1 - null), accuracy beyond chance; p is left empty, since interval
    against null says whether a model does better than chance.
    """
    rows = []
    for (domain, prompts, classifier, candidates), class_set, part in questions(answers):
        n = answers.n_candidates(candidates)
        for measure, spread, null, null_kind in _measures(answers, part, class_set, n, seed):
            rows.append(
                {
                    "domain": domain,
                    "class_set": class_set,
                    "candidates": candidates,
                    "prompts": prompts,
                    "classifier": classifier,
                    "measure": measure,
                    **of_share(spread, null, null_kind, part, seed=seed),
                }
            )
    return pd.DataFrame(rows)


def questions(answers: Answers) -> Iterator[tuple[tuple[str, ...], str, pd.DataFrame]]:
    """Each (domain, prompts, classifier, candidates) with each class set and its answers."""
    held = answers.frame["label"].isin(answers.held_out)
    for class_set, keep in ((HELD_OUT, held), (SEEN, ~held), (ALL, held | ~held)):
        for cell, part in answers.frame[keep].groupby(KEYS, sort=False):
            if cell[-1] != HELD_OUT or class_set == HELD_OUT:
                yield cell, class_set, part


def _measures(
    answers: Answers, part: pd.DataFrame, class_set: str, n: int, seed: int
) -> Iterator[tuple[str, Interval, float, str]]:
    """Measure, interval, null, and how the null was made."""
    chosen_seen = ~part["chosen"].isin(answers.held_out)
    shares = np.column_stack([part["correct"], part["rank"] <= 5, chosen_seen]).astype(float)
    first, fifth, taken = column_intervals(shares, part["label"], seed=seed)
    yield TOP_1, first, 1 / n, f"chance among {n} classes"
    if n > 5:
        yield TOP_5, fifth, 5 / n, f"chance among {n} classes"
    shown = part["label"].value_counts()
    f1 = macro_f1(part["label"], part["chosen"], list(shown.index))
    yield MACRO_F1, f1, guessing_f1(shown.tolist(), n), f"expected of guessing among {n} classes"
    candidates = part["candidates"].iloc[0]
    if class_set == HELD_OUT and candidates == ALL and n > len(answers.held_out):
        share = 1 - len(answers.held_out) / n
        yield TAKEN, taken, share, f"share of seen classes among {n}"


def of_share(
    spread: Interval, null: float, null_kind: str, part: pd.DataFrame, *, seed: int
) -> dict[str, object]:
    """The evidence for a share between 0 and 1, on one model's answers."""
    n_classes = part["label"].nunique()
    return evidence(
        spread,
        null=null,
        null_kind=null_kind,
        ceiling=1.0,
        ceiling_kind="every picture",
        index=(spread.value - null) / (1 - null) if null < 1 else np.nan,
        unit="class",
        n_units=n_classes,
        n_pictures=len(part),
        n_drawings=part["drawing"].nunique() if "drawing" in part else len(part),
        estimand="this model, over classes like these",
        seed=seed,
        reason="" if n_classes > 1 else "one class: no interval",
    )


def accuracy_by_class(answers: Answers) -> pd.DataFrame:
    """Share of each class's pictures named right, per domain, candidates, prompts and classifier.

    `class_set` says whether the class was held out, `null` is chance. Single classes have no
    interval: they are what intervals are made of.
    """
    keys = ["domain", "label", "prompts", "classifier", "candidates"]
    found = answers.frame.groupby(keys, sort=True)["correct"].agg(value="mean", n_pictures="size")
    frame = found.reset_index()
    held = frame["label"].isin(answers.held_out)
    return frame.assign(
        class_set=np.where(held, HELD_OUT, SEEN),
        null=[1 / answers.n_candidates(one) for one in frame["candidates"]],
        measure=TOP_1,
    )
