"""A linear probe as a scikit-learn estimator, and fits of many at once on the same pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from interp.core.artists import artist_halves
from interp.probes.linear.solver import solve

CACHED = 2**21
"""Numbers that a processor's cache holds: larger batches of fits were slower there."""


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression on standardised features, as a scikit-learn estimator.

        minimise  C sum_i -log p(y_i | x_i) + |W|^2 / 2

    over weights W and a free intercept; x is standardised by the mean and standard deviation of the
    training rows. With two classes W is one vector, as in scikit-learn.

    Args:
        C: Inverse strength of the penalty. The default is small, since a standardised layer has
            hundreds of features of unit variance.
        tol: How far above its least the mean log loss may end, in nats.

    Attributes:
        classes_: The classes, sorted.
        coef_: Weights "class feature" in the units of the inputs; one row for two classes.
        intercept_: Intercepts "class", for inputs as they are; one for two classes.
        n_features_in_: Number of features.

    Raises:
        ValueError: For fewer than two classes, and from scikit-learn for NaN or wrong shapes, when
            fitted.
        NumericsError: Where no optimum is reached.

    Notes:
        The objective is that of `make_pipeline(StandardScaler(), LogisticRegression(C))`. It is
        solved to `tol` by the solver that fits this toolkit's grids of probes: at the default,
        probabilities lie within 1e-3 of the optimum's at C = .01 and within some 1e-2 at C = 1.
        A constant feature keeps its scale.

    >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> LinearProbe().fit(x, ["low", "low", "high", "high"]).predict([[3.0]]).tolist()
    ['high']
    """

    # untyped, because scikit-learn wants a constructor to accept everything; fit complains
    def __init__(self, C: Any = 0.01, *, tol: Any = 1e-6) -> None:
        self.C = C
        self.tol = tol

    def fit(self, X: object, y: object) -> "LinearProbe":
        """Fit to "row feature" and one label per row."""
        x, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        number = isinstance(self.C, (int, float, np.number)) and not isinstance(self.C, bool)
        if not number or not 0 < float(self.C) < np.inf:
            raise ValueError(f"C = {self.C!r}: the inverse penalty is a number above 0")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        n_classes = len(self.classes_)
        if n_classes < 2:
            raise ValueError(
                f"a probe tells classes apart: y has {n_classes} class, two are needed"
            )
        basis = Basis.of(x)
        [fitted] = fit_many([basis], [codes[None]], n_classes, C=float(self.C), tolerance=self.tol)
        plain = basis.unstandardised(fitted)
        weights, intercepts = plain.weights[0], plain.intercepts[0]
        if n_classes == 2:
            weights, intercepts = weights[1:] - weights[:1], intercepts[1:] - intercepts[:1]
        else:
            intercepts = intercepts - intercepts.mean()  # one more constant changes no probability
        self.coef_, self.intercept_ = weights, intercepts
        return self

    def decision_function(self, X: object) -> np.ndarray:
        """Scores "row class"; one per row for two classes."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = x @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: object) -> np.ndarray:
        """Probabilities "row class"."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        return softmax(scores, axis=1)

    def predict(self, X: object) -> np.ndarray:
        """The likeliest class of each row."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]


@dataclass(frozen=True)
class Basis:
    """Standardised training rows, in their own row space where that is smaller.

    The penalty forbids weights outside the span of the training rows, so n rows of any width need
    at most n coordinates. `coordinates` is "row rank"; `axes`, "feature rank", is None where the
    coordinates are the standardised features themselves.
    """

    mean: np.ndarray
    scale: np.ndarray
    coordinates: np.ndarray
    axes: np.ndarray | None

    @classmethod
    def of(cls, x: np.ndarray) -> "Basis":
        """The basis of training rows "row feature"."""
        z = np.array(x, dtype=np.float64)
        mean = z.mean(axis=0)
        z -= mean
        scale = np.sqrt(np.einsum("ij,ij->j", z, z) / len(z))
        # scikit-learn's rule: what varies by no more than rounding is constant and keeps its scale
        flat = scale <= 10 * np.finfo(np.float64).eps * np.maximum(np.abs(mean), 1e-300)
        scale[flat] = 1.0
        z *= np.where(flat, 0.0, 1 / scale)
        if len(z) >= z.shape[1]:
            return cls(mean, scale, z, None)
        axes, coordinates = np.linalg.qr(z.T)
        return cls(mean, scale, np.ascontiguousarray(coordinates.T), axes)

    @property
    def constant(self) -> bool:
        """Whether no feature varies."""
        return not self.coordinates.any()

    def project(self, x: np.ndarray) -> np.ndarray:
        """Other rows in the same coordinates."""
        return self.turn(np.asarray(x, dtype=np.float64) - self.mean)

    def turn(self, difference: np.ndarray) -> np.ndarray:
        """A difference of two rows in the same coordinates."""
        z = difference / self.scale
        return z if self.axes is None else z @ self.axes

    def unstandardised(self, fitted: "Fitted") -> "Fitted":
        """The same probes on rows as they are: cheaper than standardising many test rows.

        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> basis = Basis.of(x)
        >>> probe = Fitted(np.array([[[-1.0], [1.0]]]), np.zeros((1, 2)))
        >>> bool(np.allclose(basis.unstandardised(probe).scores(x), probe.scores(basis.project(x))))
        True
        """
        weights = fitted.weights if self.axes is None else fitted.weights @ self.axes.T
        weights = weights / self.scale
        return Fitted(weights, fitted.intercepts - weights @ self.mean)


