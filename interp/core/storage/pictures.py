"""Reading and preparing pictures: readers, stored bytes, preparation steps, preprocessing by the
batch; and the pictures read lately, kept decoded.
"""

import base64
import html
import io
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from interp.core.errors import DataError

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises over bytes that are no picture, or only part of one."""


@runtime_checkable
class Reader(Protocol):
    """Reads the picture of a row of an image table; readers must survive pickling.

    The row's `path` names the picture: two rows with one path are one picture.
    """

    def __call__(self, row: pd.Series) -> Image.Image:
        """The picture in the row, in any mode."""
        ...


@runtime_checkable
class Stored(Protocol):
    """A reader that can also return the bytes as they are stored, not decoded."""

    def stored(self, row: pd.Series) -> tuple[str, bytes]:
        """The suffix (".jpg") and the bytes."""
        ...


class Preparation(NamedTuple):
    """One step of a user's own preprocessing.

    Args:
        name: Its name, which enters the fingerprint.
        function: From picture to picture.
    """

    name: str
    function: Callable[[Image.Image], Image.Image]

    def apply(self, image: Image.Image, path: object) -> Image.Image:
        """Apply the step to a picture.

        Args:
            image: The picture.
            path: Its path, for messages.

        Returns:
            The picture after this step, as RGB.

        Raises:
            DataError: If the function fails or returns anything but a picture.
        """
        right = "a function from a PIL picture to a PIL picture"
        asked = f"prepare {path} with {self.name}"
        try:
            prepared = self.function(image)
        except Exception as error:  # a user's function may raise anything
            words = f"{type(error).__name__}: {error}"
            raise DataError(asked, f"one that fails ({words})", right, "mend it") from error
        if not isinstance(prepared, Image.Image):
            raise DataError(asked, f"one that returns {type(prepared).__name__}", right, "mend it")
        return prepared.convert("RGB")


Preprocess = Callable[[Image.Image], Tensor]


def picture_rows(
    rows: Sequence[Sequence[tuple[Image.Image, str]]], caption: str, side: int = 96
) -> str:
    """Pictures with words under them as HTML, for notebooks; it needs no file and no network.

    Args:
        rows: Rows of pictures, each with what stands under it.
        caption: What stands above all.
        side: Pixels of a picture's longer side.

    Returns:
        A table in HTML.

    >>> picture_rows([[(Image.new("RGB", (2, 2)), "<cat>")]], "1 picture").count("&lt;cat&gt;")
    2
    """
    lines = []
    for row in rows:
        cells = []
        for picture, words in row:
            small, made = picture.convert("RGB"), io.BytesIO()
            small.thumbnail((side, side))
            small.save(made, format="PNG")
            source = base64.b64encode(made.getvalue()).decode()
            image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(words)}">'
            cells.append(f"<td>{image}<br><small>{html.escape(words)}</small></td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<p>{html.escape(caption)}</p><table>{''.join(lines)}</table>"


def by_batch(
    preprocess: Callable[[Any], Any],
) -> tuple[Callable[[Any], Any], Callable[[Sequence[Any]], Tensor]]:
    """Split preprocessing into a part for each picture and a part for a batch of its results.

    Where the last two steps are `ToTensor` and `Normalize` of torchvision, or kinds of these, they
    are taken for all pictures at once in a tenth of the time, and held against the plain way on the
    first picture, to the last bit. Else the second part only stacks.

    >>> from torchvision.transforms import Compose, Normalize, ToTensor
    >>> usual = Compose([ToTensor(), Normalize((0.5,) * 3, (0.2,) * 3)])
    >>> picture = Image.new("RGB", (4, 4), "teal")
    >>> each, together = by_batch(usual)
    >>> bool((together([each(picture)])[0] == usual(picture)).all())
    True
    """
    from torchvision.transforms import Compose, Normalize, ToTensor

    steps: list[Any] = getattr(preprocess, "transforms", []) if type(preprocess) is Compose else []
    if len(steps) < 2 or not (isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize)):
        return preprocess, lambda tensors: torch.stack(list(tensors))
    *before, tensor, normalize = steps

    def together(pictures: Sequence[Any]) -> Tensor:
        sizes = {
            each.size if isinstance(each, Image.Image) and each.mode == "RGB" else None
            for each in pictures
        }
        first = normalize(tensor(pictures[0]))
        if len(sizes) == 1 and None not in sizes:
            levels = torch.from_numpy(np.stack([np.asarray(each) for each in pictures]))
            levels = levels.permute(0, 3, 1, 2).contiguous()
            made = normalize(levels.to(torch.get_default_dtype()).div_(255))
            if torch.equal(made[0], first):
                return made
        return torch.stack([first, *(normalize(tensor(each)) for each in pictures[1:])])

    return Compose(before), together


LIMIT = 256 * 2**20
"""Bytes of decoded pictures that a process keeps: 38,000 of 48 x 48, or 1,780 of 224 x 224."""


class Decoded:
    """Pictures of files by path, size and time, the latest ones kept up to a number of bytes.

    Args:
        limit: Bytes that are kept.

    >>> Decoded(limit=0).held
    0
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.held = limit, 0
        self._kept: OrderedDict[tuple[str, int, int], Image.Image] = OrderedDict()
        self._lock = Lock()

    def read(self, path: Path) -> Image.Image:
        """Read a picture as RGB, from memory if its file has not changed since.

        Args:
            path: The file.

        Returns:
            The picture, a copy that the caller may change.

        Raises:
            OSError: For a file that is missing or no picture, as Pillow raises it.
        """
        about = path.stat()
        key = (str(path), about.st_size, about.st_mtime_ns)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].copy()
        with Image.open(path) as stored:
            image = stored.convert("RGB")
        size = 3 * image.width * image.height
        if size <= self.limit:
            self._keep(key, image.copy(), size)
        return image

    def _keep(self, key: tuple[str, int, int], image: Image.Image, size: int) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = image
            self.held += size
            while self.held > self.limit:
                _, oldest = self._kept.popitem(last=False)
                self.held -= 3 * oldest.width * oldest.height


DECODED = Decoded()
"""Those of this process."""
