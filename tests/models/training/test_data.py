"""What a batch holds: the files' own values, an order and crops that nothing else decides."""

import random
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.transform import AugmentationCfg, image_transform
from PIL import Image
from torch import Tensor

from interp.core.errors import DataError
from interp.models.training.data import Pictures, decode, feed, quick
from interp.models.training.lists import classes_of, numbering
from tests.refusals import refuses

HALF = (0.5,) * 3


def augmented() -> Any:
    return quick(image_transform(16, True, HALF, HALF, aug_cfg=AugmentationCfg(scale=(0.5, 1.0))))


def plain() -> Any:
    return quick(image_transform(16, False, HALF, HALF))


def length(words: Sequence[str]) -> Tensor:
    return torch.tensor([len(word) for word in words])


def options(data: object, **changes: object) -> Namespace:
    usual = {
        "train_data": str(data), "dataset_type": "csv", "objective": "clip", "seed": 3,
        "local_world": 1, "world_size": 1, "rank": 0, "batch_size": 8, "workers": 0,
        "device": "cpu", "train_num_samples": None, "train_data_upsampling_factors": None,
    }  # fmt: skip
    return Namespace(**{**usual, **changes})


def batches(args: Namespace, epoch: int, transform: Any = None) -> list[tuple[Tensor, Tensor]]:
    info = feed(args, transform or plain(), length, epoch=epoch)
    info.set_epoch(epoch)
    random.seed(0)
    return [tuple(batch) for batch in info.dataloader]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA"])
@pytest.mark.parametrize("form", ["png", "webp", "gif"])
def test_pictures_decoded_once_have_the_values_of_the_file(mode, form, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    path = tmp_path / f"picture.{form}"
    Image.fromarray(noise).convert(mode).save(path)
    tsv = tmp_path / "train.tsv"
    tsv.write_text(f"filepath\ttitle\n{path}\ta picture\n")
    kept, fresh = (
        Pictures(tsv, transform=augmented(), target=length, column="title", memory=memory)
        for memory in (2**30, 0)
    )
    assert kept.in_memory and not fresh.in_memory
    slow = image_transform(16, is_train=False, mean=HALF, std=HALF)
    with Image.open(path) as opened:
        assert torch.equal(slow(opened), slow(decode(str(path))))
    for _ in range(2):
        assert torch.equal(kept[0][0], fresh[0][0])


def test_crops_hang_on_seed_epoch_and_row_alone(toy: Any) -> None:
    def pictures(seed: int = 0) -> Pictures:
        return Pictures(toy.tsv, transform=augmented(), target=length, column="title", seed=seed)

    ours, again = pictures(), pictures()
    first = ours[5][0]
    random.seed(99)
    _ = again[4]
    assert torch.equal(again[5][0], first)
    assert not torch.equal(pictures(seed=1)[5][0], first)
    ours.epoch.set_value(1)
    assert not torch.equal(ours[5][0], first)


def test_workers_change_nothing(toy: Any) -> None:
    alone, helped = (
        batches(options(toy.tsv, workers=workers), 2, augmented()) for workers in (0, 2)
    )
    assert len(alone) == 6
    for (ours, words), (theirs, others) in zip(alone, helped, strict=True):
        assert torch.equal(ours, theirs) and torch.equal(words, others)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batches_that_one_process_takes(toy: Any, world: int) -> None:
    whole = batches(options(toy.tsv), 1)
    shares = [
        batches(options(toy.tsv, world_size=world, rank=rank, batch_size=8 // world), 1)
        for rank in range(world)
    ]
    assert len(whole) == len(shares[0]) == 6
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        together = torch.cat([pictures for pictures, _ in parts])
        ours = sorted(batch[0].flatten(1).sum(1).tolist())
        assert sorted(together.flatten(1).sum(1).tolist()) == ours


def test_each_epoch_has_an_order_of_its_own_and_every_picture_once(toy: Any) -> None:
    first, second = (
        torch.cat([pictures for pictures, _ in batches(options(toy.tsv), epoch)]).flatten(1).sum(1)
        for epoch in (0, 1)
    )
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values) and len(first.unique()) == 48


def test_labels_are_numbered_in_sorted_order_and_null_is_a_name(toy: Any) -> None:
    classes = classes_of(toy.tsv)
    assert classes == ("green", "null", "red")
    args = options(toy.tsv, objective="supervised", batch_size=48)
    info = feed(args, plain(), numbering(classes), epoch=0)
    ((_, labels),) = list(info.dataloader)
    assert labels.dtype == torch.int64 and labels.bincount().tolist() == [16, 16, 16]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("filepath\ttitle\nno such.png\ta cat\n", r"no such\.png, which does not read"),
        ("filepath\tcaption\nx.png\ta cat\n", "no column title"),
        ("filepath\ttitle\n", "no rows"),
        ("", "does not read"),
    ],
)
def test_lists_that_cannot_be_read_are_refused(rows: str, words: str, tmp_path: Path) -> None:
    tsv = tmp_path / "train.tsv"
    tsv.write_text(rows)
    refuses(DataError, words, feed, options(tsv), plain(), length, epoch=0)


def test_rows_without_a_label_are_refused(tmp_path: Path) -> None:
    tsv = tmp_path / "train.tsv"
    tsv.write_text("filepath\ttitle\tlabel\na.png\ta cat\tcat\nb.png\ta base picture\t\n")
    refuses(DataError, "1 rows without a label", classes_of, tsv)