@dataclass(frozen=True)
class Fitted:
    """Weights "labelling class rank" and intercepts "labelling class" in a basis's coordinates."""

    weights: np.ndarray
    intercepts: np.ndarray

    def __getitem__(self, labellings: slice) -> "Fitted":
        return Fitted(self.weights[labellings], self.intercepts[labellings])

    def scores(self, coordinates: np.ndarray) -> np.ndarray:
        """Scores "labelling row class"; -inf for a class that was not in the training rows."""
        labellings, classes, rank = self.weights.shape
        flat = coordinates @ self.weights.reshape(-1, rank).T  # one product, not one per labelling
        apart = flat.reshape(len(coordinates), labellings, classes).transpose(1, 0, 2)
        return apart + self.intercepts[:, None, :]


def fit_many(
    bases: Sequence[Basis],
    codes: Sequence[np.ndarray],
    n_classes: int,
    *,
    C: float | Sequence[float],
    start: Sequence[Fitted] | None = None,
    tolerance: float = 1e-6,
    device: str | torch.device = "cpu",
) -> list[Fitted]:
    """Fit the objective of `LinearProbe` on several bases, to several labellings of each.

    `interp.probes.linear.solver.solve` fits them in batches: as many bases at once as fit the
    processor's cache (`CACHED` numbers), or an accelerator's memory. `tolerance` is in nats of the
    mean log loss; `start` holds fits to begin with, such as those of a smaller C.

    Shapes: `codes`, "labelling row" per basis (classes as 0 .. n_classes - 1). Raises
    `NumericsError` where no optimum is reached.

    >>> x = Basis.of(np.array([[-2.0], [-1.0], [1.0], [2.0]]))
    >>> fitted, = fit_many([x], [np.array([[0, 0, 1, 1]])], 2, C=1.0)
    >>> fitted.scores(x.project(np.array([[3.0]]))).argmax(axis=-1).tolist()
    [[1]]
    """
    strengths = np.broadcast_to(np.asarray(C, dtype=float), (len(bases),))
    room = CACHED if torch.device(device).type == "cpu" else 256 * CACHED
    many = max(1, room // max(max(basis.coordinates.size for basis in bases), 1))
    found: list[Fitted] = []
    for first in range(0, len(bases), many):
        batch = slice(first, first + many)
        begin = None if start is None else start[batch]
        found += _fit(
            bases[batch], codes[batch], n_classes, strengths[batch], begin, tolerance, device
        )
    return found


def _fit(
    bases: Sequence[Basis],
    codes: Sequence[np.ndarray],
    n_classes: int,
    strengths: np.ndarray,
    start: Sequence[Fitted] | None,
    tolerance: float,
    device: str | torch.device,
) -> list[Fitted]:
    """One batch: bases of unlike size are padded to the largest."""
    n = max(len(basis.coordinates) for basis in bases)
    ranks = [basis.coordinates.shape[1] for basis in bases]
    inputs = _stacked([basis.coordinates for basis in bases], n, max(ranks), fill=0.0)
    labels = _stacked(codes, len(codes[0]), n, fill=-1)
    counts = torch.tensor([each.shape[1] for each in codes], dtype=torch.float64)
    begin = None
    if start is not None:
        weights = [each.weights.reshape(-1, each.weights.shape[2]) for each in start]
        slopes = _stacked(weights, len(weights[0]), max(ranks), fill=0.0)
        offsets = torch.from_numpy(np.stack([each.intercepts for each in start]))
        begin = torch.cat([slopes.reshape(*offsets.shape, max(ranks)), offsets[..., None]], -1).to(
            device
        )
    solved = solve(
        inputs.to(device),
        labels.to(device),
        n_classes,
        penalty=(1 / (torch.from_numpy(strengths.copy()) * counts)).to(device),
        start=begin,
        tolerance=tolerance,
    )
    solved = solved.cpu().numpy()
    return [
        Fitted(each[..., :rank], each[..., -1]) for each, rank in zip(solved, ranks, strict=True)
    ]


def _stacked(arrays: Sequence[np.ndarray], n: int, m: int, *, fill: float) -> Tensor:
    """Matrices, each padded to n by m, one upon another."""
    if len(arrays) == 1:  # the usual case of large bases, and no reason to copy them
        return torch.from_numpy(np.ascontiguousarray(arrays[0]))[None]
    stack = np.full((len(arrays), n, m), fill, dtype=arrays[0].dtype)
    for place, each in enumerate(arrays):
        stack[place, : each.shape[0], : each.shape[1]] = each
    return torch.from_numpy(stack)


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
    halved = [place for place, each in enumerate(sets) if (each.inner >= 0).any()]
    folds = [(place, side) for place in halved for side in (0, 1)]
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
    chosen[halved] = np.array(STRENGTHS)[loss[halved].argmin(axis=1)]
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
