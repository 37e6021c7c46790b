"""Training pictures by batch, from a TSV with its pictures decoded once or from WebDataset shards.

The order of an epoch, and the crop of every picture in it, depend on the seed, the epoch and the
picture alone, and not on processes, workers or interruptions. For shards this holds as long as
processes and workers stay the same, since shards are distributed whole.
"""

import math
import random
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from jaxtyping import Float
from open_clip_train.data import DataInfo, SharedEpoch, detshuffle2, expand_urls, get_wds_dataset
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler
from torchvision.transforms import Compose, Normalize, RandomResizedCrop, ToTensor
from torchvision.transforms.functional import pil_modes_mapping

from interp.core.errors import DataError, SpecificationError, listed
from interp.models.training.lists import read_tsv, readable

KINDS_OF_CHANGE = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
TRIES = 10  # torchvision's: after so many crops that do not fit, the largest central one is taken


def varied(
    transform: Compose, *, flip: float = 0.0, colour: float = 0.0, grey: float = 0.0
) -> Compose:
    """Put `Vary` before a transform's last two steps, which make a tensor of the picture.

    Args:
        transform: open_clip's transform.
        flip: Share of pictures that are mirrored.
        colour: How far their brightness, contrast and saturation change, as in a `Recipe`.
        grey: Share of them that lose their colours.

    Returns:
        The transform; the one that was given if nothing varies.
    """
    if not (flip or colour or grey):
        return transform
    *before, tensor, normalize = transform.transforms
    return Compose([*before, Vary(flip, colour, grey), tensor, normalize])


def quick(transform: Compose) -> Compose:
    """Replace parts of a transform by faster, equal ones: its crop, and its last two steps.

    Args:
        transform: open_clip's transform; unknown steps are left as they are.

    Returns:
        A transform with values equal to the last bit and crops of the same distribution, drawn with
        Python's `random` instead of torch's.

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
    """Split a quick transform into a part for each picture and a part for each batch.

    Args:
        transform: What `quick` returns.

    Returns:
        The transform of a picture, and the function of a batch of its results.

    Notes:
        `Levels` become numbers a batch at a time: the same values for a tenth of the calls, and in
        channels_last. For another transform, the second part only stacks.
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


class Vary:
    """Mirror a picture, change its colours, or take them away, at random.

    Args:
        flip: Share of pictures that are mirrored.
        colour: Brightness, contrast and saturation become 1 - colour to 1 + colour times as much.
        grey: Share of pictures that lose their colours.

    >>> Vary(flip=1.0)(Image.fromarray(np.uint8([[[1] * 3, [2] * 3]]))).getpixel((0, 0))
    (2, 2, 2)
    """

    def __init__(self, flip: float = 0.0, colour: float = 0.0, grey: float = 0.0) -> None:
        self.flip, self.colour, self.grey = flip, colour, grey

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Another look of the picture."""
        if random.random() < self.flip:
            picture = ImageOps.mirror(picture)
        for change in KINDS_OF_CHANGE if self.colour else ():
            factor = random.uniform(1 - self.colour, 1 + self.colour)
            picture = change(picture).enhance(factor)
        return picture.convert("L").convert("RGB") if random.random() < self.grey else picture

    def __repr__(self) -> str:
        return f"Vary(flip={self.flip}, colour={self.colour}, grey={self.grey})"


class Levels:
    """ToTensor and Normalize in one step, with a table of what each of 256 levels becomes.

    Args:
        tensor: The transform's `ToTensor`.
        normalize: The transform's `Normalize`.
    """

    def __init__(self, tensor: ToTensor, normalize: Normalize) -> None:
        every = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
        table = normalize(tensor(Image.fromarray(every)))
        self._table: np.ndarray = table[:, 0].numpy()
        self._tensor, self._normalize = tensor, normalize

    def __call__(self, picture: Image.Image) -> Float[Tensor, "channel height width"]:
        """The normalised tensor, float32; pictures other than RGB take the slow path."""
        if not isinstance(picture, Image.Image) or picture.mode != "RGB":
            return self._normalize(self._tensor(picture))
        planes = np.asarray(picture).transpose(2, 0, 1)
        return torch.from_numpy(np.stack([t[p] for t, p in zip(self._table, planes, strict=True)]))

    def of_batch(
        self, pictures: Sequence[Image.Image]
    ) -> Float[Tensor, "batch channel height width"]:
        """Normalise RGB pictures of one size at once, in channels_last."""
        levels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        return self._normalize(levels.permute(0, 3, 1, 2).to(torch.float32).div_(255))

    def __repr__(self) -> str:
        return "Levels()"


Picture = Image.Image | Tensor
"""A picture after its transform; `Levels` leave it as it is, since they work on batches."""

IN_MEMORY = 2**30
"""Decoded pictures are kept where all fit into so many bytes, over a machine's processes."""
ASKED = "train on the pictures of the mixture"
BYTES_PER_PIXEL = 4  # Pillow pads RGB
SAMPLE = 64  # pictures whose sizes stand for all when memory is reckoned


