"""How one picture is read: from a file, or by a reader of one's own, and prepared on the way."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import pandas as pd
from PIL import Image

from interp.core.errors import DataError

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises over bytes that are no picture, or only part of one."""


@runtime_checkable
class Reader(Protocol):
    """What makes a picture of a row of an image table; readers must survive pickling.

    The row's `path` names the picture: two rows with one path are one picture.
    """

    def __call__(self, row: pd.Series) -> Image.Image:
        """The picture in the row, in any mode."""
        ...


@runtime_checkable
class Stored(Protocol):
    """A reader that can also hand out the bytes as they are stored, not decoded."""

    def stored(self, row: pd.Series) -> tuple[str, bytes]:
        """The suffix (".jpg") and the bytes."""
        ...


class Preparation(NamedTuple):
    """One step of a user's own preprocessing: picture in, picture out."""

    name: str
    function: Callable[[Image.Image], Image.Image]

    def apply(self, image: Image.Image, path: object) -> Image.Image:
        """The picture after this step, as RGB.

        Raises `DataError` when the function fails or returns anything else than a picture.
        """
        right = "a function from a PIL picture to a PIL picture"
        asked = f"prepare {path} with {self.name}"
        try:
            made = self.function(image)
        except Exception as error:  # a user's function may raise anything
            words = f"{type(error).__name__}: {error}"
            raise DataError(asked, f"one that fails ({words})", right, "mend it") from error
        if not isinstance(made, Image.Image):
            raise DataError(asked, f"one that returns {type(made).__name__}", right, "mend it")
        return made.convert("RGB")
