"""Pictures from Hugging Face data sets: an object in memory, or a folder saved to disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from interp.core.errors import DataError, check_known, listed
from interp.core.images import ImageTable
from interp.core.store import fingerprint
from interp.data.rows import Opening, complete_rows
from interp.data.sequences import IMAGE, ItemReader, check_parts
from interp.data.strays import whole


def is_hub(source: object) -> bool:
    """Whether an object is a `datasets.Dataset`, `DatasetDict` or one of their streams."""
    # by name: the library is heavy, and need not be installed
    return type(source).__module__.split(".")[0] == "datasets"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def open_saved(folder: str | Path, opening: Opening | None = None) -> ImageTable:
    """The image table of a folder that `Dataset.save_to_disk` wrote."""
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
    """The image table of a `datasets.Dataset`, or of a `DatasetDict` with its splits.

    The picture is the column of type `Image` (or named as such), or `Opening.columns["image"]`;
    columns of type `ClassLabel` come with their names. Pictures are decoded when they are read.

    Raises `DataError` for streams, and for data sets without a picture, label or domain.
    """
    chosen = opening or Opening()
    parts = {str(k): v for k, v in source.items()} if isinstance(source, Mapping) else {"": source}
    asked = f"read pictures from a {type(source).__name__}"
    check_parts(parts, asked)
    key = _picture_column(next(iter(parts.values())), chosen, asked)
    frame = pd.concat([_say(part, split, key) for split, part in parts.items()], ignore_index=True)
    columns = {ours: theirs for ours, theirs in chosen.columns.items() if ours != "image"}
    rows = frame.assign(item=range(len(frame)))
    frame = complete_rows(rows, replace(chosen, columns=columns), asked)
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
    found = typed + [name for name in IMAGE if name in known]
    if not found:
        raise DataError(
            asked,
            f"no column of pictures ({listed(known)})",
            "a column of type Image",
            'cast it, or name it: columns={"image": "..."}',
        )
    return found[0]


def _say(part: Any, split: str, key: str) -> pd.DataFrame:
    """What a part says of its rows, class numbers as names, pictures left out."""
    kinds = {name: kind for name, kind in part.features.items() if name != key}
    plain = [name for name, kind in kinds.items() if type(kind).__name__ in ("Value", "ClassLabel")]
    frame = part.with_format(None).select_columns(plain).to_pandas() if plain else pd.DataFrame()
    for name in plain:
        if type(kinds[name]).__name__ == "ClassLabel":
            names = dict(enumerate(kinds[name].names))
            frame[name] = [names.get(number, "") for number in frame[name]]
    if "path" not in frame.columns:
        frame = frame.reindex(range(len(part)))
        frame["path"] = [f"{split or 'item'}/{number:07d}" for number in range(len(part))]
    return frame.assign(split=split) if split else frame


def _name(parts: Mapping[str, Any], source: object) -> str:
    """What the data set calls itself, or its type."""
    info = getattr(next(iter(parts.values())), "info", None)
    return str(getattr(info, "dataset_name", None) or type(source).__name__)


def refuse_name(name: str) -> DataError:
    """The error for a data set by name: nothing is downloaded here."""
    return DataError(
        f"read the data set {name}",
        "a name that is no folder on this machine",
        "a folder that save_to_disk wrote, or a data set object",
        f"load it first: open_images(datasets.load_dataset({name.removeprefix('hf:')!r}))",
    )