class Pictures(Dataset[tuple[Picture, Tensor]]):
    """Rows of a training TSV as `(picture after the transform, tokens or label)`.

    Args:
        tsv: The training list.
        transform: Applied to every picture when it is read.
        target: Maps words of `column`, one row's in a list, to a tensor.
        column: The column of captions or labels.
        seed: Seed of the crops.
        memory: Bytes up to which decoded pictures are kept.
        marks: A number per row that is put behind its tokens or label; None puts nothing.

    Notes:
        A row equals decoding the file at every access, to the bit: what is kept is what Pillow
        decoded (uint8, in the file's own mode), before any transform.
    """

    def __init__(
        self,
        tsv: Path,
        *,
        transform: Callable[[Image.Image], Picture],
        target: Callable[[list[str]], Tensor],
        column: str,
        seed: int = 0,
        memory: int = IN_MEMORY,
        marks: Tensor | None = None,
    ) -> None:
        """Read the list, and decode its pictures if they fit into `memory`."""
        frame = read_tsv(tsv, column)
        self.paths, self.words = frame["filepath"].tolist(), frame[column].tolist()
        self.transform, self.target, self.seed = transform, target, seed
        self.epoch, self.marks = SharedEpoch(), marks
        self._decoded: list[Image.Image] | None = None
        if self._size() <= memory:
            with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
                self._decoded = list(pool.map(decode, self.paths))

    def _size(self) -> float:
        """Bytes of all decoded pictures, estimated from a sample."""
        some = self.paths[:: max(1, len(self.paths) // SAMPLE)]
        sizes = []
        for path in some:
            with readable(ASKED, path), Image.open(path) as picture:
                sizes.append(picture.width * picture.height)
        return BYTES_PER_PIXEL * sum(sizes) / len(sizes) * len(self.paths)

    @property
    def in_memory(self) -> bool:
        """Whether all pictures are kept decoded."""
        return self._decoded is not None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Picture, Tensor]:
        picture = decode(self.paths[row]) if self._decoded is None else self._decoded[row]
        random.seed(f"crop/{self.seed}/{self.epoch.get_value()}/{row}")
        target = self.target([self.words[row]])[0]
        if self.marks is not None:
            target = torch.cat([target.reshape(-1), self.marks[row : row + 1]])
        return self.transform(picture), target


def decode(path: str) -> Image.Image:
    """Read a picture into memory, in the mode of its file.

    Args:
        path: The file.

    Returns:
        The picture.

    Raises:
        DataError: If it cannot be read.
    """
    with readable(ASKED, path), Image.open(path) as picture:
        return picture.copy()


def feed(
    args: Namespace,
    transform: Compose,
    target: Callable[[list[str]], Tensor],
    *,
    epoch: int,
    marks: Tensor | None = None,
) -> DataInfo:
    """The training data, in the form that open_clip's epoch loop takes.

    Args:
        args: The launcher's options.
        transform: The transform of each picture.
        target: Maps captions or labels to a tensor.
        epoch: The epoch that training starts from.
        marks: A number per row of a TSV, put behind its tokens; shards have none.

    Returns:
        The loader with its sampler and epoch counter.

    Raises:
        DataError: For shards that are missing.
        SpecificationError: If there are fewer shards than processes and workers.
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


def _together(
    finish: Callable[[Sequence[Picture]], Tensor], rows: Sequence[tuple[Picture, Tensor]]
) -> list[Tensor]:
    """Collate rows into a batch, in the form of PyTorch's own collation."""
    pictures, targets = zip(*rows, strict=True)
    return [finish(pictures), torch.stack(targets)]


def _shards(
    args: Namespace, transform: Compose, target: Callable[[list[str]], Tensor], epoch: int
) -> DataInfo:
    """open_clip's shard loader, with a shuffle that a resumed run repeats."""
    urls, _ = expand_urls(args.train_data)
    missing = [url for url in urls if "://" not in url and not Path(url).is_file()]
    if missing:
        raise DataError(
            "train on shards", f"{listed(missing, limit=3)}, not there", "files", "check the paths"
        )
    readers = max(1, args.workers) * args.world_size
    if len(urls) < readers:
        given = f"{len(urls)} shards for {readers} processes and workers"
        do = "write smaller shards, or take fewer workers"
        raise SpecificationError("train on shards", given, "at least one for each", do)
    info = get_wds_dataset(args, transform, True, epoch=epoch, tokenizer=target)
    stages: list[Any] = info.dataloader.pipeline[0].dataset.pipeline  # type: ignore[attr-defined]
    for index, stage in enumerate(stages):
        # webdataset seeds this one from the clock and the process
        if getattr(stage, "f", None) is webdataset.filters._shuffle:
            stages[index] = _Shuffle(args, info.shared_epoch, stage.kw)
    return info


class _Shuffle(detshuffle2):
    """open_clip's seeded shuffle, applied to pictures, with a stream per process and worker.

    It also seeds the crops that follow in the same worker.
    """

    def __init__(self, args: Namespace, epoch: SharedEpoch, sizes: dict[str, int]) -> None:
        super().__init__(**sizes, seed=args.seed, epoch=epoch)
        self._rank, self._seed = args.rank, args.seed

    def run(self, src: Iterable[object]) -> Iterable[object]:
        worker = torch.utils.data.get_worker_info()
        which = f"{self._seed}/{self.epoch.get_value()}/{self._rank}/{worker.id if worker else 0}"  # type: ignore[union-attr]
        random.seed(f"crops/{which}")
        sizes = (self.bufsize, self.initial)
        return webdataset.filters._shuffle(src, *sizes, random.Random(f"shuffle/{which}"))
