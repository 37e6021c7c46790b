"""The penalty that a training set chooses is the one a plain loop over scikit-learn's would."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from interp.probes.linear.linear_probe import STRENGTHS, TrainingSet, _strengths, fit_probes
from tests.probes.linear.reference import plain_probe


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
