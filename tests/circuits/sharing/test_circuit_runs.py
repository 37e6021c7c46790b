"""What circuits do, half by half of the artists."""

import numpy as np
import pytest

from interp.circuits.sharing.circuit_runs import CircuitRuns


def test_halves_are_shares_of_their_own_gap_beyond_the_null() -> None:
    """By hand: two classes of two pictures, one by each half; the mean of two sizes."""
    own = np.array([[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 1.0, 0.0]])  # means 2, 2, 2, 2
    other = np.array([[[0.0, 1.0]] * 4, [[1.0, 0.0]] * 4])  # mean .5
    runs = CircuitRuns(
        work={"own": own, "other": other, "ceiling": own, "readout": own / 2},
        gap=np.array([4.0, 8.0, 2.0, 8.0]),
        labels=np.array([0, 0, 1, 1]),
        corrupt=np.array([1, 1, 0, 0]),
        others=np.array([[1, 1], [1, 1], [0, 0], [0, 0]]),
        matched=np.ones(2),
        common=np.ones(2),
        sizes=np.ones(2),
        half=np.array([0, 1, 0, 1]),
    )
    both = np.array([0, 1])
    assert runs.by_half(both, "other") == pytest.approx([1.5 / 3, 1.5 / 8])
    assert runs.by_half(both, "readout") == pytest.approx([1 / 3, 1 / 8])
    assert runs.by_half(np.array([0]), "other") == pytest.approx([1.5 / 3, 2.5 / 8])
    silent = CircuitRuns(**{**vars(runs), "gap": np.zeros(4), "known": {}})
    assert np.isnan(silent.by_half(both, "other")).all()
