"""Pictures from `root/domain/class/*`, the layout of DomainNet, PACS and OfficeHome."""

from pathlib import Path

import pandas as pd

from interp.core.errors import DataError
from interp.core.images import ImageTable
from interp.core.storage.store import fingerprint
from interp.data.sources.rows import Opening, complete_rows
from interp.data.sources.strays import DECODED, SUFFIXES, Strays, readable

__all__ = ["DECODED", "SUFFIXES", "open_folder"]


def open_folder(
    root: str | Path, *, test_share: float = 0.2, seed: int = 0, opening: Opening | None = None
) -> ImageTable:
    """Open a folder laid out as `root/domain/class/*.{jpg,png,...}`, or one domain's of classes.

    Args:
        root: The folder of domains.
        test_share: Share of each cell (class x domain) that becomes `test`.
        seed: Seed of the split.
        opening: What the source does not say itself. If given, its `test_share` and `seed` are used
            instead of the two above. With a domain, the folder may be laid out as `class/*.jpg`.

    Returns:
        The image table; every picture counts as a drawing of its own.

    Raises:
        DataError: For a folder that is missing, empty or without the two levels, and for class
            names that differ only by case.

    Notes:
        Other files (text, hidden files, broken pictures) are skipped, counted and named in one
        line.
    """
    chosen = opening or Opening(test_share=test_share, seed=seed)
    folder = Path(root)
    if not folder.is_dir():
        given = "a file" if folder.exists() else "a folder that does not exist"
        right = "a folder laid out as domain/class/*.jpg"
        raise DataError(f"read pictures from {folder}", given, right, "check the path")
    flat = chosen.domain is not None and _holds_pictures(folder, "*/*")
    paths = _pictures(folder, flat=flat)
    if not paths:
        given = f"no picture in it{_other_place(folder)}"
        right = "a folder laid out as domain/class/*.jpg"
        do = "point at the folder of domains, or say domain= for a folder of classes"
        raise DataError(f"read pictures from {folder}", given, right, do)
    frame = pd.DataFrame(
        {
            "path": [str(path.relative_to(folder)) for path in paths],
            "label": [path.parent.name for path in paths],
            "domain": [path.parent.parent.name for path in paths],
        }
    )
    sizes = [path.stat().st_size for path in paths]
    drawn = Opening(test_share=chosen.test_share, seed=chosen.seed)
    decisive = (drawn.test_share, drawn.seed, *([] if chosen == drawn else [chosen.plain()]))
    return ImageTable(
        complete_rows(frame, chosen, f"read pictures from {folder}"),
        folder.resolve(),
        folder.name,
        fingerprint(frame["path"].tolist(), sizes, *decisive),
    )


def _holds_pictures(folder: Path, pattern: str) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.glob(pattern))


def _pictures(folder: Path, *, flat: bool) -> list[Path]:
    """The readable pictures of all cells in order; of one domain's where the folder is `flat`."""
    strays = Strays()
    paths = [
        path
        for cell in (_folders(folder, strays) if flat else _cells(folder, strays))
        for path in sorted(cell.iterdir())
        if _is_candidate(path, strays)
    ]
    keep = readable(paths, strays)
    strays.report(folder)
    return [path for path, good in zip(paths, keep, strict=True) if good]


def _cells(folder: Path, strays: Strays) -> list[Path]:
    """The class folders of all domains."""
    return [cell for domain in _folders(folder, strays) for cell in _folders(domain, strays)]


def _folders(folder: Path, strays: Strays) -> list[Path]:
    """The folders of one level, in order; whatever else is there is noted in `strays`."""
    kept = []
    for each in sorted(folder.iterdir()):
        if each.name.startswith("."):
            strays.add("hidden", each)
        elif not each.is_dir():
            strays.add("outside the two levels", each)
        else:
            kept.append(each)
    return kept


def _is_candidate(path: Path, strays: Strays) -> bool:
    if path.name.startswith("."):
        strays.add("hidden", path)
    elif not path.is_file() or path.suffix.lower() not in SUFFIXES:
        strays.add("no picture", path)
    else:
        return True
    return False


def _other_place(folder: Path) -> str:
    """Where pictures are instead, in words, if they are one level off."""
    if _holds_pictures(folder, "*"):
        return " at the second level (there are some in the folder itself)"
    if _holds_pictures(folder, "*/*"):
        return " at the second level (there are some at the first: domain or class is missing)"
    return ""
