"""open_clip's training transform at a fraction of its cost: the same law, the same values.

For pictures of a few dozen pixels, torchvision spends more on drawing a crop through tensors and on
normalising than Pillow does on resizing. `quick` replaces those two; everything else stays.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, Normalize, RandomResizedCrop, ToTensor
from torchvision.transforms.functional import pil_modes_mapping

TRIES = 10  # torchvision's: after so many crops that do not fit, the largest central one is taken


def quick(transform: Compose) -> Compose:
    """The same transform with a cheaper crop and, at its end, a table instead of arithmetic.

    Values are equal to the last bit, crops are drawn from the same distribution (with Python's
    `random` instead of torch's). What it does not know, it leaves as it is.

    >>> from open_clip.transform import image_transform
    >>> quick(image_transform(48, is_train=True, mean=(0.5,) * 3, std=(0.5,) * 3))
    Compose(
        Crop(size=(48, 48), scale=(0.9, 1.0), ratio=(0.75, 1.3333), interpolation=bicubic, antialias=True)
        MaybeConvertMode()
        Levels()
    )
    """  # noqa: E501
    steps = [
        Crop.like(step) if type(step) is RandomResizedCrop else step
        for step in transform.transforms
    ]
    *before, tensor, normalize = steps if len(steps) > 1 else [*steps, None, None]
    if isinstance(tensor, ToTensor) and isinstance(normalize, Normalize):
        steps = [*before, Levels(tensor, normalize)]
    return Compose(steps)


def split(transform: Compose) -> tuple[Compose, Callable[[Sequence[Any]], Tensor]]:
    """A quick transform in two parts: what is done to a picture, and what to a batch of them.

    Levels become numbers a batch at a time: the same values for a tenth of the calls, and in
    channels_last, as the models want them. Another transform's second part only stacks.
    """
    places = [n for n, step in enumerate(transform.transforms) if isinstance(step, Levels)]
    if not places:
        return transform, lambda tensors: torch.stack(list(tensors))
    levels, rest = transform.transforms[places[0]], transform.transforms[places[0] + 1 :]

    def finish(pictures: Sequence[Image.Image]) -> Tensor:
        return Compose(rest)(levels.of_batch(pictures))

    return Compose(transform.transforms[: places[0]]), finish


class Crop(RandomResizedCrop):
    """torchvision's random crop, drawn without tensors."""

    def forward(self, img: Image.Image) -> Image.Image:
        """Crop and resize, as torchvision's function does after its checks."""
        if not isinstance(img, Image.Image):
            return RandomResizedCrop.forward(self, img)
        top, left, height, width = self.get_params(img, self.scale, self.ratio)
        part = img.crop((left, top, left + width, top + height))
        return part.resize(self.size[::-1], pil_modes_mapping[self.interpolation])

    @classmethod
    def like(cls, other: RandomResizedCrop) -> "Crop":
        """The same crop as another's."""
        return cls(other.size, other.scale, other.ratio, other.interpolation, other.antialias)

    @staticmethod
    def get_params(
        img: Image.Image, scale: Sequence[float], ratio: Sequence[float]
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width, in pixels."""
        width, height = img.size
        low, high = math.log(ratio[0]), math.log(ratio[1])
        for _ in range(TRIES):
            area = height * width * random.uniform(*scale)
            shape = math.exp(random.uniform(low, high))
            w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < w <= width and 0 < h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
        return (height - h) // 2, (width - w) // 2, h, w


class Levels:
    """Picture to normalised tensor: what each of 256 levels becomes is worked out once."""

    def __init__(self, tensor: ToTensor, normalize: Normalize) -> None:
        every = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
        table = normalize(tensor(Image.fromarray(every)))
        self._table: np.ndarray = table[:, 0].numpy()
        self._tensor, self._normalize = tensor, normalize

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channel height width"]:
        """Normalised, float32; what is no RGB picture goes the long way."""
        if not isinstance(picture, Image.Image) or picture.mode != "RGB":
            return self._normalize(self._tensor(picture))
        planes = np.asarray(picture).transpose(2, 0, 1)
        return torch.from_numpy(np.stack([t[p] for t, p in zip(self._table, planes, strict=True)]))

    def of_batch(
        self, pictures: Sequence[Image.Image]
    ) -> Float[Tensor, "batch channel height width"]:
        """The same for RGB pictures of one size, in channels_last: ToTensor's arithmetic and
        Normalize's own, over all of them at once."""
        levels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        return self._normalize(levels.permute(0, 3, 1, 2).to(torch.float32).div_(255))

    def __repr__(self) -> str:
        return "Levels()"
