"""Opening of pictures: the embedded study, folders, lists, tables, data sets and shards.

A folder is `root/domain/class/*`, the layout of DomainNet, PACS and OfficeHome.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.core.errors import DataError, SpecificationError, check_known
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.storage.store import fingerprint
from interp.data.sources.rows import SUFFIXES, Opening, Strays, complete_rows, readable

if TYPE_CHECKING:
    from interp.data.artwork.embedded import EmbeddedSpec


@door
def open_images(
    source: Any = None,
    *,
    columns: Mapping[str, str] | None = None,
    domain: str | None = None,
    split: str | None = None,
    labels: Sequence[str] | Mapping[int, str] | None = None,
    test_share: float = 0.2,
    audit: str = "pictures",
    spec: "EmbeddedSpec | None" = None,
    jobs: int = 2,
    seed: int = 0,
) -> ImageTable:
    """Open the embedded artwork study, or pictures from any source.

    | `source` | what is read |
    |---|---|
    | None | the embedded study (`spec`), rendered into the cache the first time: about a minute |
    | a folder of `domain/class/*.jpg` | PACS, OfficeHome, one's own |
    | a folder of `class/*.jpg`, with `domain=` | one domain |
    | a folder with `real_train.txt`, `real_test.txt`, ... | DomainNet: the lists' split and order |
    | a `.csv`, `.tsv` or `.parquet` file | a row per picture: path, label, domain and more |
    | a `datasets.Dataset` or `DatasetDict`, or a folder that one was saved to | Hugging Face |
    | a torch `Dataset`, or `{"train": ..., "test": ...}` | items by number |
    | a folder of tars, `"shards-{000000..000003}.tar"`, a list of tars | WebDataset |

    Args:
        source: What to read, from the table above.
        columns: The source's name of each of our columns
            (`{"label": "class_name", "image": "photo"}`).
        domain: The domain of all rows; None reads the column or folder.
        split: The split of all rows; None reads the column.
        labels: Names of numbered classes.
        test_share: Share of each cell (class x domain) that becomes `test` where the source has no
            split, drawn at random but repeatably.
        audit: `pictures`, or `lists` to read DomainNet's lists without looking for their pictures.
        spec: The contents of the embedded study; None takes the defaults.
        jobs: Processes that render the embedded study.
        seed: Seed of the split.

    Returns:
        The image table.

    Raises:
        DataError: For a source that is missing, empty, or lacks a column.
        SpecificationError: For another word for `audit`.
    >>> open_images("no such folder")
    Traceback (most recent call last):
    ...
    interp.core.errors.DataError: Cannot read pictures from no such folder: ... Check the path.
    """
    if source is None:
        from interp.data.artwork.embedded import open_embedded

        return open_embedded(spec, jobs=jobs)
    return _open(source, Opening(columns or {}, domain, split, labels, test_share, seed), audit)


def _open(source: Any, opening: Opening, audit: str) -> ImageTable:
    """Pass the source to the function that can read it."""
    from interp.data.sources.datasets import is_hub, open_hub

    check_known("open pictures", "audit", [audit], ("pictures", "lists"), SpecificationError)
    if is_hub(source):
        return open_hub(source, opening)
    if isinstance(source, (str, Path)):
        return _open_path(Path(str(source).removeprefix("hf:")), str(source), opening, audit)
    paths = isinstance(source, (list, tuple)) and len(source) > 0
    if paths and all(isinstance(each, (str, Path)) for each in source):
        from interp.data.sources.shards import open_shards

        return open_shards(source, opening)
    from interp.data.sources.datasets import open_sequence

    return open_sequence(source, opening)


def _open_path(path: Path, given: str, opening: Opening, audit: str) -> ImageTable:
    """Open a file or folder, recognised by its name and contents."""
    from interp.data.sources.datasets import is_saved, open_saved, refuse_name
    from interp.data.sources.lists import SEPARATORS, has_lists, open_lists, open_table
    from interp.data.sources.shards import holds_shards, open_shards

    if given.startswith("hf:") and not is_saved(path):
        raise refuse_name(given)
    if path.suffix.lower() in SEPARATORS and not path.is_dir():
        return open_table(path, opening)
    if path.suffix.lower() == ".tar" or holds_shards(path):
        return open_shards(given, opening)
    if is_saved(path):
        return open_saved(path, opening)
    if has_lists(path):
        return open_lists(path, opening, pictures=audit == "pictures")
    return _open_folder(path, opening)


def _open_folder(folder: Path, opening: Opening) -> ImageTable:
    """Open a folder laid out as `root/domain/class/*.{jpg,png,...}`, or one domain's of classes.

    Every picture counts as a drawing of its own. Other files (text, hidden files, broken pictures)
    are skipped, counted and named in one line.
    """
    if not folder.is_dir():
        given = "a file" if folder.exists() else "a folder that does not exist"
        right = "a folder laid out as domain/class/*.jpg"
        raise DataError(f"read pictures from {folder}", given, right, "check the path")
    flat = opening.domain is not None and _holds_pictures(folder, "*/*")
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
    drawn = Opening(test_share=opening.test_share, seed=opening.seed)
    decisive = (drawn.test_share, drawn.seed, *([] if opening == drawn else [opening.plain()]))
    return ImageTable(
        complete_rows(frame, opening, f"read pictures from {folder}"),
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
