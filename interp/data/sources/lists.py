"""Pictures listed in files: tables with a row per picture, and lists beside
`domain/class/*` folders, as in DomainNet and PACS.

`real_train.txt` and `real_test.txt` (Peng et al. 2019) hold a line per picture, its path and the
number of its class: `real/aircraft_carrier/real_001_000001.jpg 0`. The lists' own split and order
are kept, since the first n of a list are what Kempf et al. (2025) train on.

PACS (Li et al. 2017) calls them `sketch_train_kfold.txt` and `sketch_crossval_kfold.txt`; only both
together are taken as lists. Its `sketch_test_kfold.txt` names all of them again, for tests in a
domain that was not trained on.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from interp.core.errors import DataError, listed
from interp.core.images import ImageTable
from interp.core.storage.store import file_hash, fingerprint
from interp.data.sources.rows import (
    DECODED,
    Opening,
    Strays,
    complete_rows,
    readable,
    refuse_missing,
)

_LIST = re.compile(r"(?P<domain>.+)_(?P<split>train|test|train_kfold|crossval_kfold)\.txt")
SPLITS = {"train_kfold": "train", "crossval_kfold": "test"}


def has_lists(folder: Path) -> bool:
    """Whether a folder holds lists of pictures.

    Args:
        folder: Any folder.

    Returns:
        True if there is at least one.
    """
    return bool(_lists(folder))


def open_lists(
    root: str | Path, opening: Opening | None = None, *, pictures: bool = True
) -> ImageTable:
    """Open a folder with `{domain}_train.txt` and `{domain}_test.txt`, or with PACS's lists.

    Args:
        root: The folder of lists.
        opening: What the source does not say itself.
        pictures: Whether to check the pictures; False reads the lists alone, to count what mixtures
            would hold.

    Returns:
        The image table in list order: domains by name, `train` before `test`. `label`, `domain` and
        `split` are categorical columns. The classes are the names of the folders.

    Raises:
        DataError: For lines that do not parse, numbers that contradict the folders, pictures in two
            lists, and pictures that are missing.

    Notes:
        The class numbers (`class_id`) may begin anywhere, but one number must mean one class. In a
        small set all pictures are decoded, and broken ones are skipped, counted and named. In a
        large one, each class folder is listed once.
    """
    folder, chosen = Path(root), opening or Opening()
    asked = f"read lists of pictures in {folder}"
    files = _lists(folder)
    if not files:
        raise DataError(
            asked, "none", "real_train.txt, real_test.txt and so on", "point at the folder of lists"
        )
    frame = pd.concat(
        [
            _read(path, match["domain"], SPLITS.get(match["split"], match["split"]))
            for path, match in files.items()
        ],
        ignore_index=True,
    )
    _check_numbers(frame, asked)
    for column in ("label", "domain", "split"):
        frame[column] = frame[column].astype(pd.CategoricalDtype(sorted(frame[column].unique())))
    frame = complete_rows(frame, chosen, asked)
    key = fingerprint({p.name: file_hash(p) for p in files}, chosen.plain())
    images = ImageTable(frame, folder.resolve(), folder.name, key)
    return _with_pictures(images, asked) if pictures else images


def _lists(folder: Path) -> dict[Path, re.Match[str]]:
    """The lists in a folder by name, `train` before `test`."""
    matched = {path: _LIST.fullmatch(path.name) for path in folder.glob("*.txt")}
    of_pacs = {match["domain"] for match in matched.values() if match and match["split"] in SPLITS}
    whole = {
        domain
        for domain in of_pacs
        if all((folder / f"{domain}_{split}.txt").is_file() for split in SPLITS)
    }
    matches = {
        path: match
        for path, match in matched.items()
        if match and (match["split"] not in SPLITS or match["domain"] in whole)
    }
    return dict(
        sorted(
            matches.items(),
            key=lambda item: (item[1]["domain"], not item[1]["split"].startswith("train")),
        )
    )


def _read(path: Path, domain: str, split: str) -> pd.DataFrame:
    """Parse one list, in which every line is a path of three parts and a number."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"read the list {path}", f"a file that does not read ({error})", "text", "mend it"
        ) from None
    rows, labels, numbers = [], [], []
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, number = line.strip().rpartition(" ")
        parts = name.strip().split("/")
        if len(parts) != 3 or parts[0] != domain or not number.isdigit():
            given = f"line {line_number}, {line.strip()!r}"
            right = f"{domain}/class/picture.jpg and the number of its class"
            raise DataError(f"read the list {path}", given, right, "correct the line")
        rows.append(name.strip())
        labels.append(parts[1])
        numbers.append(int(number))
    return pd.DataFrame(
        {"path": rows, "label": labels, "class_id": numbers, "domain": domain, "split": split}
    ).astype({"path": object, "label": object, "domain": object, "split": object, "class_id": int})


