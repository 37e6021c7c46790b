"""Pictures that show no class: what a subspace fitted on them does, any reader of the site does.

They are the null of causal directions (rung R4): a subspace that carries a class because the layers
above read it, and not because two domains share it, is found on noise as well.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image

from interp.core.seeds import rng

Pixels = Float[np.ndarray, "picture row column 3"]
WAVES = 4
"""Waves across a picture, the standard deviation of those that smooth noise keeps."""


def shuffled(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Every picture's pixels in another order: its colours, and nothing of its shapes.

    >>> float(shuffled(np.arange(12.0).reshape(1, 2, 2, 3), np.random.default_rng(0)).sum())
    66.0
    """
    flat = pixels.reshape(len(pixels), -1, 3)
    mixed = np.stack([each[draw.permutation(len(each))] for each in flat])
    return mixed.reshape(pixels.shape)


def scrambled(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Every picture's spectrum, the same in all colours, with the phases of white noise.

    >>> flat = np.full((1, 4, 4, 3), 7.0)
    >>> bool(np.allclose(scrambled(flat, np.random.default_rng(0)), flat))
    True
    """
    phases = np.angle(np.fft.fft2(draw.normal(size=pixels.shape[:3]), axes=(1, 2)))
    phases[:, 0, 0] = 0  # the mean stays
    spectrum = np.fft.fft2(pixels, axes=(1, 2)) * np.exp(1j * phases)[..., None]
    return np.fft.ifft2(spectrum, axes=(1, 2)).real


def white(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """Independent pixels, with the mean and deviation of all pixels in each colour.

    >>> white(np.zeros((1, 2, 2, 3)), np.random.default_rng(0)).tolist()[0][0][0]
    [0.0, 0.0, 0.0]
    """
    return _coloured(draw.normal(size=pixels.shape), pixels)


def smooth(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    """White noise of which only the slow waves are kept, with mean and deviation as in `white`.

    >>> smooth(np.zeros((1, 2, 2, 3)), np.random.default_rng(0)).shape
    (1, 2, 2, 3)
    """
    waves = np.fft.fft2(draw.normal(size=pixels.shape), axes=(1, 2))
    across, down = (np.fft.fftfreq(n)[:, None] * n for n in pixels.shape[1:3])
    slow = np.exp(-(across**2 + down[:, 0] ** 2) / (2 * WAVES**2))
    return _coloured(np.fft.ifft2(waves * slow[..., None], axes=(1, 2)).real, pixels)


def _coloured(noise: Pixels, pixels: Pixels) -> Pixels:
    """Noise with the mean and the deviation of the pixels in each colour."""
    every = (0, 1, 2)
    noise = (noise - noise.mean(axis=every)) / np.maximum(noise.std(axis=every), 1e-12)
    return pixels.mean(axis=every) + pixels.std(axis=every) * noise


CLASS_FREE: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "shuffled pixels": shuffled,
    "scrambled phases": scrambled,
    "smooth noise": smooth,
    "white noise": white,
}
"""The kinds of class-free pictures, each made from as many pictures."""


def class_free(pictures: Sequence[Image.Image], kind: str, *, seed: int = 0) -> list[Image.Image]:
    """As many pictures without a class, made from pictures of one size or of several.

    Args:
        pictures: RGB pictures.
        kind: One of `CLASS_FREE`.
        seed: Seed of the draw.

    Returns:
        Pictures of the same sizes, in the same order.

    >>> [each.size for each in class_free([Image.new("RGB", (4, 3))] * 2, "white noise")]
    [(4, 3), (4, 3)]
    """
    draw = rng(kind, seed)
    sizes = np.array([each.size for each in pictures])
    made: list[Image.Image] = [Image.new("RGB", (1, 1))] * len(pictures)
    for size in np.unique(sizes, axis=0):
        rows = np.flatnonzero((sizes == size).all(axis=1)).tolist()
        pixels = np.stack([np.asarray(pictures[row], dtype=float) for row in rows])
        found = CLASS_FREE[kind](pixels, draw).clip(0, 255).round().astype(np.uint8)
        for row, each in zip(rows, found, strict=True):
            made[row] = Image.fromarray(each)
    return made
