"""Probe grids against scikit-learn at an equal gap."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

LAYERS, DOMAINS, CLASSES, PICTURES, WIDTH = 13, 6, 20, 2000, 768
LABELS = np.arange(PICTURES) % CLASSES

Domain = tuple[np.ndarray, np.ndarray]
"""Training and test rows of a domain, "picture feature"."""


Probes = list[tuple[np.ndarray, np.ndarray]]
"""Weights "class feature" and intercepts in units of the inputs, per train domain."""


TOLERANCES = ((1.0, 4e-6, 2e-7), (0.01, 1e-4, 3e-6))
"""C, and the tolerances of scikit-learn and of ours that end about as far from the optimum."""


def probe_grid(layers: int = LAYERS) -> None:
    """13 layers x 6 train domains x 6 test domains, one thread each, layer by layer in turn.

    Both arms standardise, fit and test. Tolerances are chosen so that the worst gap to the optimum
    (found in float64 at 1e-10) is about the same, and small enough that accuracy is within .25
    points of the optimum's. `layers` runs fewer of them, spread from the first to the last. Steps
    are gradients taken per probe: each passes the training rows twice, and unlike seconds it does
    not depend on what else the processor does; what our solver does beforehand costs as much as 7.
    """
    import torch

    torch.set_num_threads(1)
    chosen = np.unique(np.linspace(0, LAYERS - 1, layers).round().astype(int))
    for strength, theirs, ours in TOLERANCES:
        arms: dict[str, Callable[[list[Domain]], tuple[Probes, float]]] = {
            "ours": lambda d, c=strength, t=ours: _ours(d, c, t),
            "scikit-learn": lambda d, c=strength, t=theirs: _loop(d, c, t, np.float64),
            "scikit-learn, float32": lambda d, c=strength, t=theirs: _loop(d, c, t, np.float32),
        }
        rows = []
        for layer in chosen.tolist():
            domains = list(_domains(layer))
            best, _ = _ours(domains, strength, 1e-10)
            for name, fit in arms.items():
                start = time.process_time()  # the clock's seconds, but for other processes
                found, steps = fit(domains)
                seconds = time.process_time() - start
                gap, points = _apart(domains, found, best, strength)
                rows.append((layer, name, seconds, steps, gap, points))
        _print_arms(strength, pd.DataFrame(rows, columns=["layer", "arm", *MEASURED]))


def one_probe(rounds: int = 5) -> None:
    """`LinearProbe` against scikit-learn's pipeline in float32, both at their defaults.

    The gap is how far each ends above the least penalised log loss, in nats.
    """
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from interp.probes import LinearProbe

    torch.set_num_threads(1)
    for strength in (0.01, 1.0):
        theirs = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        arms = {"ours": LinearProbe(C=strength), "scikit-learn, float32": theirs}
        ratios, gaps = [], dict.fromkeys(arms, 0.0)
        for layer in (0, 6, 12):
            x, _ = next(_domains(layer))
            best = _penalised(LinearProbe(C=strength, tol=1e-12).fit(x, LABELS), x, strength)
            for _ in range(rounds):
                seconds = []
                for name, arm in arms.items():
                    start = time.process_time()
                    arm.fit(x, LABELS)
                    seconds.append(time.process_time() - start)
                    gaps[name] = max(gaps[name], _penalised(arm, x, strength) - best)
                ratios.append(seconds[0] / seconds[1])
        print(
            f"one probe: C = {strength:g}: {statistics.median(ratios):.2f} of scikit-learn's "
            f"seconds ({min(ratios):.2f}-{max(ratios):.2f}; median of {len(ratios)}, bar 1); gaps "
            + ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items()),
            flush=True,
        )


def _penalised(probe: Any, x: np.ndarray, strength: float) -> float:
    """The objective of both, per picture."""
    model = probe if hasattr(probe, "coef_") else probe[-1]
    weights = model.coef_ * x.std(axis=0, dtype=np.float64) if model is probe else model.coef_
    chances = probe.predict_proba(x)[np.arange(len(LABELS)), LABELS]
    return float(-np.log(chances).mean() + (weights**2).sum() / (2 * strength * len(LABELS)))


MEASURED = ["seconds", "steps", "gap", "points"]


def _print_arms(strength: float, frame: pd.DataFrame) -> None:
    """A line per arm: seconds as a ratio to ours, layer by layer, and how far from the optimum."""
    ours = frame[frame["arm"] == "ours"].set_index("layer")
    for name, arm in frame.groupby("arm", sort=False):
        ratio = arm.set_index("layer")["seconds"] / ours["seconds"]
        gap, points = arm["gap"], arm["points"]
        print(
            f"probes: C = {strength:g}: {name}: {arm['seconds'].sum():.1f} s, "
            f"{ratio.median():.1f}x ours ({ratio.min():.1f}-{ratio.max():.1f}; median of "
            f"{len(arm)} layers, bar 3x); "
            f"{arm['steps'].mean():.0f} steps a probe; gap at most {gap.max():.1e}, median "
            f"{gap.median():.1e}; accuracy off by {points.max():.2f} points at most, median "
            f"{points.median():.2f}",
            flush=True,
        )


def _domains(layer: int) -> Iterator[Domain]:
    """Classes in directions that domains share in part, under noise whose spectrum falls as 1/i."""
    generator = np.random.default_rng(layer)
    spectrum = np.arange(1, WIDTH + 1) ** -0.5
    spectrum /= np.sqrt((spectrum**2).mean())
    turn = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))[0]
    shared, signal = generator.normal(size=(CLASSES, WIDTH)), 0.2 + 0.05 * layer
    for _ in range(DOMAINS):
        own = 0.8 * shared + 0.6 * generator.normal(size=shared.shape)
        means, offset = signal * own * spectrum**0.5, generator.normal(size=WIDTH)
        rows = [
            (means[LABELS] + 3 * generator.normal(size=(PICTURES, WIDTH)) * spectrum) @ turn
            + offset
            for _ in ("train", "test")
        ]
        yield rows[0].astype(np.float32), rows[1].astype(np.float32)


def _ours(domains: list[Domain], strength: float, tolerance: float) -> tuple[Probes, float]:
    """All train domains' probes, tested together, and how many gradients each of them took."""
    from interp.probes.linear.linear_probe import Basis, Fitted, fit_many
    from interp.probes.linear.solver import _Problem

    bases = [Basis.of(train) for train, _ in domains]
    codes = [LABELS[None]] * len(bases)
    with mock.patch.object(_Problem, "gradient", autospec=True, side_effect=_Problem.gradient) as g:
        fitted = fit_many(bases, codes, CLASSES, C=strength, tolerance=tolerance)
    found = [basis.unstandardised(probe) for basis, probe in zip(bases, fitted, strict=True)]
    together = Fitted(
        np.concatenate([probe.weights for probe in found]),
        np.concatenate([probe.intercepts for probe in found]),
    )
    for _, test in domains:
        together.scores(test).argmax(axis=-1)
    probes = [(probe.weights[0], probe.intercepts[0]) for probe in found]
    return probes, g.call_count / len(domains)


