"""Data sets of items: what counts as a picture, who is asked for labels, what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

from interp import open_images
from interp.core import progress
from interp.core.errors import DataError
from interp.data.sources.datasets import as_picture
from tests.data import made


class Pairs(Dataset):
    """Items of (picture, number), as torchvision gives them; counts what is asked for."""

    classes = made.LABELS

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(made.PICTURES)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        self.asked.append(number)
        each = made.PICTURES[number]
        return self.picture(each), made.LABELS.index(each.label)

    def picture(self, each: made.Made) -> Any:
        return each.image


class Targeted(Pairs):
    """The same, with the labels of all items at hand."""

    @property
    def targets(self) -> list[int]:
        return [made.LABELS.index(each.label) for each in made.PICTURES]


@pytest.mark.parametrize("kind", [Pairs, Targeted])
def test_numbered_classes_get_the_data_sets_names(kind: type[Pairs]) -> None:
    images = open_images(kind(), domain="photo")
    assert images.label.tolist() == [each.label for each in made.PICTURES]
    assert made.number_of(images.picture(9)) == 9
    named = open_images(kind(), domain="photo", labels=["x", "y", "z"])
    assert named.labels == ["x", "y", "z"]


def test_labels_at_hand_are_not_asked_for() -> None:
    asking, targeted = Pairs(), Targeted()
    for source in (asking, targeted):
        open_images(source, domain="photo")
    # the first tells the kind, eight are read twice for randomness, all once to see them whole
    assert len(targeted.asked) == 1 + 16 + 24
    assert len(asking.asked) == len(targeted.asked) + 24


def test_a_subset_keeps_to_its_own() -> None:
    images = open_images(Subset(Pairs(), [3, 20]), domain="photo", labels=made.LABELS)
    assert [made.number_of(images.picture(row)) for row in (0, 1)] == [3, 20]
    assert images.label.tolist() == [made.PICTURES[3].label, made.PICTURES[20].label]


def test_parts_are_counted_through() -> None:
    images = open_images({"train": made.Items("train"), "test": made.Items("test")})
    last = images.select(split="test").picture(11)
    assert made.number_of(last) == [m for m in made.PICTURES if m.split == "test"][11].number


RAMP = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize(
    "thing",
    [
        RAMP,
        RAMP.astype(np.int64),
        RAMP / 255,
        np.moveaxis(RAMP, 2, 0),
        torch.from_numpy(RAMP).permute(2, 0, 1) / 255,
        torch.from_numpy(RAMP),
        Image.fromarray(RAMP),
    ],
)
def test_pictures_of_every_form_are_one_picture(thing: Any) -> None:
    assert np.array_equal(np.asarray(as_picture(thing, "x")), RAMP)


def test_greys_and_masks_are_pictures_too() -> None:
    grey = RAMP[..., 0]
    for thing in (grey, grey[..., None], grey[None], torch.from_numpy(grey)[None] / 255):
        assert np.array_equal(np.asarray(as_picture(thing, "x")), grey)
    assert np.asarray(as_picture(grey > 9, "x")).max() == 255


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (RAMP / 255 - 0.5, "numbers from -0.5"),
        (np.full((4, 4, 3), np.nan), "numbers from nan"),
        (RAMP.astype(np.int64) + 300, "numbers from 300"),
        (np.zeros((5, 4, 7)), r"shape \(5, 4, 7\)"),
        (np.zeros(5), r"shape \(5,\)"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_what_is_no_picture_is_refused(thing: Any, words: str) -> None:
    class Odd(Pairs):
        def picture(self, each: made.Made) -> Any:
            return thing

    with pytest.raises(DataError, match=f"picture of item/0000000: given .*{words}"):
        open_images(Odd(), domain="photo")


def test_a_random_transform_is_refused() -> None:
    generator = np.random.default_rng(0)

    class Random(Pairs):
        def picture(self, each: made.Made) -> Any:
            return Image.new("RGB", (4, 4), tuple(generator.integers(255, size=3).tolist()))

    with pytest.raises(DataError, match="differ when they are read twice"):
        open_images(Random(), domain="photo")


def test_broken_pictures_are_skipped_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Torn(Pairs):
        def picture(self, each: made.Made) -> Any:
            return each.png[:40] if each.number == 5 else each.png

    progress.set_quiet(False)
    images = open_images(Torn(), domain="photo")
    progress.set_quiet(True)
    assert [made.number_of(images.picture(row)) for row in (4, 5)] == [4, 6]
    assert "1 broken (0000005)" in capsys.readouterr().err


def test_all_broken_is_refused() -> None:
    class Torn(Pairs):
        def picture(self, each: made.Made) -> Any:
            return each.png[:40]

    with pytest.raises(DataError, match="24 rows, none of which holds a picture"):
        open_images(Torn(), domain="photo")


def test_other_pictures_have_another_fingerprint() -> None:
    class Grey(Pairs):
        def picture(self, each: made.Made) -> Any:
            return each.image.convert("L")

    prints = [open_images(kind(), domain="photo").fingerprint for kind in (Pairs, Pairs, Grey)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([], "no label|no row"),
        ([(made.PICTURES[0].image,)] * 3, "no label in the columns"),
        ([made.PICTURES[0].image] * 3, "no label in the columns"),
        ([{"label": "cat"}], r"items without a picture \(label\)"),
        (7, "which has no items by number"),
        ({}, "no data set in it"),
        ({"train": "a folder"}, "the path a folder"),
    ],
)
def test_data_sets_without_pictures_or_labels_are_refused(source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_images(source, domain="photo")


def test_a_missing_domain_says_how_to_give_one() -> None:
    with pytest.raises(DataError, match=r'no domain.*domain="photo"'):
        open_images(Pairs())


def test_a_stream_is_refused() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(made.PICTURES)

    with pytest.raises(DataError, match="a stream"):
        open_images(Stream(), domain="photo")
