"""Rows of a source of pictures: their columns completed and checked, and strays left out.

Every source (folders, lists, frames, data sets, shards) gives some of path, label, domain, split
and caption. Here its columns get our names, numbers become class names, contradictions are refused,
and missing columns are filled in the same way for all sources. Strays are files and rows that are
no readable pictures: skipped and named, or refused where missing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from interp.core.errors import DataError, PictureError, check_known, listed
from interp.core.images import COLUMNS, ImageTable
from interp.core.progress import say, track
from interp.core.seeds import rng
from interp.core.storage.pictures import UNREADABLE
from interp.core.storage.store import fingerprint
from interp.data.mixtures.templates import sentence

SYNONYMS = {"path": ("filepath", "file_name"), "caption": ("title", "text"), "label": ("class",)}
"""Names that open_clip's lists and data sets give our columns; an exact name comes first."""

VALIDATION = ("validation", "valid", "val")
"""Splits that serve as `test` where a source has none of that name."""


@dataclass(frozen=True)
class Opening:
    """What the user says of a source that it does not say itself.

    Args:
        columns: The source's name of each of our columns.
        domain: The domain of all rows; None reads the column.
        split: The split of all rows; None reads the column.
        labels: Names of numbered classes.
        test_share: Share of each cell that becomes `test` where there is no split.
        seed: Seed of that split.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    domain: str | None = None
    split: str | None = None
    labels: Sequence[str] | Mapping[int, str] | None = None
    test_share: float = 0.2
    seed: int = 0

    def plain(self) -> dict[str, object]:
        """The same in plain values, for a fingerprint."""
        numbered = _numbered(self.labels)
        return {**asdict(self), "columns": dict(self.columns), "labels": list(numbered.items())}


def complete_rows(frame: pd.DataFrame, opening: Opening, asked: str) -> pd.DataFrame:
    """Complete and check the columns of an image table, in the order of its rows.

    Args:
        frame: What the source says.
        opening: What the user says of it.
        asked: What was to be done, for messages.

    Returns:
        The completed frame. Exact repetitions are dropped and counted in a line.

    Raises:
        DataError: For an empty source, unknown columns, no label or domain, numbers without a name,
            names that differ only by case, and a picture with two descriptions.

    Notes:
        Rows without a split are drawn into `train` and `test` within each cell (class x domain). A
        missing caption names the class in neutral words. Without a column `drawing`, a picture
        counts as its own drawing.
    """
    named = _rename(frame, opening, asked)
    if named.empty:
        raise DataError(asked, "no row in it", "at least one picture", "check the source")
    for column in ("label", "domain"):
        if column not in named.columns:
            raise _unsaid(column, frame, asked)
    named = named.assign(
        label=_names(named["label"], opening.labels, asked), domain=_words(named["domain"])
    )
    for column in ("path", "label", "domain"):
        _refuse_blank(named, column, asked)
    named = _refuse_contradictions(named, asked)
    check_case(named, asked)
    named["split"] = _said_split(named, opening, asked)
    if "caption" not in named.columns:
        named["caption"] = neutral_captions(named["label"])
    if "drawing" not in named.columns:
        named["drawing"] = named["path"]
    rest = [name for name in named.columns if name not in COLUMNS]
    return named[[*COLUMNS, *rest]]


def neutral_captions(labels: pd.Series) -> list[str]:
    """A caption per row that names its class and no domain.

    Args:
        labels: The class of each row.

    Returns:
        The captions.
    """
    words = {name: sentence("a TERM of a CLASS", "image", str(name)) for name in labels.unique()}
    return [words[name] for name in labels]


def check_case(frame: pd.DataFrame, asked: str) -> None:
    """Refuse classes or domains that differ only by case, since some file systems merge them.

    Args:
        frame: Columns `label` and `domain`.
        asked: What was to be done, for the message.

    Raises:
        DataError: With the names in question.
    """
    for column in ("label", "domain"):
        names = pd.Series([str(name) for name in frame[column].unique()], dtype=object)
        twins = names[names.str.casefold().duplicated(keep=False)]
        if len(twins):
            given = f"{column}s that differ only by case ({listed(sorted(twins))})"
            raise DataError(asked, given, "one spelling for each", "rename them at the source")


def draw_split(frame: pd.DataFrame, test_share: float, seed: int) -> pd.Series:
    """Draw `train` or `test` within each cell; a cell of one picture is all test.

    Args:
        frame: Columns `label` and `domain`.
        test_share: Share of each cell that becomes `test`.
        seed: Seed of the draw.

    Returns:
        The split of each row.
    """
    split = pd.Series("train", index=frame.index)
    cells = frame.groupby(["label", "domain"], sort=True, observed=True)
    for (label, domain), cell in cells:  # type: ignore[misc]
        n_test = max(1, round(test_share * len(cell)))
        chosen = rng(f"split/{domain}/{label}", seed).permutation(cell.index)[:n_test]
        split.loc[chosen] = "test"
    return split


def _rename(frame: pd.DataFrame, opening: Opening, asked: str) -> pd.DataFrame:
    """A copy with our names for columns, and with the domain that holds for all rows."""
    known = [str(name) for name in frame.columns]
    check_known(asked, "column", opening.columns.values(), known)
    # a column of ours that another one replaces
    replaced = set(opening.columns) - set(opening.columns.values())
    named = frame.drop(columns=[name for name in known if name in replaced])
    named = named.rename(columns={theirs: ours for ours, theirs in opening.columns.items()})
    for ours, others in SYNONYMS.items():
        synonyms = [name for name in others if name in named.columns]
        if ours not in named.columns and synonyms:
            named = named.rename(columns={synonyms[0]: ours})
    if "path" not in named.columns:
        raise _unsaid("path", frame, asked)
    if opening.domain is not None:
        named = named.assign(domain=opening.domain)
    return named.reset_index(drop=True)


def _unsaid(column: str, frame: pd.DataFrame, asked: str) -> DataError:
    own = "" if column != "domain" else ', or domain="photo" if all rows are of one domain'
    return DataError(
        asked,
        f"no {column} in the columns {listed(frame.columns)}",
        f"a column {column}",
        f'pass columns={{"{column}": "..."}} with the name that the source gives it{own}',
    )


def _words(column: pd.Series) -> pd.Series:
    """Names as text; missing ones as the empty text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column
    return column.astype(object).where(column.notna(), "").map(str)


