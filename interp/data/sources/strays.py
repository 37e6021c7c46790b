"""Files and rows that are no readable pictures: skipped and named, or refused where missing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from interp.core.errors import DataError, PictureError, listed
from interp.core.images import COLUMNS, ImageTable
from interp.core.progress import say, track
from interp.core.storage.pictures import UNREADABLE
from interp.core.storage.store import fingerprint

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
DECODED = 20_000
"""Up to this many pictures are decoded to see that they are whole; beyond it, headers are read."""


@dataclass
class Strays:
    """Files or items that are not usable pictures: skipped, counted and named in one line.

    Args:
        names: Names by kind.
    """

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: Path) -> None:
        """Record one of a kind (hidden, not a picture, broken)."""
        self.names.setdefault(kind, []).append(path.name)

    def report(self, where: object) -> None:
        """Print what was skipped, if anything was."""
        if self.names:
            say(f"skipped in {where}: {self}")

    def __str__(self) -> str:
        return "; ".join(
            f"{len(paths)} {kind} ({listed(paths, limit=3)})" for kind, paths in self.names.items()
        )


def readable(paths: Sequence[Path], strays: Strays) -> list[bool]:
    """Which files can be decoded; beyond `DECODED` files, only opened.

    Args:
        paths: The files.
        strays: Where broken ones are recorded.

    Returns:
        A Boolean per file.
    """
    keep = []
    for path in track(paths, "look at pictures"):
        try:
            with Image.open(path) as image:
                if len(paths) <= DECODED:
                    image.load()
            keep.append(True)
        except UNREADABLE:
            strays.add("broken", path)
            keep.append(False)
    return keep


def whole(images: ImageTable) -> ImageTable:
    """Keep the rows whose pictures can be read; others are counted and named.

    Args:
        images: The table; of a large one at most `DECODED` rows are read, spread evenly.

    Returns:
        The rows kept, with a fingerprint of what was read.

    Raises:
        DataError: If no picture can be read.
    """
    seen = blake2b(digest_size=8)
    keep = np.ones(len(images), dtype=bool)
    strays = Strays()
    step = -(-len(images) // DECODED) or 1
    for row in track(range(0, len(images), step), "look at pictures"):
        try:
            image = images.picture(row)
            seen.update(repr(image.size).encode() + image.tobytes())
        except PictureError:
            strays.add("broken", Path(str(images.path.iloc[row])))
            keep[row] = False
    strays.report(images.source)
    if not keep.any():
        given = f"{len(images)} rows, none of which holds a picture"
        right = "pictures that can be decoded"
        do = "look at the source with another program"
        raise DataError(f"read pictures from {images.source}", given, right, do)
    columns = images.frame[list(COLUMNS)].to_csv(index=False)
    key = fingerprint(images.fingerprint, columns, seen.hexdigest())
    return replace(images if keep.all() else images[keep], fingerprint=key)


def missing(root: Path, paths: pd.Series) -> np.ndarray:
    """Which of many files do not exist, found by listing each folder once.

    Args:
        root: Where relative paths start.
        paths: The files.

    Returns:
        A Boolean per file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.png").write_text("")
    ...     missing(Path(folder), pd.Series(["a.png", "b.png", "c/d.png"])).tolist()
    [False, True, True]
    """
    # one listing per folder: a stat per file takes many minutes over a network
    ends = paths.astype(str).str.rpartition("/")
    absent = np.ones(len(paths), dtype=bool)
    for parent, names in ends.reset_index(drop=True).groupby(0, sort=False):
        folder = root / (
            "/" if not parent and str(paths.iloc[names.index[0]])[0] == "/" else parent
        )
        try:
            there = set(os.listdir(folder))  # noqa: PTH208 - names, not 587k Path objects
        except OSError:
            continue
        absent[names.index] = ~names[2].isin(there).to_numpy()
    return absent


def refuse_missing(root: Path, paths: pd.Series, asked: str, do: str) -> None:
    """Refuse files that do not exist.

    Args:
        root: Where relative paths start.
        paths: The files.
        asked: What was to be done, for the message.
        do: What to do, for the message.

    Raises:
        DataError: With the count and the first names.
    """
    absent = missing(root, paths)
    if absent.any():
        raise DataError(
            asked,
            f"{absent.sum()} of {len(paths)} pictures that are not there "
            f"({listed(paths[absent], limit=3)}, looked for in {root})",
            "a file for every row",
            do,
        )
