"""Plates: pictures that belong to a result, such as thumbnails and attention maps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image


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

    def save(self, folder: Path) -> Path:
        """Write the plate as PNG, caption and keys in its text chunks."""
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
