"""Shards that are written: read back here and by open_clip's own loader, and resumed when cut."""

import errno
import gc
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from open_clip_train.data import get_data
from PIL import Image

from interp import open_images
from interp.core.errors import DataError, OutputError, PictureError
from interp.core.images import ImageTable
from interp.core.storage.pictures import Stored
from interp.data.sources import shards as packing
from interp.data.sources.shards import write_shards
from tests.data import made


@pytest.fixture
def images(tmp_path: Path) -> ImageTable:
    return open_images(made.table(tmp_path / "pictures", ".csv"))


def stored(images: ImageTable) -> list[tuple[str, bytes]]:
    assert isinstance(images.reader, Stored)
    return [images.reader.stored(row) for _, row in images.frame.iterrows()]


def test_what_is_written_is_read_back(images: ImageTable, tmp_path: Path) -> None:
    shards = write_shards(images, tmp_path / "shards", per_shard=10)
    assert [path.name for path in shards] == [f"shards-00000{k}.tar" for k in range(3)]
    again = open_images(tmp_path / "shards")
    for column in ("label", "domain", "split", "caption", "drawing"):
        assert again.frame[column].tolist() == images.frame[column].tolist()
    assert again.original.tolist() == images.path.tolist()
    assert [made.number_of(again.picture(row)) for row in range(24)] == list(range(24))


def test_files_go_in_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "real" / "cat"
    root.mkdir(parents=True)
    for name in ("a.jpeg", "b.bmp"):
        made.PICTURES[7].image.save(root / name)
    again = open_images(write_shards(open_images(tmp_path), tmp_path / "shards"))
    jpeg, bmp = sorted(again.path)
    assert jpeg.endswith(".jpeg") and bmp.endswith(".png")
    row = again.path.tolist().index(jpeg)
    assert stored(again)[row] == (".jpeg", (root / "a.jpeg").read_bytes())


def test_shards_of_shards_keep_their_bytes(images: ImageTable, tmp_path: Path) -> None:
    once = open_images(write_shards(images, tmp_path / "once"))
    twice = open_images(write_shards(once, tmp_path / "twice"))
    assert stored(once) == stored(twice)
    assert [data for _, data in stored(once)] == [
        (images.root / path).read_bytes() for path in images.path
    ]


def test_preparations_are_written_in(images: ImageTable, tmp_path: Path) -> None:
    small = images.prepared(lambda image: image.resize((2, 2)), name="small")
    again = open_images(write_shards(small, tmp_path / "shards"))
    assert again.picture(5).size == (2, 2) and made.number_of(again.picture(5)) == 5


def test_a_seed_shuffles_repeatably(images: ImageTable, tmp_path: Path) -> None:
    orders = [
        open_images(write_shards(images, tmp_path / str(place), seed=seed)).original.tolist()
        for place, seed in enumerate((1, 1, 2))
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(images.path) != orders[0]


def test_the_same_rows_give_the_same_bytes(images: ImageTable, tmp_path: Path) -> None:
    (first,), (second,) = (write_shards(images, tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def loader(shards: str, n: int | None, tokens: dict[str, int]) -> dict[str, Any]:
    """open_clip's own data loading, for training and for validation."""

    def tokenizer(text: str) -> torch.Tensor:
        return torch.tensor([[tokens[text]]])

    def pixels(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    args = SimpleNamespace(
        train_data=shards,
        train_num_samples=n,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        dataset_type="webdataset",
        val_data=shards,
        val_num_samples=n,
        imagenet_val=None,
        imagenet_v2=None,
        seed=0,
        batch_size=6,
        workers=0,
        world_size=1,
    )
    return get_data(args, (pixels, pixels), tokenizer=tokenizer)


# open_clip and webdataset leave files to the garbage collector, which tells on them
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["train", "val"])
def test_open_clip_reads_every_picture_with_its_caption(
    images: ImageTable, tmp_path: Path, kind: str
) -> None:
    captions = [f"picture number {made.number_of(images.picture(row))}" for row in range(24)]
    write_shards(images, tmp_path / "shards", per_shard=10, captions=captions)
    tokens = {text: number for number, text in enumerate(captions)}
    data = loader(f"{tmp_path}/shards/shards-{{000000..000002}}.tar", None, tokens)[kind]
    seen = []
    for batch, texts in data.dataloader:
        reds = batch[:, 0, 0, 0] // 10
        assert reds.tolist() == texts[:, 0].tolist()
        seen += reds.tolist()
    assert sorted(seen) == list(range(24))
    if kind == "train":  # from sizes.json: nobody has to count
        assert data.dataloader.num_samples == 24
    del data
    gc.collect()  # here, not in some later test


def test_an_interrupted_call_goes_on(
    images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, write = tmp_path / "shards", packing._write
    whole = write_shards(images, tmp_path / "whole", per_shard=10)

    def cut(path: Path, *rest: Any) -> None:
        write(path, *rest)
        if "000001" in path.name:
            raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_write", cut)
    with pytest.raises(KeyboardInterrupt):
        write_shards(images, target, per_shard=10)
    assert sorted(path.name for path in target.iterdir()) == ["shards-000000.tar", "shards.json"]
    before = (target / "shards-000000.tar").stat()
    monkeypatch.setattr(packing, "_write", write)
    shards = write_shards(images, target, per_shard=10)
    after = (target / "shards-000000.tar").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [p.read_bytes() for p in shards] == [p.read_bytes() for p in whole]
    assert json.loads((target / "sizes.json").read_text()) == {
        "shards-000000.tar": 10,
        "shards-000001.tar": 10,
        "shards-000002.tar": 4,
    }


@pytest.mark.parametrize(
    "other",
    [
        lambda images, folder: write_shards(images.select(label="cat"), folder),
        lambda images, folder: write_shards(images, folder, per_shard=3),
        lambda images, folder: write_shards(images, folder, seed=1),
        lambda images, folder: write_shards(images, folder, captions=["x"] * 24),
    ],
)
def test_a_folder_of_other_shards_is_refused(
    images: ImageTable, tmp_path: Path, other: Callable[[ImageTable, Path], object]
) -> None:
    write_shards(images, tmp_path / "shards")
    write_shards(images, tmp_path / "shards")  # the same again is no error
    with pytest.raises(OutputError, match="holds 24 pictures of"):
        other(images, tmp_path / "shards")


def test_what_is_refused(images: ImageTable, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="24 pictures, 1 captions"):
        write_shards(images, tmp_path / "a", captions=["x"])
    with pytest.raises(DataError, match="per_shard = 0"):
        write_shards(images, tmp_path / "b", per_shard=0)
    with pytest.raises(DataError, match="0 pictures"):
        write_shards(images[:0], tmp_path / "c")
    (images.root / "real/cat/03.png").write_text("x")
    with pytest.raises(PictureError, match=r"03\.png"):
        write_shards(images, tmp_path / "d")
    assert not list((tmp_path / "d").glob("*.tar"))


def test_a_full_disk_is_said(
    images: ImageTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing, "_write", full)
    with pytest.raises(OutputError, match="a disk that is full"):
        write_shards(images, tmp_path / "shards")
