"""Shards: a mixture's own, a base set's, and an order that a run which goes on repeats."""

import gc
import tarfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from interp.core.errors import DataError, SpecificationError
from interp.models.training.lists import Base, pack
from tests.models.training.test_data import augmented, batches, options
from tests.refusals import refuses

# webdataset leaves the files that an epoch ends in to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Left files are closed within the test that opened them."""
    yield
    gc.collect()


def shards(toy: Any, folder: Path, **changes: object) -> Namespace:
    pattern = pack(toy.tsv, folder / "shards")
    sizes = {"dataset_type": "webdataset", "train_num_samples": 48, "batch_size": 12}
    return options(pattern, **{**sizes, **changes})


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_repeat_an_epoch_for_a_run_that_goes_on(toy, tmp_path, workers) -> None:
    args = shards(toy, tmp_path, workers=workers)
    first, again, other = (batches(args, epoch, augmented()) for epoch in (1, 1, 2))
    assert len(first) == 4
    for (ours, words), (theirs, others) in zip(first, again, strict=True):
        assert torch.equal(ours, theirs) and torch.equal(words, others)
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_shards_hold_the_pictures_of_the_list(toy: Any, tmp_path: Path) -> None:
    listed = batches(options(toy.tsv, batch_size=48), 0)[0][0]
    packed = batches(shards(toy, tmp_path, batch_size=48), 0)[0][0]
    ours, theirs = (x.flatten(1)[:, :9].sum(1).sort().values for x in (packed, listed))
    assert torch.equal(ours, theirs)


def test_two_sets_of_shards_are_read_as_one(toy: Any, tmp_path: Path) -> None:
    mixture, base = (pack(toy.tsv, tmp_path / name) for name in ("mixture", "base"))
    args = shards(toy, tmp_path, batch_size=96, train_num_samples=96)
    args.train_data = f"{mixture}::{Base(base, 48).pattern}"
    ((pictures, _),) = batches(args, 0)
    sums = pictures.flatten(1).sum(1)
    assert sorted(sums.tolist()) == sorted([*sums.unique().tolist()] * 2)


def test_shards_that_are_missing_or_too_few_are_refused(toy: Any, tmp_path: Path) -> None:
    args = shards(toy, tmp_path)
    with pytest.raises(SpecificationError, match="16 shards for 20"):
        batches(Namespace(**{**vars(args), "world_size": 20}), 0)
    args.train_data = str(tmp_path / "no such {0..3}.tar")
    refuses(DataError, "not there", batches, args, 0)


def test_packing_keeps_files_and_captions_and_is_done_once(toy: Any, tmp_path: Path) -> None:
    pattern = pack(toy.tsv, tmp_path / "shards")
    assert pattern.endswith("mixture-{00000..00015}.tar")
    rows = pd.read_csv(toy.tsv, sep="\t", keep_default_na=False)
    found: dict[str, bytes] = {}
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as shard:
            for each in shard.getmembers():
                content = shard.extractfile(each)
                assert content is not None
                found[each.name] = content.read()
    assert len(found) == 96
    for row, (path, title) in enumerate(zip(rows["filepath"], rows["title"], strict=True)):
        assert found[f"{row:09d}.png"] == Path(path).read_bytes()
        assert found[f"{row:09d}.txt"] == title.encode()
    stamp = (tmp_path / "shards" / "mixture-00000.tar").stat().st_mtime_ns
    pack(toy.tsv, tmp_path / "shards")
    assert (tmp_path / "shards" / "mixture-00000.tar").stat().st_mtime_ns == stamp
    other = tmp_path / "other.tsv"
    rows.head(20).to_csv(other, sep="\t", index=False)
    pack(other, tmp_path / "shards")
    assert (tmp_path / "shards" / "mixture-00000.tar").stat().st_mtime_ns != stamp


def test_a_picture_that_is_not_there_leaves_no_shards(tmp_path: Path) -> None:
    tsv = tmp_path / "train.tsv"
    tsv.write_text("filepath\ttitle\nno such.png\ta cat\n")
    refuses(DataError, r"no such\.png", pack, tsv, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_base_set_must_say_how_many_pictures_it_holds() -> None:
    refuses(SpecificationError, "Count them", Base, "shards/{0..9}.tar", 0)
