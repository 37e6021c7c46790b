"""Corruptions: one contract for all, and each against a second way to compute it."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from interp.circuits import CORRUPTIONS
from interp.circuits.tasks.pairs import blur, gaussian_noise, mean_image
from interp.core.errors import ShapeError, SpecificationError
from tests.refusals import refuses


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(4, 3, 24, 20, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_contract(name: str, pictures: Tensor) -> None:
    """Pure, repeatable, nothing at strength 0, something at its default; refuses what is wrong."""
    corrupt, before = CORRUPTIONS[name], pictures.clone()
    found = corrupt(pictures, seed=3)
    assert torch.equal(pictures, before)
    assert found.shape == pictures.shape and found.dtype == pictures.dtype
    assert torch.equal(found, corrupt(pictures, seed=3))
    assert not torch.isclose(found, pictures).all(dim=(1, 2, 3)).any()
    torch.testing.assert_close(corrupt(pictures, strength=0), pictures)
    for wrong in (pictures[0], pictures[:0], pictures.long()):
        refuses(ShapeError, "floating-point", corrupt, wrong)
    for strength in (-1.0, float("nan"), float("inf")):
        refuses(SpecificationError, "strength", corrupt, pictures, strength=strength)


def test_noise_has_the_strength_it_says_and_follows_its_seed(pictures: Tensor) -> None:
    noise = gaussian_noise(pictures, strength=0.3, seed=5) - pictures
    assert noise.std().item() == pytest.approx(0.3, rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    other = gaussian_noise(pictures, strength=0.3, seed=6) - pictures
    correlation = np.corrcoef(noise.flatten().numpy(), other.flatten().numpy())[0, 1]
    assert abs(correlation) < 0.06


@pytest.mark.parametrize("strength", [0.7, 2.0])
def test_blur_is_scipys(pictures: Tensor, strength: float) -> None:
    found = blur(pictures, strength=strength).numpy()
    reach = int(np.ceil(3 * strength))
    expected = gaussian_filter(
        pictures.numpy(), (0, 0, strength, strength), mode="mirror", radius=(0, 0, reach, reach)
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_mean_image_takes_away_all_that_differs(pictures: Tensor) -> None:
    np.testing.assert_allclose(mean_image(pictures).var(dim=0), 0, atol=1e-20)
    half = mean_image(pictures, strength=0.5)
    torch.testing.assert_close(half.var(dim=0), pictures.var(dim=0) / 4)
    refuses(SpecificationError, "share", mean_image, pictures, strength=1.5)
