"""Pictures from a torch Dataset, a Hugging Face data set, or any sequence of items."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from PIL import Image

from interp.core.errors import DataError, PictureError, check_known, listed
from interp.core.images import ImageTable
from interp.core.progress import track
from interp.core.storage.store import fingerprint
from interp.data.sources.rows import Opening, complete_rows, whole

IMAGE = ("image", "img", "picture", "jpg", "png")
"""Names under which an item that is a mapping may hold its picture."""

Parts: TypeAlias = Mapping[str, Any]
"""Data sets by split: whatever has a length and gives items by their numbers."""


@dataclass(frozen=True)
class ItemReader:
    """Reads the picture of an item, whose number counts through all parts in turn.

    Args:
        parts: The data sets.
        key: Where an item holds its picture.
    """

    parts: tuple[Any, ...]
    key: str | int

    def __call__(self, row: pd.Series) -> Image.Image:
        """The picture of the row's item."""
        item = self.item(int(row["item"]))
        there = self.key in item if isinstance(item, Mapping) else not isinstance(self.key, str)
        return as_picture(item[self.key] if there else item, str(row["path"]))

    def item(self, number: int) -> Any:
        """An item of the data sets; a picture alone becomes a tuple of one."""
        ends = list(accumulate(len(part) for part in self.parts))
        part_number = bisect_right(ends, number)
        given = self.parts[part_number][number - (ends[part_number - 1] if part_number else 0)]
        return given if isinstance(given, (Mapping, Sequence)) else (given,)


def as_picture(thing: object, name: str) -> Image.Image:
    """Convert what data sets hold to a picture: a PIL picture, an array or tensor, bytes, a path.

    Args:
        thing: The value. Arrays are "row column", "row column channel" or "channel row column", in
            bytes or in [0, 1].
        name: Its name, for messages.

    Returns:
        The picture.

    Raises:
        DataError: For anything else, such as a normalised tensor.

    >>> as_picture(np.full((4, 6, 3), 0.5), "item 0").size
    (6, 4)
    """
    if isinstance(thing, Image.Image):
        return thing
    if isinstance(thing, Mapping) and {"bytes", "path"} & set(thing):
        thing = thing.get("bytes") or thing.get("path")
    if isinstance(thing, (bytes, bytearray, str, Path)):
        file = BytesIO(thing) if isinstance(thing, (bytes, bytearray)) else thing
        with Image.open(file) as image:
            return image.convert("RGB")
    values = np.asarray(thing) if hasattr(thing, "__array__") else None
    if values is None or values.ndim not in (2, 3) or not values.size:
        shape = "" if values is None else f" of shape {values.shape}"
        raise _no_picture(name, f"{type(thing).__name__}{shape}")
    return _from_array(values, name)


def _from_array(values: np.ndarray, name: str) -> Image.Image:
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        values = np.moveaxis(values, 0, 2)
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4):
        raise _no_picture(name, f"an array of shape {values.shape}")
    if np.issubdtype(values.dtype, np.floating):
        if not (values.min() >= 0 and values.max() <= 1):
            raise _no_picture(name, f"numbers from {values.min():.3g} to {values.max():.3g}")
        values = np.rint(values * 255)
    elif values.dtype == bool:
        values = values * 255
    elif values.min() < 0 or values.max() > 255:
        raise _no_picture(name, f"numbers from {values.min()} to {values.max()}")
    pixels = np.ascontiguousarray(values.astype(np.uint8))
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _no_picture(name: str, given: str) -> DataError:
    return DataError(
        f"read the picture of {name}",
        given,
        "a PIL picture, or an array in bytes or in [0, 1]",
        'leave normalisation out of the data set, or name the picture: columns={"image": "..."}',
    )


def open_sequence(source: Any, opening: Opening | None = None) -> ImageTable:
    """Open a torch Dataset or another sequence of items, or several by split.

    Args:
        source: A data set with a length, or `{"train": ..., "test": ...}`. Items are `(picture,
            label)`, or mappings with the columns of an image table and the picture under `image`.
        opening: What the source does not say itself; `columns` maps names, `image` included.

    Returns:
        The image table; items are read by number whenever a picture is needed.

    Raises:
        DataError: For data sets without a length, items without a picture or label, and pictures
            that differ when they are read twice (a random transform).

    Notes:
        Numbered classes get their names from the data set's `classes`, or from `Opening.labels`.
        Where the data set has `targets`, no item is read for its label; otherwise each is read
        once.

    >>> pictures = [(Image.new("RGB", (8, 8)), k % 2) for k in range(10)]
    >>> open_sequence(pictures, Opening(domain="photo", labels=["cat", "dog"])).labels
    ['cat', 'dog']
    """
    chosen = opening or Opening()
    parts = dict(source) if isinstance(source, Mapping) else {"": source}
    name = " and ".join(dict.fromkeys(type(part).__name__ for part in parts.values()))
    asked = f"read pictures from a {name}"
    check_parts(parts, asked)
    key = _picture_key(parts, chosen, asked)
    frame = _rows_of_parts(parts, partial(_item_rows, key=key))
    labels = chosen.labels or _class_names(parts, frame)
    frame = complete_rows(frame, replace(_without_image(chosen), labels=labels), asked)
    images = ImageTable(frame, Path(), name, "", ItemReader(tuple(parts.values()), key))
    _refuse_random(images, asked)
    return whole(images)


