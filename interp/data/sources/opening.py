"""Opening of pictures: the embedded study, folders, lists, tables, data sets and shards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.core.faces.doors import door

if TYPE_CHECKING:
    from interp.core.images import ImageTable
    from interp.data.artwork.embedded import EmbeddedSpec
    from interp.data.sources.rows import Opening

__all__ = ["open_images"]


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
) -> "ImageTable":
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
    from interp.data.sources.rows import Opening

    return _open(source, Opening(columns or {}, domain, split, labels, test_share, seed), audit)


def _open(source: Any, opening: "Opening", audit: str) -> "ImageTable":
    """Pass the source to the function that can read it."""
    from interp.core.errors import SpecificationError, check_known
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


def _open_path(path: Path, given: str, opening: "Opening", audit: str) -> "ImageTable":
    """Open a file or folder, recognised by its name and contents."""
    from interp.data.sources.datasets import is_saved, open_saved, refuse_name
    from interp.data.sources.folders import open_folder
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
    return open_folder(path, opening=opening)
