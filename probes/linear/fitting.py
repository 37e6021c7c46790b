"""Fitting of class probes of one site: several training sets at once, with permuted labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from interp.core.artists import artist_halves
from interp.probes.linear.linear_probe import Basis, Fitted, fit_many

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Values of C that are tried; the training set alone chooses."""

LEAST_CLASSES = 4


@dataclass(frozen=True)
class TrainingSet:
    """Pictures to train on: their places in the table, and their labels as 0 .. n_classes - 1.

    inner: halves 0 and 1 in which C is chosen, -1 for pictures that take no part. permuted: the
    labels of other probes, fitted with the same C, "labelling row".
    """

    rows: np.ndarray
    labels: np.ndarray
    inner: np.ndarray
    permuted: np.ndarray


@dataclass(frozen=True)
class Probe:
    """A fitted probe, those of its permuted labels, and what was amiss with its training set."""

    basis: Basis
    fitted: Fitted
    null: Fitted
    reason: str


def fit_probes(values: np.ndarray, sets: Sequence[TrainingSet], n_classes: int) -> list[Probe]:
    """A probe of every training set, its C the one of `STRENGTHS` with least held-out log loss.

    `values` is "picture feature". Without inner halves C is the middle one, and a reason says so.

    >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> one = TrainingSet(np.arange(4), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]),
    ...                   np.empty((0, 4), dtype=int))
    >>> fit_probes(x, [one], 2)[0].fitted.scores(x).argmax(axis=2).tolist()
    [[0, 0, 1, 1]]
    """
    strengths = _strengths(values, sets, n_classes)
    bases = [Basis.of(values[each.rows]) for each in sets]
    labels = [np.vstack([each.labels, each.permuted]) for each in sets]
    found = fit_many(bases, labels, n_classes, C=strengths.tolist())
    return [
        Probe(basis, fitted[:1], fitted[1:], _reason(each, basis, strength))
        for each, basis, fitted, strength in zip(sets, bases, found, strengths, strict=True)
    ]


def _reason(each: TrainingSet, basis: Basis, strength: float) -> str:
    if basis.constant:
        return "constant features"
    if (each.inner < 0).all():
        return f"C = {strength:g} not chosen: one training picture per class"
    return ""


def _strengths(values: np.ndarray, sets: Sequence[TrainingSet], n_classes: int) -> np.ndarray:
    """Per training set the C with the least held-out log loss over its inner halves."""
    folds = [
        (place, side)
        for place, each in enumerate(sets)
        for side in (0, 1)
        if (each.inner >= 0).any()
    ]
    chosen = np.full(len(sets), STRENGTHS[len(STRENGTHS) // 2])
    if not folds:
        return chosen
    fit = [np.flatnonzero(sets[place].inner == side) for place, side in folds]
    check = [np.flatnonzero(sets[place].inner == 1 - side) for place, side in folds]
    bases = [Basis.of(values[sets[p].rows[at]]) for (p, _), at in zip(folds, fit, strict=True)]
    loss = np.zeros((len(sets), len(STRENGTHS)))
    found: list[Fitted] | None = None
    for strength, tried in enumerate(STRENGTHS):  # each starts where the stronger one ended
        found = fit_many(
            bases,
            [sets[p].labels[at][None] for (p, _), at in zip(folds, fit, strict=True)],
            n_classes,
            C=tried,
            start=found,
            tolerance=1e-4,
        )
        for (place, _), basis, fitted, at in zip(folds, bases, found, check, strict=True):
            scores = fitted.scores(basis.project(values[sets[place].rows[at]]))[0]
            own = scores[np.arange(len(at)), sets[place].labels[at]]
            loss[place, strength] += (logsumexp(scores, axis=1) - own).mean()
    tried = sorted({place for place, _ in folds})
    chosen[tried] = np.array(STRENGTHS)[loss[tried].argmin(axis=1)]
    return chosen


def inner_halves(frame: pd.DataFrame, rows: np.ndarray, domain: str, seed: int) -> np.ndarray:
    """Halves of a training half, by artists; by pictures where a class has one artist left.

    All -1 where too few classes have two pictures to choose C with.
    """
    part = frame.iloc[rows].reset_index(drop=True)
    for known in (part, part.drop(columns=["artist", "drawing"], errors="ignore")):
        inner = artist_halves(known, [domain], seed=seed, split=1)
        if len(set(part["label"][inner >= 0])) >= LEAST_CLASSES:
            return inner
    return np.full(len(rows), -1, dtype=np.int8)


def permuted_groups(
    labels: np.ndarray, who: np.ndarray, n: int, generator: np.random.Generator
) -> np.ndarray:
    """Labels permuted over whole label x artist groups, `n` times: a group stays one group.

    >>> [drawn] = permuted_groups(np.array([0, 0, 1, 1]), np.array(list("aabb")), 1,
    ...                           np.random.default_rng(0))
    >>> bool(drawn[0] == drawn[1] != drawn[2])
    True
    """
    place, groups = pd.factorize(pd.MultiIndex.from_arrays([labels, who]), sort=True)
    of_group = np.array([group[0] for group in groups], dtype=int)
    return np.stack([generator.permutation(of_group)[place] for _ in range(n)])


def confusion(scores: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of each class's pictures taken for each of `classes`: "labelling class class".

    >>> confusion(np.array([[[1.0, 0.0], [1.0, 0.0]]]), np.arange(2), np.array([0, 1])).tolist()
    [[[1.0, 0.0], [1.0, 0.0]]]
    """
    asked = np.isin(labels, classes)
    truth = np.searchsorted(classes, labels[asked])
    said = scores[:, asked][:, :, classes].argmax(axis=2)
    k = len(classes)
    counts = np.stack(
        [np.bincount(truth * k + one, minlength=k * k).reshape(k, k) for one in said]
    ).astype(float)
    return counts / counts.sum(axis=2, keepdims=True)


def right(confused: np.ndarray) -> np.ndarray:
    """Accuracy per class, averaged over labellings."""
    return np.diagonal(confused, axis1=1, axis2=2).mean(axis=0)
