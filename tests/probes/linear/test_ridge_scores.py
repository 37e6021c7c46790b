"""Ridge scores: by closed form, with more pictures than features and with fewer."""

import numpy as np
import pytest

from interp.probes.linear.solver import ridge, ridge_without


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
