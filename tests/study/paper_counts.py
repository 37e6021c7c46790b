"""Folders with as many pictures as the data sets of the paper's studies, each a link to a tiny one.

Counts per domain are those that the data sets' authors publish; how they fall on classes is drawn.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from interp.core.seeds import rng

HELD_OUT = (
    *("aircraft_carrier", "axe", "banana", "barn", "bed", "candle", "lion", "mountain"),
    *("necklace", "penguin", "pizza", "saxophone", "television", "tractor", "traffic_light"),
)
DOMAINNET = {
    "clipart": 48_129, "infograph": 51_605, "painting": 72_266,
    "quickdraw": 172_500, "real": 172_947, "sketch": 69_128,
}  # fmt: skip
"""Peng et al. 2019, 345 classes, 586,575 pictures, three tenths of them for testing."""

PACS = {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929}
"""Li et al. 2017, 7 classes, 9,991 pictures."""

OFFICEHOME = {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357}
"""Venkateswara et al. 2017, 65 classes, 15,588 pictures."""

IMAGENET_CAPTIONS = 463_622
"""Fang et al. 2022."""

PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")

LINKS = 30_000
"""Names of one file; file systems allow some ten thousands."""


def classes(n: int, known: tuple[str, ...] = HELD_OUT) -> list[str]:
    """So many names of classes, the known ones among them."""
    return sorted([*known, *(f"thing_{number:03d}" for number in range(n - len(known)))])


def cell_counts(total: int, n_classes: int, name: str, *, least: int = 8) -> np.ndarray:
    """Pictures of every class of a domain: uneven, none below `least`, so many together."""
    share = rng(f"counts of {name}").dirichlet(np.full(n_classes, 5.0))
    counts = least + np.floor(share * (total - least * n_classes)).astype(int)
    counts[: total - counts.sum()] += 1
    return counts


def make_folder(
    root: Path, domains: Mapping[str, int], names: list[str], *, lists: bool, shrink: int = 1
) -> int:
    """Write `domain/class/*.png`, with DomainNet's lists if asked for; how many pictures."""
    made, source = 0, root
    for place, (domain, total) in enumerate(sorted(domains.items())):
        counts = cell_counts(total // shrink, len(names), domain, least=8)
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for number, (label, n) in enumerate(zip(names, counts.tolist(), strict=True)):
            folder = root / domain / label
            folder.mkdir(parents=True)
            for k in range(n):
                path = folder / f"{domain}_{number:03d}_{k:06d}.png"
                if made % LINKS == 0:
                    source = path
                    Image.new("RGB", (2, 2), (place, 0, 0)).save(path)
                else:
                    os.link(source, path)
                made += 1
                split = "test" if 10 * k < 3 * n else "train"
                lines[split].append(f"{domain}/{label}/{path.name} {number}")
        for split, each in lines.items():
            if lists:
                (root / f"{domain}_{split}.txt").write_text("\n".join(each) + "\n")
    return made


def make_captions(path: Path, n: int) -> None:
    """A base set of n captions; its pictures are named, and need not be there to be counted."""
    rows = (f"captions/{k:06d}.jpg\ta photo number {k}" for k in range(n))
    path.write_text("filepath\ttitle\n" + "\n".join(rows) + "\n")
