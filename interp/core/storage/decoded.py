"""Pictures read lately, kept decoded: a study reads each of its pictures a dozen times."""

from collections import OrderedDict
from pathlib import Path
from threading import Lock

from PIL import Image

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
