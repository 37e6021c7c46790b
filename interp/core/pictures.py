"""Reading and preparing the picture of a row: readers, stored bytes, preparation steps."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import pandas as pd
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


def gallery(rows: Sequence[Sequence[tuple[Image.Image, str]]], caption: str, side: int = 96) -> str:
    """Pictures with words under them as HTML, for notebooks; it needs no file and no network.

    Args:
        rows: Rows of pictures, each with what stands under it.
        caption: What stands above all.
        side: Pixels of a picture's longer side.

    Returns:
        A table in HTML.

    >>> gallery([[(Image.new("RGB", (2, 2)), "<cat>")]], "1 picture").count("&lt;cat&gt;")
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
