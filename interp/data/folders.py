"""Pictures from `root/domain/class/*`, the layout of DomainNet, PACS and OfficeHome."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image

from interp.core.errors import DataError, listed
from interp.core.images import ImageTable
from interp.core.progress import say, track
from interp.core.seeds import rng
from interp.core.store import fingerprint
from interp.data.prompts import sentence

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
DECODED = 20_000
"""Up to this many pictures are decoded to see that they are whole; beyond it, headers are read."""


@dataclass
class Strays:
    """What lay in the folder and is no picture: skipped, counted and named in one line."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: Path) -> None:
        """Note a stray of a kind (hidden, not a picture, broken)."""
        self.names.setdefault(kind, []).append(path.name)

    def __str__(self) -> str:
        return "; ".join(
            f"{len(paths)} {kind} ({listed(paths, limit=3)})" for kind, paths in self.names.items()
        )


def open_folder(root: str | Path, *, test_share: float = 0.2, seed: int = 0) -> ImageTable:
    """The image table of `root/domain/class/*.{jpg,png,...}`.

    Strays (text, hidden files, broken pictures) are skipped, counted and named in one line. Each
    cell (class x domain) is split into `train` and `test` at random but repeatably; a picture
    counts as its own drawing, for nothing says otherwise.

    Raises `DataError` for a folder that is missing, empty or without the two levels, and for class
    names that differ only by case.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(
            f"read pictures from {folder}",
            "a file" if folder.exists() else "a folder that does not exist",
            "a folder laid out as domain/class/*.jpg",
            "check the path",
        )
    strays = Strays()
    rows = [
        (path, cell.name, cell.parent.name)
        for cell in _cells(folder, strays)
        for path in sorted(cell.iterdir())
        if _is_candidate(path, strays)
    ]
    keep = _readable([path for path, _, _ in rows], strays)
    if strays.names:
        say(f"skipped in {folder}: {strays}")
    rows = [row for row, good in zip(rows, keep, strict=True) if good]
    if not rows:
        raise DataError(
            f"read pictures from {folder}",
            f"no picture in it{_found(folder)}",
            "a folder laid out as domain/class/*.jpg",
            "point at the folder of domains",
        )
    frame = pd.DataFrame(
        {
            "path": [str(path.relative_to(folder)) for path, _, _ in rows],
            "label": [label for _, label, _ in rows],
            "domain": [domain for _, _, domain in rows],
        }
    )
    _check_case(frame, folder)
    frame["split"] = _split(frame, test_share, seed)
    frame["caption"] = [sentence("a TERM of a CLASS", "image", label) for label in frame["label"]]
    frame["drawing"] = frame["path"]
    sizes = [path.stat().st_size for path, _, _ in rows]
    return ImageTable(
        frame,
        folder.resolve(),
        folder.name,
        fingerprint(frame["path"].tolist(), sizes, test_share, seed),
    )


def _cells(folder: Path, strays: Strays) -> list[Path]:
    """The class folders, noting whatever else lies at the two upper levels."""
    cells = []
    for domain in sorted(folder.iterdir()):
        if domain.name.startswith(".") or not domain.is_dir():
            strays.add(
                "hidden" if domain.name.startswith(".") else "outside the two levels", domain
            )
            continue
        for cell in sorted(domain.iterdir()):
            if cell.name.startswith(".") or not cell.is_dir():
                strays.add(
                    "hidden" if cell.name.startswith(".") else "outside the two levels", cell
                )
            else:
                cells.append(cell)
    return cells


def _is_candidate(path: Path, strays: Strays) -> bool:
    if path.name.startswith("."):
        strays.add("hidden", path)
    elif not path.is_file() or path.suffix.lower() not in SUFFIXES:
        strays.add("no picture", path)
    else:
        return True
    return False


def _readable(paths: list[Path], strays: Strays) -> list[bool]:
    """Which files can be decoded (or, in a large folder, opened)."""
    keep = []
    for path in track(paths, "look at pictures"):
        try:
            with Image.open(path) as image:
                if len(paths) <= DECODED:
                    image.load()
            keep.append(True)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            strays.add("broken", path)
            keep.append(False)
    return keep


def _found(folder: Path) -> str:
    """Say where pictures were found instead, if they stand one level off."""
    if any(path.suffix.lower() in SUFFIXES for path in folder.glob("*")):
        return " at the second level (there are some in the folder itself)"
    if any(path.suffix.lower() in SUFFIXES for path in folder.glob("*/*")):
        return " at the second level (there are some at the first: domain or class is missing)"
    return ""


def _check_case(frame: pd.DataFrame, folder: Path) -> None:
    for column in ("label", "domain"):
        names = pd.Series(frame[column].unique())
        twins = names[names.str.casefold().duplicated(keep=False)]
        if len(twins):
            raise DataError(
                f"read pictures from {folder}",
                f"{column}s that differ only by case ({listed(sorted(twins))})",
                "one spelling for each",
                "rename the folders",
            )


def _split(frame: pd.DataFrame, test_share: float, seed: int) -> pd.Series:
    """Train or test, drawn within each cell; a cell of one picture is all test."""
    split = pd.Series("train", index=frame.index)
    for (label, domain), cell in frame.groupby(["label", "domain"], sort=True):
        n_test = max(1, round(test_share * len(cell)))
        chosen = rng(f"split/{domain}/{label}", seed).permutation(cell.index)[:n_test]
        split.loc[chosen] = "test"
    return split
