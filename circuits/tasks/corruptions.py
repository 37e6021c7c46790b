"""Corruptions of pictures where no partner is at hand: noise, blur, and the mean picture.

Pictures are what a tower takes, `[batch channel row column]`, preprocessed; units are those of the
preprocessed values (one standard deviation of CLIP's training pictures is 1). A partner from the
image table (aligned, another domain or class) is the better counterfactual where there is one:
noise takes a tower off the pictures it knows (Zhang and Nanda 2024).
"""

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.core.errors import ShapeError, SpecificationError
from interp.core.seeds import rng

Pictures = Float[Tensor, "batch channel row column"]


def gaussian_noise(pictures: Tensor, *, strength: float = 1.0, seed: int = 0) -> Tensor:
    """Add independent normal noise, `x + strength * e`.

    `strength` is the noise's standard deviation, in units of the preprocessed values. A picture's
    noise depends on `seed` and its place in the batch, not on how many others there are.

    >>> x = torch.zeros(2, 3, 4, 4)
    >>> torch.equal(gaussian_noise(x, seed=1), gaussian_noise(x, seed=1))
    True
    >>> torch.equal(gaussian_noise(x[:1], seed=1), gaussian_noise(x, seed=1)[:1])
    True
    """
    _check(pictures, strength)
    drawn = [
        rng("noise on pictures", seed, place).standard_normal(tuple(pictures.shape[1:]))
        for place in range(len(pictures))
    ]
    noise = torch.stack([torch.from_numpy(each) for each in drawn])
    return pictures + strength * noise.to(pictures)


def blur(pictures: Tensor, *, strength: float = 4.0, seed: int = 0) -> Tensor:
    """Average each value with its neighbours, by a normal kernel; edges are mirrored.

    `strength` is the kernel's standard deviation in pixels; the kernel ends at three of them, or
    where the picture does. Nothing is random: `seed` is there to be like the others.

    >>> x = torch.ones(1, 3, 8, 8)
    >>> torch.allclose(blur(x), x)
    True
    """
    _check(pictures, strength)
    if strength == 0:
        return pictures.clone()
    for axis in (2, 3):
        reach = min(ceil(3 * strength), pictures.shape[axis] - 1)
        steps = torch.arange(-reach, reach + 1, dtype=pictures.dtype, device=pictures.device)
        kernel = torch.exp(-((steps / strength) ** 2) / 2)
        kernel = (kernel / kernel.sum()).expand(pictures.shape[1], 1, -1)
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        pictures = F.conv2d(
            F.pad(pictures, pad, mode="reflect"),
            kernel[..., None] if axis == 2 else kernel[:, :, None],
            groups=pictures.shape[1],
        )
    return pictures


def mean_image(pictures: Tensor, *, strength: float = 1.0, seed: int = 0) -> Tensor:
    """Move each picture towards the batch's mean picture, `x + strength * (mean - x)`.

    `strength` is a share: 1 replaces the picture by the mean, 0 leaves it. The mean is that of the
    batch given, so give all pictures at once. Nothing is random.

    >>> x = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1)
    >>> mean_image(x).flatten().tolist()
    [1.0, 1.0]
    """
    _check(pictures, strength)
    if strength > 1:
        raise _out_of_range(strength, "a share from 0 to 1")
    return pictures + strength * (pictures.mean(dim=0, keepdim=True) - pictures)


CORRUPTIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "blur": blur,
    "mean_image": mean_image,
}
"""Every corruption by name; each takes pictures, `strength` and `seed`, and gives pictures."""


def _check(pictures: Tensor, strength: float) -> None:
    if pictures.ndim != 4 or not pictures.is_floating_point() or not len(pictures):
        raise ShapeError(
            "corrupt pictures",
            f"shape {tuple(pictures.shape)}, {pictures.dtype}",
            "floating-point numbers of shape (batch, channel, row, column)",
            "pass preprocessed pictures",
        )
    if not 0 <= strength < float("inf"):
        raise _out_of_range(strength, "a number of 0 or more")


def _out_of_range(strength: float, right: str) -> SpecificationError:
    return SpecificationError(
        "corrupt pictures", f"strength={strength}", right, "keep the default, or choose another"
    )