def check_parts(parts: Parts, asked: str) -> None:
    """Refuse sources without items by number: streams, paths, and empty ones.

    Args:
        parts: Data sets by split.
        asked: What was to be done, for the message.

    Raises:
        DataError: If a part cannot be indexed.
    """
    right = "a data set with a length, or several by split"
    if not parts:
        raise DataError(asked, "no data set in it", right, "check the source")
    for part in parts.values():
        if isinstance(part, (str, bytes, Path)):
            raise DataError(asked, f"the path {part}", right, "open each path by itself")
        if not (hasattr(part, "__getitem__") and hasattr(part, "__len__")):
            do = "load it without streaming, or pass the tars behind the stream"
            raise DataError(asked, "a stream, which has no items by number", right, do)


def _picture_key(parts: Parts, opening: Opening, asked: str) -> str | int:
    """The key under which the first item holds its picture."""
    first = next((part[0] for part in parts.values() if len(part)), None)
    if not isinstance(first, Mapping):
        return 0
    known = [str(name) for name in first]
    if "image" in opening.columns:
        check_known(asked, "column", [opening.columns["image"]], known)
        return opening.columns["image"]
    candidates = [name for name in IMAGE if name in known]
    if not candidates:
        given = f"items without a picture ({listed(known)})"
        right = f"a picture under {listed(IMAGE)}"
        raise DataError(asked, given, right, 'name it: columns={"image": "..."}')
    return candidates[0]


def _item_rows(part: Any, key: str | int) -> pd.DataFrame:
    """The columns of a part's items, without their pictures."""
    targets = getattr(part, "targets", None)
    if targets is not None and len(targets) == len(part) and key == 0:
        return pd.DataFrame({"label": [_plain(value) for value in targets]})
    numbers = track(range(len(part)), "read labels")
    return pd.DataFrame([_item_columns(part[number], key) for number in numbers])


def _rows_of_parts(parts: Parts, read: Callable[[Any], pd.DataFrame]) -> pd.DataFrame:
    """The rows of all parts, with their splits, paths and the numbers of their items."""
    frames = []
    for split, part in parts.items():
        frame = read(part).reindex(range(len(part)))
        if "path" not in frame.columns:
            frame["path"] = [f"{split or 'item'}/{number:07d}" for number in range(len(part))]
        frames.append(frame.assign(split=split) if split else frame)
    rows = pd.concat(frames, ignore_index=True)
    return rows.assign(item=range(len(rows)))


def _without_image(opening: Opening) -> Opening:
    """The same without a name for the picture, which is no column of the rows."""
    columns = {ours: theirs for ours, theirs in opening.columns.items() if ours != "image"}
    return replace(opening, columns=columns)


def _item_columns(item: Any, key: str | int) -> dict[str, object]:
    if isinstance(item, Mapping):
        columns = {str(name): _plain(value) for name, value in item.items() if name != key}
        return {name: value for name, value in columns.items() if np.isscalar(value)}
    return {"label": _plain(item[1])} if isinstance(item, (tuple, list)) and len(item) > 1 else {}


def _plain(value: Any) -> Any:
    """A number out of its array or tensor; other values unchanged."""
    return value.item() if hasattr(value, "__array__") and np.asarray(value).size == 1 else value


def _class_names(parts: Parts, frame: pd.DataFrame) -> Sequence[str] | None:
    """The data sets' own names for numbered classes, or None."""
    numbered = "label" in frame.columns and pd.api.types.is_integer_dtype(frame["label"])
    named = [list(map(str, getattr(part, "classes", None) or [])) for part in parts.values()]
    alike = all(names == named[0] for names in named)
    return named[0] if numbered and alike and named[0] else None


def _refuse_random(images: ImageTable, asked: str) -> None:
    """Read the first few pictures twice and refuse random transforms, since results are cached."""
    for row in range(min(len(images), 8)):
        try:
            once, again = (images.picture(row) for _ in range(2))
        except PictureError:
            continue  # `whole` counts it
        if once.size != again.size or once.tobytes() != again.tobytes():
            given = "pictures that differ when they are read twice"
            right = "one picture for each item"
            raise DataError(asked, given, right, "leave the random transform out of the data set")


