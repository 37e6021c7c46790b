"""The same few pictures in every form that pictures come in; the colour says which one it is."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

DOMAINS = ("real", "sketch")
LABELS = ("cat", "ice_cream", "owl")


class Made(NamedTuple):
    """Picture number `number`: a colour of its own."""

    number: int
    label: str
    domain: str
    split: str

    @property
    def image(self) -> Image.Image:
        return Image.new("RGB", (8, 6), (10 * self.number, 0, 255 - 10 * self.number))

    @property
    def path(self) -> str:
        return f"{self.domain}/{self.label}/{self.number:02d}.png"

    @property
    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()


PICTURES = [
    Made(number, label, domain, "test" if number % 2 else "train")
    for number, (domain, label, _) in enumerate(
        (domain, label, k) for domain in DOMAINS for label in LABELS for k in range(4)
    )
]
"""24 pictures: 2 domains x 3 classes x 4, half of each cell for test."""


def large() -> bytes:
    """A PNG large enough to be cut in its pixels, its header left whole."""
    pixels = np.random.default_rng(0).integers(255, size=(64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def number_of(image: Image.Image) -> int:
    """Which picture it is."""
    red, _, blue = np.asarray(image.convert("RGB"))[0, 0].tolist()
    assert red + blue == 255 and red % 10 == 0
    return red // 10


def files(root: Path) -> Path:
    """As `domain/class/*.png`."""
    for made in PICTURES:
        (root / made.path).parent.mkdir(parents=True, exist_ok=True)
        made.image.save(root / made.path)
    return root


def lists(root: Path) -> Path:
    """As DomainNet: the folders and their lists, in an order that is not the files'."""
    files(root)
    for domain in DOMAINS:
        for split in ("train", "test"):
            mine = [m for m in PICTURES if (m.domain, m.split) == (domain, split)]
            lines = [f"{m.path} {LABELS.index(m.label)}\n" for m in reversed(mine)]
            (root / f"{domain}_{split}.txt").write_text("".join(lines))
    return root


def frame() -> pd.DataFrame:
    """As a table of paths."""
    return pd.DataFrame([m._asdict() | {"path": m.path} for m in PICTURES]).drop(columns="number")


def table(root: Path, suffix: str) -> Path:
    """As a file with a row per picture, beside the pictures."""
    path = files(root) / f"pictures{suffix}"
    if suffix == ".parquet":
        frame().to_parquet(path)
    else:
        frame().to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    return path


def hub(split: str | None = None) -> Any:
    """As a `datasets.Dataset`, of one split or of all."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    mine = [m for m in PICTURES if split in (None, m.split)]
    features = Features(
        {
            "image": ImageFeature(),
            "label": ClassLabel(names=list(LABELS)),
            "domain": Value("string"),
            **({} if split else {"split": Value("string")}),
        }
    )
    columns: dict[str, list[Any]] = {
        "image": [m.image for m in mine],
        "label": [LABELS.index(m.label) for m in mine],
        "domain": [m.domain for m in mine],
        **({} if split else {"split": [m.split for m in mine]}),
    }
    return Dataset.from_dict(columns, features=features)


def hub_dict() -> Any:
    """As a `datasets.DatasetDict`."""
    from datasets import DatasetDict

    return DatasetDict({split: hub(split) for split in ("train", "test")})


def saved(root: Path, source: Any) -> Path:
    """As a folder that `save_to_disk` wrote."""
    source.save_to_disk(str(root / "saved"))
    return root / "saved"


class Items(torch.utils.data.Dataset):
    """As a torch Dataset of mappings."""

    def __init__(self, split: str | None = None, *, tensors: bool = False) -> None:
        self.mine = [m for m in PICTURES if split in (None, m.split)]
        self.split, self.tensors = split, tensors

    def __len__(self) -> int:
        return len(self.mine)

    def __getitem__(self, number: int) -> dict[str, Any]:
        made = self.mine[number]
        pixels = torch.from_numpy(np.array(made.image)).permute(2, 0, 1) / 255
        image = pixels if self.tensors else made.image
        said = {"image": image, "label": made.label, "domain": made.domain}
        return said if self.split else {**said, "split": made.split}


def shards(root: Path, per_tar: int = 10) -> Path:
    """As WebDataset tars, written by hand."""
    root.mkdir(exist_ok=True)
    for start in range(0, len(PICTURES), per_tar):
        with tarfile.open(root / f"made-{start // per_tar:03d}.tar", "w") as tar:
            for made in PICTURES[start : start + per_tar]:
                said = {"domain": made.domain, "split": made.split, "label": made.label}
                for kind, data in (
                    ("png", made.png),
                    ("txt", f"caption {made.number}".encode()),
                    ("json", json.dumps(said).encode()),
                ):
                    member = tarfile.TarInfo(f"{made.number:04d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return root
