"""The quick transform against open_clip's own: values to the bit, crops in distribution."""

import random

import numpy as np
import pytest
import torch
from open_clip.transform import AugmentationCfg, image_transform
from PIL import Image, ImageOps
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from interp.models.training.data import Crop, Vary, quick, split, varied

SCALE, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)


def transform(*, is_train: bool):
    return image_transform(
        32,
        is_train=is_train,
        mean=(0.48, 0.45, 0.4),
        std=(0.26, 0.27, 0.28),
        aug_cfg=AugmentationCfg(scale=SCALE),
    )


def picture(size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_values_are_those_of_open_clip(mode):
    slow = transform(is_train=True)
    fast = quick(slow)
    given = picture((48, 40), mode)
    random.seed(3)
    box = Crop.get_params(given, SCALE, RATIO)
    random.seed(3)
    ours = fast(given)
    given = cropped(given, box)
    for step in slow.transforms[1:]:
        given = step(given)
    assert ours.dtype == torch.float32 and ours.is_contiguous()
    assert torch.equal(ours, given)


def cropped(given: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    top, left, height, width = box
    area = (left, top, left + width, top + height)
    return given.crop(area).resize((32, 32), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(48, 48), (96, 40), (20, 70), (3, 200)])
def test_crops_follow_the_law_of_torchvision(size):
    given = picture(size)
    random.seed(0)
    torch.manual_seed(0)
    ours, theirs = (
        np.array([draw(given, SCALE, RATIO) for _ in range(3000)])
        for draw in (Crop.get_params, RandomResizedCrop.get_params)
    )
    for ours_of, theirs_of in zip(ours.T, theirs.T, strict=True):  # top, left, height, width
        assert stats.ks_2samp(ours_of, theirs_of).pvalue > 1e-3
    assert (ours[:, 2:] > 0).all()
    assert (ours[:, 0] + ours[:, 2] <= size[1]).all() and (ours[:, 1] + ours[:, 3] <= size[0]).all()


def test_what_it_does_not_know_is_left_alone():
    evaluation = transform(is_train=False)
    given = picture((48, 40))
    assert torch.equal(quick(evaluation)(given), evaluation(given))


@pytest.mark.parametrize("is_train", [True, False])
def test_a_batch_has_the_values_of_its_pictures_to_the_bit(is_train):
    whole = quick(transform(is_train=is_train))
    each, finish = split(whole)
    given = [picture((48, 40), mode, seed) for seed, mode in enumerate(["RGB", "L", "RGBA", "P"])]
    random.seed(3)
    one_by_one = torch.stack([whole(each_picture) for each_picture in given])
    random.seed(3)
    together = finish([each(each_picture) for each_picture in given])
    assert torch.equal(together, one_by_one) and together.dtype == torch.float32
    assert together.is_contiguous(memory_format=torch.channels_last)


def test_a_transform_that_it_does_not_know_is_only_stacked():
    slow = transform(is_train=False)
    each, finish = split(slow)
    assert torch.equal(finish([each(picture((48, 40)))])[0], slow(picture((48, 40))))


def test_the_crop_is_the_one_torchvision_makes():
    """Whose `forward` draws through the same `get_params`."""
    crop, given = Crop((32, 24), SCALE, RATIO), picture((48, 40))
    random.seed(3)
    ours = crop(given)
    random.seed(3)
    theirs = RandomResizedCrop.forward(crop, given)
    assert ours.size == (24, 32) and ours.tobytes() == theirs.tobytes()


def test_pictures_are_mirrored_and_lose_their_colours_as_often_as_asked() -> None:
    given = picture((8, 8))
    random.seed(0)
    seen = [np.asarray(Vary(flip=0.3, grey=0.2)(given)) for _ in range(2000)]
    mirrored = np.asarray(ImageOps.mirror(given))
    grey = np.array([bool((one == one[..., :1]).all()) for one in seen])
    plain = [one for one, is_grey in zip(seen, grey, strict=True) if not is_grey]
    flips = np.mean([np.array_equal(one, mirrored) for one in plain])
    assert all(np.array_equal(one, mirrored) or np.array_equal(one, given) for one in plain)
    assert abs(flips - 0.3) < 0.04 and abs(grey.mean() - 0.2) < 0.03


def test_colours_change_within_their_bounds() -> None:
    """Of a grey picture contrast and saturation change nothing: brightness alone is left."""
    given = Image.new("RGB", (4, 4), (100, 100, 100))
    random.seed(1)
    seen = np.array([np.asarray(Vary(colour=0.4)(given))[0, 0, 0] for _ in range(500)])
    assert 60 <= seen.min() < 65 and 135 < seen.max() <= 140
    assert (
        len({tuple(np.asarray(Vary(colour=0.4)(picture((2, 2)))).ravel()) for _ in range(9)}) == 9
    )


def test_a_varied_transform_is_levels_of_the_varied_picture() -> None:
    given, every = picture((32, 32)), quick(varied(transform(is_train=False), flip=1.0))
    mirrored = ImageOps.mirror(given)
    assert torch.equal(every(given), transform(is_train=False)(mirrored))
    assert varied(same := transform(is_train=True)) is same
    each, finish = split(every)
    assert torch.equal(finish([each(given)])[0], every(given))