def _check_numbers(frame: pd.DataFrame, asked: str) -> None:
    """Refuse a number of two classes or a class of two numbers, in all lists together."""
    pairs = frame[["label", "class_id"]].drop_duplicates()
    for column, other in (("class_id", "label"), ("label", "class_id")):
        twice = pairs[pairs[column].duplicated(keep=False)].sort_values([column, other])
        if len(twice):
            conflicts = [f"{row.label} is {row.class_id}" for row in twice.itertuples()]
            given = f"numbers that contradict the folders ({listed(conflicts, limit=4)})"
            right = "one number for each class"
            raise DataError(asked, given, right, "use lists and folders of one release")


def _with_pictures(images: ImageTable, asked: str) -> ImageTable:
    """The rows whose pictures are readable; missing ones are refused."""
    do = 'get them, remove lists of absent domains, or pass audit="lists" to read the lists alone'
    refuse_missing(images.root, images.path, asked, do)
    if len(images) > DECODED:
        return images
    strays = Strays()
    keep = readable([images.root / path for path in images.path], strays)
    strays.report(images.root)
    return images[np.asarray(keep)] if not all(keep) else images


SEPARATORS = {".csv": ",", ".tsv": "\t", ".parquet": None}
"""The suffixes of tables, and what stands between their fields."""


def open_table(source: str | Path, opening: Opening | None = None) -> ImageTable:
    """Open a CSV, TSV or parquet file with the columns `path`, `label` and `domain`.

    Args:
        source: The file. Columns `split`, `caption`, `artist`, `drawing` are used, others are kept.
            Relative paths start at its folder.
        opening: What the source does not say itself; `columns` maps our names to the file's.

    Returns:
        The image table; broken pictures are skipped, counted and named.

    Raises:
        DataError: For a file that cannot be parsed, missing columns, and rows whose pictures are
            missing.

    Notes:
        open_clip's column names `filepath` and `title` are known.
    """
    path, chosen = Path(source), opening or Opening()
    asked = f"read pictures from {path}"
    frame = complete_rows(_table(path, asked), chosen, asked)
    root = path.resolve().parent
    refuse_missing(root, frame["path"], asked, "correct the paths, or move the file beside them")
    sizes: list[int] = []
    if len(frame) <= DECODED:
        files = [root / each for each in frame["path"]]
        strays = Strays()
        keep = readable(files, strays)
        strays.report(path)
        if not any(keep):
            given = f"{len(frame)} files, none of which is a picture"
            raise DataError(asked, given, "jpg, png or other pictures", "check the column of paths")
        frame = frame[keep].reset_index(drop=True)
        sizes = [each.stat().st_size for each, good in zip(files, keep, strict=True) if good]
    key = fingerprint(file_hash(path), chosen.plain(), sizes)
    return ImageTable(frame, root, path.name, key)


def _table(path: Path, asked: str) -> pd.DataFrame:
    """Read the file unchanged: blank fields stay blank, and a class called "nan" stays a class."""
    right = f"a file that ends in {listed(SEPARATORS)}"
    if not path.is_file():
        raise DataError(asked, "a file that does not exist", right, "check the path")
    separator = SEPARATORS.get(path.suffix.lower())
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(
                path, sep=separator, keep_default_na=False, dtype=dict.fromkeys(_TEXT, str)
            )
    except ImportError:
        raise DataError(
            asked, "no package that reads parquet", "pyarrow", "pip install pyarrow"
        ) from None
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors are ValueErrors
        words = str(error).strip().split("\n")[0]
        raise DataError(asked, f"a file that does not read ({words})", right, "mend it") from None
    return frame.rename(columns=str)


_TEXT = ("path", "filepath", "file_name", "label", "class", "domain", "split", "caption", "title")