def _numbered(labels: Sequence[str] | Mapping[int, str] | None) -> dict[int, str]:
    if labels is None:
        return {}
    return {
        int(k): str(v)
        for k, v in (labels.items() if isinstance(labels, Mapping) else enumerate(labels))
    }


def _names(
    column: pd.Series, labels: Sequence[str] | Mapping[int, str] | None, asked: str
) -> pd.Series:
    """Class names, by number where `labels` names numbers."""
    words, numbered = _words(column), _numbered(labels)
    if not numbered:
        return words
    by_word = {str(number): name for number, name in numbered.items()}
    unknown = sorted(set(map(str, words.unique())) - set(by_word))
    if unknown:
        given = f"classes without a name in labels ({listed(unknown)})"
        right = f"the numbers {listed(by_word)}"
        raise DataError(asked, given, right, "pass labels= with a name for every number")
    return words.map(by_word)


def _refuse_blank(frame: pd.DataFrame, column: str, asked: str) -> None:
    blank = np.flatnonzero((frame[column].astype(str).str.strip() == "").to_numpy())
    if len(blank):
        given = f"{len(blank)} rows without a {column} (rows {listed(blank, limit=3)}, from 0)"
        raise DataError(asked, given, f"a {column} in every row", "fill or remove them")


def _refuse_contradictions(frame: pd.DataFrame, asked: str) -> pd.DataFrame:
    """Drop rows that repeat another; refuse a picture in two classes, domains or splits."""
    columns = [name for name in ("path", "label", "domain", "split") if name in frame.columns]
    again = frame["path"].duplicated()
    if not again.any():
        return frame
    alike = frame.duplicated(columns)
    twice = frame["path"][again & ~alike]
    if len(twice):
        raise DataError(
            asked,
            f"{twice.nunique()} pictures in two classes, domains or splits "
            f"({listed(twice.unique(), limit=3)})",
            "one row for each picture",
            "remove the wrong rows",
        )
    say(f"dropped {alike.sum()} repeated rows ({listed(frame['path'][alike], limit=3)})")
    return frame[~alike].reset_index(drop=True)


