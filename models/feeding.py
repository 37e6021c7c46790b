"""Training pictures, batch by batch: a TSV with its pictures decoded once, or WebDataset shards.

The order of an epoch, and the crop of every picture in it, depend on the seed, the epoch and the
picture alone: not on how many processes or workers share the work, nor on what a kill interrupted.
(For shards this holds as long as processes and workers stay the same: they are dealt out whole.)
"""

import random
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
import webdataset
from open_clip_train.data import DataInfo, SharedEpoch, detshuffle2, expand_urls, get_wds_dataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler
from torchvision.transforms import Compose

from interp.core.errors import DataError, SpecificationError, listed
from interp.models.augmentation import split
from interp.models.lists import read_tsv

IN_MEMORY = 2**30
"""Decoded pictures are kept where all fit into so many bytes, over a machine's processes."""
BYTES_PER_PIXEL = 4  # Pillow pads RGB
SAMPLE = 64  # pictures whose sizes stand for all when memory is reckoned


class Pictures(Dataset[tuple[Any, Tensor]]):
    """Rows of a training TSV as `(picture after the transform, tokens or label)`.

    What it yields equals decoding the file at every access, to the bit: kept is what Pillow decoded
    (uint8, in the file's own mode), before any transform.
    """

    def __init__(
        self,
        tsv: Path,
        *,
        transform: Callable[[Image.Image], Any],
        target: Callable[[list[str]], Tensor],
        column: str,
        seed: int = 0,
        memory: int = IN_MEMORY,
        marks: Tensor | None = None,
    ) -> None:
        """`target` maps the words of `column`, one row's in a list, to what stands in a batch.

        With `marks`, one number a row, that number stands behind the tokens or the label.
        """
        frame = read_tsv(tsv, column)
        self.paths, self.words = frame["filepath"].tolist(), frame[column].tolist()
        self.transform, self.target, self.seed = transform, target, seed
        self.epoch, self.marks = SharedEpoch(), marks
        self._decoded: list[Image.Image] | None = None
        if self._size() <= memory:
            with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
                self._decoded = list(pool.map(decode, self.paths))

    def _size(self) -> float:
        """Bytes of all decoded pictures, reckoned from some."""
        some = self.paths[:: max(1, len(self.paths) // SAMPLE)]
        sizes = [size[0] * size[1] for size in map(_size_of, some)]
        return BYTES_PER_PIXEL * sum(sizes) / len(sizes) * len(self.paths)

    @property
    def in_memory(self) -> bool:
        """Whether every picture has been decoded once for all."""
        return self._decoded is not None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Any, Tensor]:
        picture = decode(self.paths[row]) if self._decoded is None else self._decoded[row]
        random.seed(f"crop/{self.seed}/{self.epoch.get_value()}/{row}")
        target = self.target([self.words[row]])[0]
        if self.marks is not None:
            target = torch.cat([target.reshape(-1), self.marks[row : row + 1]])
        return self.transform(picture), target


def decode(path: str) -> Image.Image:
    """A picture in memory, in the mode of its file."""
    try:
        with Image.open(path) as picture:
            return picture.copy()
    except OSError as error:
        raise _unreadable(path, error) from None


def _size_of(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            return picture.size
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(
        "train on the pictures of the mixture",
        f"{path}, which does not read ({error.strerror or error})",
        "a picture",
        "restore it, or make the mixture again",
    )


def feed(
    args: Namespace,
    transform: Compose,
    target: Callable[[list[str]], Tensor],
    *,
    epoch: int,
    marks: Tensor | None = None,
) -> DataInfo:
    """The training data, in the form that open_clip's epoch loop takes.

    `marks`, one number for each row of a TSV, stand behind its tokens; shards have none.
    """
    if args.dataset_type == "webdataset":
        return _shards(args, transform, target, epoch)
    column = "label" if args.objective == "supervised" else "title"
    each, finish = split(transform)
    pictures = Pictures(
        Path(args.train_data),
        transform=each,
        target=target,
        column=column,
        seed=args.seed,
        memory=IN_MEMORY // args.local_world,
        marks=marks,
    )
    sampler = DistributedSampler(
        pictures, args.world_size, args.rank, seed=args.seed, drop_last=True
    )
    loader: Any = DataLoader(
        pictures,
        batch_size=args.batch_size,
        sampler=sampler,
        drop_last=True,
        collate_fn=partial(_together, finish),
        num_workers=args.workers,
        pin_memory=args.device.startswith("cuda"),
    )
    loader.num_samples, loader.num_batches = len(pictures), len(loader)
    return DataInfo(loader, sampler, pictures.epoch)


def _together(finish: Callable[[Sequence[Any]], Tensor], rows: Sequence[tuple[Any, Tensor]]) -> Any:
    """Rows as a batch, in the form that PyTorch's own collation has."""
    pictures, targets = zip(*rows, strict=True)
    return [finish(pictures), torch.stack(targets)]


def _shards(args: Namespace, transform: Compose, target: Any, epoch: int) -> DataInfo:
    """open_clip's shard loader, with a shuffle that a resumed run repeats."""
    urls, _ = expand_urls(args.train_data)
    missing = [url for url in urls if "://" not in url and not Path(url).is_file()]
    if missing:
        raise DataError(
            "train on shards", f"{listed(missing, limit=3)}, not there", "files", "check the paths"
        )
    readers = max(1, args.workers) * args.world_size
    if len(urls) < readers:
        raise SpecificationError(
            "train on shards",
            f"{len(urls)} shards for {readers} processes and workers",
            "at least one for each",
            "write smaller shards, or take fewer workers",
        )
    info = get_wds_dataset(args, transform, True, epoch=epoch, tokenizer=target)
    stages: list[Any] = info.dataloader.pipeline[0].dataset.pipeline  # type: ignore[attr-defined]
    for place, stage in enumerate(stages):
        # webdataset seeds this one from the clock and the process
        if getattr(stage, "f", None) is webdataset.filters._shuffle:
            stages[place] = _Shuffle(args, info.shared_epoch, stage.kw)
    return info


class _Shuffle(detshuffle2):
    """open_clip's seeded shuffle, here of pictures; each process and worker has its own stream.

    It also seeds the crops that follow in the same worker.
    """

    def __init__(self, args: Namespace, epoch: Any, sizes: dict[str, int]) -> None:
        super().__init__(**sizes, seed=args.seed, epoch=epoch)
        self._rank, self._seed = args.rank, args.seed

    def run(self, src: Iterable[Any]) -> Iterable[Any]:
        worker = torch.utils.data.get_worker_info()
        which = f"{self._seed}/{self.epoch.get_value()}/{self._rank}/{worker.id if worker else 0}"  # type: ignore[union-attr]
        random.seed(f"crops/{which}")
        sizes = (self.bufsize, self.initial)
        return webdataset.filters._shuffle(src, *sizes, random.Random(f"shuffle/{which}"))
