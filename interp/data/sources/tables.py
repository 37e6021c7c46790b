"""Pictures listed in a table: a CSV, TSV or parquet file with a row per picture."""

from pathlib import Path

import pandas as pd

from interp.core.errors import DataError, listed
from interp.core.images import ImageTable
from interp.core.storage.store import file_hash, fingerprint
from interp.data.sources.rows import Opening, complete_rows
from interp.data.sources.strays import DECODED, Strays, readable, refuse_missing

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
    frame = complete_rows(_read(path, asked), chosen, asked)
    root = path.resolve().parent
    refuse_missing(root, frame["path"], asked, "correct the paths, or move the file beside them")
    sizes: list[int] = []
    if len(frame) <= DECODED:
        files = [root / each for each in frame["path"]]
        strays = Strays()
        keep = readable(files, strays)
        strays.report(path)
        if not any(keep):
            raise DataError(
                asked,
                f"{len(frame)} files, none of which is a picture",
                "jpg, png or other pictures",
                "check the column of paths",
            )
        frame = frame[keep].reset_index(drop=True)
        sizes = [each.stat().st_size for each, good in zip(files, keep, strict=True) if good]
    key = fingerprint(file_hash(path), chosen.plain(), sizes)
    return ImageTable(frame, root, path.name, key)


def _read(path: Path, asked: str) -> pd.DataFrame:
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