def _said_split(frame: pd.DataFrame, opening: Opening, asked: str) -> pd.Series:
    if opening.split is not None:
        return pd.Series(opening.split, index=frame.index)
    words = _words(frame["split"]) if "split" in frame.columns else None
    if words is None or (words == "").all():
        return draw_split(frame, opening.test_share, opening.seed)
    _refuse_blank(frame.assign(split=words), "split", asked)
    names = set(words.unique())
    stands_in = [name for name in VALIDATION if name in names]
    if "test" not in names and stands_in:
        say(f"{stands_in[0]} serves as test")
        return words.astype(object).map(lambda name: "test" if name == stands_in[0] else name)
    return words


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
DECODED = 20_000
"""Up to this many pictures are decoded to see that they are whole; beyond it, headers are read."""


@dataclass
class Strays:
    """Files or items that are not usable pictures: skipped, counted and named in one line.

    Args:
        names: Names by kind.
    """

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: Path) -> None:
        """Record one of a kind (hidden, not a picture, broken)."""
        self.names.setdefault(kind, []).append(path.name)

    def report(self, where: object) -> None:
        """Print what was skipped, if anything was."""
        if self.names:
            say(f"skipped in {where}: {self}")

    def __str__(self) -> str:
        return "; ".join(
            f"{len(paths)} {kind} ({listed(paths, limit=3)})" for kind, paths in self.names.items()
        )


def readable(paths: Sequence[Path], strays: Strays) -> list[bool]:
    """Which files can be decoded; beyond `DECODED` files, only opened.

    Args:
        paths: The files.
        strays: Where broken ones are recorded.

    Returns:
        A Boolean per file.
    """
    keep = []
    for path in track(paths, "look at pictures"):
        try:
            with Image.open(path) as image:
                if len(paths) <= DECODED:
                    image.load()
            keep.append(True)
        except UNREADABLE:
            strays.add("broken", path)
            keep.append(False)
    return keep


def whole(images: ImageTable) -> ImageTable:
    """Keep the rows whose pictures can be read; others are counted and named.

    Args:
        images: The table; of a large one at most `DECODED` rows are read, spread evenly.

    Returns:
        The rows kept, with a fingerprint of what was read.

    Raises:
        DataError: If no picture can be read.
    """
    seen, strays = blake2b(digest_size=8), Strays()
    keep = np.ones(len(images), dtype=bool)
    step = -(-len(images) // DECODED) or 1
    for row in track(range(0, len(images), step), "look at pictures"):
        try:
            image = images.picture(row)
            seen.update(repr(image.size).encode() + image.tobytes())
        except PictureError:
            strays.add("broken", Path(str(images.path.iloc[row])))
            keep[row] = False
    strays.report(images.source)
    if not keep.any():
        given = f"{len(images)} rows, none of which holds a picture"
        right, do = "pictures that can be decoded", "look at the source with another program"
        raise DataError(f"read pictures from {images.source}", given, right, do)
    columns = images.frame[list(COLUMNS)].to_csv(index=False)
    key = fingerprint(images.fingerprint, columns, seen.hexdigest())
    return replace(images if keep.all() else images[keep], fingerprint=key)


def missing(root: Path, paths: pd.Series) -> np.ndarray:
    """Which of many files do not exist, found by listing each folder once.

    Args:
        root: Where relative paths start.
        paths: The files.

    Returns:
        A Boolean per file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.png").write_text("")
    ...     missing(Path(folder), pd.Series(["a.png", "b.png", "c/d.png"])).tolist()
    [False, True, True]
    """
    # one listing per folder: a stat per file takes many minutes over a network
    ends = paths.astype(str).str.rpartition("/")
    absent = np.ones(len(paths), dtype=bool)
    for parent, names in ends.reset_index(drop=True).groupby(0, sort=False):
        folder = root / (
            "/" if not parent and str(paths.iloc[names.index[0]])[0] == "/" else parent
        )
        try:
            there = set(os.listdir(folder))  # noqa: PTH208 - names, not 587k Path objects
        except OSError:
            continue
        absent[names.index] = ~names[2].isin(there).to_numpy()
    return absent


def refuse_missing(root: Path, paths: pd.Series, asked: str, do: str) -> None:
    """Refuse files that do not exist.

    Args:
        root: Where relative paths start.
        paths: The files.
        asked: What was to be done, for the message.
        do: What to do, for the message.

    Raises:
        DataError: With the count and the first names.
    """
    absent = missing(root, paths)
    if absent.any():
        raise DataError(
            asked,
            f"{absent.sum()} of {len(paths)} pictures that are not there "
            f"({listed(paths[absent], limit=3)}, looked for in {root})",
            "a file for every row",
            do,
        )
