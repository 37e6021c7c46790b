"""The trade-off of seen against held-out accuracy under a bias against seen classes.

Calibrated stacking (Chao et al. 2016) subtracts a bias from the logits of seen classes. Sweeping it
from minus to plus infinity moves a model from never choosing a held-out class to choosing nothing
else. The area under the curve (AUSUC) compares models without the bias that training gave them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from interp.core.errors import SampleError
from interp.core.faces.doors import door
from interp.core.statistics.resampling import group_means, two_sample_interval, two_way_interval
from interp.models.evaluation.accuracy import KEYS, Counted, of_share
from interp.models.evaluation.ask import ALL, Answers

AREA, HARMONIC = "AUSUC", "harmonic mean of seen and held-out"


@dataclass(frozen=True)
class Curve:
    """Balanced accuracy of seen and of held-out classes for each bias, from -inf to +inf.

    Args:
        bias: The biases at which some answer changes, increasing.
        seen: Balanced accuracy of seen classes at each.
        held_out: Balanced accuracy of held-out classes at each.

    Notes:
        The curve is exact: point k holds for every bias in [bias_k, bias_{k+1}).
    """

    bias: np.ndarray
    seen: np.ndarray
    held_out: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve of seen against held-out accuracy, 0 to 1, by trapezoids.

        Between neighbours only one of the two accuracies changes, unless margins are tied exactly.
        """
        step = np.diff(self.held_out)
        return float((step * (self.seen[1:] + self.seen[:-1]) / 2).sum())

    def thinned(self, most: int = 101) -> "Curve":
        """At most so many points, spread evenly along the curve's length, both ends kept."""
        length = np.concatenate(
            [[0.0], np.cumsum(np.abs(np.diff(self.seen)) + np.abs(np.diff(self.held_out)))]
        )
        marks = np.linspace(0, length[-1], most)
        keep = np.unique([0, *np.searchsorted(length, marks), len(length) - 1])
        return Curve(self.bias[keep], self.seen[keep], self.held_out[keep])


def curve(part: pd.DataFrame, held_out: Sequence[str]) -> Curve:
    """The exact trade-off curve of one question's answers.

    Args:
        part: Columns `label`, `margin`, `best_of_kind`, a row per picture.
        held_out: The held-out classes.

    Returns:
        The curve.

    Raises:
        SampleError: Unless there are pictures of both kinds of classes.

    Notes:
        A picture of a seen class is right while its class is the best of the seen ones and the bias
        is below the margin (best seen minus best held-out logit). One of a held-out class is right
        from the margin on. So the breakpoints are the margins.

    >>> part = pd.DataFrame({"label": ["cat", "owl"], "margin": [2.0, 1.0], "best_of_kind": 1.0})
    >>> found = curve(part, ["owl"])
    >>> found.bias.tolist(), found.seen.tolist(), found.held_out.tolist(), found.area
    ([-inf, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], 1.0)
    """
    seen, unseen = _kinds(part, held_out)
    bias = np.unique(np.concatenate([[-np.inf], seen.margin, unseen.margin]))
    lost = seen.right_up_to(bias)
    return Curve(bias, seen.right_up_to(np.array([np.inf])) - lost, unseen.right_up_to(bias))


@dataclass(frozen=True)
class _Kind:
    """Margins of the pictures of seen or of held-out classes, and their classes."""

    margin: np.ndarray
    right: np.ndarray
    label: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        _, class_of, count = np.unique(self.label, return_inverse=True, return_counts=True)
        return 1 / (count[class_of] * len(count))

    def right_up_to(self, bias: np.ndarray) -> np.ndarray:
        """Balanced accuracy when only pictures with a margin of at most `bias` count as right."""
        order = np.argsort(self.margin, kind="stable")
        total = np.concatenate([[0.0], np.cumsum((self.weight * self.right)[order])])
        return total[np.searchsorted(self.margin[order], bias, side="right")]


def _kinds(part: pd.DataFrame, held_out: Sequence[str]) -> tuple[_Kind, _Kind]:
    withheld = part["label"].isin(list(held_out)).to_numpy()
    if withheld.all() or not withheld.any():
        given = f"{len(part)} pictures all of {'held-out' if withheld.all() else 'seen'} classes"
        do = "evaluate on both kinds of classes, in one domain"
        raise SampleError("trade seen for held-out accuracy", given, "pictures of both", do)
    kinds = [
        _Kind(
            part["margin"].to_numpy(dtype=float)[keep],
            part["best_of_kind"].to_numpy(dtype=float)[keep],
            part["label"].to_numpy(dtype=str)[keep],
        )
        for keep in (~withheld, withheld)
    ]
    return kinds[0], kinds[1]


