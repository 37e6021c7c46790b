"""What a straight line can read: a linear probe, alone or many at once on the same pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression on standardised features, as a scikit-learn estimator.

    minimises  C sum_i -log p(y_i | x_i) + |W|^2 / 2  over weights W and a free intercept, with x
    standardised by the mean and deviation of the training rows (a constant feature is left as it
    is). scikit-learn's `LogisticRegression` does the fitting.

    Parameters: `C`, the inverse strength of the penalty (a standardised layer has hundreds of
    features of unit variance, so the default is small); `max_iter` and `tol`, when to stop.

    Fitted attributes: `classes_`; `coef_` "class feature" and `intercept_` in the units of the
    inputs (one row for two classes, as in scikit-learn); `n_features_in_`, `n_iter_`.

    Raises scikit-learn's own `ValueError` for fewer than two classes, NaN or wrong shapes.

    >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> LinearProbe().fit(x, ["low", "low", "high", "high"]).predict([[3.0]]).tolist()
    ['high']
    """

    # Any, because scikit-learn's contract is that a constructor accepts everything; fit complains
    def __init__(self, C: Any = 0.01, *, max_iter: Any = 1000, tol: Any = 1e-6) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> "LinearProbe":
        """Fit to "row feature" and one label per row."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.scaler_ = StandardScaler().fit(X)
        self.model_ = LogisticRegression(C=self.C, max_iter=self.max_iter, tol=self.tol)
        self.model_.fit(self.scaler_.transform(X), y)
        self.classes_ = self.model_.classes_
        self.n_iter_ = int(np.max(self.model_.n_iter_))
        self.coef_ = self.model_.coef_ / self.scaler_.scale_
        self.intercept_ = self.model_.intercept_ - self.coef_ @ self.scaler_.mean_
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores "row class"; one per row for two classes."""
        x = self._standardised(X)
        return np.asarray(self.model_.decision_function(x))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities "row class"."""
        x = self._standardised(X)
        return np.asarray(self.model_.predict_proba(x))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row."""
        x = self._standardised(X)
        return np.asarray(self.model_.predict(x))

    def _standardised(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(self.scaler_.transform(x))


@dataclass(frozen=True)
class Basis:
    """Standardised training rows in their own row space, where fitting is cheap and exact.

    The penalty forbids weights outside the span of the training rows, so n rows of any width need
    at most n - 1 coordinates. `coordinates` is "row rank", `axes` "feature rank".
    """

    mean: np.ndarray
    scale: np.ndarray
    coordinates: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "Basis":
        """The basis of training rows "row feature"."""
        rows = np.asarray(x, dtype=np.float64)
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        # scikit-learn's rule: what varies by no more than rounding is constant and keeps its scale
        scale[scale <= 10 * np.finfo(np.float64).eps * np.maximum(np.abs(mean), 1e-300)] = 1.0
        z = (rows - mean) / scale
        small = z @ z.T if len(z) <= z.shape[1] else z.T @ z
        squares, vectors = np.linalg.eigh(small)
        # a feature that varies adds n to the sum of squares, a constant one only rounding
        keep = squares > max(1e-10 * squares[-1], 1e-12 * len(z))
        lengths, vectors = np.sqrt(squares[keep]), vectors[:, keep]
        axes = z.T @ vectors / lengths if len(z) <= z.shape[1] else vectors
        return cls(mean, scale, z @ axes, axes)

    def project(self, x: np.ndarray) -> np.ndarray:
        """Other rows in the same coordinates."""
        return ((np.asarray(x, dtype=np.float64) - self.mean) / self.scale) @ self.axes


@dataclass(frozen=True)
class Fitted:
    """Weights "problem class rank" and intercepts "problem class" in a basis's coordinates."""

    weights: np.ndarray
    intercepts: np.ndarray

    def scores(self, coordinates: np.ndarray) -> np.ndarray:
        """Scores "problem row class"."""
        return coordinates @ self.weights.transpose(0, 2, 1) + self.intercepts[:, None, :]


def fit_many(
    coordinates: np.ndarray,
    codes: np.ndarray,
    n_classes: int,
    *,
    C: float,
    start: Fitted | None = None,
    tolerance: float = 1e-5,
    max_iter: int = 300,
) -> Fitted:
    """Fit the objective of `LinearProbe` to several labellings of the same rows.

    L-BFGS on  mean_i -log p(y_i | x_i) + |W|^2 / (2 C n),  in coordinates scaled by the curvature
    that the objective has at equal probabilities (about 15 steps where unscaled ones need
    hundreds). `tolerance` bounds every component of that gradient. One joint problem of all
    labellings was slower than one after another: it outgrows the cache.

    Shapes: `coordinates` "row rank", `codes` "problem row" (classes as 0 .. n_classes - 1).

    >>> x = Basis.of(np.array([[-2.0], [-1.0], [1.0], [2.0]]))
    >>> fitted = fit_many(x.coordinates, np.array([[0, 0, 1, 1]]), 2, C=1.0)
    >>> fitted.scores(x.project(np.array([[3.0]]))).argmax(axis=-1).tolist()
    [[1]]
    """
    n, rank = coordinates.shape
    penalty = np.append(np.full(rank, 1 / (C * n)), 0.0)
    inputs = np.hstack([coordinates, np.ones((n, 1))])
    unit = 1 / np.sqrt((inputs**2).sum(axis=0) / (n * n_classes) + penalty)
    inputs, penalty = inputs * unit, penalty * unit**2
    found = np.empty((len(codes), n_classes, rank + 1))
    for place, labels in enumerate(codes):
        begin = np.zeros((n_classes, rank + 1))
        if start is not None:
            begin = np.column_stack([start.weights[place], start.intercepts[place]]) / unit
        solved = minimize(
            _objective,
            begin.ravel(),
            args=(inputs, labels, penalty),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iter, "gtol": tolerance, "ftol": 0.0},
        )
        found[place] = solved.x.reshape(n_classes, rank + 1) * unit
    return Fitted(found[:, :, :-1], found[:, :, -1])


def _objective(
    flat: np.ndarray, inputs: np.ndarray, labels: np.ndarray, penalty: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean log loss with penalty, and its gradient."""
    n, width = inputs.shape
    w = flat.reshape(-1, width)
    scores = inputs @ w.T
    scores -= scores.max(axis=1, keepdims=True)
    row = np.arange(n)
    own = scores[row, labels]
    residual = np.exp(scores)
    total = residual.sum(axis=1)
    residual /= total[:, None]
    residual[row, labels] -= 1
    shrunk = penalty * w
    value = (np.log(total) - own).mean() + 0.5 * (shrunk * w).sum()
    return float(value), (residual.T @ inputs / n + shrunk).ravel()
