"""Preprocessing by the batch: equal to the plain way, whatever the steps are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import Compose, Lambda, Normalize, ToTensor

from interp.core.storage.pictures import by_batch

OPEN_CLIP = image_transform(20, is_train=False, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


class Reversed(ToTensor):
    """A kind of ToTensor that does something else."""

    def __call__(self, pic: Any) -> torch.Tensor:
        return super().__call__(pic).flip(0)


NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def pictures(*shapes: tuple[int, int], mode: str = "RGB") -> list[Image.Image]:
    generator = np.random.default_rng(0)
    made = [generator.integers(256, size=(*shape, 3), dtype=np.uint8) for shape in shapes]
    return [Image.fromarray(each).convert(mode) for each in made]


@pytest.mark.parametrize(
    ("preprocess", "given"),
    [
        (OPEN_CLIP, pictures((30, 20), (20, 20), (9, 40))),
        (OPEN_CLIP, pictures((20, 20), (20, 20), mode="L")),
        (Compose([ToTensor(), NORMALIZE]), pictures((5, 6), (5, 6))),
        (Compose([Reversed(), NORMALIZE]), pictures((5, 6), (5, 6))),
        (Compose([ToTensor()]), pictures((5, 6), (5, 6))),
        (Compose([ToTensor(), NORMALIZE, Lambda(torch.neg)]), pictures((5, 6))),
        (lambda picture: torch.tensor(picture.getpixel((0, 0))), pictures((5, 6), (7, 8))),
    ],
)
def test_a_batch_is_its_pictures_one_by_one(
    preprocess: Callable[[Any], torch.Tensor], given: list[Image.Image]
) -> None:
    each, together = by_batch(preprocess)
    made = together([each(picture) for picture in given])
    assert torch.equal(made, torch.stack([preprocess(picture) for picture in given]))
    assert made.is_contiguous()
