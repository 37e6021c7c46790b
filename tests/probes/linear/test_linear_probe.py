"""The probe obeys scikit-learn's contract, and the fast solver finds scikit-learn's optimum."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from interp.core.errors import NumericsError
from interp.probes import LinearProbe
from interp.probes.linear import linear_probe as linear
from interp.probes.linear.linear_probe import (
    STRENGTHS,
    Basis,
    Fitted,
    TrainingSet,
    _strengths,
    fit_many,
    fit_probes,
)
from interp.probes.linear.solver import ridge, ridge_without, solve
from tests.probes.linear.reference import plain_probe


@pytest.mark.filterwarnings("ignore")  # the checks provoke warnings on purpose
@parametrize_with_checks([LinearProbe()])
def test_scikit_learns_contract(estimator, check) -> None:
    check(estimator)


def classes(
    n: int, width: int, k: int = 5, seed: int = 0, noise: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % k
    return 3 + generator.normal(size=(k, width))[y] + noise * generator.normal(size=(n, width)), y


def peer(x: np.ndarray, y: np.ndarray, C: float) -> tuple[StandardScaler, LogisticRegression]:
    scaler = StandardScaler().fit(x)
    return scaler, LogisticRegression(C=C, tol=1e-12, max_iter=20_000).fit(scaler.transform(x), y)


def objective(scores: np.ndarray, weights: np.ndarray, y: np.ndarray, C: float) -> float:
    """Mean log loss with the penalty of scikit-learn, written down plainly in float64."""
    loss = (logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]).mean()
    squares = (weights**2).sum()
    return loss + squares * (2 if len(weights) == 2 else 1) / (2 * C * len(y))


@pytest.mark.parametrize("k", [2, 5])
def test_the_default_tolerance_is_in_nats_of_the_loss(k: int) -> None:
    x, y = classes(200, 20, k)
    for C in (0.01, 1.0):
        scaler, model = peer(x, y, C)
        probe = LinearProbe(C=C).fit(x.astype(np.float32), np.array(list("abcde"))[y])
        best, ours = (
            -np.log(said.predict_proba(z)[np.arange(200), y]).mean()
            + (weights**2).sum() / (2 * C * 200)
            for said, z, weights in (
                (model, scaler.transform(x), model.coef_),
                (probe, x, probe.coef_ * scaler.scale_),
            )
        )
        assert -1e-9 < ours - best < 4e-6
        assert (
            probe.predict(x) == np.array(list("abcde"))[model.predict(scaler.transform(x))]
        ).all()


def test_coefficients_are_in_the_units_of_the_inputs() -> None:
    x, y = classes(60, 8)
    probe = LinearProbe(C=0.1).fit(x, y)
    np.testing.assert_allclose(
        x @ probe.coef_.T + probe.intercept_, probe.decision_function(x), atol=1e-10
    )
    np.testing.assert_array_equal(LinearProbe(C=0.1).fit(100 * x, y).predict(100 * x),
                                  probe.predict(x))  # fmt: skip


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("C", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize("width", [8, 200])  # fewer and more features than rows
def test_fits_are_scikit_learns_optimum(width: int, C: float, k: int) -> None:
    x, y = classes(60, width, k)
    x[:, 3] = 0.1  # a constant feature
    other = np.random.default_rng(1).permutation(y)
    new = classes(30, width, k, seed=2)[0]
    basis = Basis.of(x)
    [fitted] = fit_many([basis], [np.stack([y, other])], k, C=C, tolerance=1e-15)
    for place, labels in enumerate((y, other)):
        scaler, model = peer(x, labels, C)
        coef, weights = model.coef_, fitted.weights[place]
        weights = weights if basis.axes is None else weights @ basis.axes.T
        intercepts = fitted.intercepts[place] - fitted.intercepts[place].mean()
        if k == 2:  # scikit-learn's one row is the difference of ours
            coef = np.vstack([-coef, coef]) / 2
        np.testing.assert_allclose(weights, coef, atol=3e-6)
        np.testing.assert_allclose(weights[:, 3], 0, atol=1e-8)
        theirs = scaler.transform(new) @ coef.T
        mine = basis.project(new) @ fitted.weights[place].T
        np.testing.assert_allclose(mine, theirs, atol=3e-5)
        if k > 2:
            np.testing.assert_allclose(intercepts, model.intercept_, atol=5e-5)
        z = scaler.transform(x)
        gap = objective(fitted.scores(basis.coordinates)[place], weights, labels, C) - objective(
            z @ coef.T + fitted.intercepts[place], coef, labels, C
        )
        assert abs(gap) < 1e-10
        probe = LinearProbe(C=C, tol=1e-15).fit(x, labels)
        np.testing.assert_allclose(probe.decision_function(x), model.decision_function(z),
                                   atol=1e-4)  # fmt: skip
        np.testing.assert_allclose(probe.predict_proba(x), model.predict_proba(z), atol=1e-5)
        np.testing.assert_allclose(probe.coef_ * scaler.scale_, model.coef_, atol=1e-5)


@pytest.mark.parametrize("noise", [1.0, 2.0, 8.0])  # told apart without error, nearly, not at all
@pytest.mark.parametrize("C", [1e-3, 1e-2, 1e-1, 1.0, 10.0])
def test_tolerance_bounds_the_distance_to_the_optimum(C: float, noise: float) -> None:
    x, y = classes(300, 40, noise=noise)
    basis = Basis.of(x)

    def loss(tolerance: float) -> float:
        [fitted] = fit_many([basis], [y[None]], 5, C=C, tolerance=tolerance)
        return objective(fitted.scores(basis.coordinates)[0], fitted.weights[0], y, C)

    best = loss(1e-15)
    for tolerance in (1e-4, 1e-6, 1e-9):
        assert -1e-14 < loss(tolerance) - best < 4 * tolerance


def test_sure_probes_take_few_steps() -> None:
    """Preconditioned for equal probabilities they took 34 at C = 1 and 28 at C = 10."""
    generator = np.random.default_rng(0)
    y, spectrum = np.arange(400) % 10, np.arange(1, 151) ** -0.5
    x = 0.6 * generator.normal(size=(10, 150))[y] * spectrum**0.5
    x = (x + generator.normal(size=(400, 150)) * spectrum) @ np.linalg.qr(
        generator.normal(size=(150, 150))
    )[0]
    inputs = torch.from_numpy(Basis.of(x).coordinates)[None]
    for C in (1.0, 10.0):
        words = {"penalty": torch.tensor([1 / (C * len(y))])}
        few = solve(inputs, torch.from_numpy(y)[None, None], 10, **words, max_iter=15)
        many = solve(inputs, torch.from_numpy(y)[None, None], 10, **words, max_iter=200)
        assert torch.equal(few, many)  # it had arrived
        with pytest.raises(NumericsError):
            solve(inputs, torch.from_numpy(y)[None, None], 10, **words, max_iter=2)


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_a_warm_start_is_kept_or_ends_at_the_same_optimum(C: float) -> None:
    """From another C, another labelling and the optimum itself; several labellings at once."""
    x, y = classes(60, 8)
    basis, codes = Basis.of(x), np.stack([y, np.random.default_rng(0).permutation(y)])

    def fit(tolerance: float, start: Fitted | None = None) -> Fitted:
        begin = None if start is None else [start]
        return fit_many([basis], [codes], 5, C=C, start=begin, tolerance=tolerance)[0]

    best = fit(1e-14)
    [weak] = fit_many([basis], [codes], 5, C=1e-3)
    swapped = Fitted(best.weights[::-1], best.intercepts[::-1])
    for start in (weak, swapped, best):
        np.testing.assert_allclose(fit(1e-14, start).weights, best.weights, atol=2e-6)
    np.testing.assert_allclose(fit(1e-3, best).weights, best.weights, atol=1e-6)


def test_a_class_without_rows_is_never_said_and_changes_nothing() -> None:
    x, y = classes(60, 8)
    some = y != 2
    basis = Basis.of(x[some])
    [fitted] = fit_many([basis], [y[some][None]], 5, C=0.1, tolerance=1e-15)
    [four] = fit_many([basis], [np.unique(y[some], return_inverse=True)[1][None]], 4, C=0.1,
                      tolerance=1e-15)  # fmt: skip
    assert fitted.intercepts[0, 2] == -np.inf and (fitted.weights[0, 2] == 0).all()
    np.testing.assert_allclose(fitted.weights[0, [0, 1, 3, 4]], four.weights[0], atol=1e-7)
    assert 2 not in fitted.scores(basis.project(x))[0].argmax(axis=1)


def test_a_batch_of_unlike_bases_is_each_on_its_own(monkeypatch) -> None:
    """Padding, several penalties, and starting elsewhere do not move the optimum."""
    drawn = [classes(n, width, seed=n) for n, width in ((60, 8), (40, 90), (55, 8))]
    bases = [Basis.of(x) for x, _ in drawn]
    codes = [np.stack([y, y[::-1]]) for _, y in drawn]
    strengths = [0.01, 0.1, 1.0]
    start = fit_many(bases, codes, 5, C=1e-3)
    together = fit_many(bases, codes, 5, C=strengths, start=start, tolerance=1e-14)
    monkeypatch.setattr(linear, "CACHED", 1)
    for one, two in zip(
        together, fit_many(bases, codes, 5, C=strengths, tolerance=1e-14), strict=True
    ):
        np.testing.assert_allclose(one.weights, two.weights, atol=1e-6)
        np.testing.assert_allclose(
            one.intercepts - one.intercepts.mean(1, keepdims=True),
            two.intercepts - two.intercepts.mean(1, keepdims=True), atol=1e-6,
        )  # fmt: skip


def test_a_large_common_mean_and_few_rows_do_no_harm() -> None:
    x, y = classes(60, 30)
    x = (1000 + x).astype(np.float32)
    far, near = Basis.of(x), Basis.of(x - np.float32(1000))
    weights = [fit_many([basis], [y[None]], 5, C=0.1, tolerance=1e-14)[0].weights
               for basis in (far, near)]  # fmt: skip
    np.testing.assert_allclose(*weights, atol=1e-6)
    one_each = fit_many([Basis.of(x[:5])], [y[None, :5]], 5, C=0.1)[0]
    assert (one_each.scores(Basis.of(x[:5]).coordinates)[0].argmax(axis=1) == y[:5]).all()


def test_constant_features_say_how_often_a_class_is() -> None:
    basis = Basis.of(np.full((10, 6), 0.1))
    assert basis.constant
    [fitted] = fit_many([basis], [np.array([[0, 1, 1, 1, 1] * 2])], 2, C=1.0, tolerance=1e-12)
    scores = fitted.scores(basis.project(np.ones((3, 6))))[0]
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], np.log(4), atol=1e-4)


@pytest.mark.parametrize("noise", [0.3, 6.0])
def test_c_has_the_least_held_out_log_loss(noise: float) -> None:
    generator = np.random.default_rng(0)
    y, inner = np.arange(80) % 5, np.arange(80) // 5 % 2
    x = generator.normal(size=(5, 12))[y] + noise * generator.normal(size=(80, 12))
    loss = []
    for strength in STRENGTHS:
        probes = [
            plain_probe(C=strength).fit(x[inner == side], y[inner == side]) for side in (0, 1)
        ]
        loss.append(
            sum(
                log_loss(y[inner != side], probe.predict_proba(x[inner != side]))
                for side, probe in enumerate(probes)
            )
        )
    best = STRENGTHS[int(np.argmin(loss))]
    one = TrainingSet(np.arange(80), y, inner, np.empty((0, 80), dtype=int))
    assert _strengths(x, [one], 5).tolist() == [best]
    [probe] = fit_probes(x, [one], 5)
    plain = plain_probe(C=best).fit(x, y)
    agree = probe.fitted.scores(probe.basis.project(x))[0].argmax(axis=1) == plain.predict(x)
    assert agree.mean() > 0.98 and not probe.reason


@pytest.mark.parametrize("width", [7, 23, 60])
def test_scores_are_those_of_the_closed_form_and_of_solving_again(width: int) -> None:
    """24 pictures: both the system of pictures and that of features are taken."""
    generator = np.random.default_rng(0)
    train, test = generator.normal(size=(24, width)) + 3, generator.normal(size=(5, width))
    labels, groups = generator.normal(size=(24, 2)), generator.permutation(np.repeat([0, 1, 2], 8))
    z, new = ((part - train.mean(axis=0)) / train.std(axis=0) for part in (train, test))
    centred = labels - labels.mean(axis=0)

    def solved(kept: np.ndarray, target: np.ndarray) -> np.ndarray:
        return new @ np.linalg.solve(kept.T @ kept + width * np.eye(width), kept.T @ target)

    found = ridge(train, test, labels)
    np.testing.assert_allclose(found, solved(z, centred), atol=1e-11)
    assert np.abs(found).max() > 0.1
    left = ridge_without(train, test, labels[:, 0], groups)
    for group in range(3):
        kept = groups != group
        np.testing.assert_allclose(left[:, group], solved(z[kept], centred[kept, 0]), atol=1e-11)
    assert np.abs(left - found[:, :1]).max() > 1e-3  # leaving rows out does change scores
