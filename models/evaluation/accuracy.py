"""Balanced accuracy and macro-F1, per domain, class set, candidates, prompts and classifier."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from interp.core.errors import SampleError
from interp.core.faces.doors import door
from interp.core.progress import track
from interp.core.statistics.evidence_rows import evidence
from interp.core.statistics.resampling import Interval, column_intervals, jackknife
from interp.core.tables import rows_by
from interp.models.evaluation.ask import ALL, HELD_OUT, SEEN, Answers


def macro_f1(true: ArrayLike, chosen: ArrayLike, classes: Sequence[Hashable]) -> Interval:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN), with a class jackknife interval.

    Args:
        true: The class of each picture, by name or number.
        chosen: The class chosen for each picture; a choice outside `classes` misses the true class.
        classes: The classes averaged over.

    Returns:
        The mean and its interval within 0 and 1. F1 is 0 for a class neither shown nor chosen.

    Notes:
        The F1 of a class depends on other classes' pictures through its false positives. Resampling
        classes with replacement would count copies of one class as agreeing; leaving out one
        class's pictures at a time does not.

    >>> found = macro_f1(["cat", "cat", "dog"], ["cat", "dog", "dog"], ["cat", "dog"])
    >>> round(found.value, 4)
    0.6667
    """
    counts, n = confusion(true, chosen, classes), len(classes)
    within = counts[:, :n]
    value = float(_f1(counts, within.sum(axis=0)).mean())
    if n < 2:
        return Interval(value, np.nan, np.nan, np.nan)
    # row c: what remains in each column when the pictures of class c are left out
    each = _f1(counts, within.sum(axis=0)[None, :] - within)
    np.fill_diagonal(each, np.nan)
    spread = jackknife(value, np.nanmean(each, axis=1))
    return Interval(value, spread.error, max(spread.low, 0.0), min(spread.high, 1.0))


def confusion(true: ArrayLike, chosen: ArrayLike, names: Sequence[Hashable]) -> np.ndarray:
    """Count pictures by true and chosen class.

    Args:
        true: The class of each picture, by name or number.
        chosen: The class chosen for each picture.
        names: The classes, in the order of rows and columns.

    Returns:
        Counts `true chosen`; a last column counts choices of any other class.

    >>> confusion(["cat", "dog"], ["cat", "owl"], ["cat", "dog"]).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    number_of = {name: number for number, name in enumerate(names)}
    rows = [number_of[label] for label in np.asarray(true).tolist()]
    columns = [number_of.get(label, len(names)) for label in np.asarray(chosen).tolist()]
    counts = np.zeros((len(names), len(names) + 1), dtype=int)
    np.add.at(counts, (rows, columns), 1)
    return counts


def _f1(counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """F1 per class from a confusion table and how often each class was chosen (last axis)."""
    hits = np.diagonal(counts)
    shown = counts.sum(axis=1)
    total = np.asarray(chosen + shown, dtype=float)
    return np.divide(2.0 * hits, total, out=np.zeros_like(total), where=total > 0)


def guessing_f1(shown: Sequence[int], n_candidates: int) -> float:
    """Expected macro-F1 of guessing uniformly among `n_candidates` classes.

    A class is guessed P ~ Bin(N, 1 / n_candidates) times for N pictures in all, and P shown / N of
    these guesses are right on average, hence

    E[F1_c] = sum_p Pr(P = p) 2 p (shown_c / N) / (shown_c + p).

    Args:
        shown: Number of pictures of each class.
        n_candidates: Number of classes to choose from.

    Returns:
        The mean of E[F1_c] over the classes shown.

    >>> round(guessing_f1([1, 1], 2), 4)  # by hand: 1/2 x 1/2 + 1/4 x 2/3
    0.4167
    """
    counts = np.asarray(shown, dtype=float)
    total = int(counts.sum())
    guessed = np.arange(total + 1)
    chance = stats.binom.pmf(guessed, total, 1 / n_candidates)
    sizes, size_of = np.unique(counts, return_inverse=True)
    expected = [
        float((chance * 2 * guessed * (size / total) / np.maximum(size + guessed, 1)).sum())
        for size in sizes
    ]
    return float(np.asarray(expected)[size_of].mean())


TOP_1, TOP_5, MACRO_F1 = "balanced top-1", "balanced top-5", "macro-F1"
TAKEN = "held-out taken for seen"

KEYS = ["domain", "prompts", "classifier", "candidates"]
"""What one set of answers is about."""


@door
def accuracy(answers: Answers, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy of a model's answers, a row per measure, with interval, null and counts.

    Args:
        answers: The answers of one model.
        seed: Seed of the bootstrap.

    Returns:
        Rows per domain, class set, candidates, prompts, classifier and measure. `index` is (value -
        null) / (1 - null), accuracy beyond chance.

    Notes:
        - *balanced top-1*, *balanced top-5*: mean over classes of the share of their pictures whose
          true class comes first, or among the first five. The interval is a bootstrap over whole
          classes, the null 1 / n and 5 / n of n candidates. There is no top-5 among five or fewer.
        - *macro-F1*: mean over classes of 2 TP / (2 TP + FP + FN), counted on the row's own
          pictures. The interval is a class jackknife, the null the expectation of uniform guessing.
        - *held-out taken for seen*: share of held-out classes' pictures given to a seen class,
          balanced over classes. The null is the share of seen classes among the candidates.

        `p` is left empty, since interval against null says whether a model does better than chance.

    >>> import torch
    >>> from interp.models.evaluation.ask import Question
    >>> pictures = pd.DataFrame({"label": ["cat", "dog"], "domain": "real"})
    >>> answers = Question(("cat", "dog"), ()).answers(pictures, torch.eye(2))
    >>> accuracy(answers).groupby("measure")["value"].max().to_dict()
    {'balanced top-1': 1.0, 'macro-F1': 1.0}
    """
    coded, rows = _Coded.of(answers), []
    for (domain, prompts, classifier, candidates), class_set, own in questions(answers):
        part, n = coded.at(own), answers.n_candidates(candidates)
        counted = Counted.of(part.label, part.drawing)
        for measure, spread, null, null_kind in _measures(answers, part, class_set, n, seed):
            rows.append(
                {
                    "domain": domain,
                    "class_set": class_set,
                    "candidates": candidates,
                    "prompts": prompts,
                    "classifier": classifier,
                    "measure": measure,
                    **of_share(spread, null, null_kind, counted, seed=seed),
                }
            )
    return pd.DataFrame(rows)