def is_hub(source: object) -> bool:
    """Whether an object is a `datasets.Dataset`, `DatasetDict` or one of their streams.

    Args:
        source: Any object.

    Returns:
        True for one of these, judged by the name of its module.
    """
    # by name: the library is heavy, and need not be installed
    return type(source).__module__.split(".")[0] == "datasets"


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`.

    Args:
        folder: Any folder.

    Returns:
        True if it holds the files that `save_to_disk` writes.
    """
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def open_saved(folder: str | Path, opening: Opening | None = None) -> ImageTable:
    """Open a folder that `Dataset.save_to_disk` wrote.

    Args:
        folder: The folder.
        opening: What the source does not say itself.

    Returns:
        The image table.

    Raises:
        DataError: If the package `datasets` is missing, or the folder does not load.
    """
    asked = f"read the data set {folder}"
    try:
        from datasets import load_from_disk
    except ImportError:
        raise DataError(
            asked, "no package that reads it", "datasets", "pip install datasets"
        ) from None
    try:
        loaded = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = str(error).strip().split("\n")[0]
        raise DataError(
            asked, f"a folder that does not load ({words})", "what save_to_disk wrote", "save anew"
        ) from None
    return open_hub(loaded, opening)


def open_hub(source: Any, opening: Opening | None = None) -> ImageTable:
    """Open a `datasets.Dataset`, or a `DatasetDict` with its splits.

    Args:
        source: The data set.
        opening: What the source does not say itself; `columns["image"]` names the picture.

    Returns:
        The image table; pictures are decoded when they are read.

    Raises:
        DataError: For streams, and for data sets without a picture, label or domain.

    Notes:
        The picture is the column of type `Image`, or one with a usual name. Columns of type
        `ClassLabel` come with their names.
    """
    chosen = opening or Opening()
    parts = {str(k): v for k, v in source.items()} if isinstance(source, Mapping) else {"": source}
    asked = f"read pictures from a {type(source).__name__}"
    check_parts(parts, asked)
    key = _picture_column(next(iter(parts.values())), chosen, asked)
    rows = _rows_of_parts(parts, partial(_hub_rows, key=key))
    frame = complete_rows(rows, _without_image(chosen), asked)
    # only the pictures, so that reading one decodes nothing else
    reader = ItemReader(
        tuple(part.with_format(None).select_columns([key]) for part in parts.values()), key
    )
    prints = fingerprint([str(getattr(part, "_fingerprint", "")) for part in parts.values()])
    return whole(ImageTable(frame, Path(), _name(parts, source), prints, reader))


def _picture_column(part: Any, opening: Opening, asked: str) -> str:
    known = list(part.column_names)
    if "image" in opening.columns:
        check_known(asked, "column", [opening.columns["image"]], known)
        return opening.columns["image"]
    typed = [name for name, kind in part.features.items() if type(kind).__name__ == "Image"]
    candidates = typed + [name for name in IMAGE if name in known]
    if not candidates:
        given = f"no column of pictures ({listed(known)})"
        right = "a column of type Image"
        raise DataError(asked, given, right, 'cast it, or name it: columns={"image": "..."}')
    return candidates[0]


def _hub_rows(part: Any, key: str) -> pd.DataFrame:
    """The columns of a part's rows, class numbers as names, without pictures."""
    kinds = {name: kind for name, kind in part.features.items() if name != key}
    plain = [name for name, kind in kinds.items() if type(kind).__name__ in ("Value", "ClassLabel")]
    frame = part.with_format(None).select_columns(plain).to_pandas() if plain else pd.DataFrame()
    for name in plain:
        if type(kinds[name]).__name__ == "ClassLabel":
            names = dict(enumerate(kinds[name].names))
            frame[name] = [names.get(number, "") for number in frame[name]]
    return frame


def _name(parts: Parts, source: object) -> str:
    """The data set's own name, or its type."""
    info = getattr(next(iter(parts.values())), "info", None)
    return str(getattr(info, "dataset_name", None) or type(source).__name__)


def refuse_name(name: str) -> DataError:
    """The error for a data set given by name, since nothing is downloaded here.

    Args:
        name: What was given.

    Returns:
        The error, to be raised.
    """
    return DataError(
        f"read the data set {name}",
        "a name that is no folder on this machine",
        "a folder that save_to_disk wrote, or a data set object",
        f"load it first: open_images(datasets.load_dataset({name.removeprefix('hf:')!r}))",
    )
