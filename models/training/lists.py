"""Training lists: the rows of a mixture's TSV, the numbers of its classes, and its shards."""

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from interp.core.errors import DataError, SpecificationError, listed
from interp.core.progress import track
from interp.core.seeds import rng
from interp.core.storage.store import complete, file_hash
from interp.models.training.resume import STAMP


def read_tsv(tsv: Path, column: str) -> pd.DataFrame:
    """Read the columns `filepath` and `column` of a training TSV as text.

    Args:
        tsv: The file.
        column: A column of captions, labels or domains; "null" is a word like others.

    Returns:
        The two columns.

    Raises:
        DataError: If the file, the columns or the rows are missing.
    """
    try:
        frame = pd.read_csv(tsv, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"train on {tsv}", f"a file that does not read ({error})", "a TSV", "check the path"
        ) from None
    missing = [name for name in ("filepath", column) if name not in frame.columns]
    if missing or frame.empty:
        given = f"no column {listed(missing)}" if missing else "no rows"
        raise DataError(
            f"train on {tsv}", given, f"rows with filepath and {column}", "make the mixture again"
        )
    return frame[["filepath", column]]


def classes_of(tsv: Path) -> tuple[str, ...]:
    """The class names of a training TSV, sorted; their order gives the class numbers.

    Args:
        tsv: The file.

    Returns:
        The names.

    Raises:
        DataError: If a row has no label.
    """
    labels = read_tsv(tsv, "label")["label"]
    without = int((labels == "").sum())
    if without:
        given = f"{without} rows without a label"
        do = "leave the base set out of the mixture, or name its classes"
        raise DataError(f"train on the labels of {tsv}", given, "a class for every row", do)
    return tuple(sorted(set(labels)))


def numbering(classes: Sequence[str]) -> Callable[[list[str]], Tensor]:
    """Make the function from class names to their numbers.

    Args:
        classes: The classes in order.

    Returns:
        A function of a list of names.

    >>> numbering(["cat", "dog"])(["dog"])
    tensor([1])
    """
    number = {name: index for index, name in enumerate(classes)}
    return lambda names: torch.tensor([number[name] for name in names])


PER_SHARD = 1000
AT_LEAST = 16
"""Shards that even a small set is spread over, so that processes and workers each get some."""
AS_THEY_ARE = (".jpg", ".jpeg", ".png", ".webp")
"""Picture files that open_clip reads out of shards; others become PNG."""


@dataclass(frozen=True)
class Base:
    """A base set of shards that is added whole to the training pictures.

    Args:
        pattern: The shards' paths, in braces as open_clip expands them.
        pictures: Number of pictures that they hold.

    >>> Base("cc3m/{00000..00331}.tar", 2_905_954).pictures
    2905954
    """

    pattern: str
    pictures: int

    def __post_init__(self) -> None:
        if self.pictures < 1 or not self.pattern:
            given = f"{self.pictures} pictures in {self.pattern!r}"
            right = "a pattern of shards and their number of pictures"
            raise SpecificationError("train on a base set", given, right, "count them")


def count_for(n_rows: int) -> int:
    """Number of shards that a list of `n_rows` rows is spread over."""
    return min(n_rows, max(AT_LEAST, -(-n_rows // PER_SHARD)))


def pattern_of(folder: Path, n_rows: int) -> str:
    """The pattern of a list's shards, in braces as open_clip expands them.

    Args:
        folder: The folder of shards.
        n_rows: Number of rows of the list.

    Returns:
        The pattern.

    >>> pattern_of(Path("m/shards"), 2500)
    'm/shards/mixture-{00000..00015}.tar'
    """
    return str(folder / f"mixture-{{00000..{count_for(n_rows) - 1:05d}}}.tar")


def pack(tsv: Path, folder: Path) -> str:
    """Write a TSV's pictures and captions into shards, once.

    Args:
        tsv: The training list.
        folder: Where to write; shards made from the same TSV are kept.

    Returns:
        The shards' pattern.

    Raises:
        DataError: For a picture that is missing.

    Notes:
        Files are written unchanged, in a shuffled order that is always the same.
    """
    frame = read_tsv(tsv, "title")
    order = rng("shards", 0).permutation(len(frame))
    n_shards, pattern = count_for(len(frame)), pattern_of(folder, len(frame))
    tsv_hash, stamp = file_hash(tsv), folder / STAMP
    if stamp.is_file() and stamp.read_text() == tsv_hash:
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
        (temporary / stamp.name).write_text(tsv_hash)
    return pattern


@contextmanager
def readable(asked: str, path: str | Path) -> Iterator[None]:
    """Turn what goes wrong with a picture's file in a `with` block into an error of ours.

    Args:
        asked: What was to be done, for the message.
        path: The file.

    Returns:
        A context.

    Raises:
        DataError: For an `OSError` in the block.
    """
    try:
        yield
    except OSError as error:
        given = f"{path}, which does not read ({error.strerror or error})"
        right = "a picture"
        raise DataError(asked, given, right, "restore it, or make the mixture again") from None


def _files(row: int, filepath: str, title: str) -> Iterator[tuple[str, bytes]]:
    """A picture and its caption under one key."""
    path, key = Path(filepath), f"{row:09d}"
    with readable("write the mixture as shards", path):
        content, suffix = path.read_bytes(), path.suffix.lower()
        if suffix not in AS_THEY_ARE:
            buffer = io.BytesIO()
            with Image.open(path) as picture:
                picture.save(buffer, "png")
            content, suffix = buffer.getvalue(), ".png"
    yield f"{key}{suffix}", content
    yield f"{key}.txt", title.encode()