def questions(answers: Answers) -> Iterator[tuple[tuple[str, ...], str, np.ndarray]]:
    """Split answers by question and class set.

    Args:
        answers: The answers of one model.

    Returns:
        (domain, prompts, classifier, candidates), the class set, and the numbers of the rows that
        answer for it.
    """
    held = answers.frame["label"].isin(answers.held_out).to_numpy()
    for class_set, keep in ((HELD_OUT, held), (SEEN, ~held), (ALL, held | ~held)):
        own = np.flatnonzero(keep)
        for cell, rows in rows_by(answers.frame.iloc[own], KEYS):
            if cell[-1] != HELD_OUT or class_set == HELD_OUT:
                yield cell, class_set, own[rows]


@dataclass(frozen=True)
class Counted:
    """How many classes, pictures and drawings a share was counted on."""

    n_classes: int
    n_pictures: int
    n_drawings: int

    @classmethod
    def of(cls, labels: ArrayLike, drawings: ArrayLike) -> "Counted":
        """Count pictures by the label and the drawing of each."""
        return cls(pd.Series(labels).nunique(), np.size(labels), pd.Series(drawings).nunique())


@dataclass(frozen=True)
class _Coded:
    """Answers with numbers for names, since the same names are counted for hundreds of questions.

    Labels and choices are numbered in the same order; a choice that is no label has -1.
    """

    label: np.ndarray
    chosen: np.ndarray
    shares: np.ndarray
    drawing: np.ndarray

    @classmethod
    def of(cls, answers: Answers) -> "_Coded":
        frame = answers.frame
        names, label = np.unique(frame["label"].to_numpy(dtype=str), return_inverse=True)
        chosen = frame["chosen"].to_numpy(dtype=str)
        place = np.searchsorted(names, chosen).clip(max=len(names) - 1)
        shares = np.column_stack(
            [frame["correct"], frame["rank"] <= 5, ~frame["chosen"].isin(answers.held_out)]
        )
        drawing = frame.get("drawing", frame.index).to_numpy()
        return cls(
            label, np.where(names[place] == chosen, place, -1), shares.astype(float), drawing
        )

    def at(self, rows: np.ndarray) -> "_Coded":
        return _Coded(self.label[rows], self.chosen[rows], self.shares[rows], self.drawing[rows])


