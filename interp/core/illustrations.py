"""Plates: pictures that belong to a result, such as thumbnails and attention maps."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from interp.core.images import ImageTable
from interp.core.storage.store import fingerprint

GAP, ROOM = 3, 12
"""Pixels between two pictures of a sheet, and beside them between two groups."""

HEAD, LETTERS = 18, 12
"""Pixels of the line above a group, and of its letters."""


def sheet(
    rows: Sequence[Sequence[Image.Image]],
    side: int,
    *,
    across: int = 0,
    down: int = 0,
    heads: Sequence[str] = (),
) -> Image.Image:
    """Lay out square pictures in rows, with more room after every so many across and down.

    Args:
        rows: Rows of pictures, from the top.
        side: Pixels of a picture's side.
        across: Pictures of a group in a row; 0 for one group.
        down: Rows of a group; 0 for one group.
        heads: A line above each group of rows; none for none.

    Returns:
        The sheet.

    >>> sheet([[Image.new("RGB", (9, 9))] * 4] * 2, 9, across=2).size
    (60, 24)
    """

    def place(number: int, group: int, head: int = 0) -> int:
        turn = number // group if group else 0
        return number * (side + GAP) + turn * ROOM + (turn + 1) * head

    head = HEAD if heads else 0
    wide = max(map(len, rows))
    size = place(wide - 1, across) + side + GAP, place(len(rows) - 1, down, head) + side + GAP
    page = Image.new("RGB", size, "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            page.paste(picture, (place(column, across), place(row, down, head)))
    font = ImageFont.load_default(LETTERS)
    for number, words in enumerate(heads):
        top = place(number * max(down, 1), down, head) - head
        ImageDraw.Draw(page).text((1, top + head // 2), words, "black", font, anchor="lm")
    return page


@dataclass(frozen=True)
class Plate:
    """A picture with a caption and the keys of the table rows that it illustrates.

    Args:
        name: The name of its file, without suffix.
        image: The picture.
        caption: The caption.
        keys: Columns of the rows, with their values.
    """

    name: str
    image: Image.Image
    caption: str
    keys: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_model(
        cls, kind: str, place: Mapping[str, object], image: Image.Image, caption: str
    ) -> "Plate":
        """A plate of one model of a study, named by what it shows and by the model's place.

        Args:
            kind: What it shows, such as "moved".
            place: The model's place: setting, test domain, seed.
            image: The picture.
            caption: The caption.

        >>> Plate.of_model("moved", {"setting": "a, b"}, Image.new("RGB", (1, 1)), "").name[:10]
        'moved-a-b-'
        """
        keys = {"kind": kind, **{name: str(value) for name, value in place.items()}}
        words = f"{kind}-{keys.get('setting', '')}-{keys.get('test_domain', '')}"
        slug = re.sub(r"[^\w-]+", "-", words)
        return cls(f"{slug}-{fingerprint(keys)[:6]}", image, caption, keys)

    def save(self, folder: Path) -> Path:
        """Write the plate as PNG, caption and keys in its text chunks.

        Args:
            folder: Where to write; it is made if need be.

        Returns:
            The path.
        """
        from PIL.PngImagePlugin import PngInfo

        folder.mkdir(parents=True, exist_ok=True)
        notes = PngInfo()
        notes.add_itxt("caption", self.caption)
        for key, value in self.keys.items():
            notes.add_itxt(f"key:{key}", str(value))
        self.image.save(folder / f"{self.name}.png", pnginfo=notes)
        return folder / f"{self.name}.png"

    @classmethod
    def load(cls, path: Path) -> "Plate":
        """Read a plate that `save` wrote."""
        with Image.open(path) as image:
            image.load()
            notes = {str(key): str(value) for key, value in image.info.items()}
            keys = {
                name.removeprefix("key:"): value
                for name, value in notes.items()
                if name.startswith("key:")
            }
            return cls(path.stem, image.convert("RGB"), notes.get("caption", ""), keys)


def thumbnails(images: ImageTable, *, n_classes: int = 8, size: int = 96) -> list[Plate]:
    """One plate per domain: a picture each of a few classes, the same classes in every domain."""
    counts = images.counts()
    labels = [label for label in images.labels if (counts.loc[label] > 0).all()] or images.labels
    labels = labels[:: max(1, len(labels) // n_classes)][:n_classes]
    return [
        Plate(f"pictures-{domain}", page, f"{domain}: {', '.join(labels)}", {"domain": domain})
        for domain, page, _ in _sheets(images, labels, columns=len(labels), size=size)
    ]


def _sheets(
    images: ImageTable, labels: list[str], *, columns: int, size: int
) -> Iterator[tuple[str, Image.Image, list[str]]]:
    """For each domain its first picture of every class, in rows, and which classes it has."""
    for domain in images.domains:
        own = images.select(domain=domain)
        first = dict(zip(own.label[::-1], range(len(own) - 1, -1, -1), strict=True))
        page = Image.new("RGB", (columns * size, -(-len(labels) // columns) * size), "white")
        for number, label in enumerate(labels):
            if label in first:
                down, across = divmod(number, columns)
                picture = own.picture(first[label]).resize((size, size))
                page.paste(picture, (across * size, down * size))
        yield domain, page, [label if label in first else "" for label in labels]


MOST_CLASSES = 400
"""Classes in a contact sheet; of more, every second or third is shown."""


def contact_sheets(images: ImageTable, *, size: int = 40) -> list[Plate]:
    """A picture of every class in every domain: one plate per domain, the same places in each.

    A cell without pictures stays white. The plate's keys say how to cut it: `labels` (JSON),
    `columns` and `size` in pixels.
    """
    labels = images.labels[:: -(-len(images.labels) // MOST_CLASSES)]
    columns = math.ceil(math.sqrt(len(labels)))
    plates = []
    made = _sheets(images, labels, columns=columns, size=size)
    for place, (domain, page, words) in enumerate(made):
        keys = {"kind": "cells", "domain": domain, "labels": json.dumps(words)}
        keys |= {"columns": str(columns), "size": str(size)}
        caption = f"A picture of each of {sum(map(bool, words))} classes in {domain}"
        plates.append(Plate(f"cells-{place}", page, caption, keys))
    return plates