def _loop(
    domains: list[Domain], strength: float, tolerance: float, dtype: type
) -> tuple[Probes, float]:
    """scikit-learn, one probe after another, and how many gradients each of them took at least."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    found, steps = [], []
    for train, _ in domains:
        rows = train.astype(dtype)
        scaler = StandardScaler().fit(rows)
        model = LogisticRegression(C=strength, tol=tolerance, max_iter=5000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps that float32 cannot take
            model.fit(scaler.transform(rows), LABELS)
        steps.append(1 + float(np.max(model.n_iter_)))
        weights = model.coef_ / scaler.scale_
        intercepts = model.intercept_ - weights @ scaler.mean_
        for _, test in domains:
            (test @ weights.T + intercepts).argmax(axis=1)
        found.append((weights, intercepts))
    return found, statistics.mean(steps)


def _apart(
    domains: list[Domain], found: Probes, best: Probes, strength: float
) -> tuple[float, float]:
    """The worst objective gap of the train domains, and points of accuracy off in any test."""
    gaps, points = [], []
    for (train, _), probe, optimum in zip(domains, found, best, strict=True):
        losses = [_objective(train, *each, strength) for each in (probe, optimum)]
        gaps.append(losses[0] - losses[1])
        for _, test in domains:
            right = [(test @ w.T + b).argmax(axis=1) == LABELS for w, b in (probe, optimum)]
            points.append(100 * abs(float(right[0].mean() - right[1].mean())))
    return max(gaps), max(points)


def _objective(
    rows: np.ndarray, weights: np.ndarray, intercepts: np.ndarray, strength: float
) -> float:
    scores = rows.astype(float) @ weights.T + intercepts
    scores -= scores.max(axis=1, keepdims=True)
    loss = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(rows)), LABELS]
    standardised = weights * rows.astype(float).std(axis=0)
    return float(loss.mean() + (standardised**2).sum() / (2 * strength * len(rows)))
