"""Where pictures come from, what is said about them, and which of them a model is trained on."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.core.images import ImageTable
    from interp.data.embedded import EmbeddedSpec

__all__ = ["open_images"]


def open_images(
    source: "str | Path | None" = None,
    *,
    spec: "EmbeddedSpec | None" = None,
    jobs: int = 2,
    seed: int = 0,
) -> "ImageTable":
    """The image table of the embedded artwork study, or of a folder `root/domain/class/*.jpg`.

    Without a source, the study is rendered into the user's cache folder the first time (about a
    minute), and read from there afterwards; `spec` says how large it is.

    >>> open_images("no such folder")
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot read pictures from no such folder: ... Check the path.
    """
    if source is None:
        from interp.data.embedded import open_embedded

        return open_embedded(spec, jobs=jobs)
    from interp.data.folders import open_folder

    return open_folder(source, seed=seed)
