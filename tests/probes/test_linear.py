"""The probe obeys scikit-learn's contract, and the fast solver finds scikit-learn's optimum."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from interp.probes import LinearProbe
from interp.probes.linear import Basis, fit_many


@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings on purpose
@parametrize_with_checks([LinearProbe()])
def test_scikit_learns_contract(estimator, check) -> None:
    check(estimator)


def classes(n: int, width: int, k: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    y = np.arange(n) % k
    return 3 + stream.normal(size=(k, width))[y] + 2 * stream.normal(size=(n, width)), y


def test_coefficients_are_in_the_units_of_the_inputs() -> None:
    x, y = classes(60, 8)
    probe = LinearProbe(C=0.1).fit(x, y)
    np.testing.assert_allclose(
        x @ probe.coef_.T + probe.intercept_, probe.decision_function(x), atol=1e-10
    )
    np.testing.assert_array_equal(LinearProbe(C=0.1).fit(100 * x, y).predict(100 * x),
                                  probe.predict(x))  # fmt: skip


@pytest.mark.parametrize("C", [1e-3, 1e-1])
@pytest.mark.parametrize("width", [8, 200])  # fewer and more features than rows
def test_many_fits_are_scikit_learns_optimum(width: int, C: float) -> None:
    x, y = classes(60, width)
    x[:, 3] = 0.1  # a constant feature
    other = np.random.default_rng(1).permutation(y)
    new = classes(30, width, seed=2)[0]
    basis = Basis.of(x)
    scores = fit_many(
        basis.coordinates, np.stack([y, other]), 5, C=C, tolerance=1e-9
    ).scores(basis.project(new))  # fmt: skip
    scaler = StandardScaler().fit(x)
    for mine, labels in zip(scores, (y, other), strict=True):
        peer = LogisticRegression(C=C, tol=1e-12, max_iter=10_000)
        peer.fit(scaler.transform(x), labels)
        theirs = peer.decision_function(scaler.transform(new))
        np.testing.assert_allclose(mine - mine.mean(axis=1, keepdims=True), theirs, atol=1e-5)
        probe = LinearProbe(C=C).fit(x, labels)
        np.testing.assert_allclose(probe.decision_function(new), theirs, atol=1e-3)


def test_constant_features_leave_no_coordinates() -> None:
    basis = Basis.of(np.full((10, 6), 0.1))
    assert basis.coordinates.shape == (10, 0)
    fitted = fit_many(basis.coordinates, (np.arange(10) % 2)[None], 2, C=1.0)
    np.testing.assert_allclose(fitted.scores(basis.project(np.ones((3, 6)))), 0, atol=1e-4)