def _measures(
    answers: Answers, part: _Coded, class_set: str, n: int, seed: int
) -> Iterator[tuple[str, Interval, float, str]]:
    """Measure, interval, null, and how the null was made."""
    first, fifth, taken = column_intervals(part.shares, part.label, seed=seed)
    yield TOP_1, first, 1 / n, f"chance among {n} classes"
    if n > 5:
        yield TOP_5, fifth, 5 / n, f"chance among {n} classes"
    shown, times = np.unique(part.label, return_counts=True)
    f1 = macro_f1(part.label, part.chosen, shown.tolist())
    yield MACRO_F1, f1, guessing_f1(times.tolist(), n), f"expected of guessing among {n} classes"
    if class_set == HELD_OUT and n > len(answers.held_out):
        share = 1 - len(answers.held_out) / n
        yield TAKEN, taken, share, f"share of seen classes among {n}"


def of_share(
    spread: Interval, null: float, null_kind: str, counted: Counted, *, seed: int
) -> dict[str, object]:
    """The evidence columns of a share between 0 and 1, from one model's answers.

    Args:
        spread: The share with its interval.
        null: The share expected by chance.
        null_kind: How the null was made, in words.
        counted: What it was counted on.
        seed: Seed of the interval.

    Returns:
        Columns by name.
    """
    return evidence(
        spread,
        null=null,
        null_kind=null_kind,
        ceiling=1.0,
        ceiling_kind="every picture",
        index=(spread.value - null) / (1 - null) if null < 1 else np.nan,
        unit="class",
        n_units=counted.n_classes,
        n_pictures=counted.n_pictures,
        n_drawings=counted.n_drawings,
        estimand="this model, over classes like these",
        seed=seed,
        reason="" if counted.n_classes > 1 else "one class: no interval",
    )


def accuracy_by_class(answers: Answers) -> pd.DataFrame:
    """Share of each class's pictures classified correctly.

    Args:
        answers: The answers of one model.

    Returns:
        A row per domain, class, prompts, classifier and candidates. `class_set` says whether the
        class was held out, `null` is chance. There are no intervals, which are taken over classes.
    """
    keys = ["domain", "label", "prompts", "classifier", "candidates"]
    means = answers.frame.groupby(keys, sort=True)["correct"].agg(value="mean", n_pictures="size")
    frame = means.reset_index()
    held = frame["label"].isin(answers.held_out)
    return frame.assign(
        class_set=np.where(held, HELD_OUT, SEEN),
        null=[1 / answers.n_candidates(one) for one in frame["candidates"]],
        measure=TOP_1,
    )


def by_epoch(
    checkpoints: Iterable[tuple[int, Callable[[], Answers]]],
    *,
    measure: Callable[..., pd.DataFrame] = accuracy,
    seed: int = 0,
) -> pd.DataFrame:
    """The `accuracy` table of every checkpoint of a run, with its `epoch`.

    Args:
        checkpoints: Pairs of an epoch (0: untrained) and a function that opens the checkpoint and
            returns its answers. They are called one after another, so one model is in memory at a
            time.
        measure: The function of answers and seed that makes each table.
        seed: Seed of the bootstrap; the same classes are drawn in every epoch.

    Returns:
        The tables one below the other, by epoch.

    Raises:
        SampleError: Without checkpoints.

    Notes:
        Since classes are resampled alike, curves differ by their models alone. An interval is of
        one epoch and says nothing of the step to the next.

    >>> frame = pd.DataFrame({"label": ["cat", "dog"], "domain": "real", "prompts": "neutral",
    ...     "classifier": "text", "candidates": "all", "chosen": ["cat", "cat"],
    ...     "correct": [1.0, 0.0], "rank": [1, 2], "margin": float("nan")})
    >>> answers = Answers(frame, (), 2)
    >>> by_epoch([(0, lambda: answers), (4, lambda: answers)])["epoch"].unique().tolist()
    [0, 4]
    """
    known = sorted(checkpoints, key=lambda pair: pair[0])
    if not known:
        raise SampleError(
            "draw a curve over epochs", "no checkpoint", "at least one", "keep some of the epochs"
        )
    parts = [
        measure(answer(), seed=seed).assign(epoch=epoch)
        for epoch, answer in track(known, "evaluate epochs")
    ]
    return pd.concat(parts, ignore_index=True)
