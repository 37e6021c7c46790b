"""A training TSV written as WebDataset shards, to be trained on with a base set of shards.

open_clip reads several sets of shards as one list of files: every shard once an epoch, in a seeded
order, its pictures mixed in a buffer of 5,000. The rows of a mixture are therefore shuffled before
they are written, and spread over small shards, so that they meet the base set's pictures in a
batch.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from interp.core.errors import DataError, SpecificationError
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.store import complete, file_hash
from interp.models.identity import STAMP
from interp.models.lists import read_tsv

PER_SHARD = 1000
AT_LEAST = 16
"""Shards that even a small set is spread over, so that processes and workers each get some."""
AS_THEY_ARE = (".jpg", ".jpeg", ".png", ".webp")
"""Picture files that open_clip reads out of shards; others become PNG."""


@dataclass(frozen=True)
class Base:
    """A base set of shards that is added whole: their `pattern`, and how many pictures they hold.

    >>> Base("cc3m/{00000..00331}.tar", 2_905_954).pictures
    2905954
    """

    pattern: str
    pictures: int

    def __post_init__(self) -> None:
        if self.pictures < 1 or not self.pattern:
            raise SpecificationError(
                "train on a base set",
                f"{self.pictures} pictures in {self.pattern!r}",
                "a pattern of shards and their number of pictures",
                "count them",
            )


def count_for(n_rows: int) -> int:
    """How many shards a list of so many rows is spread over."""
    return min(n_rows, max(AT_LEAST, -(-n_rows // PER_SHARD)))


def pattern_of(folder: Path, n_rows: int) -> str:
    """The shards of a list, in the words that open_clip expands.

    >>> pattern_of(Path("m/shards"), 2500)
    'm/shards/mixture-{00000..00015}.tar'
    """
    return str(folder / f"mixture-{{00000..{count_for(n_rows) - 1:05d}}}.tar")


def pack(tsv: Path, folder: Path) -> str:
    """Write a TSV's pictures and captions into shards, once; return the shards' pattern.

    Files go in as they are, in a shuffled order that depends on nothing. Shards that are there and
    were made from the same TSV stay. Raises `DataError` for a picture that is not there.
    """
    frame = read_tsv(tsv, "title")
    order = rng("shards", 0).permutation(len(frame))
    n_shards, pattern = count_for(len(frame)), pattern_of(folder, len(frame))
    made, stamp = file_hash(tsv), folder / STAMP
    if stamp.is_file() and stamp.read_text() == made:
        return pattern
    with complete(folder) as temporary:
        parts = np.array_split(order, n_shards)
        for number, rows in enumerate(track(parts, f"pack {tsv.parent.name}")):
            with tarfile.open(temporary / f"mixture-{number:05d}.tar", "w") as shard:
                for row in rows.tolist():
                    for name, content in _files(row, *frame.iloc[row]):
                        entry = tarfile.TarInfo(name)
                        entry.size = len(content)
                        shard.addfile(entry, io.BytesIO(content))
        (temporary / stamp.name).write_text(made)
    return pattern


def _files(row: int, filepath: str, title: str) -> Iterator[tuple[str, bytes]]:
    """A picture and its caption, under one key."""
    path, key = Path(filepath), f"{row:09d}"
    try:
        content, suffix = path.read_bytes(), path.suffix.lower()
        if suffix not in AS_THEY_ARE:
            stream = io.BytesIO()
            with Image.open(path) as picture:
                picture.save(stream, "png")
            content, suffix = stream.getvalue(), ".png"
    except OSError as error:
        raise DataError(
            "write the mixture as shards",
            f"{path}, which does not read ({error.strerror or error})",
            "a picture",
            "restore it, or make the mixture again",
        ) from None
    yield f"{key}{suffix}", content
    yield f"{key}.txt", title.encode()