def area_by_class(part: pd.DataFrame, held_out: Sequence[str]) -> np.ndarray:
    """AUSUC by pairs of a seen and a held-out class, whose mean over all pairs is the area.

    Args:
        part: Columns `label`, `margin`, `best_of_kind`, a row per picture.
        held_out: The held-out classes.

    Returns:
        Probabilities `seen_class held_out_class`.

    Notes:
        An entry is the probability that a picture of each class is right under the same bias: both
        are best of their kind, and the seen picture's margin is above the held-out one's (half
        where they are equal). This is a Mann-Whitney statistic, as for any area under such a curve.
        Whole classes are resampled in this table.
    """
    seen, unseen = _kinds(part, held_out)
    _, seen_class = np.unique(seen.label, return_inverse=True)
    n_seen = np.bincount(seen_class)
    columns = []
    for label in np.unique(unseen.label):
        own = unseen.label == label
        low = unseen.margin[own][None, :]
        above = (seen.margin[:, None] > low) + 0.5 * (seen.margin[:, None] == low)
        both = seen.right * (above @ unseen.right[own]) / own.sum()
        columns.append(np.bincount(seen_class, weights=both) / n_seen)
    return np.column_stack(columns)


def harmonic_mean(seen: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Harmonic mean 2 s h / (s + h), 0 where both are 0.

    Args:
        seen: Accuracies of seen classes.
        held_out: Accuracies of held-out classes.

    Returns:
        The means.

    >>> harmonic_mean(np.array([0.5, 0.0]), np.array([0.25, 0.0])).round(3).tolist()
    [0.333, 0.0]
    """
    total = np.asarray(seen + held_out, dtype=float)
    return np.divide(2 * seen * held_out, total, out=np.zeros_like(total), where=total > 0)


@door
def tradeoff(answers: Answers, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The seen/held-out trade-off in every domain: its summary and the points of its curves.

    Args:
        answers: The answers of one model.
        seed: Seed of the bootstrap.

    Returns:
        Summary rows in the form of `accuracy`, and points with `bias` (in logits), `accuracy_seen`
        and `accuracy_held_out`, at most 101 per curve. Both are empty where no class was held out.

    Notes:
        *AUSUC* has an interval by resampling seen and held-out classes each on their own and the
        null 1 / (2 n_seen n_held_out), which independent random logits reach. The *harmonic mean*
        of the two accuracies without a bias has the null 1 / n (Chao et al. 2016, "An empirical
        study and analysis of generalized zero-shot learning for object recognition in the wild").

    >>> import torch
    >>> from interp.models.evaluation.ask import Question
    >>> pictures = pd.DataFrame({"label": ["cat", "owl"], "domain": "real"})
    >>> answers = Question(("cat", "owl"), ("owl",)).answers(pictures, 3 * torch.eye(2))
    >>> summary, points = tradeoff(answers)
    >>> summary.set_index("measure")["value"].to_dict()
    {'AUSUC': 1.0, 'harmonic mean of seen and held-out': 1.0}
    """
    summary, points = [], []
    among_all = answers.frame[answers.frame["candidates"] == ALL].dropna(subset=["margin"])
    for cell, part in among_all.groupby(KEYS, sort=False):
        withheld = part["label"].isin(answers.held_out)
        if withheld.nunique() < 2:
            continue
        named = dict(zip(KEYS, cell, strict=True))
        n_held, n = len(answers.held_out), answers.n_classes
        cells = area_by_class(part, answers.held_out)
        few = min(cells.shape) < 2
        seen, held = (
            group_means(part["correct"][keep], part["label"][keep])
            for keep in (~withheld, withheld)
        )
        spread = two_sample_interval(seen, held, harmonic_mean, seed=seed)
        area = two_way_interval(cells if not few else cells.mean(keepdims=True), seed=seed)
        guess = 1 / (2 * n_held * (n - n_held))
        counted = Counted.of(part["label"], part.get("drawing", part.index))
        for measure, interval, null, kind in (
            (AREA, area, guess, f"random logits, {n - n_held} seen and {n_held} held-out classes"),
            (HARMONIC, spread, 1 / n, f"of chance accuracies among {n} classes"),
        ):
            row = of_share(interval, null, kind, counted, seed=seed)
            row |= {"reason": "one class of a kind: no interval"} if few else {}
            summary.append({**named, "class_set": ALL, "measure": measure, **row})
        thin = curve(part, answers.held_out).thinned()
        points.append(
            pd.DataFrame(
                {
                    **named,
                    "bias": thin.bias,
                    "accuracy_seen": thin.seen,
                    "accuracy_held_out": thin.held_out,
                    "n_units": counted.n_classes,
                    "n_pictures": counted.n_pictures,
                }
            )
        )
    return pd.DataFrame(summary), pd.concat(points, ignore_index=True) if points else pd.DataFrame()
